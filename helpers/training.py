"""Training with Lightning: one module for every captioner; AdamW with warm-up, resumable, the best weights kept.

In two phases where the encoder learns too: first the captioner alone, in front of cached features; then, at much smaller
steps, also the last parts of the encoder, which then needs pixels.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from helpers.environment import progress_wanted
from helpers.errors import InputError
from helpers.files import atomic_path

# After the import, which sets INFO: hardware, tips and counts on stderr that a reader need not see.
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)

CHOICES = {
    "captions": ("random", "all"),
    "schedule": ("linear", "cosine"),
    "keep": ("val_loss", "val_CIDEr-D"),
    "encoder": ("frozen", "two-phases", "all"),
}


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The defaults are ClipCap's (paper, section 4): AdamW 2e-5, linear decay after warm-up, batch 40."""

    epochs: int = 10
    batch_size: int = 40
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.1  # share of all steps; the published 5,000 steps are about 4 % of a COCO run
    schedule: str = "linear"  # or "cosine": the way down to 0
    gradient_clip: float = 1.0
    label_smoothing: float = 0.0  # in training only; the validation loss stays comparable
    captions: str = "random"  # one of a picture's captions an epoch, drawn anew; or "all"
    mirrored: bool = False  # half of the training pictures in a mirror, left and right exchanged in their words
    max_tokens: int = 60
    keep: str = "val_loss"  # the epoch whose weights are kept: lowest loss, or highest "val_CIDEr-D"
    patience: int = 0  # stop after so many epochs without a better one; 0: never
    encoder: str = "frozen"  # "two-phases": its last parts learn from `unfreeze_epoch` on; "all": all of it from the start
    encoder_rate: float = 1e-5
    unfreeze_epoch: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name}={getattr(self, name)!r} is not known: choose {' or '.join(choices)}")
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0:
            raise InputError("epochs and batch_size must be at least 1, learning_rate above 0")
        if self.encoder == "two-phases" and not 0 <= self.unfreeze_epoch < self.epochs:
            raise InputError(f"unfreeze_epoch={self.unfreeze_epoch}: there are only epochs 0 to {self.epochs - 1}")


class Loaders(NamedTuple):
    """Training and validation batches."""

    train: DataLoader
    val: DataLoader


@dataclass(frozen=True)
class History:
    """What training left: `epochs` (a DataFrame, see EpochHistory) and the epoch whose weights were kept."""

    epochs: pd.DataFrame
    best_epoch: int

    @property
    def best(self) -> pd.Series:
        """The row of the epoch whose weights were kept."""
        return self.epochs[self.epochs["epoch"] == self.best_epoch].iloc[0]

    @property
    def best_val_loss(self) -> float:
        return float(self.best["val_loss"])


class CaptioningModule(L.LightningModule):
    """Lightning's view of a captioner: `model.loss(image, tokens, mask)` on both splits, one optimizer, one schedule.

    encoder: a module from pixels to what the model takes, with a switch `learning`; batches of pixels go through it.
    """

    strict_loading = False  # checkpoints hold what trains; the frozen backbone is already in place

    def __init__(self, model: nn.Module, settings: TrainSettings, encoder: nn.Module | None = None):
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.settings = settings
        self.save_hyperparameters(asdict(settings))  # plain values: Lightning reads checkpoints with weights_only

    def loss(self, batch: dict, **options: float) -> Tensor:
        image = batch["image"]
        if isinstance(image, Mapping) and "pixels" in image:
            image = {name: part[image["rows"]] for name, part in self.encoder(image["pixels"]).items()}
        return self.model.loss(image, batch["tokens"], batch["mask"], **options)

    def training_step(self, batch: dict, _: int) -> Tensor:
        # Dropout depends on seed and step alone, as the data's order on seed and epoch: a resumed run is the unbroken one.
        torch.manual_seed((self.settings.seed * 1_000_003 + self.global_step) * self.trainer.world_size + self.global_rank)
        smoothing = {"label_smoothing": self.settings.label_smoothing} if self.settings.label_smoothing else {}
        loss = self.loss(batch, **smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch["tokens"]))
        return loss

    def validation_step(self, batch: dict, _: int) -> None:
        # Weighted by target tokens, so that the mean does not depend on how pictures fall into batches.
        self.log("val_loss", self.loss(batch), prog_bar=True, sync_dist=True, batch_size=int(batch["mask"].sum()))

    def configure_optimizers(self) -> dict:
        s = self.settings
        steps = self.trainer.datamodule.steps(s.epochs)
        learns = [p for p in self.model.parameters() if p.requires_grad]
        groups, rates = [{"name": "learning_rate", "params": learns, "lr": s.learning_rate}], [rate_schedule(s, 0, steps)]
        if self.encoder is not None:
            # Known to the optimizer from the start, at a rate of 0 until its phase begins: so a resumed run, and every
            # process of several, has the same groups at any time.
            start = self.trainer.datamodule.steps(s.unfreeze_epoch) if s.encoder == "two-phases" else 0
            learns = [p for p in self.encoder.parameters() if p.requires_grad]
            groups.append({"name": "encoder_rate", "params": learns, "lr": s.encoder_rate})
            rates.append(rate_schedule(s, start, steps))
        # Fused: one pass over all parameters. Lightning cannot clip the gradients of a fused optimizer in mixed precision.
        optimizer = torch.optim.AdamW(groups, weight_decay=s.weight_decay, fused=self.trainer.precision == "32-true")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        kept = {name for name, p in self.named_parameters() if p.requires_grad}
        if self.settings.encoder == "all":  # its BatchNorm has gathered statistics of its own
            kept |= {f"encoder.{name}" for name, _ in self.encoder.named_buffers()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}


