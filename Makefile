# Thin: every target prints the plain commands it runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: install run test record lint spice tiny clean
install: $(INSTALLED)

$(INSTALLED): requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt -c constraints.txt
	$(BIN)/python -c "from helpers.environment import install_clip; install_clip('-c', 'constraints.txt')"
	touch $@

run: install  ## the notebooks in order, executed into outputs/; then the scores and the captioned pictures
	CAPTIONING_PROGRESS=0 $(BIN)/jupyter nbconvert --to notebook --execute --output-dir outputs notebooks/0*.ipynb
	$(BIN)/python -m helpers.results outputs

test: install  ## the unit tests, and every notebook against its committed outputs
	$(BIN)/pytest --nbval -n 2 --dist loadfile

record: run  ## keep the scores and minutes of this machine's run under results/, and put the table into the README
	$(BIN)/python -m helpers.results outputs --keep

lint: install
	$(BIN)/ruff check .

spice: install  ## CoreNLP's jars (385 MB) into data/spice, for the score SPICE: from Stanford, else by Maven
	$(BIN)/python -m helpers.spice

tiny: install  ## make data/tiny anew, about 13 minutes on 2 cores
	$(BIN)/python -m helpers.pretrain

clean:
	rm -rf outputs data/scenes data/scenes-sketch data/scenes10 data/cache
