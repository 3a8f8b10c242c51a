"""ClipCap: a mapping network turns what CLIP sees into a few pseudo-words in front of a causal language model.

Mokady, Hertz, Bermano: "ClipCap: CLIP Prefix for Image Captioning", 2021 (arXiv 2111.09734).

    CLIP vector (B, E) --mapping--> prefix (B, K, D) --+
                                                       +--> language model --> logits
    caption tokens (B, L) --embedding--> (B, L, D) ----+

The mapping networks are in mappings.py; the language model stays frozen, learns along, or learns in part (`tuning`).

Letters: B batch, E size of the CLIP vector, M cells of CLIP's grid, C channels of a cell, K prefix length, L caption tokens
with the end token, P prompt tokens, D model width, V words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.errors import InputError
from helpers.models.mappings import MAPPINGS, TransformerMapping

__all__ = ["TUNINGS", "ClipCap", "ClipCapConfig", "TransformerMapping", "count_parameters"]

TUNINGS = ("frozen", "all", "blocks", "lora")


@dataclass(frozen=True)
class ClipCapConfig:
    """Which mapping network, how large, and what of the language model trains.

    The defaults are the paper's (section 3.2; 8 layers, 8 heads, 10 + 10 positions) with a frozen language model.
    """

    image_dim: int  # E: comes from the CLIP model, never typed
    width: int  # D: comes from the language model, never typed
    prefix_length: int = 10  # K: pseudo-words the language model sees
    clip_length: int = 10  # positions the CLIP vector is spread over inside the transformer mapping
    layers: int = 8  # this and the next two: of the mappings that have attention
    heads: int = 8
    mlp_ratio: float = 2.0
    mapping: str = "transformer"  # one of mappings.MAPPINGS
    grid_dim: int = 0  # C: channels of a cell of CLIP's grid; read by "cross-attention" alone
    normalize: bool = False  # CLIP's vector to length 1 before the mapping
    tuning: str = "frozen"  # of the language model: nothing, "all", all but the first "blocks", or "lora" beside it
    frozen_blocks: int = 0  # with tuning="blocks": so many stay frozen, the embeddings too
    lora_rank: int = 8  # with tuning="lora"

    def __post_init__(self) -> None:
        if self.mapping not in MAPPINGS:
            raise InputError(f"mapping={self.mapping!r} is not known: choose one of {', '.join(MAPPINGS)}")
        if self.tuning not in TUNINGS:
            raise InputError(f"tuning={self.tuning!r} is not known: choose one of {', '.join(TUNINGS)}")
        if self.mapping not in ("mlp", "linear") and self.width % self.heads:
            raise InputError(f"the language model's width {self.width} is not a multiple of heads={self.heads}")
        if self.sees == "grid" and self.grid_dim < 1:
            raise InputError("mapping='cross-attention' needs grid_dim, the channels of a cell of CLIP's grid (2048 for RN50)")
        if self.sees == "grid" and self.normalize:
            raise InputError("normalize=True is for mappings of the pooled vector; cross-attention has a LayerNorm for it")
        if min(self.prefix_length, self.lora_rank) < 1:
            raise InputError(f"prefix_length={self.prefix_length} and lora_rank={self.lora_rank} must be at least 1")

    @property
    def sees(self) -> str:
        """What of CLIP the mapping takes: "grid", with the pooled vector, or "pooled"."""
        return "grid" if self.mapping == "cross-attention" else "pooled"


class ClipCap(nn.Module):
    """A mapping network in front of a causal language model of the transformers library that takes `inputs_embeds`.

    Where the language model is frozen its parameters get no gradient, and it stays in eval mode (no dropout) also while the
    mapping trains.
    """

    def __init__(self, config: ClipCapConfig, language_model: nn.Module):
        super().__init__()
        _check_language_model(language_model)
        width = language_model.get_input_embeddings().weight.shape[1]
        if config.width != width:
            raise InputError(f"the captioner was made for a language model of width {config.width}, this one has {width}")
        self.config = config
        self.clip_project = MAPPINGS[config.mapping](config)
        self.gpt = tune(language_model, config).eval()
        # Some checkpoints bring habits along (a repetition penalty, sampling): decode by what generate() is asked for alone.
        self.gpt.generation_config = type(self.gpt.generation_config)()

    @classmethod
    def build(cls, image_dim: int, language_model: nn.Module, **options: object) -> ClipCap:
        """A captioner whose sizes are read off the language model; `options` are fields of ClipCapConfig."""
        width = language_model.get_input_embeddings().weight.shape[1]
        return cls(ClipCapConfig(image_dim=image_dim, width=width, **options), language_model)

    @property
    def sees(self) -> str:
        """What of CLIP it takes: "pooled" (B, E), or "grid": {"grid": (B, M, C), "pooled": (B, E)}."""
        return self.config.sees

    def train(self, mode: bool = True) -> ClipCap:
        """As nn.Module, but a frozen language model never leaves eval mode."""
        super().train(mode)
        if self.config.tuning == "frozen":
            self.gpt.eval()
        return self

    def prefix(self, image: Tensor | Mapping[str, Tensor]) -> Tensor:
        """What CLIP gives to pseudo-words (B, K, D). Raises InputError where it is not what the captioner was made for.

        image: CLIP vectors (B, E), or {"grid": (B, M, C), "pooled": (B, E)} with mapping="cross-attention".
        """
        if isinstance(image, Mapping) != (self.sees == "grid"):
            wanted = '{"grid": (B, M, C), "pooled": (B, E)}' if self.sees == "grid" else "CLIP vectors (B, E)"
            raise InputError(f"a captioner with mapping={self.config.mapping!r} takes {wanted}, not {type(image).__name__}")
        pooled = image["pooled"] if self.sees == "grid" else image
        if pooled.shape[-1] != self.config.image_dim:
            raise InputError(
                f"the captioner takes image vectors of {self.config.image_dim} numbers, this CLIP gives {pooled.shape[-1]}"
            )
        if self.sees == "grid" and image["grid"].shape[-1] != self.config.grid_dim:
            raise InputError(
                f"the captioner takes grid cells of {self.config.grid_dim} channels, this CLIP gives {image['grid'].shape[-1]}"
            )
        return self.clip_project(F.normalize(image, dim=-1) if self.config.normalize else image)

    def loss(
        self, image: Tensor | Mapping[str, Tensor], tokens: Tensor, mask: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean cross-entropy of the caption tokens and their end token, and of nothing else (paper, equation 2).

        image as in `prefix`; tokens (B, L), each row a caption, its end token, then padding; mask (B, L), True on what counts.

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
    def generate(
        self,
        image: Tensor | Mapping[str, Tensor],
        *,
        eos: int,
        prompt: Tensor | None = None,
        max_new_tokens: int = 40,
        **decoding: object,
    ) -> Tensor:
        """Token ids of one caption a picture: image as in `prefix` -> (B, T), ended by `eos` and filled up with it.

        prompt: ids (P,) of words that every caption has to go on from; they are not in what is returned.
        `decoding` goes to the transformers library's generate(): num_beams; do_sample, top_p, temperature; ...
        Raises InputError where prefix, prompt and new tokens exceed the language model's positions.
        """
        self._check_length(max_new_tokens, 0 if prompt is None else prompt.numel())
        inputs = self.prefix(image)  # (B, K, D)
        if prompt is not None:
            inputs = torch.cat([inputs, self._embed_prompt(prompt).expand(len(inputs), -1, -1)], dim=1)  # (B, K+P, D)
        return self.gpt.generate(
            inputs_embeds=inputs,
            attention_mask=inputs.new_ones(inputs.shape[:2], dtype=torch.long),
            max_new_tokens=max_new_tokens,  # max_length would count the prefix
            eos_token_id=eos,
            pad_token_id=eos,
            **decoding,
        )

    def _embed_prompt(self, prompt: Tensor) -> Tensor:
        """(P,) -> (P, D)"""
        table = self.gpt.get_input_embeddings()
        if prompt.dim() != 1:
            raise InputError(f"prompt must hold the ids of one text, shape (P,), not {tuple(prompt.shape)}")
        if prompt.numel() and not 0 <= prompt.min() <= prompt.max() < len(table.weight):
            raise InputError(f"prompt holds the id {int(prompt.max())}, the language model has {len(table.weight)} tokens: "
                             "encode it with the language model's own tokenizer")
        return table(prompt.to(table.weight.device, torch.long))

    def _check_length(self, new_tokens: int, prompt: int = 0) -> None:
        room = getattr(self.gpt.config, "max_position_embeddings", None)  # GPT-2's n_positions answers to this name too
        taken = self.config.prefix_length + prompt
        if room is not None and taken + new_tokens > room:
            before = f"prefix of {self.config.prefix_length}" + (f" + prompt of {prompt}" if prompt else "")
            raise InputError(
                f"{before} + {new_tokens} caption tokens exceed the language model's {room} "
                f"positions: shorten the captions (max_new_tokens, max_tokens) to {max(0, room - taken)}"
            )


def tune(language_model: nn.Module, config: ClipCapConfig) -> nn.Module:
    """The language model, in place, with gradients only where config.tuning lets it learn.

    blocks: all but the embeddings and the first `frozen_blocks` blocks: the later blocks, and the last LayerNorm.
    lora:   low-rank matrices beside the attention's weights, which stay frozen (Hu et al. 2021, arXiv 2106.09685).

    Raises InputError where frozen_blocks exceeds the model's blocks, or where peft is not installed.
    """
    language_model.requires_grad_(config.tuning in ("all", "blocks"))
    if config.tuning == "blocks":
        blocks = _blocks(language_model)
        if not 0 <= config.frozen_blocks <= len(blocks):
            raise InputError(f"frozen_blocks={config.frozen_blocks}: the language model has {len(blocks)} blocks, so "
                             f"0 to {len(blocks)} of them can be frozen")
        embeddings = [module for module in language_model.modules() if isinstance(module, nn.Embedding)]
        for module in (*embeddings, language_model.get_output_embeddings(), *blocks[: config.frozen_blocks]):
            module.requires_grad_(False)
    elif config.tuning == "lora":
        _add_lora(language_model, config.lora_rank)
    return language_model


def _blocks(language_model: nn.Module) -> nn.ModuleList:
    """The stack of blocks, whatever its name: `transformer.h`, `model.layers`, `model.decoder.layers`, ..."""
    depth = language_model.config.num_hidden_layers
    stacks = (m for m in language_model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    return next(stacks)


def _add_lora(language_model: nn.Module, rank: int) -> None:
    """Adapters in place, so that the language model keeps its class and generates as before."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL
    except ImportError as error:
        raise InputError("tuning='lora' needs the package peft: pip install peft, or choose tuning='blocks'") from error
    from transformers.pytorch_utils import Conv1D

    adapters = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=USUAL.get(language_model.config.model_type, "all-linear"),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in language_model.modules()),  # GPT-2's weights lie so
    )
    inject_adapter_in_model(adapters, language_model)


def _check_language_model(language_model: nn.Module) -> None:
    """Raises InputError for a model that ClipCap would run wrongly without a word."""
    config = language_model.config
    if getattr(config, "is_encoder_decoder", False) or language_model.get_output_embeddings() is None:
        raise InputError(f"{type(language_model).__name__} is no causal language model: give one such as gpt2")
    # The loss reads logits off the last hidden state by the output embedding alone.
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise InputError(f"the language model bends its logits ({name}={getattr(config, name)}), which the loss does not "
                             "follow: choose another, such as gpt2")


def count_parameters(model: ClipCap) -> dict[str, int]:
    """Counted, never typed: parameters of the mapping network, of the language model, and how many train."""
    return {
        "mapping": sum(p.numel() for p in model.clip_project.parameters()),
        "language model": sum(p.numel() for p in model.gpt.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
