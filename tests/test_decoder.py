"""The decoder: each stage equal to PyTorch's own, nobody sees the future or the padding, cached equals uncached."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.batches import pad_captions
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.models.decoder import (
    Block,
    DecoderCaptioner,
    DecoderConfig,
    MultiHeadAttention,
    causal_mask,
    count_parameters,
    scaled_dot_product_attention,
)
from tests.conftest import SENTENCES

V, E, C, M, EOS = 50, 12, 20, 9, 26
SMALL = DecoderConfig(
    vocabulary=V, bos=2, pooled_dim=E, memory_dim=C, width=32, layers=2, heads=4, positions=16, dropout=0.1
)


def build(seed=1, **changes):
    """A small decoder in eval mode; larger weights than a fresh one's, so that every word and picture matters."""
    torch.manual_seed(seed)
    model = DecoderCaptioner(dataclasses.replace(SMALL, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(16 if parameter.dim() > 1 else 1)
    return model


def pictures(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {"grid": torch.randn(count, M, C, generator=generator), "pooled": torch.randn(count, E, generator=generator)}


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def batch():
    """Three captions of 7, 4 and 5 tokens, padded to 7."""
    torch.manual_seed(2)
    tokens, ends = torch.randint(4, V, (3, 7)), torch.tensor([7, 4, 5])
    mask = torch.arange(7) < ends[:, None]
    tokens[torch.arange(3), ends - 1] = EOS
    return {"image": pictures(3), "tokens": tokens.masked_fill(~mask, 0), "mask": mask}


@pytest.mark.parametrize("mask", [None, causal_mask(5, 5), causal_mask(5, 8)], ids=["all", "causal", "causal, cached"])
def test_attention_equals_torch(mask):
    torch.manual_seed(0)
    S = 8 if mask is None else mask.shape[1]
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, S, 4), torch.randn(2, 3, S, 4)
    out, weights = scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 5))
    assert mask is None or (weights[..., ~mask] == 0).all()


def test_attention_by_hand():
    """One query that is exactly as like the first key as unlike the second: shares e^1 : e^-1."""
    q, k, v = (
        torch.tensor([[2.0, 0, 0, 0]]),
        torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0]]),
        torch.tensor([[10.0], [20]]),
    )
    out, weights = scaled_dot_product_attention(q, k, v)
    assert weights[0].tolist() == pytest.approx([0.8807970, 0.1192029])  # 1 / (1 + e^-2)
    assert out.item() == pytest.approx(11.192029)


def test_the_causal_mask():
    assert causal_mask(3, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("causal", [True, False], ids=["self, causal", "cross"])
def test_multi_head_attention_equals_torch(causal):
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
        for n, part in enumerate((ours.query, ours.key, ours.value)):
            part.weight.copy_(theirs.in_proj_weight[24 * n : 24 * (n + 1)])
            part.bias.copy_(theirs.in_proj_bias[24 * n : 24 * (n + 1)])
        ours.output.load_state_dict(theirs.out_proj.state_dict())
    x = torch.randn(2, 5, 24)
    memory = x if causal else torch.randn(2, 7, 24)
    mask = causal_mask(5, 5) if causal else None
    expected, expected_weights = theirs(
        x, memory, memory, attn_mask=None if mask is None else ~mask, average_attn_weights=False
    )
    for return_attention in (False, True):
        out, weights = ours(x, ours.keys_values(memory), mask, return_attention)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)


def test_block_equals_torch():
    """nn.TransformerDecoderLayer with norm_first, weights copied name by name."""
    torch.manual_seed(0)
    ours = Block(SMALL).eval()
    theirs = nn.TransformerDecoderLayer(32, 4, 128, activation="gelu", batch_first=True, norm_first=True).eval()
    state = {}
    for name, attention in (("self_attn", ours.self_attention), ("multihead_attn", ours.cross_attention)):
        parts = (attention.query, attention.key, attention.value)
        state[f"{name}.in_proj_weight"] = torch.cat([part.weight for part in parts])
        state[f"{name}.in_proj_bias"] = torch.cat([part.bias for part in parts])
        state |= {f"{name}.out_proj.{k}": v for k, v in attention.output.state_dict().items()}
    for name, module in (("linear1", ours.feed_forward[0]), ("linear2", ours.feed_forward[2]),
                         ("norm1", ours.norm1), ("norm2", ours.norm2), ("norm3", ours.norm3)):  # fmt: skip
        state |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    theirs.load_state_dict(state)
    x, memory = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    out, _, _ = ours(x, ours.cross_attention.keys_values(memory))
    torch.testing.assert_close(out, theirs(x, memory, tgt_mask=~causal_mask(5, 5)), atol=1e-5, rtol=1e-5)


