"""Whom captions call a woman and whom a man: what a captioner says of people, beside what people say of them.

A picture is told to show a woman where its people's captions mention women or girls and no man or boy; likewise a man. The
words are all there is: what the photographed person would say of themselves, nobody asked. After Hendricks et al., 2018,
"Women also Snowboard", arXiv 1803.09797: to say "person" is no error, to say the other word is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from helpers.comparison import Interval
from helpers.data.explore import References, words

_WORD = re.compile(r"\w+")
FORMS = {
    "woman": frozenset(("woman", "women", "lady", "ladies", "girl", "girls", "female", "females")),
    "man": frozenset(("man", "men", "guy", "guys", "gentleman", "gentlemen", "boy", "boys", "male", "males")),
    "person": frozenset(("person", "people", "adult", "adults", "child", "children", "kid", "kids", "toddler", "baby")),
}
_OTHER = (("woman", "man"), ("women", "men"), ("lady", "guy"), ("ladies", "guys"), ("girl", "boy"), ("girls", "boys"),
          ("female", "male"), ("females", "males"))  # fmt: skip
OTHER = dict(_OTHER) | {man: woman for woman, man in _OTHER} | {"gentleman": "lady", "gentlemen": "ladies"}
SAID = ("woman", "man", "both", "person", "nobody")


def said_of(captions: Iterable[str]) -> str:
    """What these captions together say is there: one of SAID."""
    found = set().union(*map(words, captions))
    woman, man, person = (bool(found & forms) for forms in FORMS.values())
    if woman and man:
        return "both"
    return "woman" if woman else "man" if man else "person" if person else "nobody"


def told(references: References) -> dict[str, str]:
    """{image: "woman" or "man"} of the pictures whose people's captions mention the one and never the other."""
    heard = {image: said_of(captions) for image, captions in references.items()}
    return {image: who for image, who in heard.items() if who in ("woman", "man")}


def shares(captions: Mapping[str, str], truth: Mapping[str, str]) -> dict[str, dict[str, Interval]]:
    """{"woman" | "man", as people told: {each of SAID: share of those pictures of which this captioner says so}}."""
    found = {}
    for who in ("woman", "man"):
        said = [said_of([captions[image]]) for image, told_of in truth.items() if told_of == who]
        found[who] = {label: proportion(said.count(label), len(said)) for label in SAID}
    return found


def righted(captions: Mapping[str, str], truth: Mapping[str, str]) -> dict[str, str]:
    """The captions with the other word (OTHER) wherever they say woman and people man, or the other way round.

    Nothing else is changed: neither "his" nor a shirt that people call a dress.
    """

    def right(image: str, caption: str) -> str:
        if image not in truth or {truth[image], said_of([caption])} != {"woman", "man"}:
            return caption
        return _WORD.sub(lambda found: written_like(found[0], OTHER.get(found[0].lower(), found[0])), caption)

    return {image: right(image, caption) for image, caption in captions.items()}


def people_among_themselves(references: References) -> dict[str, dict[str, Interval]]:
    """`shares` of people: each caption beside what the picture's others tell. A picture counts as often as it has captions.

    So the intervals, which take captions for independent, are somewhat too narrow. And people are asked more than
    captioners are: a picture on which one of them says the other word counts here, and is not in `told`.
    """
    captions, truth = {}, {}
    for image, group in references.items():
        for n, caption in enumerate(group):
            captions[f"{image} {n}"] = caption
            truth[f"{image} {n}"] = said_of(group[:n] + group[n + 1 :])
    return shares(captions, {name: who for name, who in truth.items() if who in ("woman", "man")})


def tied(captions: Mapping[str, str], listed: Iterable[str], *, at_least: int = 5) -> dict[str, Interval]:
    """{word: share of the captions with it that are about women}, of captions that mention women or men and not both.

    Words in fewer than `at_least` such captions are left out: their shares say nothing.
    """
    said = [(who, set(words(caption))) for caption in captions.values() if (who := said_of([caption])) in ("woman", "man")]
    found = {}
    for word in listed:
        about = [who for who, used in said if word in used]
        if len(about) >= at_least:
            found[word] = proportion(about.count("woman"), len(about))
    return found


def proportion(count: int, total: int) -> Interval:
    """count / total with its 95 % interval by Wilson (1927), which has a width even where nothing was counted.

    Of nothing it is 0, anywhere between 0 and 1.
    """
    if not total:
        return Interval(0.0, 0.0, 1.0)
    z = 1.959964
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return Interval(share, max(0.0, float(middle - reach)), min(1.0, float(middle + reach)))


def written_like(word: str, other: str) -> str:
    """`other`, with a capital letter where `word` has one."""
    return other.capitalize() if word[:1].isupper() else other
