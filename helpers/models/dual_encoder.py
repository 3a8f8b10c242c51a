"""A contrastive dual encoder: pictures and captions become vectors of one space, near each other where they belong together.

    picture (3, R, R)  --image tower-->  features (F,)  --projection head-->  (E,)
                                                                               |  cosine
    caption (L,)       --text tower--->  [CLS] (W,)     --projection head-->  (E,)

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (arXiv 2103.00020), figure 3:
here with the towers of the published small system (richardwzhu/image-captioning-CLIP; helpers/models/towers.py), its
projection heads and, as an option, its loss; or with OpenAI's own architecture.

Letters: B pairs, E vector size, F and W tower widths, R pixels a side, L tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.errors import InputError

TEMPERATURES = {"info-nce": 0.07, "soft-targets": 1.0}  # the losses, each with the temperature it was published with
MAX_SCALE = 100.0  # CLIP's: 1 / temperature goes no higher


def info_nce(image: Tensor, text: Tensor, logit_scale: Tensor | float, positives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: each picture must find its caption among the batch's, and each caption its picture.

    image, text (B, E), of any length (they are normalised here); logit_scale is the inverse temperature, a scalar;
    positives (B, B) bool, True where text j describes picture i: by default row b of one matches row b of the other and
    nothing else. Radford et al. 2021, figure 3. Where several match, the target is spread evenly over them: Khosla et al.,
    "Supervised Contrastive Learning", 2020 (arXiv 2004.11362), equation 2. A row that nothing matches adds 0.
    """
    logits = logit_scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T  # (B, B)
    if positives is None:
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    if positives.shape != logits.shape:
        raise InputError(f"positives must be pictures x texts, {tuple(logits.shape)}, and are {tuple(positives.shape)}")
    return (F.cross_entropy(logits, _spread(positives, logits)) + F.cross_entropy(logits.T, _spread(positives.T, logits))) / 2


def _spread(positives: Tensor, logits: Tensor) -> Tensor:
    """Each row of (B, B) as probabilities, equal ones where it is True."""
    positives = positives.to(logits.dtype)
    return positives / positives.sum(dim=1, keepdim=True).clamp(min=1)


def soft_target_loss(image: Tensor, text: Tensor, temperature: float) -> Tensor:
    """The published loss: how alike pictures are among themselves, and captions, says how alike the pairs should be.

    image, text (B, E), row b of one matching row b of the other; NOT normalised. With T the texts and I the images,

        logits = T I^T / temperature        targets = softmax((I I^T + T T^T) / 2 * temperature)

    and the mean of the cross-entropies of rows and of columns (richardwzhu/image-captioning-CLIP, src/clip_utils.py). As
    there, gradients flow through the targets too, and the columns' targets are those of the rows, transposed, which do not
    sum to 1.
    """
    logits = text @ image.T / temperature  # (B, B)
    targets = ((image @ image.T + text @ text.T) / 2 * temperature).softmax(dim=-1)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


