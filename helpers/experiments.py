"""A system's named settings, trained one after the other and compared on the same test pictures.

    python -m helpers.experiments clipcap          # results/experiments/clipcap.PROFILE.json, a line an experiment

What stands in the file with the same settings is not trained again. After each training all scores are computed anew from
the captions in the file, so that every difference to the first experiment is paired.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from helpers.environment import ROOT, Run, provenance, setup, shown
from helpers.errors import InputError
from helpers.files import write_json
from helpers.settings import TrainSettings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from helpers.captioner import Captioner
    from helpers.data.datasets import Captions

KEPT = ROOT / "results" / "experiments"
HEADLINE = "CIDEr-D"
# How fast to learn belongs to the size of the backbones, not to an idea: in the tiny profile these are the profile's own.
PACE = ("epochs", "batch_size", "learning_rate", "warmup_share")
GPT2_BLOCKS = 12  # of the language model that the presets were published with


@dataclass(frozen=True)
class Experiment:
    """One training: its name, what it is in a few words, its settings, and the fields of the model's config."""

    name: str
    what: str
    settings: TrainSettings
    sizes: dict[str, object]


class System(NamedTuple):
    """What `run_experiments` needs to know about a system."""

    experiments: Callable[[Run], list[Experiment]]  # the first is what the others are compared with
    train: Callable[..., tuple[Captioner, object]]  # as recipes.train_clipcap


def clipcap_experiments(run: Run) -> list[Experiment]:
    """The profile's own captioner, the paper's other one, and the published experiments of P1 and P2."""
    from helpers.hub import load_language_model
    from helpers.recipes import PRESETS, settings_for, sizes_for

    blocks = load_language_model(run.language_model).config.num_hidden_layers
    presets = {"transformer": run.profile, "mlp": "mlp", "p1": "p1"}
    presets |= {preset: preset for preset in PRESETS["clipcap"] if preset.startswith("p2-")}
    experiments = []
    for name, preset in presets.items():
        settings, sizes = PRESETS["clipcap"][preset]
        if "frozen_blocks" in sizes:
            sizes = sizes | {"frozen_blocks": scale_frozen(sizes["frozen_blocks"], blocks)}
        if run.profile == "tiny":
            settings = {field: value for field, value in settings.items() if field not in PACE}
        settings, sizes = settings_for(run.profile, seed=run.seed, **settings), sizes_for(run.profile, **sizes)
        what = {
            "transformer": "transformer mapping, GPT-2 frozen",
            "mlp": "MLP mapping, all of GPT-2 learns",
            "p1": "10 queries to CLIP's one vector, GPT-2 frozen",
        }.get(name) or (f"linear, {sizes['prefix_length']} pseudo-words, "
                        f"{blocks - sizes['frozen_blocks']} of {blocks} blocks learn")
        experiments.append(Experiment(name, what, settings, sizes))
    return experiments


def scale_frozen(frozen: int, blocks: int, published: int = GPT2_BLOCKS) -> int:
    """How many of `blocks` blocks to freeze where `frozen` of `published` were: the same share learns, one at least."""
    return blocks - max(1, round((published - frozen) * blocks / published))


def _train_clipcap(*arguments: object, **options: object) -> tuple[Captioner, object]:
    from helpers.recipes import train_clipcap

    return train_clipcap(*arguments, **options)


SYSTEMS = {"clipcap": System(clipcap_experiments, _train_clipcap)}


