"""Figures: what a notebook stores of them, that no text is cut or covered, and that they are the same every time."""

import base64
import io
import itertools

import IPython.display
import matplotlib
import numpy as np
import pytest
from PIL import Image

from helpers import figures
from helpers.errors import InputError

LONG = "A very long caption , with a comma , that has to be wrapped over several lines below its picture ."


def pictures(sizes):
    return [Image.new("RGB", size, (90, 120, 30 * number % 256)) for number, size in enumerate(sizes)]


def shown(figure, sentence, monkeypatch):
    calls = []
    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr(IPython.display, "display", lambda data, metadata=None, raw=False: calls.append((data, metadata, raw)))
    figures.show(figure, sentence)
    return calls


def test_show_gives_one_bundle_with_alt_text_and_a_visible_caption(monkeypatch):
    sentence = "The longest caption has 5 words\n (a *tie*, $x_1$)."
    (picture, metadata, raw), (caption, _, caption_raw) = shown(figures.curves({"a": [1, 2]}, "x", "y"), sentence, monkeypatch)
    said = "The longest caption has 5 words (a *tie*, $x_1$)."
    assert raw and caption_raw
    assert set(picture) == {"image/png", "text/plain"} and picture["text/plain"] == said
    assert metadata == {"image/png": {"alt": said}}
    assert Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))).format == "PNG"
    assert caption["text/markdown"] == r"*The longest caption has 5 words (a \*tie\*, \$x\_1\$).*"


def test_show_outside_a_notebook_says_the_sentence(capsys):
    figures.show(figures.bars({"a": 1}, "x"), "One bar.")
    assert capsys.readouterr().out == "One bar.\n"


def test_show_closes_a_pyplot_figure(monkeypatch):
    import matplotlib.pyplot as plt

    matplotlib.use("agg")
    figure = plt.figure()
    shown(figure, "Nothing.", monkeypatch)
    assert not plt.fignum_exists(figure.number)


def test_rendered_png_is_small_white_and_the_same_every_time():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    first, second = (figures.render(figures.picture_grid([noise], ["Noise"])) for _ in range(2))
    assert first == second
    image = Image.open(io.BytesIO(first))
    assert image.mode == "P" and image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_a_small_pink_shirt_under_a_large_sky_stays_pink():
    shades = np.random.default_rng(0).random((300, 300, 3)) * [60, 120, 120] + [0, 100, 100]
    image = Image.fromarray(shades.astype(np.uint8))
    image.paste((247, 133, 170), (144, 144, 156, 156))
    rendered = Image.open(io.BytesIO(figures.render(figures.picture_grid([image] * 6, [""] * 6)))).convert("RGB")
    patch = np.asarray(rendered)[163:169, 163:169].mean(axis=(0, 1))  # the middle of the first picture
    assert np.abs(patch - (247, 133, 170)).max() < 12


def boxes(figure):
    """(what, box in pixels) of each picture and each text."""
    figure.canvas.draw()
    found = [("picture", axes.get_window_extent()) for axes in figure.axes]
    return found + [(text.get_text(), text.get_window_extent()) for text in figure.texts if text.get_text()]


CASES = {
    "five captions each": ([(64, 48)] * 5, [["A dog .", LONG, "Two dogs .", LONG * 2, "Dogs"]] * 5, 3),
    "one long, one empty": ([(64, 48)] * 3, [LONG * 6, "", "Short ."], 3),
    "portrait beside panorama": ([(30, 300), (300, 30), (50, 50)], [LONG, LONG, LONG], 2),
    "a word wider than the cell": ([(64, 48)] * 6, ["x" * 200, LONG, "W" * 90, "a b", "y", "z"], 6),
    "one picture": ([(20, 10)], [[("model: " + LONG, "#0072B2"), "people: " + LONG]], 4),
}


