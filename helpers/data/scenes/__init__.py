"""*scenes*: a captioned picture dataset of any size, drawn by code from a seed, in the layout of Flickr8k.

It needs no network and no licence, takes seconds to make, and asks the same of a captioner as photographs do: name
who is there, what they look like, what they do, where and when. Its pictures are simple enough that small models
learn it in minutes on a CPU.

    folder = make_scenes(Path("data/scenes"))       # Images/, captions.txt, Flickr_8k.{train,dev,test}Images.txt
    for scene, captions in scene_stream(seed=1, count=10_000):
        picture = draw(scene)                       # as many more as you like, none of them in val or test

The same world comes in two styles: *painted* and described in sentences, or drawn with a coloured *pencil* and described in
short notes. The second plays the other dataset where a model trained on one is tried on the other, and like Flickr30k, in
which every photo of Flickr8k lies, it can hold pictures of the first one's test split.
"""

import contextlib
import csv
import hashlib
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
from typing import NamedTuple

from tqdm.auto import tqdm

from .captions import describe
from .drawing import STYLES, cut_out, draw
from .notes import jot
from .world import Scene, sample_scene

__all__ = ["Scene", "cut_out", "describe", "draw", "make_scenes", "sample_scene", "scene_stream"]

VERSION = 6  # raise it when the same seed gives other pictures or captions: folders made before are made again
MARKER = "scenes.json"  # a folder without it is not ours to touch
SPLIT_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt",
               "test": "Flickr_8k.testImages.txt"}
COUNTS = {"train": 2000, "val": 200, "test": 200}
OWN_NUMBERS = 1_000_000  # where the photo numbers of another style's own pictures begin
TELL = dict(zip(STYLES, (describe, jot), strict=True))
PICTURES_WORTH_A_PROCESS = 32


def scene_stream(
    seed: int, count: int, split: str = "train", style: str = "painted"
) -> Iterator[tuple[Scene, list[str]]]:
    """`count` different scenes of a split, each with its five captions in the style; the same ones for the same seed.

    Streams of different splits never meet, whatever their seeds.
    """
    seen = set()
    rng = random.Random(f"scenes/{seed}/{split}")
    while len(seen) < count:
        scene = sample_scene(rng, split)
        captions = TELL[style](scene, rng)
        if scene not in seen:
            seen.add(scene)
            yield scene, captions


def make_scenes(folder: Path, counts: Mapping[str, int] = COUNTS, seed: int = 0, size: int = 192,
                workers: int | None = None, progress: bool = True, style: str = "painted", shared: int = 0) -> Path:
    """Draw the dataset into `folder`, unless it is there already, and return the folder.

    counts: pictures per split; size: pixels per side; workers: processes (None: one per CPU core, 1: none besides this)
    progress: show a bar, unless the environment says CAPTIONING_PROGRESS=0
    style: "painted" or "pencil", of pictures and captions
    shared: so many of the train pictures are the first ones of the test split that the default arguments give: the same
    photos, as painted there, under the same photo id (the digits before "_"), described in this dataset's style

    The folder appears in one piece at the end, so an interrupted call leaves nothing half made. A dataset made earlier
    with other arguments, or by another version, is replaced; FileExistsError if the folder holds anything else.
    """
    folder = Path(folder)
    if unknown := set(counts) - set(COUNTS):
        raise ValueError(f"counts: unknown split {', '.join(map(repr, sorted(unknown)))}; use {', '.join(COUNTS)}")
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    if shared and style == "painted":
        raise ValueError(f"shared={shared}: pictures of the default dataset can be shared with another style's only")
    most = min(counts.get("train", 0) // 2, COUNTS["test"])
    if not 0 <= shared <= most:
        raise ValueError(f"shared={shared}: give 0 to {most}, no more than half of the train pictures")
    recipe = {"version": VERSION, "seed": seed, "size": size,
              "counts": {split: counts.get(split, 0) for split in COUNTS}}
    if style != "painted":
        recipe |= {"style": style, "shared": shared}
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


class Picture(NamedTuple):
    """One picture of a dataset; `style` is how it is drawn."""

    name: str
    split: str
    scene: Scene
    captions: list[str]
    style: str


def _pictures(recipe: dict) -> Iterator[Picture]:
    """Every picture of a dataset, in file order."""
    style, shared = recipe.get("style", "painted"), recipe.get("shared", 0)
    names = (f"{number:05d}.jpg" for number in itertools.count())
    if style != "painted":
        names = (_flickr_name(number, style) for number in itertools.count(OWN_NUMBERS))
    borrowed = _borrowed(shared, style)
    for split, count in recipe["counts"].items():
        own = count - shared if split == "train" else count
        for n, (scene, captions) in enumerate(scene_stream(recipe["seed"], own, split, style), start=1):
            yield Picture(next(names), split, scene, captions, style)
            if split == "train" and shared and n % (own // shared) == 0:  # evenly among the others
                yield from itertools.islice(borrowed, 1)


def _borrowed(count: int, style: str) -> Iterator[Picture]:
    """The first test pictures of the default dataset as train pictures of one in another style."""
    rng = random.Random(f"scenes/borrowed/{style}")
    first = COUNTS["train"] + COUNTS["val"]
    for number, (scene, _) in enumerate(scene_stream(seed=0, count=count, split="test"), start=first):
        yield Picture(_flickr_name(number, style), "train", scene, TELL[style](scene, rng), "painted")


def _flickr_name(number: int, style: str) -> str:
    """A file name as Flickr's: the photo's number and ten digits of nobody's concern."""
    return f"{number:05d}_{hashlib.sha256(f'{style}/{number}'.encode()).hexdigest()[:10]}.jpg"


def _write_tables(building: Path, recipe: dict) -> None:
    """Everything but the pictures."""
    (building / "Images").mkdir()
    (building / MARKER).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        captions_file, *lists = (stack.enter_context(open(building / name, "w", encoding="utf-8", newline=""))
                                 for name in ("captions.txt", *SPLIT_LISTS.values()))
        table, lists = csv.writer(captions_file, lineterminator="\n"), dict(zip(SPLIT_LISTS, lists, strict=True))
        table.writerow(["image", "caption"])
        for picture in _pictures(recipe):
            lists[picture.split].write(f"{picture.name}\n")
            table.writerows([picture.name, caption] for caption in picture.captions)


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
    for picture in itertools.islice(_pictures(recipe), share, None, shares):
        pixels = draw(picture.scene, recipe["size"], picture.style)
        pixels.save(Path(building) / "Images" / picture.name, quality=90, subsampling=0)
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
