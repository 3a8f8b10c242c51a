"""How each system is trained: its presets of settings and sizes, and the function that joins data, encoder and model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from helpers import figures
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
from helpers.environment import Run, seed_everything
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.java import ensure_java
from helpers.loaders import from_features, from_pictures, make_loaders
from helpers.memory import training_memory
from helpers.models.clipcap import ClipCap
from helpers.models.cross_attention import CrossAttentionCaptioner
from helpers.models.decoder import DecoderCaptioner, DecoderConfig
from helpers.settings import LogSettings, TrainSettings
from helpers.training import History, Loaders, fit

# By system and preset: (fields of TrainSettings, fields of the model's config). "full" and "tiny" are the profiles'. The
# small backbones learn at rates that would wreck the large ones, and their width holds fewer heads.
PRESETS: dict[str, dict[str, tuple[dict, dict]]] = {
    "clipcap": {
        "full": ({}, {}),  # the paper's: a transformer mapping, GPT-2 frozen
        "tiny": (
            {"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "captions": "all", "weight_decay": 0.05},
            {"layers": 4, "heads": 4},
        ),
        "mlp": ({}, {"mapping": "mlp", "tuning": "all"}),  # the paper's other captioner
        "p1": (  # Chantoone/image-captioning-via-GPT2-and-CLIP: a memory of length 1
            {"epochs": 30, "batch_size": 32, "learning_rate": 1e-5, "weight_decay": 1e-5, "warmup_share": 0.0},
            {"mapping": "cross-attention-pooled"},
        ),
        **{  # Lahdhirim/CV-image-captioning-clip-gpt2's six experiments, on shares of COCO
            f"p2-{n}": (
                {"batch_size": 64, "learning_rate": 1e-4, "weight_decay": 0.0, "share": share},
                {"mapping": "linear", "prefix_length": prefix, "tuning": "blocks", "frozen_blocks": frozen},
            )
            for n, (prefix, frozen, share) in enumerate(
                ((2, 10, 0.005), (2, 10, 0.1), (4, 10, 0.2), (5, 11, 0.4), (10, 11, 0.5), (4, 6, 0.4)), start=1
            )
        },
    },
    "decoder": {
        "full": (
            {"epochs": 15, "batch_size": 64, "learning_rate": 3e-4, "weight_decay": 0.05, "schedule": "cosine",
             "label_smoothing": 0.1, "captions": "all", "keep": "val_CIDEr-D", "patience": 3, "encoder": "two-phases",
             "encoder_rate": 1e-5, "unfreeze_epoch": 10, "mirrored": True},
            {},
        ),
        "tiny": (
            {"epochs": 2, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.05, "schedule": "cosine",
             "label_smoothing": 0.1, "captions": "all", "keep": "val_CIDEr-D", "encoder": "two-phases",
             "encoder_rate": 1e-4, "unfreeze_epoch": 1, "mirrored": True},
            {"width": 128, "layers": 2, "heads": 4, "dropout": 0.0},  # two epochs are too few to overfit
        ),
        # As published, at rates of learning that hardly learn, and with a memory of length 1: nowhere to look.
        "published": (
            {"epochs": 10, "batch_size": 64, "learning_rate": 1e-6, "weight_decay": 0.01, "schedule": "cosine",
             "warmup_share": 0.0, "gradient_clip": 0.1, "label_smoothing": 0.1, "captions": "all", "patience": 3,
             "encoder": "two-phases", "encoder_rate": 1e-8, "unfreeze_epoch": 3, "mirrored": True, "max_tokens": 49},
            {"width": 1024, "layers": 4, "heads": 8, "dropout": 0.44, "memory": "pooled", "tied": False, "positions": 49},
        ),
    },
    "cross-attention": {
        "full": ({"learning_rate": 1e-4, "batch_size": 32, "keep": "val_CIDEr-D", "patience": 3}, {}),  # fits a T4
        "tiny": (
            {"epochs": 4, "batch_size": 64, "learning_rate": 3e-3, "captions": "all", "weight_decay": 0.05},
            {},
        ),
        # What is trained of Xiangyu-Lou/Image-Captions; its backbones are in environment.DEFAULTS.
        "published": ({"learning_rate": 1e-4, "batch_size": 32}, {"tuning": "mlps", "gradient_checkpointing": True}),
    },
    "clip": {
        "full": ({"epochs": 30, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 0.1, "schedule": "cosine",
                  "captions": "all"}, {}),
        "tiny": ({"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.1, "schedule": "cosine",
                  "captions": "all"}, {}),
    },
    "dual-encoder": {
        "full": ({"learning_rate": 1e-3, "batch_size": 128, "weight_decay": 1e-3, "schedule": "cosine", "mirrored": True}, {}),
        "tiny": (
            {"epochs": 3, "batch_size": 128, "learning_rate": 2e-3, "weight_decay": 1e-3, "schedule": "cosine",
             "captions": "all"},
            {"image_rate": 0.1, "text_rate": 1.0, "dropout": 0.0},
        ),
        # richardwzhu/image-captioning-CLIP, whose rate falls by a fifth where the loss no longer does: here, by a line.
        "published": (
            {"epochs": 2, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 1e-3, "captions": "all"},
            {"loss": "soft-targets"},
        ),
    },
}  # fmt: skip


def settings_for(preset: str, system: str = "clipcap", **changes: object) -> TrainSettings:
    """The preset's training settings, with `changes` on top (None: as the preset has it)."""
    return TrainSettings(**(_preset(system, preset)[0] | _given(changes)))


def sizes_for(preset: str, system: str = "clipcap", **changes: object) -> dict[str, object]:
    """The preset's sizes of the model, fields of its config, with `changes` on top (None: as the preset has it)."""
    return _preset(system, preset)[1] | _given(changes)


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
    if sizes.get("mapping") == "cross-attention":
        sizes = {"grid_dim": encoder.grid[1]} | sizes
    model = ClipCap.build(encoder.dim, language_model, **sizes)
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
    # Room for a caption of usual length and a prompt, also where training cuts captions short.
    sizes = {"positions": max(64, settings.max_tokens), "memory_dim": encoder.grid[1]} | sizes
    model = DecoderCaptioner(DecoderConfig(len(tokens), tokens.bos, encoder.dim, **sizes))
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
    model = CrossAttentionCaptioner.build(encoder.grid[1], language_model, tokens.bos, **sizes)
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
    start = time.perf_counter()
    history = fit(
        captioner.model, loaders, settings, folder, encoder=live, pixels=later, score=score, device=run.device,
        precision=run.precision, **options,
    )  # fmt: skip
    if live and live.parts:
        captioner.encoder.take_fingerprint()
    best = {name: round(float(history.best[name]), 4) for name in ("val_loss", "val_CIDEr-D") if name in history.best}
    captioner.config["training"] = {
        "dataset": captions.name,
        "pictures": len(loaders.train.dataset),
        "minutes": round((time.perf_counter() - start) / 60, 2),
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
        plan = partial(plan_cache, encoder, cache_dir=run.cache_dir, grid=True, image_dir=captions.image_dir)
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


def _preset(system: str, preset: str) -> tuple[dict, dict]:
    if preset not in PRESETS[system]:
        raise InputError(f"preset {preset!r} is not known: choose one of {', '.join(PRESETS[system])}")
    return PRESETS[system][preset]


def _given(changes: dict) -> dict:
    return {name: value for name, value in changes.items() if value is not None}
