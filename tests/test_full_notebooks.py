"""Every notebook in the full profile, from its first cell to its last: on a CPU, with the downloads of tests/stand_ins.py.

What a notebook claims of a trained model is claimed of the tiny profile only. All else holds here too: a cell that raises an
error fails the test, unless it is one that shows this very error.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests import stand_ins

NOTEBOOKS = sorted((stand_ins.ROOT / "notebooks").glob("*.ipynb"))
# No notebook's default. In the quickest one, their layouts are read, looked at and counted.
OTHERS = [("01_data_exploration", name) for name in ("flickr30k", "coco2017", "coco-karpathy")]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    return stand_ins.make(tmp_path_factory.mktemp("served"))


def execute(path: Path, served: Path, work_dir: Path, **variables: str) -> nbformat.NotebookNode:
    """The notebook, executed in the full profile. Raises CellExecutionError at the first cell that should not fail."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, startup_timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env=stand_ins.environment(served, work_dir) | {"OMP_NUM_THREADS": "1"} | variables)
    return notebook


def errors(notebook: nbformat.NotebookNode) -> list[str]:
    """The errors that its cells raised, by name."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.ename for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_the_full_profile(path, served, tmp_path):
    notebook = execute(path, served, tmp_path)
    # One that shows what a trained model gets wrong may find random weights innocent.
    assert Counter(errors(notebook)) <= Counter(errors(nbformat.read(path, as_version=4))), "no error but those that it shows"
    said = json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert "profile            full" in said and "precision 32-true" in said
    assert str(tmp_path / "home") not in said, "nothing shows the home folder"


@pytest.mark.parametrize(("name", "dataset"), OTHERS)
def test_other_datasets_come_from_kaggle_too(name, dataset, served, tmp_path):
    notebook = execute(stand_ins.ROOT / "notebooks" / f"{name}.ipynb", served, tmp_path, CAPTIONING_DATASET=dataset)
    assert f"{dataset}: {stand_ins.PICTURES} pictures" in json.dumps(notebook.cells)


def test_the_stand_ins_are_whole(served):
    """As many pictures as are listed, and Flickr30k's row without its delimiter."""
    slugs = {path.relative_to(served / "kaggle").as_posix() for path in (served / "kaggle").glob("*/*")}
    assert slugs == {"adityajn105/flickr8k", "hsankesara/flickr-image-dataset", "awsaf49/coco-2017-dataset",
                     "shtvkumar/karpathy-splits"}  # fmt: skip
    inner = served / "kaggle/hsankesara/flickr-image-dataset/flickr30k_images"
    assert len(os.listdir(inner / "flickr30k_images")) == stand_ins.PICTURES
    assert (inner / "results.csv").read_text(encoding="utf-8").splitlines()[-1] == stand_ins.BROKEN_ROW
