"""Where am I, on what hardware, with which data and backbones: decided once, at the top of a notebook or command.

`setup()` returns one frozen `Run`. Two profiles share every line of code: *tiny* (CPU, drawn pictures, the small backbones
of data/tiny, no network) and *full* (a CUDA GPU, OpenAI's CLIP, GPT-2, real photos).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import InputError, OfflineError
from helpers.mounts import LAST, attached_output

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "data" / "tiny"
PLANS = ROOT / "results" / "plans" / "full.json"  # written by `python -m helpers.plan --keep`
PROFILES = ("tiny", "full")
KAGGLE_HOURS = 12  # a session's limit

# What each system is built on in each profile, where neither an argument nor a variable says otherwise: all on one dataset, so
# that notebook 06 can compare them. The decoder, written from scratch, has no language model behind it: only a tokenizer.
# "published" is no profile, but a preset of helpers.train.
DEFAULTS = {
    "clipcap": {
        "tiny": {"dataset": "scenes", "clip": "data/tiny/clip-vit.pt", "language_model": "data/tiny/gpt2"},
        "full": {"dataset": "flickr8k", "clip": "ViT-B/32", "language_model": "gpt2"},
    },
    "decoder": {
        "tiny": {"dataset": "scenes", "clip": "data/tiny/clip-rn.pt", "tokenizer": "data/tiny/bert"},
        "full": {"dataset": "flickr8k", "clip": "RN50", "tokenizer": "bert-base-uncased"},
    },
    "cross-attention": {
        "tiny": {"dataset": "scenes", "clip": "data/tiny/clip-vit.pt", "language_model": "data/tiny/gpt2"},
        "full": {"dataset": "flickr8k", "clip": "ViT-B/16", "language_model": "gpt2"},  # on a T4
        "published": {"dataset": "coco2017", "clip": "ViT-L/14", "language_model": "gpt2-medium"},
    },
    # From scratch: the CLIP named here is another one, to compare with, and the tokenizer is CLIP's.
    "clip": {
        "tiny": {"dataset": "scenes", "clip": "data/tiny/clip-vit.pt", "tokenizer": "CLIP's"},
        "full": {"dataset": "coco2017", "clip": "ViT-B/32", "tokenizer": "CLIP's"},
    },
    # CLIP is what it is compared with; in the tiny profile its image tower is where training starts from.
    "dual-encoder": {
        "tiny": {"dataset": "scenes", "clip": "data/tiny/clip-vit.pt", "image_tower": "data/tiny/clip-rn.pt",
                 "text_tower": "data/tiny/distilbert"},
        "full": {"dataset": "flickr8k", "clip": "ViT-B/32", "image_tower": "resnet50",
                 "text_tower": "distilbert-base-uncased"},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything a notebook needs to know about where it runs. Paths are absolute; `shown()` prints them relative."""

    notebook: str
    profile: str  # tiny | full
    place: str  # kaggle | colab | local
    device: str  # cpu | cuda
    precision: str  # Lightning's names: 32-true | 16-mixed | bf16-mixed
    dataset: str
    data_dir: Path | None  # None: found, rendered or downloaded by the dataset's reader
    clip: str  # a name of the clip package, or a file
    language_model: str | None  # a name on the Hugging Face hub, or a directory; None where the system has none
    tokenizer: str  # likewise; the language model's or text tower's own where there is one
    image_tower: str | None  # of a dual encoder: a name or file, see helpers.contrast
    text_tower: str | None  # of a dual encoder: a name on the hub, or a directory
    seed: int
    work_dir: Path  # writable: outputs/, data/ and the feature cache lie under it
    started: float  # time.perf_counter() at the start, for the minutes that are recorded with the scores

    @property
    def output_dir(self) -> Path:
        """Where this notebook writes: checkpoints, scores, pictures."""
        return self.work_dir / "outputs" / self.notebook

    @property
    def cache_dir(self) -> Path:
        """Where image features are kept between runs."""
        return self.work_dir / "data" / "cache"

    @property
    def minutes(self) -> float | None:
        """Minutes that a recorded run of this notebook took in this profile on this dataset; None where none is recorded."""
        return self._record.get("minutes")

    @property
    def _record(self) -> dict:
        path = ROOT / "results" / f"{self.notebook}.{self.profile}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return record if record.get("dataset") == self.dataset else {}

    @property
    def plan(self) -> dict | None:
        """What the full profile was counted to take on this dataset, else on the notebook's own (minutes, memory, disk,
        dataset, device): see helpers.plan. None where that was not counted."""
        if self.profile != "full" or not PLANS.is_file():
            return None
        plans = json.loads(PLANS.read_text(encoding="utf-8"))
        if (found := plans["notebooks"].get(self.notebook)) is None:
            return None
        dataset = self.dataset if self.dataset in found["on"] else found["dataset"]
        return {**found["on"][dataset], "dataset": dataset, "device": plans["device"]}

    def describe(self) -> str:
        """The short table printed at the top of every notebook."""
        earlier = attached_output(self.notebook)
        rows = {
            "profile": self.profile,
            "place": self.place,
            "device": f"{self.device}, precision {self.precision}",
            "dataset": self.dataset,
            "CLIP": self.clip,
            "language model": self.language_model,
            "tokenizer": None if self.language_model or self.text_tower else self.tokenizer,
            "image tower": self.image_tower,
            "text tower": self.text_tower,
            "minutes to expect": self._minutes_text(),
            "earlier output": earlier and (earlier / LAST).is_file()
            and "attached: training goes on from its last checkpoint where data and settings are the same",
        }
        return "\n".join(f"{name:<18} {value}" for name, value in rows.items() if value)

    def _minutes_text(self) -> str:
        minutes, plan = self.minutes, self.plan
        if minutes is not None:
            told = f"about {max(1, round(minutes))}"
            if self.profile == "full":  # whose GPUs differ, unlike the tiny profile's cores
                told += f" on {self._record['hardware']} (recorded)"
        elif plan is None:
            return "no recorded run yet"
        else:
            minutes = plan["minutes"]
            told = f"about {minutes} on a {plan['device']} (counted, no recorded run)"
            if plan["dataset"] != self.dataset:
                told += f" for {plan['dataset']}"
        if self.profile == "full" and self.device == "cpu":
            told += "; this CPU takes many times that"
        if self.place == "kaggle" and minutes > 60 * KAGGLE_HOURS:
            told += (f": more than Kaggle's {KAGGLE_HOURS} hours. Use fewer pictures or epochs, as by settings_for(..., "
                     "share=0.1), or run the notebook again with its own output attached: it goes on from the last checkpoint")
        return told