class _GatherRows(torch.autograd.Function):
    """(B, ...) of this process -> (P * B, ...) of all P processes, in their order; the gradient comes back for its own rows.

    Every process computes the same joint loss from the same joint rows, so the gradient of its own rows is already whole.
    DDP then averages the parameters' gradients over the processes, where the joint batch's is their sum: hence times P. A
    parameter behind the gathering, the temperature, gets the whole gradient in each process, and the average is right.
    """

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        processes = dist.get_world_size()
        return processes * gradient.chunk(processes)[dist.get_rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, with gradients; each has to bring as many. (B, ...) -> (P * B, ...)"""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    return _GatherRows.apply(rows)


class ProjectionHead(nn.Module):
    """From a tower's width to the common space, as published: (B, width) -> (B, dim)"""

    def __init__(self, width: int, dim: int = 256, dropout: float = 0.1):
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.refine = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return self.norm(x + self.refine(x))


@dataclass(frozen=True)
class DualEncoderConfig:
    """Sizes of the heads, and the loss. The widths come from the towers."""

    image_width: int  # F: 2048 for a ResNet50
    text_width: int  # W: 768 for DistilBERT and BERT
    dim: int = 256  # E
    dropout: float = 0.1  # in the heads
    loss: str = "info-nce"  # or soft-targets, the published one
    temperature: float | None = None  # info-nce: where the learned one starts; soft-targets: fixed. None: TEMPERATURES'

    def __post_init__(self) -> None:
        if self.loss not in TEMPERATURES:
            raise InputError(f"loss={self.loss!r} is not known: choose {' or '.join(TEMPERATURES)}")
        for name in ("image_width", "text_width", "dim"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.temperature is None:
            object.__setattr__(self, "temperature", TEMPERATURES[self.loss])
        if not 1 / MAX_SCALE <= self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature} must be at least {1 / MAX_SCALE}")


class Contrastive(nn.Module):
    """What both dual encoders have in common; they bring image_vectors(), text_vectors() and log_scale."""

    def image_vectors(self, pixels: Tensor) -> Tensor:
        """(B, 3, R, R) -> (B, E), of any length."""
        raise NotImplementedError

    def text_vectors(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L), (B, L) -> (B, E), of any length."""
        raise NotImplementedError

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Vectors of length 1, so that a dot product is a cosine. (B, 3, R, R) -> (B, E)"""
        return F.normalize(self.image_vectors(pixels).float(), dim=-1)

    def embed_texts(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Vectors of length 1. tokens (B, L), mask (B, L), True on what counts -> (B, E)"""
        return F.normalize(self.text_vectors(tokens, mask).float(), dim=-1)

    @property
    def scale(self) -> Tensor:
        """1 / temperature, by which cosines become logits; at most MAX_SCALE. A scalar."""
        # What is stored is clamped, not what is used: beyond a clamp there is no gradient, and no way back.
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_SCALE))
        return self.log_scale.exp()

    def loss(
        self, pixels: Tensor, tokens: Tensor, mask: Tensor | None, photos: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """The contrastive loss of B pairs, and of those of all processes together where there are several.

        pixels (B, 3, R, R); tokens, mask (B, L); photos (B,) integers, equal where the photo is: its captions are positives
        of one another's picture, never negatives. rows (B,): where pixels (P, 3, R, R) holds each picture once, which of them
        a caption belongs to. Under DDP negatives come from every process, and the averaged gradients
        are those of one process with the joint batch. (Not through BatchNorm in training mode, which takes the statistics
        of its own process's part.)
        """
        image, text = self.image_vectors(pixels).float(), self.text_vectors(tokens, mask).float()  # (B, E), (B, E)
        image = image if rows is None else image[rows]
        image, text = gather_rows(image), gather_rows(text)  # of all processes
        photos = gather_rows(photos)
        with torch.autocast(image.device.type, enabled=False):  # bf16 keeps three digits, too few for logits up to 100
            return self.compare(image, text, photos[:, None] == photos)

    def compare(self, image: Tensor, text: Tensor, positives: Tensor) -> Tensor:
        """The loss of vectors (B, E) of any length; positives (B, B)."""
        return info_nce(image, text, self.scale, positives)


class DualEncoder(Contrastive):
    """An image tower and a text tower, each with a projection head.

    image_tower: (B, 3, R, R) -> (B, F); text_tower: tokens (B, L), mask (B, L) -> (B, W); both say their `width`.
    """

    def __init__(self, config: DualEncoderConfig, image_tower: nn.Module, text_tower: nn.Module):
        super().__init__()
        for name, tower in (("image", image_tower), ("text", text_tower)):
            if tower.width != (width := getattr(config, f"{name}_width")):
                raise InputError(f"the {name} tower has width {tower.width}, and the dual encoder was made for {width}")
        self.config = config
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.image_head = ProjectionHead(config.image_width, config.dim, config.dropout)
        self.text_head = ProjectionHead(config.text_width, config.dim, config.dropout)
        log_scale = torch.tensor(-math.log(config.temperature))
        if config.loss == "info-nce":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @classmethod
    def build(cls, image_tower: nn.Module, text_tower: nn.Module, **options: object) -> DualEncoder:
        """Widths are read off the towers; `options` are the other fields of DualEncoderConfig."""
        return cls(DualEncoderConfig(image_tower.width, text_tower.width, **options), image_tower, text_tower)

    def image_vectors(self, pixels: Tensor) -> Tensor:
        return self.image_head(self.image_tower(pixels))

    def text_vectors(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return self.text_head(self.text_tower(tokens, mask))

    def compare(self, image: Tensor, text: Tensor, positives: Tensor) -> Tensor:
        if self.config.loss == "soft-targets":
            return soft_target_loss(image, text, self.config.temperature)
        return super().compare(image, text, positives)


class ClipDualEncoder(Contrastive):
    """A CLIP of OpenAI's class (with a ViT or a ModifiedResNet) to train from scratch, by InfoNCE.

    clip: anything with encode_image, encode_text and logit_scale. Tokens are clip.tokenize's (B, context_length), and need no
    mask. What helpers.pretrain.save_clip makes of `self.clip` is a file that load_clip reads.
    """

    def __init__(self, clip: nn.Module):
        super().__init__()
        self.clip = clip

    @property
    def log_scale(self) -> Tensor:
        return self.clip.logit_scale

    def image_vectors(self, pixels: Tensor) -> Tensor:
        return self.clip.encode_image(pixels)

    def text_vectors(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return self.clip.encode_text(tokens)


def count_parameters(model: DualEncoder) -> dict[str, int]:
    """Counted, never typed: parameters of each tower, of the heads with the temperature, and how many train."""
    towers = {name: sum(p.numel() for p in tower.parameters())
              for name, tower in (("image tower", model.image_tower), ("text tower", model.text_tower))}  # fmt: skip
    everything = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return towers | {"heads": everything - sum(towers.values()), "trainable": trainable}
