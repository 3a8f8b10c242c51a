"""Numbers as lines, bars, dots with intervals, histograms and coloured tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from helpers.figures.look import BLUE, GREY, INK, LINES, ORANGE, PALETTE, WIDTH, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
            colour, dashes = PALETTE[number % len(PALETTE)], LINES[number % len(LINES)]
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
            colour, dashes = PALETTE[number % len(PALETTE)], LINES[number % len(LINES)]
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


def _axes(xlabel: str, ylabel: str, title: str, *, height: float = 3.4):
    figure = blank_figure(WIDTH * 0.8, height, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    return figure, axes
