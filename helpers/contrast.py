"""Training a dual encoder and using it: pictures and captions become vectors of one space.

    finder, history = train_dual_encoder(run, captions, settings, folder)      # folder/checkpoint
    finder = load_finder("outputs/train_dual_encoder/checkpoint")
    finder.encode_texts(["one dog sitting in grass"]) @ finder.encode_images(["a.jpg", "b.jpg"]).T   # cosines

The model is in models/dual_encoder.py, its towers in models/towers.py; here is what joins them to data. A checkpoint is a
folder of config.json, model.safetensors (both towers, for both learn), the tokenizer, and the text tower's sizes in text/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.data.batches import pad_captions
from helpers.data.datasets import Captions
from helpers.data.encoders import clip, is_torchscript, load_clip
from helpers.data.images import open_image
from helpers.data.preprocessing import Preprocessed
from helpers.data.tokens import Tokens, load_tokens
from helpers.devices import find_devices, first_process, picture_workers
from helpers.environment import Run, seed_everything
from helpers.errors import InputError
from helpers.files import atomic_path
from helpers.hub import find_file
from helpers.loaders import from_pictures, make_loaders
from helpers.models.dual_encoder import Contrastive, DualEncoder, DualEncoderConfig
from helpers.models.towers import TextTower, load_image_tower, load_text_tower
from helpers.settings import LogSettings, TrainSettings
from helpers.training import History, fit

BATCH = 64  # pictures or captions that are encoded at once
MAX_TOKENS = 64  # of a caption, [CLS] and [SEP] included


class ClipTower(nn.Module):
    """A CLIP's image tower as the start of a dual encoder's: pixels (B, 3, R, R) -> CLIP's own vector (B, F), fp32.

    Attributes as ImageTower's; `architecture` is a dict of all sizes: `build` makes the same tower of it, with random weights.
    """

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.net = visual.float().to(memory_format=torch.channels_last).requires_grad_(True).train()
        self.width = int(visual.output_dim)
        self.resolution = int(visual.input_resolution)
        self.preprocess = clip.clip._transform(self.resolution)
        shared = {"input_resolution": self.resolution, "output_dim": self.width}
        if isinstance(visual, clip.model.ModifiedResNet):
            width = visual.layer1[0].conv1.out_channels
            stages = [len(getattr(visual, f"layer{n}")) for n in (1, 2, 3, 4)]
            self.architecture = {"layers": stages, "heads": width * 32 // 64, "width": width, **shared}
        else:
            channels, _, patch, _ = visual.conv1.weight.shape
            blocks = visual.transformer.resblocks
            self.architecture = {"patch_size": patch, "width": channels, "layers": len(blocks),
                                 "heads": blocks[0].attn.num_heads, **shared}  # fmt: skip

    @classmethod
    def build(cls, architecture: dict[str, object]) -> ClipTower:
        """The tower of these sizes, with random weights."""
        vit = "patch_size" in architecture
        return cls((clip.model.VisionTransformer if vit else clip.model.ModifiedResNet)(**architecture))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels)


def find_image_tower(name: str) -> nn.Module:
    """A ResNet of `load_image_tower`, or a CLIP's image tower, by a name of the clip package or from its file."""
    path = find_file(name)
    if name in clip.available_models() or (path and path.is_file() and is_torchscript(path)):
        return ClipTower(load_clip(name).model.visual)
    return load_image_tower(name)


