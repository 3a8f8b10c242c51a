"""ClipCap: a mapping network turns one CLIP vector into a few pseudo-words in front of a frozen language model.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", 2021 (arXiv 2111.09734).

    CLIP vector (B, E) --mapping--> prefix (B, K, D) --+
                                                       +--> language model --> logits
    caption tokens (B, L) --embedding--> (B, L, D) ----+

Letters: B batch, E size of the CLIP vector, K prefix length, L caption tokens with the end token, D model width, V words.
Names inside `TransformerMapping` are those of the original's checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.errors import InputError


@dataclass(frozen=True)
class ClipCapConfig:
    """Sizes of the mapping network. The defaults are the paper's (section 3.2; 8 layers, 8 heads, 10 + 10 positions)."""

    image_dim: int  # E: comes from the CLIP model, never typed
    width: int  # D: comes from the language model, never typed
    prefix_length: int = 10  # K: pseudo-words the language model sees
    clip_length: int = 10  # C: positions the CLIP vector is spread over inside the mapping network
    layers: int = 8
    heads: int = 8
    mlp_ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"the language model's width {self.width} is not a multiple of heads={self.heads}")


class MappingAttention(nn.Module):
    """Multi-head self-attention over the mapping network's positions; no mask: every position sees every other."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q = self.to_queries(x).view(B, N, self.heads, -1).transpose(1, 2)  # (B, H, N, D/H)
        k, v = self.to_keys_values(x).view(B, N, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # 2 x (B, H, N, D/H)
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


class ClipCap(nn.Module):
    """A mapping network in front of a frozen causal language model that takes `inputs_embeds`.

    The language model's parameters get no gradient and it stays in eval mode (no dropout) also while the mapping trains.
    """

    sees = "pooled"  # of CLIP

    def __init__(self, config: ClipCapConfig, language_model: nn.Module):
        super().__init__()
        width = language_model.get_input_embeddings().weight.shape[1]
        if config.width != width:
            raise InputError(f"the captioner was made for a language model of width {config.width}, this one has {width}")
        self.config = config
        self.clip_project = TransformerMapping(config)
        self.gpt = language_model.requires_grad_(False).eval()

    @classmethod
    def build(cls, image_dim: int, language_model: nn.Module, **options: int | float) -> ClipCap:
        """A captioner whose sizes are read off the language model; `options` are fields of ClipCapConfig."""
        width = language_model.get_input_embeddings().weight.shape[1]
        return cls(ClipCapConfig(image_dim=image_dim, width=width, **options), language_model)

    def train(self, mode: bool = True) -> ClipCap:
        """As nn.Module, but the frozen language model never leaves eval mode."""
        super().train(mode)
        self.gpt.eval()
        return self

    def prefix(self, image: Tensor) -> Tensor:
        """CLIP vectors (B, E) to pseudo-words (B, K, D). Raises InputError where E is not what the captioner was made for."""
        if image.shape[-1] != self.config.image_dim:
            raise InputError(
                f"the captioner takes image vectors of {self.config.image_dim} numbers, this CLIP gives {image.shape[-1]}"
            )
        return self.clip_project(image)

    def loss(self, image: Tensor, tokens: Tensor, mask: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy of the caption tokens and their end token, and of nothing else (paper, equation 2).

        image (B, E); tokens (B, L), each row a caption, its end token, then padding; mask (B, L), True on what counts.

            input    p1 p2 .. pK   a   dog runs         p: prefix, K positions
            target    -  - .. a  dog  runs <end>        -: no target, never in the loss

        The last prefix position predicts the first word; padding stands only on the right, where a causal model cannot
        see it from any position that counts. Logits are computed only where there is a target.
        """
        self._check_length(tokens.shape[1] - 1)
        prefix = self.prefix(image)  # (B, K, D)
        words = self.gpt.get_input_embeddings()(tokens[:, :-1])  # (B, L-1, D)
        inputs = torch.cat([prefix, words], dim=1)  # (B, K+L-1, D)
        seen = torch.cat([mask.new_ones(prefix.shape[:2]), mask[:, :-1]], dim=1)  # (B, K+L-1)
        hidden = self.gpt.base_model(inputs_embeds=inputs, attention_mask=seen.long(), use_cache=False).last_hidden_state
        hidden = hidden[:, self.config.prefix_length - 1 :]  # (B, L, D)
        logits = self.gpt.get_output_embeddings()(hidden[mask])  # (targets, V)
        return F.cross_entropy(logits.float(), tokens[mask], label_smoothing=label_smoothing)

    @torch.no_grad()
    def generate(self, image: Tensor, *, eos: int, max_new_tokens: int = 40, **decoding: object) -> Tensor:
        """Token ids of one caption a picture: (B, E) -> (B, T), ended by `eos` and filled up with it.

        `decoding` goes to the transformers library's generate(): num_beams; do_sample, top_p, temperature; ...
        """
        self._check_length(max_new_tokens)
        prefix = self.prefix(image)
        return self.gpt.generate(
            inputs_embeds=prefix,
            attention_mask=prefix.new_ones(prefix.shape[:2], dtype=torch.long),
            max_new_tokens=max_new_tokens,  # max_length would count the prefix
            eos_token_id=eos,
            pad_token_id=eos,
            **decoding,
        )

    def _check_length(self, new_tokens: int) -> None:
        room = getattr(self.gpt.config, "max_position_embeddings", None)
        if room is not None and self.config.prefix_length + new_tokens > room:
            raise InputError(
                f"prefix of {self.config.prefix_length} + {new_tokens} caption tokens exceed the language model's {room} "
                f"positions: shorten the captions (max_new_tokens, max_tokens) to {room - self.config.prefix_length}"
            )


def count_parameters(model: ClipCap) -> dict[str, int]:
    """Counted, never typed: parameters of the mapping network, of the language model, and how many train."""
    return {
        "mapping": sum(p.numel() for p in model.clip_project.parameters()),
        "language model": sum(p.numel() for p in model.gpt.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
