"""GPT-2 with cross-attention: nothing of GPT-2 is lost, no picture leaks into another, and all ways of decoding agree."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from helpers.data.batches import pad_captions
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.cross_attention import (
    CrossAttentionCaptioner,
    CrossAttentionConfig,
    count_parameters,
    published_parameters,
)
from tests.conftest import SENTENCES

M, C = 5, 24  # rows of the grid, and their channels


@pytest.fixture
def tokens(gpt2_folder):
    return load_tokens(gpt2_folder)


@pytest.fixture
def gpt2(gpt2_folder):
    return load_language_model(gpt2_folder)


@pytest.fixture
def build(gpt2, tokens):
    """A captioner with its gates open, so that the picture matters; weights large enough for rows to differ."""

    def build(gate: float = 1.0, **options: object) -> CrossAttentionCaptioner:
        torch.manual_seed(1)
        model = CrossAttentionCaptioner.build(C, copy.deepcopy(gpt2), tokens.bos, **options)
        with torch.no_grad():
            for block in model.blocks:
                block.crossattention.gate.fill_(gate)
                for parameter in block.crossattention.attention.parameters():
                    parameter.mul_(8)
        return model.eval()

    return build


@pytest.fixture
def batch(tokens):
    torch.manual_seed(2)
    captions = ["A red dog.", "A blue car near a big house.", "A kite"]
    ids, mask = pad_captions([[*tokens.encode(c), tokens.eos] for c in captions], tokens.pad)
    return {"image": {"grid": torch.randn(3, M, C)}, "tokens": ids, "mask": mask}


def read(model, ids):
    """What GPT-2 reads when `ids` are to be predicted."""
    return F.pad(ids[:, :-1], (1, 0), value=model.config.bos)


def row(image, n):
    return {"grid": image["grid"][n : n + 1]}


@pytest.mark.parametrize("tuning", ["cross-attention", "all"])
@pytest.mark.parametrize("training", [False, True])
def test_at_the_start_it_says_bit_for_bit_what_gpt2_says(build, gpt2, batch, tuning, training):
    model = build(gate=0.0, tuning=tuning).train(training)
    ours, theirs = model(batch["image"], batch["tokens"]), gpt2(read(model, batch["tokens"])).logits
    assert torch.equal(ours, theirs)
    model = build(gate=0.1)
    assert not torch.equal(model(batch["image"], batch["tokens"]), theirs)


def test_at_the_start_only_the_gate_gets_a_gradient_of_what_is_new(build, batch):
    model = build(gate=0.0, tuning="cross-attention")
    model.loss(**batch).backward()
    for block in model.blocks:
        assert block.crossattention.gate.grad.abs().sum() > 0
        assert all(not p.grad.any() for p in block.crossattention.attention.parameters())
    model.blocks[0].crossattention.gate.data.fill_(0.1)
    model.zero_grad()
    model.loss(**batch).backward()
    assert all(p.grad.any() for n, p in model.blocks[0].crossattention.named_parameters() if n != "attention.key.bias")


def test_a_batch_of_three_is_three_batches_of_one(build, batch):
    """The published code fails here: it takes sample 0's self-attention for all."""
    model = build()
    together = model(batch["image"], batch["tokens"])
    for n in range(3):
        alone = model(row(batch["image"], n), batch["tokens"][n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sample", [0, 1, 2])
def test_no_sample_leaks_into_another(build, batch, sample):
    """By gradient, to the words and to the picture: exactly zero for all others, not zero for itself."""
    model = build()
    grid = batch["image"]["grid"].requires_grad_()
    words = model.gpt.transformer.wte(read(model, batch["tokens"])).detach().requires_grad_()
    out = model.gpt.transformer(inputs_embeds=words, encoder_hidden_states=grid, use_cache=False).last_hidden_state
    out[sample].pow(2).sum().backward()
    for gradient in (grid.grad, words.grad):
        reached = gradient.flatten(1).any(dim=1)
        assert reached.tolist() == [n == sample for n in range(3)]


@pytest.mark.parametrize("position", [0, 2, 5])
def test_no_word_sees_the_words_after_it(build, batch, position):
    """The published code fails here: under SDPA it loses the causal mask."""
    model = build()
    words = model.gpt.transformer.wte(read(model, batch["tokens"])).detach().requires_grad_()
    out = model.gpt.transformer(inputs_embeds=words, encoder_hidden_states=batch["image"]["grid"], use_cache=False)
    out.last_hidden_state[:, position].pow(2).sum().backward()
    seen = words.grad.flatten(2).any(dim=2).all(dim=0)  # (L,)
    assert seen.tolist() == [n <= position for n in range(words.shape[1])]


def test_padding_changes_nothing(build, batch):
    model = build()
    more = batch | {"tokens": F.pad(batch["tokens"], (0, 7), value=5), "mask": F.pad(batch["mask"], (0, 7))}
    torch.testing.assert_close(model.loss(**more), model.loss(**batch), atol=1e-6, rtol=0)
    other = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], 7)}
    assert torch.equal(model.loss(**other), model.loss(**batch))


