"""Training with Lightning: one module for every captioner; AdamW with warm-up, resumable, the best weights kept."""

from __future__ import annotations

import logging
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from helpers.environment import progress_wanted
from helpers.files import atomic_path

# After the import, which sets INFO: hardware, tips and counts on stderr that a reader need not see.
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class TrainSettings:
    """How to train. The defaults are ClipCap's (paper, section 4): AdamW 2e-5, linear decay after warm-up, batch 40."""

    epochs: int = 10
    batch_size: int = 40
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.1  # share of all steps; the published 5,000 steps are about 4 % of a COCO run
    gradient_clip: float = 1.0
    captions: str = "random"  # one of a picture's captions an epoch, drawn anew; or "all"
    max_tokens: int = 60
    seed: int = 0


@dataclass(frozen=True)
class History:
    """What training left: `epochs` (a DataFrame: epoch, train_loss, val_loss) and the epoch whose weights were kept."""

    epochs: pd.DataFrame
    best_epoch: int
    best_val_loss: float


class CaptioningModule(L.LightningModule):
    """Lightning's view of a captioner: `model.loss(**batch)` on both splits, one optimizer, one schedule."""

    strict_loading = False  # checkpoints hold what trains; the frozen backbone is already in place

    def __init__(self, model: nn.Module, settings: TrainSettings):
        super().__init__()
        self.model = model
        self.settings = settings
        self.save_hyperparameters(asdict(settings))  # plain values: Lightning reads checkpoints with weights_only

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss = self.model.loss(**batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["tokens"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        # Weighted by target tokens, so that the mean does not depend on how pictures fall into batches.
        self.log("val_loss", self.model.loss(**batch), prog_bar=True, batch_size=int(batch["mask"].sum()))

    def configure_optimizers(self) -> dict:
        s = self.settings
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=s.learning_rate, weight_decay=s.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(s.warmup_share * total))

        def rate(step: int) -> float:  # up from 0 over the warm-up, then straight down to 0
            return (step + 1) / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        trained = {f"model.{name}" for name, p in self.model.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}


class EpochHistory(Callback):
    """One row an epoch, written to history.csv as training goes; kept in the checkpoints, so that a resumed run has all."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        losses = {name: float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss")}
        self.rows.append({"epoch": trainer.current_epoch, **losses})
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
    train: DataLoader,
    val: DataLoader,
    settings: TrainSettings,
    folder: str | Path,
    *,
    device: str = "cpu",
    precision: str = "32-true",
    resume: bool = False,
) -> History:
    """Train `model` in place and leave it with the weights of the epoch with the lowest validation loss.

    `folder` receives history.csv and, while training runs, a checkpoint an epoch; with `resume` a run that was killed goes
    on from the last whole epoch (the data order depends on seed and epoch alone), otherwise it starts afresh.
    """
    folder = Path(folder)
    working = folder / "lightning"
    if not resume:
        shutil.rmtree(working, ignore_errors=True)
    last = working / "last.ckpt"
    history = EpochHistory(folder / "history.csv")
    keeper = ModelCheckpoint(
        working,
        filename="best-{epoch}",
        monitor="val_loss",
        save_top_k=1,
        save_last=True,
        save_on_train_epoch_end=True,  # after EpochHistory has its row
        enable_version_counter=False,
    )
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=precision,
        gradient_clip_val=settings.gradient_clip,
        callbacks=[history, keeper] + ([TQDMProgressBar(leave=True)] if progress_wanted() else []),
        logger=False,
        enable_progress_bar=progress_wanted(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # CaptionSampler shuffles by seed and epoch itself
    )
    module = CaptioningModule(model, settings)
    try:
        trainer.fit(module, train, val, ckpt_path=str(last) if resume and last.is_file() else None, weights_only=True)
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C, having switched Ctrl-C off
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stopped
    best = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"], strict=False)
    model.to(device).eval()
    return History(history.table(), best["epoch"], float(keeper.best_model_score))
