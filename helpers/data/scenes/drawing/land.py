"""Pieces that the land of every place is put together from, in coordinates of the picture."""

import math
import random

from . import trees
from .palette import Palette, darker, lighter, mix
from .sketch import Point, Sketch

SNOW = (252, 253, 255)


def ridge(rng: random.Random, y: float, swing: float, waves: float) -> list[Point]:
    """A wavy line across the picture at about height y."""
    phase, second = rng.uniform(0, math.tau), rng.uniform(0, math.tau)
    steps = 24
    line = []
    for x in (-0.02 + 1.04 * i / steps for i in range(steps + 1)):
        turns = math.tau * waves * x
        line.append((x, y + swing * (math.sin(turns + phase) + 0.5 * math.sin(2.3 * turns + second))))
    return line


def hill(sketch: Sketch, rng: random.Random, y: float, swing: float, waves: float, color: tuple, foot: tuple,
         base: float = 0) -> list[Point]:
    """Land up to a wavy line, fading into the colour `foot` downwards; returns the line."""
    line = ridge(rng, y, swing, waves)
    sketch.polygon([*line, (1.02, base), (-0.02, base)], color, foot)
    return line


def peaks(sketch: Sketch, palette: Palette, rng: random.Random, base: float, height: float, count: int) -> None:
    """Mountains with a lit and a shaded side and snow on top."""
    lit, shade = palette.far, darker(palette.far, 0.22)
    snow = mix(palette.land(SNOW), palette.sky[2], 0.15)
    for i in sorted(range(count), key=lambda i: -abs(i - count / 2)):
        x = (i + 0.5 + rng.uniform(-0.2, 0.2)) / count
        tall = height * rng.uniform(0.68, 1)
        half = tall * rng.uniform(0.95, 1.2)
        s = rng.uniform(0.3, 0.42)  # share of the mountain that is under snow

        def at(*points: Point, x: float = x, tall: float = tall, half: float = half) -> list[Point]:
            """From coordinates of the mountain, whose summit is (0, 1) and whose foot goes from (-1, 0) to (1, 0)."""
            return [(x + u * half, base + v * tall) for u, v in points]

        sketch.polygon(at((-1, 0), (0, 1), (1, 0)), lit, mix(lit, palette.sky[2], 0.45))
        sketch.polygon(at((0, 1), (-0.06, 0.8), (0.1, 0.6), (0.05, 0), (1, 0)), shade, mix(shade, palette.sky[2], 0.4))
        shaded = [(0, 1), (s, 1 - s), (s * 0.62, 1 - s * 0.8), (s * 0.3, 1 - s * 1.15)]
        lit_side = [(0, 1 - s * 0.8), (-s * 0.4, 1 - s * 1.1), (-s * 0.6, 1 - s * 0.84), (-s, 1 - s)]
        sketch.polygon(at(*shaded, *lit_side), snow)
        sketch.polygon(at(*shaded, (-0.02, 1 - s * 0.5)), mix(snow, shade, 0.3))


def tree_line(sketch: Sketch, rng: random.Random, line: list[Point], color: tuple, size: float,
              share: float, pines: bool) -> None:
    """Distant trees along a line of the land, leaving gaps."""
    tree = trees.pine_silhouette(color) if pines else trees.round_silhouette(color)
    for x, y in line:
        if rng.random() < share:
            sketch.add(tree, x + rng.uniform(-0.02, 0.02), y - 0.012, size * rng.uniform(0.7, 1.15))


def tufts(sketch: Sketch, palette: Palette, rng: random.Random, low: float, high: float, count: int) -> None:
    """Grass and flowers (or in winter, drifts), larger the nearer they are."""
    for _ in range(count):
        x, y = rng.random(), rng.uniform(low, high)
        size = 0.02 + 0.035 * (1 - y / 0.4)
        if palette.season_name == "winter":
            sketch.oval(x, y, size * 1.8, size * 0.2, mix(palette.ground[0], palette.ground[1], 0.8))
            continue
        blade = darker(mix(palette.ground[0], palette.ground[1], 1 - y), 0.14)
        for lean in (-0.4, 0.0, 0.45):
            sketch.polygon([(x - size * 0.12, y), (x + size * 0.12, y),
                            (x + lean * size, y + size * (1 - abs(lean) / 2))], blade)
        if rng.random() < 0.4:
            sketch.disc(x + size * 0.4, y + size * 0.75, size * 0.2, rng.choice(palette.flowers))


def water(sketch: Sketch, palette: Palette, rng: random.Random, top: float, low: float) -> None:
    """Water between two heights: the sky upside down, with streaks of light."""
    far = mix(palette.sky[2], palette.land((86, 168, 196)), 0.55)
    near = mix(palette.sky[0], palette.land((40, 120, 164)), 0.6)
    sketch.box(0.5, low, 1.02, top - low, far, near)
    for _ in range(16):
        y = rng.uniform(low, top - 0.005)
        size = 0.03 + 0.25 * (top - y)
        x = rng.random()
        sketch.line([(x - size, y), (x + size, y)], 0.003 + 0.012 * (top - y), (*lighter(far, 0.3), 110))
