"""What a picture of the scenes dataset can show: the vocabulary of things, and how a Scene is drawn by lot.

A Scene is a handful of words (who, what colour, doing what, where, when) and one seed for everything nobody would
mention. `drawing.draw` turns it into pixels and `captions.describe` into sentences; neither knows of the other.

Two rules make the splits worth testing on:

- every combination of words belongs to exactly one of "train", "val" and "test", decided by a checksum, so that no
  split ever repeats a scene of another, however many are sampled;
- the pairs in `HELD_OUT` (say, a white dog) never occur outside "test", and half of the test scenes contain one.
"""

import dataclasses
import random
import zlib
from collections.abc import Callable

SPLITS = ("train", "val", "test")
COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white", "black", "brown", "gray")
PLACES = ("beach", "park", "field", "lake", "street", "mountains", "forest")
SEASONS = ("spring", "summer", "autumn", "winter")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "cloudy", "rain", "snow")


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything there is to know about one picture; equal scenes give equal pictures.

    subject: a key of SUBJECTS; count: 1 to 3 of them; size: "small", "" or "big"; color: of clothes, coat or paint
    action: a key of ACTIONS; prop_color: colour of what the action needs (kite, ball, ...), "" if it needs nothing
    place, season, time, weather: one of PLACES, SEASONS, TIMES, WEATHERS
    landmark: a key of LANDMARKS or ""; relation: how the subject stands to it ("next to", "under", ...) or ""
    seed: decides the incidental details (where the clouds are, which way things face)
    """

    subject: str
    color: str
    count: int
    size: str
    action: str
    prop_color: str
    place: str
    season: str
    time: str
    weather: str
    landmark: str
    relation: str
    seed: int

    @property
    def light(self) -> str:
        """The time of day, or the weather that one would rather speak of: "day", "rain", "snow at night"."""
        if self.weather == "clear":
            return self.time
        return "snow at night" if (self.weather, self.time) == ("snow", "night") else self.weather


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a kind of subject may look like and do. Repeated entries are likelier."""

    group: str  # "person", "animal" or "vehicle"
    weight: float  # how often it is the subject
    colors: tuple[str, ...]
    actions: tuple[str, ...]
    places: tuple[str, ...]
    counts: tuple[int, ...] = (1,)
    sizes: tuple[str, ...] = ("",)


@dataclasses.dataclass(frozen=True)
class Action:
    """What an action needs of the rest of the scene; empty means anything goes."""

    prop: str = ""  # a thing with its own colour
    max_count: int = 3
    places: tuple[str, ...] = ()
    seasons: tuple[str, ...] = ()
    weathers: tuple[str, ...] = ()
    flying: bool = False  # the subject is in the air: it can only be above a landmark


CLOTHES = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "white")
PAINT = ("red", "blue", "green", "yellow", "orange", "white")
TOYS = ("red", "blue", "green", "yellow", "orange", "purple")
DRY = ("clear", "cloudy")
WARM = ("spring", "summer", "autumn")
SINGLES = (1, 1, 1, 1, 1, 2, 2, 3)
PLAY = ("walk", "run", "jump", "sit", "bicycle", "kite", "ball", "balloon", "umbrella", "sled", "dog")
ADULT = ("walk", "walk", "run", "jump", "sit", "bicycle", "bicycle", "kite", "ball", "umbrella", "ski", "dog", "dog")
LAND = ("beach", "park", "field", "lake", "street", "mountains", "forest")
COUNTRY = ("park", "field", "field", "lake", "mountains", "forest")
PETS = ("", "", "", "small", "big")

