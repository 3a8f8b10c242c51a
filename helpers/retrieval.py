"""Finding pictures by words and words by pictures, from embeddings alone: whatever model made them.

A picture and a sentence lie in one space, and their similarity is the cosine of their embeddings (Radford et al., "Learning
Transferable Visual Models From Natural Language Supervision", 2021, arXiv 2103.00020). On it stand a searchable `Gallery`,
its scores (`recall`), choosing among captions (`rerank`) and naming what a picture shows (`zero_shot`).

A gallery on disk is a folder, whole or absent:

    embeddings.npy   (N, E) fp16, rows of length 1, memory-mapped when read
    items.json       {"encoder": fingerprint, "items": [N names or captions], "photos": [N picture names]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from helpers.data.datasets import Captions, photo_id, shared_photos
from helpers.data.encoders import ClipEncoder, unit
from helpers.data.features import cached_features
from helpers.environment import progress, shown
from helpers.errors import InputError
from helpers.files import atomic_path, write_json
from helpers.metrics import Score, Scores

SCORES = 2**24  # similarities held at once, 64 MB: the queries of a search go in blocks
TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text to image", "image to text"

Vectors = Tensor | np.ndarray  # (N, E), of any length but 0: they are scaled to 1 here
EncodeTexts = Callable[[list[str]], Vectors]


class Match(NamedTuple):
    """One find: the picture's name or the caption, its cosine with the query, whose photo it is, its row in the gallery."""

    item: str
    score: float
    photo: str
    row: int


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is searched: embeddings and what they stand for. Made by `of_pictures`, `of_captions`, `of` or `load`.

    A picture gallery has one row a picture, whose name is item and photo; a caption gallery one row a caption, with its
    photo's name. `encoder` is the fingerprint of who made the embeddings; `broken` the pictures that could not be read,
    with the reason: they have no row.
    """

    embeddings: np.ndarray  # (N, E) fp16
    items: list[str]
    photos: list[str]
    encoder: str = ""
    broken: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.embeddings) == len(self.items) == len(self.photos):
            raise InputError(f"a gallery of {len(self.embeddings):,} embeddings, {len(self.items):,} items and "
                             f"{len(self.photos):,} photos: there must be as many of each")

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, embeddings: Vectors, items: Sequence[str], photos: Sequence[str] | None = None, encoder: str = "") -> Gallery:
        """Of embeddings (N, E) that are there already. photos: the picture of each row, where the items are captions.

        Raises InputError for rows that are zero or not finite, and where there is not one item and photo a row.
        """
        rows = _unit(embeddings, "the gallery's embeddings").half().numpy()
        return cls(rows, list(items), list(items if photos is None else photos), encoder)

    @classmethod
    def of_pictures(
        cls, encoder: ClipEncoder, image_dir: Path, images: Sequence[str], cache_dir: Path, *, batch_size: int = 64
    ) -> Gallery:
        """One row a picture (`images`: file names in `image_dir`), without the broken ones, which are in `broken`.

        encoder: a ClipEncoder or whatever has its `dim`, `fingerprint`, `crop`, `normalise` and `encode`. Each version of a
        file is encoded once: `cached_features` keeps the vectors. Raises InputError where no picture could be read.
        """
        features = cached_features(encoder, image_dir, images, cache_dir, batch_size=batch_size)
        whole = [image for image in images if image in features]
        gallery = cls.of(features.take(whole), whole, encoder=encoder.fingerprint)
        return replace(gallery, broken=features.broken)

    @classmethod
    def of_captions(
        cls, references: Mapping[str, Sequence[str]], encode_texts: EncodeTexts, *, encoder: str = "", batch_size: int = 256
    ) -> Gallery:
        """One row a caption of `references` (photo -> its captions).

        Give those of the training split, `captions.references("train")`: with the test split's the answers would be among
        the choices. Each distinct caption is encoded once. Raises InputError where there is none.
        """
        photos = [photo for photo, captions in references.items() for _ in captions]
        captions = [caption for captions in references.values() for caption in captions]
        if not captions:
            raise InputError("references: no caption to make a gallery of")
        return cls.of(_encode(encode_texts, captions, batch_size), captions, photos, encoder)

    @classmethod
    def load(cls, folder: str | Path, *, encoder: str | None = None) -> Gallery:
        """Read what `save` wrote, ready for the first query.

        encoder: the fingerprint of the encoder that the queries will come from. Raises InputError for a folder that is not
        a whole gallery, and for one whose embeddings another encoder made: their cosines would mean nothing.
        """
        folder = Path(folder)
        try:
            listed = json.loads((folder / "items.json").read_text(encoding="utf-8"))
            rows = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
            gallery = cls(rows, listed["items"], listed["photos"], listed["encoder"])
            _ = gallery.matrix  # now, so that the first query need not wait for it
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise InputError(f"{shown(folder)} is not a gallery, or a damaged one ({error}): make it anew") from error
        if encoder is not None and encoder != gallery.encoder:
            raise InputError(f"{shown(folder)} was made by another encoder ({gallery.encoder or 'unnamed'}) than the queries "
                             f"({encoder}): make it anew with this one")
        return gallery

    def save(self, folder: str | Path) -> Path:
        """Write it as the folder described above; what was there before stands until the new one is whole."""
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            np.save(temporary / "embeddings.npy", self.embeddings)
            write_json(temporary / "items.json", {"encoder": self.encoder, "items": self.items, "photos": self.photos})
        return Path(folder)

    @cached_property
    def matrix(self) -> Tensor:
        """The embeddings in fp32, scaled to length 1 again, for fp16 has rounded them. (N, E)"""
        return _unit(self.embeddings, "the gallery's embeddings")

    @cached_property
    def _rows_of(self) -> dict[str, np.ndarray]:
        """Photo id -> its rows."""
        ids = np.array([photo_id(photo) for photo in self.photos])
        order = np.argsort(ids, kind="stable")
        found, starts = np.unique(ids[order], return_index=True)
        return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))

    def search(self, queries: Vectors, k: int) -> list[list[Match]]:
        """For each query (Q, E) the k best matches, best first, all where there are fewer; exact, equals in item order."""
        return self._find(queries, k, None)

    def captions_for(self, images: Vectors, k: int, photos: Sequence[str], *, own: bool = False) -> list[list[Match]]:
        """`search` with picture embeddings (Q, E), never finding the query photo's own captions unless `own`.

        photos: the queries' picture names. They are compared by `photo_id`, so that 1_0123456789.jpg of Flickr8k does not
        find the captions of 1.jpg, the same photo in Flickr30k.
        """
        if len(photos) != len(images):
            raise InputError(f"{len(images)} picture embeddings for {len(photos)} names in `photos`: give one each")
        none = np.empty(0, dtype=int)
        return self._find(images, k, None if own else [self._rows_of.get(photo_id(photo), none) for photo in photos])

    def _find(self, queries: Vectors, k: int, excluded: Sequence[np.ndarray] | None) -> list[list[Match]]:
        if k < 1:
            raise InputError(f"k={k}: ask for at least 1 match")
        queries = _unit(queries, "the queries")
        if queries.shape[1] != self.matrix.shape[1]:
            raise InputError(f"the queries have {queries.shape[1]} numbers a row, the gallery's embeddings "
                             f"{self.matrix.shape[1]}: they must come from one encoder")
        found = []
        for part in queries.split(max(1, SCORES // len(self))):
            products = (part @ self.matrix.T).numpy()  # (B, N)
            for query, scores in zip(part.numpy(), products, strict=True):
                left = len(self)
                if excluded is not None:
                    rows = excluded[len(found)]
                    scores[rows] = -np.inf
                    left -= len(rows)
                top = self._top(query, scores, min(k, left)) if left else ()
                found.append([Match(self.items[row], score, self.photos[row], row) for row, score in top])
        return found

    def _top(self, query: np.ndarray, scores: np.ndarray, k: int) -> list[tuple[int, float]]:
        """The k best (row, score). `scores` (N,) come from a matrix product, which adds up in an order that depends on the
        row's place and on the batch: equal rows may differ in the last bit. So they only choose who may be among the best:
        all that lie within twice the rounding error, E/2 * eps, below the k-th. Those are computed again, in float64, and
        then rounded to fp32.
        """
        threshold = np.partition(scores, -k)[-k] - len(query) * np.finfo(np.float32).eps
        rows = np.flatnonzero(scores >= threshold)  # in item order
        exact = (self.matrix.numpy()[rows].astype(float) * query).sum(axis=1).astype(np.float32)
        best = np.argsort(-exact, kind="stable")[:k]
        return list(zip(rows[best].tolist(), exact[best].tolist(), strict=True))


@dataclass(frozen=True)
class Places:
    """Where each of Q queries finds the first of its own items, counted without deciding ties. All (Q,).

    `above`: items of others that score more than the best own one; `rivals`: items of others that score the same;
    `own`: own items that score the same, itself included. What follows is expected over the orders that equals could
    stand in: whoever gives everything the same score is as good as chance, not perfect.
    """

    above: np.ndarray
    rivals: np.ndarray
    own: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """The probability that an own item is among the first k (any hit), 0 or 1 where nothing ties. (Q,)"""
        tied = self.rivals + self.own
        miss = np.ones(len(self.above))
        for drawn in range(k):  # rivals alone take the places that are left, drawn without putting back
            taken = np.maximum(self.rivals - drawn, 0) / np.maximum(tied - drawn, 1)
            miss *= np.where(drawn < k - self.above, taken, 1)
        return 1 - miss

    @property
    def ranks(self) -> np.ndarray:
        """The expected place of the first own item, counted from 1. (Q,)"""
        return self.above + (self.rivals + self.own + 1) / (self.own + 1)


def places(queries: Vectors, query_photos: np.ndarray, gallery: Vectors, gallery_photos: np.ndarray) -> Places:
    """Where queries (Q, E) find what belongs to their photo in a gallery (G, E); photos are integers (Q,) and (G,)."""
    queries, gallery = _unit(queries, "the queries").double(), _unit(gallery, "the gallery").double()
    photos, others = torch.as_tensor(query_photos), torch.as_tensor(gallery_photos)
    counts = []
    for part, ids in zip(*(rows.split(max(1, SCORES // len(gallery))) for rows in (queries, photos)), strict=True):
        scores = (part @ gallery.T).float()  # (B, G) rounded, so that equal rows are equal
        own = ids[:, None] == others
        best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        tied = scores == best
        counts.append(torch.stack([(scores > best).sum(1), (tied & ~own).sum(1), (tied & own).sum(1)]))
    return Places(*torch.cat(counts, dim=1).numpy())


def recall(
    image_embeddings: Vectors,
    text_embeddings: Vectors,
    images: Sequence[str],
    photos: Sequence[str],
    *,
    ks: Sequence[int] = (1, 5, 10),
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Recall@k and median rank, both ways: does a caption find its picture among all, a picture one of its captions?

    image_embeddings (P, E) with the names of the pictures, `images`; text_embeddings (M, E) with the picture of each
    caption, `photos`. The metrics are "text to image R@1" and so on, "image to text median rank". From picture to text any
    hit counts: at least one of the picture's captions is among the first k, as is usual.
    Ties count by their expectation over all orders (see `Places`).

    The 95 % percentile bootstrap intervals are over pictures, each drawn with all its captions, which resemble each other.
    `metrics.Comparison({"a": scores, "b": others}, scores.images, [])` gives the paired differences of two encoders.
    Raises InputError for a picture without captions, a caption without its picture, and a photo that is there twice.
    """
    numbers = {photo_id(image): number for number, image in enumerate(images)}
    if len(numbers) != len(images):
        ids = [photo_id(image) for image in images]
        twice = next(image for image, name in zip(images, ids, strict=True) if ids.count(name) > 1)
        raise InputError(f"images: the photo {twice} is among them more than once; its captions could find either")
    if lost := [photo for photo in photos if photo_id(photo) not in numbers]:
        raise InputError(f"photos: {len(lost)} captions are of pictures that are not in `images`, {lost[0]} for one")
    of_texts = np.array([numbers[photo_id(photo)] for photo in photos], dtype=int)  # (M,)
    of_images = np.arange(len(images))  # (P,)
    for what, vectors, names in (("images", image_embeddings, images), ("photos", text_embeddings, photos)):
        if len(vectors) != len(names):
            raise InputError(f"{len(vectors)} embeddings for {len(names)} names in `{what}`: give one each")
    if len(bare := np.setdiff1d(of_images, of_texts)):
        raise InputError(f"images: {len(bare)} have no caption in `photos`, {images[bare[0]]} for one")
    if resamples < 1:
        raise InputError(f"resamples={resamples}: an interval needs at least one")

    found = {
        TEXT_TO_IMAGE: (of_texts, places(text_embeddings, of_texts, image_embeddings, of_images)),
        IMAGE_TO_TEXT: (of_images, places(image_embeddings, of_images, text_embeddings, of_texts)),
    }
    random = np.random.default_rng(seed)
    # How often each resample draws each picture; row 0 draws each once, which gives the score itself.
    draws = [np.bincount(random.integers(len(images), size=len(images)), minlength=len(images)) for _ in range(resamples)]
    draws = np.stack([np.ones(len(images), dtype=int), *draws])  # (1 + R, P)
    metrics = {}
    for way, (of_queries, place) in found.items():
        for k in ks:
            metrics[f"{way} R@{k}"] = _score(place.hits(k), of_queries, draws, np.mean)
        metrics[f"{way} median rank"] = _score(place.ranks, of_queries, draws, np.median)
    notes = [f"{len(images):,} pictures, {len(photos):,} captions; image to text: any of the picture's captions is a hit."]
    return Scores(metrics, tuple(images), notes)


