"""Captions made to fool scores: tricks that a reader sees through at once. Does a score?

    tricked = play(captions)                                  # {trick: {image: caption}}, where the trick applies
    comparison = compare(completed(tricked, captions), ...)   # every trick captions every picture, as scores want it
    standing(comparison, honest, floor, tricked)              # 1: scored as the honest caption, 0: as a wrong picture's

That a score of n-grams hardly sees one wrong noun, and a reader sees nothing else, is an old finding: Hodosh and Hockenmaier,
2016, "Focused Evaluation for Image Description with Binary Forced-Choice Tasks"; Shekhar et al., 2017, "FOIL it!", arXiv
1705.01359, whose swapped nouns these are in small.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from helpers.clipscore import PREFIX
from helpers.comparison import Comparison
from helpers.data.encoders import unit
from helpers.data.explore import FUNCTION_WORDS, References, find_nouns, words
from helpers.errors import InputError
from helpers.mentions import written_like

# Each noun becomes its neighbour; both are nouns of drawn scenes and of photos.
_PAIRS = (
    ("dog", "cat"), ("dogs", "cats"), ("puppy", "kitten"), ("horse", "cow"), ("horses", "cows"), ("bird", "rabbit"),
    ("birds", "rabbits"), ("duck", "bunny"), ("ducks", "bunnies"), ("car", "boat"), ("cars", "boats"), ("bus", "sailboat"),
    ("buses", "sailboats"), ("train", "car"), ("trains", "cars"), ("man", "girl"), ("men", "girls"), ("woman", "boy"),
    ("women", "boys"), ("child", "dog"), ("children", "dogs"), ("kid", "horse"), ("person", "cat"), ("people", "ducks"),
)  # fmt: skip
SWAPS = {b: a for a, b in _PAIRS} | dict(_PAIRS)  # of a word in two pairs, the first place counts
COUNTS = {"two": "five", "three": "two", "four": "two", "five": "three"}
OPENERS = ("a", "an", "one", "two", "three", "four", "five", "some", "several", "many")  # what "no" can stand for
DANGLING = "in front of a"
_TOKEN = re.compile(r"\w+|\W+")


def swap_object(caption: str, rng: np.random.Generator) -> str | None:
    """Its first animal, vehicle or person becomes another: "A dog runs." -> "A cat runs." """
    return _replace_first(caption, SWAPS)


def change_count(caption: str, rng: np.random.Generator) -> str | None:
    """Its first number is wrong: "Two dogs run." -> "Five dogs run." """
    return _replace_first(caption, COUNTS)


def negate(caption: str, rng: np.random.Generator) -> str | None:
    """The opposite, by one word: "A dog runs." -> "No dog runs." """
    return _replace_first(caption, dict.fromkeys(OPENERS, "no"))


def shuffle_words(caption: str, rng: np.random.Generator) -> str | None:
    """The same words in a random order."""
    said = words(caption)
    return " ".join(said[n] for n in rng.permutation(len(said))) if len(set(said)) > 1 else None


def say_twice(caption: str, rng: np.random.Generator) -> str:
    """The caption, and the caption again, as one sentence."""
    return f"{_bare(caption)} {caption}"


def cut_short(caption: str, rng: np.random.Generator) -> str | None:
    """Its first three words."""
    return " ".join(words(caption)[:3]) if len(words(caption)) > 4 else None


def leave_dangling(caption: str, rng: np.random.Generator) -> str:
    """It goes on with DANGLING and breaks off, as captioners do that were trained to please CIDEr-D (Guo et al., 2018)."""
    return f"{_bare(caption)} {DANGLING}"


def list_keywords(caption: str, rng: np.random.Generator) -> str | None:
    """Its content words as a list: "A dog runs on the beach." -> "dog, runs, beach" """
    content = dict.fromkeys(word for word in words(caption) if word not in FUNCTION_WORDS)
    return ", ".join(content) if len(content) > 1 else None


Trick = Callable[[str, np.random.Generator], str | None]  # None: it does not apply
TRICKS: dict[str, Trick] = {
    "another object": swap_object,
    "another number": change_count,
    "negated": negate,
    "words shuffled": shuffle_words,
    "said twice": say_twice,
    "first three words": cut_short,
    "breaks off": leave_dangling,
    "keywords only": list_keywords,
}


def play(captions: Mapping[str, str], *, seed: int = 0) -> dict[str, dict[str, str]]:
    """{trick: {image: tricked caption}}, each over the pictures whose caption it can be played on."""
    found: dict[str, dict[str, str]] = {}
    for name, trick in TRICKS.items():
        rng = np.random.default_rng(seed)
        tricked = {image: trick(caption, rng) for image, caption in captions.items()}
        found[name] = {image: caption for image, caption in tricked.items() if caption is not None}
    return found


def bait(
    pictures: np.ndarray,
    people: References,
    encode_texts: Callable[[list[str]], Tensor],
    *,
    count: int = 4,
    at_least: int = 5,
) -> list[str]:
    """For each picture the `count` nouns of people's captions that are nearest to it by themselves: for CLIP's eyes only.

    pictures: (P, E), by the CLIP that `encode_texts` belongs to. Nouns said fewer than `at_least` times do not count. Raises
    InputError where fewer than `count` are left.
    """
    nouns = list(find_nouns((caption for group in people.values() for caption in group), at_least=at_least))
    if len(nouns) < count:
        raise InputError(f"count={count}: the captions hold {len(nouns)} nouns that occur {at_least} times or more")
    cosines = unit(pictures) @ unit(encode_texts([PREFIX + noun for noun in nouns]).cpu()).T  # (P, N)
    nearest = cosines.argsort(dim=1, descending=True, stable=True)[:, :count].tolist()
    return [" ".join(nouns[n] for n in row) for row in nearest]


def completed(tricked: Mapping[str, Mapping[str, str]], captions: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Every trick over all pictures: where it does not apply, the honest caption stands."""
    return {trick: {**captions, **changed} for trick, changed in tricked.items()}


def standing(
    comparison: Comparison,
    honest: str,
    floor: str,
    tricked: Mapping[str, Mapping[str, str]],
    metrics: Sequence[str],
) -> np.ndarray:
    """How a trick stands between two systems: 1 scored as `honest`, 0 as `floor`, above 1 better. (tricks, metrics)

    NaN where honest and floor score alike: nothing lies between them.

    Means of the single pictures' scores, over the pictures that the trick was played on. `comparison` holds all of them as
    systems. Raises InputError where a trick was played on no picture.
    """
    place = {image: n for n, image in enumerate(comparison.images)}
    table = np.zeros((len(tricked), len(metrics)))
    for row, (trick, changed) in enumerate(tricked.items()):
        if not changed:
            raise InputError(f"{trick!r} applies to none of the {len(place)} captions")
        rows = [place[image] for image in changed]
        for column, metric in enumerate(metrics):
            means = [comparison[name][metric].per_image[rows].mean() for name in (trick, honest, floor)]
            table[row, column] = (means[0] - means[2]) / (means[1] - means[2]) if means[1] != means[2] else np.nan
    return table


def _replace_first(caption: str, table: Mapping[str, str]) -> str | None:
    """The first word that `table` knows, replaced; None where there is none."""
    tokens = _TOKEN.findall(caption)
    for place, word in enumerate(tokens):
        if word.lower() in table:
            return "".join([*tokens[:place], written_like(word, table[word.lower()]), *tokens[place + 1 :]])
    return None


def _bare(caption: str) -> str:
    """Without the full stop at its end."""
    return caption.strip().rstrip(" .")
