"""Batches of images and caption tokens: random captions per epoch, mirrored pictures, padded to their own longest."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from helpers.data.features import Features, Pictures
from helpers.data.flips import mirror_words
from helpers.data.tokens import Tokens
from helpers.errors import InputError

Image = Tensor | dict[str, Tensor]  # pooled vectors (N, E); or "grid" (N, M, C) and "pooled"; or "pixels" (N, 3, R, R)


class Item(NamedTuple):
    """What a sampler draws: the number of a picture, of its caption, and whether both are seen in a mirror."""

    picture: int
    caption: int
    mirrored: bool = False


class CaptionDataset(Dataset):
    """Images and caption token ids, each ended by eos. Indexed by lists of Item.

    `source` gives the image: Features, or Pictures for an encoder that learns; `mirrored`, a source of the same pictures
    seen in a mirror, gives it where the sampler asks for that, with left and right exchanged in the words.
    """

    def __init__(
        self,
        source: Features | Pictures,
        references: Mapping[str, Sequence[str]],
        tokens: Tokens,
        *,
        max_tokens: int = 60,
        mirrored: Features | Pictures | None = None,
    ):
        self.images = [image for image in references if image in source]
        if not self.images:
            raise InputError("no picture with captions is left: all are broken or missing")
        self.source, self.mirrored = source, mirrored

        def ids(caption: str) -> list[int]:  # the end token always stays, also on a caption that is cut
            return [*tokens.encode(caption)[: max_tokens - 1], tokens.eos]

        # Tokenized once.
        self.captions = [[ids(caption) for caption in references[image]] for image in self.images]
        self.mirror_captions: dict[tuple[int, int], list[int] | None] = {}  # where a mirror changes or forbids the caption
        for i, image in enumerate(self.images if mirrored else []):
            for j, caption in enumerate(references[image]):
                seen = mirror_words(caption)
                if seen != caption:
                    self.mirror_captions[i, j] = None if seen is None else ids(seen)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, items: Sequence[Item]) -> tuple[Image, list[int], list[list[int]]]:
        """What the DataLoader asks for, a whole batch: the images of its distinct pictures, which of them each caption
        belongs to, and the captions' ids."""
        views, captions = [], []
        for picture, caption, mirrored in (Item(*item) for item in items):
            ids, seen = self.captions[picture][caption], None
            if mirrored:
                seen = self.mirror_captions.get((picture, caption), ids)
            views.append((picture, seen is not None))
            captions.append(ids if seen is None else seen)
        distinct = {view: n for n, view in enumerate(sorted(set(views), key=lambda view: view[::-1]))}
        parts = []
        for mirrored, source in ((False, self.source), (True, self.mirrored)):
            names = [self.images[picture] for picture, mirror in distinct if mirror == mirrored]
            if names:
                parts.append(source.batch(names))
        return _join(parts), [distinct[view] for view in views], captions


def _join(parts: list[Image]) -> Image:
    if isinstance(parts[0], dict):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(parts)


class CaptionSampler(Sampler[Item]):
    """Which captions an epoch shows, and in which order: all of the randomness of training batches lies here.

    `captions`: "random" shows each picture once an epoch, with one of its captions drawn anew; "all" shows every caption;
    shuffled by (seed, epoch) in both cases, so that a resumed run continues with the order of an unbroken one.
    "ordered" shows every caption in file order, for validation. Where the dataset has mirrored pictures, half of what is
    shown in training is mirrored. Under multi-process training each process gets its share, all of the same length.
    """

    def __init__(self, dataset: CaptionDataset, captions: str = "random", seed: int = 0):
        if captions not in ("random", "all", "ordered"):
            raise InputError(f"captions={captions!r} is not known: choose random, all or ordered")
        self.dataset, self.captions, self.seed, self.epoch = dataset, captions, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        counts = self.dataset.captions
        total = len(counts) if self.captions == "random" else sum(len(captions) for captions in counts)
        _, world = _rank_and_world()
        return -(-total // world) if self.captions == "ordered" else total // world

    def __iter__(self) -> Iterator[Item]:
        counts = [len(captions) for captions in self.dataset.captions]
        rank, world = _rank_and_world()
        if self.captions == "ordered":
            items = [Item(i, j) for i, count in enumerate(counts) for j in range(count)]
            items += items[: -len(items) % world]  # some twice, so that no process has a batch more than the others
            share = len(items) // world  # in one piece: no step has captions of one photo in two processes
            return iter(items[rank * share : (rank + 1) * share])
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.captions == "random":
            draws = torch.rand(len(counts), generator=generator)
            pairs = [(i, int(draw * count)) for i, (draw, count) in enumerate(zip(draws.tolist(), counts, strict=True))]
        else:
            pairs = [(i, j) for i, count in enumerate(counts) for j in range(count)]
        order = torch.randperm(len(pairs), generator=generator).tolist()
        if self.captions == "all" and isinstance(self.dataset.source, Pictures):
            # All captions of a picture together, so that it is looked at once.
            place = torch.randperm(len(counts), generator=generator).tolist()
            order.sort(key=lambda k: place[pairs[k][0]])
        mirrored = [False] * len(counts)
        if self.dataset.mirrored is not None:
            mirrored = (torch.rand(len(counts), generator=generator) < 0.5).tolist()
        items = [Item(*pairs[k], mirrored[pairs[k][0]]) for k in order]
        share = len(items) // world  # equal ones: no process waits for another; and no picture is opened by two
        return iter(items[rank * share : (rank + 1) * share])


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def draw_share(images: list[str], share: float, seed: int) -> list[str]:
    """That share of `images`, at least one, in their order. Of one seed, a smaller share lies within every larger one."""
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    return [images[n] for n in sorted(order[: max(1, round(share * len(images)))])]


def pad_captions(captions: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """tokens (B, L), filled up with `pad` to the longest caption; mask (B, L), True on tokens."""
    length = max(len(ids) for ids in captions)
    tokens = torch.full((len(captions), length), pad, dtype=torch.long)
    mask = torch.zeros(len(captions), length, dtype=torch.bool)
    for row, ids in enumerate(captions):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = True
    return tokens, mask


def collate(fetched: tuple[Image, list[int], list[list[int]]], pad: int) -> dict[str, Tensor | dict[str, Tensor]]:
    """image: what belongs to each caption, (B, E) or a dict of (B, ...); tokens and mask (B, L).

    Pixels stay one a picture, (P, 3, R, R), with "rows" (B,), which of them each caption belongs to: so an encoder that
    learns looks once at a picture, however many of its captions are in the batch.
    """
    image, rows, captions = fetched
    tokens, mask = pad_captions(captions, pad)
    index = torch.tensor(rows)
    if isinstance(image, dict):
        pixels = "pixels" in image
        image = {**image, "rows": index} if pixels else {name: part[index] for name, part in image.items()}
    else:
        image = image[index]
    return {"image": image, "tokens": tokens, "mask": mask}


def caption_loader(
    dataset: CaptionDataset,
    tokens: Tokens,
    *,
    batch_size: int,
    captions: str = "random",
    seed: int = 0,
    workers: int = 0,
) -> DataLoader:
    """The DataLoader of a dataset; `captions` as in CaptionSampler.

    Worker processes pay only where the dataset reads Pictures: from Features, an item is a memory-mapped row.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=CaptionSampler(dataset, captions, seed),
        collate_fn=partial(collate, pad=tokens.pad),
        num_workers=workers,
    )
