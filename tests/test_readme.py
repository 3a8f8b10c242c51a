"""The front pages as a newcomer takes them: examples run, commands exist, links lead somewhere."""

import argparse
import importlib
import json
import re
import shlex

import pytest

from helpers.environment import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", ROOT / "notebooks" / "00_start_here.ipynb"]
ROWS = dict(re.findall(r"^\| `([\w-]+)` \(\d\d\) \|[^|]*\| (.*) \|$", README, re.MULTILINE))  # system -> its options
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def markdown(page) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


@pytest.fixture
def newcomer(tmp_path, photos, monkeypatch):
    """A folder of one's own, with a small dataset in the place of the drawn one."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"PROFILE": "tiny", "DATASET": "flickr8k", "DATA_DIR": photos, "WORK_DIR": tmp_path}.items():
        monkeypatch.setenv(f"CAPTIONING_{name}", str(value))
    return tmp_path


def example(word: str) -> str:
    (text,) = [text for text in EXAMPLES if word in text]
    return text


def test_examples_are_short():
    assert len(EXAMPLES) == 4
    assert max(len(text.splitlines()) for text in EXAMPLES) < 30


def test_the_captioner_trains_and_captions(newcomer, capsys):
    import torch

    names = {}
    for word in ("class ShowAndTell", "Captioner("):
        exec(example(word), names)
    said = names["captioner"].caption_features(torch.randn(2, names["encoder"].dim), num_return=2, prompt="a red")
    assert [len(captions) for captions in said] == [2, 2] and all(c.startswith("a red") for group in said for c in group)
    losses = (newcomer / "outputs" / "show_and_tell" / "history.csv").read_text().splitlines()[1:]
    assert len(losses) == names["settings"].epochs
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith("[") and printed.count(",") == 2


def test_the_dataset_is_found_by_its_folder(newcomer):
    names = {}
    exec(example("captions.txt"), names)
    captions = names["captions"]
    assert len(captions.table) == 20 and captions.table["image"].nunique() == 10
    assert {split: len(captions.images(split)) for split in ("train", "val", "test")} == {"train": 8, "val": 1, "test": 1}
    assert "no problems found" in str(captions.report)


def test_the_metric_is_compared_with_intervals():
    from helpers.scorers import SCORERS

    names = {}
    try:
        exec(example("SCORERS"), names)
    finally:
        SCORERS.pop("supported", None)
    looks, guesses = (names["comparison"][system]["supported"] for system in ("looks", "guesses"))
    assert (looks.value, guesses.value) == (1.0, 0.25)  # "a" of "a man" is in the first picture's captions alone
    assert names["comparison"].difference("looks", "guesses", "supported").value == 0.75


def commands() -> list[str]:
    """Every `python -m ...` of the pages, in code blocks and in sentences; "..." stands for what is left out."""
    found = []
    for page in PAGES:
        text = markdown(page)
        blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
        spans = re.findall(r"`(python -m [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        found += re.findall(r"python -m (?:helpers|benchmarks)\.[^\n&]*", "\n".join(lines + spans))
    return list(dict.fromkeys(line.partition(" #")[0].partition("python -m ")[2].strip() for line in found))


class Parsed(Exception):
    pass


@pytest.mark.parametrize("command", commands())
def test_commands_are_accepted(command, monkeypatch):
    """Parsed by the door itself, which stops there: nothing is run."""
    name, *arguments = shlex.split(command)
    module = importlib.import_module(name)
    if "..." in arguments:
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise Parsed

    if not hasattr(module, "main"):  # a door without options
        assert not arguments
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    with pytest.raises(Parsed):
        module.main() if name.startswith("benchmarks") else module.main(arguments)


def test_options_of_the_table_of_systems_exist():
    from helpers.presets import PRESETS
    from helpers.train import _parser

    systems = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)).choices
    assert set(ROWS) == set(systems)
    for system, cell in ROWS.items():
        options = {flag: action for action in systems[system]._actions for flag in action.option_strings}
        assert set(re.findall(r"--[\w-]+", cell)) <= set(options), system
        for option, choices in re.findall(r"`(--[\w-]+)` \(([a-zA-Z-]+(?:, [a-zA-Z-]+)+)\)", cell):
            assert set(choices.split(", ")) <= set(options[option].choices), (system, option)
        for presets in re.findall(r"presets? ([\w, -]+?)(?: to |:|$)", cell):
            assert set(presets.split(", ")) <= set(PRESETS[system]), system


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", markdown(page), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text)
    assert links and [link for link in links if not (page.parent / link).exists()] == []
    headings = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_every_notebook_is_in_the_table():
    listed = set(re.findall(r"^\| \[[^]]*\]\(notebooks/(\w+)\.ipynb\)", README, re.MULTILINE))
    assert listed == {path.stem for path in (ROOT / "notebooks").glob("0*.ipynb")}
