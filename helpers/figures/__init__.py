"""The one look of all figures, each shown with a sentence that says what it shows.

The functions return matplotlib figures that no global state knows of. `show(figure, sentence)` puts one into a notebook:
the sentence, computed from the data by the caller, is its visible caption, its alt text, and what nbval compares.

    look.py        colours and sizes; showing, rendering, saving
    pictures.py    pictures with captions under them
    charts.py      lines, bars, dots with intervals, histograms, coloured tables
    words.py       word clouds
    series.py      the map of the series
"""

from helpers.figures.charts import bars, curves, dots, heatmap, histogram
from helpers.figures.look import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALETTE,
    PURPLE,
    RED,
    SKY,
    WIDTH,
    blank_figure,
    render,
    save,
    show,
    style,
)
from helpers.figures.pictures import Line, Picture, picture_grid
from helpers.figures.series import series_map
from helpers.figures.words import word_cloud, word_clouds

__all__ = [
    "BLUE", "DPI", "GREEN", "GREY", "INK", "ORANGE", "PALETTE", "PURPLE", "RED", "SKY", "WIDTH", "Line", "Picture", "bars",
    "blank_figure", "curves", "dots", "heatmap", "histogram", "picture_grid", "render", "save", "series_map", "show", "style",
    "word_cloud", "word_clouds",
]  # fmt: skip
