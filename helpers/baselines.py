"""Baselines that humble: captions made without understanding a picture.

Captions are {image: caption}, references {image: list of captions}, as in `metrics.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from helpers.errors import InputError

BATCH = 1024  # queries compared at once: (1024, N) similarities in float32


def most_frequent_caption(train_references: Mapping[str, Sequence[str]]) -> str:
    """The caption that people wrote most often, case-folded and stripped; of equals, the one seen first.

    Blank captions do not count. Raises InputError if there is nothing else.
    """
    counts = Counter(caption.strip().casefold() for captions in train_references.values() for caption in captions)
    counts.pop("", None)
    if not counts:
        raise InputError("no training caption to choose from")
    return max(counts, key=counts.__getitem__)  # a Counter keeps the order of arrival, max the first of equals


def random_caption(train_references: Mapping[str, Sequence[str]], images: Sequence[str], seed: int) -> dict[str, str]:
    """For each image a training caption drawn at random, all equally likely. Raises InputError if there is none."""
    captions = [caption for group in train_references.values() for caption in group]
    if not captions:
        raise InputError("no training caption to draw from")
    drawn = np.random.default_rng(seed).integers(len(captions), size=len(images))
    return {image: captions[i] for image, i in zip(images, drawn, strict=True)}


def nearest_neighbour(
    train_features: np.ndarray,
    train_images: Sequence[str],
    query_features: np.ndarray,
    query_images: Sequence[str],
    train_references: Mapping[str, Sequence[str]],
) -> dict[str, str]:
    """For each query image the first caption of the training image with the most similar features (cosine, float32).

    Features are (N, E) and (Q, E), one row per name; of equally similar training images the first wins. Raises
    InputError where shapes and names disagree, features are not finite, a training image has no caption, or a query
    image is itself a training image: it would be its own neighbour.
    """
    train, query = (np.asarray(features, dtype=np.float32) for features in (train_features, query_features))
    if train.ndim != 2 or query.ndim != 2 or train.shape[1] != query.shape[1]:
        raise InputError(f"features must be (N, E) and (Q, E), not {train.shape} and {query.shape}")
    for features, images, what in ((train, train_images, "training"), (query, query_images, "query")):
        if len(features) != len(images):
            raise InputError(f"{len(features)} {what} features for {len(images)} {what} images")
        if not np.isfinite(features).all():
            raise InputError(f"{what} features hold NaN or infinity")
    if not len(train):
        raise InputError("no training image to choose from")
    if leaked := sorted(set(train_images) & set(query_images)):
        raise InputError(f"{len(leaked)} query images are training images, {leaked[0]} for one")
    if bare := [image for image in train_images if not train_references.get(image)]:
        raise InputError(f"{len(bare)} training images have no caption, {bare[0]} for one")

    train, query = _unit(train), _unit(query)
    nearest = [np.argmax(query[i : i + BATCH] @ train.T, axis=1) for i in range(0, len(query), BATCH)]
    chosen = np.concatenate(nearest) if nearest else []
    return {image: train_references[train_images[i]][0] for image, i in zip(query_images, chosen, strict=True)}


def shuffled(predictions: Mapping[str, str], seed: int) -> dict[str, str]:
    """Every picture gets the caption that was written for another picture: does the model look at all?

    No caption stays where it was, though two pictures may have had the same one. Raises InputError for one picture.
    """
    images = list(predictions)
    if len(images) < 2:
        raise InputError(f"{len(images)} picture: another one is needed to swap captions with")
    circle = [images[i] for i in np.random.default_rng(seed).permutation(len(images))]
    taken = dict(zip(circle, circle[1:] + circle[:1], strict=True))  # each takes its neighbour's in a random circle
    return {image: predictions[taken[image]] for image in images}


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros stays zero."""
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norm, np.finfo(np.float32).tiny)
