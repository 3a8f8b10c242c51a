"""What an earlier run of a notebook left, attached on Kaggle: its checkpoints are found, and training goes on from the last.

A notebook's output can be attached to another notebook, or to the same one (Add Input, Notebooks; `kernel_sources` in
kernel-metadata.json). Where it is mounted: see mounts.py.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.disk import check_room, used_bytes
from helpers.environment import Run
from helpers.files import atomic_path
from helpers.mounts import LAST, attached_output

if TYPE_CHECKING:
    from torch import nn

    from helpers.settings import TrainSettings

MAY_DIFFER = ("checkpoint_steps",)  # settings that do not change what is learned


def find_checkpoints(run: Run, *trainings: str) -> list[Path]:
    """The checkpoints of these trainings, such as "03_clipcap" or "train_clipcap": those in outputs/, the newest first, then
    those attached on Kaggle. Whether one may be tested on run.dataset is for helpers.evaluation to say.
    """
    found = []
    for folders in ([run.work_dir / "outputs" / name for name in trainings], map(attached_output, trainings)):
        checkpoints = [folder / "checkpoint" for folder in folders if folder and (folder / "checkpoint/config.json").is_file()]
        found += sorted(checkpoints, key=lambda folder: (folder / "config.json").stat().st_mtime, reverse=True)
    return found


def bring_training(folder: Path, settings: TrainSettings, model: nn.Module, what: dict[str, str]) -> bool:
    """Whether `folder` holds a training to go on from, because an output of it is attached: copied now, or before.

    folder: below outputs/, as in the attached output. Copied are Lightning's checkpoints, history.csv and logs/, each file
    whole or not at all and the last checkpoint last, so that a kill leaves nothing that training would go on from. What was
    trained with other settings, sizes, or on something else than `what` is left where it is, and said. Raises InputError
    where the disk has no room for it.
    """
    folder = Path(folder).resolve()
    if "outputs" not in folder.parts:
        return False
    below = folder.parts[len(folder.parts) - folder.parts[::-1].index("outputs") :]
    source = attached_output(Path(*below)) if below else None
    if source is None or not (source / LAST).is_file():
        return False
    if (folder / LAST).is_file() and not misfit(folder / LAST, what, settings, model):
        return True  # it was copied, and has gone on since
    name = "/".join(below)
    if why := misfit(source / LAST, what, settings, model):
        print(f"{name}: an earlier output is attached, but {why}. Training starts afresh")
        return False
    check_room(folder, used_bytes(source / "lightning"), "the attached checkpoints take", "make room")
    shutil.rmtree(folder / "lightning", ignore_errors=True)
    files = [*(source / "lightning").glob("*.ckpt"), *source.glob("history.csv"), *source.glob("logs/**/*")]
    for file in sorted(files, key=lambda path: path == source / LAST):
        if file.is_file():
            with atomic_path(folder / file.relative_to(source)) as temporary:
                shutil.copyfile(file, temporary)  # not its mode: the mount is read-only
    print(f"{name}: going on from the last checkpoint of the attached output")
    return True


def misfit(
    last: Path, what: dict[str, str], settings: TrainSettings | None = None, model: nn.Module | None = None
) -> str | None:
    """Why the training of the checkpoint `last` is another one than is asked for, in words; None if it is the same.

    what: the data and the frozen parts by name, as `helpers.training.fit` takes them. settings and model: compared too.
    """
    import torch

    try:
        there = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        before, weights = there["hyper_parameters"], there["state_dict"]
    except Exception as error:  # torch.load alone raises a dozen kinds
        return f"its last checkpoint cannot be read ({type(error).__name__})"
    for name, now in what.items():
        if (earlier := before.get("what", {}).get(name, "not noted")) != now:
            return f"its {name} was {earlier}, now it is {now}"
    for name, now in asdict(settings).items() if settings else ():
        if name not in MAY_DIFFER and before.get(name) != now:
            return f"it was trained with {name}={before.get(name)!r}, now it is {now!r}"
    for name, parameter in model.named_parameters() if model else ():
        if parameter.requires_grad and (name := f"model.{name}") not in weights:
            return f"it has not trained {name}"
        if parameter.requires_grad and weights[name].shape != parameter.shape:
            return f"its {name} is of another size"
    return None