def run_experiments(name: str, run: Run, captions: Captions, path: Path, *, limit: int | None = None) -> dict:
    """Train what `path` does not hold yet, and write it there, whole after each experiment. Returns what was written.

    limit: the one that `captions` was read with; it is noted. Raises InputError where the file holds experiments on other
    data or backbones, and as the system's training does.
    """
    system = SYSTEMS[name]
    experiments = system.experiments(run)
    split = "test" if captions.images("test") else "val"  # a dataset may keep its test pictures back
    conditions = {
        "system": name,
        "profile": run.profile,
        "dataset": run.dataset,
        "limit": limit,
        "clip": run.clip,
        "language_model": run.language_model,
        "split": split,
    }
    record = conditions | {"images": [], "experiments": {}}
    if path.is_file():
        record = read_experiments(path)
        if other := [key for key in conditions if record.get(key) != conditions[key]]:
            raise InputError(f"{shown(path)} holds experiments with {other[0]}={record.get(other[0])!r}, now it is "
                             f"{conditions[other[0]]!r}: give another file (--out)")
    there = record["experiments"]
    record["experiments"] = {one.name: there[one.name] for one in experiments if _same(there.get(one.name), one)}
    references = captions.references(split)
    for one in experiments:
        known = one.name in record["experiments"]
        if not known:
            entry, said = _train(system, one, run, captions, split)
            if record["experiments"] and list(said) != record["images"]:
                raise InputError(f"{shown(path)} was made of other {split} pictures: give another file (--out)")
            record["images"] = list(said)
            done = record["experiments"] | {one.name: entry}
            record["experiments"] = {each.name: done[each.name] for each in experiments if each.name in done}
            _score(record, references)
            write_json(path, record)
        entry = record["experiments"][one.name]
        cost = f"{'in the file, ' if known else ''}{entry['minutes']:.1f} minutes, val loss {entry['val_loss']:.3f}"
        score, difference = _text(entry["scores"][HEADLINE]), _text(entry["difference"])
        print(f"{one.name}: {cost}, {HEADLINE} {score}, against the first {difference}", flush=True)
    return record


def _same(entry: dict | None, one: Experiment) -> bool:
    """Whether the file's `entry` is this experiment. Settings that it does not name had their defaults."""
    try:
        return bool(entry) and TrainSettings(**entry["settings"]) == one.settings and entry["sizes"] == one.sizes
    except (TypeError, InputError):  # a setting that there is no more
        return False


def _train(
    system: System, one: Experiment, run: Run, captions: Captions, split: str
) -> tuple[dict[str, object], dict[str, str]]:
    """An experiment's entry in the file, not yet scored, and its greedy captions {image: caption}."""
    from helpers.data.features import cached_features

    start = time.perf_counter()
    with redirect_stdout(io.StringIO()):  # a line an experiment is enough
        folder = run.output_dir / one.name
        captioner, history = system.train(run, captions, one.settings, folder, **one.sizes)
    minutes = (time.perf_counter() - start) / 60
    source = cached_features(
        captioner.encoder, captions.image_dir, captions.images(split), run.cache_dir, grid=captioner.model.sees == "grid"
    )
    images = [image for image in captions.images(split) if image in source]
    said = dict(zip(images, captioner.caption_features(source.batch(images)), strict=True))
    defaults = TrainSettings()
    entry = {
        "what": one.what,
        "settings": {k: v for k, v in dataclasses.asdict(one.settings).items() if v != getattr(defaults, k)},
        "sizes": one.sizes,
        "pictures": captioner.config["training"]["pictures"],
        "trainable": sum(p.numel() for p in captioner.model.parameters() if p.requires_grad),
        "minutes": round(minutes, 2),
        "val_loss": round(history.best_val_loss, 4),
        "provenance": provenance(),
        "captions": list(said.values()),  # in the order of the file's "images"
    }
    return entry, said


def _score(record: dict, references: dict[str, list[str]]) -> None:
    """Put "scores" into every experiment, and the paired "difference" of HEADLINE to the first."""
    from helpers.metrics import QUICK, compare

    entries, images = record["experiments"], record["images"]
    said = {name: dict(zip(images, entry["captions"], strict=True)) for name, entry in entries.items()}
    comparison = compare(said, {image: references[image] for image in images}, metrics=QUICK)
    first = next(iter(entries))
    for name, entry in entries.items():
        entry["scores"] = _rounded(comparison[name].to_json())
        entry["difference"] = _rounded(comparison.difference(name, first, HEADLINE).to_json())
        entry["captions"] = entry.pop("captions")  # last, for they are long


def _rounded(scores: dict) -> dict:
    return {key: _rounded(value) if isinstance(value, dict) else round(value, 4) for key, value in scores.items()}


def _text(score: dict[str, float]) -> str:
    from helpers.metrics import Interval

    return str(Interval(**score))


