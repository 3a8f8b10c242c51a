"""Pictures with captions under them, in rows. Nothing overlaps, nothing is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from helpers.data.images import open_image
from helpers.errors import InputError
from helpers.figures.look import BLUE, DPI, GREEN, INK, PURPLE, RED, WIDTH, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Picture = str | Path | Image.Image
Line = str | tuple[str, str]  # text, or (text, colour)


def picture_grid(
    pictures: Sequence[Picture],
    captions: Sequence[str | Sequence[Line]],
    *,
    columns: int = 3,
    marks: Sequence[str | None] | None = None,
) -> Figure:
    """Pictures (paths or PIL) in rows, each with its caption under it: a text, or lines that are texts or (text, colour).

    Lines are wrapped by their measured width and rows are as high as their longest caption, so nothing overlaps or is cut.
    `marks` puts a short tag on each picture (None: no tag); equal tags have equal colours.
    """
    if not pictures or len(pictures) != len(captions) or (marks is not None and len(marks) != len(pictures)):
        raise InputError(f"{len(pictures)} pictures need as many captions, not {len(captions)} (and marks, if any)")
    images = [open_image(picture) for picture in pictures]
    gap, space = 0.18, 0.06  # inches between cells; between a picture and its caption, and between captions
    columns = min(columns, len(images))
    cell = (WIDTH - gap * (columns + 1)) / columns
    colours = dict(zip(dict.fromkeys(mark for mark in marks or () if mark), (BLUE, RED, GREEN, PURPLE) * 9, strict=False))
    with style():
        figure = blank_figure(WIDTH, 1)
        texts = [_caption_texts(figure, caption, cell) for caption in captions]
        heights = [[_height(text) for text in column] for column in texts]
        rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
        # A portrait picture is at most a quarter higher than wide, so that one of them does not blow up its row.
        tops = [max(min(cell * images[n].height / images[n].width, 1.25 * cell) for n in row) for row in rows]
        bottoms = [max(sum(heights[n]) + space * len(heights[n]) for n in row) for row in rows]
        total = sum(tops) + sum(bottoms) + gap * (len(rows) + 1)
        figure.set_size_inches(WIDTH, total)
        top = total - gap
        for row, picture_height, text_height in zip(rows, tops, bottoms, strict=True):
            for column, n in enumerate(row):
                left = gap + column * (cell + gap)
                box = (left / WIDTH, (top - picture_height) / total, cell / WIDTH, picture_height / total)
                axes = figure.add_axes(box, anchor="SW")
                axes.set_axis_off()
                axes.imshow(_shrink(images[n], cell), interpolation="antialiased")
                if marks is not None and marks[n]:
                    tag = {"boxstyle": "square,pad=0.25", "facecolor": colours[marks[n]], "edgecolor": "none"}
                    axes.annotate(marks[n], (0, 1), (5, -5), "axes fraction", "offset points", va="top", color="white",
                                  weight="bold", bbox=tag)  # fmt: skip
                y = top - picture_height - space
                for text, height in zip(texts[n], heights[n], strict=True):
                    text.set_position((left / WIDTH, y / total))
                    y -= height + space
            top -= picture_height + text_height + gap
    return figure


def _caption_texts(figure: Figure, caption: str | Sequence[Line], width: float) -> list[Text]:
    """One matplotlib text per line of a caption, wrapped to `width` inches, not yet placed."""
    texts = []
    for line in [caption] if isinstance(caption, str) else caption:
        content, colour = (line, INK) if isinstance(line, str) else line
        text = figure.text(0, 0, "", color=colour, size=9, va="top", linespacing=1.25, parse_math=False)
        text.set_text(_wrap(text, content, width))
        texts.append(text)
    return texts


def _wrap(text: Text, content: str, width: float) -> str:
    """`content` with line breaks, so that `text` is at most `width` inches wide. Longer words are broken."""

    def fits(part: str) -> bool:
        text.set_text(part)
        return text.get_window_extent().width <= width * DPI

    lines = [""]
    for word in re.split(r"\s+(?![^\w\s]+(?:\s|$))", content.strip()):  # " ." stays with the word before it
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
    return "\n".join(lines)


def _height(text: Text) -> float:
    return text.get_window_extent().height / DPI if text.get_text() else 0.0


def _shrink(image: Image.Image, width: float) -> Image.Image:
    """The picture at the size at which it is drawn, so that a phone's photo does not slow the figure down."""
    image = image.copy()
    image.thumbnail((round(2 * width * DPI), round(2 * width * DPI)))
    return image
