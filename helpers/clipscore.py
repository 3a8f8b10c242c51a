"""CLIPScore: how well captions fit their pictures, told by CLIP alone; RefCLIPScore: told by the references too.

    found = compare_by_clip({"clipcap": captions, "nearest": others}, references, encoder.encode_texts, features, images)
    comparison.joined(found).table()                                # beside BLEU and the others
    found.difference("clipcap", "nearest", "CLIPScore")             # the paired interval

Hessel et al., 2021, "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", arXiv 2104.08718; published with
ViT-B/32, and comparable only between equal CLIPs. With v a picture, c a caption, R the references, and "A photo depicts "
in front of all texts:

    CLIPScore(c, v)       = 2.5 max(cos(c, v), 0)
    RefCLIPScore(c, R, v) = harmonic mean of CLIPScore(c, v) and max(cos(c, r) for r in R, 0)

Who chose captions with the same CLIP (see `retrieval.rerank`) has trained on the test: CLIPScore flatters them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from helpers.comparison import Comparison, compare_means, refuse, refuse_bare
from helpers.data.encoders import unit
from helpers.environment import progress
from helpers.errors import InputError

PREFIX = "A photo depicts "
SCALE = 2.5  # w in the paper: it stretches cosines, which hardly exceed 0.4, to about 0 to 1
METRICS = ("CLIPScore", "RefCLIPScore")

EncodeTexts = Callable[[list[str]], Tensor]  # M texts -> (M, E), as ClipEncoder.encode_texts


def clip_scores(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    encode_texts: EncodeTexts,
    image_embeddings: np.ndarray | Tensor,
    *,
    batch_size: int = 256,
) -> dict[str, np.ndarray]:
    """{"CLIPScore": (P,), "RefCLIPScore": (P,)}, the scores of P captions beside P lists of references.

    image_embeddings: (P, E) by the CLIP that `encode_texts` belongs to, of any length. Texts that are longer than CLIP's
    context are cut; empty ones are scored as the prefix alone. Raises InputError where the numbers of captions, references
    and embeddings differ, a picture has no reference, or an embedding is not finite.
    """
    images = _rows(image_embeddings, "image_embeddings")
    if not len(captions) == len(references) == len(images):
        raise InputError(f"{len(captions)} captions, {len(references)} lists of references and {len(images)} "
                         "image_embeddings: give one of each a picture")  # fmt: skip
    refuse_bare(references)
    embed = _embed([*captions, *(text for group in references for text in group)], encode_texts, batch_size)
    if len(images) and len(embed[captions[0]]) != images.shape[1]:
        raise InputError(f"image_embeddings have {images.shape[1]} numbers each, the texts' {len(embed[captions[0]])}: "
                         "take both from the same CLIP")  # fmt: skip
    return _scores(captions, references, embed, images)


def compare_by_clip(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    encode_texts: EncodeTexts,
    image_embeddings: np.ndarray | Tensor,
    images: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    human: bool = False,
    batch_size: int = 256,
) -> Comparison:
    """CLIPScore and RefCLIPScore of every system ({name: {image: caption}}), as `metrics.compare` gives the others.

    image_embeddings (P, E) are the pictures called `images`, in any order; there may be more than `references` has. The
    resamples are those of `metrics.compare`, so that the two can be `joined`.
    human: add the row HUMAN, each person scored against the picture's other references, as in
    `metrics.human_leave_one_out`; blank references are left out everywhere. RefCLIPScore, which takes the nearest
    reference, is there a little too low beside systems, which have one reference more.
    Raises InputError naming pictures without an embedding, as `metrics.compare`, and as `clip_scores`.
    """
    rows = _rows(image_embeddings, "image_embeddings")
    if len(rows) != len(images):
        raise InputError(f"{len(rows)} image_embeddings for {len(images)} names in `images`: give one each")
    place = {image: row for row, image in enumerate(images)}
    refuse([image for image in references if image not in place], "no image embedding for")
    rows = rows[[place[image] for image in references]]

    def scorer(pictures: list[int], captions: list[str], groups: list[list[str]]) -> dict[str, np.ndarray]:
        return clip_scores(captions, groups, encode_texts, rows[pictures], batch_size=batch_size)

    return compare_means(systems, references, scorer, resamples=resamples, seed=seed, human=human)


def _scores(
    captions: Sequence[str], references: Sequence[Sequence[str]], embed: Mapping[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    """`embed` knows every text's vector; it and the rows of `images` (P, E) have length one."""
    clip, best = np.zeros(len(images)), np.zeros(len(images))
    for row, (caption, group, image) in enumerate(zip(captions, references, images, strict=True)):
        clip[row] = SCALE * max(embed[caption] @ image, 0)
        best[row] = max(0, *(embed[caption] @ embed[text] for text in group))
    total = clip + best
    harmonic = np.divide(2 * clip * best, total, out=np.zeros_like(total), where=total > 0)
    return dict(zip(METRICS, (clip, harmonic), strict=True))


def _embed(texts: Sequence[str], encode_texts: EncodeTexts, batch_size: int) -> dict[str, np.ndarray]:
    """Each distinct text with its vector of length one, in fp64; PREFIX in front of all."""
    waiting = list(dict.fromkeys(texts))
    vectors: list[np.ndarray] = []
    for start in progress(range(0, len(waiting), batch_size), desc="embedding texts", unit="batch", leave=False):
        # Half a character pair ("\ud83d" alone), which JSON can hold, is no text to a tokenizer.
        batch = [PREFIX + text.encode("utf-8", "replace").decode() for text in waiting[start : start + batch_size]]
        vectors += list(_rows(encode_texts(batch), "the text embeddings"))
    return dict(zip(waiting, vectors, strict=True))


def _rows(vectors: np.ndarray | Tensor, what: str) -> np.ndarray:
    """Rows of length one, in fp64. (N, E)"""
    vectors = vectors.detach().cpu() if isinstance(vectors, Tensor) else torch.from_numpy(np.array(vectors, dtype=np.float32))
    if vectors.ndim != 2:
        raise InputError(f"{what} must be rows of numbers (N, E), not {tuple(vectors.shape)}")
    if not vectors.isfinite().all():
        row = int((~vectors.isfinite().all(dim=1)).nonzero()[0])
        raise InputError(f"{what}: row {row} (counted from 0) is not finite")
    return unit(vectors).double().numpy()
