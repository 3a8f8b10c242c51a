"""How many processes train together, how they are started, and which of them writes and prints."""

from __future__ import annotations

import os
import sys

import torch

from helpers.errors import InputError


def first_process() -> bool:
    """Whether this process is the one that writes and prints: the only one, or the first of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def find_devices(devices: int | str, device: str) -> int:
    """How many processes train together: `devices`, or with "auto" as many as there are GPUs. Raises InputError."""
    there = torch.cuda.device_count() if device == "cuda" else None
    wanted = (there or 1) if devices == "auto" else devices
    if not str(wanted).isdigit() or int(wanted) < 1:
        raise InputError(f"devices={devices!r}: give a number from 1 on, or auto")
    count = int(wanted)
    if there is not None and count > there:
        raise InputError(f"devices={devices}: the number of GPUs here is {there}; auto takes all")
    if count > 1 and in_notebook() and torch.cuda.is_initialized():
        raise InputError(f"devices={devices}: this notebook's process has used a GPU already, and then no other can be forked "
                         f"from it. Run `!python -m helpers.train SYSTEM --devices {count}` in a cell, or give devices=1")
    return count


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def find_strategy(devices: int, unused: bool) -> str:
    """Lightning's name for how processes work together. unused: some parameters are in no loss for a while."""
    if devices == 1:
        return "auto"
    # A notebook cannot be started a second time, as a script is: it is forked.
    return ("ddp_notebook" if in_notebook() else "ddp") + ("_find_unused_parameters_true" if unused else "")


def picture_workers(device: str) -> int:
    """How many processes should open pictures: on a GPU, that is what training would wait for."""
    return min(4, os.cpu_count() or 1) if device == "cuda" else 0