def drop_shared(
    captions: Captions, others: Captions, splits: tuple[str, str] = ("train", "test")
) -> tuple[Captions, int]:
    """`captions` without the photos of its split splits[0] that are in split splits[1] of `others`, and how many they were.

    Every photo of Flickr8k lies in Flickr30k too: who trains on the one and tests on the other must take them out.
    """
    known = {photo_id(image) for image in others.images(splits[1])}
    table = captions.table
    shared = (table["split"] == splits[0]) & table["image"].map(photo_id).isin(known)
    return replace(captions, table=table[~shared].reset_index(drop=True)), shared_photos(captions, others, splits)


def rerank(
    candidates: Sequence[Sequence[str]], encode_texts: EncodeTexts, image_embeddings: Vectors, *, batch_size: int = 256
) -> list[str]:
    """Of each picture's candidate captions the one most similar to it; of equals, the first.

    candidates: P lists, image_embeddings: (P, E). Raises InputError where a picture has no candidate.
    """
    images = _unit(image_embeddings, "the image embeddings")
    if len(candidates) != len(images):
        raise InputError(f"candidates: {len(candidates)} lists for {len(images)} pictures; give one each")
    if bare := [number for number, captions in enumerate(candidates) if not captions]:
        raise InputError(f"candidates: picture {bare[0]} (counted from 0) has no caption to choose from")
    texts = _encode(encode_texts, [caption for captions in candidates for caption in captions], batch_size)
    groups = texts.split([len(captions) for captions in candidates])
    scores = ((group.double() @ image.double()).float() for group, image in zip(groups, images, strict=True))
    return [captions[int(score.argmax())] for captions, score in zip(candidates, scores, strict=True)]


