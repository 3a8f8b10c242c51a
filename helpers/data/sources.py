"""Where a dataset lies: a folder of yours, drawn here, attached on Kaggle, downloaded before, or downloaded now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from helpers.data.layouts import KARPATHY_FILES, find_karpathy, folders_of
from helpers.disk import check_room
from helpers.environment import find_place, require_network, shown
from helpers.errors import InputError
from helpers.mounts import KAGGLE_INPUT

# Kaggle datasets by name, the one to download first. The others are read where they are attached.
KAGGLE = {
    "flickr8k": ("adityajn105/flickr8k",),
    "flickr30k": ("hsankesara/flickr-image-dataset", "eeshawn/flickr30k", "adityajn105/flickr30k"),
    "coco2017": ("awsaf49/coco-2017-dataset",),
    "coco-karpathy": ("awsaf49/coco-2017-dataset",),
}
# Bytes of the first of them, about, and rather too many than too few: by download scripts that others have published
# ("~1 GB", "~25 GB", "~26 GB"), not read off Kaggle. JPEG files do not shrink in an archive. The first of Flickr30k's holds
# every picture twice; the other two are about half as large.
SIZES = {
    "flickr8k": 1.1e9,
    "flickr30k": 8.8e9,
    "coco2017": 27e9,
    "coco-karpathy": 27e9,
}
KARPATHY_BYTES = 40e6  # three JSON files, zipped
# Datasets drawn here, with the arguments of `make_scenes`. The second is the other dataset in miniature: another style, and
# a hundred photos of the first one's test split in its train split, as all of Flickr8k is in Flickr30k.
DRAWN = {
    "scenes": {},
    "scenes-sketch": {"style": "pencil", "seed": 1, "counts": {"train": 1200, "val": 200, "test": 200}, "shared": 100},
}
KARPATHY_SPLITS = "shtvkumar/karpathy-splits"
NAMES = (*DRAWN, *KAGGLE)
KAGGLE_ADDRESS = "https://www.kaggle.com"


def locate(name: str, data_dir: str | Path | None, work_dir: Path) -> Path:
    """The folder of dataset `name`: `data_dir` where given, else the first that there is of: the drawn scenes,
    `work_dir`/data/`name`, an attached Kaggle dataset, an earlier download, a new download.

    A `name` that is no dataset's is a folder. Raises InputError where there is no such folder or dataset, OfflineError
    where a download is needed and there is no network.
    """
    if name in DRAWN and not data_dir:
        return _drawn_scenes(name, work_dir / "data" / name)
    found = find(name, data_dir, work_dir)
    return found or _download(KAGGLE[name][0], name, work_dir / "data" / name, SIZES[name])


def find(name: str, data_dir: str | Path | None, work_dir: Path) -> Path | None:
    """As `locate`, but what would have to be drawn or downloaded is None."""
    if data_dir:
        return Path(data_dir).expanduser()
    if name not in NAMES:
        if name != "folder" and Path(name).expanduser().is_dir():
            return Path(name).expanduser()
        why = "needs to be told which (--data-dir)" if name == "folder" else "is neither a dataset nor a folder"
        raise InputError(
            f"dataset {name!r} {why}. Known datasets: {', '.join(NAMES)}, or a folder with Images/ and captions.txt"
        )
    own = work_dir / "data" / name
    return own if own.is_dir() else _attached(KAGGLE.get(name, ()))


def locate_karpathy(name: str, root: Path, *, download: bool = False) -> Path | None:
    """Karpathy's file for dataset `name`: in `root`, in the splits dataset attached on Kaggle, or (if wanted) downloaded.

    None where there is none; with `download`, an InputError instead if it is one of the datasets that he split.
    """
    folders = folders_of(root)
    attached = _attached([KARPATHY_SPLITS]) if name in KARPATHY_FILES else None
    folders += folders_of(attached) if attached else []
    path = next(filter(None, (find_karpathy(folder, name) for folder in folders)), None)
    if path or not download or name not in KARPATHY_FILES:
        return path
    file = KARPATHY_FILES[name]
    path = find_karpathy(_download(KARPATHY_SPLITS, file, root / file, KARPATHY_BYTES), name)
    if path is None:
        raise InputError(f"Kaggle's {KARPATHY_SPLITS} holds no {file}: put one at {shown(root / file)}")
    return path


def _drawn_scenes(name: str, folder: Path) -> Path:
    from filelock import FileLock

    from helpers.data.scenes import make_scenes

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # two notebooks may start at once
            return make_scenes(folder, **DRAWN[name])
    except FileExistsError as error:
        raise InputError(f"{shown(folder)}: holds something else than the drawn scenes; move it away") from error


def _attached(slugs: Sequence[str]) -> Path | None:
    """The first of these Kaggle datasets that is mounted (either form of mount) or was downloaded completely before."""
    cache = _cache() / "datasets"
    for slug in slugs:
        for mount in (KAGGLE_INPUT / slug.split("/")[1], KAGGLE_INPUT / "datasets" / slug):
            if mount.is_dir():
                return mount
        complete = sorted((cache / slug).glob("*.complete"), key=lambda path: int(path.stem))
        if complete:
            return cache / slug / "versions" / complete[-1].stem
    return None


def _cache() -> Path:
    return Path(os.environ.get("KAGGLEHUB_CACHE", "~/.cache/kagglehub")).expanduser()


def _download(slug: str, what: str, instead: Path, size: float) -> Path:
    """By kagglehub, whose answer says where: in its cache, or, on Kaggle and often on Colab, on a mount, which takes no disk.

    Raises InputError beforehand where the disk has no room: the archive and what is in it are there together for a while.
    """
    kaggle = find_place() == "kaggle"
    require_network(
        KAGGLE_ADDRESS,
        what=f"{what} (Kaggle dataset {slug})",
        instead="Attach it (Add Input, Datasets), or turn the internet on (Settings). " * kaggle
        + f"Put it at {shown(instead)}, or name its folder with --data-dir or CAPTIONING_DATA_DIR.",
    )
    if not kaggle:
        check_room(
            _cache(), int(2 * size), f"{what} (Kaggle dataset {slug}) and its archive take about",
            "attach the dataset on Kaggle, where it takes no disk, choose a smaller one (flickr8k), or name a folder that has "
            "it (--data-dir, CAPTIONING_DATA_DIR). KAGGLEHUB_CACHE names another disk for it",
        )
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(slug))
    except Exception as error:  # kagglehub has many; all mean that there is no dataset
        raise InputError(
            f"{what} could not be downloaded from Kaggle ({slug}): {error}. Put it at {shown(instead)}, or name its folder "
            "with --data-dir or CAPTIONING_DATA_DIR."
        ) from error
