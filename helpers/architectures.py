"""The published backbones at their true sizes on torch's meta device: shapes without numbers, so nothing is downloaded.

What lies in a file or folder here is read from there instead; of a language model its config.json is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from helpers.errors import InputError
from helpers.hub import find_file

# OpenAI's models, arguments of clip.model.CLIP as its build_model() reads them off the weights: embed_dim, pixels a side,
# vision layers, vision width, patch (None: a ModifiedResNet), width of the text tower (64 a head, 12 layers). And about how
# many MB the download is, as for all below: published file sizes.
CLIPS = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512, 256),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512, 292),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640, 422),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768, 661),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024, 1320),
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 354),
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 351),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768, 933),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768, 934),
}
CLIP_TEXT = {"context_length": 77, "vocab_size": 49_408, "transformer_layers": 12}
# Arguments of the transformers library's configurations (what they leave out is their default), and MB of the weights.
GPT2S = {
    "gpt2": ({}, 548),
    "distilgpt2": ({"n_layer": 6}, 353),
    "gpt2-medium": ({"n_embd": 1024, "n_layer": 24, "n_head": 16}, 1520),
    "gpt2-large": ({"n_embd": 1280, "n_layer": 36, "n_head": 20}, 3250),
}
TEXTS = {"distilbert-base-uncased": ("distilbert", 268), "bert-base-uncased": ("bert", 440)}
RESNET50_MB = 103
WORD_PIECES = (30_522, 101)  # of bert-base-uncased and distilbert-base-uncased: how many, and the id of [CLS]
GPT2_TOKENS = (50_257, 50_256)


@dataclass(frozen=True)
class Eye:
    """A CLIP's sizes and its network; `clip` on the meta device."""

    clip: nn.Module
    dim: int  # E
    grid: tuple[int, int]  # M, C
    resolution: int
    download: int  # bytes; 0 where it is here


@dataclass(frozen=True)
class Words:
    """What must be known of a tokenizer to build a captioner: how many tokens, and which one starts."""

    count: int
    bos: int

    def __len__(self) -> int:
        return self.count


def meta_clip(name: str) -> Eye:
    """OpenAI's CLIP by name, or a file's. Raises InputError for another name or a file that is no CLIP."""
    from helpers.data.encoders import clip, grid_size, load_clip

    download = 0
    if name in CLIPS:
        dim, resolution, layers, width, patch, text, megabytes = CLIPS[name]
        with torch.device("meta"):
            net = clip.model.CLIP(dim, resolution, layers, width, patch, transformer_width=text, transformer_heads=text // 64,
                                  **CLIP_TEXT)  # fmt: skip
        if not (Path.home() / ".cache" / "clip" / Path(clip.clip._MODELS[name]).name).is_file():
            download = megabytes * 10**6
    else:
        net = load_clip(name).model.to("meta")
    net.requires_grad_(False).eval()
    return Eye(net, int(net.visual.output_dim), grid_size(net.visual), int(net.visual.input_resolution), download)


def meta_language_model(name: str) -> tuple[nn.Module, Words, int]:
    """A causal language model, its tokens, and the bytes of its download. Raises InputError for a name not known here."""
    from transformers import AutoModelForCausalLM, GPT2Config

    config, words, download = _local_config(name), None, 0
    if config is None:
        if name not in GPT2S:
            raise InputError(f"the sizes of the language model {name!r} are not known here: give one of {', '.join(GPT2S)}, "
                             "or a folder written by save_pretrained()")
        sizes, megabytes = GPT2S[name]
        config, words, download = GPT2Config(**sizes), Words(*GPT2_TOKENS), _unless_cached(name, megabytes)
    else:
        words = Words(config.vocab_size, config.bos_token_id or 0)
    with torch.device("meta"):  # eager: the other kinds of attention look into the mask, which has no numbers
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval(), words, download


def meta_text_tower(name: str) -> tuple[nn.Module, int]:
    """A text tower, and the bytes of its download. Raises InputError for a name not known here."""
    from transformers import AutoConfig

    from helpers.models.towers import TextTower

    config, download = _local_config(name), 0
    if config is None:
        if name not in TEXTS:
            raise InputError(f"the sizes of the text tower {name!r} are not known here: give one of {', '.join(TEXTS)}, or a "
                             "folder written by save_pretrained()")
        model_type, megabytes = TEXTS[name]
        config, download = AutoConfig.for_model(model_type), _unless_cached(name, megabytes)
    with torch.device("meta"):
        return TextTower.build(config), download


def meta_image_tower(name: str) -> tuple[nn.Module, int]:
    """A dual encoder's image tower, and the bytes of its download. Raises InputError for a name not known here."""
    from helpers.models.towers import ImageTower

    if name.removesuffix("-random") in ("resnet50", "small"):
        with torch.device("meta"):
            return ImageTower(name.removesuffix("-random")), RESNET50_MB * 10**6 * (name == "resnet50")
    from helpers.contrast import ClipTower, find_image_tower  # which brings Lightning along

    if name in CLIPS:
        eye = meta_clip(name)
        return ClipTower(eye.clip.visual), eye.download
    return find_image_tower(name).to("meta"), 0


def tokens_of(name: str) -> tuple[Words, int]:
    """The tokens of a captioner without a language model, and the bytes of their download."""
    if find_file(name):
        from helpers.data.tokens import load_tokens

        tokens = load_tokens(name)
        return Words(len(tokens), tokens.bos), 0
    if name in TEXTS:
        return Words(*WORD_PIECES), 10**6
    raise InputError(f"the tokenizer {name!r} is not known here: give one of {', '.join(TEXTS)}, or a folder")


def _local_config(name: str):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(find_file(name), local_files_only=True) if find_file(name) else None


def _unless_cached(name: str, megabytes: int) -> int:
    from huggingface_hub import try_to_load_from_cache

    return 0 if isinstance(try_to_load_from_cache(name, "model.safetensors"), str) else megabytes * 10**6
