"""What happens while a captioner trains: CLIP begins to learn, scores are computed, rows and checkpoints are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import pandas as pd
from lightning.pytorch.callbacks import Callback, EarlyStopping

from helpers.files import atomic_path
from helpers.settings import TrainSettings

if TYPE_CHECKING:
    from helpers.training import CaptioningModule


class Unfreeze(Callback):
    """Phase 2: from `epoch` on the encoder learns too.

    Nothing but a switch, for its parameters have wanted gradients, and stood in the optimizer, all the time. The usual way
    (Lightning's BaseFinetuning: set requires_grad, add a group) goes wrong with several processes: DDP registers at the
    start which gradients it averages, and those that come later stay each process's own, without a word.
    """

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_start(self, trainer: L.Trainer, module: CaptioningModule) -> None:
        self.on_train_epoch_start(trainer, module)  # which Lightning leaves out where it resumes in the middle of an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, module: CaptioningModule) -> None:
        module.encoder.learning = trainer.current_epoch >= self.epoch


class Patience(EarlyStopping):
    """Stops after `patience` epochs without a better one; never before the second phase of two has had its turn."""

    def __init__(self, settings: TrainSettings, mode: str):
        super().__init__(settings.keep, mode=mode, patience=settings.patience, check_on_train_epoch_end=True)
        self.start = settings.unfreeze_epoch if settings.encoder == "two-phases" else 0

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch >= self.start:
            super().on_train_epoch_end(trainer, module)


class ValidationScore(Callback):
    """After each epoch `score()`, made by the captioner as a user would run it, is logged as `name`."""

    def __init__(self, name: str, score: Callable[[], float]):
        self.name, self.score = name, score

    def on_validation_epoch_end(self, trainer: L.Trainer, module: CaptioningModule) -> None:
        value = self.score() if trainer.is_global_zero else 0.0
        module.log(self.name, trainer.strategy.broadcast(value), prog_bar=True)


class StepCheckpoint(Callback):
    """Every `every` steps the state of the run goes to `path`, as it does after every epoch."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every

    def on_train_batch_end(
        self, trainer: L.Trainer, module: CaptioningModule, outputs: object, batch: dict, number: int
    ) -> None:
        # Not between the batches of a step, whose gradients no checkpoint holds. And not after an epoch's last step, for the
        # checkpoint of the epoch follows at once, after the validation that Lightning would leave out if it resumed here.
        between = (number + 1) % trainer.accumulate_grad_batches
        if trainer.global_step % self.every == 0 and not between and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)


class EpochHistory(Callback):
    """One row an epoch, written to history.csv as training goes; kept in the checkpoints, so that a resumed run has all.

    Columns: epoch, step (optimizer steps so far), train_loss, val_loss, the validation score where one is computed, and the
    learning rates after the epoch.
    The train_loss of an epoch that was resumed in its middle is the mean of what came after; all else is as if unbroken.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        scores = {name: float(metrics[name]) for name in ("train_loss", "val_loss", "val_CIDEr-D") if name in metrics}
        rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **scores, **rates})
        if trainer.is_global_zero:
            with atomic_path(self.path) as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]
