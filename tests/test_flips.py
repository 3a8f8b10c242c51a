"""Left and right change places in a mirrored picture's caption, in the sense of sides and in no other."""

import pytest
import torch

from helpers.data.flips import mirror, mirror_words

SIDES = {
    "A dog on the left": "A dog on the right",
    "a tree to the right of a barn": "a tree to the left of a barn",
    "a girl stands left of her brother": "a girl stands right of her brother",
    "he waves his left hand .": "he waves his right hand .",
    "the man has left hand and right knee bandaged": "the man has right hand and left knee bandaged",
    "a cat licks its left front paw": "a cat licks its right front paw",
    "the leftmost of three boats": "the rightmost of three boats",
    "a right-handed player and a left handed one": "a left-handed player and a right handed one",
    "a kite in the upper left corner": "a kite in the upper right corner",
    "a boat at lower right": "a boat at lower left",
    "a boy looks left .": "a boy looks right .",
    "looking right, a woman smiles": "looking left, a woman smiles",
    "a bus turns left before the bridge": "a bus turns right before the bridge",
    "flags to the left and right": "flags to the right and left",
    "five swans , from left to right the smallest first": "five swans , from right to left the smallest first",
    "cars on the left and trucks on the right behind them": "cars on the right and trucks on the left behind them",
    "a woman ( left ) and her son ( right )": "a woman ( right ) and her son ( left )",
    "Left hand up, she runs": "Right hand up, she runs",
    "A HOUSE ON THE RIGHT": "A HOUSE ON THE LEFT",
    "the boy on the left has left the ground": "the boy on the right has left the ground",
    "the cup on the right now lies right in front of him": "the cup on the left now lies right in front of him",
}
OTHER_SENSES = [
    "everyone has left the house",
    "a bag left behind on a bench",
    "a boat left the harbour",
    "bicycles that had been left in the rain",
    "there is nothing left of the cake",
    "what is left of a sandcastle",
    "skis left alone in the snow",
    "a train that leaves right now",
    "a goat walks right behind him",
    "a bird right next to a cat",
    "a child who is all right after a fall",
    "runners right before the start",
    "a puppy right in front of its mother",
    "swimmers right after a race",
    "two planks at a right angle",
    "a crate with its right side up",
    "a man tries to right the canoe",
    "a bear sits upright in bright light",
    "a dog with a frisbee",
]
ILLEGIBLE = [
    'a shirt with "left" on it',
    "a cap with “ love ” on it",
    "a truck with ' fresh fish ' on its side",
    "a sign that reads closed",
    "a banner reading welcome home",
    "a card that says hello",
    "number 5 kicks the ball to the left",
    "a jersey number in red",
    "a runner with # 12",
    "a player in a 23 jersey",
    "blue letters over a door",
    "the word stop painted on a road",
    "horses run clockwise",
]


@pytest.mark.parametrize(("caption", "mirrored"), SIDES.items())
def test_sides_change_places_and_back(caption, mirrored):
    assert mirror_words(caption) == mirrored
    assert mirror_words(mirrored) == caption


@pytest.mark.parametrize("caption", OTHER_SENSES)
def test_other_senses_stay(caption):
    assert mirror_words(caption) == caption


@pytest.mark.parametrize("caption", ILLEGIBLE)
def test_a_mirrored_picture_has_no_caption_that_reads_it_out(caption):
    assert mirror_words(caption) is None


@pytest.mark.parametrize("caption", ["a man stares right into the lens", "a girl jumps left on the grass", "one pear left"])
def test_in_doubt_there_is_no_caption(caption):
    assert mirror_words(caption) is None


@pytest.mark.parametrize("caption", ["a large number of people", "a man 's hat and two boys ' coats", "3 dogs and 10 sheep"])
def test_numbers_of_things_and_apostrophes_are_not_read_in_the_picture(caption):
    assert mirror_words(caption) == caption


def test_mirror_flips_the_columns_of_each_picture():
    pixels = torch.arange(24).reshape(2, 3, 1, 4)
    assert mirror(pixels)[0, 0, 0].tolist() == [3, 2, 1, 0]
    assert torch.equal(mirror(mirror(pixels)), pixels)


@pytest.mark.parametrize("caption", ["the right tool for it", "all that is left of the cake", "a man eats the left over food"])
def test_what_is_proper_or_remaining_is_no_side(caption):
    assert mirror_words(caption) == caption
