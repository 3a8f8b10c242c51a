"""Everything behind the subject: the sky, and the land of each place.

All coordinates are in pictures: x from 0 to 1, y from 0 at the lower edge to 1 at the top. The light comes from the
left, so what looks away from it, to the right, is darker.
"""

import math
import random

from ..world import Scene
from . import trees
from .land import hill, peaks, ridge, tree_line, tufts, water
from .palette import Palette, darker, mix
from .sketch import Sketch
from .sky import sky
from .street import street

HORIZON = 0.46


def backdrop(scene: Scene, palette: Palette, rng: random.Random) -> Sketch:
    """Sky and land of the scene."""
    sketch = Sketch()
    sky(sketch, scene, palette, rng)
    sketch.box(0.5, 0, 1, 0.36, palette.ground[0])
    LANDS[scene.place](sketch, scene, palette, rng)
    return sketch


def _field(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    hill(sketch, rng, 0.53, 0.025, 1.1, palette.far, mix(palette.far, palette.sky[2], 0.5), 0.4)
    line = hill(sketch, rng, 0.47, 0.025, 0.9, palette.mid, mix(palette.mid, palette.sky[2], 0.35), 0.34)
    tree_line(sketch, rng, line, darker(palette.mid, 0.22), 0.07, 0.45, pines=rng.random() < 0.3)
    line = hill(sketch, rng, 0.4, 0.02, 0.7, palette.near, palette.ground[0], 0.3)
    for i in range(-4, 5):  # rows of the ploughed or sown land, meeting far away
        x = 0.5 + i * 0.22
        sketch.polygon([(0.56 + i * 0.045, 0.385), (0.565 + i * 0.045, 0.385), (x + 0.07, 0.2), (x, 0.2)],
                       (*darker(palette.near, 0.2), 46))
    hill(sketch, rng, 0.3, 0.012, 0.6, *palette.ground)
    tufts(sketch, palette, rng, 0.01, 0.26, 16)


def _park(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    line = hill(sketch, rng, 0.46, 0.02, 1.2, palette.far, mix(palette.far, palette.sky[2], 0.4), 0.34)
    tree_line(sketch, rng, line, mix(palette.far, palette.leaves[0], 0.35), 0.16, 0.8, pines=False)
    line = hill(sketch, rng, 0.38, 0.012, 0.8, palette.near, palette.ground[0], 0.2)
    for x in (rng.uniform(-0.02, 0.16), rng.uniform(0.8, 1.0), rng.uniform(0.3, 0.6)):
        sketch.add(trees.leafy(palette, rng), x, 0.35, rng.uniform(0.3, 0.42))
    hill(sketch, rng, 0.31, 0.008, 0.6, *palette.ground)
    path = palette.land((236, 220, 190)) if scene.season != "winter" else mix(palette.ground[0], palette.ground[1], 0.9)
    sketch.polygon([(0.62, 0.315), (0.67, 0.315), (0.74, 0.27), (0.66, 0.22), (0.5, 0.17), (0.62, 0.08), (0.98, -0.01),
                    (0.3, -0.01), (0.24, 0.1), (0.3, 0.17), (0.52, 0.24), (0.64, 0.28)], path, darker(path, 0.08))
    tufts(sketch, palette, rng, 0.01, 0.27, 10)


def _beach(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    sketch.blob([(0.62, HORIZON - 0.02), (0.72, HORIZON + 0.035), (0.84, HORIZON + 0.06), (1.05, HORIZON + 0.09),
                 (1.05, HORIZON - 0.02)], palette.far, mix(palette.far, palette.sky[2], 0.4))
    shore = 0.05 if scene.subject == "sailboat" else 0.25
    water(sketch, palette, rng, HORIZON, shore - 0.04)
    sand = palette.land((250, 226, 176)), palette.land((226, 184, 128))
    line = ridge(rng, shore, 0.012, 1.1)
    foam = palette.land((253, 253, 252))
    for lift, color in ((0.034, (*foam, 90)), (0.018, foam), (0.006, darker(sand[0], 0.16))):  # surf and wet sand
        sketch.polygon([*((x, y + lift) for x, y in line), (1.02, 0), (-0.02, 0)], color)
    sketch.polygon([*line, (1.02, 0), (-0.02, 0)], *sand)
    for _ in range(9):
        x, y = rng.random(), rng.uniform(0.0, shore - 0.03)
        sketch.oval(x, y, 0.02, 0.005, darker(sand[1], 0.1))
    x, y = rng.uniform(0.05, 0.95), rng.uniform(0.03, 0.06)
    star = [(x + r * math.cos(a), y + r * 0.6 * math.sin(a)) for a, r in
            ((math.tau * k / 10, 0.022 if k % 2 else 0.009) for k in range(10))]
    sketch.polygon(star, palette.land((236, 120, 92)))


def _lake(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    peaks(sketch, palette, rng, 0.46, 0.24, 4)
    line = hill(sketch, rng, 0.5, 0.015, 1.4, palette.mid, mix(palette.mid, palette.sky[2], 0.35), 0.42)
    tree_line(sketch, rng, line, darker(palette.mid, 0.25), 0.09, 0.75, pines=True)
    wet = scene.subject == "sailboat" or scene.action == "swim"
    shore = 0.02 if wet else 0.24
    water(sketch, palette, rng, HORIZON, 0)
    sketch.box(0.5, HORIZON - 0.008, 1.02, 0.012, darker(palette.mid, 0.3))
    for x, _ in line[::3]:  # the far shore mirrored
        sketch.oval(x, HORIZON - 0.03, 0.05, 0.012, (*darker(palette.mid, 0.2), 70))
    if not wet:
        hill(sketch, rng, shore + 0.012, 0.012, 0.8, palette.land((226, 206, 164)), palette.ground[0])
        hill(sketch, rng, shore, 0.012, 0.8, *palette.ground)
        tufts(sketch, palette, rng, 0.01, shore - 0.02, 12)
    for side in (0.02, 0.96):
        _reeds(sketch, palette, rng, side, shore - 0.03)


def _reeds(sketch: Sketch, palette: Palette, rng: random.Random, x: float, y: float) -> None:
    green = darker(palette.ground[1], 0.22)
    for _ in range(6):
        foot, height = x + rng.uniform(-0.045, 0.045), rng.uniform(0.08, 0.17)
        lean = rng.uniform(-0.03, 0.03)
        sketch.limb([(foot, y), (foot + lean * 0.4, y + height * 0.6), (foot + lean, y + height)], [0.01, 0.009, 0.004],
                    green)
        if rng.random() < 0.5:
            sketch.limb([(foot + lean, y + height - 0.01), (foot + lean * 1.2, y + height + 0.03)], [0.014, 0.014],
                        palette.land((122, 82, 60)))


def _mountains(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    peaks(sketch, palette, rng, 0.4, 0.46, 3)
    line = hill(sketch, rng, 0.42, 0.03, 1.0, palette.mid, mix(palette.mid, palette.sky[2], 0.4), 0.26)
    tree_line(sketch, rng, line, darker(palette.mid, 0.28), 0.13, 0.7, pines=True)
    hill(sketch, rng, 0.34, 0.02, 0.7, palette.near, palette.ground[0], 0.2)
    for x in (rng.uniform(0.0, 0.1), rng.uniform(0.12, 0.2), rng.uniform(0.86, 1.0)):
        sketch.add(trees.pine(palette, rng), x, 0.28, rng.uniform(0.22, 0.34))
    hill(sketch, rng, 0.27, 0.012, 0.6, *palette.ground)
    tufts(sketch, palette, rng, 0.01, 0.24, 12)


def _forest(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    green = palette.land(mix(palette.season.leaves[0], (60, 130, 110), 0.4))
    for y, size, haze in ((0.4, 0.42, 0.7), (0.36, 0.5, 0.5), (0.32, 0.6, 0.28)):
        color = mix(green, palette.sky[2], haze)
        x = rng.uniform(-0.1, 0)
        while x < 1.08:
            sketch.add(trees.pine_silhouette(color), x, y - 0.02, size * rng.uniform(0.75, 1.05))
            x += rng.uniform(0.09, 0.15)
        hill(sketch, rng, y, 0.008, 0.8, color, mix(color, palette.ground[0], 0.5), y - 0.1)
    for x in (rng.uniform(-0.02, 0.08), rng.uniform(0.9, 1.02), rng.uniform(0.2, 0.3)):
        if rng.random() < 0.5:
            sketch.add(trees.pine(palette, rng), x, 0.27, rng.uniform(0.55, 0.7))
        else:
            sketch.add(trees.leafy(palette, rng), x, 0.27, rng.uniform(0.6, 0.75))
    hill(sketch, rng, 0.28, 0.012, 0.7, *palette.ground)
    tufts(sketch, palette, rng, 0.01, 0.25, 12)
    for _ in range(3 if scene.season in ("summer", "autumn") else 0):
        x, y = rng.random(), rng.uniform(0.03, 0.2)
        sketch.box(x, y, 0.01, 0.02, palette.land((246, 236, 220)))
        sketch.blob([(x - 0.02, y + 0.016), (x + 0.02, y + 0.016), (x + 0.012, y + 0.032), (x - 0.012, y + 0.032)],
                    palette.land((206, 70, 56)))


LANDS = {"field": _field, "park": _park, "beach": _beach, "lake": _lake, "mountains": _mountains, "forest": _forest,
         "street": street}
