"""The loop over named experiments: trains what is new, compares on the same pictures, and stays out of the README's table."""

import dataclasses
import itertools
import json

import pandas as pd
import pytest

from helpers import experiments, figures, results
from helpers.data.datasets import load_captions
from helpers.environment import setup
from helpers.errors import InputError
from helpers.experiments import Experiment, System, clipcap_experiments, run_experiments, scale_frozen
from helpers.metrics import QUICK
from helpers.recipes import PRESETS, draw_share
from helpers.settings import TrainSettings

SETTINGS = TrainSettings(epochs=1, batch_size=16, learning_rate=1e-3, seed=3)
SIZES = {"layers": 1, "heads": 2, "prefix_length": 2}


def test_the_same_share_of_the_blocks_learns_and_one_at_least():
    assert [scale_frozen(frozen, 4) for frozen in (10, 11, 6)] == [3, 3, 2]  # 2, 1 and 6 of 12 learn: 1, 1 and 2 of 4
    assert all(scale_frozen(frozen, 12) == frozen for frozen in range(12)), "GPT-2's own size: as published"
    assert all(0 <= scale_frozen(frozen, blocks) < blocks for frozen in range(12) for blocks in range(1, 25))


def test_a_share_is_drawn_by_seed_and_lies_within_every_larger_one():
    images = [f"{n}.jpg" for n in range(200)]
    shares = [draw_share(images, share, seed=1) for share in (0.001, 0.005, 0.1, 0.5, 1.0)]
    assert [len(chosen) for chosen in shares] == [1, 1, 20, 100, 200] and shares[-1] == images
    for smaller, larger in itertools.pairwise(shares):
        assert set(smaller) <= set(larger) and larger == sorted(larger, key=images.index)
    assert shares[2] == draw_share(images, 0.1, seed=1) != draw_share(images, 0.1, seed=2)


def test_the_published_experiments_of_p2():
    presets = [PRESETS["clipcap"][f"p2-{n}"] for n in range(1, 7)]
    assert [settings["share"] for settings, _ in presets] == [0.005, 0.1, 0.2, 0.4, 0.5, 0.4]
    assert [sizes["prefix_length"] for _, sizes in presets] == [2, 2, 4, 5, 10, 4]
    assert [sizes["frozen_blocks"] for _, sizes in presets] == [10, 10, 10, 11, 11, 6]


def test_clipcap_experiments_of_the_tiny_profile():
    """The ideas are the published ones, the pace is the profile's."""
    first, *others = clipcap_experiments(setup("experiments", profile="tiny", verbose=False, seed=7))
    assert [one.name for one in others] == ["mlp", "p1", *(f"p2-{n}" for n in range(1, 7))]
    for one in others:
        for name in experiments.PACE:
            assert getattr(one.settings, name) == getattr(first.settings, name)
        assert one.sizes["heads"] == first.sizes["heads"] and one.settings.seed == 7
    assert [one.sizes["frozen_blocks"] for one in others[2:]] == [3, 3, 3, 3, 3, 2]
    assert others[-1].settings.share == 0.4 and others[-1].settings.weight_decay == 0.0
    assert others[-1].what == "linear, 4 pseudo-words, 2 of 4 blocks learn"


@pytest.fixture
def run(photos, clip_file, gpt2_folder, tmp_path):
    return setup("experiments", profile="tiny", dataset="flickr8k", data_dir=str(photos), clip=str(clip_file),
                 language_model=str(gpt2_folder), work_dir=str(tmp_path), verbose=False)  # fmt: skip


@pytest.fixture
def planned(monkeypatch):
    """Two experiments, whose list the tests change, and the names of those that were trained."""
    listed = [Experiment("all", "everything", SETTINGS, SIZES),
              Experiment("half", "half of the pictures", dataclasses.replace(SETTINGS, share=0.5), SIZES)]  # fmt: skip
    trained = []

    def train(run, captions, settings, folder, **sizes):
        trained.append(folder.name)
        return experiments._train_clipcap(run, captions, settings, folder, **sizes)

    monkeypatch.setitem(experiments.SYSTEMS, "clipcap", System(lambda run: listed, train))
    return listed, trained


