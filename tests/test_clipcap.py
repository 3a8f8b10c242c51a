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


def test_cross_attention_takes_grid_and_pooled_vector(gpt2_folder, batch, tokens):
    language_model = load_language_model(gpt2_folder)
    sizes = {"prefix_length": 3, "layers": 1, "heads": 2}
    model = ClipCap.build(E, language_model, mapping="cross-attention", grid_dim=12, **sizes)
    image = {"grid": torch.randn(3, 4, 12), "pooled": batch["image"]}
    assert model.sees == "grid" and model.loss(image, batch["tokens"], batch["mask"]) > 0
    assert len(model.generate(image, eos=tokens.eos, max_new_tokens=4)) == 3
    with pytest.raises(InputError, match=r"mapping='cross-attention' takes \{\"grid\".*not Tensor"):
        model.prefix(batch["image"])
    with pytest.raises(InputError, match="12 channels, this CLIP gives 13"):
        model.prefix({"grid": torch.randn(3, 4, 13), "pooled": batch["image"]})
    pooled = ClipCap.build(E, language_model, mapping="cross-attention-pooled", **sizes)
    assert pooled.sees == "pooled" and pooled.prefix(batch["image"]).shape == (3, 3, 64)
    with pytest.raises(InputError, match="takes CLIP vectors"):
        pooled.prefix(image)


def test_normalised_vectors_have_no_length(gpt2_folder, batch):
    model = ClipCap.build(E, load_language_model(gpt2_folder), mapping="linear", normalize=True)
    torch.testing.assert_close(model.prefix(5 * batch["image"]), model.prefix(batch["image"]))
    torch.testing.assert_close(model.prefix(batch["image"]), model.clip_project(F.normalize(batch["image"], dim=-1)))


def tuned(gpt2_folder, **options) -> ClipCap:
    torch.manual_seed(1)
    return ClipCap.build(E, load_language_model(gpt2_folder), mapping="mlp", prefix_length=3, **options)


def learning(model: ClipCap) -> set[str]:
    return {name.removeprefix("gpt.") for name, p in model.named_parameters() if p.requires_grad and name[:4] == "gpt."}


def test_what_trains_is_what_was_asked_for(gpt2_folder):
    every = {name for name, _ in load_language_model(gpt2_folder).named_parameters()}
    assert learning(tuned(gpt2_folder)) == set()
    assert learning(tuned(gpt2_folder, tuning="all")) == every
    last = {name for name in every if name.startswith(("transformer.h.1.", "transformer.ln_f."))}
    assert learning(tuned(gpt2_folder, tuning="blocks", frozen_blocks=1)) == last
    lora = learning(tuned(gpt2_folder, tuning="lora", lora_rank=4))
    assert len(lora) == 2 * 2 and all(".lora_" in name for name in lora)  # two blocks, two matrices each
    with pytest.raises(InputError, match="frozen_blocks=3: the language model has 2 blocks"):
        tuned(gpt2_folder, tuning="blocks", frozen_blocks=3)


@pytest.mark.parametrize("options", [{"tuning": "all"}, {"tuning": "blocks", "frozen_blocks": 1}, {"tuning": "lora"}])
def test_a_tuned_model_learns_there_and_nowhere_else(gpt2_folder, batch, options):
    model = tuned(gpt2_folder, **options)
    trains = learning(model)
    before = {name: value.clone() for name, value in model.gpt.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model.train()
    for _ in range(2):  # in the first step LoRA's A has no gradient, for its B is still zero
        optimizer.zero_grad()
        model.loss(**batch).backward()
        optimizer.step()
    changed = {name for name, value in model.gpt.named_parameters() if not torch.equal(value, before[name])}
    assert changed == trains
    assert all(p.grad is None for p in model.gpt.parameters() if not p.requires_grad)


def test_dropout_follows_train_where_the_language_model_learns(gpt2_folder):
    for options in ({"tuning": "all"}, {"tuning": "blocks"}, {"tuning": "lora"}):
        model = tuned(gpt2_folder, **options)
        assert not model.gpt.training
        assert model.train().gpt.transformer.drop.training and not model.eval().gpt.transformer.drop.training


def test_lora_begins_as_the_model_it_adapts(gpt2_folder, batch):
    plain, adapted = tuned(gpt2_folder).eval(), tuned(gpt2_folder, tuning="lora").eval()
    torch.testing.assert_close(adapted.loss(**batch), plain.loss(**batch))


def test_lora_without_peft_says_how_to_get_it(gpt2_folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match="pip install peft"):
        tuned(gpt2_folder, tuning="lora")


def test_prompt_stands_between_prefix_and_caption(model, tokens):
    model.eval()
    image, prompt = torch.randn(2, E), torch.tensor(tokens.encode("A blue"))
    ids = model.generate(image, eos=tokens.eos, prompt=prompt, max_new_tokens=6, do_sample=False)
    for row in range(2):
        inputs = torch.cat([model.clip_project(image[row : row + 1]), model.gpt.transformer.wte(prompt)[None]], dim=1)
        words = []
        while len(words) < 6 and tokens.eos not in words:
            words.append(int(model.gpt(inputs_embeds=inputs).logits[0, -1].argmax()))
            inputs = torch.cat([inputs, model.gpt.transformer.wte(torch.tensor([[words[-1]]]))], dim=1)
        assert ids[row, : len(words)].tolist() == words
    none = torch.tensor([], dtype=torch.long)
    plain = model.generate(image, eos=tokens.eos, max_new_tokens=6)
    assert torch.equal(model.generate(image, eos=tokens.eos, prompt=none, max_new_tokens=6), plain)
    beams = model.generate(image, eos=tokens.eos, prompt=prompt, max_new_tokens=6, num_beams=3, num_return_sequences=2)
    assert beams.shape[0] == 4 and beams.shape[1] <= 6


def test_prompts_that_do_not_fit(model, tokens):
    image = torch.randn(1, E)
    with pytest.raises(InputError, match=r"prefix of 3 \+ prompt of 22 \+ 40 .* 64 positions.* to 39"):
        model.generate(image, eos=tokens.eos, prompt=torch.ones(22, dtype=torch.long))
    with pytest.raises(InputError, match=r"shape \(P,\), not \(1, 2\)"):
        model.generate(image, eos=tokens.eos, prompt=torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(InputError, match=r"prompt holds the id 50000, the language model has \d+ tokens"):
        model.generate(image, eos=tokens.eos, prompt=torch.tensor([50_000]))
