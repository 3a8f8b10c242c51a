"""*scenes*: a captioned picture dataset of any size, drawn by code from a seed, in the layout of Flickr8k.

It needs no network and no licence, takes seconds to make, and asks the same of a captioner as photographs do: name
who is there, what they look like, what they do, where and when. Its pictures are simple enough that small models
learn it in minutes on a CPU.

    folder = make_scenes(Path("data/scenes"))       # Images/, captions.txt, Flickr_8k.{train,dev,test}Images.txt
    for scene, captions in scene_stream(seed=1, count=10_000):
        picture = draw(scene)                       # as many more as you like, none of them in val or test
"""

import contextlib
import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm.auto import tqdm

from .captions import describe
from .drawing import draw
from .world import Scene, sample_scene

__all__ = ["Scene", "describe", "draw", "make_scenes", "sample_scene", "scene_stream"]

VERSION = 6  # raise it when the same seed gives other pictures or captions: folders made before are made again
MARKER = "scenes.json"  # a folder without it is not ours to touch
SPLIT_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt",
               "test": "Flickr_8k.testImages.txt"}
COUNTS = {"train": 2000, "val": 200, "test": 200}
PICTURES_WORTH_A_PROCESS = 32


def scene_stream(seed: int, count: int, split: str = "train") -> Iterator[tuple[Scene, list[str]]]:
    """`count` different scenes of a split, each with its five captions; the same ones for the same seed.

    Streams of different splits never meet, whatever their seeds.
    """
    seen = set()
    rng = random.Random(f"scenes/{seed}/{split}")
    while len(seen) < count:
        scene = sample_scene(rng, split)
        captions = describe(scene, rng)
        if scene not in seen:
            seen.add(scene)
            yield scene, captions


def make_scenes(folder: Path, counts: Mapping[str, int] = COUNTS, seed: int = 0, size: int = 192,
                workers: int | None = None, progress: bool = True) -> Path:
    """Draw the dataset into `folder`, unless it is there already, and return the folder.

    counts: pictures per split; size: pixels per side; workers: processes (None: one per CPU core, 1: none besides this)
    progress: show a bar, unless the environment says CAPTIONING_PROGRESS=0

    The folder appears in one piece at the end, so an interrupted call leaves nothing half made. A dataset made earlier
    with other arguments, or by another version, is replaced; FileExistsError if the folder holds anything else.
    """
    folder = Path(folder)
    if unknown := set(counts) - set(COUNTS):
        raise ValueError(f"counts: unknown split {', '.join(map(repr, sorted(unknown)))}; use {', '.join(COUNTS)}")
    recipe = {"version": VERSION, "seed": seed, "size": size,
              "counts": {split: counts.get(split, 0) for split in COUNTS}}
    if _recipe_of(folder) == recipe:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        building.chmod(0o755)  # mkdtemp's folders are private
        _write_tables(building, recipe)
        hidden = not progress or os.environ.get("CAPTIONING_PROGRESS") == "0"
        with tqdm(total=sum(counts.values()), desc="Drawing scenes", unit="picture", disable=hidden) as bar:
            _draw_all(building, workers or os.cpu_count() or 1, bar)
        _swap_in(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _recipe_of(folder: Path) -> dict | None:
    """How the dataset in the folder was made; None where there is nothing, FileExistsError where it is not ours."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(f"{folder} exists and was not made by make_scenes (no readable {MARKER} in it): "
                              "choose another folder or remove it yourself") from None


def _pictures(recipe: dict) -> Iterator[tuple[str, str, Scene, list[str]]]:
    """File name, split, scene and captions of every picture of a dataset."""
    names = (f"{number:05d}.jpg" for number in itertools.count())
    for split, count in recipe["counts"].items():
        for scene, captions in scene_stream(recipe["seed"], count, split):
            yield next(names), split, scene, captions


def _write_tables(building: Path, recipe: dict) -> None:
    """Everything but the pictures."""
    (building / "Images").mkdir()
    (building / MARKER).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        captions_file, *lists = (stack.enter_context(open(building / name, "w", encoding="utf-8", newline=""))
                                 for name in ("captions.txt", *SPLIT_LISTS.values()))
        table, lists = csv.writer(captions_file, lineterminator="\n"), dict(zip(SPLIT_LISTS, lists, strict=True))
        table.writerow(["image", "caption"])
        for name, split, _, captions in _pictures(recipe):
            lists[split].write(f"{name}\n")
            table.writerows([name, caption] for caption in captions)


def _draw_all(building: Path, workers: int, bar: tqdm) -> None:
    """Draw the pictures, many of them in processes of their own.

    Those are plain commands: unlike multiprocessing's, they do not import the caller's script, which may be a notebook
    or bring torch along, and never fork a process that runs threads.
    """
    workers = min(workers, 1 + bar.total // PICTURES_WORTH_A_PROCESS)
    if workers == 1:
        draw_share(building, 0, 1, bar)
        return
    root = str(Path(__file__).parents[__name__.count(".") + 1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    code = f"import sys; from {__name__} import draw_share; draw_share(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))"
    processes = [subprocess.Popen([sys.executable, "-c", code, building, str(share), str(workers)], env=environment,
                                  stderr=subprocess.PIPE, text=True) for share in range(workers)]
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(0.05)
            bar.update(len(os.listdir(building / "Images")) - bar.n)
        for process in processes:
            if process.returncode:
                raise RuntimeError(f"drawing the scenes failed: {process.stderr.read().strip()}")
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def draw_share(building: Path, share: int, shares: int, bar: tqdm | None = None) -> None:
    """Draw every `shares`-th picture of an unfinished dataset, from number `share`; what one process does."""
    if shares > 1:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    recipe = json.loads((Path(building) / MARKER).read_text(encoding="utf-8"))
    for name, _, scene, _ in itertools.islice(_pictures(recipe), share, None, shares):
        draw(scene, recipe["size"]).save(Path(building) / "Images" / name, quality=90, subsampling=0)
        if bar is not None:
            bar.update()


def _swap_in(building: Path, folder: Path) -> None:
    """Rename the finished folder to its name, first moving an older dataset of ours out of the way."""
    outdated = building.with_name(building.name + ".old")
    now_there = _recipe_of(folder)
    if now_there == _recipe_of(building):
        return  # another process was faster
    if now_there is not None:
        folder.rename(outdated)
    building.rename(folder)
    shutil.rmtree(outdated, ignore_errors=True)
