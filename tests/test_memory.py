"""Memory of training: counted by hand where that can be done, and within a T4 for the paper's model."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from helpers.errors import InputError
from helpers.memory import saved_bytes, training_memory
from helpers.models.clipcap import ClipCap, ClipCapConfig
from helpers.models.decoder import DecoderCaptioner, DecoderConfig


def small(**options) -> ClipCap:
    words = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    return ClipCap(ClipCapConfig(**({"image_dim": 8, "width": 16, "layers": 1, "heads": 2} | options)), words)


def test_one_linear_by_hand():
    model = nn.Linear(6, 3)
    inputs = {size: torch.randn(size, 6) for size in (1, 2, 8)}

    def loss(size):
        return model(inputs[size]).square().sum()

    # Saved: the input (6 numbers a row), for the weight's gradient, and the output (3), for the square's.
    assert saved_bytes(model, lambda: loss(8)) == 8 * (6 + 3) * 4
    memory = training_memory(model, 100, 1, loss=loss)
    assert memory.parameters == memory.gradients == 21 * 4 and memory.optimizer == 21 * 8
    assert memory.activations == 100 * 9 * 4 and memory.logits == 0
    assert memory.total == 21 * 16 + 3600


def test_a_tensor_is_counted_once_and_a_frozen_layer_keeps_no_input():
    model, x = nn.Linear(4, 4), torch.randn(5, 4)
    assert saved_bytes(model, lambda: (model(x).view(-1) * model(x[:]).view(-1)).sum()) == (20 + 20 + 20) * 4
    model.requires_grad_(False)
    assert saved_bytes(model, lambda: model(x).sum()) == 0


def test_in_half_precision_activations_take_half():
    model = small()
    whole = training_memory(model, 4, 6)
    for half in (training_memory(model, 4, 6, bytes_per_number=2), training_memory(model, 4, 6, bytes_per_number="16-mixed")):
        assert half.activations == whole.activations // 2
        assert (half.gradients, half.optimizer, half.logits) == (whole.gradients, whole.optimizer, whole.logits)
        assert half.parameters == whole.parameters * 6 // 4
    assert training_memory(model, 4, 6, bytes_per_number="32-true") == whole


def test_what_trains_counts():
    frozen, tuned = training_memory(small(), 4, 6), training_memory(small(tuning="all"), 4, 6)
    mapping = sum(p.numel() for p in small().clip_project.parameters())
    words = sum(p.numel() for p in small().gpt.parameters())
    assert (frozen.gradients, frozen.optimizer) == (mapping * 4, mapping * 8)
    assert tuned.gradients == (mapping + words) * 4 and tuned.activations > frozen.activations
    assert frozen.logits == 2 * 4 * 6 * 50 * 4


@pytest.mark.parametrize("model", [
    lambda: small(mapping="cross-attention", grid_dim=12),
    lambda: DecoderCaptioner(DecoderConfig(40, 0, 8, 12, width=16, layers=1, heads=2)),
    lambda: DecoderCaptioner(DecoderConfig(40, 0, 8, memory="pooled", width=16, layers=1, heads=2)),
])  # fmt: skip
def test_is_right_for_every_batch_size(model):
    """Extrapolated from 1 and 2, and measured: the same at 16, to a percent."""
    from helpers.memory import caption_loss

    model = model()
    measured = saved_bytes(model, lambda: caption_loss(model, 7)(16))
    assert training_memory(model, 16, 7).activations == pytest.approx(measured, rel=0.01)


def test_leaves_no_trace():
    model = small().eval()
    state = torch.random.get_rng_state()
    training_memory(model, 2, 5)
    assert torch.equal(torch.random.get_rng_state(), state) and not any(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_gpt2_and_the_papers_mapping_fit_a_t4():
    model = ClipCap(ClipCapConfig(image_dim=512, width=768), GPT2LMHeadModel(GPT2Config()))
    memory, double = training_memory(model, 32, 40), training_memory(model, 64, 40)
    assert memory.parameters == 4 * sum(p.numel() for p in model.parameters()) > 4 * 124_000_000
    assert 3e9 < memory.total < 8e9, "half of a T4's 16 GB stays free"
    assert double.activations == pytest.approx(2 * memory.activations, rel=0.001) and double.logits == 2 * memory.logits
    table = str(memory).splitlines()
    assert len(table) == 6 and table[-1] == f"total            {memory.total / 1e9:7.2f} GB"


def test_says_what_is_wrong():
    for options in ({"batch_size": 0, "length": 5}, {"batch_size": 1, "length": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            training_memory(small(), **options)
    with pytest.raises(InputError, match="bytes_per_number='8-true'"):
        training_memory(small(), 1, 5, bytes_per_number="8-true")
    with pytest.raises(InputError, match=r"Linear is no captioner of the series.*loss="):
        training_memory(nn.Linear(2, 2), 1, 5)
    with pytest.raises(InputError, match="positions"):
        training_memory(small(), 1, 60)
