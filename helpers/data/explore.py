"""Looking at captions: their words, how far people agree, which words are nouns, and who is mentioned with what.

Everything is counted from the captions themselves. No language model and no download is involved.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that open a noun phrase, and words that come after one.
DETERMINERS = _listed(
    "a an the this that these those his her its their my one two three four five six seven eight some several many another "
    "other each every both"
)
AFTER_A_NOUN = _listed(
    "is are was were has have in on at of with to from by for near into onto over under through across along around behind "
    "beside between down up off out outside inside against next while as who that which"
)
FUNCTION_WORDS = (
    DETERMINERS | AFTER_A_NOUN | _listed("and or but not there be being been he she it they him them himself herself")
)

References = Mapping[str, Sequence[str]]  # picture -> its captions


def words(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation: "A dog's ball ." -> ["a", "dog's", "ball"]."""
    return _WORD.findall(caption.lower())


def vocabulary(captions: Iterable[str]) -> Counter[str]:
    """How often each word occurs, the most frequent first (ties in alphabetical order)."""
    counts = Counter(itertools.chain.from_iterable(map(words, captions)))
    return Counter(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def growth(captions: Sequence[str], points: int = 100) -> tuple[list[int], list[int]]:
    """(captions read, different words seen so far) at about `points` places, for captions in the given order."""
    read, seen_so_far = [], []
    seen: set[str] = set()
    step = max(1, len(captions) // points)
    for number, caption in enumerate(captions, 1):
        seen.update(words(caption))
        if number % step == 0 or number == len(captions):
            read.append(number)
            seen_so_far.append(len(seen))
    return read, seen_so_far


def overlap(first: str, second: str) -> float:
    """Words that two captions share, of all words that either uses (Jaccard): 0 nothing in common, 1 the same words."""
    one, other = set(words(first)), set(words(second))
    return len(one & other) / max(1, len(one | other))


def agreement(references: References) -> dict[str, float]:
    """Picture -> mean overlap over all pairs of its captions. Pictures with one caption are left out."""
    return {
        image: float(np.mean([overlap(*pair) for pair in itertools.combinations(captions, 2)]))
        for image, captions in references.items()
        if len(captions) > 1
    }


def agreement_of_strangers(references: References, *, seed: int = 0) -> dict[str, float]:
    """Picture -> mean overlap of its captions with those of another picture, drawn at random: what chance agreement is."""
    order = list(references)
    np.random.default_rng(seed).shuffle(order)
    return {
        image: float(np.mean([overlap(*pair) for pair in itertools.product(references[image], references[other])]))
        for image, other in zip(order, order[1:] + order[:1], strict=True)
    }


def zipf_slope(counts: Sequence[int]) -> float:
    """The exponent s in count ~ 1 / rank^s, fitted by least squares to the logarithms. counts: the largest first."""
    ranks = np.arange(1, len(counts) + 1)
    return float(-np.polyfit(np.log(ranks), np.log(counts), 1)[0])


def find_nouns(captions: Iterable[str], *, threshold: float = 0.25, at_least: int = 5) -> Counter[str]:
    """Words that are nouns by the company they keep, with their counts, the most frequent first.

    "a brown dog runs in the park": a noun often stands right after a determiner (adjectives do too, verbs do not) and
    often right before a preposition, "is", or the end (verbs do too, adjectives do not). A word counts as a noun if each
    happens in at least `threshold` of its occurrences. This misses rare nouns and takes some words wrongly.
    """
    count: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    closed: Counter[str] = Counter()
    for caption in captions:
        sequence = ["", *words(caption), ""]
        for before, word, after in zip(sequence, sequence[1:], sequence[2:], strict=False):
            count[word] += 1
            opened[word] += before in DETERMINERS
            closed[word] += not after or after in AFTER_A_NOUN
    nouns: Counter[str] = Counter()
    for word, number in sorted(count.items(), key=lambda item: (-item[1], item[0])):
        if number >= at_least and word not in FUNCTION_WORDS and min(opened[word], closed[word]) >= threshold * number:
            nouns[word] = number
    return nouns


def index_words(references: References) -> dict[str, set[str]]:
    """Word -> the pictures in whose captions it occurs."""
    index: dict[str, set[str]] = {}
    for image, captions in references.items():
        for word in set(itertools.chain.from_iterable(map(words, captions))):
            index.setdefault(word, set()).add(image)
    return index


def topics(index: Mapping[str, set[str]], nouns: Iterable[str], *, count: int = 4) -> list[str]:
    """The nouns that together occur with the most pictures: each one adds the most that have none of those before it."""
    covered: set[str] = set()
    chosen: list[str] = []
    for _ in range(count):
        best = max(nouns, key=lambda noun: len(index.get(noun, set()) - covered), default=None)
        if best is None or not index.get(best, set()) - covered:
            break
        chosen.append(best)
        covered |= index[best]
    return chosen


def distinctive(index: Mapping[str, set[str]], topic: str, *, at_least: int = 5) -> Counter[str]:
    """Word -> in how many more pictures it occurs together with `topic` than if the two had nothing to do with each other."""
    pictures = len(set().union(*index.values()))
    excess: Counter[str] = Counter()
    for word, images in index.items():
        together = len(images & index[topic])
        if word not in FUNCTION_WORDS and word != topic and together >= at_least:
            excess[word] = together - len(images) * len(index[topic]) / pictures
    return Counter({word: number for word, number in excess.most_common() if number >= 1})
