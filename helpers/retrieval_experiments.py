"""The dual encoder's experiments 0 to 6: one table of settings, one loop, every encoder tested on both datasets.

    python -m helpers.experiments dual-encoder          # results/experiments/dual-encoder.PROFILE.json

As published (richardwzhu/image-captioning-CLIP), where experiments 3 to 5 test on photos that were trained on: every Flickr8k
photo is in Flickr30k too. Here a photo of the one's test split leaves the other's train split first, and is counted.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.environment import Run, provenance, shown
from helpers.errors import InputError
from helpers.files import write_json
from helpers.settings import TrainSettings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from helpers.contrast import Finder
    from helpers.data.datasets import Captions
    from helpers.metrics import Score

HEADLINE = ("text to image R@5", "image to text R@5")
# By profile: the dataset that plays Flickr30k, and the one that plays Flickr8k.
DATASETS = {"tiny": ("scenes", "scenes-sketch"), "full": ("flickr30k", "flickr8k")}
BERT = {"tiny": "data/tiny/bert-small", "full": "bert-base-uncased"}


@dataclass(frozen=True)
class PairExperiment:
    """One training: what it changes, what it trains on ("first", "second" or "both" datasets), its towers and settings."""

    what: str
    train_on: str
    image_tower: str
    text_tower: str
    settings: TrainSettings
    sizes: dict[str, object]


def pair_experiments(run: Run) -> dict[str, PairExperiment]:
    """By their published numbers; 3 is what 0 has trained, tested on the other dataset."""
    from helpers.recipes import settings_for, sizes_for

    settings, sizes = settings_for(run.profile, "dual-encoder", seed=run.seed), sizes_for(run.profile, "dual-encoder")
    base = PairExperiment("pretrained ResNet, DistilBERT", "first", run.image_tower, run.text_tower, settings, sizes)
    soft = sizes | {"loss": "soft-targets"}
    return {
        "0": base,
        "1": replace(base, what="ResNet trained by ourselves, as a classifier", image_tower=str(_own_tower(run))),
        "2": replace(base, what="BERT instead of DistilBERT", text_tower=BERT[run.profile]),
        "3": replace(base, what="0, for the test on the other dataset"),
        "4": replace(base, what="trained on the other dataset", train_on="second"),
        "5": replace(base, what="trained on both", train_on="both"),
        "6": replace(base, what="published loss, temperature 5", sizes=soft | {"temperature": 5.0}),
        "published": replace(base, what="published loss, temperature 1", sizes=soft | {"temperature": 1.0}),
    }


def choose_experiment(run: Run, name: str, *, limit: int | None = None) -> tuple[Run, Captions, TrainSettings, dict]:
    """What `helpers.train dual-encoder --experiment N` trains: run with its towers, its captions, settings and sizes."""
    from helpers.data.datasets import load_captions

    experiments = pair_experiments(run)
    if name not in experiments:
        raise InputError(f"experiment {name!r} is not known: choose one of {', '.join(experiments)}")
    one = experiments[name]
    _train_own_tower(run, one)
    datasets = (load_captions(each, work_dir=run.work_dir, seed=run.seed, limit=limit) for each in DATASETS[run.profile])
    return _with_towers(run, one), training_sets(*datasets)[one.train_on], one.settings, one.sizes


def _with_towers(run: Run, one: PairExperiment) -> Run:
    return replace(run, image_tower=one.image_tower, text_tower=one.text_tower, tokenizer=one.text_tower)


def _train_own_tower(run: Run, one: PairExperiment) -> dict[str, float] | None:
    """Experiment 1's image tower, as a classifier, unless it is there; its accuracy. None: not this experiment."""
    path = _own_tower(run)
    if one.image_tower != str(path):
        return None
    import torch

    from helpers.classifier import SETTINGS, make_classifier

    if path.is_file():
        there = torch.load(path, map_location="cpu", weights_only=True)
        if (there["settings"], there["seed"]) == (asdict(SETTINGS[run.profile]), run.seed):
            return there["accuracy"]
    return make_classifier(run, path).to_json()


def _own_tower(run: Run) -> Path:
    """Where experiment 1's image tower lies; `run_pair_experiments` trains it."""
    return run.work_dir / "outputs" / "classifier" / f"{run.profile}.pt"


