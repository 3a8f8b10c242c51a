"""Counts small enough to make by eye."""

import pytest

from helpers.diversity import diversity, table
from helpers.errors import InputError

CAPTIONS = {"1": "A dog runs.", "2": "a dog runs", "3": "A dog sits!", "4": "", "5": "men"}
TRAINING = {"x": ["a DOG runs!", "A dog"], "y": ["Men run.", "", "a cat"]}


def test_counts():
    """8 tokens a dog runs | a dog runs | a dog sits | | men: without punctuation and case."""
    found = diversity(CAPTIONS, TRAINING)
    assert (found.captions, found.distinct, found.vocabulary) == (5, 4, 5)
    assert found.distinct_share == pytest.approx(4 / 5)
    assert found.distinct_1 == pytest.approx(5 / 10)
    assert found.distinct_2 == pytest.approx(3 / 6), "a dog, dog runs, dog sits; no pair spans two captions"
    assert found.copied == pytest.approx(2 / 5), "the empty caption is copied from nobody"
    assert found.length == pytest.approx(10 / 5)


def test_white_space_tokens_keep_case_and_punctuation():
    found = diversity(CAPTIONS, TRAINING, tokenize="whitespace")
    assert (found.distinct, found.vocabulary, found.copied) == (5, 7, 0)


def test_without_training_captions_nothing_is_said_of_copies():
    assert diversity(CAPTIONS, tokenize="whitespace").copied is None
    assert diversity(CAPTIONS, {}, tokenize="whitespace").copied == 0


def test_nothing_but_empty_captions():
    found = diversity({"1": "", "2": " "}, TRAINING, tokenize="whitespace")
    assert (found.distinct, found.distinct_1, found.distinct_2, found.vocabulary, found.length) == (1, 0, 0, 0, 0)
    assert found.copied == 0


def test_table_has_a_row_a_system():
    systems = {"varied": CAPTIONS, "dull": dict.fromkeys(CAPTIONS, "a dog")}
    found = table(systems, TRAINING, tokenize="whitespace")
    assert list(found.index) == list(systems) and found.loc["dull", "distinct"] == 1
    assert found.loc["dull", "distinct_2"] == pytest.approx(1 / 5) and found.loc["varied", "captions"] == 5


def test_no_captions():
    with pytest.raises(InputError, match="no captions"):
        diversity({}, TRAINING)
    with pytest.raises(InputError, match="'dull' has no captions"):
        table({"varied": CAPTIONS, "dull": {}}, tokenize="whitespace")
    with pytest.raises(InputError, match="choose ptb or whitespace"):
        diversity(CAPTIONS, tokenize="bert")
