"""One function per family of scores, each around pycocoevalcap's own scorer.

A scorer takes a corpus of P pictures, and in `weights` (R, P) how often each of R resamples draws each picture. For
each of its metrics it returns the scores of the single pictures (P,) and the corpus score of every resample (R,). So a
bootstrap resamples what makes the score: BLEU and METEOR of a resample come from its summed counts, not from averaging.

To add a score, write a function like `_rouge` and enter it in `SCORERS`; from anywhere:

    def words(corpus, weights):
        return {"words": mean_over_pictures([len(caption.split()) for [caption] in corpus.res.values()], weights)}

    SCORERS["words"] = words
    compare(systems, references, metrics=["BLEU-4", "words"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import java
from helpers.spice import SPICE_WORDS, spice


@dataclass(frozen=True)
class Corpus:
    """One system's tokenized captions beside the tokenized references, in pycocoevalcap's two dictionaries.

    Both have the same P pictures in the same order; a text is its tokens, joined by spaces.
    """

    gts: dict[str, list[str]]  # image -> references
    res: dict[str, list[str]]  # image -> [hypothesis]


def _bleu(corpus: Corpus, weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """BLEU-1..4 (Papineni et al., 2002): n-gram counts and lengths are summed over the drawn pictures, then divided."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for image, references in corpus.gts.items():
        scorer += (corpus.res[image][0], references)
    _, per_image = scorer.compute_score(option="closest")
    counts = scorer.ctest
    correct = weights @ np.array([c["correct"] for c in counts], dtype=float)  # (R, 4)
    guess = weights @ np.array([c["guess"] for c in counts], dtype=float)  # (R, 4)
    length = weights @ np.array([c["testlen"] for c in counts], dtype=float)  # (R,)
    closest = [scorer._single_reflen(c["reflen"], "closest", c["testlen"]) for c in counts]
    ratio = (length + 1e-15) / (weights @ np.array(closest, dtype=float) + 1e-9)  # pycocoevalcap's two constants
    precision = (correct + 1e-15) / (guess + 1e-9)
    bleu = np.cumprod(precision, axis=1) ** (1 / np.arange(1, 5))  # (R, 4)
    bleu *= np.exp(np.minimum(0, 1 - 1 / ratio))[:, None]  # brevity penalty
    return {f"BLEU-{n + 1}": (np.array(per_image[n]), bleu[:, n]) for n in range(4)}


def _meteor(corpus: Corpus, weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """METEOR 1.5 (Denkowski and Lavie, 2014): its counts add up over pictures, and METEOR itself scores each sum.

    A caption equal to a reference scores 1 alone, but a corpus of such captions only about 0.63: METEOR punishes a
    match in more than one piece, and over a corpus every caption is a piece.
    """
    server = java.meteor()
    counts = np.stack([server.statistics(corpus.res[i][0], references) for i, references in corpus.gts.items()])
    return {"METEOR": (server.evaluate(counts), server.evaluate(weights @ counts))}


def _rouge(corpus: Corpus, weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """ROUGE-L (Lin and Och, 2004): a mean over pictures."""
    from pycocoevalcap.rouge.rouge import Rouge

    per_image = Rouge().compute_score(corpus.gts, corpus.res)[1]
    return {"ROUGE-L": mean_over_pictures(per_image, weights)}


def _cider(corpus: Corpus, weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """CIDEr-D (Vedantam et al., 2015), which pycocoevalcap calls CIDEr: a mean over pictures.

    The document frequencies stay those of all references passed in, in every resample: they weigh the words.
    """
    from pycocoevalcap.cider.cider import Cider

    per_image = Cider().compute_score(corpus.gts, corpus.res)[1]
    return {"CIDEr-D": mean_over_pictures(per_image, weights)}


def _spice(corpus: Corpus, weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """SPICE (Anderson et al., 2016): a mean over pictures. Its jars come by `make spice`; it takes minutes."""
    return {"SPICE": mean_over_pictures(spice(corpus.gts, corpus.res), weights)}


def mean_over_pictures(per_image: Sequence[float] | np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a scorer returns for a metric whose corpus score is the mean of its pictures' scores: (P,) and (R,)."""
    per_image = np.asarray(per_image, dtype=float)
    return per_image, weights @ per_image / weights.sum(axis=1)


Scorer = Callable[[Corpus, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]
SCORERS: dict[str, Scorer] = {
    **dict.fromkeys(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), _bleu),
    "METEOR": _meteor,
    "ROUGE-L": _rouge,
    "CIDEr-D": _cider,
    "SPICE": _spice,
}
METRICS = tuple(metric for metric in SCORERS if metric != "SPICE")  # which is asked for by name: see `_spice`
QUICK = tuple(metric for metric in METRICS if metric != "METEOR")  # METEOR takes 8 s to start
READ = {"METEOR": java.METEOR_WORDS, "SPICE": SPICE_WORDS}  # how many words of a text these read