def run_pair_experiments(run: Run, path: Path, *, limit: int | None = None) -> dict:
    """Train what `path` does not hold yet with the same settings, and write it there after each. Returns what was written.

    Raises InputError as the training and the readers of data do.
    """
    from helpers.data.datasets import load_captions
    from helpers.experiments import read_experiments

    names = DATASETS[run.profile]
    first, second = (load_captions(name, work_dir=run.work_dir, seed=run.seed, limit=limit) for name in names)
    trains = training_sets(first, second)
    conditions = {"system": "dual-encoder", "profile": run.profile, "datasets": list(names), "limit": limit, "seed": run.seed}
    record = read_experiments(path) if path.is_file() else conditions | {"experiments": {}}
    if other := [key for key in conditions if record.get(key) != conditions[key]]:
        raise InputError(f"{shown(path)} holds experiments with {other[0]}={record.get(other[0])!r}, now it is "
                         f"{conditions[other[0]]!r}: give another file (--out)")
    record["left out"] = {on: captions.report.summary for on, captions in trains.items()}
    experiments = pair_experiments(run)
    there = record["experiments"]
    record["experiments"] = {name: there[name] for name, one in experiments.items() if _same(there.get(name), one)}
    for name, one in experiments.items():
        done = record["experiments"]
        if name not in done:
            same = next((entry for entry in done.values() if _same(entry, one)), None)
            same = same or _train(run, one, trains[one.train_on], (first, second))
            done[name] = same | {"what": one.what}
            record["experiments"] = {each: done[each] for each in experiments if each in done}
            write_json(path, record)
        scores = record["experiments"][name]["tests"]
        said = "; ".join(f"{HEADLINE[0]} on {test} {_text(scores[test][HEADLINE[0]])}" for test in names)
        print(f"{name}: {one.what}: {said}", flush=True)
    return record


def training_sets(first: Captions, second: Captions) -> dict[str, Captions]:
    """What there is to train on: each dataset without photos that the other one tests or validates with, and both together.

    The report's summary says how many photos left.
    """
    from helpers.data.report import Report
    from helpers.retrieval import drop_shared

    sets = {}
    for name, own, other in (("first", first, second), ("second", second, first)):
        kept, left = own, 0
        for split in ("test", "val"):
            kept, shared = drop_shared(kept, other, ("train", split))
            left += shared
        report = Report()
        report.summary = f"{left:,} photos left the training of {own.name}: {other.name} tests or validates with them"
        sets[name] = replace(kept, report=report)
    report = Report()
    report.summary = "; ".join(sets[name].report.summary for name in ("first", "second"))
    sets["both"] = replace(join(sets["first"], sets["second"]), report=report)
    return sets


def join(first: Captions, second: Captions) -> Captions:
    """Two datasets as one; pictures are named from the folder that both lie in. A photo that is in both stays once."""
    import pandas as pd

    from helpers.data.datasets import photo_id

    above = Path(os.path.commonpath([first.image_dir.resolve(), second.image_dir.resolve()]))
    tables = []
    for captions in (first, second):
        folder = captions.image_dir.resolve().relative_to(above).as_posix()
        tables.append(captions.table.assign(image=[f"{folder}/{image}" for image in captions.table["image"]]))
    known = {photo_id(image) for image in tables[0]["image"].unique()}
    tables[1] = tables[1][~tables[1]["image"].map(photo_id).isin(known)]
    table = pd.concat(tables, ignore_index=True)
    return replace(first, name=f"{first.name} + {second.name}", image_dir=above, table=table)


def _train(run: Run, one: PairExperiment, captions: Captions, tests: tuple[Captions, ...]) -> dict[str, object]:
    """An experiment's entry in the file."""
    from helpers.contrast import train_dual_encoder

    start = time.perf_counter()
    accuracy = _train_own_tower(run, one)
    finder, history = train_dual_encoder(_with_towers(run, one), captions, one.settings, run.output_dir / "dual", **one.sizes)
    entry = {
        "train_on": one.train_on,
        "image_tower": shown(one.image_tower),
        "text_tower": one.text_tower,
        "settings": asdict(one.settings),
        "sizes": one.sizes,
        "pictures": finder.config["training"]["pictures"],
        "trainable": sum(p.numel() for p in finder.model.parameters() if p.requires_grad),
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "val_loss": round(history.best_val_loss, 4),
        "provenance": provenance(),
        "tests": {captions.name: measure(finder, captions, run.cache_dir) for captions in tests},
    }
    return entry | ({"classifier accuracy": accuracy} if accuracy else {})


