"""One loop over saved checkpoints: every system of the series captions the same pictures, is scored by every metric, and says
what it costs.

    found, missing = find_checkpoints(run)                     # just trained, else shipped; what there is of each system
    systems, failed = caption_all(found, paths, people, device=...)    # {name: Captioned}: captions and costs
    comparison = compare_all(captions_of(systems) | others, references, judge=clip, ...)

A checkpoint counts only if it was trained on the dataset it is tested on, with its splits: another dataset may hold the test
pictures (nearly all of Flickr8k's are in Flickr30k's training split). The shipped captioners have seen drawings, and no photo.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import attached
from helpers.bertscore import compare_by_bert
from helpers.checkpoints import load_captioner
from helpers.clipscore import compare_by_clip
from helpers.comparison import Comparison, Interval, missing_notes
from helpers.contrast import Finder, load_finder
from helpers.data.encoders import ClipEncoder
from helpers.environment import TINY, Run, shown
from helpers.errors import InputError, OfflineError
from helpers.metrics import METRICS, compare
from helpers.retrieval import Gallery
from helpers.spice import spice_minutes

if TYPE_CHECKING:
    import pandas as pd

    from helpers.captioner import Captioner

WHICH = ("trained", "shipped")


@dataclass(frozen=True)
class System:
    """Where a system of the series may lie: outputs/`notebook`/checkpoint, outputs/train_`command`/checkpoint, data/tiny."""

    notebook: str
    command: str  # of helpers.train
    shipped: str | None


SYSTEMS = {
    "decoder": System("02_transformer_decoder", "decoder", "decoder"),
    "ClipCap": System("03_clipcap", "clipcap", "clipcap"),
    "cross-attention": System("04_cross_attention", "cross-attention", "cross-attention"),
    "dual encoder": System("05_contrastive_retrieval", "dual-encoder", None),
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder, and where it comes from: "trained", by its notebook or by helpers.train, or "shipped"."""

    folder: Path
    origin: str
    finder: bool  # a dual encoder, which retrieves captions instead of writing them

    def __str__(self) -> str:
        return f"{self.origin}: {shown(self.folder)}"


@dataclass(frozen=True)
class Captioned:
    """One system's captions and what they cost."""

    captions: dict[str, str]  # {image: caption}
    checkpoint: Checkpoint
    trainable: int  # parameters that training changed
    parameters: int  # all that a caption goes through, the frozen backbones included
    minutes: float | None  # of training; None: not recorded
    per_second: float  # captions a second, from the picture's file to the words, here

    def costs(self) -> dict[str, object]:
        """As JSON: what `save_record` keeps beside the scores."""
        kept = asdict(self)
        return {name: kept[name] for name in ("trainable", "parameters", "minutes", "per_second")} | {
            "checkpoint": shown(self.checkpoint.folder), "origin": self.checkpoint.origin}  # fmt: skip


def find_checkpoints(run: Run, which: str | None = None) -> tuple[dict[str, Checkpoint], dict[str, str]]:
    """({name: Checkpoint}, {name: why there is none, and what would help}) for every system of SYSTEMS.

    which: "trained" takes what notebooks and commands have trained on run.dataset with run.seed, here or in outputs that are
    attached on Kaggle, and what is shipped where there is none; "shipped" takes what is shipped, the same on every machine.
    None: the environment variable CAPTIONING_CHECKPOINTS, else "trained". On any dataset but scenes, a shipped captioner is
    called "NAME (drawings only)".
    Raises InputError for another `which`.
    """
    which = which or os.environ.get("CAPTIONING_CHECKPOINTS") or WHICH[0]
    if which not in WHICH:
        raise InputError(f"CAPTIONING_CHECKPOINTS={which!r}: choose {' or '.join(WHICH)}")
    found, missing = {}, {}
    for name, system in SYSTEMS.items():
        finder = system.shipped is None
        trainings = (system.notebook, f"train_{system.command.replace('-', '_')}")
        trained = attached.find_checkpoints(run, *trainings) if which == "trained" else []
        refused = {folder: _refused(folder, run) for folder in trained}  # "": it is not
        if fit := next((folder for folder in trained if not refused[folder]), None):
            found[name] = Checkpoint(fit, "trained", finder)
            continue
        if not finder:
            label = name if run.dataset == "scenes" else f"{name} (drawings only)"
            found[label] = Checkpoint(TINY / system.shipped, "shipped", finder)
        if finder or refused or run.dataset != "scenes":
            reasons = "; ".join(f"{shown(folder)} {reason}" for folder, reason in refused.items())
            missing[name] = (
                f"{reasons or 'no checkpoint'}. Run notebooks/{system.notebook}.ipynb with CAPTIONING_DATASET={run.dataset}, "
                f"or python -m helpers.train {system.command} --profile {run.profile} --dataset {run.dataset}"
            )
    return found, missing