@dataclass
class Finder(Preprocessed):
    """A dual encoder with its preprocessing and its tokenizer. `config` holds what the checkpoint's config.json will."""

    model: DualEncoder
    tokens: Tokens
    config: dict = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of all weights, taken once, after training: the key of everything that is cached."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dim(self) -> int:
        """E, the size of the vectors."""
        return self.model.config.dim

    @property
    def preprocess(self):
        """The image tower's: the same for training and inference."""
        return self.model.image_tower.preprocess

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Vectors of length 1, fp32. (B, 3, R, R) -> (B, E)"""
        return self.model.eval().embed_images(pixels.to(self.device)).cpu()

    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> Tensor:
        """Files or PIL pictures to vectors of length 1, fp32. (N, E) Raises InputError for a file that is no picture."""
        parts = []
        for start in range(0, len(images), BATCH):
            pixels = [self.pixels(open_image(image)) for image in images[start : start + BATCH]]
            parts.append(self.encode(torch.stack(pixels)))
        return torch.cat(parts)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors of length 1, fp32; long ones are cut. (N, E)"""
        self.model.eval()
        parts = []
        for start in range(0, len(texts), BATCH):
            ids = [[*self.tokens.encode(text)[: MAX_TOKENS - 2], self.tokens.eos] for text in texts[start : start + BATCH]]
            tokens, mask = with_start(*pad_captions(ids, self.tokens.pad), self.tokens.bos)
            parts.append(self.model.embed_texts(tokens.to(self.device), mask.to(self.device)).cpu())
        return torch.cat(parts)


def with_start(tokens: Tensor, mask: Tensor, bos: int) -> tuple[Tensor, Tensor]:
    """[CLS] in front, which is what a text tower reads the caption's vector from. (B, L), (B, L) -> 2 x (B, L+1)"""
    return F.pad(tokens, (1, 0), value=bos), F.pad(mask, (1, 0), value=True)