@pytest.mark.parametrize("case", CASES)
def test_captions_are_complete_inside_the_figure_and_cover_nothing(case):
    sizes, captions, columns = CASES[case]
    figure = figures.picture_grid(pictures(sizes), captions, columns=columns)
    found = boxes(figure)
    width, height = figure.canvas.get_width_height()
    for what, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{what} leaves the figure"
    for (one, first), (other, second) in itertools.combinations(found, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert wide <= 1 or high <= 1, f"{one!r} and {other!r} overlap"
    written = "".join(text for text, _ in found if text != "picture")
    wanted = "".join(
        line if isinstance(line, str) else line[0]
        for caption in captions
        for line in ([caption] if isinstance(caption, str) else caption)
    )
    assert "".join(written.split()) == "".join(wanted.split())


def test_captions_stand_under_their_own_pictures():
    figure = figures.picture_grid(pictures([(64, 48)] * 4), ["one", "two", "three", "four"], columns=2)
    figure.canvas.draw()
    for axes, text in zip(figure.axes, figure.texts, strict=True):
        picture, caption = axes.get_window_extent(), text.get_window_extent()
        assert abs(caption.x0 - picture.x0) < 3 and 0 < picture.y0 - caption.y1 < 12


def test_captions_of_one_picture_stand_apart():
    figure = figures.picture_grid(pictures([(64, 48)]), [["one", "two", "three"]])
    figure.canvas.draw()
    spans = [text.get_window_extent() for text in figure.texts]
    assert all(upper.y0 - lower.y1 > 3 for upper, lower in itertools.pairwise(spans))


def test_full_stop_stays_with_its_word_and_dollars_are_no_formula():
    captions = ["$1 and $2 for a " + "l" * letters + " house ." for letters in range(1, 40)]
    figure = figures.picture_grid(pictures([(9, 9)] * len(captions)), captions, columns=5)
    assert any("\n" in text.get_text() for text in figure.texts)
    assert not any("\n." in text.get_text() or text.get_parse_math() for text in figure.texts)


def test_lines_have_colours_and_pictures_have_marks():
    lines = [("model: a dog", figures.BLUE), "people: a cat"]
    figure = figures.picture_grid(pictures([(9, 9)] * 3), [lines] * 3, marks=["right", None, "wrong"])
    assert [text.get_color() for text in figure.texts[:2]] == [figures.BLUE, figures.INK]
    tags = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert tags == [["right"], [], ["wrong"]]
    right, wrong = (figure.axes[n].texts[0].get_bbox_patch().get_facecolor() for n in (0, 2))
    assert right != wrong


def test_picture_grid_reads_files_and_refuses_unequal_lists(tmp_path):
    pictures([(9, 9)])[0].save(tmp_path / "a.png")
    assert len(figures.picture_grid([tmp_path / "a.png", str(tmp_path / "a.png")], ["one", "two"]).axes) == 2
    with pytest.raises(InputError, match="1 pictures need as many captions, not 2"):
        figures.picture_grid(pictures([(9, 9)]), ["one", "two"])
    with pytest.raises(InputError, match="0 pictures"):
        figures.picture_grid([], [])
    with pytest.raises(InputError, match="marks"):
        figures.picture_grid(pictures([(9, 9)]), ["one"], marks=["a", "b"])


def test_word_cloud_is_the_same_every_time_and_shows_its_words():
    words = {"dog": 90, "runs": 40, "grass": 30, "ball": 9}
    first, second = (figures.word_cloud(words, title="All words") for _ in range(2))
    assert figures.render(first) == figures.render(second)
    assert figures.render(first) != figures.render(figures.word_cloud({**words, "ball": 80}, title="All words"))
    assert first.axes[0].get_title(loc="left") == "All words"
    assert len(figures.word_clouds({"a": words, "b": words, "c": words}).axes) == 3
    with pytest.raises(InputError, match="'empty': no words"):
        figures.word_clouds({"full": words, "empty": {}})


def test_word_clouds_do_not_overlap():
    found = boxes(figures.word_clouds({f"topic {n}": {"dog": 2, "cat": 1} for n in range(5)}, columns=2))
    for (_, first), (_, second) in itertools.combinations(found, 2):
        assert min(first.x1, second.x1) <= max(first.x0, second.x0) or min(first.y1, second.y1) <= max(first.y0, second.y0)


def test_curves_hold_their_data():
    (axes,) = figures.curves({"a": [3, 1], "b": ([10, 100], [5, 6])}, "rank", "count", title="Zipf", log="xy").axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 3], [2, 1]], [[10, 5], [100, 6]]]
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "log", "rank", "count")
    assert axes.get_title(loc="left") == "Zipf" and axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_bars_have_whiskers_at_their_intervals():
    figure = figures.bars({"people": 0.8, "model": 0.5}, "CIDEr", intervals={"people": (0.7, 0.95), "model": (0.5, 0.6)})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.8, 0.5]
    (whiskers,) = axes.collections
    assert np.allclose([segment[:, 0] for segment in whiskers.get_segments()], [[0.7, 0.95], [0.5, 0.6]])
    assert [text.get_text() for text in axes.texts] == ["0.80", "0.50"]
    figure.canvas.draw()
    assert all(text.get_window_extent().x1 <= figure.canvas.get_width_height()[0] for text in axes.texts)


