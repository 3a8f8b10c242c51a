"""ClipCap: what the loss counts, what padding may not change, and that the language model stays as it was."""

import pytest
import torch
import torch.nn.functional as F

from helpers.data.batches import pad_captions
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap, ClipCapConfig, TransformerMapping, count_parameters
from tests.conftest import SENTENCES

E = 16


@pytest.fixture
def tokens(gpt2_folder):
    return load_tokens(gpt2_folder)


@pytest.fixture
def model(gpt2_folder):
    torch.manual_seed(1)
    return ClipCap.build(E, load_language_model(gpt2_folder), prefix_length=3, clip_length=2, layers=2, heads=2)


@pytest.fixture
def batch(tokens):
    torch.manual_seed(2)
    captions = ["A red dog.", "A blue car near a big house.", "A kite"]
    ids, mask = pad_captions([[*tokens.encode(c), tokens.eos] for c in captions], tokens.pad)
    return {"image": torch.randn(len(captions), E), "tokens": ids, "mask": mask}


def test_loss_equals_one_computed_by_hand(model, tokens, batch):
    """One caption at a time, without padding or masks: log-probability of each token given the prefix and those before."""
    model.eval()
    losses = []
    for image, ids, mask in zip(batch["image"], batch["tokens"], batch["mask"], strict=True):
        prefix = model.clip_project(image[None])
        for n in range(int(mask.sum())):
            seen = torch.cat([prefix, model.gpt.transformer.wte(ids[None, :n])], dim=1)
            logits = model.gpt(inputs_embeds=seen).logits[0, -1]
            losses.append(-F.log_softmax(logits, dim=-1)[ids[n]])
    assert len(losses) == int(batch["mask"].sum())
    torch.testing.assert_close(model.loss(**batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_the_last_target_is_the_end_token(batch, tokens):
    last = batch["mask"].sum(dim=1) - 1
    assert (batch["tokens"].gather(1, last[:, None]) == tokens.eos).all()


def test_padding_changes_nothing(model, batch, tokens):
    model.eval()
    more = {
        "image": batch["image"],
        "tokens": F.pad(batch["tokens"], (0, 7), value=5),  # any id: padding is told by the mask alone
        "mask": F.pad(batch["mask"], (0, 7)),
    }
    torch.testing.assert_close(model.loss(**more), model.loss(**batch), atol=1e-6, rtol=0)
    other = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], 7)}
    assert torch.equal(model.loss(**other), model.loss(**batch))


def test_padding_gives_no_gradient_and_prefix_gives_some(model, batch):
    model.train()
    model.loss(**batch).backward()
    assert all(p.grad is None for p in model.gpt.parameters())
    grads = {name: p.grad.abs().sum().item() for name, p in model.clip_project.named_parameters()}
    assert all(value > 0 for value in grads.values()), [name for name, value in grads.items() if not value]


def test_language_model_stays_in_eval_and_bit_identical(model, batch):
    before = {name: value.clone() for name, value in model.gpt.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    assert model.clip_project.training and not any(module.training for module in model.gpt.modules())
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(**batch).backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.gpt.state_dict().items())


def test_generate_equals_greedy_by_hand(model, tokens):
    model.eval()
    image = torch.randn(2, E)
    ids = model.generate(image, eos=tokens.eos, max_new_tokens=8, do_sample=False, num_beams=1)
    for row in range(2):
        inputs, words = model.clip_project(image[row : row + 1]), []
        while len(words) < 8 and tokens.eos not in words:
            words.append(int(model.gpt(inputs_embeds=inputs).logits[0, -1].argmax()))
            inputs = torch.cat([inputs, model.gpt.transformer.wte(torch.tensor([[words[-1]]]))], dim=1)
        assert ids[row, : len(words)].tolist() == words


def test_learns_eight_captions_by_heart_and_stops(model, tokens):
    """The end token is learned: greedy decoding gives back every caption and ends there."""
    torch.manual_seed(3)
    # A random frozen model can say little; a trained one is what the mapping steers. So let this one learn along.
    model.gpt.requires_grad_(True)
    captions, images = SENTENCES[:8], torch.randn(8, E)
    batch = pad_captions([[*tokens.encode(c), tokens.eos] for c in captions], tokens.pad)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(images, *batch).backward()
        optimizer.step()
    model.eval()
    ids = model.generate(images, eos=tokens.eos, max_new_tokens=30)
    assert [tokens.decode(row) for row in ids.tolist()] == captions
    assert all(tokens.eos in row for row in ids.tolist())


def test_parameter_count_of_the_paper():
    """Section 4 of the paper and its public checkpoint: 41.7M at prefix 10 / 10, CLIP 512, GPT-2 768."""
    C = K = 10
    E, D, N = 512, 768, 8
    block = (D * D + 2 * D * D + D * D + D) + (2 * (2 * D * D) + 2 * D + D) + 2 * 2 * D
    formula = (E * C * D + C * D) + K * D + N * block
    with torch.device("meta"):
        mapping = TransformerMapping(ClipCapConfig(image_dim=E, width=D))
    assert sum(p.numel() for p in mapping.parameters()) == formula
    assert round(formula / 1e6, 1) == 41.7


def test_counts_add_up(model):
    counts = count_parameters(model)
    assert counts["trainable"] == counts["mapping"]
    assert counts["mapping"] + counts["language model"] == sum(p.numel() for p in model.parameters())


def test_what_does_not_fit_is_refused_with_both_numbers(model, gpt2_folder, batch, tokens):
    with pytest.raises(InputError, match=r"16 numbers, this CLIP gives 17"):
        model.loss(torch.randn(3, 17), batch["tokens"], batch["mask"])
    with pytest.raises(InputError, match=r"width 32, this one has 64"):
        ClipCap(ClipCapConfig(image_dim=E, width=32), load_language_model(gpt2_folder))
    with pytest.raises(InputError, match=r"64 is not a multiple of heads=7"):
        ClipCap.build(E, load_language_model(gpt2_folder), heads=7)
    with pytest.raises(InputError, match=r"prefix of 3 \+ 62 .* 64 positions"):
        model.generate(torch.randn(1, E), eos=tokens.eos, max_new_tokens=62)
