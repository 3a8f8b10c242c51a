"""The street: a row of town houses before the skyline, and a road, or a pavement where nobody drives."""

import random

from ..world import Scene
from .palette import Palette, darker, lighter, mix
from .sketch import Sketch

FACADES = ((236, 196, 160), (222, 168, 148), (240, 222, 184), (178, 198, 196), (206, 180, 190), (196, 206, 176),
           (232, 206, 200))
ROOFS = ((166, 92, 80), (120, 100, 110), (144, 84, 76))
AWNINGS = ((196, 92, 84), (84, 140, 136), (226, 174, 92))
LAMPLIGHT = (255, 220, 130)


def street(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    """Houses up to the skyline and the street before them."""
    x = -0.03
    while x < 1.02:  # the skyline far behind
        width = rng.uniform(0.07, 0.12)
        sketch.box(x + width / 2, 0.3, width, rng.uniform(0.3, 0.46), palette.far,
                   mix(palette.far, palette.sky[2], 0.6))
        x += width + rng.uniform(-0.01, 0.02)
    x = rng.uniform(-0.1, -0.02)
    while x < 1.02:
        width = rng.uniform(0.15, 0.21)
        _town_house(sketch, palette, rng, x + width / 2, width - 0.006, rng.uniform(0.22, 0.33))
        x += width
    _ground(sketch, scene, palette)


def _ground(sketch: Sketch, scene: Scene, palette: Palette) -> None:
    """A wide road, or where nobody drives, a narrower one beyond a pavement."""
    walk = mix(palette.ground[0], palette.land((222, 214, 206)), 1 if scene.season != "winter" else 0.2)
    road = palette.land((122, 124, 136)) if scene.season != "winter" else palette.land((186, 196, 210))
    line = palette.land((244, 240, 228))
    sketch.box(0.5, 0.22, 1.02, 0.09, lighter(walk, 0.1), walk)
    sketch.box(0.5, 0.212, 1.02, 0.012, darker(walk, 0.25))
    sketch.box(0.5, -0.01, 1.02, 0.225, road, darker(road, 0.1))
    if scene.action in ("drive", "parked", "bicycle"):
        for i in range(-1, 5):
            left = i * 0.26 + 0.04
            sketch.polygon([(left, 0.03), (left + 0.14, 0.03), (left + 0.145, 0.045), (left + 0.01, 0.045)], line)
        return
    for i in range(5):  # the road is narrower, and this side of it is paved
        sketch.box(0.1 + i * 0.24, 0.205, 0.11, 0.005, line)
    sketch.box(0.5, -0.01, 1.02, 0.2, walk, darker(walk, 0.08))
    sketch.box(0.5, 0.178, 1.02, 0.012, darker(walk, 0.22))
    joint = darker(walk, 0.1)
    for y in (0.13, 0.065):
        sketch.box(0.5, y, 1.02, 0.004, joint)
    for i in range(-5, 6):
        x = 0.5 + i * 0.13
        sketch.polygon([(x, 0.178), (x + 0.004, 0.178), (x + i * 0.07 + 0.006, -0.01), (x + i * 0.07, -0.01)], joint)


def _town_house(sketch: Sketch, palette: Palette, rng: random.Random, x: float, width: float, height: float) -> None:
    """A narrow house with a mansard roof, rows of windows and a shop below."""
    night = palette.light_name == "night"
    base, eaves = 0.3, 0.3 + height
    wall = mix(palette.land(rng.choice(FACADES)), palette.sky[2], 0.12)
    roof = palette.land(rng.choice(ROOFS) if palette.season_name != "winter" else (244, 248, 252))
    sketch.box(x, base, width, height, wall, mix(wall, palette.ground[1], 0.1))
    sketch.polygon([(x - width * 0.54, eaves), (x + width * 0.54, eaves), (x + width * 0.1, eaves + width * 0.42),
                    (x - width * 0.1, eaves + width * 0.42)], roof, darker(roof, 0.12))
    frame, dark_glass = lighter(wall, 0.4), mix(palette.sky[0], palette.land((90, 110, 130)), 0.55)
    for row in range(1, round(height / 0.085)):
        for column in (-0.28, 0, 0.28):
            middle, sill = x + column * width, base + 0.02 + row * 0.082
            sketch.box(middle, sill - 0.004, width * 0.2, 0.056, frame)
            sketch.box(middle, sill, width * 0.15, 0.048, LAMPLIGHT if night and rng.random() < 0.6 else dark_glass)
    awning = palette.land(rng.choice(AWNINGS))
    sketch.box(x, base, width * 0.8, 0.05, LAMPLIGHT if night else dark_glass)
    sketch.polygon([(x - width * 0.45, base + 0.045), (x + width * 0.45, base + 0.045), (x + width * 0.4, base + 0.07),
                    (x - width * 0.4, base + 0.07)], awning, darker(awning, 0.15))
