"""A folder of pictures x several captioners to one table: whole, resumable, and proper csv whatever the names hold."""

import csv
import os
import shutil

import pytest
import torch
from PIL import Image

from helpers import caption
from helpers.captioner import Captioner
from helpers.checkpoints import save_captioner
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap

NAMES = ["a.jpg", 'b "quoted", with commas.png', "c\nd.png", "é 写真.jpg", "z.jpg"]
PLACES = ("one/checkpoint", "two/checkpoint", "third")


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    monkeypatch.setenv("CAPTIONING_PROGRESS", "0")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, clip_file, gpt2_folder):
    """Three captioners, by the names they are to have in a table: one/checkpoint@..., two/checkpoint@..., third@..."""
    folder = tmp_path_factory.mktemp("models")
    encoder, tokens, language_model = load_clip(clip_file), load_tokens(gpt2_folder), load_language_model(gpt2_folder)
    for seed, name in enumerate(PLACES):
        torch.manual_seed(seed)
        model = ClipCap.build(encoder.dim, language_model, prefix_length=4, layers=1, heads=2)
        names = {"clip": str(clip_file), "language_model": str(gpt2_folder)}
        save_captioner(Captioner(encoder, tokens, model, names), folder / name)
    return {name: str(folder / name) for name in PLACES}


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n, name in enumerate(NAMES):
        Image.effect_noise((48 + n, 40), 20 + 40 * n).convert("RGB").save(folder / name)
    return folder


def run(folder, *arguments, tokens="6"):
    return caption.main(["--folder", str(folder), "--max-new-tokens", tokens, *map(str, arguments)])


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def counted(monkeypatch):
    """How many pictures each captioner was shown."""
    seen, original = [], Captioner.caption

    def count(self, images, **decoding):
        seen.append(len(images))
        return original(self, images, **decoding)

    monkeypatch.setattr(Captioner, "caption", count)
    return seen


def test_every_picture_by_every_model(pictures, checkpoints, tmp_path, capsys):
    out = tmp_path / "new" / "out.csv"
    status = run(pictures, "--checkpoints", *checkpoints.values(), "--csv", out, "--batch-size", "2")
    printed, err = capsys.readouterr()
    assert status == 0 and not err and printed == f"5 pictures x 3 models, 15 captions written, 0 broken: {out}\n"
    rows = read(out)
    assert list(rows[0]) == ["image_id", "model_name", "caption", "error"]
    names = caption.model_names(list(checkpoints.values()))
    assert [name.split("@")[0] for name in names] == list(PLACES)
    assert [(row["image_id"], row["model_name"]) for row in rows] == [(i, m) for m in names for i in sorted(NAMES)]
    assert not any(row["error"] for row in rows)
    captioner = caption._load(caption._parser().parse_args(["-f", "x"]), checkpoints["third"])
    expected = captioner.caption([pictures / name for name in sorted(NAMES)], max_new_tokens=6)
    assert [row["caption"] for row in rows if row["model_name"] == names[2]] == expected
    again = "5 pictures x 3 models (15 of 15 were there already), 0 captions written, 0 broken"
    content = out.read_bytes()
    assert run(pictures, "--checkpoints", *checkpoints.values(), "--csv", out) == 0
    assert again in capsys.readouterr().out and out.read_bytes() == content


def test_goes_on_where_a_kill_cut_a_line(pictures, checkpoints, tmp_path, counted, capsys):
    """Cut anywhere at all, in a letter, in quotes, in the header: the second run ends with the table of the first."""
    out, arguments = tmp_path / "out.csv", ["--checkpoints", checkpoints["one/checkpoint"], checkpoints["third"], "--csv"]
    assert run(pictures, *arguments, out) == 0
    whole, rows = out.read_bytes(), read(out)
    ends = {whole.index(name) + len(name) - 1 for name in (b"quoted", b"\nd.png", "写".encode(), b"third")}
    for cut in sorted({0, 9, 34, 40, len(whole) - 1, whole.index(b"\nd.png") + 1, *ends}):
        out.write_bytes(whole[:cut])
        counted.clear()
        assert run(pictures, *arguments, out) == 0
        assert out.read_bytes() == whole and read(out) == rows
        assert 0 < sum(counted) <= 10 and (cut < len(whole) // 2 or sum(counted) < 6)
    capsys.readouterr()


def test_a_run_that_dies_has_its_batches_on_disk(pictures, checkpoints, tmp_path, monkeypatch, capsys):
    out, original, calls = tmp_path / "out.csv", Captioner.caption, []

    def interrupted(self, images, **decoding):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, images, **decoding)

    arguments = ["--checkpoint", checkpoints["third"], "--csv", out, "--batch-size", "2"]
    with monkeypatch.context() as patched:
        patched.setattr(Captioner, "caption", interrupted)
        assert run(pictures, *arguments) == 130
    assert len(read(out)) == 4
    assert run(pictures, *arguments) == 0 and [row["image_id"] for row in read(out)] == sorted(NAMES)
    assert "1 model (4 of 5 were there already), 1 caption written" in capsys.readouterr().out


