"""How much room there is on the disk, and how much a run will take: known before anything is downloaded or written."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from helpers.environment import find_place, find_work_dir
from helpers.errors import InputError

KAGGLE = find_work_dir("kaggle")
KAGGLE_BYTES = 20 * 10**9  # what Kaggle allows below it, whatever its disk says


def free_bytes(folder: str | Path) -> int:
    """Bytes that may still be written to `folder`, which need not exist yet. Below /kaggle/working: of Kaggle's 20 GB."""
    folder = Path(folder).resolve()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.is_dir())).free
    if find_place() == "kaggle" and folder.is_relative_to(KAGGLE.resolve()):
        free = min(free, KAGGLE_BYTES - used_bytes(KAGGLE))
    return max(0, free)


def used_bytes(folder: str | Path) -> int:
    """Bytes of all files below `folder`; links are not followed. 0 where there is no such folder."""
    used = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # temporary files come and go
                used += os.lstat(os.path.join(place, name)).st_size
    return used


def checkpoint_bytes(trained: int) -> int:
    """What training keeps of `trained` fp32 parameters, at its fullest.

    The last state, the best one, and, while one is written, the one it replaces, each with AdamW's two moments; and the
    captioner that is made of the best.
    """
    return (3 * 3 + 1) * 4 * trained


def check_room(folder: str | Path, needed: int, what: str, instead: str) -> None:
    """Raises InputError where `needed` bytes exceed what is free for `folder`: `what` takes them; `instead` is the way out."""
    free = free_bytes(folder)
    if needed > free:
        raise InputError(f"{what} {size_text(needed)} and the disk has {size_text(free)} free: {instead}")


def size_text(count: float) -> str:
    """1000 bytes a kB, as disks count."""
    for unit, size, digits in (("GB", 10**9, 1), ("MB", 10**6, 1), ("kB", 10**3, 0)):
        if count >= size:
            return f"{count / size:.{digits}f} {unit}"
    return f"{count} bytes"
