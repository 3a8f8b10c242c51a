"""Cars, buses, trains, sailboats and hot air balloons, facing right, on wheels, water or air at y = 0.

Cars, buses and trains are one unit long or longer; sailboats and hot air balloons are one unit high.
"""

import math

from .palette import Palette, darker, lighter, mix
from .sketch import Color, Sketch

TYRE = (46, 44, 54)
METAL = (196, 202, 212)
WOOD = (142, 92, 62)
LAMP = (255, 240, 180)


def _glass(palette: Palette) -> Color:
    """Windows mirror the sky by day and are lit from within by night."""
    if palette.light_name == "night":
        return (255, 226, 142)
    return mix(palette.figure((120, 172, 200)), palette.sky[2], 0.35)


def _wheel(sketch: Sketch, x: float, radius: float, palette: Palette) -> None:
    sketch.disc(x, radius, radius, palette.figure(TYRE))
    sketch.disc(x, radius, radius * 0.55, palette.figure(METAL))
    sketch.disc(x, radius, radius * 0.18, palette.figure((110, 116, 128)))


def car(paint: Color, palette: Palette, driving: bool) -> Sketch:
    """A small round car."""
    sketch = Sketch()
    paint = palette.figure(paint)
    glass = _glass(palette)
    sketch.blob([(-0.36, 0.28), (-0.27, 0.44), (-0.1, 0.5), (0.1, 0.48), (0.24, 0.3)], darker(paint, 0.08))
    sketch.polygon([(-0.28, 0.29), (-0.22, 0.41), (-0.07, 0.45), (-0.07, 0.29)], glass)
    sketch.polygon([(-0.03, 0.29), (-0.03, 0.455), (0.09, 0.44), (0.19, 0.29)], glass)
    sketch.polygon([(0.02, 0.29), (0.07, 0.45), (0.09, 0.44), (0.06, 0.29)], lighter(glass, 0.5))
    sketch.blob([(-0.5, 0.14), (-0.5, 0.28), (-0.36, 0.33), (0.1, 0.33), (0.34, 0.3), (0.5, 0.24), (0.52, 0.12),
                 (0.4, 0.08), (-0.4, 0.08)], paint)
    sketch.polygon([(-0.49, 0.15), (0.51, 0.15), (0.48, 0.085), (-0.46, 0.085)], darker(paint, 0.2))
    sketch.line([(-0.05, 0.32), (-0.05, 0.16)], 0.008, darker(paint, 0.3))
    sketch.line([(-0.01, 0.27), (0.05, 0.27)], 0.014, darker(paint, 0.3))
    sketch.disc(0.46, 0.22, 0.035, LAMP)
    sketch.oval(-0.485, 0.23, 0.018, 0.035, palette.figure((226, 70, 60)))
    if palette.light_name == "night":
        sketch.polygon([(0.48, 0.24), (0.48, 0.2), (0.74, 0.05), (0.74, 0.29)], (*LAMP, 60))
    for x in (-0.28, 0.3):
        sketch.disc(x, 0.11, 0.13, darker(paint, 0.4))
        _wheel(sketch, x, 0.105, palette)
    if driving:
        _speed(sketch, -0.58, (0.16, 0.25, 0.34))
    return sketch


def bus(paint: Color, palette: Palette, driving: bool) -> Sketch:
    """A city bus: a long box with a row of windows."""
    sketch = Sketch()
    paint = palette.figure(paint)
    glass = _glass(palette)
    sketch.blob([(-0.6, 0.1), (-0.6, 0.56), (-0.56, 0.6), (0.55, 0.6), (0.61, 0.54), (0.62, 0.1)], paint)
    sketch.polygon([(-0.595, 0.56), (0.6, 0.56), (0.56, 0.6), (-0.56, 0.6)], lighter(paint, 0.35))
    for i in range(5):
        x = -0.48 + i * 0.172
        sketch.box(x, 0.34, 0.14, 0.17, glass)
        sketch.polygon([(x - 0.04, 0.34), (x, 0.34), (x + 0.05, 0.51), (x + 0.01, 0.51)], lighter(glass, 0.4))
    sketch.box(0.335, 0.12, 0.12, 0.4, darker(glass, 0.12))
    sketch.line([(0.335, 0.13), (0.335, 0.51)], 0.01, darker(paint, 0.2))
    sketch.polygon([(0.44, 0.3), (0.44, 0.53), (0.585, 0.53), (0.61, 0.3)], glass)
    sketch.box(-0.1, 0.24, 1.0, 0.04, lighter(paint, 0.6))
    sketch.box(0.01, 0.085, 1.22, 0.06, darker(paint, 0.25))
    sketch.disc(0.59, 0.19, 0.028, LAMP)
    if palette.light_name == "night":
        sketch.polygon([(0.6, 0.21), (0.6, 0.17), (0.8, 0.06), (0.8, 0.27)], (*LAMP, 60))
    for x in (-0.36, 0.2):
        sketch.disc(x, 0.105, 0.12, darker(paint, 0.42))
        _wheel(sketch, x, 0.095, palette)
    if driving:
        _speed(sketch, -0.68, (0.16, 0.3, 0.44))
    return sketch


