"""Mirrored pictures need mirrored captions: "a dog on the left" becomes "a dog on the right", "a dog left alone" stays.

A caption is mirrored only where that is certain, for showing a picture as it was taken is never wrong.
"""

from __future__ import annotations

import re

from torch import Tensor

# What is no longer so in a mirror: writing and numerals that can be read there, and the way that something turns.
_UNMIRRORABLE = re.compile(
    r"""["“”«»] | (?<!\w)['‘](?!s\b)[^'’]+['’](?!\w)  # quoted, also ' like this ', but not a man 's dogs ' tails
    | \bnumber(s|ed)?\b(?!\ of) | \#\ ?\d | \b(shirt|jersey|marked)\ \d | \d\ (shirt|jersey|sign|on\ (his|her|its|the))\b
    | \b(words?|phrase|slogan|text|letter(s|ed|ing)?|initials|digits?|writing|written|spell(s|ed|ing)?|label+ed)\b
    | \b(sa(ys?|id|ying)|(that|which)\ reads?|(sign|shirt|banner|poster)s?\ read(s|ing)?|stop\ signs?)\b
    | clockwise""",
    re.IGNORECASE | re.VERBOSE,
)

_SWAPPED = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "right": "left", "Right": "Left", "RIGHT": "LEFT"}
_WORD = re.compile(rf"\b({'|'.join(_SWAPPED)})(?=(?i:most|wards?)?\b)")

# Whether the word <>, left or right, names a side, by what stands around it: the first rule that fits decides. No rule asks
# which of the two words it is, so the mirror of the mirror has the caption it began with.
_BODY = "arm|leg|hand|foot|feet|paw|ear|eye|cheek|wrist|elbow|shoulder|thumb|finger|knee|ankle|hip|shoe|glove|sleeve"
_PLACE = "side|corner|edge|lane|turn|foreground|background"
_MOVE = "look|gaz|stare|staring|glanc|fac|point|lean|head|walk|run|jump|rid"
_RULES = [
    (names_a_side, re.compile(rule, re.IGNORECASE))
    for names_a_side, rule in (
        (False, r"<>[- ](angle|time|moment|way|size|tool|over|track|of way|side up|side by side|hand in hand)"),
        (False, r"(?<!the )<> (now|away)\b"),
        (True, rf"<>(most|wards?)|<>[- ]((front|hind|back) )?({_BODY}|{_PLACE})(s|ed|ers?)?\b"),
        (True, r"<>[- ](and|or|to)[- ](the )?(left|right)\b|\b(left|right)[- ](and|or|to)[- ](the )?<>"),
        (False, r"\b(has|have|had|having|been|being|nothing|anything|(what|that) is|all) <>"),
        (False, r"\bto <> (the|an?|his|her|its|their)\b"),
        (True, r"\b(the|an?|his|her|its|their|on|at|to|upper|lower|top|bottom|far|cent(er|re)) <>(?!-)|\bfrom <>$"),
        (True, r"\b(turn|swerv|veer)\w* <>(?! (around|back)\b)"),
        (False, r"<> (behind|beside|next|before|after|in front|alongside|outside|alone|here|there|where|the|an?|his|her)\b"),
        (True, rf"(?<!'s )<> of\b|(^|[,(]) ?<> ?[,:)]|\b({_MOVE})\w* <>( ?[.,;!)]|$| (and|or|while)\b)"),
    )
]


def mirror_words(caption: str) -> str | None:
    """The caption of the mirrored picture: left and right exchanged where they name a side, not where one has left.

    None where there is none: the caption reads out writing or a number in the picture, which a mirror makes illegible, or
    its left or right may be a side or not ("walks right into"). Mirrored twice, a caption is as it was.
    """
    if _UNMIRRORABLE.search(caption):
        return None
    senses = [_names_a_side(caption, word) for word in _WORD.finditer(caption)]
    if None in senses:
        return None
    sides = iter(senses)
    return _WORD.sub(lambda word: _SWAPPED[word[0]] if next(sides) else word[0], caption)


def mirror(pixels: Tensor) -> Tensor:
    """The picture or pictures (..., H, W) as a mirror shows them."""
    return pixels.flip(-1)


def _names_a_side(caption: str, word: re.Match) -> bool | None:
    """None: nobody can say."""
    around = f"{caption[: word.start()]}<>{caption[word.end() :]}"
    return next((names_a_side for names_a_side, rule in _RULES if rule.search(around)), None)
