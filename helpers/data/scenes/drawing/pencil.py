"""Coloured pencil on paper, the second style: a painted picture with its edges drawn and its colours hatched.

It changes neither what is in a picture nor where: only what a model sees of it.
"""

import functools

import numpy as np
from PIL import Image, ImageChops, ImageFilter

PAPER = (252, 247, 236)
GRAPHITE = (58, 54, 66)
SOFT = 0.006  # how far colours run, in pictures
STROKES = 30  # per picture


def pencil(picture: Image.Image, seed: int) -> Image.Image:
    """The picture (RGB, square) as if drawn by hand; the seed decides how the strokes run and the grain of the paper."""
    soft = picture.filter(ImageFilter.GaussianBlur(SOFT * picture.width))
    tone = np.asarray(soft.convert("L"), dtype=np.float32) / 255
    rng = np.random.default_rng(seed)
    grain = _grain(rng, picture.width)
    hatching = _hatching(rng, picture.width)
    pressure = 0.8 + 0.12 * hatching * (1.3 - tone) + 0.6 * grain  # dark places show the strokes
    drawn = Image.composite(soft.point(PIGMENT), Image.new("RGB", picture.size, PAPER), _mask(pressure))
    # An edge is where the picture is darker than its surroundings, in any of the three colours.
    edges = np.asarray(functools.reduce(ImageChops.lighter, ImageChops.subtract(soft, picture).split()), dtype=np.float32)
    drawn.paste(GRAPHITE, mask=_mask((edges / 36 - 0.1) * (0.9 + grain)))
    return drawn


# Pigment on paper, by the colour it should have: never quite dark, and the paper's own colour where there is none.
PIGMENT = [round(paper * (0.1 + 0.9 * level / 255) ** 0.85) for paper in PAPER for level in range(256)]


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """How rough the paper is at each pixel, about -0.3 to 0.3. (size, size)"""
    noise = Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8))
    return np.asarray(noise.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float32) / 255 - 0.5


def _hatching(rng: np.random.Generator, size: int) -> np.ndarray:
    """Slightly wavy strokes from edge to edge, -1 between them to 1 on them. (size, size)"""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    slope = rng.uniform(0.5, 0.8)
    return np.sin(2 * np.pi * STROKES * (x + slope * y) + 2 * np.sin(11 * y + 3 * x))


def _mask(share: np.ndarray) -> Image.Image:
    """0 to 1, clipped, as opacity."""
    return Image.fromarray((share.clip(0, 1) * 255).astype(np.uint8))
