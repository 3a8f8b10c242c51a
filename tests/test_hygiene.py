"""What a reader relies on: executed notebooks with one bootstrap cell, and rooms that import only whom they may."""

import ast
import json
import re
import statistics
from pathlib import Path

import pytest

from helpers.environment import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
TAGS = {"nbval-ignore-output", "raises-exception"}

# Who may import whom, as folders and files under helpers/ (the base: everyone may).
BASE = {"errors", "files", "environment", "hub", "disk", "mounts"}
ALLOWED = {
    "mounts": set(),
    "environment": {"errors", "mounts"},
    "data": BASE | {"data"},
    "models": BASE | {"models"},
    "training": BASE | {"settings", "callbacks", "devices", "loggers", "attached"},
    "attached": BASE | {"settings"},  # for its types only
    "disk": BASE,
    "build": BASE | {"data", "models"},
    "presets": BASE | {"settings"},
    "flops": BASE | {"memory"},
    "architectures": BASE | {"data", "models", "contrast"},
    "training_plan": BASE | {"architectures", "build", "data", "flops", "memory", "models", "settings", "clip_from_scratch"},
    "callbacks": BASE | {"settings", "training"},  # training: for its types only
    "devices": BASE,
    "loggers": BASE | {"settings", "devices"},
    "settings": BASE,
    "model_card": set(),
    "memory": BASE,
    "share": BASE | {"captioner", "checkpoints", "model_card"},
    "java": BASE,
    "scorers": BASE | {"java", "spice"},
    "spice": BASE | {"java"},
    "comparison": BASE,
    "bertscore": BASE | {"comparison"},
    "metrics": BASE | {"java", "scorers", "spice", "comparison"},
    "baselines": BASE,
    "figures": BASE | {"data", "figures"},  # it opens pictures
    "overlays": BASE | {"data", "figures", "captioner"},
    "captioner": BASE | {"data"},
    "experiments": BASE | {"settings", "recipes", "data", "java", "metrics", "figures", "captioner",
                           "retrieval_experiments"},
    "retrieval": BASE | {"data", "metrics"},
    "clipscore": BASE | {"data", "comparison"},
    "diversity": BASE | {"metrics"},
    "mentions": BASE | {"data", "comparison"},
    "fooling": BASE | {"data", "clipscore", "comparison", "mentions"},
    "evaluation": BASE | {"attached", "data", "captioner", "checkpoints", "clipscore", "bertscore", "comparison", "contrast",
                          "metrics", "retrieval", "spice"},
    "classifier": BASE | {"data", "models", "metrics"},
    "contrast": BASE | {"data", "models", "devices", "settings", "training", "loaders"},
    "loaders": BASE | {"data", "devices", "settings", "training"},
    "original_clipcap": BASE | {"data"},
    "checkpoints": BASE | {"data", "models", "captioner", "original_clipcap", "model_card"},
    "bootstrap": {"hosted"},
    "hosted": BASE,
    "first_cell": BASE,
    "kaggle_folders": BASE | {"data", "first_cell"},
}


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


def test_the_first_code_cell_is_the_same_everywhere():
    assert len({"".join(code_cells(path)[0]["source"]) for path in NOTEBOOKS}) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_executed(path):
    assert [cell["execution_count"] for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))
    for cell in code_cells(path):
        stored = json.dumps(cell["outputs"])
        stored = re.sub(r'"image/png": "[^"]*"', "", stored)
        assert '"name": "stderr"' not in stored
        assert not re.search(r"(^|[\"' ])/(root|home|work|tmp|Users)/", stored), "an absolute path in an output"
        assert set(cell["metadata"].get("tags", [])) <= TAGS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_explains_as_it_goes(path):
    kinds = "".join(cell["cell_type"][0] for cell in cells(path))
    assert "ccc" not in kinds, "three code cells without prose"
    sizes = [sum(map(bool, map(str.strip, "".join(cell["source"]).splitlines()))) for cell in code_cells(path)[1:]]
    assert max(sizes) <= 40 and statistics.median(sizes) <= 9, "long code lives in helpers"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_has_its_sentence_alt_text_and_caption(path):
    figures = 0
    for cell in code_cells(path):
        for n, output in enumerate(cell["outputs"]):
            if "image/png" in output.get("data", {}):
                figures += 1
                sentence = "".join(output["data"]["text/plain"])
                assert sentence.endswith(".") and output["metadata"]["image/png"]["alt"] == sentence
                caption = "".join(cell["outputs"][n + 1]["data"]["text/markdown"])
                assert caption.replace("\\", "") == f"*{sentence}*"  # Markdown escapes brackets and stars
    assert figures >= 3


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "helpers" else {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("helpers.")}


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_whom_they_may(room):
    place = ROOT / "helpers" / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for path in files:
        assert imports(path) <= ALLOWED[room], path.name



def test_every_helper_is_on_the_map():
    helpers = ROOT / "helpers"
    there = sorted(path.name for path in helpers.iterdir()
                   if path.name not in ("README.md", "__init__.py") and not path.name.startswith("__"))  # fmt: skip
    assert sorted(re.findall(r"\]\(([\w.]+)\)", (helpers / "README.md").read_text(encoding="utf-8"))) == there
