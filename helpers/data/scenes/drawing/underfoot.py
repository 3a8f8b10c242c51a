"""What a subject is on, if not simply on the ground: a road, rails or a branch."""

import random

from ..world import Scene
from .palette import Palette, darker, lighter
from .sketch import Sketch

BRANCH = 0.36  # height of the branch in the picture, where birds sit on it


def underfoot(scene: Scene, palette: Palette, rng: random.Random) -> Sketch:
    """A road, rails or a branch, where the subject needs one."""
    sketch = Sketch()
    if scene.subject in ("car", "bus") and scene.place != "street":
        _road(sketch, scene, palette)
    elif scene.subject == "train":
        _rails(sketch, palette)
    elif scene.action == "perch":
        _branch(sketch, scene, palette, rng)
    return sketch


def _road(sketch: Sketch, scene: Scene, palette: Palette) -> None:
    road = palette.land((148, 142, 146) if scene.season != "winter" else (190, 200, 214))
    sketch.box(0.5, 0.035, 1.02, 0.165, lighter(road, 0.08), road)
    for y in (0.035, 0.194):
        sketch.box(0.5, y, 1.02, 0.008, darker(road, 0.25))
    for i in range(5):
        sketch.box(0.1 + i * 0.25, 0.06, 0.12, 0.012, palette.land((246, 242, 230)))


def _rails(sketch: Sketch, palette: Palette) -> None:
    sketch.box(0.5, 0.05, 1.02, 0.05, darker(palette.ground[1], 0.25))
    for i in range(22):
        sketch.box(i * 0.05, 0.058, 0.022, 0.034, palette.land((112, 84, 74)))
    sketch.box(0.5, 0.09, 1.02, 0.013, palette.land((90, 88, 98)))
    sketch.box(0.5, 0.098, 1.02, 0.005, palette.land((210, 210, 216)))


TWIGS = ((0.97, 0.06), (0.9, -0.1), (0.84, 0.07), (0.78, -0.1), (0.16, 0.21), (0.22, 0.14), (0.11, 0.15), (0.92, -0.02))


def _branch(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    """A branch that reaches into the picture, with leaves, or in winter with snow."""
    wood = palette.land((110, 80, 70))
    y = BRANCH
    sketch.limb([(-0.05, y - 0.05), (0.25, y - 0.01), (0.6, y), (0.97, y + 0.05)], [0.075, 0.055, 0.045, 0.012], wood)
    sketch.limb([(0.62, y), (0.78, y - 0.07), (0.9, y - 0.09)], [0.03, 0.018, 0.008], wood)
    sketch.limb([(0.12, y - 0.02), (0.2, y + 0.1), (0.16, y + 0.2)], [0.035, 0.02, 0.008], wood)
    for x, rise in TWIGS:
        if scene.season == "winter":
            sketch.oval(x, y + rise - 0.02, 0.03, 0.009, palette.land((252, 253, 255)))
        else:
            sketch.oval(x, y + rise, 0.045, 0.02, rng.choice(palette.leaves), rng.uniform(-50, 50))