def test_attention_is_returned_and_changes_no_logit(model, batch):
    logits, attention = model(batch["image"], batch["tokens"], return_attention=True)
    torch.testing.assert_close(logits, model(batch["image"], batch["tokens"]), atol=1e-5, rtol=1e-5)
    assert logits.shape == (3, 7, V)
    assert attention.words.shape == (3, 2, 4, 7, 7) and attention.image.shape == (3, 2, 4, 7, M + 1)
    for weights in attention:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert (attention.words.triu(diagonal=1) == 0).all()
    held = [name for module in model.modules() for name, value in vars(module).items() if torch.is_tensor(value)]
    assert not held, "attention weights stashed on a module"


def test_no_token_sees_itself_or_the_future(model):
    """The gradient of each position's logits with respect to each token's embedding."""
    tokens = torch.randint(4, V, (1, 6), generator=torch.Generator().manual_seed(0))
    embedded = []
    handle = model.token_embedding.register_forward_hook(lambda m, i, out: embedded.append(out.requires_grad_()) or out)
    logits = model(pictures(1), tokens)  # row t predicts token t, having read <bos> and tokens 0..t-1
    handle.remove()
    for t in range(6):
        (gradient,) = torch.autograd.grad(logits[0, t].sum(), embedded[0], retain_graph=True)
        reached = gradient[0].abs().sum(dim=-1) > 0
        assert reached.tolist() == [n <= t for n in range(6)]  # read position n holds token n-1


