"""Batches of (image features, caption tokens) for training: random captions per epoch, padded to their own longest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from helpers.data.features import Features
from helpers.data.tokens import Tokens
from helpers.errors import InputError

Pair = tuple[int, int]  # (number of the picture, number of its caption)


class CaptionDataset(Dataset):
    """Pairs of an image vector (E,) and caption token ids, each ended by eos. Indexed by (picture, caption)."""

    def __init__(
        self, features: Features, references: Mapping[str, Sequence[str]], tokens: Tokens, *, max_tokens: int = 60
    ):
        self.images = [image for image in references if image in features]
        if not self.images:
            raise InputError("no picture with captions is left: all are broken or missing")
        self.features = features
        # Tokenized once. The end token always stays, also on a caption cut to max_tokens.
        self.captions = [
            [[*tokens.encode(caption)[: max_tokens - 1], tokens.eos] for caption in references[image]]
            for image in self.images
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, pair: Pair) -> tuple[Tensor, list[int]]:
        picture, caption = pair
        return torch.from_numpy(self.features.take([self.images[picture]])[0]), self.captions[picture][caption]


class CaptionSampler(Sampler[Pair]):
    """Which captions an epoch shows, and in which order: all of the randomness of training batches lies here.

    `captions`: "random" shows each picture once an epoch, with one of its captions drawn anew; "all" shows every caption;
    shuffled by (seed, epoch) in both cases, so that a resumed run continues with the order of an unbroken one.
    "ordered" shows every caption in file order, for validation.
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
        return len(counts) if self.captions == "random" else sum(len(captions) for captions in counts)

    def __iter__(self) -> Iterator[Pair]:
        counts = [len(captions) for captions in self.dataset.captions]
        if self.captions == "ordered":
            return iter([(i, j) for i, count in enumerate(counts) for j in range(count)])
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.captions == "random":
            draws = torch.rand(len(counts), generator=generator)
            pairs = [(i, int(draw * count)) for i, (draw, count) in enumerate(zip(draws.tolist(), counts, strict=True))]
        else:
            pairs = [(i, j) for i, count in enumerate(counts) for j in range(count)]
        return iter([pairs[k] for k in torch.randperm(len(pairs), generator=generator).tolist()])


def collate(items: Sequence[tuple[Tensor, list[int]]], pad: int) -> dict[str, Tensor]:
    """image (B, E); tokens (B, L) filled up with `pad` to the batch's own longest caption; mask (B, L), True on tokens."""
    length = max(len(ids) for _, ids in items)
    tokens = torch.full((len(items), length), pad, dtype=torch.long)
    mask = torch.zeros(len(items), length, dtype=torch.bool)
    for row, (_, ids) in enumerate(items):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = True
    return {"image": torch.stack([image for image, _ in items]), "tokens": tokens, "mask": mask}


def caption_loader(
    dataset: CaptionDataset, tokens: Tokens, *, batch_size: int, captions: str = "random", seed: int = 0
) -> DataLoader:
    """The DataLoader of a dataset; `captions` as in CaptionSampler."""
    # No worker processes: an item is a memory-mapped row and a list that is already tokenized.
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=CaptionSampler(dataset, captions, seed),
        collate_fn=lambda items: collate(items, tokens.pad),
    )
