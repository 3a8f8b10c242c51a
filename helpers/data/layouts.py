"""Which captions a folder holds, found by looking: every layout becomes the same plain table.

    text       captions.txt (commas) or results.csv (pipes), pictures in one folder     Flickr8k, Flickr30k, your own
    coco       annotations/captions_{train,val}{2017,2014}.json, a picture folder each   COCO
    karpathy   dataset_{flickr8k,flickr30k,coco}.json: captions and splits in one        all three

The pictures' folder is the one that holds most of the listed pictures. Folders are listed once, not asked per picture.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.data.caption_file import decode, read_rows
from helpers.data.report import EMPTY, MALFORMED, Report
from helpers.data.splits import IMAGE_FOLDERS, SPLITS, assign, photo_id
from helpers.environment import shown
from helpers.errors import InputError

TEXT_FILES = {"captions.txt": ",", "results.csv": "|"}
KARPATHY_FILES = {
    "flickr8k": "dataset_flickr8k.json",
    "flickr30k": "dataset_flickr30k.json",
    "coco2017": "dataset_coco.json",
    "coco-karpathy": "dataset_coco.json",
}
_COCO_YEARS = (2017, 2014)
_COCO_FOLDERS = ("train2014", "val2014", "train2017", "val2017", "")


@dataclass
class Layout:
    """What a folder holds: one caption per row, in file order, and the splits where the file itself states them."""

    source: Path  # the captions: a file, or COCO's folder of them
    image_dir: Path
    images: list[str]  # per row, relative to image_dir
    captions: list[str]  # per row
    splits: dict[str, str]  # image -> split; {} where the file does not say
    origin: str = ""  # whose splits these are


def read_layout(root: Path, name: str, report: Report) -> Layout:
    """Detect and read what `root`, or a folder directly in it, holds. `name` chooses among several Karpathy files.

    Problems are counted in `report`. Raises InputError where no layout is recognised or a file is not what it should be.
    """
    folders = folders_of(root)
    for reader in (_read_text, _read_coco, _read_karpathy):
        for folder in folders:
            layout = reader(folder, name, report)
            if layout:
                return layout
    wanted = [*TEXT_FILES, "annotations/captions_train2017.json", KARPATHY_FILES.get(name, "dataset_*.json")]
    held = ", ".join(sorted(os.listdir(root))[:5]) or "nothing"
    raise InputError(f"{shown(root)}: no caption file found. Looked for {' or '.join(wanted)}; the folder holds {held}")


def folders_of(root: Path) -> list[Path]:
    """`root` and the folders directly in it, for downloads unpack one level deeper than one thinks."""
    if not root.is_dir():
        raise InputError(f"{shown(root)}: there is no such folder")
    return [root, *sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir())]


def find_karpathy(folder: Path, name: str) -> Path | None:
    """Karpathy's file for this dataset in `folder`; for a name that he did not split, the only such file there is."""
    if name in KARPATHY_FILES:
        path = folder / KARPATHY_FILES[name]
        return path if path.is_file() else None
    found = sorted(folder.glob("dataset_*.json"))
    return found[0] if len(found) == 1 else None


def read_karpathy(path: Path, root: Path, report: Report) -> Layout:
    """Captions and splits of a Karpathy file, with the pictures that lie under `root` (COCO's of 2014 or of 2017)."""
    entries = _karpathy_entries(path)
    names = {image for image, _, _ in entries}
    # COCO, whose `filepath` names a folder that may be another one here; in a file of your own it is part of the name
    if any("/" in image and "/" not in photo_id(image) for image in names):
        image_dir, found = _find_coco(root, {photo_id(image) for image in names})
        place = {image: found.get(photo_id(image), image) for image in names}
    else:
        image_dir, place = _image_folder(root, names, path), {image: image for image in names}
    images, captions = [], []
    for image, _, sentences in entries:
        for sentence in sentences:
            if _keep(sentence, image, report):
                images.append(place[image])
                captions.append(" ".join(sentence.split()))
    splits = assign(((place[image], split) for image, split, _ in entries), where=shown(path))
    return Layout(path, image_dir, images, captions, splits, "Karpathy's splits")


def read_karpathy_splits(path: Path) -> dict[str, str]:
    """Photo id -> split from a Karpathy file; COCO's `restval` counts as train. Raises InputError for a leak."""
    return assign(((photo_id(image), split) for image, split, _ in _karpathy_entries(path)), where=shown(path))


def present_images(folder: Path, images: set[str]) -> set[str]:
    """Those of `images` (names relative to `folder`) that are on disk."""
    found: set[str] = set()
    for subfolder in {os.path.dirname(image) for image in images}:
        if (folder / subfolder).is_dir():
            prefix = f"{subfolder}/" if subfolder else ""
            found.update(prefix + name for name in os.listdir(folder / subfolder))
    return images & found


