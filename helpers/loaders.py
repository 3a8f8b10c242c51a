"""Batches of the train and val splits, from whatever a system reads its pictures from: cached features, or pixels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from torch.utils.data import DataLoader

from helpers.data.batches import CaptionDataset, caption_loader, draw_share
from helpers.data.datasets import Captions
from helpers.data.encoders import ClipEncoder
from helpers.data.features import Features, Pictures, cached_features
from helpers.data.preprocessing import Preprocessed
from helpers.data.tokens import Tokens
from helpers.devices import first_process
from helpers.errors import InputError
from helpers.settings import TrainSettings
from helpers.training import Loaders

Source = Features | Pictures
# (split, its pictures, whether they are wanted in a mirror too) -> as they are, and mirrored where wanted
Open = Callable[[str, list[str], bool], tuple[Source, Source | None]]


def from_features(encoder: ClipEncoder, image_dir: Path, cache_dir: Path, *, grid: bool) -> Open:
    """CLIP's vectors, or its grids, from the cache."""

    def open_source(split: str, images: list[str], mirrored: bool) -> tuple[Features, Features | None]:
        found = cached_features(encoder, image_dir, images, cache_dir, grid=grid)
        return found, cached_features(encoder, image_dir, images, cache_dir, grid=grid, mirrored=True) if mirrored else None

    return open_source


def from_pictures(
    reader: Preprocessed, image_dir: Path, broken: Mapping[str, Mapping[str, str]] | None = None
) -> Open:
    """The pixels, as `reader` prepares them. broken: by split, pictures known not to open; None: each is tried first."""

    def open_source(split: str, images: list[str], mirrored: bool) -> tuple[Pictures, Pictures | None]:
        pictures = Pictures(reader, image_dir, images, broken and broken[split])
        return pictures, pictures.in_a_mirror() if mirrored else None

    return open_source


def make_loaders(
    captions: Captions,
    tokens: Tokens,
    settings: TrainSettings,
    open_source: Open,
    *,
    max_tokens: int | None = None,
    workers: int = 0,
    told: bool = False,
) -> Loaders:
    """Training batches as `settings` want them, and every validation caption in file order.

    max_tokens: of a caption with its end; None: the settings'. told: broken pictures have been reported already. Raises
    InputError for a split without pictures, and as the reading of pictures does.
    """
    for split in ("train", "val"):
        if not captions.images(split):
            raise InputError(f"{captions.name} has no {split} pictures: give a split list, or more pictures")

    def loader(split: str, images: list[str], which: str, mirrored: bool) -> DataLoader:
        source, reflected = open_source(split, images, mirrored)
        for image, reason in source.broken.items() if first_process() and not told else ():
            print(f"skipped {image}: {reason}", file=sys.stderr)
        dataset = CaptionDataset(
            source, captions.references(split), tokens, max_tokens=max_tokens or settings.max_tokens, mirrored=reflected
        )
        return caption_loader(
            dataset, tokens, batch_size=settings.batch_size, captions=which, seed=settings.seed, workers=workers
        )

    train = draw_share(captions.images("train"), settings.share, settings.seed)
    return Loaders(
        loader("train", train, settings.captions, settings.mirrored),
        loader("val", captions.images("val"), "ordered", mirrored=False),
    )
