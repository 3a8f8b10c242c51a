"""Pictures that are nearly the same: found by comparing thumbnails of 16 x 16 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from helpers.data.images import open_image
from helpers.environment import progress


def thumbnails(paths: Sequence[Path], *, size: int = 16) -> np.ndarray:
    """The pictures shrunk to `size` x `size`, as rows of numbers from 0 to 1. (pictures, size * size * 3)"""

    def shrink(path: Path) -> np.ndarray:
        return np.asarray(open_image(path).resize((size, size)), dtype=np.float32).ravel() / 255

    with ThreadPoolExecutor() as threads:
        return np.stack(list(progress(threads.map(shrink, paths), total=len(paths), desc="thumbnails")))


def closest(queries: np.ndarray, gallery: np.ndarray, *, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """For each query, the position of the most similar gallery row and how much they differ: root mean square, 0 to 1.

    queries: (Q, D), gallery: (G, D) -> (Q,) positions, (Q,) differences. Blocks keep the (Q, G) matrix out of memory.
    """
    positions, differences = [], []
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        squares = (part**2).sum(1)[:, None] + (gallery**2).sum(1) - 2 * part @ gallery.T  # (block, G)
        best = squares.argmin(axis=1)
        positions.append(best)
        # Computed anew: the expanded form above loses its last digits just where the difference is small
        differences.append(np.sqrt(((part - gallery[best]) ** 2).mean(axis=1)))
    return np.concatenate(positions), np.concatenate(differences)