class Pairs(nn.Module):
    """What training sees of a dual encoder: batches of `Pictures` with captions in, the loss out, a rate for each part.

    image_rate and text_rate are the towers' rates as shares of the heads': pretrained towers know much already, and large
    steps would undo it. As published: 1e-4 and 1e-5 beside 1e-3.
    """

    def __init__(self, model: Contrastive, bos: int, image_rate: float = 0.1, text_rate: float = 0.01):
        super().__init__()
        self.model = model
        self.bos = bos
        self.rates = {"image_tower": image_rate, "text_tower": text_rate}

    def loss(self, image: dict[str, Tensor], tokens: Tensor, mask: Tensor) -> Tensor:
        """image: {"pixels": (P, 3, R, R), "rows": (B,), which of them a caption belongs to}; tokens, mask (B, L)."""
        rows = image["rows"]
        process = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        photos = rows + process * len(rows)  # other processes have other photos
        return self.model.loss(image["pixels"], *self.texts(tokens, mask), photos, rows)

    def texts(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Captions as the text tower wants them: tokens and mask (B, L+1)."""
        return with_start(tokens, mask, self.bos)

    def parameter_groups(self, rate: float) -> list[dict[str, object]]:
        """The heads at `rate`, the towers at their shares of it."""
        parts: dict[str, list[nn.Parameter]] = {"learning_rate": [], **{name: [] for name in self.rates}}
        for name, parameter in self.model.named_parameters():
            part = name.split(".")[0]
            parts[part if part in self.rates else "learning_rate"].append(parameter)
        return [{"name": part if part == "learning_rate" else f"{part}_rate", "params": parameters,
                 "lr": rate * self.rates.get(part, 1.0)} for part, parameters in parts.items()]  # fmt: skip


def train_dual_encoder(
    run: Run,
    captions: Captions,
    settings: TrainSettings,
    folder: str | Path,
    *,
    devices: int | str = 1,
    resume: bool = False,
    log: LogSettings | None = None,
    image_rate: float = 0.1,
    text_rate: float = 0.01,
    **sizes: object,
) -> tuple[Finder, History]:
    """Train on the train split, validate on the val split, save the best epoch to `folder`/checkpoint.

    run.image_tower and run.text_tower are where it starts from; `sizes` are fields of DualEncoderConfig. Pictures are read
    anew in each epoch, since their tower learns. Raises InputError or OfflineError as the readers of data and towers do.
    """
    check_contrastive(settings)
    devices = find_devices(devices, run.device)
    image_tower, text_tower = find_image_tower(run.image_tower), load_text_tower(run.text_tower)
    seed_everything(settings.seed)
    model = DualEncoder.build(image_tower, text_tower, **sizes)
    finder = Finder(model, load_tokens(run.tokenizer), {"image_tower": run.image_tower, "text_tower": run.text_tower})
    loaders = make_loaders(
        captions, finder.tokens, settings, from_pictures(finder, captions.image_dir),
        max_tokens=min(settings.max_tokens, MAX_TOKENS - 1), workers=picture_workers(run.device),
    )  # fmt: skip
    pairs = Pairs(model, finder.tokens.bos, image_rate, text_rate)
    what = {"dataset": captions.name, **finder.config, "model": str(model.config), "rates": f"{image_rate} and {text_rate}"}
    history = fit(pairs, loaders, settings, folder, device=run.device, precision=run.precision, devices=devices,
                  resume=resume, what=what, log=log)  # fmt: skip
    finder.config["training"] = {
        "dataset": captions.name,
        "pictures": len(loaders.train.dataset),
        "minutes": round(history.minutes, 2),
        "best_epoch": history.best_epoch,
        "val_loss": round(history.best_val_loss, 4),
        **asdict(settings),
    }
    if first_process():
        save_finder(finder, Path(folder) / "checkpoint")
    return finder, history


def check_contrastive(settings: TrainSettings) -> None:
    """Raises InputError for settings of captioners that mean nothing to a contrastive loss."""
    for name, wanted in (("encoder", "frozen"), ("keep", "val_loss"), ("label_smoothing", 0.0)):
        if getattr(settings, name) != wanted:
            raise InputError(f"{name}={getattr(settings, name)!r}: a contrastive model learns whole, keeps the epoch of the "
                             f"lowest loss and smooths no labels: leave {name}")


def save_finder(finder: Finder, folder: str | Path, **extra: object) -> Path:
    """Write a dual encoder's folder, atomically. `extra` goes into config.json, such as its scores."""
    tower = finder.model.image_tower
    config = {
        "format": 1,
        "system": "dual-encoder",
        "model": asdict(finder.model.config),
        "preprocessing": {"resolution": tower.resolution},
        "architecture": tower.architecture,
        **finder.config,
        **extra,
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        weights = {name: value.detach().cpu().contiguous() for name, value in finder.model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")
        (temporary / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        finder.model.text_tower.net.config.save_pretrained(temporary / "text")
        finder.tokens.tokenizer.save_pretrained(temporary / "tokenizer")
    return Path(folder)


def load_finder(folder: str | Path, device: str = "cpu") -> Finder:
    """Rebuild a dual encoder from its folder.

    Raises InputError where a file is missing or damaged, or is not a dual encoder's.
    """
    from transformers import AutoConfig

    folder = Path(folder)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("system") != "dual-encoder":
            raise InputError(f"{path}: a {config.get('system')} captions pictures; to search, give one of a dual-encoder")
        weights = load_file(folder / "model.safetensors")
        sizes = config["architecture"]
        image_tower = ClipTower.build(sizes) if isinstance(sizes, dict) else load_image_tower(f"{sizes}-random")
        text_tower = TextTower.build(AutoConfig.from_pretrained(folder / "text"))
        model = DualEncoder(DualEncoderConfig(**config["model"]), image_tower, text_tower)
        model.load_state_dict(weights)
        tokens = load_tokens(folder / "tokenizer")
    except InputError:
        raise
    except Exception as error:  # a missing file or key, no JSON, a tensor that does not fit: to the user they are one
        reason = str(error).splitlines()[-1].strip() if str(error) else "no message"
        raise InputError(f"{folder} is not a whole checkpoint of a dual encoder ({type(error).__name__}: {reason})") from error
    return Finder(model.to(device).eval(), tokens, config)
