"""Training at scale: killed at any moment, in several processes, with gradients of several batches, logged and drawn."""

import dataclasses
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers import settings as light
from helpers import train, training
from helpers.data.datasets import load_captions
from helpers.devices import find_devices, find_strategy
from helpers.environment import ROOT, setup
from helpers.errors import InputError
from helpers.loggers import make_logger
from helpers.recipes import train_clipcap, train_decoder
from helpers.training import CaptioningModule, LogSettings, TrainSettings

CLIPCAP = {"prefix_length": 2, "layers": 1, "heads": 2}
DECODER = {"width": 32, "layers": 1, "heads": 2, "dropout": 0.2}
# 60 captions: 15 batches and 5 steps an epoch for ClipCap, 8 and 4 for the decoder, whose third epoch reads pixels.
CLIPCAP_SETTINGS = TrainSettings(epochs=2, batch_size=4, learning_rate=3e-3, captions="all", accumulate=3, checkpoint_steps=2)
DECODER_SETTINGS = TrainSettings(epochs=3, batch_size=8, learning_rate=3e-3, captions="all", schedule="cosine", mirrored=True,
                                 encoder="two-phases", encoder_rate=1e-3, unfreeze_epoch=2, accumulate=2,
                                 checkpoint_steps=1)  # fmt: skip


@pytest.fixture
def clipcap(photos, clip_file, gpt2_folder, tmp_path):
    """A function that trains ClipCap in a folder of this name."""
    run = setup("scale", verbose=False, dataset="flickr8k", data_dir=photos, clip=str(clip_file),
                language_model=str(gpt2_folder), work_dir=tmp_path)  # fmt: skip
    captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)
    return lambda name, settings=CLIPCAP_SETTINGS, **options: train_clipcap(
        run, captions, settings, tmp_path / name, **CLIPCAP, **options
    )


@pytest.fixture
def decoder(photos, resnet_file, bert_folder, tmp_path):
    run = setup("scale", system="decoder", verbose=False, dataset="flickr8k", data_dir=photos, clip=str(resnet_file),
                tokenizer=str(bert_folder), work_dir=tmp_path)  # fmt: skip
    captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)
    return lambda name, settings=DECODER_SETTINGS, **options: train_decoder(
        run, captions, settings, tmp_path / name, **DECODER, **options
    )


def weights(captioner):
    parts = [captioner.model] + ([captioner.encoder.model.visual] if captioner.config.get("learned") else [])
    return torch.cat([value.detach().float().flatten() for part in parts for value in part.state_dict().values()])


class Killed(Exception):
    """Stands for a kill: nothing of the run goes on after it."""


def dies(monkeypatch, owner, name, count):
    """`owner.name` raises Killed when it is called for the `count`-th time."""
    calls, real = [], getattr(owner, name)

    def patched(*arguments, **named):
        calls.append(1)
        if len(calls) == count:
            raise Killed
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, patched)


def assert_resumes(monkeypatch, train_in, kills):
    whole, history = train_in("whole")
    for n, kill in enumerate(kills):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            dies(patched, *kill)
            train_in(str(n))
        resumed, rest = train_in(str(n), resume=True)
        torch.testing.assert_close(weights(resumed), weights(whole), atol=1e-6, rtol=0)
        later = [name for name in history.epochs if name != "train_loss"]  # which is a mean over the rest of its epoch
        np.testing.assert_allclose(rest.epochs[later], history.epochs[later], atol=1e-6)
        assert rest.best_epoch == history.best_epoch


def test_clipcap_killed_at_any_moment_ends_with_the_same_weights(clipcap, monkeypatch):
    # Before any checkpoint, before, at and after the one of step 2, between the batches of a step, late in an epoch.
    kills = [(CaptioningModule, "training_step", count) for count in (2, 6, 7, 8, 15, 20, 24, 30)]
    kills += [(CaptioningModule, "validation_step", 3), (torch, "save", 2), (torch, "save", 4)]
    assert_resumes(monkeypatch, clipcap, kills)


def test_decoder_killed_in_either_phase_ends_with_the_same_weights(decoder, monkeypatch):
    kills = [(CaptioningModule, "training_step", count) for count in (5, 11, 17, 18, 20, 23)]
    assert_resumes(monkeypatch, decoder, [*kills, (CaptioningModule, "validation_step", 8)])


def test_a_resumed_run_sees_what_is_left_of_the_epoch_and_no_more(clipcap, monkeypatch):
    seen, step = [], CaptioningModule.training_step

    def watched(self, batch, number):
        seen.append((self.trainer.current_epoch, number))
        if len(seen) == 12:
            raise Killed
        return step(self, batch, number)

    monkeypatch.setattr(CaptioningModule, "training_step", watched)
    with pytest.raises(Killed):
        clipcap("a")
    seen.clear()
    seen += [None] * 20  # far from the next kill
    clipcap("a", resume=True)
    assert seen[20:] == [(0, number) for number in range(6, 15)] + [(1, number) for number in range(15)]


