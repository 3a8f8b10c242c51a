"""One subject of a scene with what its action needs: a person under an umbrella, a dog with its ball."""

import random
from collections.abc import Callable

from ..world import SUBJECTS, Scene
from . import animals, people, props
from .palette import PAINT, Palette
from .sketch import Color, Sketch
from .small_animals import SMALL_ANIMALS
from .vehicles import VEHICLES


def subject(scene: Scene, palette: Palette, rng: random.Random) -> Sketch:
    """One of the subjects, facing right, on y = 0; how large a unit is depends on its kind."""
    kind, action, paint = scene.subject, scene.action, PAINT[scene.color]
    prop = PAINT[scene.prop_color] if scene.prop_color else (0, 0, 0)
    if kind in VEHICLES:
        return VEHICLES[kind](paint, palette, action == "drive")
    if SUBJECTS[kind].group == "person":
        figure = people.person(kind, action, paint, palette, rng)
        return WITH_PROP[action](figure, prop, palette, rng) if action in WITH_PROP else figure
    look = animals.coat(scene.color, paint, palette, rng)
    figure = SMALL_ANIMALS[kind](action, look) if kind in SMALL_ANIMALS else animals.quadruped(kind, action, look)
    if action == "ball":
        figure.add(props.ball(prop, palette, 0.13), 0.78, 0.0)
    return figure


def _on_bicycle(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    rise = 0.1
    at = {name: (x, y + rise) for name, (x, y) in figure.anchors.items()}
    whole = Sketch()
    whole.add(props.bicycle(prop, palette, at["hip"], at["hand"], (at["foot"], at["far foot"])))
    whole.add(figure, 0, rise)
    return whole


def _with_kite(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    whole = Sketch()
    x, y = 0.92, 1.28
    whole.add(props.string(figure.anchors["hand"], (x, y), 0.1, palette))
    whole.add(props.kite(prop, palette), x, y, 0.52, -18)
    whole.add(figure)
    return whole


def _with_ball(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    x, y = figure.anchors["foot"]
    figure.add(props.ball(prop, palette, 0.15), x + 0.32, y + 0.02)
    return figure


def _with_balloon(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    whole = Sketch()
    whole.add(props.balloon(prop, palette), *figure.anchors["far hand"], 0.32)
    whole.add(figure)
    return whole


def _under_umbrella(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    whole = Sketch()
    x, y = figure.anchors["hand"]
    whole.add(props.umbrella(prop, palette), x, y, 0.92, 8)
    whole.add(figure)
    return whole


def _on_sled(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    whole = Sketch()
    x, y = figure.anchors["hip"]
    whole.add(props.sled(prop, palette), x + 0.2, 0, 1.15)
    whole.add(figure, 0, 0.23 - y)
    return whole


def _on_skis(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    at = figure.anchors
    whole = Sketch()
    whole.add(props.skis(palette, (at["far foot"], at["foot"]), (at["far hand"], at["hand"])))
    whole.add(figure)
    return whole


def _with_dog(figure: Sketch, prop: Color, palette: Palette, rng: random.Random) -> Sketch:
    look = animals.coat("brown", PAINT["brown"], palette, rng)
    whole = Sketch()
    whole.add(animals.quadruped("dog", "walk", look), 0.86, 0, 0.62)
    whole.add(props.string(figure.anchors["hand"], (1.0, 0.42), 0.04, palette, 0.012))
    whole.add(figure)
    return whole


WITH_PROP: dict[str, Callable] = {
    "bicycle": _on_bicycle, "kite": _with_kite, "ball": _with_ball, "balloon": _with_balloon,
    "umbrella": _under_umbrella, "sled": _on_sled, "ski": _on_skis, "dog": _with_dog,
}