def _read_text(folder: Path, name: str, report: Report) -> Layout | None:
    path = next((folder / file for file in TEXT_FILES if (folder / file).is_file()), None)
    if path is None:
        return None
    images, captions = read_rows(path, TEXT_FILES[path.name], report)
    return Layout(path, _image_folder(folder, set(images), path), images, captions, {})


def _read_coco(folder: Path, name: str, report: Report) -> Layout | None:
    for year in _COCO_YEARS:
        files = {split: folder / "annotations" / f"captions_{split}{year}.json" for split in ("train", "val")}
        parts = {split: path for split, path in files.items() if path.is_file()}
        if parts:
            return _read_coco_year(folder, year, parts, report)
    return None


def _read_coco_year(folder: Path, year: int, parts: dict[str, Path], report: Report) -> Layout:
    absent = [split for split in parts if not (folder / f"{split}{year}").is_dir()]
    if len(absent) == len(parts):
        raise InputError(f"{shown(folder)}: no pictures found. Looked for {' and '.join(f'{s}{year}' for s in parts)}")
    report.notes += [f"there is no folder {split}{year}: its captions are left out" for split in absent]
    images, captions, splits = [], [], {}
    for split in (split for split in parts if split not in absent):
        content = _load_json(parts[split])
        with _as_expected(parts[split]):
            files = {entry["id"]: f"{split}{year}/{entry['file_name']}" for entry in content["images"]}
            rows = [(note["image_id"], note["caption"]) for note in content["annotations"]]
        for number, caption in rows:
            if number not in files:
                report.add(MALFORMED, f"{parts[split].name}: a caption for image id {number}, which is not listed")
            elif _keep(caption, files[number], report):
                images.append(files[number])
                captions.append(" ".join(caption.split()))
        splits |= dict.fromkeys(files.values(), split)
    if year == 2017 and "train" not in absent:
        report.notes.append(
            "train2017 holds most of Karpathy's test photos: never report a Karpathy-test score for a model trained on it"
        )
    return Layout(folder / "annotations", folder, images, captions, splits, f"COCO {year}'s splits")


def _read_karpathy(folder: Path, name: str, report: Report) -> Layout | None:
    path = find_karpathy(folder, name)
    return read_karpathy(path, folder, report) if path else None


def _karpathy_entries(path: Path) -> list[tuple[str, str, list[str]]]:
    """(image, split, captions) of each picture; the image's name holds its `filepath` folder where there is one."""
    content = _load_json(path)
    with _as_expected(path):
        entries = [
            (
                f"{entry['filepath']}/{entry['filename']}" if entry.get("filepath") else entry["filename"],
                "train" if entry["split"] == "restval" else entry["split"],
                [sentence["raw"] for sentence in entry["sentences"]],
            )
            for entry in content["images"]
        ]
    strange = {split for _, split, _ in entries} - set(SPLITS)
    if strange:
        raise InputError(f"{shown(path)}: unknown split {min(strange)!r}; expected train, restval, val or test")
    return entries


def _image_folder(folder: Path, images: set[str], source: Path) -> Path:
    """The usual folder that holds most of the listed pictures."""
    places = [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()]
    best = max(places, key=lambda place: len(present_images(place, images)))
    if not present_images(best, images):
        looked = ", ".join(place.relative_to(folder).as_posix() for place in places)
        raise InputError(
            f"{shown(folder)}: none of the {len(images):,} pictures that {source.name} lists (such as {min(images)}) was "
            f"found. Looked in {looked}"
        )
    return best


def _find_coco(root: Path, wanted: set[str]) -> tuple[Path, dict[str, str]]:
    """Base folder and {photo id: name relative to it}. One photo has other names and folders in 2014 and in 2017."""
    best: tuple[Path, dict[str, str]] = (root, {})
    for base in folders_of(root):
        found: dict[str, str] = {}
        for subfolder in _COCO_FOLDERS:
            if (base / subfolder).is_dir():
                prefix = f"{subfolder}/" if subfolder else ""
                for file in os.listdir(base / subfolder):
                    if photo_id(file) in wanted:
                        found.setdefault(photo_id(file), prefix + file)
        if len(found) > len(best[1]):
            best = (base, found)
    if not best[1]:
        looked = ", ".join(filter(None, _COCO_FOLDERS))
        raise InputError(f"{shown(root)}: none of the {len(wanted):,} listed COCO photos was found. Looked in {looked}")
    return best


@contextmanager
def _as_expected(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{shown(path)}: not a caption file of the kind its name says ({error!r})") from error


def _load_json(path: Path) -> dict:
    try:
        return json.loads(decode(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{shown(path)}: not valid JSON ({error}); copy or download it again") from error


def _keep(caption: str, image: str, report: Report) -> bool:
    if not caption.strip():
        report.add(EMPTY, image)
    return bool(caption.strip())