def rate_schedule(settings: TrainSettings, start: int, end: int) -> Callable[[int], float]:
    """The share of the learning rate at each step: 0 before `start`, up over the warm-up, down to 0 at `end`."""
    total = end - start
    warmup = max(1, round(settings.warmup_share * total))

    def rate(step: int) -> float:
        step -= start
        if step < 0:
            return 0.0
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (total - step) / max(1, total - warmup))  # from 1 to 0
        return left if settings.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2

    return rate


class Phases(L.LightningDataModule):
    """Which loaders an epoch reads: the first, and from epoch `change` on the second."""

    def __init__(self, first: Loaders, second: Loaders | None = None, change: int | None = None):
        super().__init__()
        self.first, self.second, self.change = first, second or first, change

    def train_dataloader(self) -> DataLoader:
        return self._now().train

    def val_dataloader(self) -> DataLoader:
        return self._now().val

    def steps(self, epochs: int) -> int:
        """Optimizer steps in the first `epochs` epochs."""
        early = epochs if self.change is None else min(epochs, self.change)
        return early * len(self.first.train) + (epochs - early) * len(self.second.train)

    def _now(self) -> Loaders:
        return self.first if self.change is None or self.trainer.current_epoch < self.change else self.second


class Unfreeze(Callback):
    """Phase 2: from `epoch` on the encoder learns too.

    Nothing but a switch, for its parameters have wanted gradients, and stood in the optimizer, all the time. The usual way
    (Lightning's BaseFinetuning: set requires_grad, add a group) goes wrong with several processes: DDP registers at the
    start which gradients it averages, and those that come later stay each process's own, without a word.
    """

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: L.Trainer, module: CaptioningModule) -> None:
        module.encoder.learning = trainer.current_epoch >= self.epoch


class ValidationScore(Callback):
    """After each epoch `score()`, made by the captioner as a user would run it, is logged as `name`."""

    def __init__(self, name: str, score: Callable[[], float]):
        self.name, self.score = name, score

    def on_validation_epoch_end(self, trainer: L.Trainer, module: CaptioningModule) -> None:
        value = self.score() if trainer.is_global_zero else 0.0
        module.log(self.name, trainer.strategy.broadcast(value), prog_bar=True)


class EpochHistory(Callback):
    """One row an epoch, written to history.csv as training goes; kept in the checkpoints, so that a resumed run has all.

    Columns: epoch, train_loss, val_loss, the validation score where one is computed, and the learning rates after the epoch.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        scores = {name: float(metrics[name]) for name in ("train_loss", "val_loss", "val_CIDEr-D") if name in metrics}
        rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
        self.rows.append({"epoch": trainer.current_epoch, **scores, **rates})
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                self.table().to_csv(temporary, index=False)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]


def fit(
    model: nn.Module,
    loaders: Loaders,
    settings: TrainSettings,
    folder: str | Path,
    *,
    encoder: nn.Module | None = None,
    pixels: Loaders | None = None,
    score: Callable[[], float] | None = None,
    device: str = "cpu",
    devices: int = 1,
    precision: str = "32-true",
    resume: bool = False,
) -> History:
    """Train `model` in place and leave it with the weights of the best epoch by `settings.keep`.

    encoder: where settings.encoder is not "frozen", the module that turns pixels into what `model` takes, trained in place
    too; `pixels`: the loaders of phase 2 (with "all", `loaders` give pixels already). score: a function that measures the
    model on the val split, needed to keep by "val_CIDEr-D". devices: processes, one a GPU (on a CPU, processes).
    `folder` receives history.csv and, while training runs, a checkpoint an epoch; with `resume` a run that was killed goes
    on from the last whole epoch (the data order depends on seed and epoch alone), otherwise it starts afresh.
    """
    if settings.keep == "val_CIDEr-D" and score is None:
        raise InputError("keep='val_CIDEr-D' needs a score function")
    folder = Path(folder)
    working = folder / "lightning"
    if not resume:
        shutil.rmtree(working, ignore_errors=True)
    last = working / "last.ckpt"
    history = EpochHistory(folder / "history.csv")
    mode = "min" if settings.keep == "val_loss" else "max"
    keeper = ModelCheckpoint(
        working,
        filename="best-{epoch}",
        monitor=settings.keep,
        mode=mode,
        save_top_k=1,
        save_last=True,
        save_on_train_epoch_end=True,  # after EpochHistory has its row
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [ValidationScore("val_CIDEr-D", score)] if score else []
    callbacks += [history, keeper]
    if settings.patience:
        callbacks.append(EarlyStopping(settings.keep, mode=mode, patience=settings.patience, check_on_train_epoch_end=True))
    change = {"frozen": None, "two-phases": settings.unfreeze_epoch, "all": 0}[settings.encoder]
    if change is not None:
        callbacks.append(Unfreeze(change))
    if progress_wanted():
        callbacks.append(TQDMProgressBar(leave=True))
    # In phase 1 the encoder's parameters are in no loss: DDP must look for them, or it waits for their gradients for ever.
    strategy = "auto" if devices == 1 else "ddp" if encoder is None else "ddp_find_unused_parameters_true"
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=devices,
        strategy=strategy,
        sync_batchnorm=settings.encoder == "all" and device == "cuda" and devices > 1,
        precision=precision,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        reload_dataloaders_every_n_epochs=0 if pixels is None else 1,  # phase 2 reads others
        logger=False,
        enable_progress_bar=progress_wanted(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # CaptionSampler shuffles by seed and epoch, and shares out, itself
    )
    module = CaptioningModule(model, settings, encoder)
    data = Phases(loaders, pixels, change)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if resume and last.is_file() else None, weights_only=True)
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C, having switched Ctrl-C off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stopped
    best = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"], strict=False)
    module.to(device).eval()
    return History(history.table(), best["epoch"])
