"""Where a captioner with cross-attention looked at each word, and whether that mattered.

Attention says where it looked (Xu et al., "Show, Attend and Tell", 2015, arXiv 1502.03044, drew it over the picture). That
alone explains nothing: a cell may be looked at and ignored. So the overlay is checked by an experiment that needs no
attention: cover a cell of the picture and see how much less likely each word becomes (occlusion sensitivity: Zeiler &
Fergus, "Visualizing and Understanding Convolutional Networks", 2014, arXiv 1311.2901, section 4.2).

    model(image, tokens, return_attention=True) --word_maps--------+
                                                                   +--agreement--> how far the overlay is true: -1 .. 1
    pixels --occlude--> S*S covered pictures --occlusion_maps------+

Letters: B pictures, L tokens, W words, S cells a side of the grid and M = S*S of them, R pixels a side, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from helpers.data.images import open_image
from helpers.data.tokens import Tokens
from helpers.errors import InputError
from helpers.figures import DPI, GREY, INK, WIDTH, Picture, blank_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.captioner import Captioner


class Look(NamedTuple):
    """A caption that a captioner gave to a picture, word by word."""

    caption: str
    words: list[str]  # W
    maps: Tensor  # (W, S, S): where it looked; each map sums to 1
    drops: Tensor  # (W, S, S): log-probability that the word loses when the cell is covered
    pooled: Tensor  # (W,): the share of the look that went to the pooled vector, or a ViT's [CLS]


@torch.no_grad()
def look(captioner: Captioner, picture: Picture) -> Look:
    """Caption one picture greedily, and say of each word where the captioner looked and what it needed to see."""
    encoder, side = captioner.encoder, captioner.encoder.side
    pixels = encoder.pixels(open_image(picture))  # (3, R, R)
    ids = captioner.model.generate(encoder.encode_grid(pixels[None]), eos=captioner.tokens.eos)  # (1, L)
    _, attention = captioner.model(encoder.encode_grid(pixels[None]), ids, return_attention=True)
    words = words_of(captioner.tokens, ids[0])
    if not words:
        raise InputError("the captioner said nothing: there are no words to look at")
    drops = occlusion_maps(captioner.model, encoder.encode_grid, pixels, ids[0], side).cpu()
    maps, pooled = (f(attention.image.cpu(), side, encoder.summary_rows)[0] for f in (word_maps, pooled_share))
    names = [word for word, _ in words]
    return Look(captioner.tokens.decode(ids[0]), names, merge(maps, words), merge(drops, words), merge(pooled, words))


def crop(picture: Picture) -> Image.Image:
    """The square in the middle, which is what CLIP's preprocessing leaves of a picture."""
    image = open_image(picture)
    return ImageOps.fit(image, (min(image.size),) * 2)


def word_maps(attention: Tensor, side: int, first: int = 0) -> Tensor:
    """Where each token's look went among the cells: weights (B, layers, H, L, rows) -> (B, L, S, S), each map sums to 1.

    The cells stand in the rows from `first` on; the mean over layers and heads is taken, without the rows that have no place
    in the picture (the pooled vector, a ViT's [CLS]): see `pooled_share`. Raises InputError where there are too few rows.
    """
    cells = attention.mean(dim=(1, 2))[..., first : first + side * side]  # (B, L, S*S)
    if side < 2:
        raise InputError("no grid cells to map: this captioner looks at the pooled vector only (memory='pooled')")
    if cells.shape[-1] != side * side:
        raise InputError(f"{attention.shape[-1]} rows do not hold a grid of {side} x {side} cells from row {first} on")
    return (cells / cells.sum(dim=-1, keepdim=True)).unflatten(-1, (side, side))  # (B, L, S, S)


def pooled_share(attention: Tensor, side: int, first: int = 0) -> Tensor:
    """The share of each token's look that went to rows without a place, and that no map shows: (B, L)."""
    return 1 - attention.mean(dim=(1, 2))[..., first : first + side * side].sum(dim=-1)


def occlude(pixels: Tensor, side: int, value: Tensor | None = None) -> Tensor:
    """(3, R, R) -> (S*S, 3, R, R): in copy n the square of cell n, row by row, has the colour `value` (3,).

    Which is, unless given, the picture's own mean colour: a grey or black patch would itself be a thing to see, and a word
    could fall because of what was added instead of what was taken away.
    """
    R = pixels.shape[-1]
    value = pixels.mean(dim=(1, 2)) if value is None else value  # (3,)
    band = torch.arange(R, device=pixels.device) * side // R  # (R,): which row (or column) of cells a pixel lies in
    cell = band[:, None] * side + band  # (R, R)
    covered = cell == torch.arange(side * side, device=pixels.device)[:, None, None]  # (S*S, R, R)
    return torch.where(covered[:, None], value[:, None, None], pixels)  # (S*S, 3, R, R)


