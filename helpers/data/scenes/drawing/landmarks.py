"""What a subject may stand next to, under or in front of: one unit high, standing on the origin."""

import random

from . import props, trees
from .palette import Palette, darker, lighter, mix
from .sketch import Color, Sketch

WOOD = (150, 102, 72)
STONE = (236, 226, 210)
SNOW = (252, 253, 255)


def _lit_window(palette: Palette) -> Color:
    return (255, 222, 130) if palette.light_name == "night" else mix(palette.land((104, 140, 160)), palette.sky[1], 0.4)


def _roof(palette: Palette, color: Color) -> Color:
    return palette.land(SNOW) if palette.season_name == "winter" else palette.land(color)


def house(palette: Palette, rng: random.Random) -> Sketch:
    """A cottage with a gable, a chimney and a door."""
    sketch = Sketch()
    wall = palette.land(rng.choice(((244, 226, 196), (232, 206, 188), (214, 220, 214))))
    roof = _roof(palette, (184, 92, 72))
    sketch.box(0.34, 0.66, 0.11, 0.3, palette.land((166, 108, 92)))
    sketch.box(0, 0, 1.1, 0.52, wall, darker(wall, 0.08))
    sketch.polygon([(0.2, 0), (0.55, 0), (0.55, 0.52), (0.2, 0.52)], (*darker(wall, 0.5), 30))
    sketch.polygon([(-0.66, 0.48), (0.66, 0.48), (0.4, 0.9), (-0.4, 0.9)], roof, darker(roof, 0.1))
    sketch.polygon([(-0.66, 0.48), (0.66, 0.48), (0.64, 0.52), (-0.64, 0.52)], darker(roof, 0.2))
    door = palette.land((120, 84, 70))
    sketch.box(0, 0, 0.2, 0.36, door)
    sketch.disc(0.06, 0.17, 0.018, palette.land((240, 206, 110)))
    for x in (-0.34, 0.34):
        sketch.box(x, 0.18, 0.24, 0.22, palette.land((250, 246, 238)))
        sketch.box(x, 0.195, 0.2, 0.19, _lit_window(palette))
        sketch.line([(x, 0.195), (x, 0.385)], 0.014, palette.land((250, 246, 238)))
        sketch.line([(x - 0.1, 0.29), (x + 0.1, 0.29)], 0.014, palette.land((250, 246, 238)))
    return sketch


def lighthouse(palette: Palette, rng: random.Random) -> Sketch:
    """A striped tower whose lamp shines at night."""
    sketch = Sketch()
    white, red = palette.land((250, 246, 238)), palette.land((210, 80, 66))
    for i in range(5):
        low, high = i * 0.145, (i + 1) * 0.145
        half = [0.15 - 0.09 * y for y in (low, high)]
        color = white if i % 2 else red
        sketch.polygon([(-half[0], low), (half[0], low), (half[1], high), (-half[1], high)], color)
        sketch.polygon([(half[0] * 0.25, low), (half[0], low), (half[1], high), (half[1] * 0.25, high)],
                       darker(color, 0.14))
    sketch.box(0, 0.72, 0.25, 0.03, palette.land((80, 76, 88)))
    lamp = (255, 240, 170) if palette.light_name in ("night", "sunset") else palette.land((220, 236, 240))
    if palette.light_name == "night":
        for slope in (0.1, -0.06):
            sketch.polygon([(0, 0.8), (0.9, 0.8 + slope + 0.06), (0.9, 0.8 + slope - 0.06)], (255, 240, 170, 60))
    sketch.box(0, 0.75, 0.13, 0.12, lamp)
    for x in (-0.065, 0, 0.065):
        sketch.line([(x, 0.75), (x, 0.87)], 0.012, palette.land((80, 76, 88)))
    sketch.blob([(-0.1, 0.87), (0.1, 0.87), (0.04, 0.96), (0, 1.0), (-0.04, 0.96)], red)
    sketch.box(0, 0.0, 0.06, 0.1, palette.land((92, 80, 84)))
    return sketch


def windmill(palette: Palette, rng: random.Random) -> Sketch:
    """A tower mill with four sails."""
    sketch = Sketch()
    wall, cap = palette.land(STONE), palette.land((160, 92, 76))
    sketch.polygon([(-0.2, 0), (0.2, 0), (0.125, 0.62), (-0.125, 0.62)], wall, darker(wall, 0.06))
    sketch.polygon([(0.05, 0), (0.2, 0), (0.125, 0.62), (0.03, 0.62)], darker(wall, 0.14))
    sketch.blob([(-0.15, 0.61), (0.15, 0.61), (0.1, 0.73), (0, 0.78), (-0.1, 0.73)], cap)
    sketch.box(0, 0, 0.1, 0.17, palette.land((120, 84, 66)))
    for y in (0.3, 0.46):
        sketch.box(0, y, 0.06, 0.07, _lit_window(palette))
    hub, turn = (0, 0.64), rng.uniform(20, 70)
    for k in range(4):
        sail = Sketch()
        sail.line([(0, 0), (0, 0.4)], 0.018, palette.land(WOOD))
        sail.polygon([(0.01, 0.08), (0.09, 0.08), (0.09, 0.4), (0.01, 0.4)], palette.land((252, 248, 238)))
        for y in (0.16, 0.24, 0.32):
            sail.line([(0.0, y), (0.09, y)], 0.008, palette.land(WOOD))
        sketch.add(sail, *hub, 1, turn + 90 * k)
    sketch.disc(*hub, 0.028, palette.land(WOOD))
    return sketch


