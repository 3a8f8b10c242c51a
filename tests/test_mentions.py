"""Who is called a woman and who a man: counted right on captions small enough to read."""

from __future__ import annotations

import pytest

from helpers.mentions import people_among_themselves, proportion, righted, said_of, shares, tied, told


@pytest.mark.parametrize(
    ("captions", "who"),
    [
        (["A woman runs.", "Somebody runs."], "woman"),
        (["Two GIRLS!", "A lady's hat."], "woman"),
        (["A guy.", "A person."], "man"),
        (["A woman.", "A man."], "both"),
        (["A child and a dog."], "person"),
        (["A human, a manager and a womanly dog."], "nobody"),
        ([], "nobody"),
    ],
)
def test_said_of(captions, who) -> None:
    assert said_of(captions) == who


def test_shares_and_errors() -> None:
    references = {
        "a": ["A woman.", "A person."], "b": ["A girl.", "A lady."], "c": ["A man.", "A dog."], "d": ["A man.", "A woman."],
        "e": ["A person.", "A kid."],
    }  # fmt: skip
    truth = told(references)
    assert truth == {"a": "woman", "b": "woman", "c": "man"}
    found = shares({"a": "A man.", "b": "A person.", "c": "A boy.", "d": "-", "e": "-"}, truth)
    assert {label: share.value for label, share in found["woman"].items() if share.value} == {"man": 0.5, "person": 0.5}
    assert found["man"]["man"].value == 1 and found["man"]["woman"].value == 0

    people = people_among_themselves(references)
    # Beside their other caption: of "a" one tells woman ("A person." is said), of "b" both, of "d" one each, against the other
    assert people["woman"]["woman"].value == 2 / 4 and people["woman"]["person"].value == 1 / 4
    assert people["woman"]["man"].value == 1 / 4 and people["man"]["nobody"].value == 1 / 2


def test_righted_changes_the_wrong_word_alone() -> None:
    captions = {"a": "A man in a shirt.", "b": "Girls, and a lady.", "c": "A man and a woman.", "d": "A man.", "e": "A kid."}
    truth = {"a": "woman", "b": "man", "c": "woman", "e": "woman"}
    changed = {"a": "A woman in a shirt.", "b": "Boys, and a guy."}
    assert righted(captions, truth) == captions | changed


def test_tied_counts_captions_of_one_sex() -> None:
    captions = {"1": "A woman on a bike.", "2": "A man on a bike.", "3": "A girl, a bike.", "4": "A dog on a bike.",
                "5": "A man and a woman on a bike.", "6": "A woman in a dress."}  # fmt: skip
    found = tied(captions, ["bike", "dress", "kite"], at_least=2)
    assert {word: share.value for word, share in found.items()} == {"bike": 2 / 3}


def test_proportion_is_wilsons() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3
    published = ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718))
    for count, total, low, high in published:
        found = proportion(count, total)
        assert (found.value, found.low, found.high) == pytest.approx((count / total, low, high), abs=5e-5)
    assert (proportion(0, 0).low, proportion(0, 0).high) == (0, 1)