@torch.no_grad()
def occlusion_maps(
    model: nn.Module,
    encode: Callable[[Tensor], Mapping[str, Tensor]],
    pixels: Tensor,
    tokens: Tensor | Sequence[int],
    side: int,
    batch_size: int = 64,
) -> Tensor:
    """How much log-probability each token loses when a cell is covered: (L, S, S). Negative: it gains.

    pixels (3, R, R) is one picture, tokens (L,) its caption, ended by eos; encode: pixels (N, 3, R, R) -> {"grid": (N, M, C),
    "pooled": (N, E)}. The caption stays the same under every cover (teacher forcing), so that a token is compared with
    itself after the same words. Dropout is off meanwhile.
    """
    tokens = torch.as_tensor(tokens)  # (L,)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        scores = []
        for batch in torch.cat([pixels[None], occlude(pixels, side)]).split(batch_size):  # (N, 3, R, R)
            image = encode(batch)
            ids = tokens.to(image["pooled"].device).expand(len(batch), -1)  # (N, L)
            log_probs = model(image, ids).float().log_softmax(dim=-1)  # (N, L, V)
            scores.append(log_probs.gather(-1, ids[..., None]).squeeze(-1))  # (N, L)
    finally:
        for module in training:  # one by one: parts that were frozen in eval mode stay so
            module.training = True
    plain, covered = torch.cat(scores).split([1, side * side])  # (1, L), (S*S, L)
    return (plain - covered).T.unflatten(-1, (side, side))  # (L, S, S)


def agreement(map_a: Tensor, map_b: Tensor) -> Tensor:
    """Spearman's rank correlation over the cells, (..., S, S) twice -> (...): 1 the same order, 0 none, -1 the reverse.

    Ranks, because shares of a look and drops in log-probability have no scale in common. nan where a map is constant.
    """
    a, b = (ranks - ranks.mean(dim=-1, keepdim=True) for ranks in (_ranks(map_a.flatten(-2)), _ranks(map_b.flatten(-2))))
    return ((a * b).sum(dim=-1) / (a.square().sum(dim=-1) * b.square().sum(dim=-1)).sqrt()).float()


class Truth(NamedTuple):
    """Over P pictures, of the words that hang on the picture: each a mean a picture, (P,)."""

    agreement: np.ndarray  # of the overlay with covering
    chance: np.ndarray  # of another picture's overlay with covering
    hits: np.ndarray  # share of words whose brightest cell is the one that hurts most
    cells: int  # S*S
    draws: np.ndarray  # (R, P): rows of pictures, drawn with replacement, for the intervals

    @property
    def better(self) -> bool:
        """Whether the overlay agrees with covering better than chance does: the paired interval lies above 0."""
        return self._interval(self.agreement - self.chance)[0] > 0

    @property
    def peaked(self) -> bool:
        """Whether the brightest cell is the one that hurts most more often than by chance."""
        return self._interval(self.hits)[0] > 1 / self.cells

    def _interval(self, values: np.ndarray) -> tuple[float, float]:
        if not len(values):
            return math.nan, math.nan
        low, high = np.percentile(values[self.draws].mean(axis=1), [2.5, 97.5])
        return float(low), float(high)

    def __str__(self) -> str:
        if not len(self.agreement):  # as of a captioner that has hardly been trained
            return "Covering changes no word of these captions: there is nothing to compare the overlays with."

        def text(values: np.ndarray) -> str:
            return "{:.2f} [{:.2f}, {:.2f}]".format(values.mean(), *self._interval(values))

        order = "agrees with covering better than" if self.better else "does not agree with covering any better than"
        peak = "more often than by chance" if self.peaked else "no more often than by chance"
        return (f"agreement of the overlay with covering   {text(self.agreement)}  over {len(self.agreement)} pictures\n"
                f"agreement with another picture's overlay {text(self.chance)}\n"
                f"the brightest cell is the one that hurts most: {text(self.hits)} of the words; by chance "
                f"{1 / self.cells:.2f}\n"
                f"Verdict: in the order of all cells the overlay {order} another picture's overlay does;\n"
                f"its brightest cell is the one that hurts most {peak}.")


def truth(looks: Sequence[Look], seed: int = 0) -> Truth:
    """How far overlays are true, over many pictures: bootstrap over pictures, of the words that hang on the picture.

    Those are the words whose probability falls to less than half where the worst cell is covered. Chance is another
    picture's overlay: what the habit of looking at the middle gives. Where no word hangs on its picture, there is no verdict.
    """
    rows = []
    for one, other in zip(looks, [*looks[1:], *looks[:1]], strict=True):
        drops = one.drops.flatten(1)  # (W, S*S)
        hangs = drops.max(dim=1).values > math.log(2)  # (W,)
        if hangs.any():
            swapped = other.maps[torch.arange(len(one.words)) % len(other.words)]  # (W, S, S)
            own, theirs = (agreement(maps, one.drops)[hangs].nanmean().item() for maps in (one.maps, swapped))
            hits = (one.maps.flatten(1).argmax(dim=1) == drops.argmax(dim=1))[hangs].float().mean().item()
            rows.append((own, theirs, hits))
    draws = np.random.default_rng(seed).integers(max(1, len(rows)), size=(1000, len(rows)))
    return Truth(*np.array(rows).reshape(-1, 3).T, cells=looks[0].maps[0].numel(), draws=draws)


