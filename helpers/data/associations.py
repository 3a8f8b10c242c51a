"""Who is mentioned with what: how much more often words occur with one group of people than chance would have it.

The unit is the picture, for its five captions are not five independent observations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from helpers.data.explore import FUNCTION_WORDS, References, index_words

GROUPS = {"man": ("man", "men"), "woman": ("woman", "women"), "boy": ("boy", "boys"), "girl": ("girl", "girls")}
# Other words for man, woman, boy and girl, which say nothing about them
_LEFT_OUT = FUNCTION_WORDS | {
    *("guy", "guys", "gentleman", "male", "lady", "ladies", "female", "person", "people", "adult", "adults"),
    *("child", "children", "kid", "kids", "toddler", "baby"),
}


@dataclass(frozen=True)
class Associations:
    """Counts of pictures. All arrays have the shape (groups, words)."""

    groups: list[str]
    words: list[str]
    sizes: list[int]  # pictures that mention this group and no other one
    together: np.ndarray  # pictures that mention group and word
    expected: np.ndarray  # as many as there would be if the word came with every group equally often
    surprise: np.ndarray  # their difference in standard deviations
    bound: float  # the largest surprise anywhere, in 19 of 20 datasets whose groups are dealt out at random

    @property
    def ratio(self) -> np.ndarray:
        """How many times as often as expected; half a picture is added to both, so that nothing is divided by zero."""
        return (self.together + 0.5) / (self.expected + 0.5)

    @property
    def beyond_chance(self) -> np.ndarray:
        """Where the difference is larger than chance makes it, anywhere in the table."""
        return np.abs(self.surprise) > self.bound

    def top(self, count: int) -> list[int]:
        """Positions of the `count` words that are spread most unevenly over the groups."""
        return list(np.argsort(-np.abs(self.surprise).max(axis=0, initial=0.0), kind="stable")[:count])


def associate(
    references: References,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    *,
    at_least: int | None = None,
    shuffles: int = 200,
    seed: int = 0,
) -> Associations:
    """Count which words come with which group, over the pictures that mention exactly one of them.

    at_least: groups and words in fewer pictures are left out; None: 20, and 1 in 50 of fewer than 1,000 pictures
    shuffles: of the groups over the pictures, to find `bound`
    """
    at_least = min(20, 1 + len(references) // 50) if at_least is None else at_least
    index = index_words(references)
    alone = {group: images for group, images in _alone(index, groups).items() if len(images) >= at_least}
    names, sizes = list(alone), [len(images) for images in alone.values()]
    pictures = [image for images in alone.values() for image in images]
    row = {image: number for number, image in enumerate(pictures)}
    member = np.repeat(
        np.eye(len(names), dtype=np.float32), sizes, axis=1
    )  # (groups, pictures): 1 where it mentions the group

    left_out = _LEFT_OUT.union(*groups.values())
    rows = {word: [row[image] for image in images if image in row] for word, images in index.items() if word not in left_out}
    words = sorted(word for word, found in rows.items() if len(found) >= at_least)
    said = np.zeros((len(pictures), len(words)), dtype=np.float32)  # (pictures, words): 1 where a caption says it
    for column, word in enumerate(words):
        said[rows[word], column] = 1

    together = member @ said  # (groups, words)
    in_group, with_word = (counted / max(1, len(pictures)) for counted in (member.sum(1)[:, None], said.sum(0)[None]))
    expected = len(pictures) * in_group * with_word
    # Of the count when the groups are dealt out at random (hypergeometric)
    deviation = np.sqrt(np.maximum(expected * (1 - in_group) * (1 - with_word), 1e-9))

    rng = np.random.default_rng(seed)
    largest = [0.0]
    for _ in range(shuffles if words else 0):
        shuffled = member[:, rng.permutation(len(pictures))]
        largest.append(float((np.abs(shuffled @ said - expected) / deviation).max()))
    bound = float(np.quantile(largest, 0.95))
    return Associations(names, words, sizes, together, expected, (together - expected) / deviation, bound)


def _alone(index: Mapping[str, set[str]], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Group -> the pictures that mention it and no other group, sorted."""
    mentions = {group: set().union(*(index.get(form, set()) for form in forms)) for group, forms in groups.items()}
    several = {image for one, other in itertools.combinations(mentions.values(), 2) for image in one & other}
    return {group: sorted(images - several) for group, images in mentions.items()}
