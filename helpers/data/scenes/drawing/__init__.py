"""Turns a Scene into a picture: the land and sky, what stands on it and casts shadows, and the weather before it all.

Everything is sketched as polygons (sketch.py), coloured by season and light (palette.py) and painted (paint.py).
"""

import random

from PIL import Image, ImageOps

from ..world import Scene
from .backdrop import backdrop
from .composition import compose
from .paint import Canvas
from .palette import Palette
from .pencil import pencil
from .sketch import Sketch
from .sky import weather
from .underfoot import underfoot

__all__ = ["cut_out", "draw"]

STYLES = ("painted", "pencil")
AROUND = 1.15  # how much wider than the subject a cut-out is


def draw(scene: Scene, size: int = 192, style: str = "painted") -> Image.Image:
    """The picture of a scene in one of the STYLES, RGB, `size` pixels square; equal scenes give equal pixels."""
    picture, _, _ = _paint(scene, size)
    return pencil(picture, scene.seed) if style == "pencil" else picture


def cut_out(scene: Scene, size: int = 32) -> Image.Image:
    """The square around the subjects of a scene, painted, RGB, `size` pixels wide."""
    picture, subjects, mirrored = _paint(scene, 2 * size)
    left, bottom, right, top = subjects.bounds()
    if mirrored:
        left, right = 1 - right, 1 - left
    side = min(1, AROUND * max(right - left, top - bottom))
    x, y = (min(max((low + high - side) / 2, 0), 1 - side) for low, high in ((left, right), (1 - top, 1 - bottom)))
    box = [picture.width * edge for edge in (x, y, x + side, y + side)]
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _paint(scene: Scene, size: int) -> tuple[Image.Image, Sketch, bool]:
    """The picture, its subjects, and whether it shows them mirrored."""
    rng = random.Random(f"drawing/{scene.seed}")
    palette = Palette(scene)
    canvas = Canvas(size)
    canvas.paint(backdrop(scene, palette, rng))
    canvas.paint(underfoot(scene, palette, rng))
    subjects = Sketch()
    for placed in compose(scene, palette, rng):
        if placed.ground is not None:
            canvas.shadow(placed.sketch, placed.ground, palette.light, palette.shadow)
        if placed.is_subject:
            canvas.rim(placed.sketch, palette.rim)
            subjects.shapes += placed.sketch.shapes
        canvas.paint(placed.sketch)
    canvas.paint(weather(scene, rng))
    mirrored = rng.random() < 0.5
    return ImageOps.mirror(canvas.finish()) if mirrored else canvas.finish(), subjects, mirrored
