"""What each notebook will take, in both profiles: minutes, GPU memory, disk; recorded where a run was, else counted.

    python -m helpers.plan              # the table
    python -m helpers.plan --keep       # counts the full profile anew and writes results/plans/full.json

One training alone: `python -m helpers.train SYSTEM --profile full --dry-run`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from helpers.environment import DEFAULTS, KAGGLE_HOURS, PLANS, ROOT, find_place, shown
from helpers.errors import InputError
from helpers.files import write_json
from helpers.first_cell import find_notebooks
from helpers.hub import find_file

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from helpers.environment import Run
    from helpers.flops import Device
    from helpers.settings import TrainSettings
    from helpers.training_plan import Plan

START = 180  # seconds: packages are installed, a GB of backbones downloaded, captions read; an assumption
# Seconds a system that all scorers score, on a thousand pictures; METEOR alone takes some 10: an assumption. Without SPICE,
# whose program is on neither Kaggle nor Colab.
SCORERS = 20
BACKBONES = ("clip", "language_model", "tokenizer", "image_tower", "text_tower")  # of a Run
DATASETS = ("flickr8k", "flickr30k", "coco2017", "coco-karpathy")  # that --keep counts
RECORDED_BY = {"clipcap": "03_clipcap", "decoder": "02_transformer_decoder", "cross-attention": "04_cross_attention",
               "dual-encoder": "05_contrastive_retrieval"}  # fmt: skip


@dataclass(frozen=True)
class Train:
    """A training by the full preset of a system (None: the notebook's), with changes of its settings and sizes."""

    system: str | None = None
    settings: dict[str, object] = field(default_factory=dict)
    sizes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """Captions of a split's pictures, by so many beams (or draws), so many times over."""

    system: str | None = None
    split: str = "test"
    beams: int = 1
    times: int = 1


@dataclass(frozen=True)
class Look:
    """CLIP's vectors of some splits, beside those that a training needs anyhow."""

    splits: tuple[str, ...] = ("test",)


@dataclass(frozen=True)
class Open:
    """Pictures of some splits that are opened, so many times over."""

    splits: tuple[str, ...]
    times: int = 1


@dataclass(frozen=True)
class Score:
    """So many systems scored on the test pictures."""

    systems: int


ALL = ("train", "val", "test")
FEW = {"captions": "random", "epochs": 2}
# What the notebooks do that takes time, in the full profile: (system of setup(), work). The rest is seconds.
NOTEBOOKS: dict[str, tuple[str, tuple[object, ...]]] = {
    "00_start_here": ("clipcap", ()),
    "01_data_exploration": ("clipcap", (Open(("train", "val")),)),
    "02_transformer_decoder": (
        "decoder",
        (Look(ALL), Train(), Train(sizes={"memory": "pooled"}), Say(times=2), Say(beams=5), Score(7)),
    ),
    "03_clipcap": (
        "clipcap",
        (Look(), Train(), Train(settings=FEW), Train(settings=FEW, sizes={"mapping": "mlp"}),
         Train(settings=FEW, sizes={"mapping": "linear", "tuning": "blocks", "frozen_blocks": 11}),
         Train(settings=FEW, sizes={"mapping": "mlp", "tuning": "all"}),
         Say(times=2), Say(beams=5), Say(split="val", times=4), Score(6)),
    ),
    "04_cross_attention": (  # 17 layers of ClipCap's mapping have as many parameters as cross-attention trains
        "cross-attention",
        (Look(), Train(), Train("clipcap", sizes={"layers": 17}), Say(), Say(beams=5), Say("clipcap"), Score(6)),
    ),
    "05_contrastive_retrieval": (
        "dual-encoder",
        (Look(), Train(), Open(("test",), times=6), Say("decoder", beams=5), Say("clipcap", beams=5),
         Say("cross-attention", beams=5), Score(9)),
    ),
    "06_evaluation": (
        "clipcap",
        (Look(ALL), *(Say(system, split) for system in ("decoder", "clipcap", "cross-attention") for split in ("test", "val")),
         Open(("test", "val"), times=2), Score(9), Score(8)),
    ),
    "07_caption_your_photos": ("clipcap", ()),
}  # fmt: skip


def notebooks() -> pd.DataFrame:
    """A row a notebook that there is: minutes and memory in both profiles, the full one's disk, and where it is from.

    "recorded": measured in a run whose record is in results/; "counted": from `python -m helpers.plan --keep`, on the
    notebook's own dataset. Where the notebooks are elsewhere, as on Kaggle, those of NOTEBOOKS that are no longer to come.
    """
    import pandas as pd

    counted = read_plans().get("notebooks", {})
    rows = []
    for name in [path.stem for path in find_notebooks(ROOT)] or _published():
        tiny, full, plan = _recorded(name, "tiny"), _recorded(name, "full"), {}
        if name in counted:
            plan = counted[name]["on"][counted[name]["dataset"]]
        source = "minutes recorded, rest counted" if full else "counted" if plan else None
        rows.append({
            "notebook": name,
            "tiny minutes": tiny.get("minutes"),
            "tiny memory (GB)": tiny.get("memory_gb"),
            "full minutes": full.get("minutes", plan.get("minutes")),
            "full GPU memory (GB)": plan.get("memory"),
            "full disk (GB)": plan.get("disk"),
            "source": source,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _published() -> list[str]:
    from helpers.figures.series import COMING

    return [name for name in NOTEBOOKS if not name.startswith(COMING)]


def read_plans() -> dict:
    """What --keep wrote; {} where it has not."""
    return json.loads(PLANS.read_text(encoding="utf-8")) if PLANS.is_file() else {}


def count_notebooks(names: tuple[str, ...] = tuple(NOTEBOOKS), datasets: tuple[str, ...] = DATASETS) -> dict:
    """The full profile on Kaggle, counted: the same on every machine.

    {"device": ..., "assumption": ..., "notebooks": {name: {"dataset": its own, "on": {dataset: {"minutes": ..., "steps": ...,
    "memory": GB, "disk": GB}}}}}
    """
    from helpers.flops import gpu

    device = gpu("T4")
    counted = {name: {"dataset": parts_of(NOTEBOOKS[name][0]).dataset,
                      "on": {dataset: _count_notebook(name, dataset, device) for dataset in datasets}} for name in names}
    return {"device": device.name, "assumption": device.assumption, "notebooks": counted}


def _count_notebook(name: str, dataset: str, device: Device) -> dict:
    from helpers import training_plan as plans
    from helpers.disk import KAGGLE_BYTES
    from helpers.presets import settings_for, sizes_for

    system, work = NOTEBOOKS[name]
    run = parts_of(system)
    counts = plans.Counts(*plans.COUNTS[dataset])
    number = dict(zip(ALL, counts[:3], strict=True))
    number["test"] = number["test"] or number["val"]  # a dataset may keep its test pictures back
    seconds, memory, features, checkpoints, steps = START, 0, {}, 0, 0
    for one in work:
        other = getattr(one, "system", None) or system
        theirs = parts_of(other)
        theirs.clip = run.clip if isinstance(one, Train) else theirs.clip  # trained here, on the notebook's CLIP
        if isinstance(one, Train):
            plan = plans.plan_training(theirs, other, settings_for("full", other, **one.settings),
                                       sizes_for("full", other, **one.sizes), counts, device,
                                       free=KAGGLE_BYTES - checkpoints)  # fmt: skip
            needed = plan.disk["features"]
            # Features are made once, whoever comes first.
            seconds += sum(plan.seconds.values()) - (plan.seconds.get("features", 0) if needed in features else 0)
            features[needed] = needed
            checkpoints, memory, steps = checkpoints + plan.disk["checkpoints"], max(memory, plan.memory), steps + plan.steps
        elif isinstance(one, Say):
            model, eye, _ = plans.captioner_of(theirs, other, settings_for("full", other), sizes_for("full", other))
            pictures = number[one.split]
            memory = max(memory, 4 * plans.parameters(model) + 2 * plans.parameters(eye.clip))
            seconds += one.times * plans.saying(model, pictures, device, eye.grid[0], one.beams)
            seconds += plans.features_seconds(theirs, pictures, device) * (other != system)
        elif isinstance(one, Look):
            seconds += plans.features_seconds(run, sum(number[split] for split in one.splits), device)
        elif isinstance(one, Open):
            seconds += one.times * device.opening(sum(number[split] for split in one.splits))
        else:
            seconds += one.systems * SCORERS * number["test"] / 1000
    return {"minutes": round(seconds / 60), "steps": steps, "memory": round(memory / 1e9, 1),
            "disk": round((sum(features.values()) + checkpoints) / 1e9, 1)}  # fmt: skip


def parts_of(system: str, profile: str = "full") -> SimpleNamespace:
    """What setup() would choose for a system, where nothing is chosen: backbones and dataset, and nothing is looked for."""
    nothing = dict.fromkeys(BACKBONES)
    parts = SimpleNamespace(**(nothing | DEFAULTS[system][profile]), cache_dir=ROOT / "data" / "cache", profile=profile)
    parts.tokenizer = parts.language_model or parts.text_tower or parts.tokenizer
    return parts


def dry_run(
    run: Run, system: str, preset: str, settings: TrainSettings, sizes: dict, *, limit: int | None = None, devices: int = 1,
    wanted: str | None = None,
) -> str:  # fmt: skip
    """What `helpers.train --dry-run` prints. Raises InputError for parts whose sizes are not known here."""
    from helpers import training_plan as plans

    counts = plans.find_counts(run.dataset, run.data_dir, run.work_dir, seed=run.seed, limit=limit)
    device, assumed = plans.here(run.profile, wanted)
    plan = plans.plan_training(run, system, settings, sizes, counts, device, devices=devices)
    usual = devices == 1 and _is_usual(run, system, preset, sizes)
    return _table(run, system, preset, plan, assumed, recorded_training(system, run, settings, plan) if usual else None)


def of_experiment(run: Run, name: str) -> tuple[Run, TrainSettings, dict]:
    """The run, settings and sizes of a dual encoder's published experiment. Raises InputError for a name that is none."""
    from helpers.retrieval_experiments import DATASETS, pair_experiments

    experiments = pair_experiments(run)
    if name not in experiments:
        raise InputError(f"experiment {name!r} is not known: choose one of {', '.join(experiments)}")
    one, (first, second) = experiments[name], DATASETS[run.profile]
    dataset = {"first": first, "second": second, "both": f"{first}+{second}"}[one.train_on]
    tower = one.image_tower
    if tower.endswith(".pt") and not find_file(tower):  # experiment 1's, which a classifier is trained for first
        tower = {"full": "resnet50-random", "tiny": "small"}[run.profile]
    run = replace(run, dataset=dataset, data_dir=None, image_tower=tower, text_tower=one.text_tower)
    return run, one.settings, one.sizes


def _is_usual(run: Run, system: str, preset: str, sizes: dict) -> bool:
    """Whether the model is the profile's, whose training the notebook records: its sizes and its backbones."""
    from helpers.presets import sizes_for

    parts = parts_of(system, run.profile)
    same = all(getattr(run, name) == getattr(parts, name) for name in BACKBONES)
    return same and preset == run.profile and sizes == sizes_for(preset, system)


def recorded_training(system: str, run: Run, settings: TrainSettings, plan: Plan) -> tuple[float, str, str] | None:
    """Minutes by a recorded run of the same settings, in proportion to the steps, its hardware and its record's file.

    None where there is none. Whether the model was the same is for `_is_usual` to say.
    """
    path = _record(RECORDED_BY.get(system, system), run.profile)
    record = _recorded(RECORDED_BY.get(system, system), run.profile)
    there = record.get("training", {})
    of_the_run = ("epochs", "share", "seed", "checkpoint_steps")  # and not of how a step is made
    same = {name: value for name, value in vars(settings).items() if name not in of_the_run}
    same["dataset"] = run.dataset
    if "minutes" not in there or any(there.get(name) != value for name, value in same.items()):
        return None
    scale = plan.counts.train * settings.share * settings.epochs / (there["pictures"] * there["epochs"])
    return there["minutes"] * scale, record["hardware"], shown(path) + ("" if scale == 1 else ", in proportion")


def _table(run: Run, system: str, preset: str, plan: Plan, assumed: str, recorded: tuple[float, str, str] | None) -> str:
    from helpers.disk import free_bytes, size_text

    c, device = plan.counts, plan.device
    pictures = ", ".join(f"{count:,} {split}" for split, count in zip(ALL, c[:3], strict=True))
    parts = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in plan.seconds.items() if seconds >= 3)
    if recorded:
        minutes, where, how = recorded[0], recorded[1], f"recorded: {recorded[2]}"
    else:
        minutes, where = plan.minutes, f"a {device.name}{assumed}" if device.memory else device.name
        how = f"counted FLOPs at {device.assumption}, an assumption; no recorded run: {parts}"
    room = f" of {device.memory} GB" if device.memory else ""
    if device.memory and plan.memory > 0.9e9 * device.memory:
        room += ": TOO MUCH, a smaller --batch-size with --accumulate takes less"
    free, written = free_bytes(run.output_dir), sum(plan.disk.values())
    fits = "" if written <= free else ": TOO MUCH, --limit, --share or --no-mirrored make it less"
    backbones = plan.download - plan.unpacking
    download = [f"{run.dataset} {size_text(plan.unpacking)}, twice that while it is unpacked, nothing on Kaggle, where it is "
                "attached" if plan.unpacking else "", f"backbones {size_text(backbones)}" if backbones else ""]  # fmt: skip
    if find_place() != "kaggle" and 2 * plan.unpacking + backbones + written > free:
        download.append(f"TOO MUCH for the {size_text(free)} free: a smaller dataset, --data-dir, or another disk "
                        "(KAGGLEHUB_CACHE)")  # fmt: skip
    captions = system not in ("clip", "dual-encoder")
    with_clip = ", CLIP's image tower among them" if captions else ""
    rows = {
        "training": f"{system}, preset {preset}, profile {run.profile}",
        "dataset": f"{run.dataset}: {pictures} pictures ({'counted here' if c.found else 'known counts, it is not here'})",
        "CLIP": run.clip if captions else None,
        "language model": run.language_model,
        "image tower": run.image_tower,
        "text tower": run.text_tower,
        "captions a step": plan.batch,
        "steps": f"{plan.steps_an_epoch:,} an epoch, {plan.steps:,} in {plan.epochs} epochs",
        "parameters": f"{plan.trainable:,} train of {plan.parameters:,}{with_clip}",
        "memory": f"about {size_text(plan.memory)}{room}",
        "disk": ", ".join(f"{name} {size_text(size)}" for name, size in plan.disk.items() if size)
        + f"; {size_text(free)} free{' of the 20 GB of /kaggle/working' if find_place() == 'kaggle' else ''}{fits}",
        "download": "; ".join(filter(None, download)) or "nothing",
        "minutes": f"about {max(1, round(minutes))} on {where} ({how})" if minutes >= 1 else f"less than 1 on {where} ({how})",
        "Kaggle's 12 hours": kaggle_text(minutes),
    }
    table = "\n".join(f"{name:<18} {value}" for name, value in rows.items() if value)
    return "\n".join([table, *plan.notes])


def kaggle_text(minutes: float) -> str:
    """Whether so many minutes are within Kaggle's limit, and what to do where they are not."""
    if minutes <= 60 * KAGGLE_HOURS:
        return "finishes"
    return ("does NOT finish: use fewer pictures (--limit, --share) or epochs (--epochs), or run it again with its own output "
            "attached: it goes on from the last checkpoint")  # fmt: skip


def _record(notebook: str, profile: str) -> Path:
    return ROOT / "results" / f"{notebook}.{profile}.json"


def _recorded(notebook: str, profile: str) -> dict:
    """The kept record of a notebook's run; {} where there is none."""
    path = _record(notebook, profile)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.plan", description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="count the full profile anew, and write results/plans/full.json")
    options = parser.parse_args(arguments)
    try:
        if options.keep:
            write_json(PLANS, count_notebooks())
            print(shown(PLANS))
        print(notebooks().to_string(index=False))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
