"""Five captions for a scene, as five people would write them.

Each of the `WRITERS` has a habit: one is brief, one cares for the action, one for details, one for the weather, one
for the place, one looks at the sky first, one at what stands behind, one at what people have with them. All choose
among synonyms (words.py) and leave things out, so they agree about as much as people do, and they say nothing that
the Scene does not.
"""

import random
import re

from . import words
from .words import IN_THE_AIR, ON_WATER, STAYING
from .world import SUBJECTS, Scene

MAX_WORDS = 20


def describe(scene: Scene, rng: random.Random) -> list[str]:
    """Five different captions, by five of the writers, in random order."""
    captions: list[str] = []
    for writer in _choose_writers(rng):
        caption = writer(Speaker(scene, rng))
        while caption in captions or len(caption.split()) > MAX_WORDS:
            caption = writer(Speaker(scene, rng))
        captions.append(caption)
    return captions


# --- Writers ----------------------------------------------------------------------------------------------------------


def _brief(say: "Speaker") -> str:
    who = say.who(color=0.3, size=0.3)
    if say.chance(0.3):
        return say.sentence(who, say.where(STAYING), say.when())
    verb = say.ing if say.chance(0.5) else say.does
    return say.sentence(who, verb(color=0.2), say.where())


def _action(say: "Speaker") -> str:
    alive = SUBJECTS[say.scene.subject].group != "vehicle"
    where = say.pick(words.OUTSIDE) if alive and say.chance(0.25) else say.where()
    return say.sentence(say.who(color=0.4, size=0.5), say.is_doing(color=0.7), where)


def _detailed(say: "Speaker") -> str:
    who = say.who(color=1, size=1)
    does = say.is_doing(color=1) if say.chance(0.5) else say.does(color=1)
    if not say.scene.landmark:
        return say.sentence(who, does, say.where(), say.when() if say.chance(0.45) else "")
    rest = ""
    if say.motion != IN_THE_AIR and say.chance(0.5):
        rest = say.where(STAYING)
    elif say.chance(0.4):
        rest = say.when()
    return say.sentence(who, does, say.landmark(), rest)


def _weather(say: "Speaker") -> str:
    who = say.who(color=0.4, size=0.4)
    does = say.does(color=0.4) if say.chance(0.6) else say.is_doing(color=0.4)
    where = say.where() if say.chance(0.6) else ""
    when = say.when() if say.chance(0.85) else say.season()
    return say.sentence(when + ",", who, does, where) if say.chance(0.3) else say.sentence(who, does, where, when)


def _place(say: "Speaker") -> str:
    who, landmark = say.who(color=0.5, size=0.6), say.landmark() if say.scene.landmark else ""
    if say.chance(0.5):
        return say.sentence("there", say.be, who, say.ing(color=0.4), landmark or say.where())
    if landmark and say.chance(0.6):
        return say.sentence(who, say.does(color=0.4), landmark)
    if say.motion == ON_WATER:
        return say.sentence(who, say.is_doing(color=0.4), say.where(), say.when() if say.chance(0.3) else "")
    return say.sentence(who, say.is_doing(color=0.4), say.background())


def _sky(say: "Speaker") -> str:
    where = say.where() if say.complement in ("", "parked") or say.chance(0.5) else ""
    return say.sentence(say.sky(), say.who(color=0.4, size=0.3), say.ing(color=0.3), where)


def _behind(say: "Speaker") -> str:
    if say.motion == ON_WATER and say.scene.place == "beach":
        return _sky(say)
    doing = say.ing(color=0.4) if say.complement or say.chance(0.3) else ""
    return say.sentence(say.what_is_behind(), say.who(color=0.6, size=0.5), doing)


def _belongings(say: "Speaker") -> str:
    if say.scene.action not in words.WITH:
        return _brief(say)
    return say.sentence(say.who(color=0.5, size=0), "with", say.belonging(color=0.7), say.where(STAYING))


REGULARS = (_brief, _action, _detailed)  # at least two of them are asked
OTHERS = (_weather, _weather, _place, _sky, _behind, _belongings)


def _choose_writers(rng: random.Random) -> list:
    count = rng.choice((2, 2, 3))
    writers = rng.sample(REGULARS, count) + rng.sample(OTHERS, 5 - count)
    rng.shuffle(writers)
    return writers


# --- Phrases ----------------------------------------------------------------------------------------------------------


