"""Plans: sizes of the published models, arithmetic by hand, every system and preset without a GPU, data or network."""

import json
import socket
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers import architectures, flops, plan, train, training_plan
from helpers.data import sources
from helpers.environment import DEFAULTS, PLANS, ROOT, Run, setup
from helpers.errors import InputError
from helpers.figures import series
from helpers.first_cell import find_notebooks
from helpers.memory import training_memory
from helpers.models.clipcap import ClipCap
from helpers.presets import PRESETS, settings_for, sizes_for

T4 = flops.gpu("T4")


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    """No network, no GPU, nothing attached or cached."""
    def refuse(*_, **__):
        raise AssertionError("a plan needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sources, "KAGGLE_INPUT", tmp_path / "input")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "published"), [
    ("RN50", 102_007_137), ("RN101", 119_688_033), ("ViT-B/32", 151_277_313), ("ViT-B/16", 149_620_737),
    ("ViT-L/14", 427_616_513),
])  # fmt: skip
def test_clips_have_their_published_parameters(name, published):
    eye = architectures.meta_clip(name)
    assert count(eye.clip) == published and all(p.is_meta for p in eye.clip.parameters())


def test_the_others_too():
    gpt2, words, _ = architectures.meta_language_model("gpt2")
    assert count(gpt2) == 124_439_808 and (len(words), words.bos) == (50_257, 50_256)
    assert count(architectures.meta_language_model("gpt2-medium")[0]) == 354_823_168
    assert count(architectures.meta_text_tower("distilbert-base-uncased")[0]) == 66_362_880
    assert count(architectures.meta_image_tower("resnet50")[0]) == 25_557_032 - 2_049_000  # without the classification layer
    assert architectures.meta_clip("RN50").grid == (49, 2048) and architectures.meta_clip("ViT-L/14").grid == (257, 1024)


def test_a_file_here_is_read_and_a_name_not_known_refused():
    tiny = DEFAULTS["clipcap"]["tiny"]
    assert architectures.meta_clip(tiny["clip"]).dim == 256 and architectures.meta_clip(tiny["clip"]).download == 0
    assert architectures.meta_language_model(tiny["language_model"])[0].config.n_embd == 128
    for refused in (lambda: architectures.meta_clip("ViT-Z"), lambda: architectures.meta_language_model("gpt9"),
                    lambda: architectures.meta_text_tower("t5"), lambda: architectures.tokens_of("t5")):  # fmt: skip
        with pytest.raises(InputError):
            refused()


def test_arithmetic_by_hand():
    with torch.device("meta"):
        first, second, x = nn.Linear(6, 3), nn.Linear(3, 6).requires_grad_(False), torch.empty(5, 6)
    one = 2 * 5 * 6 * 3
    assert flops.count(lambda: first(x).sum()).flops == one
    alone, learning = flops.count_step(lambda: first(x).sum())
    assert (alone.flops, learning.flops) == (one, 2 * one), "the input asks for no gradient"
    _, behind = flops.count_step(lambda: second(first(x)).sum())
    assert behind.flops == 4 * one, "through what is frozen the gradient only passes"
    slow = flops.Device("slow", 1e-12, None, 1e-9, 2, launch=0)
    assert slow.seconds(flops.Work(10, 1000), 3) == 30 and slow.opening(200) == 1
    launched = flops.Device("fast", 1e6, 16, 300, 4, launch=1e-5)
    assert launched.seconds(flops.Work(10, 1000)) == pytest.approx(0.01)


def test_devices_by_their_names():
    assert flops.gpu("Tesla T4") == T4 and T4.sustained == pytest.approx(0.3 * 65) and T4.assumption == "30% of its 65 TFLOP/s"
    assert flops.gpu("NVIDIA A100-SXM4-40GB").name == "A100" and flops.gpu("Some GPU").name == "T4"
    assert flops.known_gpu("NVIDIA H100 80GB HBM3") == "H100" and flops.known_gpu("NVIDIA L4") == "L4"
    for other in ("NVIDIA GeForce RTX 4090", "NVIDIA A10G", "NVIDIA L40S", "NVIDIA T400"):
        assert flops.known_gpu(other) is None, other
    assert training_plan.here("tiny")[0].memory is None and training_plan.here("full") == (T4, ", which is assumed")


