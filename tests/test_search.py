"""The search command as a user meets it: finds, draws a page, and says what is wrong in one line."""

import base64
import io
import os
import subprocess
import sys
import types
from html.parser import HTMLParser

import pytest
from PIL import Image

from helpers import search
from helpers.data.encoders import load_clip
from helpers.environment import ROOT

COLOURS = {"red.png": "red", "green & <wide>.png": "green", "deep/blue.png": "blue"}
VOID = {"meta", "img", "wbr"}


@pytest.fixture(autouse=True)
def own_place(monkeypatch, tmp_path):
    """The cache and search.html go here."""
    monkeypatch.setattr("helpers.environment.find_work_dir", lambda place: tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    for name, colour in COLOURS.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.effect_noise((60, 40), 90).convert("RGB")
        Image.blend(picture, Image.new("RGB", picture.size, colour), 0.5).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def find(pictures, clip_file):
    def find(*arguments, encoder=("--clip", str(clip_file))):
        return search.main(["--folder", str(pictures), *encoder, *map(str, arguments)])

    return find


class Page(HTMLParser):
    """Reads a page: every tag closed in order, every attribute kept, texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.texts, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag):
        return [text for within, text in self.texts if within == tag]


def test_prints_the_best_and_writes_a_page(find, pictures, clip_file, capsys, tmp_path):
    assert find("a red  dog", "--recursive") == 0
    out, err = capsys.readouterr()
    assert err == "written: search.html\n"
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    encoder, names = load_clip(clip_file), sorted(COLOURS)
    vectors = [encoder.encode_images([pictures / name]) for name in names]
    cosines = [float((vector * encoder.encode_texts(["a red dog"])).sum() / vector.norm()
                     / encoder.encode_texts(["a red dog"]).norm()) for vector in vectors]  # fmt: skip
    best = sorted(range(3), key=lambda n: -cosines[n])
    assert [row[2] for row in rows] == [f"pictures/{names[n]}" for n in best]
    assert [float(row[1]) for row in rows] == pytest.approx([cosines[n] for n in best], abs=2e-3)

    page = Page((tmp_path / "search.html").read_text(encoding="utf-8"))
    assert page.of("title") == page.of("h2") == ["a red dog"] and "3 pictures in pictures" in page.of("h1")[0]
    paths = "".join(text for within, text in page.texts if within == "span")
    assert paths == "".join(row[1] + row[2] for row in rows)
    assert [image["alt"] for image in page.images] == [
        f"{row[2].split('/')[-1]}, number {row[0]} for: a red dog" for row in rows
    ]


def test_the_page_holds_its_pictures_and_asks_for_nothing(find, tmp_path):
    assert find("a dog", "--recursive", "--html", "new/page.html") == 0
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>\n<html lang=\"en\">") and "color-scheme: light dark" in text
    assert 'name="viewport"' in text and not {"script", "link", "iframe", "a"} & set(Page(text).tags)
    assert "http" not in text and "url(" not in text
    for image in Page(text).images:
        start, data = image["src"].split(",")
        assert start == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (int(image["width"]), int(image["height"])) == (60, 40)


def test_large_pictures_become_thumbnails(pictures):
    Image.effect_noise((2000, 1000), 50).save(pictures / "large.png")
    page = Page(search.page([("q", [(0.5, pictures / "large.png")])], ""))
    assert (page.images[0]["width"], page.images[0]["height"]) == ("320", "160")


def test_several_queries_each_with_its_own(find, capsys, tmp_path):
    assert find("a red dog", "<b>blue</b> & more", "--k", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("\t") for line in lines] == [0, 2, 0, 2] and lines[::2] == ["a red dog", "<b>blue</b> & more"]
    page = Page((tmp_path / "search.html").read_text(encoding="utf-8"))
    assert page.of("h2") == lines[::2] and len(page.images) == 2 and "b" not in page.tags


def test_only_the_folder_itself_unless_recursive(find, capsys):
    assert find("a dog", "--k", "50") == 0
    assert sorted(line.split("\t")[2] for line in capsys.readouterr().out.splitlines()) == [
        "pictures/green & <wide>.png", "pictures/red.png"
    ]  # fmt: skip


def test_each_picture_is_encoded_once(find, monkeypatch, capsys):
    assert find("a dog") == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("helpers.data.encoders.ClipEncoder.encode", lambda *_: 1 / 0)
    assert find("a dog") == 0 and capsys.readouterr().out == first


def test_a_broken_picture_is_named_and_the_others_go_on(find, pictures, capsys, tmp_path):
    (pictures / "empty.jpg").touch()
    assert find("a dog") == 1
    out, err = capsys.readouterr()
    assert "error: pictures/empty.jpg: the file is empty\n" in err and len(out.splitlines()) == 2
    assert len(Page((tmp_path / "search.html").read_text(encoding="utf-8")).images) == 2


def test_nothing_but_broken_pictures(find, pictures, capsys, tmp_path):
    for path in pictures.glob("*.png"):
        path.write_bytes(b"")
    assert find("a dog") == 2
    assert "no picture of pictures could be encoded" in capsys.readouterr().err and not (tmp_path / "search.html").exists()


@pytest.mark.skipif(os.name != "posix", reason="names that are not UTF-8")
def test_a_name_that_breaks_lines_or_is_no_text(find, pictures, capsys, tmp_path):
    (pictures / "red.png").rename(os.fsdecode(os.fsencode(pictures) + b"/a\tb\n\xe9.png"))
    assert find("a dog", "--html", "page.html") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split("\t")[2] for line in lines) == ["pictures/a�b��.png", "pictures/green & <wide>.png"]
    assert any(image["alt"].startswith("a�b��.png") for image in Page((tmp_path / "page.html").read_text("utf-8")).images)


def test_the_shipped_clip_says_what_it_has_seen(find, capsys):
    assert find("one dog", encoder=()) == 0
    err = capsys.readouterr().err
    assert "has seen drawn pictures only" in err and "--clip ViT-B/32" in err and "--checkpoint" in err


def test_a_dual_encoder_searches_too(find, clip_file, monkeypatch, capsys):
    asked = {}

    def load_finder(folder, device):
        asked.update(folder=folder, device=device)
        return load_clip(clip_file)

    monkeypatch.setitem(sys.modules, "helpers.contrast", types.SimpleNamespace(load_finder=load_finder))
    assert find("a dog", encoder=("--checkpoint", "some/where")) == 0
    out, err = capsys.readouterr()
    assert asked == {"folder": "some/where", "device": "cpu"} and "drawn pictures" not in err
    assert find("a dog") == 0 and capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["  "], "a query is empty"), (["a dog", ""], "a query is empty"), (["a dog", "--k", "0"], "--k must be at least 1"),
     (["a dog", "--html", "."], ". is a folder: give a file (--html)"),
     (["a dog", "--clip", "nowhere.pt"], "neither a file nor"),
     (["a dog", "--folder", "nowhere"], "nowhere: there is no such folder"),
     (["a dog", "--folder", "empty"], "empty: no picture in this folder"),
     (["a dog", "--html", "pictures/red.png/page.html"], "cannot be written")],
)  # fmt: skip
def test_what_is_wrong_is_one_line(arguments, message, find, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert find(*arguments) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: ") and message in err and "Traceback" not in err
    assert (tmp_path / "pictures" / "red.png").is_file()


def test_help_loads_nothing_heavy():
    code = "import sys, helpers.search as s; s._parser().format_help(); print({'torch', 'numpy', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
