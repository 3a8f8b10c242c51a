"""The feature cache: one growing fp16 file a dataset and encoder, memory-mapped, safe against kills and damage.

    features.f16    rows of fp16 numbers, one row a picture, appended block by block
    index.jsonl     one line a block: the pictures in it, in order, and the block's checksum

A block counts only once its index line stands, so a run that is killed loses at most one block, and the next run goes on
from there. Blocks whose checksum does not fit are dropped and encoded anew.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from helpers.data.encoders import ClipEncoder
from helpers.data.images import open_image
from helpers.environment import progress
from helpers.errors import InputError

BLOCK = 256  # pictures a block: what a kill can cost at most


@dataclass(frozen=True)
class Features:
    """Features of a set of pictures. `array` is a read-only memory map (rows, *shape) fp16; `rows` finds a picture's row.

    `broken` holds the pictures that could not be read, with the reason: they have no row.
    """

    array: np.ndarray
    rows: dict[str, int]
    broken: dict[str, str] = field(default_factory=dict)
    encoded: int = 0  # how many pictures went through CLIP in this call; 0 when all came from the cache

    def __contains__(self, image: str) -> bool:
        return image in self.rows

    def take(self, images: Sequence[str]) -> np.ndarray:
        """The features of `images`, in that order, as fp32. (N, *shape)"""
        return np.asarray(self.array[[self.rows[image] for image in images]], dtype=np.float32)


def cached_features(
    encoder: ClipEncoder, image_dir: Path, images: Sequence[str], cache_dir: Path, *, batch_size: int = 64
) -> Features:
    """The pooled CLIP vectors of `images` (file names in `image_dir`): read from the cache, encoded where missing.

    The cache is keyed by the folder, the encoder's fingerprint (weights and preprocessing), and each file's name, size and
    time. Broken pictures are skipped and reported in `Features.broken`; raises InputError where none could be read.
    """
    key = f"{zlib.crc32(str(image_dir.resolve()).encode()):08x}-{encoder.fingerprint}"
    folder = Path(cache_dir) / key
    folder.mkdir(parents=True, exist_ok=True)
    stamps = {image: _stamp(image, image_dir / image) for image in images}
    with FileLock(folder / "lock"):  # two notebooks may start on the same dataset at once
        store = _Store(folder, width=encoder.dim)
        missing = [image for image in dict.fromkeys(images) if stamps[image] not in store.rows]
        broken = _encode_missing(encoder, image_dir, missing, stamps, store, batch_size)
        rows = {image: store.rows[stamps[image]] for image in images if image not in broken}
        if not rows:
            first = next(iter(broken.values()), "no pictures were asked for")
            raise InputError(f"no picture of {image_dir.name} could be encoded: {first}")
        return Features(store.open(), rows, broken, len(missing) - len(broken))


def _encode_missing(
    encoder: ClipEncoder, image_dir: Path, missing: list[str], stamps: dict[str, str], store: _Store, batch_size: int
) -> dict[str, str]:
    broken: dict[str, str] = {}

    def pixels(image: str) -> torch.Tensor | None:
        try:
            return encoder.pixels(open_image(image_dir / image))
        except InputError as error:
            broken[image] = str(error)
            return None

    starts = range(0, len(missing), BLOCK)
    with ThreadPoolExecutor() as pool:  # decoding and resizing release the interpreter's lock
        for start in progress(starts, desc="CLIP features", unit="block", leave=False):
            names = missing[start : start + BLOCK]
            block = [(image, p) for image, p in zip(names, pool.map(pixels, names), strict=True) if p is not None]
            if not block:
                continue
            batches = torch.stack([p for _, p in block]).split(batch_size)
            vectors = torch.cat([encoder.encode(batch) for batch in batches])
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
            for line in self.index.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    block = json.loads(line)
                    stamps, crc = block["images"], block["crc"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    break
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


def _stamp(image: str, path: Path) -> str:
    """What tells a picture from another version of itself, without reading it."""
    try:
        status = path.stat()
    except OSError:
        return f"{image}|missing"
    return f"{image}|{status.st_size}|{status.st_mtime_ns}"