def _refused(folder: Path, run: Run) -> str:
    """Why a checkpoint may not be tested on run.dataset: it may have been trained on the test pictures. "": it may."""
    try:
        training = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("training", {})
    except (OSError, ValueError):
        return "is damaged"
    if training.get("dataset") != Path(run.dataset).name:
        return f"was trained on {training.get('dataset', 'a dataset it does not name')}, which may hold the test pictures"
    if training.get("seed") != run.seed:
        return f"was trained with seed {training.get('seed')}, perhaps on other splits"
    return ""


class Retriever:
    """Says of each picture the training caption that is nearest to it: a dual encoder or a CLIP, with a captioner's face."""

    def __init__(self, encoder: Finder | ClipEncoder, people: Mapping[str, Sequence[str]]):
        """people: the captions to choose from, {training image: captions}."""
        self.encoder = encoder
        self.library = Gallery.of_captions(people, encoder.encode_texts, encoder=encoder.fingerprint)

    def caption(self, images: Sequence[Path]) -> list[str]:
        return [matches[0].item for matches in self.library.search(self.encoder.encode_images(images), 1)]


def caption_all(
    checkpoints: Mapping[str, Checkpoint],
    paths: Mapping[str, Path],
    people: Mapping[str, Sequence[str]],
    *,
    device: str = "cpu",
    **decoding: object,
) -> tuple[dict[str, Captioned], dict[str, str]]:
    """({name: captions of the same pictures, {image: file}, and costs}, {name: why its checkpoint cannot be loaded}).

    people: the training captions that a dual encoder chooses from. Decoding is greedy, unless `decoding` says otherwise.
    """
    files, systems, failed = list(paths.values()), {}, {}
    for name, checkpoint in checkpoints.items():
        try:
            speaker, costs = _load(checkpoint, people, device)
        except InputError as error:
            failed[name] = f"{error}. CAPTIONING_CHECKPOINTS=shipped takes the captioners that ship with the project"
            continue
        options = {} if checkpoint.finder else decoding
        speaker.caption(files[:1], **options)  # the first picture waits for whatever is made ready only once
        start = time.perf_counter()
        said = speaker.caption(files, **options)
        per_second = len(files) / (time.perf_counter() - start)
        systems[name] = Captioned(dict(zip(paths, said, strict=True)), checkpoint, per_second=per_second, **costs)
    return systems, failed


def _load(
    checkpoint: Checkpoint, people: Mapping[str, Sequence[str]], device: str
) -> tuple[Captioner | Retriever, dict[str, float | None]]:
    """What captions, and what is known of its costs before it does. Raises InputError where it cannot be loaded."""
    if checkpoint.finder:
        finder = load_finder(checkpoint.folder, device=device)
        speaker, config = Retriever(finder, people), finder.config
        trainable = parameters = sum(parameter.numel() for parameter in finder.model.parameters())
    else:
        speaker = load_captioner(checkpoint.folder, device=device)
        config, (trainable, parameters) = speaker.config, count(speaker)
    minutes = config.get("training", {}).get("minutes")
    return speaker, {"trainable": trainable, "parameters": parameters, "minutes": minutes}


def count(captioner: Captioner) -> tuple[int, int]:
    """(parameters that training changed, all that a caption goes through: CLIP's image tower and the model)."""
    model = list(captioner.model.parameters())
    visual = dict(captioner.encoder.model.visual.named_parameters())
    learned = tuple(captioner.config.get("learned") or ())
    changed = sum(p.numel() for p in model if p.requires_grad)
    changed += sum(p.numel() for name, p in visual.items() if learned and name.startswith(learned))
    return changed, sum(p.numel() for p in model) + sum(p.numel() for p in visual.values())


