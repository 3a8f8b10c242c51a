"""The sky: its colours by the time of day, sun, moon and stars, clouds, and the rain or snow that falls from it."""

import math
import random

from ..world import Scene
from .palette import Palette, mix
from .sketch import Color, Sketch

SNOW = (252, 253, 255)


CLOUDS = {"clear": (1, 2, 2), "cloudy": (6,), "rain": (7,), "snow": (5,)}
CLOUD_TOPS = {"clear": (255, 253, 248), "cloudy": (246, 246, 244), "rain": (150, 162, 176), "snow": (236, 240, 246)}


def sky(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random) -> None:
    """The sky down to where the land will cover it."""
    top, middle, low = palette.sky
    sketch.box(0.5, 0.66, 1, 0.34, top, middle)
    sketch.box(0.5, 0.34, 1, 0.33, middle, low)
    if scene.time == "night":
        _moon_and_stars(sketch, rng)
    elif scene.weather == "clear":
        _sun(sketch, rng, low=scene.time == "sunset")
    count = rng.choice(CLOUDS[scene.weather] if scene.time == "day" else CLOUDS["clear"])
    left = 0.42 if scene.weather == "clear" or scene.time == "night" else 0  # clear of the sun and the moon
    for i in range(count):
        _cloud(sketch, scene, palette, rng, left + (1 - left) * (i + rng.uniform(0.2, 0.8)) / count)


def _sun(sketch: Sketch, rng: random.Random, low: bool) -> None:
    if low:
        x, y, radius, color = rng.uniform(0.12, 0.4), rng.uniform(0.56, 0.62), 0.11, (255, 240, 190)
    else:
        x, y, radius, color = rng.uniform(0.1, 0.28), rng.uniform(0.8, 0.9), 0.07, (255, 246, 206)
    _glow(sketch, x, y, radius, color)
    sketch.disc(x, y, radius, color)


def _moon_and_stars(sketch: Sketch, rng: random.Random) -> None:
    for _ in range(45):
        sketch.box(rng.random(), rng.uniform(0.45, 1), 0.0055, 0.0055, (255, 250, 226, rng.randrange(110, 240)))
    x, y = rng.uniform(0.1, 0.3), rng.uniform(0.8, 0.9)
    _glow(sketch, x, y, 0.06, (226, 232, 255))
    sketch.disc(x, y, 0.06, (250, 246, 220))
    sketch.disc(x - 0.02, y + 0.012, 0.011, (228, 222, 196))
    sketch.disc(x + 0.022, y - 0.014, 0.015, (228, 222, 196))


def _glow(sketch: Sketch, x: float, y: float, radius: float, color: Color) -> None:
    for times, opacity in ((3.2, 26), (2.3, 34), (1.6, 46)):
        sketch.disc(x, y, radius * times, (*color, opacity))


def _cloud(sketch: Sketch, scene: Scene, palette: Palette, rng: random.Random, x: float) -> None:
    """Lobes on a flat base, lit from above."""
    y = rng.uniform(0.68, 0.93)
    width = rng.uniform(0.16, 0.26) * (1.0 if scene.weather == "clear" else 1.45)
    color = CLOUD_TOPS[scene.weather] if scene.time == "day" else mix(palette.sky[1], palette.sky[2], 0.55)
    lower = mix(color, palette.sky[1], 0.45)
    points = [(x - width * 0.5, y + width * 0.03), (x - width * 0.42, y), (x + width * 0.42, y),
              (x + width * 0.5, y + width * 0.03)]
    for angle in (24, 62, 98, 134, 160):
        reach, bump = width * rng.uniform(0.4, 0.47), rng.uniform(0.26, 0.38)
        points.append((x + reach * math.cos(math.radians(angle)),
                       y + width * bump * math.sin(math.radians(angle)) + width * 0.03))
    sketch.blob(points, color, lower)


def weather(scene: Scene, rng: random.Random) -> Sketch:
    """Rain or snow, in front of everything."""
    sketch = Sketch()
    if scene.weather == "rain":
        for _ in range(60):
            x, y, length = rng.random(), rng.random(), rng.uniform(0.03, 0.07)
            end = x - length * 0.25
            sketch.polygon([(x, y), (x + 0.004, y), (end + 0.004, y - length), (end, y - length)], (226, 238, 250, 130))
    elif scene.weather == "snow":
        for _ in range(70):
            sketch.disc(rng.random(), rng.random(), rng.uniform(0.003, 0.009), SNOW)
    return sketch
