"""ClipCap's own checkpoints, the .pt files that its authors and users have published: what is in them, by names and shapes.

rmokady/CLIP_prefix_caption saves a bare state dict, without a config: `clip_project.*`, the mapping network, and mostly
`gpt.*`, a whole GPT-2. All sizes are in the shapes but one, the number of attention heads: always 8 in that code.
`helpers.checkpoints.load_clipcap_checkpoint` makes a captioner of it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from helpers.data.tokens import Tokens
from helpers.errors import InputError
from helpers.hub import locate

HEADS = 8
BUFFERS = (".attn.bias", ".attn.masked_bias")  # causal masks that older versions of the transformers library saved along
LAYOUTS = (
    "clip_project.model.{0,2}.* (MLP) or clip_project.{linear.*, prefix_const, transformer.layers.N.*} (transformer), "
    "with or without gpt.*"
)
DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError)


class StopTokens(Tokens):
    """A tokenizer whose captions end at a word: the original trains no end token and stops at the first full stop."""

    def __init__(self, tokenizer, stop: str = "."):
        super().__init__(tokenizer)
        self.stop = stop
        (self.eos,) = self.encode(stop)  # one token in GPT-2's vocabulary

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` up to the first stop and with it; special tokens left out, blanks trimmed."""
        return super().decode(ids) + (self.stop if self.eos in map(int, ids) else "")


def read_original(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a published .pt file, in fp32, without the causal masks. No pickled code is run.

    Raises InputError where the file is missing, damaged, or of another layout.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"the ClipCap checkpoint {path} does not exist: give the .pt file that was downloaded")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no state dict, or damaged ({reason}): download it again") from error
    names = list(state) if isinstance(state, dict) else []
    strange = [name for name in names if not str(name).startswith(("gpt.", "clip_project."))]
    if not names or strange or not all(isinstance(value, Tensor) for value in state.values()):
        found = f"holds {strange[0]}" if strange else f"holds {type(state).__name__}, no tensors by name"
        raise InputError(f"{path} {found}: ClipCap's checkpoints have {LAYOUTS}")
    return {name: value.float() for name, value in state.items() if not name.endswith(BUFFERS)}


def original_sizes(weights: dict[str, Tensor], width: int, path: str | Path) -> dict[str, object]:
    """Fields of ClipCapConfig, read off the shapes; `width` is the language model's.

    Raises InputError where the names are of neither layout, or the mapping was made for another width.
    """
    shape = {name.removeprefix("clip_project."): tuple(value.shape) for name, value in weights.items()}
    if "model.0.weight" in shape and "model.2.weight" in shape:
        (hidden, E), (out, _) = shape["model.0.weight"], shape["model.2.weight"]  # K*D/2, E; K*D
        K, rest = divmod(out, width)
        if rest or hidden != out // 2:
            raise InputError(f"{path}: an MLP of {E}, {hidden}, {out} numbers maps to no prefix of a language model of width "
                             f"{width}: give the one that it was trained with (language_model)")
        return {"image_dim": E, "width": width, "mapping": "mlp", "prefix_length": K}
    if {"linear.weight", "prefix_const", "transformer.layers.0.mlp.fc1.weight"} <= set(shape):
        (spread, E), (K, D) = shape["linear.weight"], shape["prefix_const"]  # C*D, E
        if width != D:
            raise InputError(f"{path} was trained with a language model of width {D}, this one has {width}: give the right "
                             "one (language_model)")
        layers = {int(found[1]) for name in shape if (found := re.match(r"transformer\.layers\.(\d+)\.", name))}
        return {
            "image_dim": E, "width": D, "mapping": "transformer", "prefix_length": K, "clip_length": spread // D,
            "layers": len(layers), "heads": HEADS, "mlp_ratio": shape["transformer.layers.0.mlp.fc1.weight"][0] / D,
        }  # fmt: skip
    found = ", ".join(sorted(name for name in weights if name.startswith("clip_project."))[:3]) or "no clip_project.*"
    raise InputError(f"{path} has {found}: a layout that is not known. ClipCap's checkpoints have {LAYOUTS}")


def original_language_model(weights: dict[str, Tensor], language_model: str | Path, path: str | Path) -> nn.Module:
    """The GPT-2 inside the checkpoint, in eval mode; its config (heads, above all) is that of `language_model`.

    Raises InputError where the two are not of the same size.
    """
    from transformers import AutoConfig, GPT2LMHeadModel

    config = AutoConfig.from_pretrained(**locate(language_model, what="language model"))
    if config.model_type != "gpt2":
        raise InputError(f"{path} holds a GPT-2, {language_model} is a {config.model_type}: give the GPT-2 it began as")
    model = GPT2LMHeadModel(config).eval()
    fill(model, {name.removeprefix("gpt."): value for name, value in weights.items() if name.startswith("gpt.")},
         f"{path}: its GPT-2 does not fit the config of {language_model}", optional={"lm_head.weight"})
    return model


def fill(module: nn.Module, weights: dict[str, Tensor], complaint: str, optional: set[str] = frozenset()) -> None:
    """As load_state_dict, strict but for names in `optional`. Raises InputError: the complaint and the first difference."""
    places = module.state_dict()
    for name in sorted(set(places) | set(weights)):
        if name not in weights and name not in optional:
            raise InputError(f"{complaint}: it lacks {name}")
        if name not in places:
            raise InputError(f"{complaint}: there is no place for its {name}")
        if name in weights and weights[name].shape != places[name].shape:
            raise InputError(f"{complaint}: {name} is {tuple(weights[name].shape)}, not {tuple(places[name].shape)}")
    module.load_state_dict(weights, strict=False)
