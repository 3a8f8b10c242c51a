"""A CLIP of OpenAI's architecture, trained from nothing on captioned pictures, in a file that all else takes as `--clip`.

    run = setup("train_clip", system="clip")
    encoder, history = train_clip(run, captions, settings, folder, architecture="ModifiedResNet")    # folder/clip.pt

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (arXiv 2103.00020). Theirs saw
400 million pictures; a small one on a few thousand learns what these show, and little else.
"""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from helpers.contrast import Pairs, check_contrastive, with_start
from helpers.data.datasets import Captions
from helpers.data.encoders import ClipEncoder, clip, load_clip
from helpers.data.preprocessing import Preprocessed
from helpers.devices import find_devices, first_process, picture_workers
from helpers.environment import Run, seed_everything
from helpers.errors import InputError
from helpers.loaders import from_pictures, make_loaders
from helpers.models.dual_encoder import ClipDualEncoder
from helpers.settings import LogSettings, TrainSettings
from helpers.training import History, fit

CONTEXT = 48  # tokens of a text, its start and end included; OpenAI's has 77
# Small enough for a CPU. Heads must be width // 64, which is how clip.load counts them.
ARCHITECTURES = {
    "ViT": dict(image_resolution=96, vision_layers=4, vision_width=128, vision_patch_size=12),
    "ModifiedResNet": dict(image_resolution=128, vision_layers=(1, 1, 1, 1), vision_width=16, vision_patch_size=None),
}
TEXT = dict(embed_dim=256, context_length=CONTEXT, vocab_size=49_408, transformer_width=128, transformer_heads=2,
            transformer_layers=2)  # fmt: skip


class ClipWords:
    """CLIP's tokenizer, with the face of `Tokens`: what batches of captions need."""

    def __init__(self) -> None:
        self._words = clip.simple_tokenizer.SimpleTokenizer()
        self.bos, self.eos = (self._words.encoder[name] for name in ("<|startoftext|>", "<|endoftext|>"))
        self.pad = 0

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without start and end."""
        return self._words.encode(text)


class ClipPairs(Pairs):
    """`Pairs` for a CLIP: texts fill its context, and all of it learns at one rate."""

    def texts(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens, mask = with_start(tokens.masked_fill(~mask, 0), mask, self.bos)
        return F.pad(tokens, (0, CONTEXT - tokens.shape[1])), mask

    def parameter_groups(self, rate: float) -> list[dict[str, object]]:
        return [{"name": "learning_rate", "params": list(self.parameters()), "lr": rate}]


class _Reader(Preprocessed):
    """How pictures become pixels before there is a file that load_clip could read."""

    def __init__(self, resolution: int):
        self.preprocess = clip.clip._transform(resolution)


def train_clip(
    run: Run,
    captions: Captions,
    settings: TrainSettings,
    folder: str | Path,
    *,
    devices: int | str = 1,
    resume: bool = False,
    log: LogSettings | None = None,
    architecture: str = "ViT",
) -> tuple[ClipEncoder, History]:
    """Train on the train split, validate on the val split, write the best epoch to `folder`/clip.pt, and read it back.

    architecture: "ViT" or "ModifiedResNet". Raises InputError for another, and as the reader of the data does.
    """
    from helpers.pretrain import save_clip

    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture={architecture!r} is not known: choose {' or '.join(ARCHITECTURES)}")
    check_contrastive(settings)
    devices = find_devices(devices, run.device)
    seed_everything(settings.seed)
    sizes = ARCHITECTURES[architecture]
    net = clip.model.CLIP(**TEXT, **sizes)
    tokens = ClipWords()
    loaders = make_loaders(
        captions, tokens, settings, from_pictures(_Reader(sizes["image_resolution"]), captions.image_dir),
        max_tokens=min(settings.max_tokens, CONTEXT - 1), workers=picture_workers(run.device),
    )  # fmt: skip
    what = {"dataset": captions.name, "architecture": architecture}
    history = fit(ClipPairs(ClipDualEncoder(net), tokens.bos), loaders, settings, folder, device=run.device,
                  precision=run.precision, devices=devices, resume=resume, what=what, log=log)  # fmt: skip
    path = Path(folder) / "clip.pt"
    if first_process():
        save_clip(net.cpu().eval(), path)
    if dist.is_available() and dist.is_initialized():
        dist.barrier()  # the others read what the first has written
    return load_clip(path, run.device), history