def test_padding_gives_no_gradient(build, batch):
    model = build()
    hidden = model.hidden(batch["image"], batch["tokens"], batch["mask"])
    hidden.retain_grad()
    logits = model.gpt.lm_head(hidden[batch["mask"]])
    F.cross_entropy(logits, batch["tokens"][batch["mask"]]).backward()
    assert torch.equal(hidden.grad.any(dim=-1), batch["mask"])


def test_loss_equals_one_computed_by_hand(build, batch):
    """One word at a time: the log-probability of each given the picture and the words before, the end token included."""
    model = build()
    losses = []
    for n in range(3):
        ids = [model.config.bos, *batch["tokens"][n, : batch["mask"][n].sum()].tolist()]
        for t in range(1, len(ids)):
            seen = torch.tensor([ids[:t]])
            logits = model.gpt(seen, encoder_hidden_states=batch["image"]["grid"][n : n + 1]).logits[0, -1]
            losses.append(-logits.log_softmax(dim=-1)[ids[t]])
    assert len(losses) == int(batch["mask"].sum())
    torch.testing.assert_close(model.loss(**batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


WAYS = {
    "greedy": {},
    "beam": {"num_beams": 4},
    "beams returned": {"num_beams": 4, "num_return_sequences": 4},
    "nucleus": {"do_sample": True, "top_p": 0.9, "top_k": 0},
    "draws": {"do_sample": True, "top_p": 0.9, "top_k": 0, "num_return_sequences": 3},
    "no n-gram twice": {"no_repeat_ngram_size": 2, "min_new_tokens": 6},
}


@pytest.mark.parametrize("way", WAYS)
def test_cached_equals_uncached(build, batch, tokens, way):
    """generate() with keys and values computed once a picture says what it says when all is computed anew at each step."""
    model = build()
    grid = batch["image"]["grid"]
    first = torch.full((3, 1), model.config.bos)
    torch.manual_seed(5)
    ours = model.generate(batch["image"], eos=tokens.eos, max_new_tokens=10, **WAYS[way])
    torch.manual_seed(5)
    theirs = model.gpt.generate(
        input_ids=first, attention_mask=torch.ones_like(first), encoder_hidden_states=grid, use_cache=False,
        max_new_tokens=10, eos_token_id=tokens.eos, pad_token_id=tokens.eos, **WAYS[way],
    )[:, 1:]  # fmt: skip
    assert torch.equal(ours, theirs)
    assert len(ours) == 3 * WAYS[way].get("num_return_sequences", 1)
    assert len({tuple(caption) for caption in ours.tolist()}) > 1, "the pictures differ, so should the captions"


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_captions_do_not_depend_on_the_batch(build, batch, tokens, way):
    model = build()
    together = model.generate(batch["image"], eos=tokens.eos, max_new_tokens=10, **WAYS[way])
    for n in range(3):
        alone = model.generate(row(batch["image"], n), eos=tokens.eos, max_new_tokens=10, **WAYS[way])[0]
        assert together[n, : len(alone)].tolist() == alone.tolist()
        assert (together[n, len(alone) :] == tokens.eos).all()


def test_greedy_equals_teacher_forcing(build, batch, tokens):
    model = build()
    ids = model.generate(batch["image"], eos=tokens.eos, max_new_tokens=10)
    likeliest = model(batch["image"], ids).argmax(dim=-1)
    ended = (ids == tokens.eos).cumsum(dim=1) - (ids == tokens.eos).long() > 0
    assert torch.equal(likeliest[~ended], ids[~ended])


def test_keys_and_values_are_computed_once_a_picture(build, batch, tokens):
    model = build()
    calls = []
    for block in model.blocks:
        block.crossattention.attention.key.register_forward_hook(lambda *call: calls.append(len(call[1][0])))
    model.generate(batch["image"], eos=tokens.eos, max_new_tokens=10, num_beams=4)
    assert calls == [3] * len(model.blocks)


def test_a_prompt_is_gone_on_from_and_not_returned(build, batch, tokens):
    model = build()
    prompt = torch.tensor(tokens.encode("A red"))
    ids = model.generate(batch["image"], eos=tokens.eos, max_new_tokens=8, prompt=prompt)
    forced = torch.cat([prompt.expand(3, -1), ids], dim=1)
    assert torch.equal(model(batch["image"], forced).argmax(dim=-1)[:, len(prompt)], ids[:, 0])


def test_attention_is_returned_and_sums_to_one(build, batch):
    model = build()
    logits, (weights,) = model(batch["image"], batch["tokens"], return_attention=True)
    assert torch.equal(logits, model(batch["image"], batch["tokens"]))
    assert weights.shape == (3, len(model.blocks), model.gpt.config.n_head, batch["tokens"].shape[1], M)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
    assert not any(module._forward_hooks for module in model.modules())


LEARNS = {
    "cross-attention": ("crossattention", "ln_cross_attn"),
    "norms": ("crossattention", "ln_cross_attn", "ln_1", "ln_2", "ln_f"),
    "mlps": ("crossattention", "ln_cross_attn", "ln_1", "ln_2", "ln_f", ".mlp."),
    "all": ("",),
}


@pytest.mark.parametrize("tuning", LEARNS)
def test_what_is_frozen_stays_bit_identical_and_the_rest_learns(build, batch, tuning):
    model = build(tuning=tuning)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(**batch).backward()
        optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if any(part in name for part in LEARNS[tuning])}


def test_gradient_checkpointing_gives_the_same_gradients(build, batch):
    plain, saving = build().train(), build(gradient_checkpointing=True).train()
    for model in (plain, saving):
        model.loss(**batch).backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-5)