def test_gradients_of_several_batches_are_those_of_a_large_one(photos, clipcap):
    one_caption = dataclasses.replace(CLIPCAP_SETTINGS, captions="random", checkpoint_steps=0, max_tokens=3)  # of one length
    large, first = clipcap("large", dataclasses.replace(one_caption, batch_size=4, accumulate=1))
    small, second = clipcap("small", dataclasses.replace(one_caption, batch_size=2, accumulate=2))
    torch.testing.assert_close(weights(small), weights(large), atol=1e-5, rtol=0)
    np.testing.assert_allclose(second.epochs, first.epochs, atol=1e-4)


def test_the_rate_reaches_0_with_the_last_step(clipcap):
    _, history = clipcap("a", dataclasses.replace(CLIPCAP_SETTINGS, accumulate=4))  # 15 batches: 3 whole steps and a part
    assert history.epochs["learning_rate"].iloc[-1] == 0 and history.epochs["learning_rate"].iloc[0] > 0


def test_curves_logs_and_settings_are_left_behind(clipcap, tmp_path):
    settings = dataclasses.replace(CLIPCAP_SETTINGS, keep="val_CIDEr-D")
    captioner, _ = clipcap("a", settings)
    assert captioner.config["training"]["accumulate"] == 3 and captioner.config["training"]["checkpoint_steps"] == 2
    assert {"train_loss", "val_loss", "val_CIDEr-D"} <= set(pd.read_csv(tmp_path / "a" / "history.csv").columns)
    for name in ("history.png", "history-score.png"):
        assert Image.open(tmp_path / "a" / name).width > 300
    first = pd.read_csv(tmp_path / "a" / "logs" / "version_0" / "metrics.csv")
    assert "learning_rate" in " ".join(first) and first["val_loss"].notna().sum() == 2
    clipcap("a", settings, resume=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a" / "logs" / "version_0" / "metrics.csv"), first)


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from helpers.data.datasets import load_captions
from helpers.environment import setup
from helpers.recipes import train_clipcap
from tests.test_scale import CLIPCAP, CLIPCAP_SETTINGS

photos, clip, language_model, work = sys.argv[1:]
run = setup("two", verbose=False, dataset="flickr8k", data_dir=photos, clip=clip, language_model=language_model, work_dir=work)
captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)
captioner, history = train_clipcap(run, captions, CLIPCAP_SETTINGS, run.output_dir, devices=2, **CLIPCAP)
assert len(history.epochs) == 2
rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else "s"
torch.save({"weights": captioner.model.state_dict(), "best": history.best_epoch}, Path(work) / f"rank{rank}.pt")
"""


# What a notebook does, where the processes are forked from one that itself does not train.
NOTEBOOK = "from helpers import devices\ndevices.in_notebook = lambda: True\n"


@pytest.mark.parametrize("notebook", [False, True], ids=["script", "notebook"])
def test_two_processes_train_clipcap_to_identical_weights(photos, clip_file, gpt2_folder, tmp_path, notebook):
    script = tmp_path / "two.py"
    script.write_text((NOTEBOOK if notebook else "") + TWO_PROCESSES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CAPTIONING_PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(photos), str(clip_file), str(gpt2_folder), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    left = tmp_path / "outputs" / "two"
    if notebook:
        mine = torch.load(tmp_path / "ranks.pt", weights_only=True)["weights"]
        kept = load_file(next((left / "checkpoint").glob("*.safetensors")))
        assert all(torch.equal(mine[name], value) for name, value in kept.items())
        best = torch.load(next((left / "lightning").glob("best*")), weights_only=True)["state_dict"]
        assert all(torch.equal(mine[name.removeprefix("model.")], value) for name, value in best.items())
    else:
        ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
        assert ranks[0]["best"] == ranks[1]["best"]
        for name, value in ranks[0]["weights"].items():
            assert torch.equal(value, ranks[1]["weights"][name]), f"{name} differs between the processes"
    assert len(pd.read_csv(left / "history.csv")) == 2 and (left / "checkpoint").is_dir()
    assert [path.name for path in (left / "logs").iterdir()] == ["version_0"], "one process logs"


def test_really_killed_and_resumed_from_the_command_line(photos, clip_file, gpt2_folder, tmp_path):
    code = ("import os, signal, sys\n"
            "from helpers import train, training\n"
            "step, calls = training.CaptioningModule.training_step, []\n"
            "def killed(*arguments):\n"
            "    calls.append(1)\n"
            "    if len(calls) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return step(*arguments)\n"
            "training.CaptioningModule.training_step = killed\n"
            "sys.exit(train.main(sys.argv[2:]))")
    arguments = ["clipcap", "--dataset", "flickr8k", "--data-dir", str(photos), "--clip", str(clip_file), "--language-model",
                 str(gpt2_folder), "--epochs", "2", "--layers", "1", "--heads", "2", "--batch-size", "8", "--captions", "all",
                 "--checkpoint-steps", "3", "--schedule", "cosine"]  # fmt: skip
    environment = os.environ | {"CAPTIONING_PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, "13", *arguments, "--out", str(tmp_path / "b")]
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode == -signal.SIGKILL
    assert train.main([*arguments, "--out", str(tmp_path / "b"), "--resume"]) == 0
    assert train.main([*arguments, "--out", str(tmp_path / "a")]) == 0
    whole, resumed = (load_file(next((tmp_path / name / "checkpoint").glob("*.safetensors"))) for name in "ab")
    torch.testing.assert_close(resumed, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("system", ["clipcap", "decoder"])
def test_every_setting_has_its_option(system):
    parser = train._parser()
    for settings in (TrainSettings, LogSettings):
        for field in dataclasses.fields(settings):
            assert field.metadata["help"]
            value = light.CHOICES[field.name][-1] if field.name in light.CHOICES else field.default
            flag = "--" + field.name.replace("_", "-")
            given = [flag] if isinstance(value, bool) else [flag, str(value or 0 if value is not None else "a")]
            read = getattr(parser.parse_args([system, *given]), field.name)
            assert read == (True if isinstance(value, bool) else "a" if value is None else value)
    assert parser.parse_args([system, "--project_name", "p", "--exp_name", "e"]).exp_name == "e"


def test_settings_have_one_home():
    assert training.TrainSettings is light.TrainSettings and training.CHOICES is light.CHOICES


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"accumulate": 0}, "accumulate=0"), ({"checkpoint_steps": -1}, "checkpoint_steps=-1: give 0 or more"),
     ({"warmup_share": 1.5}, "warmup_share=1.5 is a share"), ({"patience": -2}, "patience=-2"),
     ({"share": 0.0}, "share=0.0"), ({"share": 1.5}, "share=1.5"), ({"share": float("nan")}, "share=nan")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TrainSettings(**changes)


def test_devices_are_counted_and_checked(monkeypatch):
    assert find_devices("auto", "cpu") == 1 and find_devices("2", "cpu") == 2
    for wrong in ("some", 0, "-1"):
        with pytest.raises(InputError, match="devices="):
            find_devices(wrong, "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_devices("auto", "cuda") == 2
    with pytest.raises(InputError, match="GPUs here is 2"):
        find_devices(3, "cuda")
    monkeypatch.setattr("helpers.devices.in_notebook", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for devices in (2, "auto"):
        with pytest.raises(InputError, match="--devices 2"):
            find_devices(devices, "cuda")


def test_a_notebook_forks_where_a_script_starts_again(monkeypatch):
    assert [find_strategy(1, True), find_strategy(2, False)] == ["auto", "ddp"]
    assert find_strategy(2, True) == "ddp_find_unused_parameters_true"
    kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=None))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert find_strategy(2, False) == "ddp_notebook"
    assert find_strategy(2, True) == "ddp_notebook_find_unused_parameters_true"


def test_loggers_by_flag(monkeypatch, tmp_path):
    made, Begun = [], type("Begun", (), {"experiment": None})
    for name, logger in (("tensorboard", "TensorBoardLogger"), ("wandb", "WandbLogger")):
        with monkeypatch.context() as missing, pytest.raises(InputError, match=f"pip install {name}"):
            missing.setitem(sys.modules, name, None)
            LogSettings(name)
        package = types.ModuleType(name)
        package.Error = RuntimeError
        monkeypatch.setitem(sys.modules, name, package)
        monkeypatch.setattr(f"lightning.pytorch.loggers.{logger}", lambda *_, **options: made.append(options) or Begun())
    make_logger(LogSettings("tensorboard"), tmp_path)
    log = LogSettings("wandb", entity="we", project_name="captions", exp_name="first", offline=True)
    for resume in (False, True, False):
        make_logger(log, tmp_path, resume)
    assert made[1] | {"version": None} == {"project": "captions", "entity": "we", "name": "first", "offline": True,
                                           "resume": "allow", "save_dir": tmp_path / "logs", "version": None}  # fmt: skip
    assert made[1]["version"] == made[2]["version"] != made[3]["version"], "a resumed run goes on in its own curve"
    with pytest.raises(InputError, match="logger='paper' is not known"):
        LogSettings("paper")


def test_weights_and_biases_says_in_a_sentence_why_not(monkeypatch, tmp_path):
    class Refused:
        @property
        def experiment(self):
            raise RuntimeError("No API key configured. Use `wandb login` to log in.")

    package = types.ModuleType("wandb")
    package.Error = RuntimeError
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", lambda **_: Refused())
    with pytest.raises(InputError, match=r"Weights & Biases: No API key.*--offline"):
        make_logger(LogSettings("wandb"), tmp_path)
