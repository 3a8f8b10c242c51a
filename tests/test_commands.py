"""The command line as a user meets it: trains, captions, explains itself, refuses what is broken."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from helpers import caption, results, train
from helpers.environment import ROOT
from helpers.errors import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos, clip_file, gpt2_folder):
    """`helpers.train clipcap` on a folder of captioned photos."""
    out = tmp_path_factory.mktemp("trained")
    status = train.main(
        ["clipcap", "--dataset", "flickr8k", "--data-dir", str(photos), "--clip", str(clip_file), "--language-model",
         str(gpt2_folder), "--epochs", "2", "--layers", "1", "--heads", "2", "--prefix-length", "4", "--out", str(out)]
    )
    assert status == 0
    return out


@pytest.fixture(scope="module")
def trained_decoder(tmp_path_factory, photos, resnet_file, bert_folder):
    """`helpers.train decoder`, both phases."""
    out = tmp_path_factory.mktemp("decoder")
    status = train.main(
        ["decoder", "--dataset", "flickr8k", "--data-dir", str(photos), "--clip", str(resnet_file), "--tokenizer",
         str(bert_folder), "--epochs", "2", "--unfreeze-epoch", "1", "--layers", "1", "--heads", "2", "--width", "32",
         "--no-mirrored", "--out", str(out)]
    )
    assert status == 0
    return out


def test_train_decoder_writes_a_checkpoint_that_captions(trained_decoder, photos, capsys):
    config = json.loads((trained_decoder / "checkpoint" / "config.json").read_text())
    assert config["system"] == "decoder" and config["learned"] == ["layer4", "attnpool"] and config["model"]["width"] == 32
    assert config["training"]["unfreeze_epoch"] == 1 and not config["training"]["mirrored"]
    pictures = [str(path) for path in sorted((photos / "Images").iterdir())[:3]]
    for decoding in ([], ["--beams", "3"], ["--top_p", "0.8", "--temperature", "1.5"]):
        arguments = ["-f", *pictures, "--checkpoint", str(trained_decoder / "checkpoint"), "--max_new_tokens", "5"]
        assert caption.main([*arguments, *decoding]) == 0
        out, err = capsys.readouterr()
        assert [line.split("\t")[0] for line in out.splitlines()] == pictures and not err


def test_train_decoder_says_why_not(photos, clip_file, bert_folder, capsys, tmp_path):
    arguments = ["decoder", "--dataset", "flickr8k", "--data-dir", str(photos), "--tokenizer", str(bert_folder), "--out",
                 str(tmp_path / "out")]
    assert train.main([*arguments, "--clip", str(clip_file), "--encoder", "two-phases"]) == 2
    assert "layer4 and attnpool cannot learn, for this CLIP has no such part" in capsys.readouterr().err
    assert train.main([*arguments, "--epochs", "2", "--unfreeze-epoch", "5"]) == 2
    assert "unfreeze_epoch=5: there are only epochs 0 to 1" in capsys.readouterr().err


def test_train_cross_attention_writes_a_checkpoint_that_captions(photos, clip_file, gpt2_folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert train.main(
        ["cross-attention", "--dataset", "flickr8k", "--data-dir", str(photos), "--clip", str(clip_file), "--language-model",
         str(gpt2_folder), "--epochs", "1", "--heads", "2", "--tuning", "norms", "--gradient-checkpointing", "--out", str(out)]
    ) == 0  # fmt: skip
    told = capsys.readouterr().out
    assert re.search(r"features: .* a picture, .* for 16: cached", told) and "cross-attention 33," in told
    config = json.loads((out / "checkpoint" / "config.json").read_text())
    assert config["system"] == "cross-attention" and config["model"]["tuning"] == "norms"
    pictures = [str(path) for path in sorted((photos / "Images").iterdir())[:2]]
    for decoding in ([], ["--beams", "3"], ["--top_p", "0.8", "--temperature", "1.5"]):
        assert caption.main(["-f", *pictures, "--checkpoint", str(out / "checkpoint"), *decoding]) == 0
        lines, err = capsys.readouterr()
        assert [line.split("\t")[0] for line in lines.splitlines()] == pictures and not err


def test_a_preset_may_bring_its_backbones(photos, capsys, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("helpers.environment.setup", lambda notebook, **given: asked.update(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main(["cross-attention", "--preset", "published", "--data-dir", str(photos), "--clip", "ViT-B/32"])
    assert (asked["dataset"], asked["clip"], asked["language_model"]) == ("coco2017", "ViT-B/32", "gpt2-medium")


def test_train_says_how_much_memory_a_step_takes(photos, clip_file, gpt2_folder, tmp_path, capsys):
    train.main(["clipcap", "--dataset", "flickr8k", "--data-dir", str(photos), "--clip", str(clip_file), "--language-model",
                str(gpt2_folder), "--epochs", "1", "--layers", "1", "--heads", "2", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    found = re.search(r"memory of a training step, .* captions of 40 tokens: (\d+\.\d\d) GB\n", told)
    assert 0 < float(found[1]) < 1
    assert len([line for line in told.splitlines() if line.startswith("flickr8k: ")]) == 1, "pictures are counted once"


def test_train_writes_a_checkpoint_and_its_history(trained):
    config = json.loads((trained / "checkpoint" / "config.json").read_text())
    assert config["training"]["dataset"] == "flickr8k" and config["training"]["pictures"] == 12
    assert config["model"]["prefix_length"] == 4 and config["model"]["layers"] == 1
    assert len(pd.read_csv(trained / "history.csv")) == 2


def test_caption_prints_one_line_a_picture(trained, photos, capsys):
    pictures = [str(path) for path in sorted((photos / "Images").iterdir())[:3]]
    assert caption.main(["-f", *pictures, "--checkpoint", str(trained / "checkpoint"), "--max_new_tokens", "5"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == pictures and not err
    assert caption.main(["-f", pictures[0], "--checkpoint", str(trained / "checkpoint"), "--top_p", "0.8", "--temperature",
                         "1.5", "--max_new_tokens", "5"]) == 0


def test_several_captions_are_a_line_each(trained_decoder, photos, capsys):
    pictures = [str(path) for path in sorted((photos / "Images").iterdir())[:2]]
    arguments = ["-f", *pictures, "--checkpoint", str(trained_decoder / "checkpoint"), "--max_new_tokens", "6"]
    for dash in ("-", "_"):
        options = ["--num_return", "3", "--no_repeat_ngram", "2", "--min_new_tokens", "2"]
        spelled = [option.replace("_", dash) for option in options]
        assert caption.main([*arguments, *spelled, "--prompt", "a red dog"]) == 0
        out, err = capsys.readouterr()
        lines = [line.split("\t") for line in out.splitlines()]
        assert sorted({name for name, _ in lines}) == pictures and len(lines) == 6 and not err
        assert len({tuple(line) for line in lines}) == 6 and all(text.startswith("a red dog") for _, text in lines)


def test_shipped_captioner_says_what_it_was_trained_on(photos, capsys):
    assert caption.main(["-f", str(next((photos / "Images").iterdir()))]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and "drawn pictures (scenes)" in err


def test_a_broken_picture_does_not_stop_the_others(trained, photos, tmp_path, capsys):
    good = str(next((photos / "Images").iterdir()))
    broken = tmp_path / "broken.jpg"
    Image.effect_noise((64, 64), 50).save(broken)
    broken.write_bytes(broken.read_bytes()[:400])
    assert caption.main(["-f", str(broken), good, "--checkpoint", str(trained / "checkpoint")]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(good) and len(out.splitlines()) == 1 and "broken.jpg" in err and "Traceback" not in err
    assert caption.main(["-f", str(broken), "--checkpoint", str(trained / "checkpoint")]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--checkpoint", "nowhere"], "nowhere does not exist"), (["--beams", "3", "--top_p", "0.5"], "exclude each other"),
     (["--temperature", "0"], "temperature must be above 0"), (["--num-return", "0"], "num_return must be at least 1"),
     (["--no-repeat-ngram", "-1"], "no_repeat_ngram must be at least 0"),
     (["--min-new-tokens", "41"], "min_new_tokens must lie between 0 and max_new_tokens=40")],
)
def test_caption_errors_are_one_line(arguments, message, capsys):
    assert caption.main(["-f", "a.jpg", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--data-dir", "nowhere"], "nowhere"), (["--dataset", "scenes", "--clip", "ViT-B/33"], "neither a file nor one of"),
     (["--dataset", "scenes", "--language-model", "data/gone"], "data/gone does not exist")],
)
def test_train_errors_are_one_line(arguments, message, capsys, tmp_path):
    assert train.main(["clipcap", *arguments, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: ") and message in err and "Traceback" not in err
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_ctrl_c_while_training_leaves_no_half_checkpoint(photos, clip_file, gpt2_folder, tmp_path, capsys, monkeypatch):
    arguments = ["clipcap", "--dataset", "flickr8k", "--data-dir", str(photos), "--clip", str(clip_file), "--epochs", "2",
                 "--language-model", str(gpt2_folder), "--layers", "1", "--heads", "2", "--out", str(tmp_path)]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("helpers.models.clipcap.ClipCap.loss", interrupted)
        assert train.main(arguments) == 130
    assert "--resume" in capsys.readouterr().err and not (tmp_path / "checkpoint").exists()
    assert train.main([*arguments, "--resume"]) == 0 and (tmp_path / "checkpoint").is_dir()


def test_help_answers_at_once():
    """--help must not import what makes it slow."""
    code = ("import sys; from helpers import caption, train\n"
            "for door in (caption, train):\n"
            "    try: door.main(['--help'])\n"
            "    except SystemExit: pass\n"
            "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'lightning', 'numpy'} & set(sys.modules)\n"
            "assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    answer = subprocess.run([sys.executable, "-m", "helpers.caption", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0 and "--checkpoint" in answer.stdout



RECORD = {
    "notebook": "03_clipcap", "profile": "tiny", "dataset": "scenes", "seed": 0, "minutes": 1.5, "commit": "abc",
    "hardware": "2 CPU cores", "systems": {"ClipCap": {"CIDEr-D": {"value": 1.0, "low": 0.9, "high": 1.1}}},
}  # fmt: skip


def test_results_are_printed_and_put_into_the_readme(tmp_path, capsys):
    (tmp_path / "03_clipcap").mkdir()
    (tmp_path / "03_clipcap" / "record.json").write_text(json.dumps(RECORD))
    (tmp_path / "03_clipcap" / "captions.png").touch()
    assert results.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| ClipCap | 1.000 [0.90, 1.10] |" in out and "captions.png" in out
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    results.write_readme(readme, [RECORD])
    text = readme.read_text()
    assert "1.000 [0.90, 1.10]" in text and "old" not in text and text.endswith("after\n")
    readme.write_text("no marks")
    with pytest.raises(InputError, match="lacks the marks"):
        results.write_readme(readme, [RECORD])


def test_the_readme_shows_the_record_of_all_systems_once_there_is_one(tmp_path):
    recall = {"CLIP": {"R@1": RECORD["systems"]["ClipCap"]["CIDEr-D"]}}
    costs = {"ClipCap": {"trainable": 1234, "minutes": None, "per_second": 9.6}}
    retrieval = RECORD | {"notebook": "05_contrastive_retrieval", "recall": recall}
    everything = RECORD | {"notebook": "06_evaluation", "costs": costs}
    readme = tmp_path / "README.md"
    readme.write_text(f"{results.BEGIN}{results.END}")
    results.write_readme(readme, [RECORD, retrieval, everything])
    text = readme.read_text()
    assert "| ClipCap | 1.000 [0.90, 1.10] | 1,234 |  | 10 |" in text and "| CLIP | 1.000 [0.90, 1.10] |" in text
    assert text.count("| ClipCap |") == 1 and "03_clipcap" not in text


def test_the_readme_is_in_step_with_what_is_kept(tmp_path):
    committed = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(committed, encoding="utf-8")
    results.write_readme(readme, results.read_records(results.KEPT))
    assert readme.read_text(encoding="utf-8") == committed


def test_results_without_a_run(tmp_path, capsys):
    assert results.main([str(tmp_path)]) == 2
    assert "run the notebooks first" in capsys.readouterr().err
