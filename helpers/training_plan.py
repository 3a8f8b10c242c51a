"""What a training will take, before it is started: steps, parameters, memory, disk, minutes. No GPU, no download, no data.

    plan = plan_training(run, "clipcap", settings, sizes, find_counts(...), here("full")[0])     # see helpers.plan.dry_run

Backbones stand on torch's meta device in their published sizes (architectures.py), models are built as for training
(build.py), arithmetic is counted and divided by what a device sustains (flops.py), memory is measured on shapes (memory.py).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from helpers import architectures, flops
from helpers.build import build_captioner
from helpers.data.encoders import LearningEncoder, grid_and_pooled
from helpers.data.features import CachePlan
from helpers.data.sources import SIZES, find, locate_karpathy
from helpers.disk import checkpoint_bytes, free_bytes, size_text
from helpers.errors import InputError
from helpers.flops import Device, Work
from helpers.memory import caption_loss, training_memory
from helpers.settings import TrainSettings

if TYPE_CHECKING:
    from helpers.environment import Run

# Pictures of each split, as data/README.md has them; people said five things of each.
COUNTS = {
    "scenes": (2_000, 200, 200),
    "scenes-sketch": (1_200, 200, 200),
    "flickr8k": (6_000, 1_000, 1_000),
    "flickr30k": (29_000, 1_014, 1_000),
    "coco2017": (118_287, 5_000, 0),
    "coco-karpathy": (113_287, 5_000, 5_000),
}
CAPTIONS = 5
# Tokens of a batch's longest caption, to which the others are padded. Counted on 35,430 captions of Flickr8k with CLIP's
# tokenizer, which is much like the others: on average 23.2 in batches of 32, 25.0 of 64, 26.8 of 128; of all, 41.
LENGTH, LONGEST = 25, 40
BATCH = 64  # pictures that CLIP sees at once, and captions that are written at once
SCORING = 3.0  # seconds of CIDEr-D on a thousand pictures, tokens (Java) included: measured 1.3; a cloud's cores are slower


class Counts(NamedTuple):
    """Pictures of each split, and whether the dataset was found and counted, or is known."""

    train: int
    val: int
    test: int
    found: bool = False

    def limited(self, limit: int | None) -> Counts:
        """At most so many of each split. Raises InputError for fewer than one, as reading the dataset would."""
        from helpers.data.datasets import check_limit

        check_limit(limit)
        return self if limit is None else Counts(*(min(count, limit) for count in self[:3]), self.found)


@dataclass(frozen=True)
class Plan:
    """One training. Bytes and seconds; `disk` and `seconds` by part."""

    dataset: str
    counts: Counts
    batch: str
    steps_an_epoch: int
    epochs: int
    trainable: int
    parameters: int
    memory: int
    disk: dict[str, int]
    download: int
    unpacking: int  # what a download takes for a while beside what it leaves: the archive
    seconds: dict[str, float]
    device: Device
    notes: tuple[str, ...] = field(default=())

    @property
    def minutes(self) -> float:
        return sum(self.seconds.values()) / 60

    @property
    def steps(self) -> int:
        return self.steps_an_epoch * self.epochs


def find_counts(dataset: str, data_dir: Path | None, work_dir: Path, *, seed: int = 0, limit: int | None = None) -> Counts:
    """Of the dataset itself where it lies here, else as they are known; of two, "flickr30k+flickr8k", together.

    Raises InputError where neither is the case.
    """
    if "+" in dataset:
        each = [find_counts(name, None, work_dir, seed=seed, limit=limit) for name in dataset.split("+")]
        sums = [sum(counts) for counts in zip(*(one[:3] for one in each), strict=True)]
        return Counts(*sums, found=all(one.found for one in each))
    folder = find(dataset, data_dir, work_dir)
    if folder is not None and (dataset != "coco-karpathy" or locate_karpathy(dataset, folder)):
        from helpers.data.datasets import load_captions

        captions = load_captions(dataset, folder, work_dir=work_dir, seed=seed, limit=limit)
        return Counts(*(len(captions.images(split)) for split in ("train", "val", "test")), found=True)
    if dataset not in COUNTS:
        raise InputError(f"dataset {dataset!r} is neither here nor one whose counts are known ({', '.join(COUNTS)})")
    return Counts(*COUNTS[dataset]).limited(limit)


def plan_training(
    run: Run,
    system: str,
    settings: TrainSettings,
    sizes: dict[str, object],
    counts: Counts,
    device: Device,
    *,
    devices: int = 1,
    free: int | None = None,
) -> Plan:
    """The plan of training `system` from run's parts (clip, language_model, tokenizer, image_tower, text_tower).

    free: bytes of the disk, None: asked for. Raises InputError for parts whose sizes are not known here, and for settings that
    the models refuse.
    """
    count = _pairs if system in ("dual-encoder", "clip") else _captioner
    return count(run, system, settings, sizes, counts, device, devices, free_bytes(run.cache_dir) if free is None else free)


@cache
def looking(name: str, pictures: int, parts: tuple[str, ...] = ()) -> Work:
    """CLIP `name` looking at a batch of pictures: forward, and backward through the `parts` that learn."""
    eye = architectures.meta_clip(name)
    pixels = torch.empty(pictures, 3, eye.resolution, eye.resolution, device="meta")
    if not parts:
        return flops.count(lambda: grid_and_pooled(eye.clip.visual, pixels)["pooled"].sum())
    live = LearningEncoder(eye.clip.visual, parts)
    live.learning = True
    return flops.count_step(lambda: sum(part.sum() for part in live(pixels).values()))[1]


def features_seconds(run: Run, pictures: int, device: Device) -> float:
    """CLIP's features of so many pictures: they are opened, then looked at, one after the other."""
    return device.seconds(looking(run.clip, BATCH), pictures / BATCH) + device.opening(pictures)


