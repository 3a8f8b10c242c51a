"""GPT-2 that looks at the picture: cross-attention in each of its blocks, behind a gate that starts closed.

The gate: Alayrac et al., "Flamingo: a Visual Language Model for Few-Shot Learning", 2022 (arXiv 2204.14198), section 2.2.
Attention itself is decoder.py's. Where it stands in the block is where the transformers library's GPT2Block looks for it,
`block.crossattention` after `block.ln_cross_attn`; in a GPT-2 as it is published the two places are empty.

    CLIP's grid (B, M, C) --LayerNorm--> keys, values of each block, once a picture
                                              |
    words x (N, L, D) --> x + self-attention(x) --> x + tanh(gate) * cross-attention(x) --> x + MLP(x) --> next block

With gate = 0, as it starts, every block adds 0: the model says word for word what GPT-2 says, whatever the picture shows.

Letters: B pictures, M rows of CLIP's grid, C channels of a row, L tokens, D model width, H heads, V words. When decoding, a
picture may have several rows of tokens (beams): N rows, a multiple of B, those of one picture next to each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from helpers.errors import InputError
from helpers.models.decoder import KeysValues, MultiHeadAttention

# What trains, each with all that stands before it: what is new; GPT-2's LayerNorms; its MLPs (the published choice); the rest.
TUNINGS = ("cross-attention", "norms", "mlps", "all")


@dataclass(frozen=True)
class CrossAttentionConfig:
    """What is injected, and what of GPT-2 learns along. The first three come from CLIP, GPT-2 and its tokenizer."""

    memory_dim: int  # C: 1024 for ViT-L/14, 768 for ViT-B
    width: int  # D: 768 for GPT-2 small, 1024 for medium
    bos: int  # id of the token that stands before the first word
    heads: int = 0  # of the cross-attention; 0: as many as GPT-2's self-attention has
    tuning: str = "mlps"  # one of TUNINGS
    dropout: float = 0.0  # of GPT-2's own dropouts while it learns; 0.1 in its pretraining
    gradient_checkpointing: bool = False  # activations are computed anew on the way back: less memory, a third slower

    def __post_init__(self) -> None:
        if self.tuning not in TUNINGS:
            raise InputError(f"tuning={self.tuning!r} is not known: choose one of {', '.join(TUNINGS)}")
        if self.heads and self.width % self.heads:
            raise InputError(f"GPT-2's width {self.width} is not a multiple of heads={self.heads}")


class Attention(NamedTuple):
    """Who looked where: row t is the look that led to token t. Each row sums to 1."""

    image: Tensor  # (B, layers, H, L, M): at the rows of CLIP's grid


class PictureCache(DynamicCache):
    """The library's cache of the words' keys and values, and beside it the pictures' own, `image`: one pair a block.

    generate() repeats and reorders the words' part for its beams. Beams never leave their picture, so the picture's keys and
    values are neither copied nor moved: MultiHeadAttention lets all rows of a picture share them.
    """

    def __init__(self, image: list[KeysValues]):
        super().__init__()
        self.image = image  # each (B, H, M, D/H)


class GatedCrossAttention(nn.Module):
    """tanh(gate) * attention from words to picture, called by GPT2Block as it calls its own `crossattention`."""

    def __init__(self, width: int, memory_dim: int, heads: int, layer: int):
        super().__init__()
        self.layer = layer
        self.norm = nn.LayerNorm(memory_dim)
        self.attention = MultiHeadAttention(width, heads, memory_dim)
        self.gate = nn.Parameter(torch.zeros(1))

    def keys_values(self, memory: Tensor) -> KeysValues:
        """(B, M, C) -> 2 x (B, H, M, D/H)"""
        return self.attention.keys_values(self.norm(memory))

    def forward(
        self,
        x: Tensor,
        past_key_values: DynamicCache | None = None,
        encoder_hidden_states: Tensor | None = None,
        return_attention: bool = False,
        **_: object,  # the mask of the words, which says nothing about pictures
    ) -> tuple[Tensor, Tensor | None]:
        """x (N, L, D), normed by the block, to what the block adds (N, L, D), and the weights (N, H, L, M) if asked for.

        Keys and values come from a PictureCache when decoding, else from encoder_hidden_states, the memory (N, M, C).
        """
        cached = isinstance(past_key_values, PictureCache)
        image = past_key_values.image[self.layer] if cached else self.keys_values(encoder_hidden_states)
        out, weights = self.attention(x, image, None, return_attention)
        return torch.tanh(self.gate) * out, weights


class CrossAttentionCaptioner(nn.Module):
    """Any GPT-2 of the transformers library, its head and last LayerNorm kept, with a look at the picture in each block.

    `image` is everywhere a mapping with "grid" (B, M, C): a ViT's [CLS] and patches, or the cells of a ModifiedResNet.
    """

    sees = "grid"  # of CLIP

    def __init__(self, config: CrossAttentionConfig, language_model: nn.Module):
        super().__init__()
        _check_language_model(language_model, config)
        self.config = config
        self.gpt = language_model.train()  # trainers keep the mode they find, and it came in eval mode
        # Some checkpoints bring habits along (a repetition penalty, sampling): decode by what generate() is asked for alone.
        self.gpt.generation_config = type(self.gpt.generation_config)()
        gpt2 = language_model.config
        for layer, block in enumerate(self.blocks):
            block.ln_cross_attn = nn.LayerNorm(config.width, eps=gpt2.layer_norm_epsilon)
            block.crossattention = GatedCrossAttention(config.width, config.memory_dim, config.heads or gpt2.n_head, layer)
        for module in self.gpt.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
        if config.gradient_checkpointing:
            # The library's name for it from 5.23 on, and before. Reentrant checkpoints would need inputs that learn.
            enable = getattr(self.gpt, "activation_checkpointing_enable", None) or self.gpt.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        _tune(self.gpt, config.tuning)

    @classmethod
    def build(cls, memory_dim: int, language_model: nn.Module, bos: int, **options: object) -> CrossAttentionCaptioner:
        """A captioner whose sizes are read off the language model; `options` are fields of CrossAttentionConfig."""
        return cls(CrossAttentionConfig(memory_dim, language_model.config.hidden_size, bos, **options), language_model)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.gpt.transformer.h

    @property
    def gates(self) -> Tensor:
        """How far each block's gate stands open, first block first: tanh(gate) in (-1, 1). (layers,)"""
        return torch.tanh(torch.cat([block.crossattention.gate.detach() for block in self.blocks]))

    def memory(self, image: Mapping[str, Tensor]) -> Tensor:
        """What there is to look at (B, M, C). Raises InputError where it is not what the captioner was made for."""
        if not isinstance(image, Mapping) or "grid" not in image:
            raise InputError('the captioner looks at CLIP\'s grid: give {"grid": (B, M, C)}, as encode_grid() does')
        if image["grid"].shape[-1] != self.config.memory_dim:
            raise InputError(f"the captioner takes grid cells of {self.config.memory_dim} channels, this CLIP gives "
                             f"{image['grid'].shape[-1]}")
        return image["grid"]

    def hidden(self, image: Mapping[str, Tensor], tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the head reads to predict `tokens` (B, L): (B, L, D), after GPT-2's last LayerNorm.

            tokens     a   dog  runs <end>      mask (B, L): True on what counts
            read    <bos>   a   dog  runs
        """
        self._check_length(tokens.shape[1])
        read = F.pad(tokens[:, :-1], (1, 0), value=self.config.bos)  # (B, L)
        seen = None if mask is None else F.pad(mask[:, :-1], (1, 0), value=True).long()  # (B, L)
        out = self.gpt.transformer(
            input_ids=read, attention_mask=seen, encoder_hidden_states=self.memory(image), use_cache=False
        )
        return out.last_hidden_state

    def forward(
        self, image: Mapping[str, Tensor], tokens: Tensor, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Attention]:
        """Logits (B, L, V): row t scores every word as the t-th token, given the picture and the tokens before it.

        With return_attention also the weights: row t is where GPT-2 looked before it said token t.
        """
        if not return_attention:
            return self.gpt.lm_head(self.hidden(image, tokens))
        with _weights(self.blocks) as weights:
            logits = self.gpt.lm_head(self.hidden(image, tokens))
        return logits, Attention(torch.stack(weights, dim=1))

    def loss(
        self, image: Mapping[str, Tensor], tokens: Tensor, mask: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean cross-entropy of the caption tokens and their end token; each is predicted from the TRUE ones before it.

        tokens (B, L), each row a caption, its end token, then padding; mask (B, L), True on what counts. Logits are computed
        only where there is a target.
        """
        logits = self.gpt.lm_head(self.hidden(image, tokens, mask)[mask])  # (targets, V)
        return F.cross_entropy(logits.float(), tokens[mask], label_smoothing=label_smoothing)

    @torch.no_grad()
    def generate(
        self,
        image: Mapping[str, Tensor],
        *,
        eos: int,
        prompt: Tensor | None = None,
        max_new_tokens: int = 40,
        **decoding: object,
    ) -> Tensor:
        """Token ids of one caption a picture (B, T), ended by `eos` and filled up with it; (B * R, T) with
        num_return_sequences=R. In eval mode.

        prompt (P,): ids of words that every caption has to go on from; they are not in what is returned. `decoding` goes to
        the transformers library's generate(): num_beams; do_sample, top_p, temperature; ...
        """
        memory = self.memory(image)
        first = torch.tensor([self.config.bos], device=memory.device)
        if prompt is not None:
            first = torch.cat([first, prompt.to(memory.device, torch.long)])  # (1+P,)
        self._check_length(len(first) - 1 + max_new_tokens)
        first = first.expand(len(memory), -1)  # (B, 1+P)
        ids = self.gpt.generate(
            input_ids=first,
            attention_mask=torch.ones_like(first),
            past_key_values=PictureCache([block.crossattention.keys_values(memory) for block in self.blocks]),
            # Tells the blocks that there is a picture. A row will do, for generate() copies it for every beam.
            encoder_hidden_states=memory[:, :1],
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos,
            **decoding,
        )
        return ids[:, first.shape[1] :]

    def _check_length(self, length: int) -> None:
        room = self.gpt.config.n_positions
        if length > room:
            raise InputError(f"{length} caption tokens exceed the language model's {room} positions: shorten the captions "
                             f"(max_new_tokens, max_tokens) to {room}, a prompt's tokens included")


def _check_language_model(language_model: nn.Module, config: CrossAttentionConfig) -> None:
    if getattr(language_model.config, "model_type", None) != "gpt2" or not hasattr(language_model, "lm_head"):
        raise InputError(f"cross-attention is injected into the blocks of GPT-2, not of {type(language_model).__name__}: give "
                         "gpt2, gpt2-medium, or a folder of such a model (--language-model)")
    width, heads = language_model.config.hidden_size, config.heads or language_model.config.n_head
    if config.width != width:
        raise InputError(f"the captioner was made for a GPT-2 of width {config.width}, this one has {width}")
    if width % heads:
        raise InputError(f"GPT-2's width {width} is not a multiple of heads={heads}")


def _tune(gpt: nn.Module, tuning: str) -> None:
    """Gradients only where `tuning` lets GPT-2 learn; what is new always learns."""
    learns = TUNINGS[: TUNINGS.index(tuning) + 1]
    gpt.requires_grad_("all" in learns)
    for module in gpt.modules():
        if "norms" in learns and isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    for block in gpt.transformer.h:
        block.crossattention.requires_grad_(True)
        block.ln_cross_attn.requires_grad_(True)
        if "mlps" in learns:
            block.mlp.requires_grad_(True)


@contextmanager
def _weights(blocks: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Collects the attention weights (B, H, L, M) of each block while the body runs: GPT2Block itself drops them."""
    weights: list[Tensor] = []

    def look_again(module: GatedCrossAttention, args: tuple, kwargs: dict, _: object) -> None:
        weights.append(module.forward(*args, **kwargs, return_attention=True)[1])

    hooks = [block.crossattention.register_forward_hook(look_again, with_kwargs=True) for block in blocks]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()


def count_parameters(model: CrossAttentionCaptioner) -> dict[str, int]:
    """Counted, never typed: parameters of what was injected, of the language model as it was, and how many train."""
    injected = sum(p.numel() for name, p in model.named_parameters() if "crossattention" in name or "ln_cross_attn" in name)
    return {
        "cross-attention": injected,
        "language model": sum(p.numel() for p in model.parameters()) - injected,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def published_parameters(width: int, layers: int, vocabulary: int, positions: int, clip: int) -> dict[str, int]:
    """The published system by formula: Xiangyu-Lou/Image-Captions, with `clip` parameters of the frozen vision tower.

    It adds to each block of GPT-2 an attention and a LayerNorm, and trains them, the block's MLP and its ln_2, and a new
    head in place of the tied one, beside which the token table goes on being stored.
    """
    D = width
    norm = 2 * D
    attention = 4 * (D * D + D)
    mlp = (D * 4 * D + 4 * D) + (4 * D * D + D)
    gpt2 = vocabulary * D + positions * D + layers * (2 * norm + attention + mlp) + norm
    head = D * vocabulary + vocabulary
    return {
        "total": clip + gpt2 + layers * (attention + norm) + head,
        "trainable": layers * (attention + norm + norm + mlp) + head,
    }