SUBJECTS = {
    "man": Subject("person", 5, CLOTHES, ADULT, LAND, SINGLES),
    "woman": Subject("person", 5, CLOTHES, ADULT, LAND, SINGLES),
    "boy": Subject("person", 5, CLOTHES, PLAY, LAND, SINGLES),
    "girl": Subject("person", 5, CLOTHES, PLAY, LAND, SINGLES),
    "dog": Subject("animal", 4, ("brown", "black", "white", "gray"), ("run", "sit", "jump", "sleep", "ball"), LAND,
                   SINGLES, PETS),
    "cat": Subject("animal", 2.5, ("orange", "black", "white", "gray"), ("sit", "walk", "sleep", "ball"),
                   ("park", "street", "street", "field", "forest"), SINGLES, PETS),
    "horse": Subject("animal", 2.5, ("brown", "black", "white", "gray"), ("run", "jump", "walk", "graze"),
                     ("beach", "field", "field", "lake", "mountains"), SINGLES, PETS),
    "cow": Subject("animal", 2, ("brown", "black", "white"), ("stand", "graze"),
                   ("field", "field", "lake", "mountains"), SINGLES),
    "rabbit": Subject("animal", 2, ("brown", "white", "gray"), ("sit", "jump"), COUNTRY, SINGLES, PETS),
    "bird": Subject("animal", 2.5, ("blue", "red", "yellow", "white", "black"), ("fly", "perch"),
                    ("beach", "park", "field", "lake", "forest"), SINGLES, PETS),
    "duck": Subject("animal", 2, ("yellow", "white", "brown"), ("swim", "walk"), ("lake", "lake", "park"), SINGLES),
    "car": Subject("vehicle", 2.5, PAINT, ("drive", "parked"), ("street", "street", "field", "mountains", "beach")),
    "bus": Subject("vehicle", 2, PAINT, ("drive", "parked"), ("street", "street", "field", "mountains")),
    "train": Subject("vehicle", 2, PAINT, ("pass",), ("field", "mountains", "forest", "lake")),
    "sailboat": Subject("vehicle", 2.5, PAINT, ("sail",), ("lake", "beach"), SINGLES, PETS),
    "hot air balloon": Subject("vehicle", 2.5, TOYS, ("float",), ("field", "mountains", "lake", "beach"), SINGLES,
                               PETS),
}

ACTIONS = {
    "stand": Action(),
    "walk": Action(),
    "run": Action(),
    "jump": Action(),
    "sit": Action(max_count=2),
    "sleep": Action(max_count=2),
    "graze": Action(places=("field", "lake", "mountains")),
    "bicycle": Action("bicycle", 1, ("beach", "park", "field", "lake", "street"), weathers=DRY),
    "kite": Action("kite", 1, ("beach", "park", "field", "lake"), weathers=DRY),
    "ball": Action("ball", 1, ("beach", "park", "field", "street"), weathers=DRY),
    "balloon": Action("balloon", 1, ("beach", "park", "field", "street"), weathers=DRY),
    "umbrella": Action("umbrella", 1, ("park", "street", "lake", "beach"), weathers=("rain",)),
    "sled": Action("sled", 1, ("park", "field", "mountains"), seasons=("winter",)),
    "ski": Action("", 1, ("mountains", "field", "forest"), seasons=("winter",)),
    "dog": Action("", 1, ("beach", "park", "field", "street", "lake")),
    "fly": Action(flying=True),
    "perch": Action(max_count=2),
    "swim": Action(places=("lake",)),
    "drive": Action(),
    "parked": Action(),
    "pass": Action(),
    "sail": Action(weathers=DRY),
    "float": Action(weathers=DRY, flying=True),
}

# landmark -> (places, relations it can have to the subject)
LANDMARKS = {
    "tree": (("park", "park", "field", "lake", "street"), ("next to", "under")),
    "palm tree": (("beach", "beach"), ("next to", "under")),
    "bench": (("park", "lake", "street"), ("next to",)),
    "house": (("field", "mountains", "forest", "lake"), ("next to", "in front of")),
    "lighthouse": (("beach",), ("next to", "in front of")),
    "windmill": (("field", "field"), ("next to", "in front of")),
    "tent": (("forest", "mountains", "lake"), ("next to", "in front of")),
    "snowman": (("park", "field", "street", "mountains", "forest"), ("next to",)),
    "fence": (("field", "park", "mountains"), ("in front of",)),
}
TALL = ("house", "lighthouse", "windmill")  # enough to fly over, and to be seen behind a bus
LANDMARK_SHARE = 0.4

SUMMERY = ("duck", "rabbit", "cow", "sailboat")  # not seen in the snow

