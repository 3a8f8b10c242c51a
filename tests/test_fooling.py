"""Each trick does to a caption what its name says, and the standing of a trick is what can be computed by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from helpers import fooling
from helpers.comparison import Comparison, Scores, mean_score
from helpers.data.explore import words

CAPTION = "Two dogs run on the beach."


@pytest.mark.parametrize(
    ("trick", "caption", "expected"),
    [
        ("another object", CAPTION, "Two cats run on the beach."),
        ("another object", "Man and woman.", "Girl and woman."),
        ("another object", "The sea is calm.", None),
        ("another number", CAPTION, "Five dogs run on the beach."),
        ("another number", "A dog runs.", None),
        ("negated", CAPTION, "No dogs run on the beach."),
        ("negated", "In the sun, a bus drives.", "In the sun, no bus drives."),
        ("negated", "Dogs run.", None),
        ("said twice", CAPTION, "Two dogs run on the beach Two dogs run on the beach."),
        ("first three words", CAPTION, "two dogs run"),
        ("first three words", "A dog runs.", None),
        ("breaks off", CAPTION, "Two dogs run on the beach in front of a"),
        ("keywords only", CAPTION, "dogs, run, beach"),
        ("words shuffled", "no no", None),
    ],
)
def test_tricks(trick, caption, expected) -> None:
    found = fooling.play({"a.jpg": caption})[trick]
    assert found == ({} if expected is None else {"a.jpg": expected})


def test_shuffled_words_are_the_same_words() -> None:
    captions = {str(n): f"{CAPTION} {n}" for n in range(20)}
    found = fooling.play(captions, seed=1)["words shuffled"]
    assert all(Counter(words(found[image])) == Counter(words(captions[image])) for image in captions)
    assert sum(words(found[image]) != words(captions[image]) for image in captions) >= 19
    assert found == fooling.play(captions, seed=1)["words shuffled"] != fooling.play(captions, seed=2)["words shuffled"]


def test_every_swapped_object_is_another_thing() -> None:
    assert all(word != other for word, other in fooling.SWAPS.items())
    assert all(word != number for word, number in fooling.COUNTS.items())


def test_tricks_caption_every_picture() -> None:
    captions = {"a": "A dog.", "b": "The sea."}
    assert fooling.completed({"swap": {"a": "A cat."}}, captions) == {"swap": {"a": "A cat.", "b": "The sea."}}


def test_bait_is_the_nearest_nouns() -> None:
    people = {str(n): ["a dog in a park", "the cat on the bench"] for n in range(5)}
    place = {"dog": (1, 0), "park": (0.9, 0.1), "cat": (0, 1), "bench": (0.2, 0.9)}

    def encode(texts: list[str]) -> torch.Tensor:
        assert all(text.startswith("A photo depicts ") for text in texts)
        return torch.tensor([place[text.split()[-1]] for text in texts]) * 7  # cosines: lengths do not matter

    assert fooling.bait(np.array([[2.0, 0.0], [0.0, 3.0]]), people, encode, count=2) == ["dog park", "cat bench"]
    with pytest.raises(ValueError, match="hold 4 nouns"):
        fooling.bait(np.ones((1, 2)), people, encode, count=5)


def test_standing_by_hand() -> None:
    numbers = {"honest": [1.0, 0.6, 0.8], "floor": [0.2, 0.0, 0.0], "trick": [0.5, 0.3, 0.8]}
    images = ("a", "b", "c")
    scored = {name: Scores({"M": mean_score(np.array(values), resamples=1)}, images, []) for name, values in numbers.items()}
    comparison = Comparison(scored, images, [])
    played = {"trick": {"a": "x", "b": "y"}}  # not on the third picture
    assert fooling.standing(comparison, "honest", "floor", played, ["M"]).item() == pytest.approx((0.4 - 0.1) / (0.8 - 0.1))
    assert fooling.standing(comparison, "trick", "floor", played, ["M"]).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="'trick' applies to none of the 3"):
        fooling.standing(comparison, "honest", "floor", {"trick": {}}, ["M"])
    assert np.isnan(fooling.standing(comparison, "honest", "honest", played, ["M"])).all()
