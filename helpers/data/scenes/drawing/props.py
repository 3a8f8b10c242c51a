"""What people carry, ride and play with. Units are those of the person: one is the person's height."""

import math

from .palette import Palette, darker, lighter, mix
from .sketch import Color, Point, Sketch

STRING = (250, 246, 236)
WOOD = (158, 104, 68)
IRON = (92, 88, 100)


def ball(paint: Color, palette: Palette, radius: float) -> Sketch:
    """A ball with a white stripe, resting at y = 0."""
    sketch = Sketch()
    color = palette.figure(paint)
    sketch.disc(0, radius, radius, color)
    sketch.blob([(-radius * 0.94, radius * 1.28), (0, radius * 1.0), (radius * 0.94, radius * 1.28),
                 (radius * 0.98, radius * 0.8),
                 (0, radius * 0.5), (-radius * 0.98, radius * 0.8)], mix(color, (255, 252, 244), 0.75))
    sketch.oval(-radius * 0.4, radius * 1.55, radius * 0.26, radius * 0.16, lighter(color, 0.55), 35)
    return sketch


def kite(paint: Color, palette: Palette) -> Sketch:
    """A diamond, a bit more than one unit high, with a tail of bows; its string is tied to the origin."""
    sketch = Sketch()
    color = palette.figure(paint)
    top, left, right, foot, middle = (0.1, 0.62), (-0.42, 0.16), (0.46, 0.26), (-0.1, -0.62), (0, 0.2)
    tail = [foot, (-0.36, -0.82), (-0.2, -1.08), (-0.46, -1.32)]
    sketch.line(tail, 0.035, darker(color, 0.1))
    for x, y in tail[1:]:
        for side in (-0.12, 0.12):
            sketch.polygon([(x, y), (x + side, y + 0.07), (x + side, y - 0.07)], lighter(color, 0.3))
    sketch.polygon([top, right, foot, left], color)
    sketch.polygon([top, right, middle], lighter(color, 0.4))
    sketch.polygon([middle, right, foot], darker(color, 0.18))
    sketch.line([top, foot], 0.02, darker(color, 0.4))
    sketch.line([left, right], 0.02, darker(color, 0.4))
    return sketch


def balloon(paint: Color, palette: Palette) -> Sketch:
    """A toy balloon, one unit high, on a string of 2.2 units that starts at the origin."""
    sketch = Sketch()
    color = palette.figure(paint)
    sketch.line([(0, 0), (0.05, 1.1), (0, 2.2)], 0.035, palette.figure(STRING))
    sketch.polygon([(-0.09, 2.14), (0.09, 2.14), (0, 2.28)], darker(color, 0.2))
    sketch.blob([(0, 2.2), (0.4, 2.62), (0.34, 3.15), (0, 3.35), (-0.34, 3.15), (-0.4, 2.62)], color)
    sketch.oval(-0.17, 3.02, 0.07, 0.15, lighter(color, 0.6), -25)
    return sketch


def umbrella(paint: Color, palette: Palette) -> Sketch:
    """An open umbrella, about one unit high; its handle is at the origin."""
    sketch = Sketch()
    color, iron = palette.figure(paint), palette.figure(IRON)
    half, hem, height = 0.62, 0.62, 0.42
    quarter = [(math.cos(turn), math.sin(turn)) for turn in (math.pi / 2 * k / 8 for k in range(9))]
    sketch.line([(0, -0.05), (0, 0.92)], 0.03, iron)
    for left, right, shade in ((-1, -0.4, lighter(color, 0.05)), (-0.4, 0.3, lighter(color)), (0.3, 1, darker(color))):
        sides = [[(share * half * cos, hem + height * sin) for cos, sin in quarter] for share in (left, right)]
        sketch.polygon([*reversed(sides[0]), ((left + right) / 2 * half, hem + 0.05), *sides[1]], shade)
    sketch.line([(0, 1.0), (0, 1.08)], 0.035, iron)
    return sketch


