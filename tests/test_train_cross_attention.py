"""Training GPT-2 with cross-attention: frozen stays frozen, and without room on the disk all goes as with it."""

import shutil

import pytest
import torch

from helpers.data import features
from helpers.data.datasets import load_captions
from helpers.data.encoders import load_clip
from helpers.environment import setup
from helpers.hub import load_language_model
from helpers.recipes import train_cross_attention
from helpers.training import TrainSettings

SETTINGS = TrainSettings(epochs=2, batch_size=8, learning_rate=3e-3, captions="all")


@pytest.fixture(params=["ViT", "ModifiedResNet"])
def clip(request, clip_file, resnet_file):
    return clip_file if request.param == "ViT" else resnet_file


@pytest.fixture
def run(photos, clip, gpt2_folder, tmp_path):
    return setup("cross", system="cross-attention", verbose=False, dataset="flickr8k", data_dir=photos, clip=str(clip),
                 language_model=str(gpt2_folder), work_dir=tmp_path)


def train(run, settings=SETTINGS, **sizes):
    captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)
    return train_cross_attention(run, captions, settings, run.output_dir, **sizes)


def test_frozen_stays_bit_identical_and_gates_open(run, clip, gpt2_folder):
    captioner, history = train(run)
    learned = {name for name, parameter in captioner.model.named_parameters() if parameter.requires_grad}
    trained, fresh = captioner.model.gpt.state_dict(), load_language_model(gpt2_folder).state_dict()
    for name, value in fresh.items():
        assert torch.equal(trained[name], value) == (f"gpt.{name}" not in learned), name
    before, after = (encoder.model.state_dict() for encoder in (load_clip(clip), captioner.encoder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (captioner.model.gates != 0).all()
    assert history.epochs["val_loss"].iloc[-1] < history.epochs["val_loss"].iloc[0]


def test_without_room_for_features_clip_runs_on_the_fly(run, monkeypatch, capsys):
    # One caption a picture: with all of them, pixels come in another order, each picture's captions together.
    slow = TrainSettings(epochs=2, batch_size=8, learning_rate=1e-4)
    cached, history = train(run, slow)
    shutil.rmtree(run.output_dir)
    monkeypatch.setattr(features, "free_bytes", lambda folder: 1000)
    shutil.rmtree(run.cache_dir)
    live, again = train(run, slow)
    assert "so CLIP runs anew in each epoch" in capsys.readouterr().out
    assert not list(run.cache_dir.rglob("features.f16"))
    assert history.best_val_loss == pytest.approx(again.best_val_loss, abs=1e-4)  # the cache rounds to fp16
    for one, other in zip(cached.model.parameters(), live.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)
    assert not any(name.startswith("encoder.") for name in torch.load(
        next((run.output_dir / "lightning").glob("best*.ckpt")), weights_only=True)["state_dict"])  # fmt: skip


def test_a_vit_may_learn_whole(photos, clip_file, gpt2_folder, tmp_path):
    from helpers.checkpoints import load_captioner

    run = setup("cross", system="cross-attention", verbose=False, dataset="flickr8k", data_dir=photos, clip=str(clip_file),
                language_model=str(gpt2_folder), work_dir=tmp_path)  # fmt: skip
    captioner, _ = train(run, TrainSettings(epochs=1, batch_size=8, encoder="all", encoder_rate=1e-3))
    before, after = (encoder.model.visual.state_dict() for encoder in (load_clip(clip_file), captioner.encoder))
    assert not torch.equal(before["transformer.resblocks.0.mlp.c_fc.weight"], after["transformer.resblocks.0.mlp.c_fc.weight"])
    pictures = sorted((photos / "Images").iterdir())[:3]
    again = load_captioner(run.output_dir / "checkpoint")
    assert again.caption(pictures, max_new_tokens=5) == captioner.caption(pictures, max_new_tokens=5)
