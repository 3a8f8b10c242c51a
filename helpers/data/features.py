"""Where batches get their pictures from: the cache of CLIP's features, or the pixels, for an encoder that learns or whose
features the disk cannot hold (`plan_cache` says).

The cache is one growing fp16 file a dataset and encoder, memory-mapped, safe against kills and damage:

    features.f16    rows of fp16 numbers, one row a picture, appended block by block
    index.jsonl     one line a block: the pictures in it, in order, and the block's checksum

A block counts only once its index line stands, so a run that is killed loses at most one block, and the next run goes on
from there. Blocks whose checksum does not fit are dropped and encoded anew.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL.Image import Image
from torch import Tensor

from helpers.data.encoders import ClipEncoder
from helpers.data.flips import mirror
from helpers.data.images import open_image
from helpers.disk import check_room, free_bytes, size_text
from helpers.environment import progress
from helpers.errors import InputError

BLOCK = 256  # pictures a block: what a kill can cost at most
SHARE = 0.8  # of the free disk that features may take: checkpoints and the system want some too


@dataclass(frozen=True)
class Features:
    """Features of a set of pictures. `array` is a read-only memory map (rows, numbers) fp16; `rows` finds a picture's row.

    A row is the pooled vector (E), with `grid` (M, C) the M * C numbers of the grid before it. `broken` holds the pictures
    that could not be read, with the reason: they have no row.
    """

    array: np.ndarray
    rows: dict[str, int]
    broken: dict[str, str] = field(default_factory=dict)
    encoded: int = 0  # how many pictures went through CLIP in this call; 0 when all came from the cache
    grid: tuple[int, int] | None = None

    def __contains__(self, image: str) -> bool:
        return image in self.rows

    def take(self, images: Sequence[str]) -> np.ndarray:
        """The pooled vectors of `images`, in that order, as fp32. (N, E)"""
        cells = 0 if self.grid is None else self.grid[0] * self.grid[1]
        return np.asarray(self.array[:, cells:][self._rows(images)], dtype=np.float32)

    def batch(self, images: Sequence[str]) -> Tensor | dict[str, Tensor]:
        """What a captioner takes: the pooled vectors (N, E), or {"grid": (N, M, C), "pooled": (N, E)}. fp32."""
        rows = torch.from_numpy(np.asarray(self.array[self._rows(images)], dtype=np.float32))
        if self.grid is None:
            return rows
        cells = self.grid[0] * self.grid[1]
        return {"grid": rows[:, :cells].view(-1, *self.grid), "pooled": rows[:, cells:]}

    def _rows(self, images: Sequence[str]) -> list[int]:
        return [self.rows[image] for image in images]


class Pictures:
    """The pixels themselves, read when asked for. In place of Features where the encoder learns, for features would be
    stale, and where there is no room for them: a LearningEncoder with parts=() then makes the same numbers of the pixels.

    Every file is opened once at the start, so that a broken one is known before training, not in the middle of it; unless
    `broken` says which ones are, as Features do.
    """

    mirrored = False

    def __init__(
        self, encoder: ClipEncoder, image_dir: Path, images: Sequence[str], broken: Mapping[str, str] | None = None
    ):
        self.encoder, self.image_dir = encoder, image_dir
        self.broken: dict[str, str] = dict(broken or {})
        if broken is None:
            with ThreadPoolExecutor() as pool:
                list(progress(pool.map(self._try, images), total=len(images), desc="opening pictures", leave=False))
        self.images = frozenset(images) - self.broken.keys()

    def __contains__(self, image: str) -> bool:
        return image in self.images

    def in_a_mirror(self) -> Pictures:
        """The same pictures, mirrored."""
        reflected = copy(self)
        reflected.mirrored = not self.mirrored
        return reflected

    def batch(self, images: Sequence[str]) -> dict[str, Tensor]:
        """{"pixels": (N, 3, R, R)}"""
        with ThreadPoolExecutor() as pool:
            squares = pool.map(lambda image: self.encoder.crop(open_image(self.image_dir / image)), images)
            pixels = torch.stack([self.encoder.normalise(square) for square in squares])
        return {"pixels": mirror(pixels) if self.mirrored else pixels}

    def _try(self, image: str) -> None:
        try:
            open_image(self.image_dir / image)
        except InputError as error:
            self.broken[image] = str(error)


def cached_features(
    encoder: ClipEncoder,
    image_dir: Path,
    images: Sequence[str],
    cache_dir: Path,
    *,
    grid: bool = False,
    mirrored: bool = False,
    batch_size: int = 64,
) -> Features:
    """CLIP's features of `images` (file names in `image_dir`): read from the cache, encoded where missing.

    grid: CLIP's grid, a ModifiedResNet's cells or a ViT's patches, beside the pooled vector. mirrored: of the pictures seen
    in a mirror. The cache is keyed by the folder, the encoder's fingerprint (weights and preprocessing), what is asked for,
    and each file's name, size and time. Broken pictures are skipped and reported in `Features.broken`; raises InputError
    where none could be read, and where the disk has no room for what is missing.
    """
    width = _width(encoder, grid)
    folder = _folder(encoder, image_dir, cache_dir, grid, mirrored)
    folder.mkdir(parents=True, exist_ok=True)
    stamps = {image: _stamp(image, image_dir / image) for image in images}
    with FileLock(folder / "lock"):  # two notebooks may start on the same dataset at once
        store = _Store(folder, width)
        missing = [image for image in dict.fromkeys(images) if stamps[image] not in store.rows]
        check_room(folder, 2 * width * len(missing), "the features take", "make room, use fewer pictures (--limit), or leave "
                   "the mirrored ones out (--no-mirrored)")  # fmt: skip
        encode = _as_rows(encoder, grid, mirrored)
        broken = _encode_missing(encoder, encode, image_dir, missing, stamps, store, batch_size)
        rows = {image: store.rows[stamps[image]] for image in images if image not in broken}
        if not rows:
            first = next(iter(broken.values()), "no pictures were asked for")
            raise InputError(f"no picture of {image_dir.name} could be encoded: {first}")
        return Features(store.open(), rows, broken, len(missing) - len(broken), encoder.grid if grid else None)


@dataclass(frozen=True)
class CachePlan:
    """Whether the features of a set of pictures are kept on the disk, or made anew whenever a batch needs them.

    `pictures` counts their copies too (a mirrored picture is one more); `present` of them are in the cache and take no
    more room; `free` is in bytes, as is `reserve`, what something else will write there: checkpoints.
    """

    bytes_per_picture: int
    pictures: int
    free: int
    present: int = 0
    reserve: int = 0

    @property
    def needed(self) -> int:
        """Bytes still to be written."""
        return self.bytes_per_picture * (self.pictures - self.present)

    @property
    def cached(self) -> bool:
        """True where they fit, with a margin, and beside what is reserved."""
        return self.needed <= min(SHARE * self.free, self.free - self.reserve)

    def __add__(self, other: CachePlan) -> CachePlan:
        """Of one encoder and disk: both sets at once, such as train, mirrored too, and val, as it is."""
        return replace(self, pictures=self.pictures + other.pictures, present=self.present + other.present)

    def __str__(self) -> str:
        """One line. Where they fit it is the same on every machine, and before and after."""
        total = f"{size_text(self.bytes_per_picture * self.pictures)} for {self.pictures:,}"
        start = f"features: {size_text(self.bytes_per_picture)} a picture, {total}"
        if self.cached:
            return f"{start}: cached"
        present = f" ({self.present:,} of them cached already)" if self.present else ""
        beside = f" beside {size_text(self.reserve)} of checkpoints" if self.reserve > (1 - SHARE) * self.free else ""
        room = f"more than {SHARE:.0%} of the {size_text(self.free)} free" if not beside else (
            f"too much for the {size_text(self.free)} free")  # fmt: skip
        return f"{start}{present}: {room}{beside}, so CLIP runs anew in each epoch"


def plan_cache(
    encoder: ClipEncoder,
    pictures: int | Sequence[str],
    cache_dir: Path,
    *,
    grid: bool,
    copies: int = 1,
    image_dir: Path | None = None,
    reserve: int = 0,
) -> CachePlan:
    """Whether `cached_features` of these pictures should be asked for at all: nothing is encoded or written.

    pictures: their number, or, with `image_dir`, their file names: then those that are in the cache are not counted
    again. Without, a second run would find the disk full of its own features and take it for too small. copies: 2 where
    the mirrored ones are cached too; where only those of one split are, add the splits' plans. reserve: bytes to leave
    for something else, of both plans alike.
    """
    count, present = pictures if isinstance(pictures, int) else len(set(pictures)), 0
    if image_dir is not None:
        if isinstance(pictures, int):
            raise InputError("pictures: give their file names, not their number, to have the cached ones of image_dir counted")
        stamps = {_stamp(image, image_dir / image) for image in pictures}
        for mirrored in (False, True)[:copies]:
            index = _folder(encoder, image_dir, cache_dir, grid, mirrored) / "index.jsonl"
            present += sum(len(stamps.intersection(block)) for _, block, _ in _blocks(index))
    return CachePlan(2 * _width(encoder, grid), copies * count, free_bytes(cache_dir), present, reserve)


def _width(encoder: ClipEncoder, grid: bool) -> int:
    """Numbers a row: E, or M*C + E."""
    return encoder.dim + (encoder.grid[0] * encoder.grid[1] if grid else 0)


def _folder(encoder: ClipEncoder, image_dir: Path, cache_dir: Path, grid: bool, mirrored: bool) -> Path:
    """Where in the cache such features lie."""
    key = f"{zlib.crc32(str(image_dir.resolve()).encode()):08x}-{encoder.fingerprint}"
    return Path(cache_dir) / (key + "-grid" * grid + "-mirrored" * mirrored)


def _as_rows(encoder: ClipEncoder, grid: bool, mirrored: bool) -> Callable[[Tensor], Tensor]:
    """Pixels (B, 3, R, R) to rows of the cache."""

    def encode(pixels: Tensor) -> Tensor:
        pixels = mirror(pixels) if mirrored else pixels
        if not grid:
            return encoder.encode(pixels)
        parts = encoder.encode_grid(pixels)
        return torch.cat([parts["grid"].flatten(1), parts["pooled"]], dim=1)  # (B, M*C + E)

    return encode


def _encode_missing(
    encoder: ClipEncoder,
    encode: Callable[[Tensor], Tensor],
    image_dir: Path,
    missing: list[str],
    stamps: dict[str, str],
    store: _Store,
    batch_size: int,
) -> dict[str, str]:
    broken: dict[str, str] = {}

    def crop(image: str) -> Image | None:
        try:
            return encoder.crop(open_image(image_dir / image))
        except InputError as error:
            broken[image] = str(error)
            return None

    starts = range(0, len(missing), BLOCK)
    # Pillow decodes and resizes beside the interpreter. Not so torch: each thread of ours would start threads of its own.
    with ThreadPoolExecutor() as pool:
        for start in progress(starts, desc="CLIP features", unit="block", leave=False):
            names = missing[start : start + BLOCK]
            block = [(image, square) for image, square in zip(names, pool.map(crop, names), strict=True) if square]
            if not block:
                continue
            batches = torch.stack([encoder.normalise(square) for _, square in block]).split(batch_size)
            vectors = torch.cat([encode(batch) for batch in batches])
            store.append([stamps[image] for image, _ in block], vectors.cpu().numpy().astype(np.float16))
    return broken


class _Store:
    """The two files, opened for reading and appending. `rows` maps a picture's stamp to its row."""

    def __init__(self, folder: Path, width: int):
        self.data, self.index, self.width = folder / "features.f16", folder / "index.jsonl", width
        self.rows: dict[str, int] = {}
        self.data.touch()
        self.index.touch()
        self._read()

    def open(self) -> np.ndarray:
        return np.memmap(self.data, dtype=np.float16, mode="r").reshape(-1, self.width)

    def append(self, stamps: list[str], vectors: np.ndarray) -> None:
        start = self.data.stat().st_size // (2 * self.width)
        with open(self.data, "ab") as file:
            file.write(vectors.tobytes())
        line = json.dumps({"images": stamps, "crc": zlib.crc32(vectors.tobytes())})
        with open(self.index, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.rows.update({stamp: start + n for n, stamp in enumerate(stamps)})

    def _read(self) -> None:
        """Keep the blocks up to the first that is damaged; cut both files there."""
        whole, end = [], 0
        with open(self.data, "rb") as file:
            for line, stamps, crc in _blocks(self.index):
                content = file.read(len(stamps) * 2 * self.width)
                if len(content) != len(stamps) * 2 * self.width or zlib.crc32(content) != crc:
                    break
                start = end // (2 * self.width)
                self.rows.update({stamp: start + n for n, stamp in enumerate(stamps)})
                end += len(content)
                whole.append(line)
        if self.data.stat().st_size != end:
            with open(self.data, "r+b") as file:
                file.truncate(end)
        text = "".join(line + "\n" for line in whole)
        if self.index.read_text(encoding="utf-8", errors="replace") != text:
            self.index.write_text(text, encoding="utf-8")


def _blocks(index: Path) -> Iterator[tuple[str, list[str], int]]:
    """The lines of an index up to the first that is damaged, each with its block's stamps and checksum."""
    for line in index.read_text(encoding="utf-8", errors="replace").splitlines() if index.is_file() else ():
        try:
            block = json.loads(line)
            yield line, block["images"], block["crc"]
        except (json.JSONDecodeError, KeyError, TypeError):
            return


def _stamp(image: str, path: Path) -> str:
    """What tells a picture from another version of itself, without reading it."""
    try:
        status = path.stat()
    except OSError:
        return f"{image}|missing"
    return f"{image}|{status.st_size}|{status.st_mtime_ns}"