def bicycle(paint: Color, palette: Palette, saddle: Point, hand: Point, pedals: tuple[Point, Point]) -> Sketch:
    """A bicycle fitted to its rider: the saddle, the handlebar and the pedals are where the body needs them."""
    sketch = Sketch()
    frame, tyre = palette.figure(paint), palette.figure((48, 46, 56))
    radius = 0.235
    crank = ((pedals[0][0] + pedals[1][0]) / 2, (pedals[0][1] + pedals[1][1]) / 2)
    rear, front = (crank[0] - 0.3, radius), (crank[0] + 0.44, radius)
    for x, y in (rear, front):
        rim = [(x + radius * math.cos(math.tau * k / 30), y + radius * math.sin(math.tau * k / 30)) for k in range(31)]
        sketch.line(rim[::3], 0.034, tyre)
        for angle in range(0, 180, 45):
            dx, dy = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
            sketch.line([(x - dx, y - dy), (x + dx, y + dy)], 0.006, palette.figure((200, 204, 212)))
    seat, head = (saddle[0] - 0.02, saddle[1] - 0.05), (front[0] - 0.1, saddle[1] - 0.04)
    for points in ([rear, seat], [rear, crank], [crank, seat], [crank, head], [seat, head], [head, front]):
        sketch.line(points, 0.036, frame)
    sketch.line([head, (head[0] - 0.02, hand[1] - 0.02), hand], 0.026, palette.figure(IRON))
    sketch.limb([(seat[0] - 0.07, seat[1] + 0.03), (seat[0] + 0.07, seat[1] + 0.025)], [0.06, 0.035],
                palette.figure(IRON))
    sketch.disc(*crank, 0.05, palette.figure(IRON))
    return sketch


def bench(palette: Palette, length: float, height: float) -> Sketch:
    """A park bench of wooden slats; the seat is at the height."""
    sketch = Sketch()
    wood, iron = palette.figure(WOOD), palette.figure(IRON)
    for x in (-length * 0.4, length * 0.4):
        sketch.line([(x, 0), (x, height * 1.9)], 0.03, iron)
        sketch.line([(x + 0.06, 0), (x + 0.06, height)], 0.03, iron)
    for y, color in ((height * 1.35, wood), (height * 1.75, lighter(wood, 0.1))):
        sketch.limb([(-length / 2, y), (length / 2, y)], [height * 0.28] * 2, color)
    sketch.limb([(-length / 2, height - 0.02), (length / 2, height - 0.02)], [0.055] * 2, darker(wood, 0.12))
    return sketch


def sled(paint: Color, palette: Palette) -> Sketch:
    """A wooden sled on coloured runners."""
    sketch = Sketch()
    color = palette.figure(paint)
    sketch.line([(-0.34, 0.03), (0.34, 0.03), (0.5, 0.09), (0.52, 0.2)], 0.04, color)
    for x in (-0.22, 0.2):
        sketch.line([(x, 0.03), (x, 0.12)], 0.035, color)
    sketch.limb([(-0.36, 0.13), (0.4, 0.13)], [0.06, 0.06], palette.figure(WOOD))
    return sketch


def skis(palette: Palette, feet: tuple[Point, Point], hands: tuple[Point, Point]) -> Sketch:
    """Two skis under the feet and two poles in the hands, pointing back."""
    sketch = Sketch()
    for (x, y), color in zip(feet, ((40, 60, 96), (214, 86, 66)), strict=True):
        sketch.line([(x - 0.36, y - 0.045), (x + 0.38, y - 0.045), (x + 0.5, y + 0.02)], 0.03, palette.figure(color))
    for x, y in hands:
        sketch.line([(x + 0.02, y + 0.03), (x - 0.34, y - 0.3)], 0.018, palette.figure((60, 62, 76)))
        sketch.disc(x - 0.31, y - 0.272, 0.03, palette.figure((60, 62, 76)))
    return sketch


def string(start: Point, end: Point, sag: float, palette: Palette, width: float = 0.008) -> Sketch:
    """A string or leash that sags between two points."""
    sketch = Sketch()
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - sag)
    sketch.line([start, middle, end], width, palette.figure(STRING))
    return sketch