def setup(notebook: str, *, system: str = "clipcap", verbose: bool = True, **overrides: object) -> Run:
    """Decide where and how to run, seed every generator, print the table, return the `Run`.

    Each field of `Run` may be given as an argument; otherwise as an environment variable (CAPTIONING_PROFILE,
    CAPTIONING_DATASET, CAPTIONING_DATA_DIR, CAPTIONING_CLIP, CAPTIONING_LANGUAGE_MODEL, CAPTIONING_TOKENIZER,
    CAPTIONING_IMAGE_TOWER, CAPTIONING_TEXT_TOWER, CAPTIONING_DEVICE, CAPTIONING_SEED); otherwise the profile and the `system`
    (a key of DEFAULTS) decide. Raises InputError for an unknown profile or argument, a seed that is no number, and the device
    cuda where there is no GPU.
    """
    unknown = set(overrides) - {field.name for field in dataclasses.fields(Run)}
    if unknown:
        raise InputError(f"setup() has no parameter {', '.join(sorted(unknown))}")

    def choice(name: str, default: object = None) -> object:
        if overrides.get(name) is not None:
            return overrides[name]
        return os.environ.get(f"CAPTIONING_{name.upper()}") or default

    place = find_place()
    profile = choice("profile", "full" if place != "local" and _cuda() else "tiny")
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r} is not known: choose one of {', '.join(PROFILES)} (CAPTIONING_PROFILE)")
    defaults = DEFAULTS[system][profile]
    # Where a system has no such part, nobody can choose one.
    parts = {name: str(choice(name, defaults[name])) if name in defaults else None
             for name in ("language_model", "image_tower", "text_tower")}  # fmt: skip
    # The tiny profile stays on the CPU wherever it runs, so that its outputs can be compared between machines.
    device = str(choice("device", "cuda" if profile == "full" and _cuda() else "cpu"))
    check_device(device)
    data_dir = choice("data_dir")
    run = Run(
        notebook=notebook,
        profile=str(profile),
        place=place,
        device=device,
        precision=str(choice("precision", find_precision(device))),
        dataset=str(choice("dataset", defaults["dataset"])),
        data_dir=Path(str(data_dir)).expanduser().resolve() if data_dir else None,
        clip=str(choice("clip", defaults["clip"])),
        tokenizer=parts["language_model"] or parts["text_tower"] or str(choice("tokenizer", defaults.get("tokenizer"))),
        **parts,
        seed=_seed(str(choice("seed", 0))),
        work_dir=Path(str(choice("work_dir", find_work_dir(place)))),
        started=time.perf_counter(),
    )
    quiet_libraries()
    seed_everything(run.seed)
    if verbose:
        print(run.describe())
    return run


