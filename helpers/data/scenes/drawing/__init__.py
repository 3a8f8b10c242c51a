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
from .sky import weather
from .underfoot import underfoot

__all__ = ["draw"]


def draw(scene: Scene, size: int = 192) -> Image.Image:
    """The picture of a scene, RGB, `size` pixels square; equal scenes give equal pixels."""
    rng = random.Random(f"drawing/{scene.seed}")
    palette = Palette(scene)
    canvas = Canvas(size)
    canvas.paint(backdrop(scene, palette, rng))
    canvas.paint(underfoot(scene, palette, rng))
    for placed in compose(scene, palette, rng):
        if placed.ground is not None:
            canvas.shadow(placed.sketch, placed.ground, palette.light, palette.shadow)
        if placed.is_subject:
            canvas.rim(placed.sketch, palette.rim)
        canvas.paint(placed.sketch)
    canvas.paint(weather(scene, rng))
    return ImageOps.mirror(canvas.finish()) if rng.random() < 0.5 else canvas.finish()