@pytest.mark.parametrize(("name", "counted", "assumed"), [
    ("NVIDIA A100-SXM4-80GB", "A100", ""),
    ("NVIDIA L40S", "T4", ", which is assumed: NVIDIA L40S is not known here"),
])  # fmt: skip
def test_the_gpu_that_is_here(monkeypatch, name, counted, assumed):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=84_974_239_744))
    device, says = training_plan.here("full")
    assert (device.name, device.memory, says) == (counted, 85, assumed)
    assert device.sustained == flops.gpu(counted).sustained


def test_memory_on_the_meta_device_is_that_of_the_real_one(gpt2_folder):
    from transformers import AutoConfig, AutoModelForCausalLM

    def build(device):
        with torch.device(device):
            gpt2 = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(gpt2_folder), attn_implementation="eager")
            return ClipCap.build(16, gpt2, prefix_length=2, layers=1, heads=2, tuning="all")

    real, meta = (training_memory(build(device), 4, 6) for device in ("cpu", "meta"))
    assert (real.parameters, real.gradients, real.logits) == (meta.parameters, meta.gradients, meta.logits)
    assert meta.activations == pytest.approx(real.activations, rel=0.25), "kernels differ in what they save"


def test_steps_and_minutes_by_hand():
    """On the small backbones, for time."""
    counts = training_plan.Counts(*training_plan.COUNTS["flickr8k"])

    def planned(devices=1, **changes):
        run = plan.parts_of("clipcap", "tiny")
        settings = settings_for("full", **({"captions": "random", "epochs": 3, "batch_size": 50} | changes))
        sizes = sizes_for("tiny")
        return training_plan.plan_training(run, "clipcap", settings, sizes, counts, T4, devices=devices, free=10**10)

    one, double, halved = planned(), planned(epochs=6), planned(devices=2)
    assert (one.steps_an_epoch, one.steps, halved.steps) == (6_000 / 50, 360, 180)
    assert double.seconds["training"] == pytest.approx(2 * one.seconds["training"])
    assert double.seconds["features"] == one.seconds["features"] and halved.batch.startswith("100: batches of 50")
    assert planned(captions="all").steps == 5 * 360 and planned(share=0.5).steps == 180
    assert one.disk["checkpoints"] == 40 * one.trainable and one.disk["features"] == 7_000 * 2 * 256


def plan_of(system, settings, counts, **options):
    return training_plan.plan_training(plan.parts_of(system), system, settings, sizes_for("full", system), counts, T4,
                                       free=20 * 10**9, **options)  # fmt: skip


def test_features_that_do_not_fit_are_made_anew():
    counts = training_plan.Counts(29_000, 1_014, 1_000)
    settings = settings_for("full", "decoder", epochs=2, unfreeze_epoch=1)
    roomy = plan_of("decoder", settings, counts)
    assert roomy.disk["features"] == (2 * 29_000 + 1_014) * 2 * (49 * 2048 + 1024) and not roomy.notes
    tight = training_plan.plan_training(plan.parts_of("decoder"), "decoder", settings, {}, counts, T4, free=5 * 10**9)
    assert tight.disk["features"] == 0 and "CLIP runs anew in each epoch" in tight.notes[0]
    assert roomy.trainable > tight.trainable - 1 and tight.seconds["pictures anew"] > roomy.seconds["pictures anew"]


QUICK = [("clipcap", "full"), ("clipcap", "p2-6"), ("decoder", "published"), ("cross-attention", "full"),
         ("dual-encoder", "published"), ("clip", "full")]  # fmt: skip


def test_these_are_presets_of_every_system():
    assert {system for system, _ in QUICK} == set(PRESETS) and all(preset in PRESETS[system] for system, preset in QUICK)


