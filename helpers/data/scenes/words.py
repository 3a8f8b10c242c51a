"""The words that captions of the scenes are made of: tables only, the grammar is in captions.py.

Where several words will do, the ones that more people would use are repeated.
"""

# --- Who: (one, several) ----------------------------------------------------------------------------------------------

NOUNS = {
    "man": (("man", "men"),) * 7 + (("guy", "guys"), ("person", "people")),
    "woman": (("woman", "women"),) * 7 + (("lady", "ladies"), ("person", "people")),
    "boy": (("boy", "boys"),) * 4 + (("young boy", "young boys"), ("little boy", "little boys"), ("child", "children"),
                                     ("kid", "kids")),
    "girl": (("girl", "girls"),) * 4 + (("young girl", "young girls"), ("little girl", "little girls"),
                                        ("child", "children"), ("kid", "kids")),
    "dog": (("dog", "dogs"),),
    "cat": (("cat", "cats"),),
    "horse": (("horse", "horses"),),
    "cow": (("cow", "cows"),) * 3 + (("spotted cow", "spotted cows"),),
    "rabbit": (("rabbit", "rabbits"), ("rabbit", "rabbits"), ("bunny", "bunnies")),
    "bird": (("bird", "birds"),),
    "duck": (("duck", "ducks"),),
    "car": (("car", "cars"),),
    "bus": (("bus", "buses"),),
    "train": (("train", "trains"), ("train", "trains"), ("steam train", "steam trains")),
    "sailboat": (("sailboat", "sailboats"), ("sailboat", "sailboats"), ("boat", "boats")),
    "hot air balloon": (("hot air balloon", "hot air balloons"),) * 2 + (("balloon", "balloons"),),
}
YOUNG = {"dog": ("puppy", "puppies"), "cat": ("kitten", "kittens"), "horse": ("pony", "ponies")}  # when small
GARMENTS = {"man": ("shirt", "shirts"), "woman": ("dress", "dresses"), "boy": ("shirt", "shirts"),
            "girl": ("dress", "dresses")}
WINTER_GARMENTS = (("coat", "coats"), ("coat", "coats"), ("jacket", "jackets"))
WEARING = ("in", "in", "wearing")
NUMBERS = {1: ("a",), 2: ("two", "two", "two", "two", "a couple of"), 3: ("three",)}
SIZES = {"small": ("small", "small", "little", "tiny"), "big": ("big", "big", "large"), "": ("",)}

# --- What they do: (verb, what follows it); {a kite} becomes the thing with or without its colour ---------------------

