"""Five notes on a scene: the second tone, of people who jot down what they have drawn.

Captions (captions.py) are sentences. Notes are as short as they can be: no articles, no full stop, no capitals, and partly
other words for the same things ("lad jogging, seaside, dusk"). Like captions, they say nothing that the Scene does not.
"""

import random

from .world import SUBJECTS, Scene

# Each of the five people has another of these habits. Those with a landmark are for scenes that have one.
HABITS = ("{who} {doing}", "{who} {doing}, {where}", "{who} {doing}, {when}", "{who}, {where}", "{who} {doing}, {season}",
          "{where} in {season}, {who}", "{when}, {who} {doing}", "{who} {doing}, {where}, {when}")  # fmt: skip
LANDMARK_HABITS = ("{who} {landmark}", "{who} {doing} {landmark}", "{who} {landmark}, {when}")

NOUNS = {  # (one, several)
    "man": (("man", "men"), ("fellow", "fellows"), ("gentleman", "gentlemen")),
    "woman": (("woman", "women"), ("lady", "ladies"), ("gal", "gals")),
    "boy": (("boy", "boys"), ("lad", "lads"), ("youngster", "youngsters")),
    "girl": (("girl", "girls"), ("lass", "lasses"), ("youngster", "youngsters")),
    "dog": (("dog", "dogs"), ("hound", "hounds"), ("pooch", "pooches")),
    "cat": (("cat", "cats"), ("kitty", "kitties"), ("feline", "felines")),
    "horse": (("horse", "horses"), ("steed", "steeds")),
    "cow": (("cow", "cows"), ("dairy cow", "dairy cows")),
    "rabbit": (("rabbit", "rabbits"), ("bunny", "bunnies"), ("hare", "hares")),
    "bird": (("bird", "birds"), ("songbird", "songbirds")),
    "duck": (("duck", "ducks"),),
    "car": (("car", "cars"), ("automobile", "automobiles")),
    "bus": (("bus", "buses"), ("coach", "coaches")),
    "train": (("train", "trains"), ("locomotive", "locomotives")),
    "sailboat": (("sailboat", "sailboats"), ("yacht", "yachts")),
    "hot air balloon": (("hot air balloon", "hot air balloons"), ("balloon", "balloons")),
}
NUMBERS = {1: ("", "", "one", "single"), 2: ("two", "two", "pair of"), 3: ("three", "three", "trio of")}
SIZES = {"small": ("small", "tiny"), "big": ("big", "huge"), "": ("",)}
DRESSED = ("in", "in", "dressed in")

DOING = {  # {a thing} becomes the thing in its colour, or without
    "stand": ("standing", "posing"), "walk": ("walking", "wandering"), "run": ("running", "dashing", "sprinting"),
    "jump": ("jumping", "leaping", "in mid jump"), "sit": ("sitting", "seated"), "sleep": ("sleeping", "snoozing", "dozing"),
    "graze": ("grazing", "munching grass"), "bicycle": ("riding {bike}", "on {bicycle}", "pedalling {bike}"),
    "kite": ("flying {kite}", "with {kite}"), "ball": ("playing with {ball}", "with {ball}"),
    "balloon": ("with {balloon}", "holding {balloon}"), "umbrella": ("under {umbrella}", "with {umbrella}"),
    "sled": ("on {sled}", "sledding", "riding {sledge}"), "ski": ("skiing", "on skis"),
    "dog": ("walking dog", "with dog", "with brown dog"), "fly": ("flying", "soaring"),
    "perch": ("on branch", "perched on branch"), "swim": ("swimming", "paddling", "afloat"),
    "drive": ("driving", "cruising"), "parked": ("parked", "standing"), "pass": ("passing", "chugging along"),
    "sail": ("sailing", "under sail"), "float": ("floating", "drifting", "aloft"),
}  # fmt: skip
DOING_OF_GROUP = {("person", "sit"): ("sitting on bench", "seated on bench"), ("person", "walk"): ("walking", "strolling"),
                  ("person", "ball"): ("kicking {ball}", "with {ball}")}  # fmt: skip
WHERE = {
    "beach": ("beach", "seaside", "coast"), "park": ("park", "city park"), "field": ("field", "meadow", "farmland"),
    "lake": ("lake", "lakeside"), "street": ("street", "downtown"), "mountains": ("mountains", "highlands", "alps"),
    "forest": ("forest", "woods", "woodland"),
}  # fmt: skip
WHEN = {  # by Scene.light
    "day": ("sunny", "sunshine", "bright day"), "sunset": ("sunset", "dusk", "twilight"),
    "night": ("night", "moonlight", "after dark"), "cloudy": ("cloudy", "overcast"), "rain": ("rain", "wet weather"),
    "snow": ("snow", "snowfall"), "snow at night": ("snowy night", "snow at night"),
}  # fmt: skip
SEASON = {"spring": ("spring", "springtime"), "summer": ("summer", "summertime"), "autumn": ("autumn", "fall"),
          "winter": ("winter", "wintertime")}  # fmt: skip
LANDMARKS = {"palm tree": ("palm", "palm tree"), "house": ("house", "cottage"), "windmill": ("windmill", "mill")}
RELATIONS = {"next to": ("by", "beside"), "under": ("under", "below"), "in front of": ("in front of",),
             "above": ("above", "over")}  # fmt: skip


def jot(scene: Scene, rng: random.Random) -> list[str]:
    """Five different notes, each of another habit, in random order."""
    notes: list[str] = []
    for habit in rng.sample(HABITS + LANDMARK_HABITS * bool(scene.landmark), 5):
        note = habit.format_map(Words(scene, rng))
        while note in notes:
            note = habit.format_map(Words(scene, rng))
        notes.append(note)
    return notes


class Words(dict):
    """What stands for {who}, {doing} and so on in one note, chosen when it is asked for."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng

    def __missing__(self, part: str) -> str:
        scene, pick = self.scene, self.rng.choice
        if part == "landmark":
            return f"{pick(RELATIONS[scene.relation])} {pick(LANDMARKS.get(scene.landmark, (scene.landmark,)))}"
        if part in ("who", "doing"):
            return getattr(self, part)()
        return pick({"where": WHERE[scene.place], "when": WHEN[scene.light], "season": SEASON[scene.season]}[part])

    def who(self) -> str:
        """The subject: "two lads in red", "tiny black hound"."""
        scene, pick = self.scene, self.rng.choice
        noun = pick(NOUNS[scene.subject])[scene.count > 1]
        told = self.rng.random() < 0.6  # of the colour
        before, after = (scene.color if told else ""), ""
        if SUBJECTS[scene.subject].group == "person":
            before, after = "", f"{pick(DRESSED)} {scene.color}" if told else ""
        return " ".join(filter(None, (pick(NUMBERS[scene.count]), pick(SIZES[scene.size]), before, noun, after)))

    def doing(self) -> str:
        """What it does, and with what: "flying red kite"."""
        scene = self.scene
        group = SUBJECTS[scene.subject].group
        phrase = self.rng.choice(DOING_OF_GROUP.get((group, scene.action)) or DOING[scene.action])
        return phrase.replace("{", f"{scene.prop_color} " if self.rng.random() < 0.5 else "").replace("}", "")
