"""What a comparison of captioners is: every system's scores on the same pictures, with intervals and paired differences.

    comparison.table()                                        # 0.531 [0.48, 0.58]
    comparison.difference("clipcap", "nearest", "CIDEr-D")    # the paired interval

`metrics.compare` makes it of tokenized captions, `compare_means` of captions as people write them, for the scores that are
means over pictures: CLIPScore and BERTScore.

The intervals are 95 % percentile bootstrap intervals over pictures (Koehn, 2004, "Statistical significance tests for
machine translation evaluation"): a resample draws as many pictures as there are, with replacement, the same ones for
every system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from helpers.errors import InputError

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
    """One metric of one system: 0 to 1; CIDEr-D 0 to 10, CLIPScore 0 to 2.5, a rescaled BERTScore also below 0.

    For BLEU and METEOR `value` is the score of the whole corpus, not the mean of `per_image`.
    """

    per_image: np.ndarray = field(repr=False)  # (P,) in the order of Scores.images
    resamples: np.ndarray = field(repr=False)  # (R,) the corpus score of each bootstrap resample

    @classmethod
    def drawn(cls, per_image: np.ndarray, values: np.ndarray) -> Score:
        """From the scores of single pictures (P,) and those of the draws of `draw` (1 + R,), whose first is the value."""
        return cls(float(values[0]), *_bounds(values[1:]), per_image, values[1:])


@dataclass(frozen=True)
class Scores:
    """One system's scores: `scores["METEOR"].value`. `notes` says what a reader of the numbers has to know.

    Raises InputError for a metric that is not among them, with the notes, which name what could not run.
    """

    metrics: dict[str, Score]
    images: tuple[str, ...] = field(repr=False)
    notes: list[str]

    def __getitem__(self, metric: str) -> Score:
        if metric not in self.metrics:
            raise InputError(f"{metric!r} is not among the scores: {' '.join(self.notes) or 'it was not asked for'}")
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

    @classmethod
    def of(
        cls, scores: Mapping[str, dict[str, Score]], images: Iterable[str], notes: list[str], missing: Mapping[str, str] = {}
    ) -> Comparison:
        """From {system: {metric: Score}}; the systems and the whole share one list of notes."""
        images = tuple(images)
        return cls({name: Scores(row, images, notes) for name, row in scores.items()}, images, notes, {**missing})

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
        rows = {name: scores.metrics | other[name].metrics for name, scores in self.systems.items()}
        return Comparison.of(rows, self.images, notes, self.missing | other.missing)

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


def mean_score(per_image: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Score:
    """A score that is a mean over pictures: (P,) -> its value and interval. It draws the pictures that `compare` draws."""
    per_image = np.asarray(per_image, dtype=float)
    values = draw(len(per_image), resamples, seed) @ per_image / len(per_image)  # (1 + R,)
    return Score.drawn(per_image, values)


def compare_means(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    scorer: Callable[[list[int], list[str], list[list[str]]], dict[str, np.ndarray]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    human: bool = False,
) -> Comparison:
    """Score every system ({name: {image: caption}}) by metrics that are means over pictures, on texts as people write them.

    scorer(pictures, captions, groups) -> {metric: (N,)} scores N captions, each beside the list of its references;
    pictures are their numbers in the order of `references`, those of one picture together.
    human: add the row HUMAN, each person scored against the picture's other references. Blank references are left out.
    Draws the pictures that `metrics.compare` draws, so that the two can be joined. Raises InputError as it does.
    """
    check(systems, references, resamples, human)
    groups = [[text for text in group if text.strip()] for group in references.values()]
    few = [image for image, group in zip(references, groups, strict=True) if len(group) < 1 + human]
    refuse(few, f"fewer than {1 + human} references with words for")
    people = min(map(len, groups)) if human else 0
    rows: list[tuple[int, str, list[str]]] = []
    for n, (image, group) in enumerate(zip(references, groups, strict=True)):
        rows += [(n, captions[image], group) for captions in systems.values()]
        rows += [(n, group[i], group[:i] + group[i + 1 :]) for i in range(people)]
    columns = {m: values.reshape(len(groups), -1) for m, values in scorer(*map(list, zip(*rows, strict=True))).items()}
    found = {name: {m: scores[:, k] for m, scores in columns.items()} for k, name in enumerate(systems)}  # (P,) each
    if human:
        found[HUMAN] = {m: scores[:, len(systems) :].mean(axis=1) for m, scores in columns.items()}

    blank = [image for image, group in zip(references, groups, strict=True) if len(references[image]) > len(group)]
    scored = {
        name: {m: mean_score(per_image, resamples=resamples, seed=seed) for m, per_image in scores.items()}
        for name, scores in found.items()
    }
    return Comparison.of(scored, references, common_notes(len(groups), human, blank))


def draw(pictures: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each picture; row 0 draws every picture once: the score itself. (1 + R, P)"""
    draws = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)
    return np.concatenate([np.ones((1, pictures)), draws])  # floats: numpy multiplies integer matrices slowly


def _bounds(resamples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(resamples, [2.5, 97.5])
    return float(low), float(high)


def common_notes(pictures: int, human: bool, blank: Sequence[str]) -> list[str]:
    """What a reader has to know whatever the metrics, in whole sentences; blank: pictures that have a blank reference."""
    notes = []
    if pictures == 1:
        notes.append("One picture: every resample draws it again, so the intervals have no width.")
    if human:
        notes.append(f"{HUMAN}: each person is scored against one reference fewer than the systems are.")
    if blank:
        notes.append(f"References without a word were left out: {named(blank)}.")
    return notes


def missing_notes(missing: Mapping[str, str]) -> list[str]:
    """{metric: why it could not run} as sentences, one a reason."""
    reasons: dict[str, list[str]] = {}
    for metric, reason in missing.items():
        reasons.setdefault(reason, []).append(metric)
    return [f"{', '.join(metrics)} {'are' if metrics[1:] else 'is'} missing: {why}" for why, metrics in reasons.items()]


def check(
    systems: Mapping[str, Mapping[str, str]], references: Mapping[str, Sequence[str]], resamples: int, human: bool
) -> None:
    """Raise InputError for what nobody can score, naming the pictures: whatever the metrics, see `metrics.compare`."""
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
        raise InputError(f"{problem}: {named(images)}")


def refuse_bare(references: Sequence[Sequence[str]]) -> None:
    """Raise InputError where one of the lists is empty."""
    if bare := [number for number, group in enumerate(references) if not len(group)]:
        raise InputError(f"references: picture {bare[0]} (counted from 0) has none")


def named(images: Sequence[str]) -> str:
    """Up to three pictures by name, and how many more there are."""
    return ", ".join(map(str, images[:3])) + (f" and {len(images) - 3} more" if len(images) > 3 else "")
