"""How good are the captions? Several systems scored on the same pictures, with intervals.

    comparison = compare({"clipcap": captions, "nearest": others}, references)
    comparison.table()                                        # 0.531 [0.48, 0.58]
    comparison.difference("clipcap", "nearest", "CIDEr-D")    # the paired interval

The scores are those of pycocoevalcap (Chen et al., 2015, "Microsoft COCO Captions") on PTB tokens: see `scorers.py`.
The intervals are 95 % percentile bootstrap intervals over pictures (Koehn, 2004, "Statistical significance tests for
machine translation evaluation"): a resample draws as many pictures as there are, with replacement, the same ones for
every system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from helpers import java
from helpers.errors import InputError
from helpers.scorers import METRICS, SCORERS, Corpus
from helpers.scorers import QUICK as QUICK

if TYPE_CHECKING:
    import pandas as pd

HUMAN = "human (leave one out)"


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"

    def to_json(self) -> dict[str, float]:
        """{"value", "low", "high"} as plain floats."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, eq=False)
class Score(Interval):
    """One metric of one system: 0 to 1, CIDEr-D 0 to 10.

    For BLEU and METEOR `value` is the score of the whole corpus, not the mean of `per_image`.
    """

    per_image: np.ndarray = field(repr=False)  # (P,) in the order of Scores.images
    resamples: np.ndarray = field(repr=False)  # (R,) the corpus score of each bootstrap resample


@dataclass(frozen=True)
class Scores:
    """One system's scores: `scores["METEOR"].value`. `notes` says what a reader of the numbers has to know."""

    metrics: dict[str, Score]
    images: tuple[str, ...] = field(repr=False)
    notes: list[str]

    def __getitem__(self, metric: str) -> Score:
        return self.metrics[metric]

    def to_json(self) -> dict[str, dict[str, float]]:
        """{metric: {"value", "low", "high"}}."""
        return {metric: score.to_json() for metric, score in self.metrics.items()}


@dataclass(frozen=True)
class Comparison:
    """Several systems' scores on the same pictures: `comparison["clipcap"]["METEOR"].value`."""

    systems: dict[str, Scores]
    images: tuple[str, ...] = field(repr=False)
    notes: list[str]
    missing: dict[str, str] = field(default_factory=dict)  # metric -> why it could not run, and what would help

    def __getitem__(self, system: str) -> Scores:
        return self.systems[system]

    def joined(self, other: Comparison) -> Comparison:
        """The metrics of both, for the same systems on the same pictures, drawn alike: one table, as of one comparison.

        Raises InputError where systems, pictures, or the number of resamples differ.
        """
        if list(self.systems) != list(other.systems):
            raise InputError(f"joined: systems {list(self.systems)} here, {list(other.systems)} there")
        if self.images != other.images:
            raise InputError("joined: the two were made of other pictures, or in another order")
        sizes = {len(s.resamples) for part in (self, other) for row in part.systems.values() for s in row.metrics.values()}
        if len(sizes) > 1:
            raise InputError(f"joined: {' and '.join(map(str, sorted(sizes)))} resamples; take the same number for both")
        notes = [*dict.fromkeys(self.notes + other.notes)]
        systems = {
            name: Scores(scores.metrics | other[name].metrics, self.images, notes) for name, scores in self.systems.items()
        }
        return Comparison(systems, self.images, notes, self.missing | other.missing)

    def difference(self, a: str, b: str, metric: str) -> Interval:
        """Score of `a` minus score of `b` with its paired interval: both are scored on the same resampled pictures.

        An interval that excludes 0 is a difference that other pictures of the same kind would probably show too.
        """
        ours, theirs = self[a][metric], self[b][metric]
        return Interval(ours.value - theirs.value, *_bounds(ours.resamples - theirs.resamples))

    def table(self) -> pd.DataFrame:
        """One row per system, one column per metric, cells such as "0.531 [0.48, 0.58]"."""
        import pandas as pd

        rows = {name: {metric: str(s) for metric, s in scores.metrics.items()} for name, scores in self.systems.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def to_json(self) -> dict[str, dict[str, dict[str, float]]]:
        """{system: {metric: {"value", "low", "high"}}}."""
        return {name: scores.to_json() for name, scores in self.systems.items()}


def compare(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    resamples: int = 1000,
    seed: int = 0,
    tokenize: str = "ptb",
    human: bool = False,
    keep_going: bool = False,
) -> Comparison:
    """Score every system ({name: {image: caption}}) on the same pictures ({image: reference captions}).

    metrics: any of METRICS; QUICK leaves out METEOR, which takes 8 s to start.
    tokenize: "ptb" as in every published table, or "whitespace" for captions that are tokens already.
    human: add the row HUMAN, see `human_leave_one_out`.
    keep_going: leave out the metrics whose scorer cannot run and name them, with the reason, in `missing` and `notes`,
    instead of raising what their scorer raised.
    Raises InputError naming the pictures where a system lacks a caption, has one for a picture without references, or a
    picture has no reference with a word in it; for unknown metrics or tokenizers; and where Java is missing.
    """
    if unknown := [metric for metric in metrics if metric not in SCORERS]:
        raise InputError(f"unknown metrics {unknown}: choose from {', '.join(SCORERS)}")
    check(systems, references, resamples, human)
    if "METEOR" in metrics:
        with suppress(InputError):  # no Java: its scorer says so when its turn comes
            java.meteor()  # loads in the background while the captions are tokenized
    texts = [text for captions in references.values() for text in captions]
    texts += [text for captions in systems.values() for text in captions.values()]
    tokens = tokenized(texts, tokenize)

    gts = {image: [tokens[text] for text in captions if tokens[text]] for image, captions in references.items()}
    refuse([image for image, captions in gts.items() if not captions], "no reference with a word in it")
    corpora = {
        name: [Corpus(gts, {image: [tokens[captions[image]]] for image in gts})] for name, captions in systems.items()
    }
    if human:
        corpora[HUMAN] = _leave_one_out(gts)

    weights, missing = _weights(len(gts), resamples, seed), {}
    found = {name: _score(group, metrics, weights, missing if keep_going else None) for name, group in corpora.items()}
    metrics = [metric for metric in metrics if metric not in missing]  # for one system, so for all
    images, notes = tuple(gts), _notes(systems, references, gts, tokens, metrics, human)
    notes += [f"{metric} is missing: {reason}" for metric, reason in missing.items()]
    scored = {name: Scores({m: scores[m] for m in metrics}, images, notes) for name, scores in found.items()}
    return Comparison(scored, images, notes, missing)


def score(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], **options: object) -> Scores:
    """Score one system ({image: caption}); options and errors as in `compare`."""
    return compare({"predictions": predictions}, references, **options)["predictions"]