def test_a_new_captioner_is_in_training_mode_as_any_module(gpt2, tokens, batch):
    """Trainers keep the mode they find: in eval mode neither dropout nor gradient checkpointing would do anything."""
    model = CrossAttentionCaptioner.build(C, gpt2, tokens.bos, dropout=0.5)
    assert all(module.training for module in model.modules())
    assert model.loss(**batch) != model.loss(**batch)


def test_gradient_checkpointing_keeps_less_for_the_way_back(build):
    from helpers.memory import training_memory

    plain, saving = (training_memory(build(gradient_checkpointing=on), 8, 30) for on in (False, True))
    assert saving.activations < plain.activations / 2


def test_learns_eight_captions_by_heart_and_stops(build, tokens):
    model = build(gate=0.0, tuning="all")
    torch.manual_seed(3)
    captions, image = SENTENCES[:8], {"grid": torch.randn(8, M, C)}
    batch = pad_captions([[*tokens.encode(c), tokens.eos] for c in captions], tokens.pad)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(image, *batch).backward()
        optimizer.step()
    ids = model.generate(image, eos=tokens.eos, max_new_tokens=30)
    assert [tokens.decode(caption) for caption in ids.tolist()] == captions
    assert (model.gates.abs() > 0).all()


def test_the_published_parameter_counts():
    """810.33M in all, 353.82M trained: by formula, and by counting such a model that takes no memory."""
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16))
        clip = CLIPVisionModel(CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
        ))  # fmt: skip
        added = nn.ModuleList(
            nn.ModuleList([nn.MultiheadAttention(1024, 16), nn.LayerNorm(1024)]) for _ in gpt2.transformer.h
        )
        head = nn.Linear(1024, 50257)

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    counted = {
        "total": count(clip, gpt2, added, head),  # the tied head counts once
        "trainable": count(added, head, *(part for b in gpt2.transformer.h for part in (b.ln_2, b.mlp))),
    }
    assert published_parameters(1024, 24, 50257, 1024, clip=count(clip)) == counted
    assert {name: round(number / 1e6, 2) for name, number in counted.items()} == {"total": 810.33, "trainable": 353.82}


def test_counts_add_up_and_ours_needs_no_second_head():
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16))
        plain = sum(p.numel() for p in gpt2.parameters())
        counts = count_parameters(CrossAttentionCaptioner.build(1024, gpt2, 50256, tuning="mlps"))
    D = 1024
    block = 4 * (D * D + D) + 2 * D + 2 * D + 1  # attention, the norms of words and of memory, the gate
    assert counts["cross-attention"] == 24 * block
    assert counts["language model"] == plain
    mlp = 2 * 4 * D * D + 5 * D
    assert counts["trainable"] == 24 * (block + mlp + 2 * 2 * D) + 2 * D


def test_what_does_not_fit_is_refused_with_both_numbers(build, gpt2, batch, tokens):
    model = build()
    with pytest.raises(InputError, match="24 channels, this CLIP gives 25"):
        model({"grid": torch.randn(1, M, 25)}, batch["tokens"][:1])
    with pytest.raises(InputError, match="encode_grid"):
        model(torch.randn(1, C), batch["tokens"][:1])
    with pytest.raises(InputError, match="width 32, this one has 64"):
        CrossAttentionCaptioner(CrossAttentionConfig(C, 32, tokens.bos), gpt2)
    with pytest.raises(InputError, match="64 is not a multiple of heads=3"):
        CrossAttentionCaptioner.build(C, gpt2, tokens.bos, heads=3)
    with pytest.raises(InputError, match="choose one of cross-attention, norms, mlps, all"):
        CrossAttentionCaptioner.build(C, gpt2, tokens.bos, tuning="lora")
    with pytest.raises(InputError, match="70 caption tokens exceed the language model's 64"):
        model.generate(batch["image"], eos=tokens.eos, max_new_tokens=70)


def test_another_language_model_is_refused_by_name():
    from transformers import OPTConfig, OPTForCausalLM

    opt = OPTForCausalLM(OPTConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16))
    with pytest.raises(InputError, match="blocks of GPT-2, not of OPTForCausalLM"):
        CrossAttentionCaptioner.build(C, opt, 0)
