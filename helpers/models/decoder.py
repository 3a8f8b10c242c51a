"""A transformer decoder that captions pictures, from scratch: the one file to read.

Attention, multi-head attention and the block: Vaswani et al., "Attention Is All You Need", 2017 (arXiv 1706.03762).
LayerNorm before each part instead of after it: Xiong et al., "On Layer Normalization in the Transformer Architecture",
2020 (arXiv 2002.04745).

    image: grid (B, M, C) --projection, LayerNorm--+
           pooled (B, E) --projection, LayerNorm---+--> image memory (B, M+1, D)
                                                                  | every block looks here
    tokens (B, L) --token + position embedding--> (B, L, D) --> blocks --> LayerNorm --> logits (B, L, V)

Letters: B pictures, M cells of CLIP's grid, C channels of a cell, E size of the pooled vector, L tokens, D model width,
H heads, V words. In attention L is the length of what looks and S the length of what is looked at. When decoding, a
picture may have several rows of tokens (beams): N rows, a multiple of B, those of one picture next to each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.errors import InputError
from helpers.models.decoding import Hypotheses, decode

KeysValues = tuple[Tensor, Tensor]  # each (N, H, S, D/H)


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder. The first four come from the tokenizer and from CLIP, never typed."""

    vocabulary: int  # V
    bos: int  # id of the token that stands before the first word
    pooled_dim: int  # E: 1024 for CLIP RN50
    memory_dim: int = 0  # C: 2048 for CLIP RN50; not read with memory="pooled"
    memory: str = "grid+pooled"  # or "pooled": a memory of length 1, the published ablation
    width: int = 512  # D
    layers: int = 4
    heads: int = 8
    feed_forward: int = 4  # the hidden layer is this many times as wide as D
    positions: int = 64  # the longest caption, its end token included
    dropout: float = 0.1
    tied: bool = True  # the output reads words with the table that embeds them (Press & Wolf 2017, arXiv 1608.05859)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"width={self.width} is not a multiple of heads={self.heads}")
        if self.memory not in ("grid+pooled", "pooled"):
            raise InputError(f"memory={self.memory!r} is not known: choose grid+pooled or pooled")
        if self.memory == "grid+pooled" and self.memory_dim < 1:
            raise InputError("memory='grid+pooled' needs memory_dim, the channels of a grid cell")
        if not 0 <= self.bos < self.vocabulary:
            raise InputError(f"bos={self.bos} is not one of the vocabulary's {self.vocabulary} tokens")


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(Q K^T / sqrt(d)) V, equation 1 of Vaswani et al., and the softmax itself.

    q (..., L, d); k and v (..., S, d). Each of the L queries is compared with all S keys; the softmax turns the likeness
    into shares that sum to 1; out comes the mean of the values, weighted by the shares. mask (L, S): True where query i
    may look at key j.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., L, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)  # exp(-inf) = 0: no share at all
    weights = scores.softmax(dim=-1)  # (..., L, S)
    return weights @ v, weights  # (..., L, d), (..., L, S)


