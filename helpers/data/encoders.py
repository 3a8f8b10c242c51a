"""CLIP as the captioners' eye: one vector a picture, or a grid of vectors beside it; frozen, or learning along.

The grid is what CLIP's image tower holds just before it makes one vector of everything:

    ModifiedResNet   (RN50)      S x S cells, row by row                    what its attention pool reads
    ViT              (ViT-L/14)  [CLS], then S x S patches, row by row      hidden states after the last block
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from helpers.data.images import open_image
from helpers.data.preprocessing import Preprocessed
from helpers.environment import check_device, require_network
from helpers.errors import InputError
from helpers.hub import find_file

with warnings.catch_warnings():  # clip imports pkg_resources, which advises against itself on stderr
    warnings.simplefilter("ignore")
    import clip


class ClipEncoder(Preprocessed):
    """OpenAI's CLIP, frozen and in eval mode, with its own preprocessing.

    Attributes: `name` as it was asked for, `dim` (E, the size of the pooled vector), `grid` (M, C: rows of the grid and
    channels of each; (49, 2048) for RN50, (257, 1024) for ViT-L/14), `resolution` (pixels a side), `fingerprint` (hex
    digest of weights and preprocessing: the key of every cached feature).

    For drawing: `side` (S, cells a side: 7 for RN50, 16 for ViT-L/14) and `summary_rows`, how many rows of the grid stand
    before the square because they have no place in the picture: 1 for a ViT, its [CLS], 0 for a ModifiedResNet. So
    M = summary_rows + S * S, and the square alone is `grid[:, summary_rows:].unflatten(1, (S, S))`  # (B, S, S, C)
    """

    def __init__(self, model: nn.Module, name: str, device: str = "cpu"):
        self.model = model.eval().requires_grad_(False).to(device)
        if device == "cpu" and _is_resnet(model.visual):
            model.visual.to(memory_format=torch.channels_last)  # a third faster
        self.name = name
        self.device = device
        self.resolution = int(model.visual.input_resolution)
        self.dim = int(model.visual.output_dim)
        self.grid = grid_size(model.visual)
        self.summary_rows = 0 if _is_resnet(model.visual) else 1
        self.side = math.isqrt(self.grid[0] - self.summary_rows)
        self.preprocess = clip.clip._transform(self.resolution)
        self.take_fingerprint()

    def take_fingerprint(self) -> None:
        """Anew after the weights have changed, so that features of the old ones are never read for the new."""
        self.fingerprint = _fingerprint(self.model, repr(self.preprocess.transforms[-1]) + str(self.resolution))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pooled image vectors, not normalised, fp32. (B, 3, R, R) -> (B, E)"""
        return self.model.encode_image(pixels.to(self.device)).float()

    @torch.no_grad()
    def encode_grid(self, pixels: Tensor) -> dict[str, Tensor]:
        """What there is to look at, fp32: (B, 3, R, R) -> "grid" (B, M, C) and "pooled" (B, E), as `encode` gives it."""
        return grid_and_pooled(self.model.visual, pixels.to(self.device))

    @torch.no_grad()
    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> Tensor:
        """`encode` for picture files or PIL pictures. Raises InputError naming a file that is not a picture. (B, E)"""
        return self.encode(torch.stack([self.pixels(open_image(image)) for image in images]))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Pooled text vectors, not normalised, fp32; texts longer than CLIP's context are cut. (B, E)"""
        ids = clip.tokenize(list(texts), context_length=self.model.context_length, truncate=True)
        return self.model.encode_text(ids.to(self.device)).float()


def grid_and_pooled(visual: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """One pass through CLIP's image tower: (B, 3, R, R) -> "grid" (B, M, C) and "pooled" (B, E), both fp32."""
    forward = resnet_forward if _is_resnet(visual) else vit_forward
    grid, pooled = forward(visual, pixels.type(visual.conv1.weight.dtype))  # OpenAI ships fp16
    return {"grid": grid.float(), "pooled": pooled.float()}


def resnet_forward(visual: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """ModifiedResNet's own forward pass, keeping what its attention pool reads.

    (B, 3, R, R) -> grid (B, M, C), for RN50 7 x 7 cells of 2048 channels, and CLIP's own pooled vector (B, E).
    """
    for n in "123":  # the stem
        x = getattr(visual, f"relu{n}")(getattr(visual, f"bn{n}")(getattr(visual, f"conv{n}")(x)))
    x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.avgpool(x)))))  # (B, C, S, S)
    return x.flatten(2).transpose(1, 2), visual.attnpool(x)


def vit_forward(visual: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """VisionTransformer's own forward pass, keeping the hidden states after its last block.

    (B, 3, R, R) -> grid (B, M, C), for ViT-L/14 [CLS] and 16 x 16 patches of 1024 channels, and CLIP's own pooled vector
    (B, E). The grid is what the transformers library calls CLIPVisionModel's last_hidden_state: before ln_post, which CLIP
    has trained for [CLS] alone.
    """
    x = visual.conv1(x).flatten(2).transpose(1, 2)  # (B, S*S, C)
    cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)  # (B, 1, C)
    x = visual.ln_pre(torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype))  # (B, M, C)
    x = visual.transformer(x.transpose(0, 1)).transpose(0, 1)  # its blocks want (M, B, C)
    return x, visual.ln_post(x[:, 0]) @ visual.proj


