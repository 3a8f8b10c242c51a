# Thin: every target prints the plain commands it runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: install run test test-kaggle record lint spice tiny clean
install: $(INSTALLED)

$(INSTALLED): requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements.txt -c constraints.txt
	$(BIN)/python -c "from helpers.hosted import install_clip; install_clip('-c', 'constraints.txt')"
	touch $@

run: install  ## the notebooks in order, executed into outputs/; then the scores and the captioned pictures
	CAPTIONING_PROGRESS=0 $(BIN)/jupyter nbconvert --to notebook --execute --output-dir outputs notebooks/0*.ipynb
	$(BIN)/python -m helpers.results outputs

test: install  ## the unit tests, and every notebook against its committed outputs
	$(BIN)/pytest --nbval -n 2 --dist loadfile

# A slow job beside `test`: minutes and 5 GB for another environment. The outputs of the notebooks are compared strictly there too.
KAGGLE_PYTHON ?= python3.12
IPYWIDGETS ?= 8.1.5
test-kaggle:  ## the same tests with Kaggle's and Colab's versions (constraints-kaggle.txt); IPYWIDGETS=7.7.1 is Colab's
	$(KAGGLE_PYTHON) -m venv .venv-kaggle
	.venv-kaggle/bin/pip install --quiet -r requirements.txt ipywidgets==$(IPYWIDGETS) -c constraints-kaggle.txt
	.venv-kaggle/bin/python -c "from helpers.hosted import install_clip; install_clip('-c', 'constraints-kaggle.txt')"
	.venv-kaggle/bin/pytest --nbval -n 2 --dist loadfile

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
