"""How each system is trained: the function that joins data, encoder and model. Its presets are in presets.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from helpers import figures
from helpers.build import build_captioner
from helpers.captioner import Captioner
from helpers.checkpoints import save_captioner
from helpers.clip_from_scratch import train_clip
from helpers.contrast import train_dual_encoder
from helpers.data.batches import draw_share
from helpers.data.datasets import Captions
from helpers.data.encoders import LearningEncoder, load_clip
from helpers.data.features import Features, Pictures, plan_cache
from helpers.data.tokens import load_tokens
from helpers.devices import find_devices, first_process, picture_workers
from helpers.disk import checkpoint_bytes
from helpers.environment import Run, seed_everything
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.java import ensure_java
from helpers.loaders import from_features, from_pictures, make_loaders
from helpers.memory import training_memory
from helpers.presets import PRESETS as PRESETS
from helpers.presets import settings_for as settings_for
from helpers.presets import sizes_for as sizes_for
from helpers.settings import LogSettings, TrainSettings
from helpers.training import History, Loaders, fit


def train_clipcap(
    run: Run,
    captions: Captions,
    settings: TrainSettings,
    folder: str | Path,
    *,
    devices: int | str = 1,
    resume: bool = False,
    log: LogSettings | None = None,
    **sizes: int,
) -> tuple[Captioner, History]:
    """Train ClipCap's mapping network on the train split, validate on the val split, save the best epoch to `folder`.

    `folder`/checkpoint is the captioner's folder, `folder`/history.csv the losses, with pictures of their curves. `sizes` are
    fields of ClipCapConfig; devices, resume and log are as in `helpers.training.fit`.
    Raises InputError or OfflineError as the readers of data and backbones do.
    """
    if settings.encoder != "frozen":
        raise InputError("ClipCap leaves CLIP frozen: encoder='frozen'")
    devices = find_devices(devices, run.device)  # before the work that a wrong number would throw away
    encoder = load_clip(run.clip, run.device)
    language_model = load_language_model(run.language_model)
    tokens = load_tokens(run.tokenizer)
    seed_everything(settings.seed)  # here, so that notebook, command and data/tiny start from the same weights
    model = build_captioner("clipcap", encoder, tokens, language_model, **sizes)
    captioner = Captioner(encoder, tokens, model, {"clip": run.clip, "language_model": run.language_model})
    return captioner, _train(run, captions, captioner, settings, folder, devices=devices, resume=resume, log=log)


def train_decoder(
    run: Run,
    captions: Captions,
    settings: TrainSettings,
    folder: str | Path,
    *,
    devices: int | str = 1,
    resume: bool = False,
    log: LogSettings | None = None,
    **sizes: object,
) -> tuple[Captioner, History]:
    """Train the decoder on the train split, validate on the val split, save the best epoch to `folder`.

    settings.encoder says what CLIP does: nothing, learn in a second phase, or learn from the start. Folder, `sizes` (fields of
    DecoderConfig), other parameters and errors as in `train_clipcap`.
    """
    devices = find_devices(devices, run.device)
    encoder = load_clip(run.clip, run.device)
    tokens = load_tokens(run.tokenizer)
    seed_everything(settings.seed)
    model = build_captioner("decoder", encoder, tokens, max_tokens=settings.max_tokens, **sizes)
    captioner = Captioner(encoder, tokens, model, {"clip": run.clip, "tokenizer": run.tokenizer})
    return captioner, _train(run, captions, captioner, settings, folder, devices=devices, resume=resume, log=log)


def train_cross_attention(
    run: Run,
    captions: Captions,
    settings: TrainSettings,
    folder: str | Path,
    *,
    devices: int | str = 1,
    resume: bool = False,
    log: LogSettings | None = None,
    **sizes: object,
) -> tuple[Captioner, History]:
    """Train GPT-2 with cross-attention on the train split, validate on the val split, save the best epoch to `folder`.

    Folder, `sizes` (fields of CrossAttentionConfig), other parameters and errors as in `train_clipcap`; settings.encoder as
    in `train_decoder`, but a ViT learns whole or not at all.
    """
    devices = find_devices(devices, run.device)
    encoder = load_clip(run.clip, run.device)
    language_model = load_language_model(run.language_model)
    tokens = load_tokens(run.tokenizer)
    seed_everything(settings.seed)
    model = build_captioner("cross-attention", encoder, tokens, language_model, **sizes)
    captioner = Captioner(encoder, tokens, model, {"clip": run.clip, "language_model": run.language_model})
    return captioner, _train(run, captions, captioner, settings, folder, devices=devices, resume=resume, log=log)


TRAIN = {"clipcap": train_clipcap, "decoder": train_decoder, "cross-attention": train_cross_attention,
         "dual-encoder": train_dual_encoder, "clip": train_clip}  # fmt: skip


def _train(
    run: Run,
    captions: Captions,
    captioner: Captioner,
    settings: TrainSettings,
    folder: str | Path,
    **options: object,
) -> History:
    """Loaders, fit, the curves, and the checkpoint with what it was trained on. `options` are those of `fit`."""
    live, pixels = _live_encoder(run, captions, captioner, settings)
    loaders = _loaders(run, captions, captioner, settings, pixels=pixels)
    later = None
    if settings.encoder == "two-phases":
        broken = {split: loader.dataset.source.broken for split, loader in zip(("train", "val"), loaders, strict=True)}
        later = _loaders(run, captions, captioner, settings, pixels=True, broken=broken)
    score = None
    if settings.keep == "val_CIDEr-D":
        source = loaders.val.dataset.source
        if len(loaders.val.dataset) < 2:
            raise InputError("CIDEr-D of a single picture is always 0: give more validation pictures, or --keep val_loss")
        ensure_java()  # not only when the first epoch is over
        score = lambda: _cider(captions, captioner, source, changed=bool(live and live.learning))  # noqa: E731
    if first_process():
        length = min(settings.max_tokens, 40)  # people's longest captions
        memory = training_memory(
            captioner.model, settings.batch_size, length, bytes_per_number=run.precision, cells=captioner.encoder.grid[0]
        )
        beside = "" if live is None else ", CLIP's own beside"
        print(f"memory of a training step, counted for captions of {length} tokens: {memory.total / 1e9:.2f} GB{beside}")
    what = {"dataset": captions.name, **captioner.config, "model": str(captioner.model.config)}
    history = fit(
        captioner.model, loaders, settings, folder, encoder=live, pixels=later, score=score, device=run.device,
        precision=run.precision, what=what, **options,
    )  # fmt: skip
    if live and live.parts:
        captioner.encoder.take_fingerprint()
    best = {name: round(float(history.best[name]), 4) for name in ("val_loss", "val_CIDEr-D") if name in history.best}
    captioner.config["training"] = {
        "dataset": captions.name,
        "pictures": len(loaders.train.dataset),
        "minutes": round(history.minutes, 2),
        "best_epoch": history.best_epoch,
        **best,
        **dataclasses.asdict(settings),
    }
    if first_process():
        _draw(history, Path(folder))
        save_captioner(captioner, Path(folder) / "checkpoint")
    return history


def _live_encoder(
    run: Run, captions: Captions, captioner: Captioner, settings: TrainSettings
) -> tuple[LearningEncoder | None, bool]:
    """CLIP's image tower where pixels must go through it, and whether they do from the first epoch on.

    They do where all of it learns from the start, and where the disk cannot hold its grids.
    """
    encoder = captioner.encoder
    pixels = settings.encoder == "all"
    if not pixels and captioner.model.sees == "grid":
        train, val = draw_share(captions.images("train"), settings.share, settings.seed), captions.images("val")
        # What learns is counted before CLIP is asked to learn along: its last parts are small beside it.
        reserve = checkpoint_bytes(sum(p.numel() for p in captioner.model.parameters() if p.requires_grad))
        plan = partial(
            plan_cache, encoder, cache_dir=run.cache_dir, grid=True, image_dir=captions.image_dir, reserve=reserve
        )
        both = plan(train, copies=2 if settings.mirrored else 1) + plan(val)
        if first_process():
            print(both)
        pixels = not both.cached
    if settings.encoder == "frozen":
        return (LearningEncoder(encoder.model.visual, parts=()) if pixels else None), pixels
    live = LearningEncoder(
        encoder.model.visual, LearningEncoder.ALL if settings.encoder == "all" else LearningEncoder.FINE_TUNED
    )
    encoder.model.float()  # the text tower too, so that both go on working together
    captioner.config |= {"learned": list(live.parts), "clip_fingerprint": encoder.fingerprint}
    return live, pixels


def _draw(history: History, folder: Path) -> None:
    """history.png, the losses by epoch; history-score.png where a validation score was computed."""
    epochs = history.epochs
    # Counted from 0, as everywhere: by "best_epoch", in history.csv, by --unfreeze-epoch.
    lines = {name: (list(epochs["epoch"]), list(epochs[name])) for name in epochs if name != "epoch"}
    losses = {label: lines[name] for label, name in (("training", "train_loss"), ("validation", "val_loss"))}
    figures.save(figures.curves(losses, "epoch", "loss", title="Losses"), folder / "history.png")
    if "val_CIDEr-D" in lines:
        scores = {"CIDEr-D": lines["val_CIDEr-D"]}
        figures.save(figures.curves(scores, "epoch", "CIDEr-D", title="Validation score"), folder / "history-score.png")


def _loaders(
    run: Run,
    captions: Captions,
    captioner: Captioner,
    settings: TrainSettings,
    *,
    pixels: bool,
    broken: Mapping[str, Mapping[str, str]] | None = None,
) -> Loaders:
    """Batches from cached features, or of pixels for CLIP to run on; `broken` as in `from_pictures`, and reported already."""
    if pixels:
        source = from_pictures(captioner.encoder, captions.image_dir, broken)
    else:
        grid = captioner.model.sees == "grid"
        source = from_features(captioner.encoder, captions.image_dir, run.cache_dir, grid=grid)
    workers = picture_workers(run.device) if pixels else 0
    return make_loaders(captions, captioner.tokens, settings, source, workers=workers, told=broken is not None)


def _cider(captions: Captions, captioner: Captioner, source: Features | Pictures, changed: bool) -> float:
    """CIDEr-D of greedy captions of the val split: from its features, or, where CLIP has changed, from its pictures."""
    from helpers.metrics import score

    images = [image for image in captions.images("val") if image in source]
    if changed or isinstance(source, Pictures):
        said = captioner.caption([captions.path(image) for image in images])  # from the files, as a user would
    else:
        said = captioner.caption_features(source.batch(images))
    people = captions.references("val")
    references = {image: people[image] for image in images}
    return score(dict(zip(images, said, strict=True)), references, metrics=("CIDEr-D",), resamples=1)["CIDEr-D"].value