def saying(model: nn.Module, pictures: int, device: Device, cells: int, beams: int = 1) -> float:
    """Seconds for captions of so many pictures: word by word, each a pass over what is new; LENGTH words a batch."""
    loss = caption_loss(model, 1, cells)
    return device.seconds(flops.count(lambda: loss(BATCH * beams)), LENGTH * math.ceil(pictures / BATCH))


def _captioner(
    run: Run, system: str, s: TrainSettings, sizes: dict, counts: Counts, device: Device, devices: int, free: int
) -> Plan:
    model, eye, download = captioner_of(run, system, s, sizes)
    train, val = max(1, round(s.share * counts.train)), counts.val
    cells, captions = eye.grid[0], CAPTIONS if s.captions == "all" else 1
    parts = {"frozen": (), "two-phases": LearningEncoder.FINE_TUNED, "all": LearningEncoder.ALL}[s.encoder]
    learned = sum(p.numel() for name, p in eye.clip.visual.named_parameters() if parts and name.startswith(parts))
    trained = parameters(model, trained=True)
    grid = model.sees == "grid"
    rows = eye.dim + grid * eye.grid[0] * eye.grid[1]
    kept = CachePlan(2 * rows, train * (2 if s.mirrored else 1) + val, free, reserve=checkpoint_bytes(trained))
    cached = s.encoder != "all" and (kept.cached or not grid)
    # Epochs whose pictures are opened and looked at anew.
    phase2 = s.epochs - s.unfreeze_epoch if s.encoder == "two-phases" else s.epochs * (s.encoder == "all")
    anew = phase2 if cached else s.epochs

    steps = math.ceil(math.ceil(train * captions / devices / s.batch_size) / s.accumulate)
    batches, checks = steps * s.accumulate, math.ceil(val * CAPTIONS / devices / s.batch_size)
    model.train()
    loss = caption_loss(model, LENGTH, cells)
    check, step = flops.count_step(lambda: loss(s.batch_size))
    updates = steps * device.updating(trained)
    seconds = {"training": s.epochs * (device.seconds(step, batches) + device.seconds(check, checks) + updates)}
    if cached:
        seconds["features"] = features_seconds(run, kept.pictures, device)
    if anew:
        pictures = math.ceil(s.batch_size / captions), math.ceil(s.batch_size / CAPTIONS)
        plain = [device.seconds(looking(run.clip, n), times) for n, times in zip(pictures, (batches, checks), strict=True)]
        live = [device.seconds(looking(run.clip, pictures[0], parts), batches), plain[1]] if parts else plain
        looked = phase2 * sum(live) + (anew - phase2) * sum(plain)
        # Worker processes open pictures beside the GPU: the slower of the two is waited for.
        own = anew / s.epochs * seconds["training"]
        seconds["pictures anew"] = max(looked, anew * device.opening(train + val) - own)
    if s.keep == "val_CIDEr-D":
        seconds["scoring"] = s.epochs * (saying(model, val, device, cells) + SCORING * val / 1000) + anew * device.opening(val)
    memory = training_memory(model, s.batch_size, LONGEST, bytes_per_number=_number(device), cells=cells).total
    memory += 2 * parameters(eye.clip) + 16 * learned  # CLIP beside it, in half precision
    if learned:
        memory += _looking_memory(eye, math.ceil(s.batch_size / captions), parts, device)
    disk = {"features": kept.bytes_per_picture * kept.pictures * cached, "checkpoints": checkpoint_bytes(trained + learned)}
    fits = kept.cached or not grid
    notes = () if fits else (f"CLIP runs anew in each epoch, for its features, {size_text(kept.needed)}, do not fit",)
    every = parameters(model) + parameters(eye.clip.visual)
    return _plan(run, s, counts, steps, devices, trained + learned, every, memory, disk, download, seconds, device, notes)