def causal_mask(length: int, total: int, device: torch.device | None = None) -> Tensor:
    """(L, S): True where the last L of S tokens may look: at themselves and back, never ahead."""
    return torch.ones(length, total, dtype=torch.bool, device=device).tril(diagonal=total - length)


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each in its own D/H dimensions (section 3.2.2 of Vaswani et al.).

    Self-attention where keys and values are made of the same sequence as the queries, cross-attention where of another,
    whose width may differ (`memory_dim`).
    """

    def __init__(self, width: int, heads: int, memory_dim: int | None = None):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(memory_dim or width, width)
        self.value = nn.Linear(memory_dim or width, width)
        self.output = nn.Linear(width, width)

    def keys_values(self, x: Tensor) -> KeysValues:
        """What there is to look at: (N, S, D) -> 2 x (N, H, S, D/H)."""
        N, S, _ = x.shape
        k = self.key(x).view(N, S, self.heads, -1).transpose(1, 2)  # (N, H, S, D/H)
        v = self.value(x).view(N, S, self.heads, -1).transpose(1, 2)  # (N, H, S, D/H)
        return k, v

    def forward(
        self, x: Tensor, keys_values: KeysValues, mask: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x (N, L, D) looks at keys and values: (N, L, D), and the weights (N, H, L, S) if asked for."""
        N, L, D = x.shape
        k, v = keys_values
        B = len(k)  # fewer than N where the beams of a picture share its keys: then they are just more queries to them
        q = self.query(x).view(B, N // B * L, self.heads, -1).transpose(1, 2)  # (B, H, N/B*L, D/H)
        if return_attention:
            out, weights = scaled_dot_product_attention(q, k, v, mask)
            weights = weights.unflatten(2, (N // B, L)).transpose(1, 2).flatten(0, 1)  # (N, H, L, S)
        else:  # the same numbers by one fused kernel, which never holds the (L, S) weights in memory
            out, weights = F.scaled_dot_product_attention(q, k, v, attn_mask=mask), None
        return self.output(out.transpose(1, 2).reshape(N, L, D)), weights


class Block(nn.Module):
    """Look at the words so far, look at the picture, think: each part reads a LayerNorm of x and adds to x.

    So x is never overwritten, only added to, and gradients reach the first block undiminished (Xiong et al., figure 1b).
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        D, hidden = config.width, config.feed_forward * config.width
        self.norm1 = nn.LayerNorm(D)
        self.self_attention = MultiHeadAttention(D, config.heads)
        self.norm2 = nn.LayerNorm(D)
        self.cross_attention = MultiHeadAttention(D, config.heads)
        self.norm3 = nn.LayerNorm(D)
        self.feed_forward = nn.Sequential(nn.Linear(D, hidden), nn.GELU(), nn.Linear(hidden, D))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, image: KeysValues, past: KeysValues | None = None, return_attention: bool = False
    ) -> tuple[Tensor, KeysValues, tuple[Tensor | None, Tensor | None]]:
        """x (N, L, D) to (N, L, D), the keys and values of all words so far, and the two attention weights if asked for.

        `image`: the picture's keys and values; `past`: those of the words before x, which x can look at but not change.
        """
        normed = self.norm1(x)
        words = self.self_attention.keys_values(normed)  # 2 x (N, H, L, D/H)
        if past is not None:
            words = torch.cat([past[0], words[0]], dim=2), torch.cat([past[1], words[1]], dim=2)  # 2 x (N, H, S, D/H)
        L, S = x.shape[1], words[0].shape[2]
        mask = causal_mask(L, S, x.device) if L > 1 else None  # the newest word alone may look at all of them
        out, to_words = self.self_attention(normed, words, mask, return_attention)
        x = x + self.dropout(out)
        out, to_image = self.cross_attention(self.norm2(x), image, None, return_attention)
        x = x + self.dropout(out)
        x = x + self.dropout(self.feed_forward(self.norm3(x)))
        return x, words, (to_words, to_image)


@dataclass(frozen=True)
class Cache:
    """What decoding need not compute twice: one pair of keys and values a block."""

    image: list[KeysValues]  # of the picture, (B, H, M+1, D/H): computed once
    words: list[KeysValues | None]  # of the tokens so far, (N, H, S, D/H): grows; None before the first token

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return 0 if self.words[0] is None else self.words[0][0].shape[2]

    def reorder(self, rows: Tensor) -> Cache:
        """Row n becomes the old row rows[n]; repeating rows makes beams of them.

        Rows stay with their picture, so its keys and values are shared, not copied.
        """
        return Cache(self.image, [words and (words[0][rows], words[1][rows]) for words in self.words])


class Attention(NamedTuple):
    """Who looked where: row t is the look that led to token t. Each row sums to 1."""

    words: Tensor  # (B, layers, H, L, L): at the start token and the words before
    image: Tensor  # (B, layers, H, L, M+1): at the grid's cells, row by row, and last at the pooled vector


class DecoderCaptioner(nn.Module):
    """Captions from CLIP features.

    `image` is everywhere a mapping {"grid": (B, M, C), "pooled": (B, E)}; with memory="pooled" the grid may be left out.
    """

    sees = "grid"  # of CLIP

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        D = config.width
        if config.memory == "grid+pooled":
            self.grid_projection = nn.Sequential(nn.Linear(config.memory_dim, D), nn.LayerNorm(D))
        self.pooled_projection = nn.Sequential(nn.Linear(config.pooled_dim, D), nn.LayerNorm(D))
        self.token_embedding = nn.Embedding(config.vocabulary, D)
        self.position_embedding = nn.Embedding(config.positions, D)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(D)
        self.output = None if config.tied else nn.Linear(D, config.vocabulary, bias=False)
        self._initialize()

    def _initialize(self) -> None:
        """As GPT-2: small normal weights, smaller still where the 3 parts of every block add to x."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for last in (block.self_attention.output, block.cross_attention.output, block.feed_forward[2]):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(3 * self.config.layers))

    def image_memory(self, image: Mapping[str, Tensor]) -> Tensor:
        """The tokens to look at: (B, M+1, D), or (B, 1, D) with memory="pooled". Raises InputError on wrong sizes."""
        config = self.config
        _check_size("pooled", image, config.pooled_dim, "an image vector of {} numbers")
        pooled = self.pooled_projection(image["pooled"]).unsqueeze(1)  # (B, 1, D)
        if config.memory == "pooled":
            return pooled
        _check_size("grid", image, config.memory_dim, "grid cells of {} channels")
        return torch.cat([self.grid_projection(image["grid"]), pooled], dim=1)  # (B, M+1, D)

    def start(self, image: Mapping[str, Tensor]) -> Cache:
        """The cache before the first token: each block's keys and values of the picture."""
        memory = self.image_memory(image)
        return Cache([block.cross_attention.keys_values(memory) for block in self.blocks], [None] * len(self.blocks))

    def hidden(
        self, ids: Tensor, cache: Cache, return_attention: bool = False
    ) -> tuple[Tensor, Cache, Attention | None]:
        """Token ids (N, L) that follow those in the cache -> (N, L, D), the cache with them in it, attention if asked for."""
        self._check_length(cache.length + ids.shape[1])
        positions = torch.arange(cache.length, cache.length + ids.shape[1], device=ids.device)  # (L,)
        x = self.dropout(self.token_embedding(ids) + self.position_embedding(positions))  # (N, L, D)
        words, looks = [], []
        for block, image, past in zip(self.blocks, cache.image, cache.words, strict=True):
            x, seen, look = block(x, image, past, return_attention)
            words.append(seen)
            looks.append(look)
        attention = Attention(*(torch.stack(w, dim=1) for w in zip(*looks, strict=True))) if return_attention else None
        return self.norm(x), Cache(cache.image, words), attention

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)"""
        return F.linear(hidden, self.token_embedding.weight if self.output is None else self.output.weight)

    def forward(
        self, image: Mapping[str, Tensor], tokens: Tensor, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Attention]:
        """Logits (B, L, V): row t scores every word as the t-th token, given the picture and the tokens before it.

            tokens     a   dog  runs <end>
            read    <bos>   a   dog  runs
            logits  for a  dog  runs <end>

        With return_attention also the weights: row t is where the decoder looked before it said token t.
        """
        hidden, _, attention = self.hidden(self._shift(tokens), self.start(image), return_attention)
        return (self.logits(hidden), attention) if return_attention else self.logits(hidden)

    def loss(
        self, image: Mapping[str, Tensor], tokens: Tensor, mask: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean cross-entropy of the caption tokens and their end token; each is predicted from the TRUE ones before it.

        tokens (B, L), each row a caption, its end token, then padding; mask (B, L), True on what counts. Padding stands only
        on the right, where no token that counts can look. Logits are computed only where there is a target.
        """
        hidden, _, _ = self.hidden(self._shift(tokens), self.start(image))  # (B, L, D)
        return F.cross_entropy(self.logits(hidden[mask]).float(), tokens[mask], label_smoothing=label_smoothing)

    def step(self, ids: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """The newest ids (N, L) -> the logits (N, V) of the token after them: what decoding.py asks for."""
        hidden, cache, _ = self.hidden(ids, cache)
        return self.logits(hidden[:, -1]), cache

    @torch.no_grad()
    def hypotheses(
        self,
        image: Mapping[str, Tensor],
        *,
        eos: int,
        max_new_tokens: int = 40,
        prompt: Tensor | None = None,
        **decoding: object,
    ) -> Hypotheses:
        """Ids (B, R, T) and scores (B, R). `decoding`: options of decoding.decode (num_beams; do_sample, top_p; ...).

        prompt (P,): ids that every caption begins with. They are read after the start token and are not returned.
        """
        device = image["pooled"].device
        first = torch.tensor([self.config.bos], device=device)
        if prompt is not None:
            first = torch.cat([first, prompt.to(device)])  # (1+P,)
        self._check_length(len(first) - 1 + max_new_tokens)
        first = first.expand(len(image["pooled"]), -1)  # (B, 1+P)
        return decode(self.step, first, self.start(image), eos=eos, max_new_tokens=max_new_tokens, **decoding)

    def generate(
        self,
        image: Mapping[str, Tensor],
        *,
        eos: int,
        max_new_tokens: int = 40,
        prompt: Tensor | None = None,
        **decoding: object,
    ) -> Tensor:
        """Token ids (B, T), ended by `eos` and filled up with it; (B * R, T) with num_return_sequences=R. In eval mode.

        `prompt` and `decoding` as in `hypotheses`.
        """
        found = self.hypotheses(image, eos=eos, max_new_tokens=max_new_tokens, prompt=prompt, **decoding)
        return found.ids.flatten(0, 1)

    def _shift(self, tokens: Tensor) -> Tensor:
        """What is read when `tokens` are to be predicted: the start token, then all but the last."""
        return F.pad(tokens[:, :-1], (1, 0), value=self.config.bos)  # (B, L)

    def _check_length(self, length: int) -> None:
        if length > self.config.positions:
            raise InputError(
                f"{length} caption tokens exceed the decoder's {self.config.positions} positions: shorten the captions "
                f"(max_new_tokens, max_tokens) to {self.config.positions}, a prompt's tokens included"
            )


def _check_size(key: str, image: Mapping[str, Tensor], expected: int, what: str) -> None:
    if key not in image:
        raise InputError(f"the captioner needs image[{key!r}]; this image has only {', '.join(image) or 'nothing'}")
    given = image[key].shape[-1]
    if given != expected:
        raise InputError(f"the captioner takes {what.format(expected)}, this CLIP gives {given}")


def count_parameters(model: DecoderCaptioner) -> dict[str, int]:
    """Counted, never typed: parameters of each part, and how many train."""

    def count(*modules: nn.Module | None) -> int:
        return sum(p.numel() for module in modules if module is not None for p in module.parameters())

    return {
        "image projections": count(model.pooled_projection, getattr(model, "grid_projection", None)),
        "embeddings": count(model.token_embedding, model.position_embedding),
        "blocks": count(model.blocks),
        "output": count(model.norm, model.output),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
