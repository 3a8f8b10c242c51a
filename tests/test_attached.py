"""A notebook's earlier output, attached on Kaggle: found under both mounts, gone on from, never from another training."""

import os
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from helpers import mounts
from helpers.attached import bring_training, find_checkpoints
from helpers.environment import TINY, setup
from helpers.errors import InputError
from helpers.files import write_json
from helpers.models.clipcap import ClipCap
from helpers.mounts import LAST, attached_output
from tests.test_training import SETTINGS, dataset, run, tokens, weights  # noqa: F401  (fixtures)

MOUNTS = ["my-clipcap-run", "notebooks/somebody/my-clipcap-run"]


@pytest.fixture(autouse=True)
def kaggle_input(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "KAGGLE_INPUT", tmp_path / "input")
    return tmp_path / "input"


def attach(kaggle_input, folder, mount=MOUNTS[0], name="03_clipcap"):
    """`folder` as it is mounted: read-only."""
    target = kaggle_input / mount / "outputs" / name
    shutil.copytree(folder, target)
    for path in target.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return target


@pytest.mark.parametrize("mount", MOUNTS)
def test_both_mounts(kaggle_input, tmp_path, mount):
    assert attached_output("03_clipcap") is None
    (tmp_path / "03" / "variant_1").mkdir(parents=True)
    place = attach(kaggle_input, tmp_path / "03", mount)
    assert attached_output("03_clipcap") == place and attached_output("03_clipcap/variant_1") == place / "variant_1"
    assert attached_output("04_cross_attention") is None


def test_of_several_the_newest(kaggle_input, tmp_path):
    for age, name in enumerate(("new", "old")):
        file = kaggle_input / name / "outputs" / "03_clipcap" / "record.json"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1e9 - 100 * age,) * 2)
    assert attached_output("03_clipcap").parts[-3] == "new"


@pytest.mark.parametrize("died", [25, None], ids=["killed", "finished"])
def test_training_goes_on_from_the_attached_output(
    kaggle_input, dataset, tokens, gpt2_folder, tmp_path, monkeypatch, capsys, died,  # noqa: F811
):  # fmt: skip
    unbroken, whole = run(dataset, tokens, gpt2_folder, tmp_path / "a")
    calls, loss = [], ClipCap.loss

    def counting(self, *args, **named):
        calls.append(1)
        if len(calls) == died:  # in the second epoch
            raise RuntimeError("killed")
        return loss(self, *args, **named)

    monkeypatch.setattr(ClipCap, "loss", counting)
    folder = tmp_path / "working" / "outputs" / "03_clipcap"
    if died:
        with pytest.raises(RuntimeError, match="killed"):
            run(dataset, tokens, gpt2_folder, folder)
    else:
        run(dataset, tokens, gpt2_folder, folder)
    attach(kaggle_input, folder, MOUNTS[1])
    shutil.rmtree(folder)
    capsys.readouterr()
    calls.clear()
    died = None
    resumed, rest = run(dataset, tokens, gpt2_folder, folder)
    assert "03_clipcap: going on from the last checkpoint of the attached output" in capsys.readouterr().out
    assert len(calls) < 3 * 18 - 17, "at least the first epoch was not trained again"
    torch.testing.assert_close(weights(resumed), weights(unbroken), atol=1e-6, rtol=0)
    np.testing.assert_allclose(rest.epochs, whole.epochs, atol=1e-6)
    assert all(path.stat().st_mode & 0o200 for path in (folder / "lightning").iterdir()), "copies can be written"
    assert not list(folder.rglob("*.partial*"))


