"""The map of the series: it names the notebooks that there are, and all its words lie inside their boxes."""

import pytest
from matplotlib.patches import FancyBboxPatch

from helpers.environment import ROOT
from helpers.figures import series


def test_the_map_names_the_notebooks_that_there_are():
    there = {path.name[:2] for path in (ROOT / "notebooks").glob("0*.ipynb")}
    drawn = {series.DATA, *series.SYSTEMS, series.EVALUATION, series.USE}
    assert drawn - set(series.COMING) == there - {"00"}, "helpers/figures/series.py: COMING lists what is in preparation"


def test_the_sentence_says_what_is_drawn():
    figure, sentence = series.series_map()
    (axes,) = figure.axes
    words = {text.get_text() for text in axes.texts}
    assert {"GPT-2", "mapping network", *series.SYSTEMS} <= words
    assert "02, 03, 04 and 05 each join" in sentence and "03 and 04 with a frozen CLIP" in sentence
    labels = {text.get_text() for text in axes.get_legend().texts}
    states = {part.state for system in series.SYSTEMS.values() for part in (system.sees, system.bridge, system.words)}
    assert states < set(series.LOOKS) and labels == set(series.LEGEND.values())


@pytest.mark.parametrize("coming", [(), ("07",)])
def test_no_text_leaves_its_box_or_the_figure(coming, monkeypatch):
    monkeypatch.setattr(series, "COMING", coming)
    figure, _ = series.series_map()
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    inside = 0
    for text in filter(lambda text: text.get_text(), axes.texts):
        extent = text.get_window_extent()
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1, text.get_text()
        middle = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
        for box in (box for box in boxes if box.contains(*middle)):
            inside += 1
            assert box.x0 < extent.x0 and extent.x1 < box.x1 and box.y0 < extent.y0 and extent.y1 < box.y1, text.get_text()
    assert inside > 30
    legend = axes.get_legend().get_window_extent()
    assert legend.y1 < min(box.y0 for box in boxes) and legend.y0 > figure.bbox.y0 - 8
