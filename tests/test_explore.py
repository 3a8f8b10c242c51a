"""Counting words: by hand on captions small enough to count."""

import numpy as np
import pytest
from PIL import Image

from helpers.data import explore
from helpers.data.associations import associate
from helpers.data.near_duplicates import closest, thumbnails


def test_words():
    assert explore.words('A dog\'s ball , "T-shirt" .') == ["a", "dog's", "ball", "t-shirt"]
    assert explore.words("Élan 2 !") == ["élan", "2"] and explore.words(" . ") == []


def test_vocabulary_is_sorted_by_count_then_alphabet():
    assert list(explore.vocabulary(["b a", "c a"]).items()) == [("a", 2), ("b", 1), ("c", 1)]


def test_growth():
    assert explore.growth(["a dog", "a cat", "a dog", "two dogs"], points=4) == ([1, 2, 3, 4], [2, 3, 3, 5])
    read, seen = explore.growth(["a"] * 95, points=10)
    assert read[-1] == 95 and len(read) <= 12 and set(seen) == {1}


def test_overlap_and_agreement():
    assert explore.overlap("A dog runs .", "a dog sits") == 2 / 4
    assert explore.overlap("", "") == 0 and explore.overlap("A b", "b a a") == 1
    references = {"x": ["a dog", "a dog", "a cat"], "y": ["two birds fly"] * 2, "z": ["alone"]}
    assert explore.agreement(references) == pytest.approx({"x": (1 + 1 / 3 + 1 / 3) / 3, "y": 1})


def test_strangers_are_never_the_picture_itself():
    references = {str(n): [f"word{n}", f"word{n}"] for n in range(9)}
    strangers = explore.agreement_of_strangers(references)
    assert set(strangers) == set(references) and set(strangers.values()) == {0}
    pairs = {str(n): [f"word{n // 2}"] for n in range(40)}
    assert explore.agreement_of_strangers(pairs, seed=1) != explore.agreement_of_strangers(pairs, seed=2)
    assert explore.agreement_of_strangers({"x": ["a dog"], "y": ["a dog", "two cats"]}) == {"x": 0.5, "y": 0.5}


def test_zipf_slope_of_a_zipfian_vocabulary():
    assert explore.zipf_slope([6000 // rank for rank in range(1, 100)]) == pytest.approx(1, abs=0.02)
    assert explore.zipf_slope([5, 5, 5]) == pytest.approx(0)


def test_nouns_by_the_company_they_keep():
    captions = [
        "A brown dog runs in the park .",
        "The dog is in a park",
        "A small brown dog sits",
        "Two dogs run on the grass",
    ] * 3
    assert list(explore.find_nouns(captions)) == ["dog", "park"]
    assert list(explore.find_nouns(captions, at_least=3)) == ["dog", "park", "grass"], "dogs only ever stands before a verb"
    assert list(explore.find_nouns(captions, at_least=99)) == []


def test_topics_cover_the_pictures_greedily():
    index = {"dog": {1, 2, 3}, "puppy": {1, 2}, "cat": {4, 5}, "sun": {3, 4, 5}}
    assert explore.topics(index, ["puppy", "dog", "cat", "sun"], count=4) == ["dog", "cat"]
    assert explore.topics(index, [], count=4) == []


def test_index_and_distinctive_words():
    references = {n: ["A dog with a ball", "the dog"] for n in range(10)} | {n: ["A cat on a mat"] for n in range(10, 20)}
    index = explore.index_words(references)
    assert index["ball"] == set(range(10)) and index["a"] == set(range(20))
    assert explore.distinctive(index, "dog") == {"ball": 10 - 10 * 10 / 20}, "no function words, not the topic itself"


def people(share):
    """100 pictures of men and 100 of women; `share` of the men and 40 % of the women have a hat."""
    said = {"man": share, "woman": 0.4}
    return {
        f"{who}{n}": [f"A {who} stands", f"The {who} in a hat" if n < 100 * said[who] else f"The {who}"]
        for who in ("man", "woman")
        for n in range(100)
    }


def test_associations_count_pictures():
    found = associate({**people(0.8), "both": ["a man and a woman"], "none": ["a dog"]})
    assert (found.groups, found.sizes, found.words) == (["man", "woman"], [100, 100], ["hat", "stands"])
    hat = found.words.index("hat")
    assert found.together[:, hat].tolist() == [80, 40] and found.expected[:, hat] == pytest.approx([60, 60])
    assert found.ratio[:, hat] == pytest.approx([80.5 / 60.5, 40.5 / 60.5])
    # By hand: the difference of 20 over sqrt(200 * 1/2 * 1/2 * 6/10 * 4/10)
    assert found.surprise[0, hat] == pytest.approx(20 / np.sqrt(200 * 0.25 * 0.24), rel=1e-5)
    assert found.beyond_chance[:, hat].all() and not found.beyond_chance[:, found.words.index("stands")].any()
    assert found.top(1) == [hat]


def test_equal_shares_are_not_beyond_chance():
    found = associate(people(0.42))
    assert not found.beyond_chance.any() and 1.5 < found.bound < 4


def test_associations_of_captions_without_people():
    found = associate({str(n): ["a dog runs"] for n in range(50)})
    assert found.groups == [] and found.words == [] and found.ratio.shape == (0, 0)


def test_near_duplicates_are_found(tmp_path):
    noise = [np.random.default_rng(n).integers(0, 256, (40, 60, 3), dtype=np.uint8) for n in range(5)]
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path, pixels in zip(paths, noise, strict=True):
        Image.fromarray(pixels).save(path)
    Image.new("RGB", (9, 9), "white").save(tmp_path / "white.png")
    paths.append(tmp_path / "white.png")
    Image.fromarray(noise[3]).resize((120, 80)).save(tmp_path / "larger.jpg", quality=70)
    gallery, query = thumbnails(paths), thumbnails([tmp_path / "larger.jpg", paths[1]])
    assert gallery.shape == (6, 768) and gallery.min() >= 0 and gallery.max() <= 1
    positions, differences = closest(query, gallery, block=1)
    assert positions.tolist() == [3, 1] and 0 < differences[0] < 0.05 and differences[1] == 0
    assert closest(query[:1], np.delete(gallery, 3, axis=0))[1][0] > 0.05
