"""Training with Lightning: one module for every captioner; AdamW with warm-up, resumable, the best weights kept.

In two phases where the encoder learns too: first the captioner alone, in front of cached features; then, at much smaller
steps, also the last parts of the encoder, which then needs pixels.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import lightning as L
import pandas as pd
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler

from helpers.attached import bring_training, misfit
from helpers.callbacks import EpochHistory, Patience, StepCheckpoint, Unfreeze, ValidationScore
from helpers.devices import find_devices, find_strategy, first_process
from helpers.disk import check_room, checkpoint_bytes, used_bytes
from helpers.environment import progress_wanted, shown
from helpers.errors import InputError
from helpers.files import atomic_path
from helpers.loggers import make_logger
from helpers.settings import CHOICES as CHOICES
from helpers.settings import LogSettings, TrainSettings

# After the import, which sets INFO: hardware, tips and counts on stderr that a reader need not see.
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)


class Loaders(NamedTuple):
    """Training and validation batches."""

    train: DataLoader
    val: DataLoader


@dataclass(frozen=True)
class History:
    """What training left: `epochs` (a DataFrame, see EpochHistory) and the epoch whose weights were kept."""

    epochs: pd.DataFrame
    best_epoch: int
    minutes: float  # with those of a killed run, up to the checkpoint that was gone on from

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

    def __init__(
        self, model: nn.Module, settings: TrainSettings, encoder: nn.Module | None = None, what: dict[str, str] | None = None
    ):
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.settings = settings
        self.started = time.perf_counter()  # less what a run that was killed had taken
        # Plain values: Lightning reads checkpoints with weights_only.
        self.save_hyperparameters(asdict(settings) | {"what": what or {}})

    def loss(self, batch: dict, **options: float) -> Tensor:
        image = batch["image"]
        if self.encoder is not None and isinstance(image, Mapping) and "pixels" in image:
            image = {name: part[image["rows"]] for name, part in self.encoder(image["pixels"]).items()}
        return self.model.loss(image, batch["tokens"], batch["mask"], **options)

    def training_step(self, batch: dict, number: int) -> Tensor:
        # Dropout depends on seed and step alone, as the data's order on seed and epoch: a resumed run is the unbroken one.
        step = self.global_step * self.settings.accumulate + number % self.settings.accumulate
        torch.manual_seed((self.settings.seed * 1_000_003 + step) * self.trainer.world_size + self.global_rank)
        smoothing = {"label_smoothing": self.settings.label_smoothing} if self.settings.label_smoothing else {}
        loss = self.loss(batch, **smoothing)
        self.log("train_loss_step", loss, on_step=True, on_epoch=False)  # for the logger
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch["tokens"]))
        return loss

    def validation_step(self, batch: dict, _: int) -> None:
        # Weighted by target tokens, so that the mean does not depend on how pictures fall into batches.
        self.log("val_loss", self.loss(batch), prog_bar=True, sync_dist=True, batch_size=int(batch["mask"].sum()))

    def configure_optimizers(self) -> dict:
        s = self.settings
        steps = self.trainer.datamodule.steps(s.epochs)
        learns = [p for p in self.model.parameters() if p.requires_grad]
        groups = [{"name": "learning_rate", "params": learns, "lr": s.learning_rate}]
        if hasattr(self.model, "parameter_groups"):  # parts that learn at rates of their own
            groups = self.model.parameter_groups(s.learning_rate)
        rates = [rate_schedule(s, 0, steps)] * len(groups)
        if s.encoder != "frozen":
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
        kept |= {f"model.{name}" for name, _ in self.model.named_buffers()}  # a dual encoder's BatchNorm gathers statistics
        if self.settings.encoder == "all":  # its BatchNorm has gathered statistics of its own
            kept |= {f"encoder.{name}" for name, _ in self.encoder.named_buffers()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["seconds"] = time.perf_counter() - self.started

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.started -= checkpoint.get("seconds", 0.0)


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

    def __init__(self, first: Loaders, second: Loaders | None = None, change: int | None = None, accumulate: int = 1):
        super().__init__()
        self.first, self.second, self.change, self.accumulate = first, second or first, change, accumulate

    def train_dataloader(self) -> DataLoader:
        loader = self._now().train
        # Lightning does so too, but only once worker processes have begun to read ahead.
        loader.sampler.set_epoch(self._epoch)
        seen = self.trainer.fit_loop.epoch_loop.batch_progress  # what a checkpoint in the middle of an epoch has brought back
        return loader if seen.is_last_batch or not seen.current.ready else self._rest(loader, seen.current.ready)

    def val_dataloader(self) -> DataLoader:
        return self._now().val

    def steps(self, epochs: int) -> int:
        """Optimizer steps in the first `epochs` epochs. The last step of an epoch may have fewer batches than the others."""
        early = epochs if self.change is None else min(epochs, self.change)
        first, second = (math.ceil(len(loaders.train) / self.accumulate) for loaders in (self.first, self.second))
        return early * first + (epochs - early) * second

    def _now(self) -> Loaders:
        return self.first if self.change is None or self._epoch < self.change else self.second

    @property
    def _epoch(self) -> int:
        # Not current_epoch, which, where a run is resumed, still is the epoch before when loaders are asked for.
        return self.trainer.fit_loop.epoch_progress.current.processed

    def _rest(self, loader: DataLoader, seen: int) -> DataLoader:
        batches = RestOfEpoch(loader.batch_sampler, seen, self._epoch)
        return DataLoader(
            loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn, num_workers=loader.num_workers
        )


class RestOfEpoch(Sampler):
    """The batches of `epoch` after the first `seen`, and all of every other epoch.

    Lightning counts on from `seen` when it resumes in the middle of an epoch, but gives the loader's batches from the start.
    It also takes the length for that of the whole epoch.
    """

    def __init__(self, batches: BatchSampler, seen: int, epoch: int):
        self.batches, self.seen, self.epoch = batches, seen, epoch
        self.sampler = batches.sampler  # where Lightning sets the epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        return islice(self.batches, self.seen if self.sampler.epoch == self.epoch else 0, None)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent: Lightning's own go through /tmp, from where moving may be copying."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)


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
    devices: int | str = 1,
    precision: str = "32-true",
    resume: bool = False,
    what: dict[str, str] | None = None,
    log: LogSettings | None = None,
) -> History:
    """Train `model` in place and leave it with the weights of the best epoch by `settings.keep`.

    encoder: the module that turns pixels into what `model` takes, where batches hold pixels; where settings.encoder is not
    "frozen", it is trained in place too. `pixels`: the loaders of phase 2 (with "all", `loaders` give pixels already). score:
    a function that measures the model on the val split, needed to keep by "val_CIDEr-D". devices: processes, one a GPU (on a
    CPU, processes), or "auto". `folder` receives history.csv, logs/ and, while training runs, a checkpoint an epoch and every
    settings.checkpoint_steps; with `resume` a run that was killed goes on from the last one, to the weights of an unbroken
    run (the data order and dropout depend on seed, epoch and step alone). So does a run whose own output is attached on
    Kaggle (see attached.py); every other starts afresh. what: the data and the frozen parts by name, for what was trained on
    something else is not gone on from. Raises InputError where that is asked for, and where the disk has no room for the
    checkpoints.
    """
    if settings.keep == "val_CIDEr-D" and score is None:
        raise InputError("keep='val_CIDEr-D' needs a score function")
    devices = find_devices(devices, device)
    what = {"number of pictures": str(len(loaders.train.dataset)), **(what or {})}
    folder = Path(folder)
    working = folder / "lightning"
    last = working / "last.ckpt"
    if first_process():
        if not (bring_training(folder, settings, model, what) or resume):
            shutil.rmtree(working, ignore_errors=True)
        elif last.is_file() and (why := misfit(last, what)):
            raise InputError(f"{shown(folder)} holds another training: {why}. Leave --resume out, or choose another folder "
                             "(--out)")
        modules = [module for module in (model, encoder) if module is not None]
        trained = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
        check_room(folder, checkpoint_bytes(trained) - used_bytes(working), "the checkpoints of this training take",
                   "make room, or train less of the model")  # fmt: skip
    resume = last.is_file()  # by now it is there only to go on from; other processes start later, and see the same
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
    callbacks += [history, keeper, LearningRateMonitor("step")]
    if settings.checkpoint_steps:
        callbacks.append(StepCheckpoint(last, settings.checkpoint_steps))
    if settings.patience:
        callbacks.append(Patience(settings, mode))
    change = {"frozen": None, "two-phases": settings.unfreeze_epoch, "all": 0}[settings.encoder]
    if change is not None:
        callbacks.append(Unfreeze(change))
    data = Phases(loaders, pixels, change, settings.accumulate)
    if progress_wanted():
        callbacks.append(TQDMProgressBar(leave=True))
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=devices,
        # In phase 1 the encoder's parameters are in no loss: DDP must look for them, or waits for their gradients for ever.
        strategy=find_strategy(devices, unused=settings.encoder != "frozen"),
        sync_batchnorm=settings.encoder == "all" and device == "cuda" and devices > 1,
        precision=precision,
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        reload_dataloaders_every_n_epochs=0 if pixels is None else 1,  # phase 2 reads others
        logger=make_logger(log or LogSettings(), folder, resume),
        log_every_n_steps=max(1, min(50, data.steps(1))),  # also of a short epoch
        enable_progress_bar=progress_wanted(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # CaptionSampler shuffles by seed and epoch, and shares out, itself
    )
    module = CaptioningModule(model, settings, encoder, what)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if resume else None, weights_only=True)
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C, having switched Ctrl-C off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stopped
    best = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"], strict=False)
    module.to(device).eval()
    # From the file, for a forked process takes its memory with it.
    minutes = (time.perf_counter() - module.started) / 60
    return History(pd.read_csv(history.path, float_precision="round_trip"), best["epoch"], minutes)