def test_only_what_is_new_is_computed(pictures, checkpoints, tmp_path, counted):
    out = tmp_path / "out.csv"
    assert run(pictures, "--checkpoint", checkpoints["third"], "--csv", out) == 0
    shutil.copy(pictures / "a.jpg", pictures / "new.jpg")
    assert run(pictures, "--checkpoints", checkpoints["third"], checkpoints["one/checkpoint"], "--csv", out) == 0
    assert counted == [5, 1, 6] and len(read(out)) == 12


def test_each_picture_is_opened_once_a_model(pictures, checkpoints, monkeypatch, capsys):
    opened, original = [], Image.open
    monkeypatch.setattr(Image, "open", lambda source, *rest: opened.append(os.fspath(source)) or original(source, *rest))
    assert run(pictures, "--checkpoints", checkpoints["third"], checkpoints["one/checkpoint"]) == 0
    assert sorted(opened) == sorted(str(pictures / name) for name in NAMES * 2)
    rows = list(csv.reader(capsys.readouterr().out.splitlines(keepends=True), delimiter="\t"))
    names = caption.model_names([checkpoints["third"], checkpoints["one/checkpoint"]])
    assert [row[:2] for row in rows] == [[name, model] for model in names for name in sorted(NAMES)]


def test_a_broken_picture_is_a_row_with_its_error(pictures, checkpoints, tmp_path, capsys):
    (pictures / "a.jpg").write_bytes(b"")
    out, arguments = tmp_path / "out.csv", ["--checkpoints", checkpoints["third"], checkpoints["one/checkpoint"], "--csv"]
    for _ in range(2):  # the second run computes nothing, and says the same of the folder
        assert run(pictures, *arguments, out) == 1
        printed, err = capsys.readouterr()
        assert "1 broken" in printed and err.count("a.jpg: the file is empty") == 1 and "Traceback" not in err
    rows = read(out)
    assert len(rows) == 10
    for row in rows:
        assert ("the file is empty" in row["error"]) == (row["image_id"] == "a.jpg") == (not row["caption"])
    for name in NAMES:
        (pictures / name).write_bytes(b"no picture")
    assert run(pictures, "--checkpoint", checkpoints["third"]) == 2
    printed, err = capsys.readouterr()
    assert not printed and err.count("not a picture") == 5


def test_several_captions_are_several_rows(pictures, checkpoints, tmp_path, capsys):
    out = tmp_path / "out.csv"
    arguments = ["--checkpoint", checkpoints["third"], "--csv", out, "--num-return", "3", "--prompt", 'a, "b"',
                 "--no-repeat-ngram", "1", "--min-new-tokens", "3"]  # fmt: skip
    assert run(pictures, *arguments) == 0
    whole, rows = out.read_bytes(), read(out)
    for name in NAMES:
        said = [row["caption"] for row in rows if row["image_id"] == name]
        assert 1 <= len(said) == len(set(said)) <= 3 and all(text.startswith('a, "b"') for text in said)
    assert len(rows) > len(NAMES)
    last = [row for row in rows if row["image_id"] == "é 写真.jpg"]
    assert len(last) > 1
    # Torn exactly between two of a picture's lines: nothing looks torn, but the picture's captions are not complete.
    lines = caption._as_csv([caption.COLUMNS, *(list(row.values()) for row in rows[: rows.index(last[0]) + 1])])
    out.write_bytes(lines.encode())
    assert run(pictures, *arguments) == 0 and out.read_bytes() == whole


def test_a_model_name_is_the_folder_and_its_weights(tmp_path):
    places = {"a/best": b"1", "b/best": b"2", "a/checkpoint": b"1", "b/checkpoint": b"3"}
    for place, weights in places.items():
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.safetensors").write_bytes(weights)
    names = caption.model_names([tmp_path / place for place in places])
    assert names == ["best@6b86b273", "best@d4735e3a", "a/checkpoint@6b86b273", "b/checkpoint@4e074085"]
    assert [caption.model_names([tmp_path / place])[0] for place in places] == names, "whatever else is given"
    assert caption.model_names([caption.SHIPPED])[0].startswith("clipcap@")
    with pytest.raises(InputError, match="is given twice"):
        caption.model_names([str(tmp_path / "a/best"), str(tmp_path / "b/best"), str(tmp_path / "b" / ".." / "a/best")])
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        caption.model_names([tmp_path])