def zero_shot(image_embeddings: Vectors, class_text_embeddings: Vectors, logit_scale: float | Tensor) -> Tensor:
    """How probable each class is for each picture, told by the texts of the classes alone ("a photo of a dog"). (N, C)

    image_embeddings (N, E), class_text_embeddings (C, E); logit_scale: the inverse temperature, 100 in OpenAI's CLIP.
    Radford et al., 2021, section 3.1.
    """
    images = _unit(image_embeddings, "the image embeddings")
    classes = _unit(class_text_embeddings, "the class text embeddings")
    return (float(logit_scale) * images @ classes.T).softmax(dim=1)


def _unit(vectors: Vectors, what: str) -> Tensor:
    """Rows of length 1 on the CPU, fp32. (N, E)"""
    if isinstance(vectors, np.ndarray):  # copied, for torch warns of arrays that may not be written, as a memory map
        vectors = torch.from_numpy(vectors.astype(np.float32))
    vectors = vectors.detach().cpu().float()
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InputError(f"{what} must be rows of numbers (N, E), not {tuple(vectors.shape)}")
    lengths = vectors.norm(dim=1)
    if len(wrong := torch.nonzero(~(lengths.isfinite() & (lengths > 0)))):
        raise InputError(f"{what}: row {int(wrong[0])} (counted from 0) is zero or not finite, and has no direction")
    return unit(vectors)


def _encode(encode_texts: EncodeTexts, texts: Sequence[str], batch_size: int) -> Tensor:
    """The embeddings of `texts`, each distinct one encoded once: equal texts are equal to the last bit. (N, E)"""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    waiting = list(distinct)
    starts = progress(range(0, len(waiting), batch_size), desc="embedding texts", unit="batch", leave=False)
    vectors = torch.cat([_unit(encode_texts(waiting[start : start + batch_size]), "the text embeddings") for start in starts])
    return vectors[[distinct[text] for text in texts]]


def _score(values: np.ndarray, of_queries: np.ndarray, draws: np.ndarray, average: Callable) -> Score:
    """`values` (Q,) of queries, each of one picture (Q,), averaged over each resample (1 + R, P)."""
    sampled = np.array([average(np.repeat(values, draw[of_queries])) for draw in draws])  # (1 + R,)
    per_image = np.bincount(of_queries, weights=values) / np.bincount(of_queries)
    low, high = np.percentile(sampled[1:], [2.5, 97.5])
    return Score(float(sampled[0]), float(low), float(high), per_image, sampled[1:])
