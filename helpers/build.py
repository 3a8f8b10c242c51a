"""A captioner of any system from its parts: the same for training, and for counting what training will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import nn

from helpers.models.clipcap import ClipCap
from helpers.models.cross_attention import CrossAttentionCaptioner
from helpers.models.decoder import DecoderCaptioner, DecoderConfig

if TYPE_CHECKING:
    from helpers.data.tokens import Tokens


class Eye(Protocol):
    """What a captioner must know of its CLIP: a ClipEncoder, or the sizes of one that is not here."""

    dim: int  # E, of the pooled vector
    grid: tuple[int, int]  # M, C: rows of the grid and channels of each


def build_captioner(
    system: str, eye: Eye, tokens: Tokens, language_model: nn.Module | None = None, *, max_tokens: int = 60, **sizes: object
) -> nn.Module:
    """The captioner of `system` (clipcap, decoder, cross-attention), untrained; `sizes` are fields of its config.

    max_tokens: the longest caption in training; of `tokens` only their number and their start are asked for.
    """
    if system == "clipcap":
        if sizes.get("mapping") == "cross-attention":
            sizes = {"grid_dim": eye.grid[1]} | sizes
        return ClipCap.build(eye.dim, language_model, **sizes)
    if system == "decoder":
        # Room for a caption of usual length and a prompt, also where training cuts captions short.
        sizes = {"positions": max(64, max_tokens), "memory_dim": eye.grid[1]} | sizes
        return DecoderCaptioner(DecoderConfig(len(tokens), tokens.bos, eye.dim, **sizes))
    return CrossAttentionCaptioner.build(eye.grid[1], language_model, tokens.bos, **sizes)
