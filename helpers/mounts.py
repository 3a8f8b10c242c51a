"""Where Kaggle mounts what is attached to a notebook: datasets, and what notebooks have left; all of it read-only."""

from __future__ import annotations

from pathlib import Path

KAGGLE_INPUT = Path("/kaggle/input")
OUTPUTS = ("*", "notebooks/*/*")  # SLUG, or notebooks/OWNER/SLUG: what the notebook is called on Kaggle
LAST = "lightning/last.ckpt"  # below a training's folder: where `helpers.training.fit` goes on from


def attached_output(notebook: str | Path) -> Path | None:
    """The folder outputs/`notebook` in an attached output of a notebook; None without one. Of several, the newest.

    notebook: what it is called here, such as 03_clipcap, or a folder below, such as 03_clipcap/variant_1.
    """
    found = [place for mount in OUTPUTS for place in KAGGLE_INPUT.glob(f"{mount}/outputs/{Path(notebook).as_posix()}")]
    return max((place for place in found if place.is_dir()), key=_newest, default=None)


def _newest(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)
