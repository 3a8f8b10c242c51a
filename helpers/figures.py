"""The one look of all figures, each shown with a sentence that says what it shows.

The functions return matplotlib figures that no global state knows of. `show(figure, sentence)` puts one into a notebook:
the sentence, computed from the data by the caller, is its visible caption, its alt text, and what nbval compares.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from helpers.data.images import open_image
from helpers.errors import InputError
from helpers.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe and Ito's colours, which colour-blind readers can tell apart, in the order in which they are used.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
PALETTE = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE)
INK, GREY = "#222222", "#767676"

DPI = 100
WIDTH = 9.6  # inches: what a notebook shows without scaling
_LINES = ("-", "--", ":", "-.")
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

Picture = str | Path | Image.Image
Line = str | tuple[str, str]  # text, or (text, colour)


@contextmanager
def style() -> Iterator[None]:
    """Everything drawn inside has the common look; matplotlib's settings outside stay as they were."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


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


def word_cloud(frequencies: Mapping[str, float], *, title: str = "") -> Figure:
    """Words as large as they are frequent. The same words always give the same picture."""
    return word_clouds({title: frequencies}, columns=1)


def word_clouds(groups: Mapping[str, Mapping[str, float]], *, columns: int = 2) -> Figure:
    """One word cloud per title, side by side."""
    import matplotlib
    from wordcloud import WordCloud

    columns = min(columns, len(groups))
    rows = -(-len(groups) // columns)
    width, height = WIDTH / columns, (3.6 if columns == 1 else 2.6)
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    with style():
        figure = blank_figure(WIDTH, rows * height)
        for number, (title, frequencies) in enumerate(groups.items()):
            if not any(frequencies.values()):
                raise InputError(f"word cloud {title!r}: no words")
            head = 0.3 if title else 0.05  # inches
            size = int((width - 0.2) * DPI), int((height - head - 0.1) * DPI)
            cloud = WordCloud(
                width=size[0], height=size[1], background_color="white", font_path=str(font), random_state=0,
                prefer_horizontal=1, max_words=80 // columns, min_font_size=9, relative_scaling=0.5, margin=3,
                # The rank chooses the colour; yellow-like ones are left out, for they are hard to read as text
                color_func=lambda *args, random_state, **_: (BLUE, RED, GREEN, INK, "#8A5A83")[random_state.randint(0, 4)],
            ).generate_from_frequencies(dict(frequencies))  # fmt: skip
            row, column = divmod(number, columns)
            left, top = column * width + 0.1, (rows - row) * height - head
            box = (left / WIDTH, (top - size[1] / DPI) / (rows * height), size[0] / DPI / WIDTH, size[1] / DPI / rows / height)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            axes.imshow(cloud.to_array(), interpolation="none")
            axes.set_title(title)
    return figure


def curves(
    series: Mapping[str, Sequence[float] | tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    title: str = "",
    log: str = "",
) -> Figure:
    """Lines by label: values against 1, 2, 3, ..., or a pair (x values, y values).

    `log` names the logarithmic axes: "x", "y" or "xy". Lines differ in dashes as well as in colour.
    """
    with style():
        figure, axes = _axes(xlabel, ylabel, title)
        if "x" not in log:  # epochs and captions are counted: no ticks between them
            axes.xaxis.get_major_locator().set_params(integer=True)
        for number, (label, values) in enumerate(series.items()):
            x, y = values if isinstance(values, tuple) else (range(1, len(values) + 1), values)
            marker = "o" if len(y) <= 12 else None
            colour, dashes = PALETTE[number % len(PALETTE)], _LINES[number % len(_LINES)]
            axes.plot(x, y, label=label, color=colour, linestyle=dashes, marker=marker, markersize=4)
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
        if len(series) > 1:
            axes.legend()
    return figure


def bars(
    values: Mapping[str, float],
    xlabel: str,
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
    format: str = ".2f",
    highlight: Sequence[str] = (),
) -> Figure:
    """Horizontal bars, the first on top, each with its number; `intervals` (low, high) are drawn as whiskers.

    Bars named in `highlight` have another colour.
    """
    labels = list(values)
    numbers = np.array([values[label] for label in labels], dtype=float)
    with style():
        figure, axes = _axes(xlabel, "", title, height=0.8 + 0.34 * len(labels))
        colours = [ORANGE if label in highlight else BLUE for label in labels]
        whiskers = None
        if intervals is not None:
            low, high = np.array([intervals[label] for label in labels], dtype=float).T
            whiskers = np.clip([numbers - low, high - numbers], 0, None)
        axes.barh(labels, numbers, color=colours, xerr=whiskers, error_kw={"ecolor": INK, "capsize": 3, "elinewidth": 1.2})
        ends = numbers if whiskers is None else numbers + whiskers[1]
        for place, (number, end) in enumerate(zip(numbers, ends, strict=True)):
            axes.annotate(f"{number:{format}}", (max(end, 0), place), (5, 0), textcoords="offset points", va="center")
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return figure


def dots(
    values: Mapping[str, tuple[float, float, float]], xlabel: str, *, line: float | None = None, title: str = ""
) -> Figure:
    """A dot and its interval a row, the first on top; values: (value, low, high). `line` is what to compare with."""
    labels = list(values)
    value, low, high = np.array([values[label] for label in labels], dtype=float).T
    with style():
        figure, axes = _axes(xlabel, "", title, height=0.8 + 0.34 * len(labels))
        if line is not None:
            axes.axvline(line, color=GREY, linestyle="--", linewidth=1.2)
        places = range(len(labels))
        axes.hlines(places, low, high, color=BLUE)
        axes.plot(value, places, "o", color=BLUE, markersize=7)
        for place in places:
            axes.annotate(
                f"{value[place]:.2f}", (high[place], place), (6, 0), textcoords="offset points", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the line
            )  # fmt: skip
        axes.set_yticks(places, labels)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return figure


def histogram(
    groups: Mapping[str, Sequence[float]], xlabel: str, *, title: str = "", bins: int | Sequence[float] = 30
) -> Figure:
    """Shares of values per bin, one outline per group. Groups of different sizes can be compared."""
    edges = np.histogram_bin_edges(np.concatenate([np.asarray(values, dtype=float) for values in groups.values()]), bins)
    with style():
        figure, axes = _axes(xlabel, "share", title)
        for number, (label, values) in enumerate(groups.items()):
            shares = np.histogram(values, edges)[0] / max(1, len(values))
            colour, dashes = PALETTE[number % len(PALETTE)], _LINES[number % len(_LINES)]
            axes.stairs(shares, edges, label=label, color=colour, linestyle=dashes, linewidth=2)
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.15)
        axes.set_ylim(bottom=0)
        if all(np.issubdtype(np.asarray(values).dtype, np.integer) for values in groups.values()):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter("{x:.0%}" if max(np.diff(axes.get_yticks())) >= 0.01 else "{x:.1%}")
        if len(groups) > 1:
            axes.legend()
    return figure


def heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    cells: Sequence[Sequence[str]] | None = None,
    middle: float | None = None,
) -> Figure:
    """A table as colours, with a text in each cell: its number, unless `cells` says otherwise.

    values: (rows, columns);  middle: the value that is white, between orange below and blue above
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    values = np.asarray(values, dtype=float)
    if middle is None:
        colours, norm = LinearSegmentedColormap.from_list("", ["white", BLUE]), Normalize(min(values.min(), 0), values.max())
    else:
        reach = max(np.abs(values - middle).max(), 1e-9)
        colours, norm = (
            LinearSegmentedColormap.from_list("", [ORANGE, "white", BLUE]),
            Normalize(middle - reach, middle + reach),
        )
    with style():
        figure, axes = _axes("", "", title, height=0.9 + 0.36 * len(rows))
        axes.imshow(values, cmap=colours, norm=norm, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, column in np.ndindex(values.shape):
            text = f"{values[row, column]:.2f}" if cells is None else cells[row][column]
            dark = np.mean(colours(norm(values[row, column]))[:3]) < 0.45
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK)
    return figure


def blank_figure(width: float, height: float, **options: object) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
    FigureCanvasAgg(figure)  # measures text
    return figure


def _axes(xlabel: str, ylabel: str, title: str, *, height: float = 3.4):
    figure = blank_figure(WIDTH * 0.8, height, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    return figure, axes


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


def _close(figure: Figure) -> None:
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