DOES = {
    "stand": (("stand", ""), ("stand", ""), ("stand", "still")),
    "walk": (("walk", ""), ("walk", ""), ("walk", ""), ("wander", ""), ("stroll", "")),
    "run": (("run", ""), ("run", ""), ("run", ""), ("race", ""), ("run", "fast")),
    "jump": (("jump", ""), ("jump", ""), ("jump", "in the air"), ("leap", "into the air"), ("jump", "high")),
    "sit": (("sit", ""), ("sit", ""), ("sit", "quietly"), ("wait", ""), ("look", "around")),
    "sleep": (("sleep", ""), ("sleep", ""), ("nap", ""), ("lie", "asleep"), ("take", "a nap"), ("rest", "")),
    "graze": (("eat", "grass"), ("eat", "grass"), ("graze", ""), ("eat", ""), ("feed", "on grass")),
    "bicycle": (("ride", "{a bicycle}"), ("ride", "{a bike}"), ("ride", "{a bike}"), ("cycle", ""),
                ("go", "for a bike ride")),
    "kite": (("fly", "{a kite}"), ("fly", "{a kite}"), ("play", "with {a kite}"), ("hold", "{a kite} on a string")),
    "ball": (("kick", "{a ball}"), ("kick", "{a ball}"), ("play", "with {a ball}"), ("play", "with {a ball}"),
             ("play", "soccer")),
    "balloon": (("hold", "{a balloon}"), ("hold", "{a balloon}"), ("carry", "{a balloon}"),
                ("walk", "with {a balloon}")),
    "umbrella": (("hold", "{a umbrella}"), ("walk", "under {a umbrella}"), ("walk", "with {a umbrella}"),
                 ("carry", "{a umbrella}")),
    "sled": (("ride", "{a sled}"), ("sit", "on {a sled}"), ("play", "on {a sled}"), ("go", "sledding")),
    "ski": (("ski", ""), ("ski", ""), ("ski", "fast"), ("go", "skiing")),
    "dog": (("walk", "a dog"), ("walk", "a dog"), ("walk", "a brown dog"), ("walk", "with a dog"),
            ("walk", "a dog on a leash"), ("take", "a dog for a walk")),
    "fly": (("fly", ""), ("fly", ""), ("glide", "")),
    "perch": (("sit", "on a branch"), ("sit", "on a branch"), ("perch", "on a branch"), ("rest", "on a branch")),
    "swim": (("swim", ""), ("swim", ""), ("float", ""), ("paddle", "")),
    "drive": (("drive", ""), ("drive", ""), ("travel", "")),
    "parked": (("be", "parked"), ("be", "parked"), ("stand", ""), ("wait", "")),
    "pass": (("travel", ""), ("travel", ""), ("roll", ""), ("pass", ""), ("go", "")),
    "sail": (("sail", ""), ("sail", ""), ("float", ""), ("glide", "")),
    "float": (("float", ""), ("float", ""), ("fly", ""), ("drift", ""), ("rise", "")),
}
# For one kind of subject, or one group of them, instead.
DOES_OF = {
    ("person", "sit"): (("sit", "on a bench"), ("sit", "on a bench"), ("rest", "on a bench"),
                        ("sit", "on a wooden bench"), ("take", "a break on a bench")),
    ("person", "walk"): (("walk", ""), ("walk", ""), ("stroll", ""), ("go", "for a walk"), ("take", "a walk")),
    ("person", "run"): (("run", ""), ("run", ""), ("run", ""), ("jog", ""), ("go", "for a run")),
    ("person", "jump"): (("jump", ""), ("jump", ""), ("jump", "in the air"), ("jump", "for joy"), ("leap", "up")),
    ("animal", "ball"): (("play", "with {a ball}"), ("play", "with {a ball}"), ("chase", "{a ball}"),
                         ("jump", "at {a ball}")),
    ("horse", "run"): (("run", ""), ("gallop", ""), ("gallop", ""), ("run", "fast")),
    ("rabbit", "jump"): (("hop", ""), ("hop", ""), ("jump", ""), ("hop", "along")),
}
# For those who name a person by what they have with them: "a boy with a red kite".
WITH = {"bicycle": "{a bike}", "kite": "{a kite}", "ball": "{a ball}", "balloon": "{a balloon}",
        "umbrella": "{a umbrella}", "sled": "{a sled}", "dog": "a dog"}

# --- Where ------------------------------------------------------------------------------------------------------------

STAYING, MOVING, IN_THE_AIR, ON_WATER = "staying", "moving", "in the air", "on water"
MOTION = {  # of an action, if it is not STAYING
    "walk": MOVING, "run": MOVING, "bicycle": MOVING, "dog": MOVING, "ski": MOVING, "drive": MOVING, "pass": MOVING,
    "fly": IN_THE_AIR, "float": IN_THE_AIR, "swim": ON_WATER, "sail": ON_WATER,
}
WHERE = {
    "beach": {
        STAYING: ("on the beach", "on the beach", "on the beach", "at the beach", "on the sand", "by the sea",
                  "by the ocean", "near the water"),
        MOVING: ("along the beach", "along the beach", "on the beach", "on the beach", "on the sand", "by the sea",
                 "by the ocean", "near the water"),
        IN_THE_AIR: ("over the beach", "over the beach", "over the sea", "by the ocean"),
        ON_WATER: ("on the sea", "on the sea", "near the beach", "on the ocean", "on the water"),
    },
    "park": {
        STAYING: ("in the park", "in the park", "in a park", "near some trees"),
        MOVING: ("in the park", "in the park", "through the park", "past some trees"),
        IN_THE_AIR: ("over the park", "over a park", "through the park", "past some trees"),
    },
    "field": {
        STAYING: ("in a field", "in a field", "in the field", "in a meadow", "in the countryside"),
        MOVING: ("through a field", "through a field", "across a field", "in a field", "through a meadow",
                 "through the countryside"),
        IN_THE_AIR: ("over a field", "over a field", "over the field", "over the hills", "over the countryside"),
    },
    "lake": {
        STAYING: ("by a lake", "by the lake", "next to a lake", "near the water", "at the lake"),
        MOVING: ("by a lake", "by the lake", "along a lake", "along the shore", "near the water"),
        IN_THE_AIR: ("over a lake", "over the lake", "above the water"),
        ON_WATER: ("on a lake", "on the lake", "on the lake", "on the water", "near the shore"),
    },
    "street": {
        STAYING: ("on the street", "on the street", "in the street", "in the city", "in front of some houses",
                  "in town"),
        MOVING: ("down the street", "down the street", "along the street", "on the street", "through the city",
                 "past some houses", "through town"),
    },
    "mountains": {
        STAYING: ("in the mountains", "in the mountains", "near the mountains", "in front of the mountains",
                  "in a valley"),
        MOVING: ("in the mountains", "in the mountains", "through the mountains", "near the mountains",
                 "through a valley"),
        IN_THE_AIR: ("over the mountains", "over the mountains", "near the mountains", "in front of the mountains",
                     "over a valley"),
    },
    "forest": {
        STAYING: ("in the forest", "in the forest", "in the woods", "among the trees", "near tall trees"),
        MOVING: ("through the forest", "through the forest", "in the forest", "through the woods", "past the trees"),
        IN_THE_AIR: ("through the forest", "in the forest", "through the woods", "among the trees"),
    },
}
UNDERFOOT = {  # the ground itself, for those on it who are not on a road
    "grass": {STAYING: ("on the grass", "in the grass"), MOVING: ("across the grass", "through the grass")},
    "snow": {STAYING: ("in the snow", "in the snow"),
             MOVING: ("through the snow", "through the snow", "across the snow")},
}
GRASSY = ("park", "field")
ON_A_ROAD = {STAYING: ("on a road", "by the road"), MOVING: ("down a road", "along a road", "on a road")}
OUTSIDE = ("outside", "outdoors")
BEHIND = {  # what is behind it all, and how it is
    "beach": ("the sea", "lies"), "park": ("trees", "stand"), "field": ("hills", "rise"), "lake": ("mountains", "rise"),
    "street": ("houses", "stand"), "mountains": ("mountains", "rise"), "forest": ("trees", "stand"),
}