def measure(finder: Finder, captions: Captions, cache_dir: Path) -> dict[str, object]:
    """Recall both ways on the test split (val, where a dataset keeps its test pictures back), and each picture's hits."""
    from helpers.retrieval import Gallery, recall

    split = "test" if captions.images("test") else "val"
    gallery = Gallery.of_pictures(finder, captions.image_dir, captions.images(split), cache_dir)
    references = {image: captions.references(split)[image] for image in gallery.items}
    photos = [image for image, group in references.items() for _ in group]
    texts = finder.encode_texts([caption for group in references.values() for caption in group])
    scores = recall(gallery.matrix, texts, gallery.items, photos)
    rounded = {metric: {k: round(v, 4) for k, v in score.to_json().items()} for metric, score in scores.metrics.items()}
    hits = {metric: [round(float(hit), 4) for hit in _per_picture(scores[metric].per_image, photos, gallery.items)]
            for metric in HEADLINE}  # fmt: skip
    return rounded | {"hits": hits}


def _per_picture(hits: np.ndarray, photos: list[str], images: list[str]) -> np.ndarray:
    """Hits of queries, one a caption or one a picture, as a mean a picture. (P,)"""
    if len(hits) == len(images):
        return hits
    place = {image: n for n, image in enumerate(images)}
    rows = np.array([place[photo] for photo in photos])
    return np.bincount(rows, hits) / np.bincount(rows)


def _same(entry: dict | None, one: PairExperiment) -> bool:
    """Whether the file's `entry` is what this experiment trains, whatever it is called."""
    if not entry:
        return False
    try:
        settings = TrainSettings(**entry["settings"])
    except (TypeError, InputError):  # a setting that there is no more
        return False
    mine = (one.train_on, shown(one.image_tower), one.text_tower, one.settings, one.sizes)
    return mine == (entry["train_on"], entry["image_tower"], entry["text_tower"], settings, entry["sizes"])


def difference(record: dict, name: str, test: str, metric: str = HEADLINE[0]) -> Score:
    """Experiment `name` minus experiment 0 on the test pictures of dataset `test`, each a mean over its captions: paired."""
    from helpers.metrics import mean_score

    tests = (record["experiments"][each]["tests"][test] for each in (name, "0"))
    mine, first = (np.array(each["hits"][metric]) for each in tests)
    return mean_score(mine - first)


def pair_table(record: dict) -> pd.DataFrame:
    """A row an experiment: what it changes, what it cost, R@5 both ways on both test sets, and how far it is from 0."""
    import pandas as pd

    rows = {}
    for name, entry in record["experiments"].items():
        row = {"what it is": entry["what"], "pictures": f"{entry['pictures']:,}", "minutes": f"{entry['minutes']:.1f}"}
        for test in record["datasets"]:
            for metric in HEADLINE:
                row[f"{test}: {metric}"] = _text(entry["tests"][test][metric])
            row[f"{test}: against 0"] = "" if name == "0" else str(difference(record, name, test))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def pair_figure(record: dict, test: str) -> tuple[Figure, str]:
    """Each experiment's text-to-image R@5 on a test set with its interval, and the sentence that says what is seen."""
    from helpers.figures import dots

    entries = record["experiments"]
    scores = {name: entries[name]["tests"][test][HEADLINE[0]] for name in entries}
    intervals = {name: tuple(score[part] for part in ("value", "low", "high")) for name, score in scores.items()}
    drawn = dots(
        {f"{name}: {entries[name]['what']}": intervals[name] for name in entries},
        f"{HEADLINE[0]} on {test}, 95 % intervals",
        line=scores["0"]["value"],
    )
    best, last = (choose(scores, key=lambda name: scores[name]["value"]) for choose in (max, min))
    both = difference(record, "5", test)
    verdict = "better" if both.low > 0 else "worse" if both.high < 0 else "not told apart"
    return drawn, (
        f"A caption finds its picture among the first five of {test}'s test pictures: best is experiment {best} with "
        f"{scores[best]['value']:.0%}, last {last} with {scores[last]['value']:.0%}; training on both datasets (5) against "
        f"one (0): {both}, {verdict}."
    )


def _text(score: dict[str, float]) -> str:
    from helpers.metrics import Interval

    return str(Interval(score["value"], score["low"], score["high"]))