class LearningEncoder(nn.Module):
    """CLIP's image tower inside a model that trains: pixels in, grid and pooled vector out, gradients for some of its parts.

    parts: names of its children that may learn: FINE_TUNED in phase 2 of two (a ModifiedResNet's), ALL from the start, or
    () for none: then it encodes on the fly what is too large to cache, the same numbers. `learning` says whether they do
    now; until then nothing here gets a gradient. Why a switch, where others would set requires_grad when phase 2 begins:
    DDP notes which parameters want gradients when it wraps the model, and never synchronises the others.

    Weights that learn, and those beside them, are fp32, also where OpenAI ships fp16: there, a step of 1e-5 of a weight's
    size rounds to nothing. BatchNorm goes on using the statistics that CLIP was trained with, for a caption batch's are
    noise beside them; only where everything learns does it gather its own.

    Raises InputError for parts that this tower has not.
    """

    FINE_TUNED = ("layer4", "attnpool")
    ALL = ("",)

    def __init__(self, visual: nn.Module, parts: tuple[str, ...] = FINE_TUNED):
        super().__init__()
        names = [name for name, _ in visual.named_parameters()]
        missing = [part for part in parts if not any(name.startswith(part) for name in names)]
        if missing:
            children = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise InputError(f"{' and '.join(missing)} cannot learn, for this CLIP has no such part, only {children}"
                             + ("" if _is_resnet(visual) else ". It is a ViT: give RN50 (--clip), or let all of it learn, or "
                                "nothing (encoder='all', encoder='frozen')"))
        self.visual = visual.float() if parts else visual
        self.parts = parts
        self.learning = False
        for name, parameter in visual.named_parameters():
            parameter.requires_grad_(name.startswith(parts))
        self.train()  # the trainer keeps the modes it finds

    def train(self, mode: bool = True) -> LearningEncoder:
        return super().train(mode and self.parts == self.ALL)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(B, 3, R, R) -> {"grid": (B, M, C), "pooled": (B, E)}"""
        with torch.set_grad_enabled(self.learning and torch.is_grad_enabled()):
            return grid_and_pooled(self.visual, pixels)


def load_clip(name: str | Path, device: str = "cpu") -> ClipEncoder:
    """CLIP by a name of the clip package ("ViT-B/32") or from a file.

    A file is a TorchScript archive, OpenAI's own format, or a plain state dict (which `clip.load` cannot read on today's
    torch). Raises InputError for an unknown name, a missing or damaged file, cuda without a GPU; OfflineError where the
    weights would have to be downloaded and there is no network.
    """
    check_device(device)
    name = str(name)
    path = find_file(name) if name not in clip.available_models() else None
    if name in clip.available_models():
        model = _load_named(name, device)
    elif path is None:
        known = ", ".join(clip.available_models())
        raise InputError(f"CLIP {name!r} is neither a file nor one of: {known}")
    else:
        model = _load_file(path, device)
    return ClipEncoder(model, name, device)


def _load_named(name: str, device: str) -> nn.Module:
    url = clip.clip._MODELS[name]
    cached = Path.home() / ".cache" / "clip" / os.path.basename(url)
    if not cached.is_file():
        require_network(url, what=f"CLIP {name}", instead=f"Put the file at {Path('~/.cache/clip') / cached.name}, or give "
                        "a CLIP file instead of the name (--clip FILE), for example data/tiny/clip-vit.pt.")
    with warnings.catch_warnings():  # torch.jit's FutureWarning prints an absolute path
        warnings.simplefilter("ignore")
        return clip.load(name, device=device, jit=False)[0]


def _load_file(path: Path, device: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if is_torchscript(path):
                return clip.load(str(path), device=device, jit=False)[0]
            state = torch.load(path, map_location="cpu", weights_only=True)
            return clip.model.build_model(state.get("state_dict", state)).float()
    except Exception as error:  # the readers raise a dozen kinds; to the user they are one
        raise InputError(f"{path.name} cannot be read as a CLIP model, is it whole? ({type(error).__name__}: "
                         f"{str(error).splitlines()[0] if str(error) else 'no message'})") from error


def _is_resnet(visual: nn.Module) -> bool:
    return isinstance(visual, clip.model.ModifiedResNet)


def grid_size(visual: nn.Module) -> tuple[int, int]:
    if _is_resnet(visual):
        rows, channels = visual.attnpool.positional_embedding.shape
        return rows - 1, channels  # one position is for the mean of all cells, which is no row of the grid
    rows, channels = visual.positional_embedding.shape
    return rows, channels


def is_torchscript(path: Path) -> bool:
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())


def _fingerprint(model: nn.Module, preprocessing: str) -> str:
    digest = hashlib.sha256(preprocessing.encode())
    for name, value in sorted(model.visual.state_dict().items()):
        digest.update(name.encode())
        # fp16 is what OpenAI ships: the same weights have the same key on a GPU (fp16) and on the CPU (fp32).
        digest.update(value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:16]


def unit(vectors: Tensor | np.ndarray) -> Tensor:
    """Rows scaled to length one, fp32, so that a dot product is a cosine. (N, E)"""
    return torch.nn.functional.normalize(torch.as_tensor(np.asarray(vectors), dtype=torch.float32), dim=-1)
