# Run this cell first. On your own computer it only finds the project. On Kaggle and Colab it also fetches it
# and installs what is missing; where the GPU or the internet is switched off, it says what to click.
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = ""  # OWNER/REPO on GitHub, once the project is published there
VERSION = "v0.1.0"  # the tag that belongs to this notebook

on_kaggle, on_colab = "KAGGLE_KERNEL_RUN_TYPE" in os.environ, "google.colab" in sys.modules
here, attached = Path.cwd().resolve(), Path("/kaggle/input")
# What lies in Kaggle's working folder becomes the notebook's output, so there the copy goes elsewhere.
copy = (Path(tempfile.gettempdir()) if on_kaggle else here) / f"captioning-{VERSION}"
places = [here, *here.parents, copy, *here.glob("*")]
for layout in ("*", "datasets/*/*", "*/*", "datasets/*/*/*"):  # Kaggle mounts datasets in one of two ways
    places += attached.glob(layout)
project = next((place for place in places if os.path.isfile(place / "helpers/bootstrap.py")), None)

if project is None and REPOSITORY and (on_kaggle or on_colab):
    address = f"https://github.com/{REPOSITORY}"
    shutil.rmtree(copy, ignore_errors=True)  # half a copy, if anything
    clone = ["git", "clone", "--quiet", "--depth=1", f"--branch={VERSION}", address, copy]
    if (git := subprocess.run(clone, capture_output=True, text=True)).returncode:
        raise SystemExit(f"{address} cannot be fetched ({git.stderr.strip()}).\nIs the internet on? Kaggle: "
                         "Settings > Turn on internet (Kaggle asks for a verified phone number once).")
    project = copy
if project is None:
    raise SystemExit("The project was not found. Bring it here, and run this cell again.\n"
                     "Kaggle: Add Input (on the right) > Datasets, and choose it.\n"
                     "Colab: upload its .zip (the folder symbol on the left), then !unzip -q NAME.zip\n"
                     "On both, if it is on GitHub: write OWNER/REPO into REPOSITORY above.\n"
                     "Elsewhere: open this notebook inside the project.")
sys.path.insert(0, str(project))

from helpers.hosted import prepare

prepare()