def _speed(sketch: Sketch, x: float, heights: tuple[float, ...]) -> None:
    """Streaks of air behind something fast."""
    for i, y in enumerate(heights):
        start = x - 0.05 * (i % 2)
        sketch.limb([(start - 0.12, y), (start, y)], [0.006, 0.022], (255, 255, 255, 190))


def train(paint: Color, palette: Palette, driving: bool = False) -> Sketch:
    """A steam engine with two carriages."""
    sketch = Sketch()
    paint = palette.figure(paint)
    glass, iron = _glass(palette), palette.figure((64, 62, 74))
    for left, right in ((-1.3, -0.78), (-0.72, -0.2)):
        middle = (left + right) / 2
        sketch.box(middle, 0.1, right - left, 0.36, paint, darker(paint, 0.1))
        sketch.blob([(left - 0.02, 0.44), (left + 0.02, 0.5), (right - 0.02, 0.5), (right + 0.02, 0.44)],
                    darker(paint, 0.3))
        for i in range(3):
            sketch.box(left + 0.1 + i * 0.16, 0.26, 0.11, 0.13, glass)
        sketch.box(middle, 0.17, right - left, 0.03, lighter(paint, 0.55))
        sketch.box(right + 0.03, 0.1, 0.1, 0.03, iron)
        for x in (left + 0.12, right - 0.12):
            _wheel(sketch, x, 0.07, palette)
    sketch.box(0.0, 0.1, 0.3, 0.46, paint, darker(paint, 0.1))
    sketch.box(0.0, 0.55, 0.38, 0.05, darker(paint, 0.35))
    sketch.box(0.0, 0.34, 0.17, 0.15, glass)
    sketch.limb([(0.16, 0.29), (0.52, 0.29)], [0.26, 0.26], paint)
    sketch.limb([(0.54, 0.29), (0.6, 0.29)], [0.27, 0.25], iron)
    sketch.disc(0.655, 0.31, 0.04, LAMP)
    for x in (0.26, 0.38):
        sketch.box(x, 0.165, 0.018, 0.255, lighter(paint, 0.55))
    sketch.polygon([(0.44, 0.4), (0.56, 0.4), (0.6, 0.6), (0.4, 0.6)], iron)
    sketch.disc(0.26, 0.42, 0.05, darker(paint, 0.35))
    sketch.box(0.3, 0.09, 0.72, 0.07, iron)
    sketch.polygon([(0.62, 0.13), (0.8, 0.02), (0.62, 0.02)], palette.figure((206, 72, 62)))
    for x, radius in ((-0.04, 0.11), (0.2, 0.11), (0.44, 0.08), (0.6, 0.065)):
        _wheel(sketch, x, radius, palette)
    sketch.line([(-0.04, 0.09), (0.2, 0.09)], 0.03, palette.figure(METAL))
    smoke = mix(palette.sky[2], (255, 255, 255), 0.5)
    for x, y, radius in ((0.47, 0.7, 0.06), (0.36, 0.8, 0.085), (0.18, 0.9, 0.11), (-0.06, 0.97, 0.14),
                         (-0.36, 1.02, 0.16)):
        sketch.disc(x, y, radius, (*smoke, 220))
    return sketch