def test_trains_compares_and_goes_on(run, planned, tmp_path, capsys):
    listed, trained = planned
    captions, path = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir), tmp_path / "kept" / "clipcap.tiny.json"
    record = run_experiments("clipcap", run, captions, path)
    assert record == json.loads(path.read_text()) and trained == ["all", "half"]
    assert len(capsys.readouterr().out.splitlines()) == 2, "a line an experiment"
    assert record["images"] == captions.images("test") and record["dataset"] == "flickr8k"
    assert [entry["pictures"] for entry in record["experiments"].values()] == [12, 6]
    half = record["experiments"]["half"]
    assert half["settings"]["share"] == 0.5 and "weight_decay" not in half["settings"] and half["sizes"] == SIZES
    assert set(half["scores"]) == set(QUICK) and half["trainable"] > 0 and "commit" in half["provenance"]
    assert half["difference"]["low"] <= half["difference"]["value"] <= half["difference"]["high"]
    assert set(record["experiments"]["all"]["difference"].values()) == {0.0}

    listed.append(Experiment("more", "a third", dataclasses.replace(SETTINGS, weight_decay=0.3), SIZES))
    listed[1] = dataclasses.replace(listed[1], settings=dataclasses.replace(SETTINGS, share=0.25))
    again = run_experiments("clipcap", run, captions, path)
    assert trained == ["all", "half", "half", "more"], "what is new or has changed, and nothing else"
    assert again["experiments"]["all"]["captions"] == record["experiments"]["all"]["captions"]
    assert list(again["experiments"]) == ["all", "half", "more"] and again["experiments"]["half"]["pictures"] == 3
    assert "all: in the file, " in capsys.readouterr().out

    with pytest.raises(InputError, match=r"dataset='flickr8k', now it is 'scenes': give another file \(--out\)"):
        run_experiments("clipcap", dataclasses.replace(run, dataset="scenes"), captions, path)


def test_a_killed_run_has_its_experiments_on_disk(run, planned, tmp_path, monkeypatch):
    _, trained = planned
    captions, path = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir), tmp_path / "clipcap.tiny.json"
    original = experiments._train_clipcap

    def killed(run, captions, settings, *rest, **sizes):
        if settings.share < 1:
            raise KeyboardInterrupt
        return original(run, captions, settings, *rest, **sizes)

    with monkeypatch.context() as patched:
        patched.setattr(experiments, "_train_clipcap", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiments("clipcap", run, captions, path)
    assert list(experiments.read_experiments(path)["experiments"]) == ["all"]
    assert len(run_experiments("clipcap", run, captions, path)["experiments"]) == 2 and trained == ["all", "half", "half"]


def made(value: float, low: float, high: float, difference: tuple[float, float, float]) -> dict:
    keys = ("value", "low", "high")
    return {"what": "something", "pictures": 2000, "trainable": 1_500_000, "minutes": 1.25, "val_loss": 0.98765,
            "scores": {"CIDEr-D": dict(zip(keys, (value, low, high), strict=True))},
            "difference": dict(zip(keys, difference, strict=True))}  # fmt: skip


RECORD = {"split": "test", "images": ["a", "b"], "experiments": {
    "first": made(1.0, 0.9, 1.1, (0, 0, 0)), "better": made(1.5, 1.4, 1.6, (0.5, 0.4, 0.6)),
    "same": made(0.9, 0.8, 1.0, (-0.1, -0.2, 0.1)), "worse": made(0.2, 0.1, 0.3, (-0.8, -0.9, -0.7))}}  # fmt: skip


def test_table_and_figure_say_what_is_in_the_record():
    table = experiments.table(RECORD)
    assert isinstance(table, pd.DataFrame) and list(table.index) == list(RECORD["experiments"])
    assert table.loc["better", "CIDEr-D"] == "1.500 [1.40, 1.60]" and table.loc["better", "learns"] == "1.50 M"
    assert table.loc["first", "against first"] == "" and table.loc["worse", "against first"] == "-0.800 [-0.90, -0.70]"
    drawn, sentence = experiments.figure(RECORD)
    figures.render(drawn)
    assert "best is “better” with 1.50, last “worse” with 0.20" in sentence and sentence.endswith(".")
    assert "for 1 of the 3 others, and below 0 for 1." in sentence


def test_a_damaged_or_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"does not exist: python -m helpers\.experiments"):
        experiments.read_experiments(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"system": ')
    with pytest.raises(InputError, match="is not valid JSON"):
        experiments.read_experiments(tmp_path / "torn.json")


def test_the_readme_table_passes_the_experiments_over(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "clipcap.tiny.json").write_text("{}")
    with pytest.raises(InputError, match="holds no records"):
        results.read_records(tmp_path)
