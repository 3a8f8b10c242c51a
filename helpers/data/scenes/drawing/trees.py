"""Trees, one unit high, standing on the origin; the season shows in their leaves."""

import random

from .palette import Palette, darker, lighter, mix
from .sketch import Sketch

TRUNK = (112, 78, 66)
BIRCH = (226, 220, 212)


def leafy(palette: Palette, rng: random.Random) -> Sketch:
    """A round tree: in blossom, green or golden by the season, bare in winter."""
    if palette.season_name == "winter":
        return bare(palette, rng)
    tree = Sketch()
    trunk = palette.land(TRUNK)
    tree.limb([(0, -0.01), (0.01, 0.25), (-0.01, 0.6)], [0.085, 0.055, 0.03], trunk)
    tree.limb([(0.0, 0.3), (0.08, 0.42), (0.14, 0.52)], [0.04, 0.03, 0.02], trunk)
    color = rng.choice(palette.leaves)
    crown = [(0.0, 0.74, 0.25), (-0.2, 0.6, 0.17), (0.2, 0.6, 0.18), (0.02, 0.52, 0.18)]
    crown = [(x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.02, 0.02), r) for x, y, r in crown]
    for x, y, r in crown:
        tree.disc(x + 0.015, y - 0.02, r, darker(color, 0.22))
    for x, y, r in crown:
        tree.disc(x - 0.015, y + 0.015, r * 0.93, color)
    for x, y, r in crown[:3]:
        tree.disc(x - 0.06, y + 0.06, r * 0.55, lighter(color, 0.16))
    return tree


def bare(palette: Palette, rng: random.Random) -> Sketch:
    """A tree without leaves, some snow on its boughs."""
    tree = Sketch()
    trunk = palette.land(TRUNK)
    tree.limb([(0, -0.01), (0.01, 0.3), (0, 0.6), (0.01, 0.9)], [0.08, 0.055, 0.035, 0.01], trunk)
    for y, reach, rise, width in ((0.3, 0.3, 0.3, 0.035), (0.38, -0.3, 0.28, 0.035), (0.52, 0.22, 0.24, 0.025),
                                  (0.56, -0.2, 0.26, 0.025), (0.68, 0.12, 0.16, 0.02)):
        reach *= rng.uniform(0.85, 1.15)
        tree.limb([(0, y), (reach * 0.55, y + rise * 0.4), (reach, y + rise)], [width, width * 0.75, 0.008], trunk)
        tree.limb([(reach * 0.5, y + rise * 0.38), (reach * 0.95, y + rise * 0.5)], [width * 0.6, 0.008], trunk)
        tree.line([(reach * 0.3, y + rise * 0.27), (reach * 0.6, y + rise * 0.5)], 0.014, palette.land((255, 255, 255)))
    return tree


def pine(palette: Palette, rng: random.Random, color: tuple | None = None) -> Sketch:
    """A pine of stacked triangles, snowed on in winter."""
    tree = Sketch()
    tree.box(0, -0.01, 0.07, 0.2, palette.land(TRUNK))
    color = color or palette.land(rng.choice(((38, 98, 92), (46, 112, 88), (58, 120, 100))))
    for y, half, height in ((0.12, 0.24, 0.42), (0.34, 0.2, 0.38), (0.58, 0.145, 0.42)):
        tree.polygon([(-half, y), (half, y), (0, y + height)], color)
        tree.polygon([(half * 0.05, y), (half, y), (0, y + height)], darker(color, 0.18))
        if palette.season_name == "winter":
            top = y + height
            tree.polygon([(0, top), (-half * 0.52, y + height * 0.48), (-half * 0.2, y + height * 0.58),
                          (0.01, y + height * 0.44), (half * 0.2, y + height * 0.6), (half * 0.46, y + height * 0.54)],
                         palette.land((250, 252, 255)))
    return tree


def pine_silhouette(color: tuple) -> Sketch:
    """A distant pine of one colour."""
    tree = Sketch()
    tree.polygon([(-0.03, 0), (-0.03, 0.1), (-0.2, 0.1), (-0.1, 0.36), (-0.15, 0.36), (-0.065, 0.64), (-0.09, 0.64),
                  (0, 1),
                  (0.09, 0.64), (0.065, 0.64), (0.15, 0.36), (0.1, 0.36), (0.2, 0.1), (0.03, 0.1), (0.03, 0)], color)
    return tree


def round_silhouette(color: tuple) -> Sketch:
    """A distant leafy tree of one colour."""
    tree = Sketch()
    tree.polygon([(-0.04, 0), (0.04, 0), (0.03, 0.4), (-0.03, 0.4)], darker(color, 0.3))
    tree.oval(0, 0.62, 0.3, 0.38, color)
    tree.oval(-0.07, 0.68, 0.17, 0.24, lighter(color, 0.1))
    return tree


def palm(palette: Palette, rng: random.Random) -> Sketch:
    """A palm leaning to the right, its leaves arching from the top."""
    tree = Sketch()
    trunk = palette.land((156, 112, 80))
    course = [(0, -0.01), (0.02, 0.25), (0.08, 0.52), (0.17, 0.76)]
    tree.limb(course, [0.075, 0.05, 0.042, 0.036], trunk)
    for share in (0.12, 0.24, 0.36, 0.48, 0.6):
        tree.line([(0.17 * share**1.7 - 0.03, 0.76 * share), (0.17 * share**1.7 + 0.025, 0.76 * share + 0.012)], 0.01,
                  darker(trunk, 0.25))
    x, y = course[-1]
    green = palette.land((46, 136, 96))
    for i, (dx, dy, drop) in enumerate(((-0.34, 0.02, -0.16), (0.34, 0.04, -0.14), (-0.3, 0.16, -0.02),
                                        (0.3, 0.17, 0.0),
                                        (-0.14, 0.2, 0.14), (0.16, 0.2,
                                                             0.13), (-0.2, -0.02, -0.24), (0.2, 0.0, -0.22))):
        leaf = darker(green, 0.2) if i % 2 else mix(green, (160, 200, 110), 0.2)
        tip = (x + dx * rng.uniform(0.95, 1.1), y + drop)
        middle = (x + dx * 0.55, y + dy + 0.03)
        tree.limb([(x, y), middle, tip], [0.03, 0.075, 0.006], leaf)
    for dx, dy in ((-0.025, -0.03), (0.03, -0.035)):
        tree.disc(x + dx, y + dy, 0.026, palette.land((126, 84, 58)))
    return tree