def captioner_of(run: Run, system: str, settings: TrainSettings, sizes: dict) -> tuple[nn.Module, architectures.Eye, int]:
    """The captioner and its CLIP on the meta device, and the bytes of their download."""
    eye = architectures.meta_clip(run.clip)
    if run.language_model:
        language_model, tokens, download = architectures.meta_language_model(run.language_model)
    else:
        language_model, (tokens, download) = None, architectures.tokens_of(run.tokenizer)
    with torch.device("meta"):
        model = build_captioner(system, eye, tokens, language_model, max_tokens=settings.max_tokens, **sizes)
    return model, eye, eye.download + download


def _pairs(
    run: Run, system: str, s: TrainSettings, sizes: dict, counts: Counts, device: Device, devices: int, free: int
) -> Plan:
    model, resolution, length, download = _two_towers(run, system, sizes)
    train, captions = max(1, round(s.share * counts.train)), CAPTIONS if s.captions == "all" else 1

    def loss(pictures: int, each: int) -> Tensor:  # as Contrastive.loss, whose autocast does not know the meta device
        with torch.device("meta"):
            image = model.image_vectors(torch.empty(pictures, 3, resolution, resolution)).repeat_interleave(each, dim=0)
            text = model.text_vectors(torch.zeros(pictures * each, length, dtype=torch.long), None)
            return model.compare(image, text, torch.ones(len(text), len(text), dtype=torch.bool))

    steps = math.ceil(math.ceil(train * captions / devices / s.batch_size) / s.accumulate)
    checks = math.ceil(counts.val * CAPTIONS / devices / s.batch_size)
    model.train()
    _, step = flops.count_step(lambda: loss(math.ceil(s.batch_size / captions), captions))
    check = flops.count(lambda: loss(math.ceil(s.batch_size / CAPTIONS), CAPTIONS))
    trained = parameters(model, trained=True)
    own = device.seconds(step, steps * s.accumulate) + device.seconds(check, checks) + steps * device.updating(trained)
    opening = device.opening(train + counts.val)  # all processes share the cores
    seconds = {"training": s.epochs * own, "pictures": opening + s.epochs * max(0.0, opening - own)}
    memory = training_memory(model, math.ceil(s.batch_size / captions), LONGEST, bytes_per_number=_number(device),
                             loss=lambda pictures: loss(pictures, captions)).total  # fmt: skip
    every = parameters(model)
    disk = {"features": 0, "checkpoints": checkpoint_bytes(trained)}
    return _plan(run, s, counts, steps, devices, trained, every, memory, disk, download, seconds, device, ())


