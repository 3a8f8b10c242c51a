"""A sketch: coloured shapes in the order they are painted.

They are all polygons, so that a figure can be moved, turned, painted or cast as a shadow without knowing what it shows.

Points are (x, y) with y pointing up; the unit is up to whoever sketches. Colours are (red, green, blue), 0 to 255, or
(red, green, blue, opacity).
"""

import math
from collections.abc import Iterable, Sequence

Point = tuple[float, float]
Color = tuple[int, ...]

STEPS = 4  # points per span of a smooth curve
# Weights of the four surrounding points at each step of a Catmull-Rom span.
SPLINE = [(-t / 2 + t**2 - t**3 / 2, 1 - 2.5 * t**2 + 1.5 * t**3, t / 2 + 2 * t**2 - 1.5 * t**3, (t**3 - t**2) / 2)
          for t in (step / STEPS for step in range(STEPS))]
CIRCLE = [(math.cos(math.tau * k / 24), math.sin(math.tau * k / 24)) for k in range(24)]


class Sketch:
    """Shapes in painting order; `anchors` names points that other sketches attach to, such as a hand."""

    def __init__(self) -> None:
        self.shapes: list[tuple[list[Point], Color, Color]] = []  # points, colour at the top, colour at the bottom
        self.anchors: dict[str, Point] = {}

    def polygon(self, points: Iterable[Point], color: Color, bottom: Color | None = None) -> None:
        """Straight edges; with `bottom`, the colour changes into it downwards (and is not translucent)."""
        self.shapes.append((list(points), color, bottom or color))

    def blob(self, points: Sequence[Point], color: Color, bottom: Color | None = None) -> None:
        """A smooth closed curve through the points."""
        n = len(points)
        spans = [(points[i - 1], points[i], points[(i + 1) % n], points[(i + 2) % n]) for i in range(n)]
        self.polygon([_between(span, weights) for span in spans for weights in SPLINE], color, bottom)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color, angle: float = 0) -> None:
        """An ellipse around (x, y), turned by `angle` degrees anticlockwise."""
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self.polygon([(x + rx * u * cos - ry * v * sin, y + rx * u * sin + ry * v * cos) for u, v in CIRCLE], color)

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """A circle around (x, y)."""
        self.oval(x, y, radius, radius, color)

    def box(self, x: float, y: float, width: float, height: float, color: Color, bottom: Color | None = None) -> None:
        """An upright rectangle; (x, y) is the middle of its lower edge."""
        left, right = x - width / 2, x + width / 2
        self.polygon([(left, y), (right, y), (right, y + height), (left, y + height)], color, bottom)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """A smooth line of even width with round ends."""
        self.limb(points, [width] * len(points), color)

    def limb(self, points: Sequence[Point], widths: Sequence[float], color: Color) -> None:
        """A smooth line through the points, as wide at each as `widths` says, with round ends: arms, necks, bodies."""
        padded = [points[0], *points, points[-1]]
        course = [_between(padded[i:i + 4],
                           weights) for i in range(len(points) - 1) for weights in SPLINE] + [points[-1]]
        radii = [(widths[i] + (widths[i + 1] - widths[i]) * step / STEPS) / 2
                 for i in range(len(points) - 1) for step in range(STEPS)] + [widths[-1] / 2]
        left, right = [], []
        for i, ((x, y), radius) in enumerate(zip(course, radii, strict=True)):
            (x0, y0), (x1, y1) = course[max(i - 1, 0)], course[min(i + 1, len(course) - 1)]
            length = math.hypot(x1 - x0, y1 - y0) or 1
            dx, dy = radius * (x1 - x0) / length, radius * (y1 - y0) / length
            left.append((x - dy, y + dx))
            right.append((x + dy, y - dx))
        self.polygon([*left, *_cap(left[-1], right[-1]), *reversed(right), *_cap(right[0], left[0])], color)

    def add(self, other: "Sketch", x: float = 0, y: float = 0, scale: float = 1, angle: float = 0) -> None:
        """Paint another sketch on top: scaled, turned by `angle` degrees about its origin, moved to (x, y)."""
        cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))

        def move(point: Point) -> Point:
            u, v = point
            return x + u * cos - v * sin, y + u * sin + v * cos

        self.shapes += [([move(point) for point in points], top, bottom) for points, top, bottom in other.shapes]
        self.anchors |= {name: move(point) for name, point in other.anchors.items()}

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of everything sketched."""
        xs = [x for points, _, _ in self.shapes for x, _ in points]
        ys = [y for points, _, _ in self.shapes for _, y in points]
        return min(xs), min(ys), max(xs), max(ys)


def jointed(start: Point, length: float, angles: Sequence[float]) -> list[Point]:
    """The joints of a limb of equally long parts; angles in degrees, 0 hanging down, positive forward."""
    points = [start]
    for angle in map(math.radians, angles):
        x, y = points[-1]
        points.append((x + length / len(angles) * math.sin(angle), y - length / len(angles) * math.cos(angle)))
    return points


def _between(span: Sequence[Point], weights: Sequence[float]) -> Point:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = span
    a, b, c, d = weights
    return a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3


def _cap(start: Point, end: Point) -> list[Point]:
    """Points of the half circle that bulges clockwise from start to end."""
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    u, v = start[0] - x, start[1] - y
    return [(x + u * cos + v * sin, y + v * cos - u * sin)
            for cos, sin in ((math.cos(math.pi * k / 5), math.sin(math.pi * k / 5)) for k in range(1, 5))]
