"""Where the curves of a run go: CSV files, TensorBoard, or Weights & Biases."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger

from helpers.devices import first_process
from helpers.errors import InputError
from helpers.files import atomic_path
from helpers.settings import LogSettings


def make_logger(log: LogSettings, folder: Path, resume: bool = False) -> Logger:
    """The logger asked for, writing to `folder`/logs. Every start of a run has its own version there, nothing is replaced.

    Raises InputError where Weights & Biases does not take the run: nobody is logged in, or its server cannot be reached.
    """
    if log.logger == "csv":
        return CSVLogger(folder, name="logs")
    from lightning.pytorch import loggers

    if log.logger == "tensorboard":
        return loggers.TensorBoardLogger(folder, name="logs", default_hp_metric=False)
    os.environ.setdefault("WANDB_SILENT", "true")
    known = folder / "logs" / "wandb_id"  # a resumed run goes on in the same curve
    run_id = known.read_text() if resume and known.is_file() else secrets.token_hex(4)
    if first_process():
        with atomic_path(known) as temporary:
            temporary.write_text(run_id)
    logger = loggers.WandbLogger(
        project=log.project_name, entity=log.entity, name=log.exp_name, version=run_id, resume="allow",
        offline=log.offline, save_dir=folder / "logs",
    )  # fmt: skip
    import wandb

    try:
        logger.experiment  # noqa: B018  the run begins here: later, what is wrong would be a traceback
    except wandb.Error as error:
        raise InputError(f"Weights & Biases: {error} Or keep the run on this machine (--offline)") from error
    return logger