def read_experiments(path: Path) -> dict:
    """What `run_experiments` wrote. Raises InputError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)} does not exist: python -m helpers.experiments writes it") from error
    except ValueError as error:
        raise InputError(f"{shown(path)} is not valid JSON ({error}): delete it, and run the experiments again") from error


def table(record: dict) -> pd.DataFrame:
    """A row an experiment: what it is, what it was given, what it cost, how it scored, how far it is from the first."""
    import pandas as pd

    first = next(iter(record["experiments"]))
    rows = {
        name: {
            "what it is": entry["what"],
            "pictures": f"{entry['pictures']:,}",
            "learns": f"{entry['trainable'] / 1e6:.2f} M",
            "minutes": f"{entry['minutes']:.1f}",
            "val loss": f"{entry['val_loss']:.3f}",
            HEADLINE: _text(entry["scores"][HEADLINE]),
            f"against {first}": "" if name == first else _text(entry["difference"]),
        }
        for name, entry in record["experiments"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def figure(record: dict) -> tuple[Figure, str]:
    """Each experiment's score with its interval, and the sentence that says what is seen."""
    from helpers.figures import dots

    entries = record["experiments"]
    first, *others = entries
    scores = {name: entry["scores"][HEADLINE] for name, entry in entries.items()}
    drawn = dots(
        {f"{name} ({entries[name]['pictures']:,} pictures)": tuple(scores[name].values()) for name in entries},
        f"{HEADLINE} on {len(record['images']):,} {record['split']} pictures",
        line=scores[first]["value"],
    )
    best, last = (choose(scores, key=lambda name: scores[name]["value"]) for choose in (max, min))
    above = sum(entries[name]["difference"]["low"] > 0 for name in others)
    below = sum(entries[name]["difference"]["high"] < 0 for name in others)
    sentence = (
        f"{HEADLINE} of {len(entries)} experiments with 95 % intervals, and a line at “{first}”, the first: best is “{best}” "
        f"with {scores[best]['value']:.2f}, last “{last}” with {scores[last]['value']:.2f}; the paired difference to the "
        f"first is above 0 with its whole interval for {above} of the {len(others)} others, and below 0 for {below}."
    )
    return drawn, sentence


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.experiments", description=__doc__.split("\n")[0])
    parser.add_argument("system", choices=(*SYSTEMS, "dual-encoder"))
    parser.add_argument("--profile", choices=("tiny", "full"), help="tiny: CPU, small backbones; full: CUDA")
    parser.add_argument("--dataset", help="as for helpers.train")
    parser.add_argument("--data-dir", metavar="DIR", help="where its files lie; otherwise found or downloaded")
    parser.add_argument("--limit", type=int, metavar="N", help="use only so many pictures of each split")
    parser.add_argument("--clip", metavar="NAME_OR_FILE", help="a name such as RN50 or ViT-B/32, or a file")
    parser.add_argument("--language-model", metavar="NAME_OR_DIR", help="a hub name such as gpt2, or a folder")
    parser.add_argument("--seed", type=int, help="of weights, order and caption draws")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: results/experiments/SYSTEM.PROFILE.json")
    options = vars(parser.parse_args(arguments))
    name, limit, out = (options.pop(key) for key in ("system", "limit", "out"))
    try:
        run = setup(f"experiments_{name}", system=name, **options)
        path = out or KEPT / f"{name}.{run.profile}.json"
        if name == "dual-encoder":
            from helpers.retrieval_experiments import pair_table, run_pair_experiments

            if given := [key for key in ("dataset", "data_dir", "clip", "language_model") if options[key]]:
                raise InputError(f"--{given[0].replace('_', '-')}: these experiments say themselves what they are trained on")
            print(pair_table(run_pair_experiments(run, path, limit=limit)).to_string())
            print(shown(path))
            return 0
        from helpers.data.datasets import load_captions
        from helpers.java import ensure_java

        ensure_java()  # not only when the first training is over
        captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir, seed=run.seed, limit=limit)
        print(table(run_experiments(name, run, captions, path, limit=limit)).to_string())
        print(shown(path))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
