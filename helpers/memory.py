"""How much memory training will take, before it is started: what fits a T4's 16 GB, and how large a batch may be.

    parameters   all of them, in fp32, frozen or not; under autocast a copy in half precision beside
    gradients    of those that train
    AdamW        two moments for each of those (Kingma & Ba 2015; Loshchilov & Hutter 2019)
    activations  what the forward pass keeps for the backward pass: measured, not guessed
    logits       a number a word of the vocabulary and caption token, and its gradient, which no forward pass keeps

Activations are measured on the machine at hand by running the loss on batches of 1 and of 2 with every tensor that autograd
saves counted once (torch.autograd.graph.saved_tensors_hooks); from there they grow linearly with the batch. A model on torch's
meta device, which has shapes and no numbers, is measured as well as a real one: published backbones need not be here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from helpers.errors import InputError

BYTES = {"32-true": 4, "16-mixed": 2, "bf16-mixed": 2}  # a number of the activations, by Lightning's name of a precision
CELLS = 49  # rows of the grid that a model sees: 7 x 7, RN50's; 257 for ViT-L/14


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. What is not counted: a GPU's own context and the allocator's gaps (together a few hundred MB to 1 GB), the
    encoder's activations where CLIP learns along, and what the kernels need in passing."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        names = {"optimizer": "AdamW's moments"}
        rows = {names.get(field.name, field.name): getattr(self, field.name) for field in fields(self)} | {"total": self.total}
        return "\n".join(f"{name:<16} {count / 1e9:7.2f} GB" for name, count in rows.items())


def training_memory(
    model: nn.Module,
    batch_size: int,
    length: int,
    *,
    bytes_per_number: int | str = 4,
    cells: int = CELLS,
    loss: Callable[[int], Tensor] | None = None,
) -> MemoryEstimate:
    """What a step of AdamW on batch_size captions of `length` tokens takes, with what of the model trains now.

    bytes_per_number: of the activations: 4, 2 (autocast), or the name of a precision (run.precision). Measured in fp32 and
    scaled: autocast keeps a few of them in fp32 all the same, so there the truth is somewhat above.

    loss: batch size -> the loss of such a batch, for a model that is no captioner; the captioners of the series (ClipCap,
    DecoderCaptioner, CrossAttentionCaptioner) are given random pictures, of `cells` rows where they see a grid, and tokens. A
    GPU's attention kernels save other tensors than the CPU's.

    Raises InputError for sizes below 1, an unknown precision, a model that is neither, and captions too long for it.
    """
    if batch_size < 1 or length < 1:
        raise InputError(f"batch_size={batch_size} and length={length} must be at least 1")
    number = BYTES.get(str(bytes_per_number), bytes_per_number)
    if number not in (2, 4):
        raise InputError(f"bytes_per_number={bytes_per_number!r} is not known: give 4, 2, or one of {', '.join(BYTES)}")
    captions = loss is None
    if loss is None:
        loss = caption_loss(model, length, cells)
    one, two = (saved_bytes(model, lambda size=size: loss(size)) for size in (1, 2))
    each = two - one
    weights = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return MemoryEstimate(
        parameters=weights * (4 if number == 4 else 4 + number),
        gradients=trained * 4,
        optimizer=trained * 8,
        activations=(one - each + batch_size * each) * number // 4,
        logits=2 * batch_size * length * _vocabulary(model) * 4 if captions else 0,  # cross-entropy is computed in fp32
    )


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd saves while `forward()` computes a loss in training mode, the model's own weights left out.

    Storages are counted, each once: tensors that share one (views, or the same tensor saved twice) take its memory once.
    The model's mode and torch's CPU generator are left as they were, and no gradient is computed.
    """
    # By the storage's own address, not that of its numbers, which on the meta device is 0 for all.
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that none is freed and its place given to another

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    modes = {module: module.training for module in model.modules()}
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]), hooks, every_token_counts():
        try:
            model.train()
            result = forward()
            total = sum(storage.nbytes() for storage in saved.values())
            del result
        finally:
            for module, mode in modes.items():
                module.training = mode
    return total


@contextmanager
def every_token_counts() -> Iterator[None]:
    """On the meta device a mask has no values: within, it is taken to be True everywhere. Elsewhere nothing changes."""
    from torch.fx.experimental import _config

    with _config.patch(meta_nonzero_assume_all_nonzero=True):
        yield


def caption_loss(model: nn.Module, length: int, cells: int = CELLS) -> Callable[[int], Tensor]:
    """The loss of random pictures and captions of `length` tokens, as the captioners of the series compute it."""
    config = getattr(model, "config", None)
    if not (hasattr(model, "loss") and hasattr(model, "sees")):
        raise InputError(f"{type(model).__name__} is no captioner of the series: say how its loss is computed (loss=...)")
    device = next(model.parameters()).device
    sizes = vars(config)
    pooled = sizes.get("image_dim") or sizes.get("pooled_dim", 0)  # 0: looks at the grid alone
    channels = sizes.get("grid_dim") or sizes.get("memory_dim", 0)

    def loss(size: int) -> Tensor:
        image: Tensor | dict[str, Tensor] = torch.randn(size, pooled, device=device)
        if model.sees == "grid":
            image = {"grid": torch.randn(size, cells, channels, device=device), "pooled": image}
        tokens = torch.randint(_vocabulary(model), (size, length), device=device)
        return model.loss(image, tokens, torch.ones_like(tokens, dtype=torch.bool))

    return loss


def _vocabulary(model: nn.Module) -> int:
    """V: rows of the table that words are read with."""
    if hasattr(model, "gpt"):
        return model.gpt.get_output_embeddings().weight.shape[0]
    return model.config.vocabulary