# --- When: by light, and by season ------------------------------------------------------------------------------------

WHEN = {
    "day": ("on a sunny day", "on a sunny day", "in the sunshine", "on a bright day", "under a clear sky",
            "on a beautiful day"),
    "sunset": ("at sunset", "at sunset", "as the sun sets", "in the evening", "at dusk"),
    "night": ("at night", "at night", "in the moonlight", "under the moon", "under the stars"),
    "cloudy": ("on a cloudy day", "on a cloudy day", "under a cloudy sky"),
    "rain": ("in the rain", "in the rain", "on a rainy day", "while it rains"),
    "snow": ("in the falling snow", "while it snows", "on a snowy day"),
    "snow at night": ("on a snowy night", "while it snows at night"),
}
SKY = {  # how those begin who look at the sky first
    "day": ("the sun shines on", "the sun shines over"),
    "sunset": ("the sun sets behind", "the sun goes down behind"),
    "night": ("the moon shines on", "the moon shines over", "stars shine above"),
    "cloudy": ("clouds hang above", "clouds fill the sky above"),
    "rain": ("rain falls on", "dark clouds hang above"),
    "snow": ("snow falls on",),
    "snow at night": ("snow falls at night on",),
}
SEASON = {
    "spring": ("in spring",),
    "summer": ("in summer",),
    "autumn": ("in autumn", "in the fall"),
    "winter": ("in winter", "in winter", "on a cold winter day"),
}

# --- Landmarks --------------------------------------------------------------------------------------------------------

LANDMARKS = {
    "tree": ("tree", "tree", "tall tree"), "palm tree": ("palm tree",), "bench": ("bench", "wooden bench"),
    "house": ("house", "house", "small house"), "lighthouse": ("lighthouse",), "windmill": ("windmill",),
    "tent": ("tent",), "snowman": ("snowman",), "fence": ("fence", "picket fence"),
}
RELATIONS = {
    "next to": {STAYING: ("next to", "next to", "near", "beside"), MOVING: ("past", "past", "near", "next to")},
    "under": {STAYING: ("under", "under", "beneath"), MOVING: ("under", "past")},
    "in front of": {STAYING: ("in front of", "in front of", "near"), MOVING: ("past", "past", "in front of")},
    "above": {IN_THE_AIR: ("over", "over", "above")},
}
OPPOSITES = {"next to": "stands next to", "under": "grows above", "in front of": "stands behind",
             "above": "stands below"}

# --- Forms that rules do not give -------------------------------------------------------------------------------------

IRREGULAR_ING = {"lie": "lying", "ski": "skiing", "be": ""}
DOUBLED = ("run", "sit", "nap", "swim", "hop", "jog")