def compare_all(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    *,
    judge: ClipEncoder,
    vectors: np.ndarray,
    bert: str | Path,
    layer: int | None = None,
    spice: bool = False,
    human: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Every metric of every system on the same pictures, beside people: n-grams, CLIPScore by `judge`, BERTScore by `bert`.

    vectors: (P, E), the judge's, of the pictures in the order of `references`; layer: of `bert`, see `bertscore`.
    spice: SPICE too, whose minutes are told beforehand, on stderr. What was not asked for, or cannot run, is named in
    `missing` with the remedy.
    """
    drawn = {"human": human, "resamples": resamples, "seed": seed}
    people = min(map(len, references.values()), default=0)
    minutes = max(1, round(spice_minutes(len(references), people, len(systems) + human * people)))
    wanted = (*METRICS, "SPICE") if spice else METRICS
    found = compare(systems, references, metrics=wanted, keep_going=True, **drawn)
    found = found.joined(compare_by_clip(systems, references, judge.encode_texts, vectors, list(references), **drawn))
    missing = {} if spice else {"SPICE": f"not asked for, about {minutes} minutes: `make spice`, then spice=True"}
    try:
        found = found.joined(compare_by_bert(systems, references, model=bert, layer=layer, device=judge.device, **drawn))
    except OfflineError as error:
        missing["BERTScore"] = str(error)
    rows = {name: scores.metrics for name, scores in found.systems.items()}
    return Comparison.of(rows, found.images, found.notes + missing_notes(missing), found.missing | missing)


def captions_of(systems: Mapping[str, Captioned], images: Sequence[str]) -> dict[str, dict[str, str]]:
    """{name: {image: caption}}, of these pictures alone."""
    return {name: {image: system.captions[image] for image in images} for name, system in systems.items()}


def one_table(
    comparison: Comparison, shuffled: Comparison, variety: pd.DataFrame, systems: Mapping[str, Captioned]
) -> pd.DataFrame:
    """A column a system, people last; a row a score with its interval, then what was counted and what it costs.

    shuffled: the same systems' captions dealt out to other pictures; variety: `diversity.table`. Empty where it means nothing.
    """
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for name, scores in comparison.systems.items():
        for metric, score in scores.metrics.items():
            if not metric.startswith(("BERTScore-P", "BERTScore-R")):  # F1 is made of them
                rows.setdefault(metric, {})[name] = _cell(score)
            if metric == "CIDEr-D" and name in shuffled.systems:
                rows.setdefault("CIDEr-D, shuffled", {})[name] = _cell(shuffled[name][metric])
    counted = {"different captions": ("distinct_share", "{:.0%}"), "distinct-1": ("distinct_1", "{:.3f}"),
               "distinct-2": ("distinct_2", "{:.3f}"), "vocabulary": ("vocabulary", "{:,}"), "copied": ("copied", "{:.0%}"),
               "words a caption": ("length", "{:.1f}")}  # fmt: skip
    for label, (column, shape) in counted.items():
        rows[label] = {name: "" if value is None else shape.format(value) for name, value in variety[column].items()}
    for name, system in systems.items():
        costs = {
            "trainable parameters": f"{system.trainable / 1e6:.2f} M",
            "parameters that run": f"{system.parameters / 1e6:.2f} M",
            "training minutes": "not recorded" if system.minutes is None else f"{system.minutes:.1f}",
            "captions a second": f"{system.per_second:,.0f}",
            "checkpoint": system.checkpoint.origin,
        }
        for label, text in costs.items():
            rows.setdefault(label, {})[name] = text
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(comparison.systems)).fillna("")


def _cell(score: Interval) -> str:
    """The interval is kept on one line by a no-break space."""
    return str(score).replace(", ", ",\u00a0")


def told_apart(comparison: Comparison, names: Sequence[str], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Differences of all pairs, row minus column (N, N), and where their paired 95 % interval leaves out 0 (N, N)."""
    size = len(names)
    differences, apart = np.zeros((size, size)), np.zeros((size, size), dtype=bool)
    for row, first in enumerate(names):
        for column, second in enumerate(names):
            if row != column:
                gap = comparison.difference(first, second, metric)
                differences[row, column], apart[row, column] = gap.value, gap.low > 0 or gap.high < 0
    return differences, apart