def find_place() -> str:
    """kaggle, colab or local. A mounted /kaggle/input proves nothing: kagglehub mounts there on Colab too."""
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return "kaggle"
    if "google.colab" in sys.modules or (importlib.util.find_spec("google") and importlib.util.find_spec("google.colab")):
        return "colab"
    return "local"


def find_work_dir(place: str) -> Path:
    """The project's own folder where it can be written to, /kaggle/working on Kaggle, else the current folder."""
    if place == "kaggle":
        return Path("/kaggle/working")
    return ROOT if os.access(ROOT, os.W_OK) else Path.cwd()


def check_device(device: str) -> None:
    """Raise InputError for cuda where there is no GPU."""
    if device == "cuda" and not _cuda():
        raise InputError("device 'cuda': there is no GPU here: leave it out, or cpu (--device, CAPTIONING_DEVICE)")


def find_precision(device: str) -> str:
    """bf16 from compute capability 8.0 on, fp16 before (a T4 is 7.5), fp32 on the CPU.

    `torch.cuda.is_bf16_supported()` also answers True where bf16 is emulated, so the capability is what is asked.
    """
    if device != "cuda":
        return "32-true"
    import torch

    return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "16-mixed"


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def quiet_libraries() -> None:
    """Keep other libraries' banners, bars and advice off stderr: a notebook's outputs are compared by nbval."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not progress_wanted():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", module=r"lightning.*")


def progress_wanted() -> bool:
    """Progress bars are shown unless CAPTIONING_PROGRESS=0 (as under nbval, where stderr is compared)."""
    return os.environ.get("CAPTIONING_PROGRESS", "1") != "0"


def progress(items: Iterable, **options: object) -> Iterable:
    """`tqdm.auto.tqdm` with the project's switch; options are tqdm's (desc, total, unit)."""
    from tqdm.auto import tqdm

    return tqdm(items, disable=not progress_wanted(), **options)


def require_network(url: str, *, what: str, instead: str) -> None:
    """Raise OfflineError within 2 seconds where `url` cannot be reached, saying what was wanted and what would serve.

    Any HTTP answer counts as reachable, and a proxy in the environment is used, as the downloads themselves would.
    """
    reached: list[bool] = []

    def knock() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=1.5).close()
            reached.append(True)
        except urllib.error.HTTPError:
            reached.append(True)
        except OSError:
            pass

    # A thread, because a name look-up has no time limit of its own.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(timeout=1.6)
    if not reached:
        raise OfflineError(f"{what} must be downloaded, and {url.split('/')[2]} cannot be reached. {instead}")


def shown(path: str | Path) -> str:
    """`path` as it may be printed: relative to the current folder or the project where it lies inside one of them, and
    below ~ where it lies in the home folder, whose name is often a person's."""
    path = Path(path)
    for base, before in ((Path.cwd(), ""), (ROOT, ""), (Path.home(), "~/")):
        if path.is_absolute() and path.is_relative_to(base):
            return before + path.relative_to(base).as_posix()
    return path.as_posix()


def provenance() -> dict[str, str]:
    """Commit, hardware and versions, stored with every score."""
    import platform
    from importlib.metadata import version

    import torch

    try:
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "commit": commit,
        "hardware": f"{hardware}, {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "lightning", "pycocoevalcap")},
    }


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"seed {text!r} is no whole number: give one, such as 0 (CAPTIONING_SEED)") from None


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
