"""Which picture belongs to train, val and test: decided by picture, never by caption, and checked for leaks.

Splitting by caption row puts four captions of nearly every test picture into training, and the scores mean nothing.
"""

from __future__ import annotations

import hashlib
import posixpath
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

# Where published datasets keep their pictures: such a folder says nothing about which photo a name in it means.
IMAGE_FOLDERS = (
    "Images",
    "images",
    "Images/flickr30k_images",
    "flickr30k_images",
    "flickr30k_images/flickr30k_images",
    "Flicker8k_Dataset",
    "",
)

_FLICKR = re.compile(r"(\d+)_[0-9a-f]{10}")  # 1000268201_693b08cb0e in Flickr8k; 1000268201 in Flickr30k
_COCO = re.compile(r"(?:COCO_\w+_)?(\d{12})")  # COCO_val2014_000000391895, 000000391895


def photo_id(image: str) -> str:
    """The number by which one photo is known in several datasets: Flickr's (digits before "_") or COCO's.

    For other file names, the path without its extension: a/1.jpg and b/1.jpg are two photos, 1.jpg and ./1.jpg are one.
    """
    folder, name = posixpath.split(posixpath.normpath(image))
    stem, _ = posixpath.splitext(name)
    if match := _COCO.fullmatch(stem):
        return str(int(match[1]))
    if match := _FLICKR.fullmatch(stem):
        return match[1]
    return stem if folder in IMAGE_FOLDERS else f"{folder}/{stem}"


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
    """Image -> split, 80/10/10 by photo; the full Flickr30k as 29,000/1,014/1,000 with the rest unlisted.

    Photos are ranked by a hash of seed and name, the first of several names in the alphabet, so the order of rows does not
    matter and all names of a photo are in one split. Two photos or fewer all train.
    """
    photos: dict[str, list[str]] = {}
    for image in sorted(set(images)):
        photos.setdefault(photo_id(image), []).append(image)
    ranked = sorted(photos.values(), key=lambda names: hashlib.sha256(f"{seed}:{names[0]}".encode()).digest())
    if flickr30k and len(ranked) in FLICKR30K_SIZES:
        val, test, train = FLICKR30K_COUNTS
    else:
        val = test = max(1, round(len(ranked) / 10)) if len(ranked) > 2 else 0
        train = len(ranked) - val - test
    splits = ["val"] * val + ["test"] * test + ["train"] * train
    splits += [UNLISTED] * (len(ranked) - len(splits))
    return {image: split for names, split in zip(ranked, splits, strict=True) for image in names}
