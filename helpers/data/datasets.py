"""One table for every caption dataset: `load_captions("flickr8k")` finds it, reads it, splits it by picture and checks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.data.layouts import Layout, present_images, read_karpathy, read_karpathy_splits, read_layout
from helpers.data.report import DUPLICATE, MISSING, UNCAPTIONED, Report
from helpers.data.sources import locate, locate_karpathy
from helpers.data.splits import OFFICIAL_LISTS, SPLITS, UNLISTED, assign, photo_id, read_lists, seeded_split
from helpers.environment import ROOT, shown
from helpers.errors import InputError

__all__ = ["SPLITS", "UNLISTED", "Captions", "load_captions", "photo_id", "shared_photos"]


@dataclass(frozen=True, eq=False)
class Captions:
    """A captioned picture dataset.

    `table` has one row per caption, in file order, with the columns `image` (file name relative to `image_dir`), `caption`
    and `split` (train, val, test or unlisted). A picture has one split. `report` counts what was wrong with the files.
    """

    name: str
    image_dir: Path
    table: pd.DataFrame
    report: Report

    def images(self, split: str) -> list[str]:
        """The pictures of a split, in file order. Raises InputError for an unknown split."""
        return list(dict.fromkeys(self._rows(split)["image"]))

    def references(self, split: str) -> dict[str, list[str]]:
        """Picture -> its captions, for the pictures of a split, in file order."""
        references: dict[str, list[str]] = {}
        rows = self._rows(split)
        for image, caption in zip(rows["image"], rows["caption"], strict=True):
            references.setdefault(image, []).append(caption)
        return references

    def path(self, image: str) -> Path:
        """Where this picture lies."""
        return self.image_dir / image

    def _rows(self, split: str) -> pd.DataFrame:
        if split not in (*SPLITS, UNLISTED):
            raise InputError(f"split {split!r} is not known: choose {', '.join(SPLITS)} or {UNLISTED}")
        return self.table[self.table["split"] == split]


def check_limit(limit: int | None) -> None:
    """Raise InputError for a limit that leaves no pictures; None is none."""
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no pictures: give 1 or more")


def load_captions(
    name: str,
    data_dir: str | Path | None = None,
    *,
    work_dir: Path = ROOT,
    splits: str = "auto",
    seed: int = 0,
    limit: int | None = None,
) -> Captions:
    """Find, read, split and check a dataset: scenes, scenes-sketch, flickr8k, flickr30k, coco2017, coco-karpathy, or a folder
    of yours.

    data_dir: its folder, in any layout of data/README.md; None: drawn, found under `work_dir`/data, or downloaded
    splits:   official (lists beside the captions, or the file's own), karpathy, seeded (80/10/10 by picture), the path of a
              Karpathy file, or auto: the first of these that there is
    limit:    at most this many pictures of each split, the first in file order

    Rows that cannot be used are dropped and counted in `report`. Raises InputError where the dataset cannot be read, more
    than half of its pictures are missing, or a photo is in two splits; OfflineError where it must be downloaded but cannot.
    """
    check_limit(limit)
    root = locate(name, data_dir, Path(work_dir))
    name = Path(name).expanduser().resolve().name  # of a folder given by its path, the last part
    report = Report()
    if name == "coco-karpathy":
        layout = read_karpathy(locate_karpathy(name, root, download=True), root, report)
    else:
        layout = read_layout(root, name, report)
    table = _clean_table(layout, report)
    images = list(dict.fromkeys(table["image"]))
    chosen, origin = _choose_splits(layout, images, name, root, splits, seed, report)
    listed = [image for image in images if chosen.get(image, UNLISTED) != UNLISTED]
    assign(((photo_id(image), chosen[image]) for image in listed), where=f"{shown(root)}, {origin}")  # whatever its names
    table["split"] = table["image"].map(chosen).fillna(UNLISTED)
    if limit:
        # The number of each row's picture within its split, in file order
        number = table.groupby("split")["image"].transform(lambda images: pd.factorize(images)[0])
        table = table[number < limit].reset_index(drop=True)
    report.summary = _summary(name, table, origin)
    return Captions(name, layout.image_dir, table, report)


def shared_photos(first: Captions, second: Captions, splits: tuple[str, str] | None = None) -> int:
    """How many photos two datasets share, by photo id; with `splits`, a split of the first and one of the second."""
    tables = [first.table, second.table]
    if splits:
        tables = [captions._rows(split) for captions, split in zip((first, second), splits, strict=True)]
    ids = [{photo_id(image) for image in table["image"].unique()} for table in tables]
    return len(ids[0] & ids[1])


def _clean_table(layout: Layout, report: Report) -> pd.DataFrame:
    """The rows without duplicates and without missing pictures."""
    table = pd.DataFrame({"image": layout.images, "caption": layout.captions})
    duplicated = table.duplicated()
    for image, caption in table[duplicated].itertuples(index=False):
        report.add(DUPLICATE, f"{image}: {caption}")
    listed = list(dict.fromkeys(layout.images))
    present = present_images(layout.image_dir, set(listed))
    missing = [image for image in listed if image not in present]
    for image in missing:
        report.add(MISSING, image)
    if 2 * len(missing) > len(listed):
        raise InputError(
            f"{len(missing):,} of the {len(listed):,} pictures that {layout.source.name} lists (such as {missing[0]}) are "
            f"not in {shown(layout.image_dir)}: is this the right picture folder, and was it unpacked completely?"
        )
    return table[~duplicated & table["image"].isin(present)].reset_index(drop=True)


def _choose_splits(
    layout: Layout, images: list[str], name: str, root: Path, splits: str, seed: int, report: Report
) -> tuple[dict[str, str], str]:
    """(image -> split, whose splits these are)."""
    if splits in ("auto", "official"):
        if layout.splits:
            return layout.splits, layout.origin
        lists = read_lists(layout.source.parent)
        if lists:
            _report_lists(lists, set(layout.images), report)
            return lists, "official lists"
    if splits in ("auto", "karpathy"):
        file = locate_karpathy(name, root, download=splits == "karpathy")
    else:
        file = Path(splits) if Path(splits).is_file() else None
    if file:
        by_id = read_karpathy_splits(file)
        # His files name no folders: where yours do, the name alone decides
        found = {image: by_id.get(photo_id(image)) or by_id.get(photo_id(Path(image).name), UNLISTED) for image in images}
        return found, "Karpathy's splits"
    if splits in ("auto", "seeded"):
        return seeded_split(images, seed=seed, flickr30k=name == "flickr30k"), f"seeded split, seed {seed}"
    looked_for = {"official": ", ".join(OFFICIAL_LISTS.values()), "karpathy": "dataset_*.json"}
    if splits in looked_for:
        raise InputError(f"{shown(root)}: no {splits} splits here. Looked for {looked_for[splits]}")
    raise InputError(f"splits={splits!r} is not known: choose auto, official, karpathy, seeded or a Karpathy file")


def _report_lists(lists: dict[str, str], captioned: set[str], report: Report) -> None:
    for image in lists:
        if image not in captioned:
            report.add(UNCAPTIONED, image)
    for split in SPLITS:
        if split not in lists.values():
            report.notes.append(f"there is no list {OFFICIAL_LISTS[split]}, so {split} is empty")


def _summary(name: str, table: pd.DataFrame, origin: str) -> str:
    pictures = table.drop_duplicates("image")["split"].value_counts()
    parts = [f"{split} {pictures.get(split, 0):,}" for split in SPLITS]
    if UNLISTED in pictures:
        parts.append(f"{UNLISTED} {pictures[UNLISTED]:,}")
    return f"{name}: {pictures.sum():,} pictures with {len(table):,} captions; {', '.join(parts)} ({origin})"
