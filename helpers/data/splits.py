"""Which picture belongs to train, val and test: decided by picture, never by caption, and checked for leaks.

Splitting by caption row puts four captions of nearly every test picture into training, and the scores mean nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from helpers.data.caption_file import decode
from helpers.environment import shown
from helpers.errors import InputError

SPLITS = ("train", "val", "test")
UNLISTED = "unlisted"  # on disk and captioned, but in no list
OFFICIAL_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
# Flickr30k as everyone reports it, by its number of pictures with captions (all of them, or Karpathy's selection).
FLICKR30K_SIZES = (31_783, 31_014)
FLICKR30K_COUNTS = (1_014, 1_000, 29_000)  # val, test, train

_FLICKR = re.compile(r"(\d+)(_[0-9a-f]{10})?")  # 1000268201_693b08cb0e, 1000092795
_COCO = re.compile(r"(COCO_\w+_)?(\d{12})")  # COCO_val2014_000000391895, 000000391895


def photo_id(image: str) -> str:
    """The number by which one photo is known in several datasets: Flickr's (digits before "_") or COCO's.

    For other file names, the name without its extension.
    """
    stem = Path(image).stem
    match = _COCO.fullmatch(stem)
    number = match[2] if match else (_FLICKR.fullmatch(stem) or ["", stem])[1]
    return number.lstrip("0") or number


def read_lists(folder: Path) -> dict[str, str]:
    """Image -> split from the official Flickr8k lists in `folder`; {} where there is none. Some lists may be missing."""
    pairs = []
    for split, name in OFFICIAL_LISTS.items():
        path = folder / name
        if path.is_file():
            pairs += [(image, split) for image in decode(path).split()]
    return assign(pairs, where=f"split lists in {shown(folder)}")


def assign(pairs: Iterable[tuple[str, str]], *, where: str) -> dict[str, str]:
    """Turn (image, split) pairs into a mapping. Raises InputError naming the photo that is in two splits."""
    splits: dict[str, str] = {}
    for image, split in pairs:
        if splits.setdefault(image, split) != split:
            raise InputError(f"{where}: photo {image} is in {splits[image]} and in {split}; it may be in one split only")
    return splits


def seeded_split(images: Iterable[str], *, seed: int = 0, flickr30k: bool = False) -> dict[str, str]:
    """Image -> split, 80/10/10 by picture; the full Flickr30k as 29,000/1,014/1,000 with the rest unlisted.

    Pictures are ranked by a hash of seed and name, so the order of rows does not matter. Two pictures or fewer all train.
    """
    ranked = sorted(set(images), key=lambda image: hashlib.sha256(f"{seed}:{image}".encode()).digest())
    if flickr30k and len(ranked) in FLICKR30K_SIZES:
        val, test, train = FLICKR30K_COUNTS
    else:
        val = test = max(1, round(len(ranked) / 10)) if len(ranked) > 2 else 0
        train = len(ranked) - val - test
    names = ["val"] * val + ["test"] * test + ["train"] * train
    return dict(zip(ranked, names + [UNLISTED] * (len(ranked) - len(names)), strict=True))