def test_loss_equals_one_computed_by_hand(model, batch):
    """One caption at a time, token by token, without padding or masks; label smoothing by its definition."""
    losses, smooth = [], []
    for row, (ids, mask) in enumerate(zip(batch["tokens"], batch["mask"], strict=True)):
        image = {key: value[row : row + 1] for key, value in batch["image"].items()}
        for n in range(int(mask.sum())):
            read = torch.cat([torch.tensor([SMALL.bos]), ids[:n]])
            log_probs = model.step(read[None], model.start(image))[0][0].log_softmax(dim=-1)
            losses.append(-log_probs[ids[n]])
            smooth.append(-log_probs.mean())
    assert len(losses) == 16
    plain, even = torch.stack(losses).mean(), torch.stack(smooth).mean()
    torch.testing.assert_close(model.loss(**batch), plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.loss(**batch, label_smoothing=0.1), 0.9 * plain + 0.1 * even, atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing(model, batch):
    more = batch | {"tokens": F.pad(batch["tokens"], (0, 6), value=5), "mask": F.pad(batch["mask"], (0, 6))}
    torch.testing.assert_close(model.loss(**more), model.loss(**batch), atol=1e-6, rtol=0)
    other = batch | {"tokens": batch["tokens"].masked_fill(~batch["mask"], 7)}
    assert torch.equal(model.loss(**other), model.loss(**batch))


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"memory": "pooled"}], ids=str)
def test_cached_steps_equal_one_pass(changes, batch):
    model = build(**changes)
    expected = model(batch["image"], batch["tokens"])
    read = F.pad(batch["tokens"][:, :-1], (1, 0), value=SMALL.bos)
    cache = model.start(batch["image"])
    logits, cache = model.step(read[:, :3], cache)  # several at once, then one by one
    torch.testing.assert_close(logits, expected[:, 2], atol=1e-4, rtol=1e-5)
    for t in range(3, 7):
        assert cache.length == t
        logits, cache = model.step(read[:, t : t + 1], cache)
        torch.testing.assert_close(logits, expected[:, t], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("options", [
    {}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 4}, {"do_sample": True, "num_return_sequences": 3}
], ids=str)  # fmt: skip
def test_cached_captions_equal_uncached(model, options):
    """The uncached twin forgets everything but the ids: it reads the whole caption, and the picture, anew each step."""
    from helpers.models.decoding import decode

    image = pictures(3)

    def step(ids, cache):
        image, ids = cache[0], torch.cat([cache[1], ids], dim=1)
        return model.step(ids, model.start(image))[0], (image, ids)

    def reorder(cache, rows):
        return {key: value[rows] for key, value in cache[0].items()}, cache[1][rows]

    limits = {"eos": EOS, "max_new_tokens": 10} | options
    if "do_sample" in options:
        limits["generator"] = torch.Generator().manual_seed(0)
    ours = model.hypotheses(image, **limits)
    if "do_sample" in options:
        limits["generator"] = torch.Generator().manual_seed(0)
    prompt = torch.full((3, 1), SMALL.bos)
    uncached = decode(step, prompt, (image, prompt[:, :0]), reorder=reorder, **limits)
    assert ours.ids.tolist() == uncached.ids.tolist()
    torch.testing.assert_close(ours.scores, uncached.scores, atol=1e-4, rtol=0)
    assert len({tuple(row) for row in ours.ids.flatten(0, 1).tolist()}) > 1, "every picture gets the same caption"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_batch_equals_one_picture_at_a_time(model, num_beams):
    image = pictures(4)
    together = model.generate(image, eos=EOS, max_new_tokens=10, num_beams=num_beams)
    for n in range(4):
        alone = model.generate(
            {k: v[n : n + 1] for k, v in image.items()}, eos=EOS, max_new_tokens=10, num_beams=num_beams
        )
        assert together[n, : alone.shape[1]].tolist() == alone[0].tolist()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_go_on_from_a_prompt(model, num_beams):
    """A prompt is read after the start token, is not returned, and its tokens count among the positions."""
    image, prompt = pictures(3), torch.tensor([7, 8, 9])
    limits = {"eos": EOS, "max_new_tokens": 10, "num_beams": num_beams}
    ids = model.generate(image, prompt=prompt, **limits)
    free = model.generate(image, **limits)
    assert ids.tolist() != free.tolist()
    assert torch.equal(model.generate(image, prompt=prompt[:0], **limits), free)
    if num_beams == 1:  # the same words as when the whole caption so far is read anew each time
        for t in range(ids.shape[1]):
            read = torch.cat([torch.full((3, 1), SMALL.bos), prompt.expand(3, -1), ids[:, :t]], dim=1)
            best = model.step(read, model.start(image))[0].argmax(dim=-1)
            undone = (ids[:, :t] != EOS).all(dim=1)
            assert torch.equal(best[undone], ids[undone, t])
    assert model.generate(image, prompt=prompt, **limits | {"max_new_tokens": 13}).shape[1] <= 13
    with pytest.raises(InputError, match=r"17 caption tokens exceed the decoder's 16 positions.*a prompt's tokens included"):
        model.generate(image, prompt=prompt, **limits | {"max_new_tokens": 14})


def test_scores_are_what_the_model_gives_the_caption(model):
    """Read again with teacher forcing, each hypothesis has the score that beam search says."""
    image = pictures(2)
    ids, scores = model.hypotheses(
        image, eos=EOS, max_new_tokens=8, num_beams=4, num_return_sequences=2, length_penalty=1.0
    )
    for n in range(2):
        for row, score in zip(ids[n].tolist(), scores[n].tolist(), strict=True):
            row = row[: row.index(EOS) + 1] if EOS in row else row
            tokens = torch.tensor([row])
            loss = model.loss(
                {k: v[n : n + 1] for k, v in image.items()}, tokens, torch.ones_like(tokens, dtype=torch.bool)
            )
            assert -loss.item() == pytest.approx(score, abs=1e-4)


