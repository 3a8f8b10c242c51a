"""The joint of data and models: a frozen CLIP, a tokenizer and a model that together caption pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from helpers.data.encoders import ClipEncoder
from helpers.data.images import open_image
from helpers.data.tokens import Tokens
from helpers.errors import InputError


@dataclass
class Captioner:
    """`caption(pictures) -> list[str]` for every system of the series.

    `model` offers `loss(image, tokens, mask)`, `generate(image, eos=..., **decoding)` and `sees`: "pooled" or "grid", what of
    CLIP it takes. `config` holds what checkpoints.py writes down: the backbones, which parts of CLIP have learned
    (`learned`), what it was trained on.
    """

    encoder: ClipEncoder
    tokens: Tokens
    model: nn.Module
    config: dict = field(default_factory=dict)

    def caption(self, images: Sequence[Path | str | Image.Image], **decoding: object) -> list[str]:
        """One caption a picture (files or PIL pictures). `decoding` as in `caption_features`."""
        return self.caption_features(self.look(images), **decoding)

    def look(self, images: Sequence[Path | str | Image.Image]) -> Tensor | dict[str, Tensor]:
        """What the model takes of these pictures: pooled vectors (N, E), or {"grid": (N, M, C), "pooled": (N, E)}."""
        encode = self.encoder.encode_grid if self.model.sees == "grid" else self.encoder.encode
        return encode(torch.stack([self.encoder.pixels(open_image(image)) for image in images]))

    def caption_features(
        self,
        features: Tensor | Mapping[str, Tensor],
        *,
        beams: int = 1,
        top_p: float | None = None,
        temperature: float = 1.0,
        max_new_tokens: int = 40,
        batch_size: int = 64,
    ) -> list[str]:
        """One caption for each picture of `features`, as `look` gives them.

        Greedy by default; beam search with `beams` > 1; nucleus sampling with `top_p` (Holtzman et al. 2020) or a
        `temperature` other than 1, drawn from torch's global generator. Raises InputError for values out of range.
        """
        options = decoding_options(beams, top_p, temperature, max_new_tokens)
        captions = []
        self.model.eval()
        for batch in _batches(features, batch_size, self.device):
            ids = self.model.generate(batch, eos=self.tokens.eos, **options)
            captions += [self.tokens.decode(row) for row in ids.tolist()]
        return captions

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def _batches(
    features: Tensor | Mapping[str, Tensor], size: int, device: torch.device
) -> Iterator[Tensor | dict[str, Tensor]]:
    if isinstance(features, Mapping):
        for start in range(0, len(next(iter(features.values()))), size):
            yield {name: part[start : start + size].to(device) for name, part in features.items()}
    else:
        yield from torch.as_tensor(features).to(device).split(size)


def decoding_options(beams: int, top_p: float | None, temperature: float, max_new_tokens: int) -> dict[str, object]:
    """Options of the transformers library's generate(), checked. Raises InputError naming the parameter."""
    if beams < 1 or max_new_tokens < 1:
        raise InputError("beams and max_new_tokens must be at least 1")
    if temperature <= 0:
        raise InputError(f"temperature must be above 0, not {temperature}; towards 0 it becomes greedy decoding")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], not {top_p}")
    sampling = top_p is not None or temperature != 1.0
    if sampling and beams > 1:
        raise InputError("beam search and sampling exclude each other: give beams, or top_p / temperature")
    options: dict[str, object] = {"max_new_tokens": max_new_tokens, "do_sample": sampling, "num_beams": beams}
    if sampling:
        # top_k=0: the library's hidden default of 50 would cut the nucleus.
        options |= {"top_p": 1.0 if top_p is None else top_p, "temperature": temperature, "top_k": 0}
    return options
