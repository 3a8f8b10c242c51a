"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"), and a miniature of it cut from scenes.

    train, test = load_cifar("cifar10")     # 50,000 and 10,000 photos of 32 x 32 pixels, downloaded by torchvision (170 MB)
    train, test = load_cifar("scenes10")    # drawn here, in the same files, read by the same code
    picture, label = train[0]               # PIL, a number; train.classes[label] is its name

Both are `torchvision.datasets.CIFAR10`, which compares every file with its MD5 checksum before it reads it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from helpers.data import scenes
from helpers.environment import ROOT, progress, require_network, shown
from helpers.errors import InputError
from helpers.files import atomic_path, write_json

NAMES = ("cifar10", "scenes10")
# What scenes have for each of CIFAR-10's classes, in their order: airplane, automobile, bird, cat, deer, dog, frog, horse ...
CLASSES = ("hot air balloon", "car", "bird", "cat", "cow", "dog", "rabbit", "horse", "sailboat", "bus")
MARKER = "made.json"  # how the miniature was made, and the checksums of its files
RECIPE = {"version": scenes.VERSION, "seed": 10, "train": 2000, "test": 500}


class Scenes10(CIFAR10):
    """The miniature in `root`/scenes-10-batches-py, with checksums from its MARKER instead of the published ones."""

    base_folder = "scenes-10-batches-py"

    def __init__(self, root: Path, **options: object):
        sums = json.loads((root / self.base_folder / MARKER).read_text(encoding="utf-8"))["md5"]
        self.train_list = [(name, sums[name]) for name, _ in CIFAR10.train_list]
        self.test_list = [(name, sums[name]) for name, _ in CIFAR10.test_list]
        self.meta = CIFAR10.meta | {"md5": sums[CIFAR10.meta["filename"]]}
        super().__init__(root, **options)


def load_cifar(name: str, data_dir: str | Path | None = None, *, work_dir: Path = ROOT) -> tuple[CIFAR10, CIFAR10]:
    """The train and the test pictures of "cifar10" or "scenes10"; InputError for any other name.

    data_dir: the folder that holds cifar-10-batches-py (or scenes-10-batches-py), or this itself; None: `work_dir`/data/`name`

    What is missing is downloaded or drawn. Raises InputError where that fails or a file is damaged, OfflineError where there
    is no network to download from.
    """
    if name not in NAMES:
        raise InputError(f"dataset {name!r} is not known here: choose {' or '.join(NAMES)}")
    reader = CIFAR10 if name == "cifar10" else Scenes10
    root = Path(data_dir).expanduser() if data_dir else Path(work_dir) / "data" / name
    root = root.parent if root.name == reader.base_folder else root
    if reader is CIFAR10:
        _download(root)
    else:
        _make_scenes10(root)
    try:
        return reader(root, train=True), reader(root, train=False)
    except RuntimeError as error:  # a checksum
        raise InputError(f"{shown(root / reader.base_folder)} is damaged: delete it and try again") from error


def _download(root: Path) -> None:
    """CIFAR-10 into `root`, unless it is there whole."""
    folder = root / CIFAR10.base_folder
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    missing = [name for name, md5 in files if not check_integrity(folder / name, md5)]
    if not missing:
        return
    why = f"{', '.join(missing)} there: damaged" if folder.is_dir() else "there is none"
    instead = f"Put the folder {folder.name} into {shown(root)} ({why}), or name the folder that holds it with --data-dir."
    require_network(CIFAR10.url, what="CIFAR-10", instead=instead)
    try:
        CIFAR10(root, download=True)
    except (RuntimeError, OSError) as error:
        raise InputError(f"CIFAR-10 could not be downloaded: {error}. {instead}") from error


def _make_scenes10(root: Path) -> None:
    """Draw the miniature into `root`, unless it is there."""
    from filelock import FileLock

    folder = root / Scenes10.base_folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{folder.name}.lock"):  # two notebooks may start at once
        if (folder / MARKER).is_file() and json.loads((folder / MARKER).read_text(encoding="utf-8"))["recipe"] == RECIPE:
            return
        with atomic_path(folder) as building:
            building.mkdir()
            for name, content in _files(RECIPE):
                (building / name).write_bytes(pickle.dumps(content, protocol=2))
            sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(building.iterdir())}
            write_json(building / MARKER, {"recipe": RECIPE, "md5": sums})


def _files(recipe: dict) -> Iterator[tuple[str, dict]]:
    """The files of the miniature, by name: what CIFAR-10's pickles hold, under the same keys."""
    files = [name for name, _ in CIFAR10.train_list]
    yield from _batches(files, "train", recipe["train"], recipe["seed"])
    # Pictures of the test kind, with their held-out pairs, are for the tests of what is built on this classifier.
    yield from _batches([CIFAR10.test_list[0][0]], "val", recipe["test"], recipe["seed"])
    meta = {"num_cases_per_batch": recipe["train"] // len(files), "label_names": list(CLASSES), "num_vis": 3072}
    yield CIFAR10.meta["filename"], meta


def _batches(files: list[str], split: str, count: int, seed: int) -> Iterator[tuple[str, dict]]:
    """`count` cut-outs from scenes of a split, divided equally among the files."""
    chosen = _scenes_of_each_class(random.Random(f"scenes10/{seed}/{split}"), split, count)
    size = count // len(files)
    for n, file in enumerate(files):
        part = chosen[n * size : (n + 1) * size]
        pixels = [np.asarray(scenes.cut_out(scene)) for scene in progress(part, desc=f"cutting out {file}")]
        yield file, {
            "batch_label": file,
            "labels": [CLASSES.index(scene.subject) for scene in part],
            "data": np.stack(pixels).transpose(0, 3, 1, 2).reshape(size, -1),  # (N, 3072): red, then green, then blue
            "filenames": [f"{scene.subject.replace(' ', '_')}_{scene.seed}.png" for scene in part],
        }


def _scenes_of_each_class(rng: random.Random, split: str, count: int) -> list[scenes.Scene]:
    """`count` scenes with a single subject, equally many of each class, in random order."""
    wanted = dict.fromkeys(CLASSES, count // len(CLASSES))
    chosen = []
    while any(wanted.values()):
        scene = scenes.sample_scene(rng, split)
        if scene.count == 1 and wanted.get(scene.subject):
            wanted[scene.subject] -= 1
            chosen.append(scene)
    rng.shuffle(chosen)  # the rarest would be last
    return chosen
