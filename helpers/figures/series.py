"""The map of the series: what each notebook builds, and where its checkpoint goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from helpers.figures.look import BLUE, GREY, INK, ORANGE, WIDTH, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Part(NamedTuple):
    """A box of a system: what it is, and what training does with it ("learns", "frozen", or "both": first this, then that)."""

    name: str
    state: str


class System(NamedTuple):
    """A notebook that trains: what sees the picture, what joins it to the words, and what has the words."""

    title: str
    sees: Part
    bridge: Part
    words: Part
    pair: bool = False  # picture and words both go into the bridge, and come out side by side


# The default of each notebook; its text has the other choices.
SYSTEMS = {
    "02": System("transformer\ndecoder", Part("CLIP's ResNet\na grid of cells", "both"),
                 Part("cross-attention\nevery word looks at the grid", "learns"),
                 Part("decoder\nwritten from scratch", "learns")),
    "03": System("ClipCap", Part("CLIP's ViT\none vector", "frozen"),
                 Part("mapping network\nthe vector becomes 10 words", "learns"), Part("GPT-2", "frozen")),
    "04": System("cross-\nattention", Part("CLIP's ViT\nevery patch", "frozen"),
                 Part("gated cross-attention\nin every block of GPT-2", "learns"), Part("GPT-2\nnorms and MLPs", "learns")),
    "05": System("contrastive\nretrieval", Part("image tower\none vector", "learns"),
                 Part("common space\npairs near, others far", "learns"), Part("text tower\none vector", "learns"), pair=True),
}  # fmt: skip
DATA, EVALUATION, USE = "01", "06", "07"
COMING = (USE,)  # in preparation
LOOKS = {  # by state: (border, fill, dashes)
    "learns": (BLUE, "#D5E8F4", "-"),
    "both": (BLUE, "#EEF5FA", (0, (5, 2))),
    "frozen": (GREY, "white", (0, (1, 1.5))),
    "notebook": (ORANGE, "#FBEBCB", "-"),
}
LEGEND = {"learns": "learns in this notebook", "both": "frozen at first, then learns", "frozen": "frozen",
          "notebook": "a notebook"}  # fmt: skip
# In tenths of an inch: the columns' left edges and widths, where pictures come down, a box's height, the way to the next row.
NOTEBOOK, SEES, BRIDGE, WORDS, END = (1, 12), (16, 18), (38, 22), (64, 16), (86, 9)
RAIL, HEIGHT, STEP = 14.5, 8, 10.3


def series_map() -> tuple[Figure, str]:
    """The figure, and the sentence that says what it shows."""
    rows = {number: 38.4 - STEP * n for n, number in enumerate(SYSTEMS)}  # the lower edges
    first, last = max(rows.values()), min(rows.values())
    with style():
        figure = blank_figure(WIDTH, 5.7)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 10 * WIDTH), ylim=(0, 57))
        axes.set_axis_off()
        _box(axes, 1, 51, 79, 5, "", "", "notebook")
        axes.text(2.6, 53.5, f"{DATA} data exploration", weight="bold", va="center")
        what = "pictures with five captions each: read, checked, split by picture"
        axes.text(78.4, 53.5, what, size=9, va="center", ha="right")
        heads = {SEES: "what sees the picture", BRIDGE: "what joins the two", WORDS: "what has the words"}
        for (x, width), head in heads.items():
            axes.text(x + width / 2, first + HEIGHT + 1, head, style="italic", size=9, color=GREY, ha="center")
        axes.text(sum(WORDS) + 0.6, first + HEIGHT + 1, "checkpoints", style="italic", size=9, color=GREY)
        axes.plot([RAIL, RAIL], [51, last + HEIGHT / 2], color=INK, linewidth=1.3)  # from notebook 01 to all systems
        for number, system in SYSTEMS.items():
            _row(axes, number, system, rows[number])
        beside = last + STEP - 1.5  # the last row stands beside the last notebook
        _box(axes, END[0], beside, END[1], first + HEIGHT - beside, EVALUATION,
             "evaluation:\none table,\nall systems,\nbaselines,\npeople", "notebook")  # fmt: skip
        _box(axes, END[0], last - 3, END[1], 9.5, USE, "your photos" + "\n(to come)" * (USE in COMING), "notebook")
        _arrow(axes, (90.5, beside), (90.5, last + 6.5))
        x, turn = sum(WORDS), 83
        for y in rows.values():
            if y > last:
                _arrow(axes, (x, y + HEIGHT / 2), (END[0], y + HEIGHT / 2))
        axes.plot([x, turn, turn], [last + HEIGHT / 2] * 2 + [beside + 1.6], color=INK, linewidth=1.3)
        _arrow(axes, (turn, beside + 1.6), (END[0], beside + 1.6))
        _legend(axes)
    frozen = [number for number, system in SYSTEMS.items() if system.sees.state == "frozen"]
    return figure, (
        f"{DATA} prepares pictures and captions; {_listed(SYSTEMS)} each join what sees a picture to what has the words, "
        f"{_listed(frozen)} with a frozen CLIP; their checkpoints are compared in {EVALUATION} and used in {USE}"
        f"{', which is in preparation' * (USE in COMING)}."
    )


def _row(axes: Axes, number: str, system: System, y: float) -> None:
    """A system's boxes from left to right, their lower edge at `y`."""
    _box(axes, NOTEBOOK[0], y, NOTEBOOK[1], HEIGHT, number, system.title, "notebook")
    for (x, width), part in ((SEES, system.sees), (BRIDGE, system.bridge), (WORDS, system.words)):
        head, _, rest = part.name.partition("\n")
        _box(axes, x, y, width, HEIGHT, head, rest, part.state)
    middle = y + HEIGHT / 2
    _arrow(axes, (RAIL, middle), (SEES[0], middle))
    _arrow(axes, (sum(SEES), middle), (BRIDGE[0], middle))
    _arrow(axes, *((x, middle) for x in ((WORDS[0], sum(BRIDGE)) if system.pair else (sum(BRIDGE), WORDS[0]))))


def _box(axes: Axes, x: float, y: float, width: float, height: float, head: str, text: str, state: str) -> None:
    """A box with a bold head and a text under it."""
    from matplotlib.patches import FancyBboxPatch

    border, fill, dashes = LOOKS[state]
    axes.add_patch(
        FancyBboxPatch((x + 0.5, y + 0.5), width - 1, height - 1, boxstyle="round,pad=0.5,rounding_size=1", edgecolor=border,
                       facecolor=fill, linestyle=dashes, linewidth=1.5)
    )  # fmt: skip
    middle, gap = y + height / 2, 0.5 + 0.75 * (text.count("\n") + 1) if text else 0
    axes.text(x + width / 2, middle + gap, head, weight="bold", size=10, va="center", ha="center")
    axes.text(x + width / 2, middle - 1.05, text, size=8.5, va="center", ha="center", linespacing=1.2)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", end, start, arrowprops=arrow)


def _legend(axes: Axes) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(edgecolor=LOOKS[state][0], facecolor=LOOKS[state][1], linestyle=LOOKS[state][2], linewidth=1.5, label=label)
        for state, label in LEGEND.items()
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, -0.012), ncols=len(handles), fontsize=9)


def _listed(numbers: Iterable[str]) -> str:
    *others, last = numbers
    return f"{', '.join(others)} and {last}"