def _ranks(x: Tensor) -> Tensor:
    """Ranks from 1 along the last dimension, equal values sharing the mean of theirs: (..., M) -> (..., M), fp64."""
    below = (x[..., None, :] < x[..., :, None]).sum(dim=-1)  # (..., M)
    equal = (x[..., None, :] == x[..., :, None]).sum(dim=-1)  # (..., M), itself included
    return (below + (equal + 1) / 2).double().masked_fill(x.isnan(), math.nan)


def words_of(tokens: Tokens, ids: Sequence[int] | Tensor) -> list[tuple[str, list[int]]]:
    """The words of a caption up to its eos, each with the places (0 .. L-1) of its pieces.

    BERT marks a piece that continues a word (##ing), GPT-2 one that begins a word (Ġrunning); the full stop, which GPT-2
    does not mark, is a word of its own in both.
    """
    ids = [int(token) for token in ids]
    ids = ids[: ids.index(tokens.eos)] if tokens.eos in ids else ids
    is_bert = tokens.tokenizer.sep_token_id is not None
    words: list[list[int]] = []
    for place, piece in enumerate(tokens.tokenizer.convert_ids_to_tokens(ids)):
        begins = not piece.startswith("##") if is_bert else piece.startswith("Ġ") or set(piece) <= set(".,;:!?")
        if begins or not words:
            words.append([])
        words[-1].append(place)
    return [(tokens.tokenizer.decode([ids[place] for place in places]).strip(), places) for places in words]


def merge(maps: Tensor, words: Sequence[tuple[str, list[int]]]) -> Tensor:
    """The mean over each word's pieces, of maps (L, S, S) -> (W, S, S) or of numbers (L,) -> (W,)."""
    return torch.stack([maps[places].mean(dim=0) for _, places in words])


def overlay_grid(
    picture: Picture, words: Sequence[str], maps: Tensor, *, columns: int = 6, notes: Sequence[str] | None = None
) -> Figure:
    """The picture, then once per word with its map (W, S, S) over it: lit and in colour where looked at, else dark and grey.

    So it reads without telling colours apart. Each map is relative to its own highest cell, and what is below 0 counts as 0.
    The picture must be as the model saw it, cropped to a square. `notes`: a few words under each ("agreement 0.62").
    """
    image = open_image(picture)
    if image.width != image.height:
        raise InputError(f"the picture is {image.width} x {image.height}: crop it to the square that the model saw")
    if len(words) != len(maps) or (notes is not None and len(notes) != len(words)):
        raise InputError(f"{len(words)} words need as many maps, not {len(maps)} (and notes, if any)")
    gap, head, foot = 0.14, 0.26, 0.2 if notes else 0.0  # inches: between pictures, of a title, of a note
    cell = (WIDTH - gap * (columns + 1)) / columns
    image = image.resize((round(2 * cell * DPI),) * 2, Image.Resampling.LANCZOS)
    overlays = (_overlay(image, cells) for cells in torch.as_tensor(maps).detach().float().cpu().numpy())
    panels = [("picture", image, ""), *zip(words, overlays, notes or [""] * len(words), strict=True)]
    rows, columns = -(-len(panels) // columns), min(columns, len(panels))
    width, height = gap + columns * (cell + gap), gap + rows * (head + cell + foot + gap)
    with style():
        figure = blank_figure(width, height)
        for number, (word, panel, note) in enumerate(panels):
            row, column = divmod(number, columns)
            left, bottom = gap + column * (cell + gap), height - (row + 1) * (head + cell + foot + gap) + foot
            axes = figure.add_axes((left / width, bottom / height, cell / width, cell / height))
            axes.imshow(panel, interpolation="antialiased")
            axes.set_axis_off()
            title = axes.set_title(word, pad=4, color=INK if number else GREY, parse_math=False)
            under = axes.annotate(note, (0, 0), (0, -4), "axes fraction", "offset points", va="top", size=9, parse_math=False)
            for text in (title, under):  # a long word is set smaller, so that it does not run into the next
                text.set_fontsize(text.get_fontsize() * min(1.0, cell * DPI / max(1, text.get_window_extent().width)))
    return figure


def _overlay(image: Image.Image, cells: np.ndarray) -> Image.Image:
    """`image` as it is where `cells` (S, S) is highest, fading to its dark grey shadow where it is 0."""
    cells = np.nan_to_num(cells).clip(0)
    # Between the centres of cells the light changes evenly: the map has no more detail than its cells
    lit = Image.fromarray(cells / max(cells.max(), 1e-12)).resize(image.size, Image.Resampling.BILINEAR)
    shadow = Image.blend(Image.new("L", image.size, 28), image.convert("L"), 0.33).convert("RGB")
    return Image.composite(image, shadow, Image.fromarray((255 * np.asarray(lit)).round().astype(np.uint8)))