def test_the_picture_is_projected_once(model):
    calls = []
    handles = [block.cross_attention.key.register_forward_hook(lambda *_: calls.append(1)) for block in model.blocks]
    shapes = []
    handles.append(
        model.blocks[0].cross_attention.value.register_forward_hook(lambda m, i, out: shapes.append(out.shape))
    )
    model.generate(pictures(2), eos=EOS, max_new_tokens=8, num_beams=3)
    for handle in handles:
        handle.remove()
    assert len(calls) == len(model.blocks) and shapes == [(2, M + 1, 32)]  # and not once a beam


def test_cache_rows_of_beams():
    model = build()
    image = pictures(2)
    _, cache = model.step(torch.tensor([[2], [2]]), model.start(image))
    wide = cache.reorder(torch.tensor([0, 0, 0, 1, 1, 1]))
    ids = torch.tensor([[10], [11], [12], [10], [11], [12]])
    _, wide = model.step(ids, wide)
    swapped = wide.reorder(torch.tensor([2, 0, 0, 4, 4, 3]))
    again, _ = model.step(torch.full((6, 1), 20), swapped)
    for row, (picture, second) in enumerate([(0, 12), (0, 10), (0, 10), (1, 11), (1, 11), (1, 10)]):
        alone = {key: value[picture : picture + 1] for key, value in image.items()}
        expected, _ = model.step(torch.tensor([[2, second, 20]]), model.start(alone))
        torch.testing.assert_close(again[row], expected[0], atol=1e-4, rtol=1e-5)
    assert swapped.image is cache.image
    _, _, attention = model.hidden(torch.full((6, 1), 20), swapped, return_attention=True)
    assert attention.words.shape == (6, 2, 4, 1, 3) and attention.image.shape == (6, 2, 4, 1, M + 1)


def test_one_memory_token_leaves_nothing_to_choose(batch):
    """The published decoder looks at one vector: softmax over one key is 1, so queries and keys never learn."""
    for memory in ("pooled", "grid+pooled"):
        model = build(memory=memory)
        _, attention = model(batch["image"], batch["tokens"], return_attention=True)
        assert (attention.image == 1).all() == (memory == "pooled")
        model.loss(**batch).backward()
        for block in model.blocks:
            gradients = [
                getattr(block.cross_attention, part).weight.grad.abs().max() for part in ("query", "key", "value")
            ]
            query, key, value = gradients
            assert value > 1e-4
            if memory == "pooled":
                assert query < 1e-6 * value and key < 1e-6 * value  # the rounding of the fused kernel, no more
            else:
                assert query > 1e-3 * value and key > 1e-3 * value
    assert not any("grid" in name for name in build(memory="pooled").state_dict())
    without_grid = {"pooled": batch["image"]["pooled"]}
    model = build(memory="pooled")
    assert torch.equal(model(without_grid, batch["tokens"]), model(batch["image"], batch["tokens"]))


def test_every_parameter_learns(batch):
    model = build(tied=False)
    model.train()
    model.loss(**batch).backward()
    # A bias on the keys adds the same to all scores of a query: softmax does not see it.
    unseen = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-7}
    assert unseen == {name for name in model.state_dict() if name.endswith("attention.key.bias")}


def test_learns_eight_captions_by_heart_and_stops(gpt2_folder):
    tokens = load_tokens(gpt2_folder)
    torch.manual_seed(3)
    model = DecoderCaptioner(
        dataclasses.replace(SMALL, vocabulary=len(tokens), bos=tokens.bos, width=64, positions=32, dropout=0.0)
    )
    captions, image = SENTENCES[:8], pictures(8)
    ids, mask = pad_captions([[*tokens.encode(c), tokens.eos] for c in captions], tokens.pad)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model.loss(image, ids, mask).backward()
        optimizer.step()
    model.eval()
    for options in ({}, {"num_beams": 3}):
        ids = model.generate(image, eos=tokens.eos, max_new_tokens=30, **options)
        assert [tokens.decode(row) for row in ids.tolist()] == captions
        assert all(tokens.eos in row for row in ids.tolist())
    # It looks: with the pictures in another order the captions follow them.
    turned = {key: value.roll(1, dims=0) for key, value in image.items()}
    ids = model.generate(turned, eos=tokens.eos, max_new_tokens=30)
    assert [tokens.decode(row) for row in ids.tolist()] == captions[-1:] + captions[:-1]