class Speaker:
    """Chooses the words of one caption; `color` and `size` are the chances that they are mentioned."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng, self.pick = scene, rng, rng.choice
        self.plural = scene.count > 1
        self.be = "are" if self.plural else "is"
        self.motion = words.MOTION.get(scene.action, STAYING)
        group = SUBJECTS[scene.subject].group
        self.verb, self.complement = self.pick(
            words.DOES_OF.get((scene.subject, scene.action)) or words.DOES_OF.get((group, scene.action))
            or words.DOES[scene.action])

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def who(self, color: float, size: float) -> str:
        """The subject, such as "two boys in red shirts" or "a small black dog"."""
        scene = self.scene
        forms = self.pick(words.NOUNS[scene.subject])
        size_word = self.pick(words.SIZES[scene.size]) if self.chance(size) else ""
        if scene.size == "small" and scene.subject in words.YOUNG and self.chance(0.3):
            forms, size_word = words.YOUNG[scene.subject], ""
        noun = forms[self.plural]
        number = self.pick(words.NUMBERS[scene.count])
        if not self.chance(color):
            return _phrase(number, size_word, noun)
        if SUBJECTS[scene.subject].group != "person":
            return _phrase(number, size_word, scene.color, noun)
        garment = self.pick(words.WINTER_GARMENTS) if scene.season == "winter" else words.GARMENTS[scene.subject]
        article = "" if self.plural else "a"
        return _phrase(number, noun, self.pick(words.WEARING), article, scene.color, garment[self.plural])

    def does(self, color: float) -> str:
        """The action as people tell it: "runs", "fly a red kite"."""
        verb = self.be if self.verb == "be" else self.verb if self.plural else _third_person(self.verb)
        return _phrase(verb, self._with_color(self.complement, color))

    def ing(self, color: float) -> str:
        """The action as a participle: "running", "flying a red kite", "parked"."""
        return _phrase(_participle(self.verb), self._with_color(self.complement, color))

    def is_doing(self, color: float) -> str:
        """The action as it goes on: "is running", "are parked"."""
        return _phrase(self.be, self.ing(color))

    def belonging(self, color: float) -> str:
        """What a person has with them: "a red kite"."""
        return self._with_color(words.WITH[self.scene.action], color)

    def _with_color(self, text: str, color: float) -> str:
        word = self.scene.prop_color if self.chance(color) else ""
        return re.sub(r"\{a ([^}]+)\}", lambda match: _phrase("a", word, match[1]), text)

    def where(self, motion: str = "") -> str:
        """The place, as the subject moves or as another `motion` has it: "in the park", "along the beach"."""
        scene = self.scene
        if self.motion in (IN_THE_AIR, ON_WATER):
            return self.pick(words.WHERE[scene.place][self.motion])
        motion = motion or self.motion
        choices = words.WHERE[scene.place][motion]
        if scene.subject in ("car", "bus") and scene.place != "street":
            choices += words.ON_A_ROAD[motion]
        elif scene.action != "perch" and "grass" not in self.complement:
            if scene.season == "winter":
                choices += words.UNDERFOOT["snow"][motion]
            elif scene.place in words.GRASSY and scene.subject != "train":
                choices += words.UNDERFOOT["grass"][motion]
        return self.pick(choices)

    def background(self) -> str:
        """What is far behind: "with trees in the background"."""
        return f"with {words.BEHIND[self.scene.place][0]} in the background"

    def what_is_behind(self) -> str:
        """What stands behind the subject, or by it, as the beginning of a sentence: "a house stands behind"."""
        if self.scene.landmark and self.chance(0.7):
            return _phrase("a", self.pick(words.LANDMARKS[self.scene.landmark]), words.OPPOSITES[self.scene.relation])
        return _phrase(*words.BEHIND[self.scene.place], "behind")

    def when(self) -> str:
        """Light and weather: "at sunset", "in the rain"."""
        return self.pick(words.WHEN[self.scene.light])

    def sky(self) -> str:
        """Light and weather as the beginning of a sentence: "the sun sets behind"."""
        return self.pick(words.SKY[self.scene.light])

    def season(self) -> str:
        """The season: "in autumn"."""
        is_day = self.scene.time == "day"
        return self.pick([phrase for phrase in words.SEASON[self.scene.season] if is_day or "day" not in phrase])

    def landmark(self) -> str:
        """The landmark and how the subject stands to it: "next to a tree"."""
        relations = words.RELATIONS[self.scene.relation]
        relation = self.pick(relations[self.motion if self.motion in relations else STAYING])
        return _phrase(relation, "a", self.pick(words.LANDMARKS[self.scene.landmark]))

    def sentence(self, *phrases: str) -> str:
        """The phrases as a sentence."""
        text = _phrase(*phrases)
        return text[0].upper() + text[1:] + "."


def _phrase(*parts: str) -> str:
    """The parts that are not empty, joined, each "a" before a vowel made "an"."""
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(part for part in parts if part))


def _third_person(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "o")) else "s")


def _participle(verb: str) -> str:
    if verb in words.IRREGULAR_ING:
        return words.IRREGULAR_ING[verb]
    if verb in words.DOUBLED:
        return verb + verb[-1] + "ing"
    return verb.removesuffix("e") + "ing"