def tent(palette: Palette, rng: random.Random) -> Sketch:
    """A ridge tent, its flap open, lit from within at night."""
    sketch = Sketch()
    cloth = palette.land(rng.choice(((232, 160, 72), (98, 150, 142), (214, 120, 88))))
    inside = (255, 222, 140) if palette.light_name == "night" else darker(cloth, 0.5)
    sketch.polygon([(-0.85, 0), (-0.2, 0.98), (0.4, 0.98), (0.95, 0)], darker(cloth, 0.18))
    sketch.polygon([(-0.85, 0), (-0.2, 1.0), (0.45, 0)], cloth)
    sketch.polygon([(-0.42, 0), (-0.2, 0.78), (0.06, 0)], inside)
    sketch.polygon([(-0.2, 0.78), (0.06, 0), (0.2, 0)], lighter(cloth, 0.25))
    sketch.line([(-0.2, 1.0), (-0.2, 1.06)], 0.02, palette.land(WOOD))
    sketch.line([(0.4, 0.97), (1.1, 0.0)], 0.012, palette.land((240, 236, 226)))
    return sketch


def snowman(palette: Palette, rng: random.Random) -> Sketch:
    """Three snowballs, a hat, a scarf and a carrot."""
    sketch = Sketch()
    white = palette.figure((252, 253, 255))
    shade = mix(white, (120, 150, 200), 0.28)
    for y, radius in ((0.22, 0.26), (0.52, 0.19), (0.76, 0.135)):
        sketch.disc(0.012, y - 0.008, radius, shade)
        sketch.disc(-0.012, y + 0.01, radius * 0.94, white)
    for side in (-1, 1):
        sketch.line([(side * 0.16, 0.56), (side * 0.3, 0.64), (side * 0.4, 0.72)], 0.02, palette.figure((104, 76, 60)))
    scarf = palette.figure(rng.choice(((214, 70, 60), (60, 120, 180), (70, 150, 100))))
    sketch.limb([(-0.13, 0.65), (0.13, 0.65)], [0.07, 0.07], scarf)
    sketch.limb([(0.07, 0.64), (0.1, 0.48)], [0.06, 0.055], darker(scarf, 0.1))
    for y in (0.46, 0.55):
        sketch.disc(0.01, y, 0.018, (54, 50, 60))
    for x in (-0.04, 0.055):
        sketch.disc(x, 0.8, 0.017, (54, 50, 60))
    sketch.polygon([(0.0, 0.775), (0.0, 0.74), (0.15, 0.75)], palette.figure((240, 140, 50)))
    hat = palette.figure((60, 56, 68))
    sketch.box(0, 0.87, 0.3, 0.03, hat)
    sketch.box(0, 0.87, 0.19, 0.15, hat)
    sketch.box(0, 0.9, 0.19, 0.03, scarf)
    return sketch


def fence(palette: Palette, rng: random.Random) -> Sketch:
    """A white picket fence, several units wide."""
    sketch = Sketch()
    white = mix(palette.land((250, 246, 238)), palette.figure((250, 246, 238)), 0.4)
    for y in (0.3, 0.68):
        sketch.box(0, y, 6, 0.09, darker(white, 0.12))
    for k in range(-13, 14):
        x = k * 0.23
        sketch.polygon([(x - 0.06, 0), (x + 0.06, 0), (x + 0.06, 0.84), (x, 1.0), (x - 0.06, 0.84)], white)
    return sketch


def bench(palette: Palette, rng: random.Random) -> Sketch:
    """An empty bench."""
    sketch = Sketch()
    sketch.add(props.bench(palette, 1.1, 0.26), 0, 0, 2)
    return sketch


# sketch, height in pictures
LANDMARKS = {
    "tree": (trees.leafy, 0.62), "palm tree": (trees.palm, 0.68), "bench": (bench, 0.17), "house": (house, 0.46),
    "lighthouse": (lighthouse, 0.66), "windmill": (windmill, 0.56), "tent": (tent, 0.34), "snowman": (snowman, 0.36),
    "fence": (fence, 0.17),
}
