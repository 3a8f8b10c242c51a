"""From sketches to pixels.

Sketches are painted OVERSAMPLING times too large and then reduced, which smooths their edges.
"""

from PIL import Image, ImageDraw

from .palette import Light
from .sketch import Color, Point, Sketch

OVERSAMPLING = 3
RIM = 0.005  # how far the edge of light reaches, in pictures


class Canvas:
    """A square picture to be, painted on in coordinates from 0 to 1, y pointing up."""

    def __init__(self, size: int) -> None:
        self.side = size * OVERSAMPLING
        self.image = Image.new("RGB", (self.side, self.side))
        self._opaque = ImageDraw.Draw(self.image)
        self._translucent = ImageDraw.Draw(self.image, "RGBA")

    def paint(self, sketch: Sketch) -> None:
        """All shapes of a sketch, in order."""
        for points, top, bottom in sketch.shapes:
            pixels = self._pixels(points)
            if top != bottom:
                self._gradient(pixels, top, bottom)
            elif len(top) == 4:
                self._translucent.polygon(pixels, top)
            else:
                self._opaque.polygon(pixels, top)

    def rim(self, sketch: Sketch, color: Color) -> None:
        """A thin edge of light on the side of the sun, which sets a sketch off once that is painted over it."""
        for points, top, _ in sketch.shapes:
            if len(top) == 3:
                self._opaque.polygon(self._pixels([(x - RIM, y + RIM) for x, y in points]), color)

    def shadow(self, sketch: Sketch, ground: float, light: Light, color: Color) -> None:
        """The outline of a sketch laid on the ground, whose height is given, away from the light behind it."""
        shear, length, opacity = light.shadow
        outlines = [self._pixels([(x + shear * (y - ground), ground - length * (y - ground)) for x, y in points])
                    for points, _, _ in sketch.shapes]
        left, upper, right, lower = self._box([pixel for outline in outlines for pixel in outline])
        if left >= right or upper >= lower:
            return
        mask = Image.new("L", (right - left, lower - upper))
        pen = ImageDraw.Draw(mask)
        for outline in outlines:
            pen.polygon([(x - left, y - upper) for x, y in outline], opacity)
        self.image.paste(color, (left, upper, right, lower), mask)

    def finish(self) -> Image.Image:
        """The picture at its own size."""
        return self.image.reduce(OVERSAMPLING)

    def _pixels(self, points: list[Point]) -> list[Point]:
        side = self.side  # Pillow cuts the fractions off: half a pixel makes that rounding
        return [(x * side + 0.5, (1 - y) * side + 0.5) for x, y in points]

    def _box(self, pixels: list[Point]) -> tuple[int, int, int, int]:
        xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
        return (max(0, int(min(xs))), max(0, int(min(ys))),
                min(self.side, int(max(xs)) + 1), min(self.side, int(max(ys)) + 1))

    def _gradient(self, pixels: list[Point], top: Color, bottom: Color) -> None:
        left, upper, right, lower = self._box(pixels)
        if left >= right or upper >= lower:
            return
        size = right - left, lower - upper
        mask = Image.new("1", size)
        ImageDraw.Draw(mask).polygon([(x - left, y - upper) for x, y in pixels], 1)
        ends = Image.new("RGB", (1, 2), top[:3])
        ends.putpixel((0, 1), bottom[:3])
        column = ends.resize((1, size[1]), Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5))
        self.image.paste(column.resize(size, Image.Resampling.NEAREST), (left, upper), mask)
