"""Each baseline does what its name says, on cases small enough to check by eye."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from helpers import baselines
from helpers.baselines import most_frequent_caption, nearest_neighbour, random_caption, shuffled

TRAIN = {
    "a": ["A dog runs.", "Two men."],
    "b": ["two men. ", "A cat."],
    "c": [" a cat.", "Nobody."],
    "d": ["  ", "", " "],
}
IMAGES = ["a", "b", "c"]


def test_most_frequent_caption() -> None:
    assert most_frequent_caption(TRAIN | {"e": ["A CAT."]}) == "a cat."
    assert most_frequent_caption(TRAIN) == "two men."  # as frequent as "a cat.", seen first
    assert most_frequent_caption(dict(reversed(TRAIN.items()))) == "a cat."  # and blanks never win
    with pytest.raises(ValueError, match="no training caption"):
        most_frequent_caption({"d": [" "], "e": []})


def test_random_caption_draws_every_caption_alike() -> None:
    train = {"a": ["1"], "b": ["2", "3", "4"]}
    images = [str(i) for i in range(4000)]
    drawn = random_caption(train, images, seed=0)
    assert list(drawn) == images
    counts = Counter(drawn.values())
    assert set(counts) == {"1", "2", "3", "4"}
    assert all(900 < count < 1100 for count in counts.values())
    assert drawn == random_caption(train, images, seed=0)
    assert drawn != random_caption(train, images, seed=1)
    with pytest.raises(ValueError, match="no training caption"):
        random_caption({"a": []}, images, seed=0)


def test_nearest_neighbour_compares_angles_not_lengths() -> None:
    train = np.array([[1.0, 0.0], [0.0, 0.1], [9.0, 9.0]])
    query = np.array([[0.0, 5.0], [2.0, 0.1], [0.01, 0.011], [0.0, 0.0]], dtype=np.float16)
    found = nearest_neighbour(train, IMAGES, query, ["p", "q", "r", "s"], TRAIN)
    assert found == {"p": "two men. ", "q": "A dog runs.", "r": " a cat.", "s": "A dog runs."}  # "s" sees all alike


def test_nearest_neighbour_in_batches_equals_one_by_one(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    train, query = rng.normal(size=(50, 8)), rng.normal(size=(37, 8))
    images, queries = [f"t{i}" for i in range(50)], [f"q{i}" for i in range(37)]
    references = {image: [f"caption of {image}", "another"] for image in images}
    monkeypatch.setattr(baselines, "BATCH", 5)
    found = nearest_neighbour(train, images, query, queries, references)
    for name, row in zip(queries, query, strict=True):
        cosine = train @ row / np.linalg.norm(train, axis=1)
        assert found[name] == f"caption of t{cosine.argmax()}"
    assert nearest_neighbour(train, images, query[:0], [], references) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_features": np.ones((3, 4))}, r"\(3, 4\) and \(1, 2\)"),
        ({"train_features": np.ones(3)}, r"\(3,\)"),
        ({"train_images": ["a", "b"]}, "3 training features for 2 training images"),
        ({"query_images": ["p", "q"]}, "1 query features for 2 query images"),
        ({"query_images": ["b"]}, "query images are training images, b for one"),
        ({"train_references": {"a": ["x"], "b": [], "c": ["x"]}}, "no caption, b for one"),
        ({"query_features": np.array([[np.nan, 1]])}, "query features hold NaN"),
        ({"train_features": np.ones((0, 2)), "train_images": []}, "no training image"),
    ],
)
def test_nearest_neighbour_refuses(change, message) -> None:
    arguments = {
        "train_features": np.ones((3, 2)),
        "train_images": IMAGES,
        "query_features": np.ones((1, 2)),
        "query_images": ["p"],
        "train_references": TRAIN,
    }
    assert nearest_neighbour(**arguments) == {"p": "A dog runs."}
    with pytest.raises(ValueError, match=message):
        nearest_neighbour(**arguments | change)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_shuffled_leaves_no_caption_in_place(count) -> None:
    predictions = {f"{i}.jpg": f"caption {i}" for i in range(count)}
    for seed in range(20):
        found = shuffled(predictions, seed)
        assert list(found) == list(predictions)
        assert sorted(found.values()) == sorted(predictions.values())
        assert all(found[image] != predictions[image] for image in predictions)
    assert shuffled(predictions, 0) == shuffled(predictions, 0)
    assert count == 2 or len({tuple(shuffled(predictions, seed).values()) for seed in range(20)}) > 1


def test_shuffled_needs_two_pictures() -> None:
    with pytest.raises(ValueError, match="1 picture"):
        shuffled({"a": "x"}, 0)
