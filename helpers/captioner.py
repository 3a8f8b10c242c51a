"""The joint of data and models: a frozen CLIP, a tokenizer and a model that together caption pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from helpers.data.encoders import ClipEncoder
from helpers.data.images import open_image
from helpers.data.tokens import Tokens
from helpers.errors import InputError

LOOK = 64  # pictures that go through CLIP at once
DRAWS = 5  # rounds of sampling, at most, to find different captions
# The transformers library warns that n-grams of the prefix are not blocked; pseudo-words have none.
warnings.filterwarnings("ignore", message="Passing .no_repeat_ngram_size. with .inputs_embeds.")


@dataclass
class Captioner:
    """`caption(pictures) -> list[str]` for every system of the series; several captions a picture with num_return.

    `model` offers `loss(image, tokens, mask)`, `generate(image, eos=..., **decoding)` and `sees`: "pooled" or "grid", what of
    CLIP it takes. `config` holds what checkpoints.py writes down: the backbones, which parts of CLIP have learned
    (`learned`), what it was trained on.
    """

    encoder: ClipEncoder
    tokens: Tokens
    model: nn.Module
    config: dict = field(default_factory=dict)

    def caption(self, images: Sequence[Path | str | Image.Image], **decoding: object) -> list[str] | list[list[str]]:
        """One caption a picture (files or PIL pictures), or several. `decoding` as in `caption_features`."""
        return self.caption_features(self.look(images), **decoding)

    def look(self, images: Sequence[Path | str | Image.Image]) -> Tensor | dict[str, Tensor]:
        """What the model takes of these pictures: pooled vectors (N, E), or {"grid": (N, M, C), "pooled": (N, E)}."""
        encode = self.encoder.encode_grid if self.model.sees == "grid" else self.encoder.encode
        parts = []
        for start in range(0, len(images), LOOK):
            pixels = [self.encoder.pixels(open_image(image)) for image in images[start : start + LOOK]]
            parts.append(encode(torch.stack(pixels)))
        if isinstance(parts[0], dict):
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return torch.cat(parts)

    def caption_features(
        self,
        features: Tensor | Mapping[str, Tensor],
        *,
        num_return: int = 1,
        beams: int = 1,
        top_p: float | None = None,
        temperature: float = 1.0,
        no_repeat_ngram: int = 0,
        min_new_tokens: int = 0,
        max_new_tokens: int = 40,
        prompt: str = "",
        batch_size: int = 64,
    ) -> list[str] | list[list[str]]:
        """One caption for each picture of `features`, as `look` gives them: list[str].

        Greedy by default; beam search with `beams` > 1; nucleus sampling with `top_p` (Holtzman et al. 2020) or a
        `temperature` other than 1, drawn from torch's global generator. Raises InputError for values out of range.

        num_return > 1: list[list[str]], up to that many different captions a picture. They are beam search's hypotheses,
        best first, of at least num_return beams; when sampling, what was drawn, in that order, and drawn again
        (DRAWS times at most) where draws coincide. A picture with fewer different captions gives fewer, and always one.

        no_repeat_ngram: no run of this many tokens comes twice in a caption (0: any may). prompt: the words that every
        caption begins with; at least min_new_tokens tokens follow before the end, at most max_new_tokens with it.
        """
        options = decoding_options(beams, top_p, temperature, max_new_tokens, num_return, no_repeat_ngram, min_new_tokens)
        start = self._prompt_ids(prompt)
        options |= {"eos": self.tokens.eos}
        if start:
            options["prompt"] = torch.tensor(start, device=self.device)

        def text(row: list[int]) -> str:
            said, opening = self.tokens.decode(start + row), self.tokens.decode(start)
            return prompt.strip() + said.removeprefix(opening) if start else said

        captions = []
        self.model.eval()
        for batch in _batches(features, batch_size, self.device):
            if num_return == 1:
                captions += map(text, self.model.generate(batch, **options).tolist())
            else:
                captions += self._several(batch, num_return, options, text)
        return captions

    def _several(
        self, batch: Tensor | dict[str, Tensor], wanted: int, options: dict, text: Callable[[list[int]], str]
    ) -> list[list[str]]:
        """Up to `wanted` different captions for each picture of `batch`, empty ones left out where there are others."""
        nothing = text([])
        found: list[dict[str, None]] = [{} for _ in range(_length(batch))]  # as a set, but in the order found
        lacking = list(range(len(found)))
        for _ in range(DRAWS if options["do_sample"] else 1):
            ids = self.model.generate(_rows(batch, lacking), **options).view(len(lacking), options["num_return_sequences"], -1)
            for n, rows in zip(lacking, ids.tolist(), strict=True):
                found[n] |= dict.fromkeys(said for said in map(text, rows) if said != nothing)
            lacking = [n for n in lacking if len(found[n]) < wanted]
            if not lacking:
                break
        return [list(texts)[:wanted] or [nothing] for texts in found]

    def _prompt_ids(self, prompt: str) -> list[int]:
        ids = self.tokens.encode(prompt.strip()) if prompt.strip() else []  # a blank at the end would be a token of its own
        if self.tokens.eos in ids:
            raise InputError(f"prompt={prompt!r} holds the token that ends a caption: leave it out")
        return ids

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def _batches(
    features: Tensor | Mapping[str, Tensor], size: int, device: torch.device
) -> Iterator[Tensor | dict[str, Tensor]]:
    if isinstance(features, Mapping):
        for start in range(0, _length(features), size):
            yield {name: part[start : start + size].to(device) for name, part in features.items()}
    else:
        yield from torch.as_tensor(features).to(device).split(size)


def _length(features: Tensor | Mapping[str, Tensor]) -> int:
    return len(next(iter(features.values())) if isinstance(features, Mapping) else features)


def _rows(features: Tensor | Mapping[str, Tensor], rows: list[int]) -> Tensor | dict[str, Tensor]:
    return {name: part[rows] for name, part in features.items()} if isinstance(features, Mapping) else features[rows]


def decoding_options(
    beams: int = 1,
    top_p: float | None = None,
    temperature: float = 1.0,
    max_new_tokens: int = 40,
    num_return: int = 1,
    no_repeat_ngram: int = 0,
    min_new_tokens: int = 0,
) -> dict[str, object]:
    """Options of the transformers library's generate(), checked. Raises InputError naming the parameter."""
    if beams < 1 or max_new_tokens < 1:
        raise InputError("beams and max_new_tokens must be at least 1")
    if num_return < 1:
        raise InputError(f"num_return must be at least 1, not {num_return}: it is the number of captions a picture")
    if no_repeat_ngram < 0:
        raise InputError(f"no_repeat_ngram must be at least 0 (0: anything may come again), not {no_repeat_ngram}")
    if not 0 <= min_new_tokens <= max_new_tokens:
        raise InputError(f"min_new_tokens must lie between 0 and max_new_tokens={max_new_tokens}, not {min_new_tokens}")
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
    if num_return > 1 and not sampling:
        options["num_beams"] = max(beams, num_return)
    if num_return > 1:
        # All beams are asked for: where two of them spell the same words, the next one moves up.
        options["num_return_sequences"] = num_return if sampling else options["num_beams"]
    if no_repeat_ngram:
        options["no_repeat_ngram_size"] = no_repeat_ngram
    if min_new_tokens:
        options["min_new_tokens"] = min_new_tokens
    return options
