"""How long a query takes in a gallery of Flickr30k's size, beside plain torch on the same numbers:

    python -m benchmarks.retrieval [--pictures 31783] [--dim 512] [--k 10] [--repeats 101]

The embeddings are random; that changes nothing, for an exact search looks at every row. Loading is from the disk's cache, of
a gallery that has just been written. Ours and torch's take turns, so that both meet the same machine; medians are printed.
Ours returns names and scores that do not depend on the batch, torch's the rows and scores of one product, ties as they come.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from helpers.retrieval import Gallery


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=31_783, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--dim", type=int, default=512, metavar="E", help="numbers an embedding (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="matches a query (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=101, metavar="N", help="queries (default: %(default)s)")
    options = parser.parse_args()

    torch.manual_seed(0)
    names = [f"{number}.jpg" for number in range(options.pictures)]
    built = Gallery.of(torch.randn(options.pictures, options.dim), names)
    queries = torch.randn(options.repeats, 1, options.dim)
    with tempfile.TemporaryDirectory() as folder:
        built.save(Path(folder) / "gallery")
        loads = [milliseconds(lambda: Gallery.load(Path(folder) / "gallery")) for _ in range(5)]
        gallery = Gallery.load(Path(folder) / "gallery")

        ours, plain = [], []
        for query in (queries[0], *queries):  # the first once more, to warm up
            ours.append(milliseconds(lambda query=query: gallery.search(query, options.k)))
            plain.append(milliseconds(lambda query=query: (query @ gallery.matrix.T).topk(options.k)))
    ours, plain = statistics.median(ours[1:]), statistics.median(plain[1:])

    print(f"{options.pictures:,} x {options.dim}, the best {options.k}, {torch.get_num_threads()} threads")
    print(f"loading      {statistics.median(loads):8.1f} ms")
    print(f"a query      {ours:8.2f} ms")
    print(f"plain torch  {plain:8.2f} ms")
    print(f"ratio        {ours / plain:8.2f}")


if __name__ == "__main__":
    main()
