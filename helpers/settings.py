"""What can be set about a training run, each with its help in one place: light, for --help must not wait for torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.util import find_spec

from helpers.errors import InputError

CHOICES = {
    "captions": ("random", "all"),
    "schedule": ("linear", "cosine"),
    "keep": ("val_loss", "val_CIDEr-D"),
    "encoder": ("frozen", "two-phases", "all"),
    "logger": ("csv", "tensorboard", "wandb"),
}


def _setting(default: object, help: str, **options: bool):
    """A field with the sentence that `helpers.train --help` prints."""
    return field(default=default, metadata={"help": help}, **options)


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The defaults are ClipCap's (paper, section 4): AdamW 2e-5, linear decay after warm-up, batch 40."""

    epochs: int = _setting(10, "passes over the pictures")
    batch_size: int = _setting(40, "captions a batch, in each process")
    learning_rate: float = _setting(2e-5, "AdamW's, after warm-up")
    weight_decay: float = _setting(0.01, "AdamW's")
    warmup_share: float = _setting(0.1, "share of all steps in which the rate rises")  # published: 5,000, 4 % of a COCO run
    schedule: str = _setting("linear", "the rate's way down to 0")
    gradient_clip: float = _setting(1.0, "longest gradient of a step; 0: any")
    label_smoothing: float = _setting(0.0, "in training only: the validation loss stays comparable")
    captions: str = _setting("random", "of a picture, an epoch: one drawn anew, or all")
    mirrored: bool = _setting(False, "half of the training pictures in a mirror, left and right exchanged in their captions")
    max_tokens: int = _setting(60, "longer captions are cut, their end token kept")
    keep: str = _setting("val_loss", "which epoch is the best: of the lowest loss, or the highest CIDEr-D")
    patience: int = _setting(0, "stop after so many epochs without a better one; 0: never")
    encoder: str = _setting("frozen", "CLIP stays as it is; its last parts learn in a second phase; all learns from the start")
    encoder_rate: float = _setting(1e-5, "AdamW's for a CLIP that learns, after warm-up")
    unfreeze_epoch: int = _setting(3, "where the second phase begins, counted from 0")
    seed: int = _setting(0, "of weights, order and caption draws")
    # Not in the repr, which notebooks show: how a machine gets there, and how much of the data it is given.
    accumulate: int = _setting(1, "batches whose gradients are averaged for one step", repr=False)
    checkpoint_steps: int = _setting(0, "a checkpoint every so many steps, besides one an epoch; 0: none", repr=False)
    share: float = _setting(1.0, "share of the training pictures that is used, drawn by seed", repr=False)

    def __post_init__(self) -> None:
        _check_choices(self)
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0:
            raise InputError("epochs and batch_size must be at least 1, learning_rate above 0")
        if self.accumulate < 1:
            raise InputError(f"accumulate={self.accumulate}: at least 1 batch makes a step")
        if not 0 < self.share <= 1:
            raise InputError(f"share={self.share}: give more than 0 and at most 1, the share of the training pictures")
        for name in ("weight_decay", "gradient_clip", "patience", "encoder_rate", "checkpoint_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: give 0 or more")
        for name in ("warmup_share", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is a share: give at least 0 and less than 1")
        if self.encoder == "two-phases" and not 0 <= self.unfreeze_epoch < self.epochs:
            raise InputError(f"unfreeze_epoch={self.unfreeze_epoch}: there are only epochs 0 to {self.epochs - 1}")


@dataclass(frozen=True)
class LogSettings:
    """Where the numbers of each step and epoch go, besides history.csv."""

    logger: str = _setting("csv", "csv files in logs/, TensorBoard, or Weights & Biases")
    entity: str | None = _setting(None, "Weights & Biases: the user or team")
    project_name: str = _setting("image-captioning", "Weights & Biases: the project")
    exp_name: str | None = _setting(None, "Weights & Biases: this run")
    offline: bool = _setting(False, "Weights & Biases without a network: `wandb sync` uploads later")

    def __post_init__(self) -> None:
        _check_choices(self)
        # Now, not when training starts: until then, features may take long.
        if self.logger != "csv" and sys.modules.get(self.logger) is None and find_spec(self.logger) is None:
            raise InputError(f"logger={self.logger!r} needs a package that is missing: pip install {self.logger}")


def _check_choices(settings: TrainSettings | LogSettings) -> None:
    for name, choices in CHOICES.items():
        if getattr(settings, name, choices[0]) not in choices:
            raise InputError(f"{name}={getattr(settings, name)!r} is not known: choose {' or '.join(choices)}")
