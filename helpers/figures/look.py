"""What all figures have in common: colours, sizes, and how one is shown in a notebook or written to a file."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from helpers.errors import InputError
from helpers.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart, in the order in which they are used.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
PALETTE = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE)
INK, GREY = "#222222", "#767676"

DPI = 100
WIDTH = 9.6  # inches: what a notebook shows without scaling
LINES = ("-", "--", ":", "-.")
_RC = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": 10,
    "text.color": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.hashsalt": "captions",  # the same figure is the same file
}


@contextmanager
def style() -> Iterator[None]:
    """Everything drawn inside has the common look; matplotlib's settings outside stay as they were."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def blank_figure(width: float, height: float, **options: object) -> Figure:
    """A figure of this size in inches that no global state knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
    FigureCanvasAgg(figure)  # measures text
    return figure


def show(figure: Figure, sentence: str) -> None:
    """Display `figure` in a notebook with `sentence` as alt text and, under it, as visible caption; then close it.

    Both are needed: nbconvert drops the alt text, and GitHub shows no metadata.
    """
    from IPython import get_ipython
    from IPython.display import display

    sentence = " ".join(sentence.split())
    if get_ipython() is None:  # not in a notebook: say at least what would be seen
        print(sentence)
    else:
        png = base64.b64encode(render(figure)).decode("ascii")
        display({"image/png": png, "text/plain": sentence}, metadata={"image/png": {"alt": sentence}}, raw=True)
        markdown = re.sub(r"([\\`*_$\[\]<>])", r"\\\1", sentence)
        display({"text/markdown": f"*{markdown}*", "text/plain": sentence}, raw=True)
    _close(figure)


def render(figure: Figure) -> bytes:
    """The figure as a PNG of at most 256 colours: a third of the bytes, for notebooks are committed with their pictures."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=DPI)
    image = Image.open(buffer).convert("RGB")
    palette = image.quantize(256, method=Image.Quantize.FASTOCTREE)  # keeps small things' colours: captions name them
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[(colours >= 248).all(axis=1)] = 255  # the paper stays white
    palette.putpalette(colours.flatten().tolist())
    # Pillow dithers only towards a given palette; without dithering, skies turn into steps
    image = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure to `path` (.png, .svg or .pdf), whole or not at all, and the same bytes for the same figure."""
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path.name}: figures are saved as .png, .svg or .pdf")
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    with atomic_path(path) as temporary, style():
        if path.suffix == ".png":
            temporary.write_bytes(render(figure))
        else:
            figure.savefig(temporary, metadata=undated)
    return path


def _close(figure: Figure) -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