@pytest.mark.parametrize(("system", "preset"), QUICK)
def test_a_dry_run_of_the_full_profile(system, preset, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "output_dir", tmp_path)  # nothing may be written there
    monkeypatch.setenv("CAPTIONING_WORK_DIR", str(tmp_path))
    assert train.main([system, "--profile", "full", "--preset", preset, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    rows = {line[:18].strip(): line[19:] for line in out.splitlines()}
    assert {"training", "dataset", "captions a step", "steps", "parameters", "memory", "disk", "download", "minutes",
            "Kaggle's 12 hours"} <= set(rows) and not err  # fmt: skip
    assert "known counts, it is not here" in rows["dataset"] and "of 16 GB" in rows["memory"]
    assert "on a T4, which is assumed (counted FLOPs at 30% of its 65 TFLOP/s" in rows["minutes"]
    assert "/root" not in out and "/home" not in out and str(tmp_path) not in out
    assert not list(tmp_path.rglob("*")), "nothing was written, drawn or downloaded"


def test_a_dry_run_of_the_tiny_profile_is_a_recorded_one(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_WORK_DIR", str(tmp_path))
    record = json.loads((ROOT / "results" / "03_clipcap.tiny.json").read_text())["training"]
    assert train.main(["clipcap", "--profile", "tiny", "--dry-run", "--epochs", "30"]) == 0
    out = capsys.readouterr().out
    hardware = json.loads((ROOT / "results" / "03_clipcap.tiny.json").read_text())["hardware"]
    assert f"about {round(record['minutes'] * 10)} on {hardware} (recorded: results/03_clipcap.tiny.json, in" in out
    assert "scenes: 2,000 train, 200 val, 200 test pictures (known counts" in out and "in proportion" in out


@pytest.mark.parametrize("other", [
    ["--learning-rate", "1"], ["--devices", "2"], ["--clip", "data/tiny/clip-rn.pt"], ["--language-model", "gpt2"],
    ["--dataset", "scenes-sketch"],
])  # fmt: skip
def test_another_training_was_not_recorded(other, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CAPTIONING_WORK_DIR", str(tmp_path))
    assert train.main(["clipcap", "--profile", "tiny", "--dry-run", *other]) == 0
    assert "counted FLOPs at" in (out := capsys.readouterr().out) and "recorded: " not in out


@pytest.mark.parametrize(("system", "steps"), [
    ("decoder", 314), ("cross-attention", 628), ("dual-encoder", 237), ("clip", 471),
])  # fmt: skip
def test_steps_of_the_tiny_profile_are_those_that_were_trained(system, steps, capsys):
    """As the last row of each notebook's history.csv has them."""
    assert train.main([system, "--profile", "tiny", "--dry-run"]) == 0
    assert f"an epoch, {steps} in " in capsys.readouterr().out


def test_a_dataset_that_is_here_is_counted(photos, capsys):
    arguments = ["clipcap", "--profile", "full", "--dry-run", "--dataset", "flickr8k", "--data-dir", str(photos)]
    assert train.main(arguments) == 0
    assert "test pictures (counted here)" in (out := capsys.readouterr().out) and "known counts" not in out
    assert "download           backbones" in out, "the dataset is not downloaded"


def test_a_dry_run_says_what_is_wrong(capsys):
    for arguments, message in (
        (["clipcap", "--dataset", "nosuch"], "dataset 'nosuch'"), (["clipcap", "--language-model", "gpt9"], "'gpt9'"),
        (["clipcap", "--preset", "nosuch"], "preset 'nosuch'"), (["clipcap", "--devices", "none"], "devices='none'"),
        (["dual-encoder", "--experiment", "9"], "experiment '9'"), (["decoder", "--clip", "ViT-B/32"], "cannot learn"),
    ):  # fmt: skip
        assert train.main([*arguments, "--profile", "full", "--dry-run"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["clipcap", "--limit", "-5"], "limit=-5 leaves no pictures: give 1 or more"),
    (["clipcap", "--limit", "0"], "limit=0 leaves no pictures: give 1 or more"),
    (["dual-encoder", "--experiment", "0", "--dataset", "scenes"], "--experiment 0 says what --dataset is: leave it out"),
])  # fmt: skip
def test_a_dry_run_refuses_what_training_refuses(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CAPTIONING_WORK_DIR", str(tmp_path))
    for also in ([], ["--dry-run"]):
        assert train.main([*arguments, "--profile", "tiny", *also]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


def test_a_gpu_that_is_not_here_may_be_planned_for(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CAPTIONING_WORK_DIR", str(tmp_path))
    arguments = ["clipcap", "--profile", "full", "--device", "cuda"]
    assert train.main([*arguments, "--dry-run"]) == 0 and "on a T4, which is assumed" in capsys.readouterr().out
    assert train.main(arguments) == 2 and "device 'cuda': there is no GPU here" in capsys.readouterr().err
    monkeypatch.setenv("CAPTIONING_DEVICE", "cpu")
    assert train.main([*arguments[:-2], "--dry-run"]) == 0 and "CPU cores (counted" in capsys.readouterr().out


def test_what_does_not_fit_is_said(capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 2 * 10**8}))
    options = ["--batch-size", "2000", "--captions", "all", "--epochs", "9000"]
    assert train.main(["clipcap", "--profile", "full", "--dry-run", *options]) == 0
    rows = {line[:18].strip(): line[19:] for line in capsys.readouterr().out.splitlines()}
    assert "of 16 GB: TOO MUCH" in rows["memory"] and "200.0 MB free: TOO MUCH" in rows["disk"]
    assert "TOO MUCH" in rows["download"] and rows["Kaggle's 12 hours"].startswith("does NOT finish")
    assert "--limit" in rows["Kaggle's 12 hours"] and "attached" in rows["Kaggle's 12 hours"]


@pytest.mark.parametrize("experiment", ["1", "5"])
def test_an_experiment_by_its_number(experiment, capsys):
    assert train.main(["dual-encoder", "--profile", "full", "--experiment", experiment, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert ("resnet50-random" in out) == (experiment == "1") and ("flickr30k+flickr8k: 35,000" in out) == (experiment == "5")


def test_the_stored_plans_are_those_counted_now():
    """Two notebooks, for time. Versions of the libraries differ in how many operations a pass is."""
    stored, names = json.loads(PLANS.read_text()), ("01_data_exploration", "04_cross_attention")
    now = plan.count_notebooks(names, ("flickr8k",))
    assert (stored["device"], stored["assumption"]) == (now["device"], now["assumption"])
    assert set(stored["notebooks"]) == set(plan.NOTEBOOKS)
    for counted in stored["notebooks"].values():
        minutes = [counted["on"][dataset]["minutes"] for dataset in plan.DATASETS]
        assert counted["dataset"] == "flickr8k" and minutes[0] <= minutes[1] <= minutes[2]
    for name in names:
        before, after = (plans["notebooks"][name]["on"]["flickr8k"] for plans in (stored, now))
        assert after == before | {key: pytest.approx(before[key], rel=0.1, abs=1) for key in ("minutes", "memory", "disk")}


def test_as_many_parameters_in_notebook_04():
    """NOTEBOOKS types the layers that the notebook counts."""
    sizes = next(one.sizes for one in plan.NOTEBOOKS["04_cross_attention"][1] if getattr(one, "system", None) == "clipcap")
    run, counts = plan.parts_of("cross-attention"), []
    for system, these in (("cross-attention", sizes_for("full", "cross-attention")), ("clipcap", sizes)):
        model, _, _ = training_plan.captioner_of(run, system, settings_for("full", system), these)
        counts.append(training_plan.parameters(model, trained=True))
    assert counts[1] == pytest.approx(counts[0], rel=0.05)


def test_a_row_for_every_notebook():
    table = plan.notebooks().set_index("notebook")
    assert list(table.columns) == ["tiny minutes", "tiny memory (GB)", "full minutes", "full GPU memory (GB)",
                                   "full disk (GB)", "source"]  # fmt: skip
    assert list(table.index) == [path.stem for path in find_notebooks(ROOT)] and set(table.index) <= set(plan.NOTEBOOKS)
    assert table.loc["03_clipcap", "source"] == "counted" and table.loc["03_clipcap", "full minutes"] > 0
    record = json.loads((ROOT / "results" / "03_clipcap.tiny.json").read_text())
    assert table.loc["03_clipcap", "tiny minutes"] == record["minutes"]
    assert table["full disk (GB)"].max() < 20, "of /kaggle/working"


def test_the_rows_where_the_notebooks_are_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    monkeypatch.setattr(series, "COMING", ("07",))
    names = list(plan.NOTEBOOKS)
    assert list(plan.notebooks()["notebook"]) == names[:-1] and names[-1].startswith("07")
    monkeypatch.setattr(series, "COMING", ())
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "03_clipcap.full.json").write_text(json.dumps({"minutes": 21.5}))
    table = plan.notebooks().set_index("notebook")
    assert list(table.index) == names and table.loc["03_clipcap", "full minutes"] == 21.5
    assert table.loc["03_clipcap", "source"] == "minutes recorded, rest counted"
    assert table.loc["03_clipcap", "full disk (GB)"] > 0


@pytest.fixture
def minutes_row(tmp_path, capsys):
    """What setup() prints after "minutes to expect" for 03_clipcap."""
    def row(**options):
        setup("03_clipcap", work_dir=tmp_path, **options)
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("minutes"))[19:]

    return row


CPU = "; this CPU takes many times that"
LONG = ": more than Kaggle's 12 hours. Use fewer pictures or epochs, as by settings_for(..., share=0.1), or run the notebook "


def test_setup_says_how_many_minutes(minutes_row, monkeypatch):
    counted = {name: one["minutes"] for name, one in json.loads(PLANS.read_text())["notebooks"]["03_clipcap"]["on"].items()}
    recorded = json.loads((ROOT / "results" / "03_clipcap.tiny.json").read_text())["minutes"]
    assert minutes_row(profile="tiny") == f"about {round(recorded)}"
    assert minutes_row(profile="tiny", dataset="scenes-sketch") == "no recorded run yet", "that one is of other pictures"
    told = "about {} on a T4 (counted, no recorded run)"
    assert minutes_row(profile="full") == told.format(counted["flickr8k"]) + CPU
    assert minutes_row(profile="full", dataset="coco2017") == told.format(counted["coco2017"]) + CPU
    assert minutes_row(profile="full", dataset="mine") == told.format(counted["flickr8k"]) + " for flickr8k" + CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert minutes_row(profile="full") == told.format(counted["flickr8k"])


def test_setup_says_what_would_not_finish_on_kaggle(minutes_row, monkeypatch, tmp_path):
    """Counted or recorded, of its own dataset or another."""
    monkeypatch.setattr("helpers.environment.ROOT", tmp_path)
    monkeypatch.setattr("helpers.environment.PLANS", tmp_path / "plans.json")
    on = {"flickr8k": {"minutes": 700}, "coco2017": {"minutes": 800}}
    (tmp_path / "plans.json").write_text(
        json.dumps({"device": "T4", "notebooks": {"03_clipcap": {"dataset": "flickr8k", "on": on}}})
    )
    assert "12 hours" not in minutes_row(profile="full", dataset="coco2017")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert "12 hours" not in minutes_row(profile="full") and LONG in minutes_row(profile="full", dataset="coco2017")
    (tmp_path / "results").mkdir()
    record = {"dataset": "flickr8k", "minutes": 900.4, "hardware": "Tesla T4, x86_64"}
    (tmp_path / "results" / "03_clipcap.full.json").write_text(json.dumps(record))
    assert minutes_row(profile="full").startswith(f"about 900 on Tesla T4, x86_64 (recorded){CPU}{LONG}")
    assert minutes_row(profile="full", dataset="coco2017").startswith("about 800 on a T4 (counted")
