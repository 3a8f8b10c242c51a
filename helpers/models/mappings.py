"""Mapping networks: what CLIP gives of a picture becomes K pseudo-words for a language model.

    transformer             (B, E)    spread over C positions beside K learned constants (ClipCap, figure 2)
    mlp                     (B, E)    two linear maps with a tanh between them (ClipCap, section 3.2)
    linear                  (B, E)    one linear map and a tanh
    cross-attention         (B, M, C) and (B, E): K learned queries look at the cells of the grid and at the pooled vector
    cross-attention-pooled  (B, E)    the same with a memory of length 1: a softmax over one key is always 1, so the
                                      queries have nowhere to look and half of the cross-attention never learns

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", 2021 (arXiv 2111.09734). Names of parameters inside
`TransformerMapping` and `MLPMapping` are those of its public checkpoints. Queries that read a memory: Carion et al.,
"End-to-End Object Detection with Transformers", 2020 (arXiv 2005.12872), here with LayerNorm before each part.

Letters: B batch, E size of the CLIP vector, M cells of CLIP's grid, C channels of a cell (in `TransformerMapping`: positions
that the vector is spread over), K prefix length, D width of the language model, N positions, S positions looked at, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from helpers.models.clipcap import ClipCapConfig


class MappingAttention(nn.Module):
    """Multi-head attention of every position to every position, its own sequence's or another's; no mask."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """x (B, N, D) looks at memory (B, S, D), or at itself: (B, N, D)."""
        memory = x if memory is None else memory
        (B, N, D), S = x.shape, memory.shape[1]
        q = self.to_queries(x).view(B, N, self.heads, -1).transpose(1, 2)  # (B, H, N, D/H)
        k, v = self.to_keys_values(memory).view(B, S, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # 2 x (B, H, S, D/H)
        out = F.scaled_dot_product_attention(q, k, v)  # (B, H, N, D/H)
        return self.project(out.transpose(1, 2).reshape(B, N, D))


class MappingMLP(nn.Module):
    """The feed-forward half of a block: ReLU between two linear maps."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class MappingBlock(nn.Module):
    """Pre-norm: LayerNorm, attention, residual; LayerNorm, MLP, residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = MappingAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MappingMLP(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TransformerMapping(nn.Module):
    """The paper's mapping network (figure 2): the CLIP vector spread over C positions beside K learned constants."""

    def __init__(self, config: ClipCapConfig):
        super().__init__()
        self.clip_length = config.clip_length
        self.linear = nn.Linear(config.image_dim, config.clip_length * config.width)
        self.prefix_const = nn.Parameter(torch.randn(config.prefix_length, config.width))
        self.transformer = nn.ModuleDict(
            {"layers": nn.ModuleList([
                MappingBlock(config.width, config.heads, config.mlp_ratio) for _ in range(config.layers)
            ])}
        )

    def forward(self, image: Tensor) -> Tensor:
        """CLIP vectors (B, E) to prefixes (B, K, D): what stands at the constants' positions after the last block."""
        B = image.shape[0]
        spread = self.linear(image).view(B, self.clip_length, -1)  # (B, C, D)
        x = torch.cat([spread, self.prefix_const.expand(B, -1, -1)], dim=1)  # (B, C+K, D)
        for block in self.transformer["layers"]:
            x = block(x)
        return x[:, self.clip_length :]  # (B, K, D)


class MLPMapping(nn.Module):
    """The paper's other mapping network, made for a language model that learns along: E -> K*D/2 -> K*D."""

    def __init__(self, config: ClipCapConfig):
        super().__init__()
        self.prefix_length = config.prefix_length
        out = config.prefix_length * config.width
        self.model = nn.Sequential(nn.Linear(config.image_dim, out // 2), nn.Tanh(), nn.Linear(out // 2, out))

    def forward(self, image: Tensor) -> Tensor:
        """(B, E) -> (B, K, D)"""
        return self.model(image).view(len(image), self.prefix_length, -1)


class LinearMapping(nn.Module):
    """The least that can be done: one linear map, and a tanh that keeps its numbers small."""

    def __init__(self, config: ClipCapConfig):
        super().__init__()
        self.prefix_length = config.prefix_length
        self.linear = nn.Linear(config.image_dim, config.prefix_length * config.width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, E) -> (B, K, D)"""
        return self.linear(image).tanh().view(len(image), self.prefix_length, -1)


class CrossAttentionBlock(nn.Module):
    """The queries look at each other, then at the picture, then think; each part reads a LayerNorm of x and adds to x."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = MappingAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = MappingAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = MappingMLP(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (B, K, D) and memory (B, S, D) -> (B, K, D)"""
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x), memory)
        return x + self.mlp(self.norm3(x))


class CrossAttentionMapping(nn.Module):
    """K learned queries read the picture through a transformer decoder without a mask: S = M + 1 tokens to look at, or 1.

    Grid and pooled vector come in different sizes and scales: each has its own projection and LayerNorm.
    """

    def __init__(self, config: ClipCapConfig):
        super().__init__()
        D = config.width
        self.queries = nn.Parameter(torch.randn(config.prefix_length, D))
        self.pooled = nn.Sequential(nn.Linear(config.image_dim, D), nn.LayerNorm(D))
        self.grid = nn.Sequential(nn.Linear(config.grid_dim, D), nn.LayerNorm(D)) if config.sees == "grid" else None
        self.blocks = nn.ModuleList([CrossAttentionBlock(D, config.heads, config.mlp_ratio) for _ in range(config.layers)])

    def memory(self, image: Tensor | Mapping[str, Tensor]) -> Tensor:
        """What there is to look at: the grid's cells, then the pooled vector, (B, M+1, D); or that vector alone, (B, 1, D)."""
        if self.grid is None:
            return self.pooled(image)[:, None]
        return torch.cat([self.grid(image["grid"]), self.pooled(image["pooled"])[:, None]], dim=1)  # (B, M+1, D)

    def forward(self, image: Tensor | Mapping[str, Tensor]) -> Tensor:
        """{"grid": (B, M, C), "pooled": (B, E)}, or (B, E) where it has no grid, to prefixes (B, K, D)."""
        memory = self.memory(image)
        x = self.queries.expand(len(memory), -1, -1)  # (B, K, D)
        for block in self.blocks:
            x = block(x, memory)
        return x


MAPPINGS: dict[str, type[nn.Module]] = {
    "transformer": TransformerMapping,
    "mlp": MLPMapping,
    "linear": LinearMapping,
    "cross-attention": CrossAttentionMapping,
    "cross-attention-pooled": CrossAttentionMapping,
}