def test_dots_stand_on_their_intervals():
    figure = figures.dots({"ours": (0.8, 0.7, 0.95), "theirs": (0.5, 0.5, 0.6)}, "CIDEr", line=0.8)
    (axes,) = figure.axes
    reference, drawn = axes.lines
    assert set(reference.get_xdata()) == {0.8} and list(drawn.get_xdata()) == [0.8, 0.5]
    (intervals,) = axes.collections
    assert np.allclose([segment[:, 0] for segment in intervals.get_segments()], [[0.7, 0.95], [0.5, 0.6]])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["ours", "theirs"]
    figure.canvas.draw()
    assert all(text.get_window_extent().x1 <= figure.canvas.get_width_height()[0] for text in axes.texts)


def test_histogram_shows_shares():
    (axes,) = figures.histogram({"a": [1, 1, 2, 3], "b": [3] * 50}, "words", bins=[1, 2, 3, 4]).axes
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    assert [patch.get_data().values.tolist() for patch in outlines] == [[0.5, 0.25, 0.25], [0, 0, 1]]


def test_heatmap_writes_every_number_and_the_middle_is_white():
    table = np.array([[0.5, -1], [2, 0]])
    (axes,) = figures.heatmap(table, ["man", "woman"], ["run", "jump"], middle=0).axes
    assert [text.get_text() for text in axes.texts] == ["0.50", "-1.00", "2.00", "0.00"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["man", "woman"]
    (image,) = axes.images
    assert np.allclose(image.cmap(image.norm(0))[:3], 1, atol=0.02) and image.cmap(image.norm(2))[2] > 0.6
    (axes,) = figures.heatmap(table, ["a", "b"], ["c", "d"], cells=[["1 of 2", ""], ["x", "y"]]).axes
    assert [text.get_text() for text in axes.texts] == ["1 of 2", "", "x", "y"]


def test_matplotlibs_settings_outside_stay_as_they_were():
    with matplotlib.rc_context({"axes.grid": False, "font.size": 33, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        figures.render(figures.bars({"a": 1}, "x"))
        assert dict(matplotlib.rcParams) == before
        (axes,) = figures.bars({"a": 1}, "x").axes
    assert (axes.xaxis.label.get_size(), axes.get_facecolor()) == (10, (1, 1, 1, 1)), "and they do not reach the figures"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_save_writes_the_same_bytes_each_time(tmp_path, suffix):
    first, second = (figures.save(figures.bars({"a": 1}, "x"), tmp_path / f"{n}{suffix}").read_bytes() for n in "ab")
    assert first == second and len(list(tmp_path.iterdir())) == 2


def test_save_refuses_other_formats_and_leaves_nothing_behind(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"figure\.gif"):
        figures.save(figures.bars({"a": 1}, "x"), tmp_path / "figure.gif")
    monkeypatch.setattr(figures.look, "render", lambda figure: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        figures.save(figures.bars({"a": 1}, "x"), tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []
