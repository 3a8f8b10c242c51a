"""How varied is what a captioner says, and how much of it has it read? No picture and no reference is needed.

    diversity(captions, training_references)        # Diversity(captions=1000, distinct=612, ...)
    table({"clipcap": captions, "nearest": others}, training_references)

Captions are compared as PTB tokens, like all scores of `metrics.py`: "A dog!" and "a dog" are the same caption. Here, no
number has an interval: pictures drawn twice have the same caption twice, so resamples are less varied than the set itself.
And all but `copied` and `length` depend on how many captions there are: compare systems on the same pictures only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from helpers.errors import InputError
from helpers.metrics import tokenized

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Diversity:
    """The variety of one system's captions; shares lie between 0 and 1."""

    captions: int  # how many there are, one a picture
    distinct: int  # how many of them differ
    distinct_share: float  # distinct / captions
    distinct_1: float  # different words / all words (Li et al., 2016, "A Diversity-Promoting Objective Function ...")
    distinct_2: float  # different pairs of neighbours / all pairs; no pair spans two captions
    vocabulary: int  # different words
    copied: float | None  # share of the captions that are a training caption, word for word; None without any to compare
    length: float  # mean number of words


def diversity(
    captions: Mapping[str, str], training: Mapping[str, Sequence[str]] | None = None, *, tokenize: str = "ptb"
) -> Diversity:
    """The variety of one system's captions ({image: caption}).

    training: {image: captions} that the system was trained on. An empty caption counts as a caption, without words, and as
    copied from nobody. tokenize: as in `metrics.compare`. Raises InputError where there are no captions.
    """
    return _all({"": captions}, training, tokenize)[""]


def table(
    systems: Mapping[str, Mapping[str, str]],
    training: Mapping[str, Sequence[str]] | None = None,
    *,
    tokenize: str = "ptb",
) -> pd.DataFrame:
    """A row a system, a column a number of `Diversity`, tokenized in one run of Java. Errors as in `diversity`."""
    import pandas as pd

    found = _all(systems, training, tokenize)
    return pd.DataFrame.from_dict({name: asdict(numbers) for name, numbers in found.items()}, orient="index")


def _all(
    systems: Mapping[str, Mapping[str, str]], training: Mapping[str, Sequence[str]] | None, tokenize: str
) -> dict[str, Diversity]:
    if empty := [name for name, captions in systems.items() if not captions]:
        raise InputError(f"{empty[0]!r} has no captions" if empty[0] else "no captions")
    known = [text for group in (training or {}).values() for text in group]
    tokens = tokenized([*(text for captions in systems.values() for text in captions.values()), *known], tokenize)
    known = None if training is None else {tokens[text] for text in known} - {""}
    return {name: _measure([tokens[text] for text in captions.values()], known) for name, captions in systems.items()}


def _measure(captions: list[str], known: set[str] | None) -> Diversity:
    """`captions` and `known` are tokens joined by spaces."""
    split = [caption.split() for caption in captions]
    words = [word for caption in split for word in caption]
    pairs = [pair for caption in split for pair in pairwise(caption)]
    distinct = len(set(captions))
    return Diversity(
        captions=len(captions),
        distinct=distinct,
        distinct_share=distinct / len(captions),
        distinct_1=len(set(words)) / max(1, len(words)),
        distinct_2=len(set(pairs)) / max(1, len(pairs)),
        vocabulary=len(set(words)),
        copied=None if known is None else sum(caption in known for caption in captions) / len(captions),
        length=len(words) / len(captions),
    )
