"""Two phases: the switch, the rates, what is saved, and that processes never drift apart."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.captioner import Captioner
from helpers.checkpoints import load_captioner, save_captioner
from helpers.data.batches import CaptionDataset, CaptionSampler, Item, caption_loader
from helpers.data.datasets import load_captions
from helpers.data.encoders import load_clip
from helpers.data.features import Pictures, cached_features
from helpers.data.tokens import load_tokens
from helpers.environment import ROOT, setup
from helpers.errors import InputError
from helpers.recipes import settings_for, sizes_for, train_decoder
from helpers.training import CaptioningModule, TrainSettings, rate_schedule

SIZES = {"width": 32, "layers": 1, "heads": 2}
SETTINGS = TrainSettings(epochs=3, batch_size=8, learning_rate=3e-3, captions="all", schedule="cosine", mirrored=True,
                         encoder="two-phases", encoder_rate=1e-3, unfreeze_epoch=2, label_smoothing=0.1)  # fmt: skip


@pytest.fixture
def run(photos, resnet_file, bert_folder, tmp_path):
    return setup("fine_tuning", system="decoder", verbose=False, dataset="flickr8k", data_dir=photos, clip=str(resnet_file),
                 tokenizer=str(bert_folder), work_dir=tmp_path)


@pytest.fixture
def captions(run):
    return load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)


def tower(encoder):
    return {name: value.clone() for name, value in encoder.model.visual.state_dict().items()}


def changed(run, captioner):
    """Children of the image tower whose weights training has changed."""
    before, after = tower(load_clip(run.clip)), tower(captioner.encoder)
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_the_second_phase_changes_the_last_parts_and_nothing_else(run, captions):
    captioner, history = train_decoder(run, captions, SETTINGS, run.output_dir, **SIZES)
    assert changed(run, captioner) == {"layer4", "attnpool"}
    assert not [n for n in ("running_mean", "running_var") if "layer4.0.bn1." + n in moved(run, captioner)]
    rates = history.epochs["encoder_rate"]
    # The row of an epoch holds the rate of the step after it: that of epoch 1 is the first of phase 2.
    assert rates[0] == 0 and rates[1] > 0 and history.epochs["learning_rate"].is_monotonic_decreasing


def moved(run, captioner):
    before, after = tower(load_clip(run.clip)), tower(captioner.encoder)
    return [name for name in before if not torch.equal(before[name], after[name])]


def test_without_room_for_grids_both_phases_take_pixels(run, captions, monkeypatch, capsys):
    monkeypatch.setattr("helpers.data.features.free_bytes", lambda folder: 1000)
    captioner, history = train_decoder(run, captions, SETTINGS, run.output_dir, **SIZES)
    assert "so CLIP runs anew in each epoch" in capsys.readouterr().out
    assert changed(run, captioner) == {"layer4", "attnpool"} and history.epochs["encoder_rate"][0] == 0
    assert not list(run.cache_dir.rglob("features.f16"))


def test_frozen_is_frozen_to_the_bit(run, captions):
    frozen = train_decoder(run, captions, replaced(encoder="frozen"), run.output_dir, **SIZES)[0]
    assert not changed(run, frozen) and "learned" not in frozen.config


def test_all_learns_from_the_start_and_gathers_its_own_statistics(run, captions):
    captioner, history = train_decoder(run, captions, replaced(encoder="all"), run.output_dir, **SIZES)
    assert {"conv1", "bn1", "layer1", "layer4", "attnpool"} <= changed(run, captioner)
    assert "bn1.running_mean" in moved(run, captioner) and (history.epochs["encoder_rate"][:2] > 0).all()


@pytest.mark.parametrize("encoder", ["two-phases", "all"])
def test_what_has_learned_is_saved_and_comes_back(run, captions, encoder):
    captioner, _ = train_decoder(run, captions, replaced(encoder=encoder), run.output_dir, **SIZES)
    pictures = [captions.path(image) for image in captions.images("val")]
    again = load_captioner(run.output_dir / "checkpoint")
    assert again.caption(pictures) == captioner.caption(pictures)
    mine, theirs = captioner.look(pictures)["grid"], again.look(pictures)["grid"]
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert again.encoder.fingerprint == captioner.encoder.fingerprint != load_clip(run.clip).fingerprint
    save_captioner(again, run.output_dir / "copy")  # and goes out again as it came in
    copy = json.loads((run.output_dir / "copy" / "config.json").read_text())
    assert copy["clip"]["fingerprint"] == load_clip(run.clip).fingerprint
    assert load_captioner(run.output_dir / "copy").caption(pictures) == again.caption(pictures)


def replaced(**changes):
    values = {name: getattr(SETTINGS, name) for name in SETTINGS.__dataclass_fields__} | changes
    return TrainSettings(**values)


def test_a_run_killed_in_the_second_phase_resumes_as_if_unbroken(run, captions, monkeypatch):
    whole, rows = train_decoder(run, captions, SETTINGS, run.output_dir / "a", **SIZES)
    steps, step = [], CaptioningModule.training_step

    def dies(self, *arguments):
        steps.append(1)
        if len(steps) == 20:  # 8 a epoch: in the middle of the third
            raise RuntimeError("killed")
        return step(self, *arguments)

    monkeypatch.setattr(CaptioningModule, "training_step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        train_decoder(run, captions, SETTINGS, run.output_dir / "b", **SIZES)
    monkeypatch.setattr(CaptioningModule, "training_step", step)
    resumed, rest = train_decoder(run, captions, SETTINGS, run.output_dir / "b", resume=True, **SIZES)
    np.testing.assert_allclose(rest.epochs, rows.epochs, atol=1e-6)
    for name, value in tower(whole.encoder).items():
        torch.testing.assert_close(tower(resumed.encoder)[name], value, atol=1e-6, rtol=0)


def test_the_rates_rise_and_fall_as_a_cosine():
    rate = rate_schedule(TrainSettings(schedule="cosine", warmup_share=0.1), start=50, end=150)
    assert [rate(step) for step in (0, 49)] == [0, 0]
    assert rate(50) == pytest.approx(0.1) and rate(59) == rate(60) == 1
    assert rate(105) == pytest.approx(0.5) and rate(150) == pytest.approx(0)
    assert rate(80) == pytest.approx((1 + math.cos(math.pi * 20 / 90)) / 2)


def test_the_best_epoch_by_cider_is_kept_and_patience_ends_the_run(run, captions, monkeypatch):
    scores = iter([0.5, 0.9, 0.7, 0.6, 1.0])
    monkeypatch.setattr("helpers.recipes._cider", lambda *_, **__: next(scores))
    settings = replaced(encoder="frozen", keep="val_CIDEr-D", epochs=5, patience=2)
    captioner, history = train_decoder(run, captions, settings, run.output_dir, **SIZES)
    assert history.best_epoch == 1 and list(history.epochs["val_CIDEr-D"]) == pytest.approx([0.5, 0.9, 0.7, 0.6])
    assert captioner.config["training"]["val_CIDEr-D"] == 0.9


def test_the_validation_score_is_that_of_the_captions_it_gives(run, captions):
    captioner, history = train_decoder(run, captions, replaced(keep="val_CIDEr-D"), run.output_dir, **SIZES)
    from helpers.metrics import score

    images = captions.images("val")
    said = captioner.caption([captions.path(image) for image in images])
    references = {image: captions.references("val")[image] for image in images}
    now = score(dict(zip(images, said, strict=True)), references, metrics=("CIDEr-D",))["CIDEr-D"].value
    assert now == pytest.approx(history.best["val_CIDEr-D"], abs=1e-6)


def test_mirrored_batches_are_mirrored_pictures_with_mirrored_words(run, captions):
    encoder, tokens = load_clip(run.clip), load_tokens(run.tokenizer)
    image = captions.images("train")[0]
    references = {image: ["a dog on the left", "the sign that says stop", "a dog has left"]}
    plain = Pictures(encoder, captions.image_dir, [image])
    dataset = CaptionDataset(plain, references, tokens, mirrored=plain.in_a_mirror())
    unknown = tokens.tokenizer.unk_token_id
    pixels, rows, ids = dataset.__getitems__([Item(0, 0), Item(0, 0, True), Item(0, 1, True), Item(0, 2, True)])
    assert len(pixels["pixels"]) == 2 and rows == [0, 1, 0, 1], "a picture is opened once a batch, and once in the mirror"
    torch.testing.assert_close(pixels["pixels"][1], pixels["pixels"][0].flip(-1))
    assert dataset.mirror_captions == {(0, 0): [*tokens.encode("a dog on the right"), tokens.eos], (0, 1): None}
    assert ids[2] == dataset.captions[0][1] and ids[3] == dataset.captions[0][2] and unknown is not None


def test_validation_and_inference_never_mirror(run, captions):
    from helpers.recipes import _loaders

    encoder, tokens = load_clip(run.clip), load_tokens(run.tokenizer)
    captioner = Captioner(encoder, tokens, type("Model", (), {"sees": "grid"})(), {})
    for pixels in (False, True):
        loaders = _loaders(run, captions, captioner, SETTINGS, pixels=pixels)
        assert loaders.train.dataset.mirrored and loaders.val.dataset.mirrored is None
        assert any(item.mirrored for item in loaders.train.sampler) and not any(i.mirrored for i in loaders.val.sampler)


def test_each_picture_of_a_batch_is_looked_at_once(run, captions):
    encoder, tokens = load_clip(run.clip), load_tokens(run.tokenizer)
    source = Pictures(encoder, captions.image_dir, captions.images("train"))
    dataset = CaptionDataset(source, captions.references("train"), tokens)
    seen = 0
    for batch in caption_loader(dataset, tokens, batch_size=10, captions="all"):
        image = batch["image"]
        assert len(image["pixels"]) == 2 and len(image["rows"]) == 10, "five captions of a picture stand together"
        seen += len(image["pixels"])
    assert seen == len(dataset)
    features = cached_features(encoder, captions.image_dir, captions.images("train"), run.cache_dir, grid=True)
    batch = next(iter(caption_loader(CaptionDataset(features, captions.references("train"), tokens), tokens, batch_size=10)))
    assert batch["image"]["grid"].shape == (10, *encoder.grid)


def test_processes_share_an_epoch_out(run, captions, monkeypatch):
    encoder, tokens = load_clip(run.clip), load_tokens(run.tokenizer)
    source = Pictures(encoder, captions.image_dir, captions.images("train"))
    dataset = CaptionDataset(source, captions.references("train"), tokens)
    for which, total in (("all", 60), ("random", 12), ("ordered", 60)):
        parts = []
        for rank in range(2):
            monkeypatch.setattr("helpers.data.batches._rank_and_world", lambda rank=rank: (rank, 2))
            sampler = CaptionSampler(dataset, which)
            parts.append(list(sampler))
            assert len(sampler) == len(parts[-1]) == total // 2
        assert len(set(parts[0]) | set(parts[1])) == total


def test_published_preset_has_the_published_numbers():
    settings, sizes = settings_for("published", "decoder"), sizes_for("published", "decoder")
    assert (settings.learning_rate, settings.encoder_rate, settings.unfreeze_epoch) == (1e-6, 1e-8, 3)
    assert (settings.gradient_clip, settings.label_smoothing, settings.batch_size) == (0.1, 0.1, 64)
    assert (sizes["width"], sizes["layers"], sizes["heads"], sizes["dropout"], sizes["memory"]) == (1024, 4, 8, 0.44, "pooled")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"encoder": "some"}, "encoder='some' is not known: choose frozen or two-phases or all"),
     ({"unfreeze_epoch": 3}, "there are only epochs 0 to 2"), ({"learning_rate": 0.0}, "learning_rate above 0"),
     ({"keep": "loss"}, "keep='loss'")],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replaced(**changes)


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from helpers.data.datasets import load_captions
from helpers.environment import setup
from helpers.recipes import train_decoder
from tests.test_fine_tuning import SETTINGS, SIZES

photos, clip, tokenizer, work = sys.argv[1:]
run = setup("two", system="decoder", verbose=False, dataset="flickr8k", data_dir=photos, clip=clip, tokenizer=tokenizer,
            work_dir=work)
captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)
captioner, history = train_decoder(run, captions, SETTINGS, run.output_dir, devices=2, **SIZES)
rank = torch.distributed.get_rank()
weights = {**captioner.encoder.model.visual.state_dict(), **captioner.model.state_dict()}
torch.save({"weights": weights, "best": history.best_epoch}, Path(work) / f"rank{rank}.pt")
"""


def test_two_processes_have_identical_weights_after_unfreezing(run, photos, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CAPTIONING_PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(photos), run.clip, run.tokenizer, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [torch.load(Path(tmp_path) / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert ranks[0]["best"] == ranks[1]["best"] == 2, "the epoch after unfreezing must be the one compared"
    start = tower(load_clip(run.clip))
    for name, value in ranks[0]["weights"].items():
        assert torch.equal(value, ranks[1]["weights"][name]), f"{name} differs between the processes"
    assert any(not torch.equal(start[n], ranks[0]["weights"][n]) for n in start if n.startswith("layer4")), "it did learn"