def _two_towers(run: Run, system: str, sizes: dict) -> tuple[nn.Module, int, int, int]:
    """A dual encoder or a CLIP from scratch, pixels a side, tokens of a caption, and the bytes of their download."""
    from helpers.models.dual_encoder import ClipDualEncoder, DualEncoder

    if system == "clip":
        from helpers.clip_from_scratch import ARCHITECTURES, CONTEXT, TEXT, clip

        name = sizes.get("architecture", "ViT")
        with torch.device("meta"):
            net = clip.model.CLIP(**TEXT, **ARCHITECTURES[name])
        return ClipDualEncoder(net), ARCHITECTURES[name]["image_resolution"], CONTEXT, 0
    image, first = architectures.meta_image_tower(run.image_tower)
    text, second = architectures.meta_text_tower(run.text_tower)
    sizes = {name: value for name, value in sizes.items() if name not in ("image_rate", "text_rate")}
    with torch.device("meta"):
        return DualEncoder.build(image, text, **sizes), image.resolution, LENGTH + 1, first + second


def parameters(model: nn.Module, trained: bool = False) -> int:
    """How many numbers a model holds, or how many of them train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def _looking_memory(eye: architectures.Eye, pictures: int, parts: tuple[str, ...], device: Device) -> int:
    """Bytes that CLIP's image tower keeps for its own backward pass."""
    live = LearningEncoder(eye.clip.visual, parts)
    live.learning = True
    pixels = (3, eye.resolution, eye.resolution)
    estimate = training_memory(live, pictures, 1, bytes_per_number=_number(device),
                               loss=lambda size: live(torch.empty(size, *pixels, device="meta"))["pooled"].sum())  # fmt: skip
    return estimate.activations


def _number(device: Device) -> int:
    """Bytes of an activation: half precision on a GPU."""
    return 4 if device.memory is None else 2


def _plan(
    run: Run, s: TrainSettings, counts: Counts, steps: int, devices: int, trained: int, every: int, memory: int,
    disk: dict[str, int], download: int, seconds: dict[str, float], device: Device, notes: tuple[str, ...],
) -> Plan:  # fmt: skip
    batch = s.batch_size * s.accumulate * devices
    says = f"{batch}: batches of {s.batch_size} x accumulate {s.accumulate} x devices {devices}"
    dataset = 0 if counts.found else int(sum(SIZES.get(name, 0) for name in run.dataset.split("+")))
    return Plan(run.dataset, counts, says, steps, s.epochs, trained, every, memory, disk, download + dataset, dataset, seconds,
                device, notes)  # fmt: skip


def here(profile: str, wanted: str | None = None) -> tuple[Device, str]:
    """What training would run on: this GPU, this CPU in the tiny profile or where it is `wanted`, else a T4; and, where that
    one is assumed, the words that say so, else ""."""
    cores = os.cpu_count() or 1
    if profile == "tiny" or wanted == "cpu":
        return flops.cpu(cores), ""
    if not torch.cuda.is_available():
        return flops.gpu("T4"), ", which is assumed"
    name, memory = torch.cuda.get_device_name(), round(torch.cuda.get_device_properties(0).total_memory / 1e9)
    assumed = "" if flops.known_gpu(name) else f", which is assumed: {name} is not known here"
    return flops.gpu(name, cores, memory), assumed