def test_separate_runs_and_models_trained_anew_are_different_models(pictures, checkpoints, tmp_path, counted):
    """Training always writes to .../checkpoint: two runs' tables must not take one for the other."""
    out, place = tmp_path / "out.csv", tmp_path / "run" / "checkpoint"
    for name in PLACES[:2]:
        assert run(pictures, "--checkpoint", checkpoints[name], "--csv", out) == 0
    assert sum(counted) == 10
    captioner = caption._load(caption._parser().parse_args(["-f", "x"]), checkpoints["third"])
    for seed in (1, 2, 2):  # trained at one place, then anew; the third is the second once more
        torch.manual_seed(seed)
        captioner.model.clip_project.load_state_dict(
            {k: torch.randn_like(v) for k, v in captioner.model.clip_project.state_dict().items()}
        )
        save_captioner(captioner, place)
        assert run(pictures, "--checkpoint", place, "--csv", out) == 0
    assert sum(counted) == 20 and len({row["model_name"] for row in read(out)}) == 4


def test_a_folder_of_folders(pictures, checkpoints, tmp_path):
    for place in ("zoo/lions", ".hidden"):
        (pictures / place).mkdir(parents=True)
        shutil.copy(pictures / "a.jpg", pictures / place / "a.jpg")
    out = tmp_path / "out.csv"
    assert run(pictures, "--checkpoint", checkpoints["third"], "--csv", out) == 0
    assert [row["image_id"] for row in read(out)] == sorted(NAMES)
    assert run(pictures, "--checkpoint", checkpoints["third"], "--csv", out, "--recursive") == 0
    rows = read(out)
    assert [row["image_id"] for row in rows] == [*sorted(NAMES), "zoo/lions/a.jpg"]
    assert rows[-1]["caption"] == rows[0]["caption"]


@pytest.mark.parametrize("content", ["image,caption\na.jpg,a dog\n", "no table", "image_id,model_name,caption,error\na,b\n",
                                     'image_id,model_name,caption,error\r\n"a"b,c,d,e\r\n', "\x00\x01\n"])  # fmt: skip
def test_a_csv_of_another_program_is_refused_and_left_alone(content, pictures, tmp_path, counted, capsys):
    out = tmp_path / "out.csv"
    out.write_bytes(content.encode())
    assert run(pictures, "--csv", out) == 2
    err = capsys.readouterr().err
    assert "is not a table of this command" in err and "--csv" in err and len(err.splitlines()) == 1
    assert out.read_bytes() == content.encode() and not counted


def test_a_table_saved_by_a_spreadsheet_goes_on(pictures, checkpoints, tmp_path, counted):
    out, arguments = tmp_path / "out.csv", ["--checkpoint", checkpoints["third"], "--csv"]
    assert run(pictures, *arguments, out) == 0
    rows = read(out)[:-1]
    out.write_bytes(b"\xef\xbb\xbf" + out.read_bytes().replace(b"\r\n", b"\n").rsplit(b"\n", 2)[0] + b"\n")
    assert run(pictures, *arguments, out) == 0 and counted == [5, 1]
    assert caption.read_table(out)[:-1] == [list(row.values()) for row in rows]


@pytest.mark.skipif(os.name != "posix", reason="names that are not UTF-8")
def test_a_name_that_is_not_unicode(checkpoints, tmp_path, counted, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "out.csv"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    (folder / "a.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    for _ in range(2):
        assert run(folder, "--checkpoint", checkpoints["third"], "--csv", out) == 0
    assert counted == [1] and b"caf\xe9.png,third@" in out.read_bytes()
    capsys.readouterr()
    assert run(folder, "--checkpoint", checkpoints["third"]) == 0
    assert capsys.readouterr().out.startswith("caf�.png\tthird@")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--folder", "EMPTY"], "no picture in this folder"), (["--folder", "nowhere"], "there is no such folder"),
     (["--folder", "PICTURES", "--checkpoints", "nowhere"], "nowhere does not exist"),
     (["--folder", "PICTURES", "--csv", "EMPTY"], "cannot be read or written"),
     (["--folder", "PICTURES", "--csv", "PICTURES/a.jpg/out.csv"], "cannot be read or written"),
     (["--folder", "PICTURES", "--num-return", "0"], "num_return must be at least 1"),
     (["--folder", "PICTURES", "--min_new_tokens", "50"], "min_new_tokens must lie between"),
     (["--folder", "PICTURES", "--batch-size", "0"], "--batch-size must be at least 1"),
     (["-f", "a.jpg", "--recursive"], "--recursive; with -f"),
     (["-f", "a.jpg", "--csv", "out.csv"], "--csv and --checkpoints go with --folder"),
     (["-f", "a.jpg", "--checkpoints", "a", "b"], "--csv and --checkpoints go with --folder")],
)  # fmt: skip
def test_what_is_wrong_is_one_line(arguments, message, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "PICTURES": pictures}
    assert caption.main([a.replace("EMPTY", str(places["EMPTY"])).replace("PICTURES", str(pictures)) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: ") and message in err and "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["-f", "a.jpg", "--folder", "b"],
                                       ["--folder", "b", "--checkpoint", "c", "--checkpoints", "d"]])  # fmt: skip
def test_files_or_a_folder(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        caption.main(arguments)
    assert left.value.code == 2 and "usage:" in capsys.readouterr().err