def formula(c):
    """Parameters by the paper's letters: D width, F feed-forward, N blocks."""
    D, F_, N = c.width, c.feed_forward * c.width, c.layers
    attention = 4 * (D * D + D)
    block = 2 * attention + (D * F_ + F_) + (F_ * D + D) + 3 * 2 * D
    projections = (c.pooled_dim * D + D + 2 * D) + (c.memory == "grid+pooled") * (c.memory_dim * D + D + 2 * D)
    return {
        "image projections": projections,
        "embeddings": (c.vocabulary + c.positions) * D,
        "blocks": N * block,
        "output": 2 * D + (not c.tied) * D * c.vocabulary,
    }


PUBLISHED = DecoderConfig(
    vocabulary=30_524, bos=30_522, pooled_dim=1024, memory_dim=2048, width=1024, layers=4, heads=8, positions=49,
    dropout=0.44, tied=False,
)  # fmt: skip


@pytest.mark.parametrize("memory", ["grid+pooled", "pooled"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sizes", [SMALL, PUBLISHED], ids=["small", "published"])
def test_parameters_by_formula_equal_those_counted(sizes, tied, memory):
    config = dataclasses.replace(sizes, tied=tied, memory=memory)
    with torch.device("meta"):
        model = DecoderCaptioner(config)
    counts = count_parameters(model)
    assert {part: counts[part] for part in counts if part != "trainable"} == formula(config)
    assert counts["trainable"] == sum(formula(config).values()) == sum(p.numel() for p in model.parameters())
    model.blocks.requires_grad_(False)
    assert count_parameters(model)["trainable"] == counts["trainable"] - counts["blocks"]


def test_the_published_sizes_in_millions():
    """D=1024, 4 blocks, 8 heads, 30,524 words: 16.8M a block, 31.3M an embedding table, twice where untied."""
    with torch.device("meta"):
        counts = count_parameters(DecoderCaptioner(dataclasses.replace(PUBLISHED, memory="pooled")))
    assert counts["blocks"] == 67_186_688
    assert counts["embeddings"] == 30_573 * 1024
    assert counts["trainable"] == 130_803_712


def test_a_fresh_model_finds_all_words_about_equally_likely(batch):
    torch.manual_seed(0)
    model = DecoderCaptioner(SMALL).eval()
    assert model.loss(**batch).item() == pytest.approx(torch.tensor(float(V)).log().item(), abs=0.1)


def test_what_does_not_fit_is_refused_with_both_numbers(model, batch):
    good = batch["image"]
    words = {"tokens": batch["tokens"], "mask": batch["mask"]}
    with pytest.raises(InputError, match=r"grid cells of 20 channels, this CLIP gives 21"):
        model.loss(good | {"grid": torch.randn(3, M, 21)}, **words)
    with pytest.raises(InputError, match=r"vector of 12 numbers, this CLIP gives 13"):
        model.loss(good | {"pooled": torch.randn(3, 13)}, **words)
    with pytest.raises(InputError, match=r"needs image\['grid'\]; this image has only pooled"):
        model.generate({"pooled": good["pooled"]}, eos=EOS, max_new_tokens=5)
    with pytest.raises(InputError, match=r"17 caption tokens exceed the decoder's 16 positions"):
        model.generate(good, eos=EOS, max_new_tokens=17)
    with pytest.raises(InputError, match=r"18 caption tokens exceed the decoder's 16 positions"):
        model.loss(good, torch.zeros(3, 18, dtype=torch.long), torch.ones(3, 18, dtype=torch.bool))
    for changes, message in (
        ({"heads": 5}, r"width=32 is not a multiple of heads=5"),
        ({"memory": "patches"}, r"'patches' is not known: choose grid\+pooled or pooled"),
        ({"memory_dim": 0}, r"needs memory_dim"),
        ({"bos": V}, r"bos=50 is not one of the vocabulary's 50"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(SMALL, **changes)


def test_generate_may_fill_every_position(model):
    ids = model.generate(pictures(1), eos=EOS, max_new_tokens=16, min_new_tokens=16)
    assert ids.shape == (1, 16) and EOS not in ids.tolist()[0]
