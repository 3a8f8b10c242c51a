"""Word clouds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError
from helpers.figures.look import BLUE, DPI, GREEN, INK, RED, WIDTH, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