def sailboat(paint: Color, palette: Palette, driving: bool = False) -> Sketch:
    """A dinghy whose sails have the colour, its hull in white and wood, with its reflection in the water."""
    sketch = Sketch()
    sail = palette.figure(paint)
    hull = palette.figure((244, 240, 232)) if sum(paint) < 690 else palette.figure((176, 84, 66))
    for y, width in ((-0.02, 0.74), (-0.07, 0.5), (-0.12, 0.56)):
        sketch.line([(-width / 2, y), (width / 2, y)], 0.02, (235, 248, 255, 130))
    for y, width in ((-0.09, 0.2), (-0.16, 0.26), (-0.22, 0.16)):
        sketch.line([(-width / 2 + 0.05, y), (width / 2 + 0.05, y)], 0.026, (*sail, 130))
    sketch.line([(0.02, 0.12), (0.02, 0.99)], 0.024, palette.figure(WOOD))
    sketch.polygon([(-0.02, 0.22), (-0.02, 0.96), (-0.2, 0.5), (-0.38, 0.24)], sail, darker(sail, 0.1))
    sketch.polygon([(0.05, 0.24), (0.05, 0.88), (0.22, 0.5), (0.34, 0.24)], lighter(sail, 0.16), sail)
    for share in (0.3, 0.55):
        sketch.line([(-0.025, 0.22 + 0.74 * share), (-0.37 + 0.34 * share**0.8, 0.24 + 0.7 * share * 0.92)], 0.007,
                    darker(sail, 0.22))
    sketch.line([(-0.38, 0.215), (0.04, 0.205)], 0.02, palette.figure(WOOD))
    sketch.blob([(-0.42, 0.15), (-0.34, 0.02), (-0.2, -0.015), (0.22, -0.015), (0.38, 0.06), (0.5, 0.18), (0.2, 0.14),
                 (-0.2, 0.13)], hull)
    sketch.polygon([(-0.39, 0.08), (0.41, 0.085), (0.36, 0.045), (-0.36, 0.045)], sail)
    sketch.polygon([(-0.36, 0.03), (0.3, 0.03), (0.2, -0.015), (-0.2, -0.015)], darker(hull, 0.22))
    sketch.polygon([(0.03, 0.99), (0.03, 0.93), (0.16, 0.955)], palette.figure((226, 80, 64)))
    return sketch


def hot_air_balloon(paint: Color, palette: Palette, driving: bool = False) -> Sketch:
    """A striped envelope with a basket under it."""
    sketch = Sketch()
    main = palette.figure(paint)
    pale = mix(main, palette.figure((255, 250, 238)), 0.55)
    for i, color in enumerate((darker(main, 0.05), pale, main, pale, darker(main, 0.18))):
        # Each gore is an ellipse's slice, narrower towards the rim as on a globe.
        left, right = (-1, -0.74, -0.28, 0.28, 0.74)[i], (-0.74, -0.28, 0.28, 0.74, 1)[i]
        profile = [(math.sin(math.pi * t) ** 0.75, t) for t in (k / 12 for k in range(13))]
        side = [(left * 0.36 * _bulge(t), 0.99 - 0.74 * t) for _, t in profile]
        other = [(right * 0.36 * _bulge(t), 0.99 - 0.74 * t) for _, t in reversed(profile)]
        sketch.polygon(side + other, color, darker(color, 0.1))
    for x in (-0.07, 0.07):
        sketch.line([(x * 0.95, 0.25), (x * 0.8, 0.12)], 0.009, palette.figure((110, 84, 70)))
    if palette.light_name == "night":
        sketch.disc(0, 0.24, 0.05, (255, 214, 110))
    sketch.blob([(-0.075, 0.13), (0.075, 0.13), (0.062, 0.0), (-0.062, 0.0)], palette.figure((164, 112, 70)))
    sketch.box(0, 0.105, 0.165, 0.03, palette.figure((122, 80, 56)))
    return sketch


def _bulge(t: float) -> float:
    """Half the width of a hot air balloon at a share t of the way down from its crown."""
    return math.sin(math.pi * min(0.5, t * 1.25)) ** 0.7 if t < 0.4 else 1 - 0.8 * ((t - 0.4) / 0.6) ** 1.8


VEHICLES = {"car": car, "bus": bus, "train": train, "sailboat": sailboat, "hot air balloon": hot_air_balloon}
