"""A frozen CLIP and the cache of its features: every picture goes through CLIP once, whatever the number of epochs."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from helpers.data.images import open_image
from helpers.environment import require_network
from helpers.errors import InputError
from helpers.hub import find_file

with warnings.catch_warnings():  # clip imports pkg_resources, which advises against itself on stderr
    warnings.simplefilter("ignore")
    import clip


class ClipEncoder:
    """OpenAI's CLIP, frozen and in eval mode, with its own preprocessing.

    Attributes: `name` as it was asked for, `dim` (E, the size of the pooled vector), `resolution` (pixels a side),
    `fingerprint` (hex digest of weights and preprocessing: the key of every cached feature).
    """

    def __init__(self, model: torch.nn.Module, name: str, device: str = "cpu"):
        self.model = model.eval().requires_grad_(False).to(device)
        self.name = name
        self.device = device
        self.resolution = int(model.visual.input_resolution)
        self.dim = int(model.visual.output_dim)
        self.preprocess = clip.clip._transform(self.resolution)
        self.fingerprint = _fingerprint(model, repr(self.preprocess.transforms[-1]) + str(self.resolution))

    def pixels(self, image: Image.Image) -> Tensor:
        """One RGB picture as CLIP wants it: resized (bicubic), centre-cropped, normalised. (3, R, R)"""
        return self.preprocess(image)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pooled image vectors, not normalised, fp32. (B, 3, R, R) -> (B, E)"""
        return self.model.encode_image(pixels.to(self.device)).float()

    @torch.no_grad()
    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> Tensor:
        """`encode` for picture files or PIL pictures. Raises InputError naming a file that is not a picture. (B, E)"""
        return self.encode(torch.stack([self.pixels(open_image(image)) for image in images]))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Pooled text vectors, not normalised, fp32; texts longer than CLIP's context are cut. (B, E)"""
        ids = clip.tokenize(list(texts), context_length=self.model.context_length, truncate=True)
        return self.model.encode_text(ids.to(self.device)).float()


def load_clip(name: str | Path, device: str = "cpu") -> ClipEncoder:
    """CLIP by a name of the clip package ("ViT-B/32") or from a file.

    A file is a TorchScript archive, OpenAI's own format, or a plain state dict (which `clip.load` cannot read on today's
    torch). Raises InputError for an unknown name, a missing or damaged file; OfflineError where the weights would have to
    be downloaded and there is no network.
    """
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


def _load_named(name: str, device: str) -> torch.nn.Module:
    url = clip.clip._MODELS[name]
    cached = Path.home() / ".cache" / "clip" / os.path.basename(url)
    if not cached.is_file():
        require_network(url, what=f"CLIP {name}", instead=f"Put the file at {Path('~/.cache/clip') / cached.name}, or give "
                        "a CLIP file instead of the name (--clip FILE), for example data/tiny/clip-vit.pt.")
    with warnings.catch_warnings():  # torch.jit's FutureWarning prints an absolute path
        warnings.simplefilter("ignore")
        return clip.load(name, device=device, jit=False)[0]


def _load_file(path: Path, device: str) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _is_torchscript(path):
                return clip.load(str(path), device=device, jit=False)[0]
            state = torch.load(path, map_location="cpu", weights_only=True)
            return clip.model.build_model(state.get("state_dict", state)).float()
    except Exception as error:  # the readers raise a dozen kinds; to the user they are one
        raise InputError(f"{path.name} cannot be read as a CLIP model, is it whole? ({type(error).__name__}: "
                         f"{str(error).splitlines()[0] if str(error) else 'no message'})") from error


def _is_torchscript(path: Path) -> bool:
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("constants.pkl") for name in archive.namelist())


def _fingerprint(model: torch.nn.Module, preprocessing: str) -> str:
    digest = hashlib.sha256(preprocessing.encode())
    for name, value in sorted(model.visual.state_dict().items()):
        digest.update(name.encode())
        # fp16 is what OpenAI ships: the same weights have the same key on a GPU (fp16) and on the CPU (fp32).
        digest.update(value.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:16]


def unit(vectors: Tensor | np.ndarray) -> Tensor:
    """Rows scaled to length one, fp32, so that a dot product is a cosine. (N, E)"""
    return torch.nn.functional.normalize(torch.as_tensor(np.asarray(vectors), dtype=torch.float32), dim=-1)