# Pairs of the subject and its colour, action or place that only "test" may show.
HELD_OUT = frozenset({
    ("man", "yellow"), ("man", "kite"), ("woman", "purple"), ("boy", "lake"), ("girl", "bicycle"), ("dog", "white"),
    ("cat", "forest"), ("horse", "beach"), ("bird", "red"), ("car", "green"), ("bus", "blue"), ("sailboat", "orange"),
    ("hot air balloon", "beach"),
})


def is_held_out(scene: Scene) -> bool:
    """Whether the scene contains one of the pairs that only the test split may show."""
    return any((scene.subject, word) in HELD_OUT for word in (scene.color, scene.action, scene.place))


def split_of(scene: Scene) -> str:
    """The only split that may contain this scene; its seed does not matter."""
    if is_held_out(scene):
        return "test"
    words = dataclasses.replace(scene, seed=0)
    bucket = zlib.crc32(repr(dataclasses.astuple(words)).encode()) % 10
    return {0: "val", 1: "test"}.get(bucket, "train")


def sample_scene(rng: random.Random, split: str) -> Scene:
    """One scene of "train", "val" or "test" (ValueError otherwise), drawn by lot from `rng`."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    held_out = split == "test" and rng.random() < 0.5
    while True:
        scene = _any_scene(rng)
        if split_of(scene) == split and is_held_out(scene) == held_out:
            return scene


def _any_scene(rng: random.Random) -> Scene:
    """Any sensible scene, whatever its split."""
    name = rng.choices(list(SUBJECTS), [subject.weight for subject in SUBJECTS.values()])[0]
    subject = SUBJECTS[name]
    action_name = rng.choice(subject.actions)
    action = ACTIONS[action_name]
    place = _choose(rng, subject.places, lambda place: not action.places or place in action.places)
    season, weather, time = _season(rng, name, place, action)
    count = _choose(rng, subject.counts, lambda count: count <= action.max_count)
    size = rng.choice(subject.sizes) if count == 1 else ""
    color = rng.choice(subject.colors)
    prop_color = _choose(rng, TOYS, lambda other: other != color) if action.prop else ""
    landmark, relation = _landmark(rng, name, action_name, place, season)
    return Scene(name, color, count, size, action_name, prop_color, place, season, time, weather, landmark, relation,
                 rng.getrandbits(32))


def _season(rng: random.Random, name: str, place: str, action: Action) -> tuple[str, str, str]:
    """Season, weather and time of day that go together."""
    warm = place == "beach" or name in SUMMERY or "rain" in action.weathers
    seasons = ("summer",) if place == "beach" else WARM if warm else (*WARM, "winter")
    season = _choose(rng, seasons, lambda s: not action.seasons or s in action.seasons)
    weathers = ("clear", "clear", "snow") if season == "winter" else ("clear",) * 6 + ("cloudy", "rain")
    weather = _choose(rng, weathers, lambda w: not action.weathers or w in action.weathers)
    times = {"clear": ("day", "day", "sunset", "night"), "snow": ("day", "day", "night")}.get(weather, ("day",))
    return season, weather, rng.choice(times)


def _landmark(rng: random.Random, name: str, action: str, place: str, season: str) -> tuple[str, str]:
    """A landmark of the place and the subject's relation to it, or two empty strings."""
    vehicle = SUBJECTS[name].group == "vehicle"
    on_its_own = name in ("train", "sailboat") or action in ("kite", "swim", "perch", "sled", "ski")
    flying = ACTIONS[action].flying
    fitting = [landmark for landmark, (places, _) in LANDMARKS.items() for there in places
               if there == place and (landmark != "snowman" or season == "winter")
               and not (landmark == "bench" and action == "sit") and not ((flying or vehicle) and landmark not in TALL)]
    if on_its_own or not fitting or rng.random() > LANDMARK_SHARE:
        return "", ""
    landmark = rng.choice(fitting)
    relations = LANDMARKS[landmark][1]
    if flying:
        return landmark, "above"
    if vehicle:
        return landmark, "in front of"
    return landmark, rng.choice(relations)


def _choose(rng: random.Random, options: tuple, allowed: Callable) -> object:
    """One of the options that are allowed."""
    return rng.choice([option for option in options if allowed(option)])