def test_another_training_is_left_alone_and_said(kaggle_input, dataset, tokens, gpt2_folder, tmp_path, capsys):  # noqa: F811
    folder = tmp_path / "outputs" / "03_clipcap"
    model, _ = run(dataset, tokens, gpt2_folder, folder, replace(SETTINGS, epochs=1))
    place = attach(kaggle_input, folder)
    settings = replace(SETTINGS, epochs=1)
    shutil.rmtree(folder)
    capsys.readouterr()
    for changed, other, what, why in (
        (replace(settings, epochs=2), model, {}, "it was trained with epochs=1, now it is 2"),
        (settings, torch.nn.Linear(2, 2), {}, "it has not trained model.weight"),
        (settings, ClipCap.build(8, model.gpt, prefix_length=2, layers=1, heads=2), {}, "is of another size"),
        (settings, model, {"dataset": "flickr30k"}, "its dataset was not noted, now it is flickr30k"),
    ):
        assert not bring_training(folder, changed, other, what) and not folder.exists()
        assert why in capsys.readouterr().out
    assert bring_training(folder, replace(settings, checkpoint_steps=7), model, {})
    (folder / "history.csv").unlink()
    assert bring_training(folder, settings, model, {}) and not (folder / "history.csv").exists(), "it is not copied twice"
    shutil.rmtree(folder)
    last = place / LAST
    last.chmod(0o644)
    last.write_bytes(last.read_bytes()[:1000])
    assert not bring_training(folder, settings, model, {}) and "cannot be read" in capsys.readouterr().out


def test_no_room_for_what_is_attached(kaggle_input, tmp_path, monkeypatch):
    (tmp_path / "03" / "lightning").mkdir(parents=True)
    torch.save({"hyper_parameters": asdict(SETTINGS), "state_dict": {}}, tmp_path / "03" / LAST)
    attach(kaggle_input, tmp_path / "03")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 100}))
    with pytest.raises(InputError, match="the attached checkpoints take"):
        bring_training(tmp_path / "outputs" / "03_clipcap", SETTINGS, torch.nn.Module(), {})


def test_a_local_training_on_something_else_is_not_gone_on_from(dataset, tokens, gpt2_folder, tmp_path):  # noqa: F811
    _, first = run(dataset, tokens, gpt2_folder, tmp_path, what={"dataset": "scenes"})
    with pytest.raises(InputError, match=r"its dataset was scenes, now it is flickr8k\. Leave --resume out"):
        run(dataset, tokens, gpt2_folder, tmp_path, resume=True, what={"dataset": "flickr8k"})
    _, again = run(dataset, tokens, gpt2_folder, tmp_path, resume=True, what={"dataset": "scenes"})
    assert again.minutes >= first.minutes > 0, "finished: nothing is trained, and its minutes are those of before"


def test_a_folder_outside_outputs_has_no_attached_one(kaggle_input, tmp_path):
    assert not bring_training(tmp_path / "elsewhere", SETTINGS, torch.nn.Linear(1, 1), {})
    assert not bring_training(tmp_path / "outputs", SETTINGS, torch.nn.Linear(1, 1), {})


def test_checkpoints_of_other_notebooks_own_before_attached(kaggle_input, tmp_path):
    evaluating = setup("06_evaluation", profile="full", device="cpu", work_dir=tmp_path, verbose=False)
    asked = (evaluating, "03_clipcap", "train_clipcap")
    assert find_checkpoints(*asked) == []
    write_json(tmp_path / "03" / "checkpoint" / "config.json", {"system": "clipcap"})
    place = attach(kaggle_input, tmp_path / "03")
    assert find_checkpoints(*asked) == [place / "checkpoint"]
    own = [tmp_path / "outputs" / name / "checkpoint" for name in ("train_clipcap", "03_clipcap")]
    for age, folder in enumerate(own):
        shutil.copytree(TINY / "clipcap", folder)
        os.utime(folder / "config.json", (1e9 - 100 * age,) * 2)
    assert find_checkpoints(*asked) == [*own, place / "checkpoint"]


def test_setup_says_that_an_earlier_output_is_attached(kaggle_input, tmp_path, capsys):
    setup("03_clipcap")
    before = capsys.readouterr().out
    assert "earlier output" not in before
    (tmp_path / "03" / "lightning").mkdir(parents=True)
    (tmp_path / "03" / LAST).touch()
    attach(kaggle_input, tmp_path / "03")
    setup("03_clipcap")
    assert capsys.readouterr().out == (before + "earlier output     attached: training goes on from its last checkpoint where "
                                       "data and settings are the same\n")  # fmt: skip