def human_leave_one_out(references: Mapping[str, Sequence[str]], **options: object) -> Scores:
    """How people score against each other: each picture's i-th caption against its other captions, averaged over i.

    i runs to the smallest number of captions that any picture has. For BLEU and METEOR the corpus scores of the n sets
    of i-th captions are averaged; CIDEr-D takes its document frequencies from the captions left over. With five
    captions a person is scored against four while a system has all five, and BLEU, METEOR and ROUGE-L, which look for
    the best-fitting reference, rise with the number of references: beside systems these three are a little too low.
    Options and errors as in `compare`; InputError too where a picture has a single reference.
    """
    return compare({}, references, human=True, **options)[HUMAN]


def mean_score(per_image: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Score:
    """A score that is a mean over pictures: (P,) -> its value and interval. It draws the pictures that `compare` draws."""
    per_image = np.asarray(per_image, dtype=float)
    values = _weights(len(per_image), resamples, seed) @ per_image / len(per_image)  # (1 + R,)
    return Score(float(values[0]), *_bounds(values[1:]), per_image, values[1:])


def tokenized(texts: Iterable[str], tokenize: str = "ptb") -> dict[str, str]:
    """Each text's tokens, joined by spaces. tokenize: as in `compare`. Raises InputError where Java is missing."""
    if tokenize not in ("ptb", "whitespace"):
        raise InputError(f"tokenize={tokenize!r}: choose ptb or whitespace")
    return java.ptb_tokenize(texts) if tokenize == "ptb" else {text: java.clean(text) for text in texts}


def _weights(pictures: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each picture; row 0 draws every picture once: the score itself. (1 + R, P)"""
    draws = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)
    return np.concatenate([np.ones((1, pictures)), draws])  # floats: numpy multiplies integer matrices slowly


def _score(
    corpora: list[Corpus], metrics: Sequence[str], weights: np.ndarray, missing: dict[str, str] | None
) -> dict[str, Score]:
    """The metrics of one system, averaged over its corpora: one, or n where people are left out in turn.

    Where a dictionary is given, metrics that cannot run are entered there, and not asked for again.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    asked = [metric for metric in metrics if metric not in (missing or ())]
    for scorer in dict.fromkeys(SCORERS[metric] for metric in asked):  # BLEU-1..4 come from one scorer
        try:
            answers = [scorer(corpus, weights) for corpus in corpora]
        except (InputError, RuntimeError) as error:
            if missing is None:
                raise
            missing |= {metric: str(error) for metric in asked if SCORERS[metric] is scorer}
            continue
        for answer in answers:
            for metric, arrays in answer.items():
                found.setdefault(metric, []).append(arrays)
    scores = {}
    for metric in [metric for metric in asked if metric not in (missing or ())]:
        per_image, values = (np.mean(arrays, axis=0) for arrays in zip(*found[metric], strict=True))
        scores[metric] = Score(float(values[0]), *_bounds(values[1:]), per_image, values[1:])
    return scores


def _bounds(resamples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(resamples, [2.5, 97.5])
    return float(low), float(high)


def _leave_one_out(gts: dict[str, list[str]]) -> list[Corpus]:
    refuse([i for i, captions in gts.items() if len(captions) < 2], "a single reference, nobody to compare with")
    count = min(map(len, gts.values()))
    return [
        Corpus(
            gts={image: captions[:i] + captions[i + 1 :] for image, captions in gts.items()},
            res={image: [captions[i]] for image, captions in gts.items()},
        )
        for i in range(count)
    ]


def _notes(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    gts: dict[str, list[str]],
    tokens: dict[str, str],
    metrics: Sequence[str],
    human: bool,
) -> list[str]:
    """What a reader of these scores has to know, in whole sentences."""
    notes = []
    if len(gts) == 1:
        notes.append("One picture: every resample draws it again, so the intervals have no width.")
    if len(gts) == 1 and "CIDEr-D" in metrics:
        notes.append(
            "One picture: CIDEr-D is 0 by definition. It weighs words by how few of the pictures have them in their "
            "references, and every word of a single picture is in the references of all pictures."
        )
    if human:
        notes.append(f"{HUMAN}: each person is scored against one reference fewer than the systems are.")
    if blank := [image for image, captions in references.items() if len(captions) > len(gts[image])]:
        notes.append(f"References without a word were left out: {_named(blank)}.")
    for name, captions in systems.items():
        if silent := [image for image in gts if not tokens[captions[image]]]:
            notes.append(f"{name!r} has captions without a word, which are scored as they are, 0: {_named(silent)}.")
    longest = max(len(text.split()) for text in tokens.values())
    if "METEOR" in metrics and longest > java.METEOR_WORDS:
        notes.append(f"METEOR read the first {java.METEOR_WORDS} words of each caption; the longest has {longest}.")
    return notes


def check(
    systems: Mapping[str, Mapping[str, str]], references: Mapping[str, Sequence[str]], resamples: int, human: bool
) -> None:
    """Raise InputError for what nobody can score, naming the pictures: whatever the metrics, see `compare`."""
    if resamples < 1:
        raise InputError(f"resamples={resamples}: an interval needs at least one")
    if not references:
        raise InputError("no references: nothing to score against")
    if not systems and not human:
        raise InputError("no system to score")
    if human and HUMAN in systems:
        raise InputError(f"{HUMAN!r} is the row that human=True adds: call the system something else")
    # A string instead of a list would be scored letter by letter; pandas reads an empty cell as a number (NaN).
    refuse([i for i, group in references.items() if isinstance(group, str)], "references are one string, not a list")
    refuse([i for i, group in references.items() if not _all_text(group)], "a reference that is no text")
    for name, captions in systems.items():
        refuse([i for i in references if i not in captions], f"{name!r} has no caption for")
        refuse([i for i in captions if i not in references], f"{name!r} captions pictures that have no references")
        refuse([i for i in captions if not _all_text([captions[i]])], f"{name!r} has a caption that is no text")


def _all_text(captions: Sequence[object]) -> bool:
    return all(isinstance(caption, str) for caption in captions)


def refuse(images: Sequence[str], problem: str) -> None:
    """Raise InputError "problem: a.jpg, b.jpg, c.jpg and 7 more" where there are such images."""
    if images:
        raise InputError(f"{problem}: {_named(images)}")


def _named(images: Sequence[str]) -> str:
    """Up to three pictures by name, and how many more there are."""
    return ", ".join(map(str, images[:3])) + (f" and {len(images) - 3} more" if len(images) > 3 else "")
