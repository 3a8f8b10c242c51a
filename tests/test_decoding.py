"""Decoding: equal to the transformers library's on the same GPT-2, with and without a cache, alone and in a batch."""

import itertools

import pytest
import torch

from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.decoding import beam_search, decode, greedy, keep_likely, sample

EOS = 7
STARTS = [0, 1, 2, 3, 4]  # tokens that no caption contains, as a start token
LIBRARY = {"eos_token_id": EOS, "pad_token_id": EOS, "return_dict_in_generate": True, "output_scores": True}


@pytest.fixture(scope="module")
def gpt2(gpt2_folder):
    """A GPT-2 with strong opinions (a random one finds all words equally likely), and some will to stop."""
    model = load_language_model(gpt2_folder)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.dim() > 1 else 1)
    bias = torch.zeros(model.config.vocab_size)
    bias[EOS] = 3.0
    bias[STARTS] = -1e4
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model


@pytest.fixture(scope="module")
def prompts(gpt2):
    return torch.randint(8, gpt2.config.vocab_size, (6, 3), generator=torch.Generator().manual_seed(0))


def cached(model):
    def step(ids, cache):
        out = model(input_ids=ids, past_key_values=cache, use_cache=True)
        return out.logits[:, -1], out.past_key_values

    def reorder(cache, rows):
        cache.reorder_cache(rows)
        return cache

    return {"step": step, "reorder": reorder}


def uncached(model):
    """The cache is simply all ids so far."""

    def step(ids, cache):
        ids = ids if cache is None else torch.cat([cache, ids], dim=1)
        return model(input_ids=ids, use_cache=False).logits[:, -1], ids

    return {"step": step, "reorder": lambda ids, rows: ids[rows]}


def same(ours, theirs, prompts):
    """Tokens equal, whatever either side fills up with."""
    theirs = theirs[:, prompts.shape[1] :]
    ours = ours.flatten(0, 1)
    width = max(ours.shape[1], theirs.shape[1])
    pad = [torch.nn.functional.pad(ids, (0, width - ids.shape[1]), value=EOS) for ids in (ours, theirs)]
    assert pad[0].tolist() == pad[1].tolist()


def lengths(ids):
    return [len(row) if EOS not in row else row.index(EOS) + 1 for row in ids.flatten(0, -2).tolist()]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("num_beams", [2, 3, 5])
def test_beam_search_equals_the_transformers_library(gpt2, prompts, num_beams, length_penalty):
    options = {"num_beams": num_beams, "length_penalty": length_penalty, "num_return_sequences": num_beams}
    theirs = gpt2.generate(prompts, max_new_tokens=14, early_stopping=False, do_sample=False, **options, **LIBRARY)
    ours = beam_search(prompt=prompts, eos=EOS, max_new_tokens=14, **options, **cached(gpt2))
    same(ours.ids, theirs.sequences, prompts)
    torch.testing.assert_close(ours.scores.flatten(), theirs.sequences_scores, atol=1e-4, rtol=0)


def test_the_comparison_above_sees_early_and_late_ends(gpt2, prompts):
    ends = lengths(
        beam_search(prompt=prompts, eos=EOS, max_new_tokens=14, num_beams=3, num_return_sequences=3, **cached(gpt2)).ids
    )
    assert len(set(ends)) >= 4 and min(ends) <= 3 and max(ends) >= 10, ends


@pytest.mark.parametrize("options", [
    {"min_new_tokens": 6}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 9, "no_repeat_ngram_size": 1}
], ids=str)  # fmt: skip
@pytest.mark.parametrize("num_beams", [1, 4])
def test_limits_equal_the_transformers_library(gpt2, num_beams, options):
    prompts = torch.tensor(STARTS)[:, None]  # the library counts the n-grams of prompts too, we do not
    theirs = gpt2.generate(prompts, max_new_tokens=12, do_sample=False, num_beams=num_beams, **options, **LIBRARY)
    ours = decode(prompt=prompts, eos=EOS, max_new_tokens=12, num_beams=num_beams, **options, **cached(gpt2))
    same(ours.ids, theirs.sequences, prompts)
    free = decode(prompt=prompts, eos=EOS, max_new_tokens=12, num_beams=num_beams, **cached(gpt2))
    assert free.ids.tolist() != ours.ids.tolist(), "the limits change nothing here"


def test_greedy_equals_the_transformers_library(gpt2, prompts):
    theirs = gpt2.generate(prompts, max_new_tokens=14, do_sample=False, **LIBRARY)
    ours = greedy(prompt=prompts, eos=EOS, max_new_tokens=14, **cached(gpt2))
    same(ours.ids, theirs.sequences, prompts)
    steps = gpt2.compute_transition_scores(theirs.sequences, theirs.scores, normalize_logits=True)
    kept = torch.arange(steps.shape[1]) < torch.tensor(lengths(ours.ids))[:, None]
    torch.testing.assert_close(ours.scores[:, 0], steps.masked_fill(~kept, 0).sum(dim=1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [
    {}, {"num_beams": 4, "num_return_sequences": 3}, {"do_sample": True, "num_return_sequences": 3, "top_p": 0.9}
], ids=str)  # fmt: skip
def test_a_cache_changes_no_token(gpt2, prompts, options):
    results = []
    for model in (cached(gpt2), uncached(gpt2)):
        drawn = {"generator": torch.Generator().manual_seed(3)} if "do_sample" in options else {}
        results.append(decode(prompt=prompts, eos=EOS, max_new_tokens=12, **options, **drawn, **model))
    assert results[0].ids.tolist() == results[1].ids.tolist()
    torch.testing.assert_close(results[0].scores, results[1].scores, atol=1e-4, rtol=0)


def test_one_beam_is_greedy(gpt2, prompts):
    for length_penalty in (0.0, 1.0, 2.0):
        one = beam_search(prompt=prompts, eos=EOS, num_beams=1, length_penalty=length_penalty, **cached(gpt2))
        assert one.ids.tolist() == greedy(prompt=prompts, eos=EOS, **cached(gpt2)).ids.tolist()


@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
def test_a_batch_equals_one_picture_at_a_time(gpt2, prompts, length_penalty):
    options = {
        "eos": EOS,
        "num_beams": 4,
        "num_return_sequences": 4,
        "max_new_tokens": 14,
        "length_penalty": length_penalty,
    }
    batch = beam_search(prompt=prompts, **options, **cached(gpt2))
    for n in range(len(prompts)):
        alone = beam_search(prompt=prompts[n : n + 1], **options, **cached(gpt2))
        T = alone.ids.shape[-1]
        assert batch.ids[n, :, :T].tolist() == alone.ids[0].tolist()
        assert (batch.ids[n, :, T:] == EOS).all()
        torch.testing.assert_close(batch.scores[n], alone.scores[0], atol=1e-4, rtol=0)


def toy(table):
    """A model whose next word depends on the last one alone: logits are rows of `table`; the cache counts the steps."""
    return lambda ids, cache: (table[ids[:, -1]], cache)


def test_wide_beams_find_the_best_caption_of_all():
    """Three words, four steps: every caption can be written down and scored by hand; eos is word 0."""
    table = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    log_probs = table.log_softmax(dim=-1)
    captions = {}
    for T in range(1, 5):
        for words in itertools.product((1, 2, 3), repeat=T - 1):
            for last in (0, 1, 2, 3) if T == 4 else (0,):
                path = [1, *words, last]
                captions[tuple(path[1:])] = float(sum(log_probs[a, b] for a, b in itertools.pairwise(path))) / T**0.5
    best = sorted(captions, key=captions.get, reverse=True)[:3]
    found = beam_search(
        toy(table), torch.tensor([[1]]), eos=0, num_beams=108, num_return_sequences=3, max_new_tokens=4,
        length_penalty=0.5, reorder=lambda cache, rows: cache,
    )  # fmt: skip
    assert [tuple(row[: len(words)]) for row, words in zip(found.ids[0].tolist(), best, strict=True)] == best
    torch.testing.assert_close(found.scores[0], torch.tensor([captions[words] for words in best]), atol=1e-5, rtol=0)


def test_hypotheses_of_a_picture_differ(gpt2, prompts):
    ids = beam_search(prompt=prompts, eos=EOS, num_beams=5, num_return_sequences=5, **cached(gpt2)).ids
    assert all(len({tuple(row) for row in picture}) == 5 for picture in ids.tolist())


def test_top_k_and_top_p_by_hand():
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
    rows = torch.stack([probabilities, probabilities.flip(0)]).log()

    def kept(**options):
        return [row.isfinite().nonzero().flatten().tolist() for row in keep_likely(rows, **options)]

    assert kept() == [[0, 1, 2, 3, 4]] * 2
    assert kept(top_k=2) == [[1, 3], [1, 3]]
    assert kept(top_k=3) == [[1, 3, 4], [0, 1, 3]]
    assert kept(top_k=99) == kept()
    assert kept(top_p=0.01) == [[1], [3]]  # never empty
    assert kept(top_p=0.6) == [[1, 3], [1, 3]]  # .4 + .25 reach it, .4 does not
    assert kept(top_p=0.7) == [[1, 3, 4], [0, 1, 3]]
    assert kept(top_k=2, top_p=0.6) == [[1], [3]]  # after top-k, .4 is .4 / .65 of what is left
    assert keep_likely(torch.zeros(4), top_p=0.5).isfinite().sum() == 2  # two quarters are enough
    filtered = keep_likely(rows, top_p=0.7)
    assert torch.equal(filtered[filtered.isfinite()], rows[filtered.isfinite()])


def test_top_k_and_top_p_equal_the_transformers_library():
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = 3 * torch.randn(50, 40, generator=torch.Generator().manual_seed(2))
    for top_k, top_p in ((5, 0.8), (40, 0.3), (12, 0.99)):
        theirs = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, logits))
        assert torch.equal(keep_likely(logits, top_k, top_p), theirs)


@pytest.mark.parametrize("options", [
    {}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.8}, {"temperature": 2.0, "top_p": 0.8}
], ids=str)  # fmt: skip
def test_frequencies_of_samples(options):
    """8,000 first words against the distribution computed by hand."""
    weights = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2]) ** (1 / options.get("temperature", 1.0))
    ranked = (weights / weights.sum()).sort(descending=True)
    kept, mass = [], 0.0
    for probability, word in zip(*(side.tolist() for side in ranked), strict=True):
        if len(kept) < options.get("top_k", 5) and mass < options.get("top_p", 1.0) - 1e-6:
            kept.append(word)
            mass += probability
    expected = torch.zeros(5).index_copy(0, torch.tensor(kept), weights[kept]) / weights[kept].sum()
    table = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2]).log().expand(5, 5)
    drawn = sample(
        toy(table), torch.ones(2, 1, dtype=torch.long), eos=0, max_new_tokens=1, num_return_sequences=4000,
        generator=torch.Generator().manual_seed(0), **options,
    )  # fmt: skip
    assert drawn.ids.shape == (2, 4000, 1)
    frequencies = drawn.ids.flatten().bincount(minlength=5) / 8000
    torch.testing.assert_close(frequencies, expected, atol=0.02, rtol=0)
    assert (frequencies[expected == 0] == 0).all()
    torch.testing.assert_close(drawn.scores, table[0][drawn.ids.squeeze(-1)])  # the model's own log-probabilities


def test_samples_follow_their_seed(gpt2, prompts):
    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample(
            prompt=prompts, eos=EOS, max_new_tokens=10, num_return_sequences=2, generator=generator, **cached(gpt2)
        ).ids.tolist()

    assert draw(1) == draw(1) != draw(2)


def test_samples_of_several_lengths_are_filled_up_with_eos(gpt2, prompts):
    torch.manual_seed(0)
    ids = sample(prompt=prompts, eos=EOS, max_new_tokens=20, num_return_sequences=3, **cached(gpt2)).ids
    ends = lengths(ids)
    assert len(set(ends)) > 3
    assert all(set(row[end:]) <= {EOS} for row, end in zip(ids.flatten(0, 1).tolist(), ends, strict=True))


def test_the_cache_brings_its_own_reorder():
    class Steps:
        def __init__(self, ids):
            self.ids = ids

        def reorder(self, rows):
            return Steps(self.ids[rows])

    def step(ids, cache):
        return table[cache.ids[:, -1] + ids[:, -1]], Steps(torch.cat([cache.ids, ids], dim=1))

    table = torch.randn(12, 6, generator=torch.Generator().manual_seed(4))
    prompt = torch.tensor([[1], [2]])
    found = beam_search(step, prompt, Steps(prompt), eos=0, num_beams=3, max_new_tokens=6)
    for n, row in enumerate(found.ids[:, 0].tolist()):
        path, score = [int(prompt[n]), int(prompt[n])], 0.0
        for word in row[: row.index(0) + 1] if 0 in row else row:
            score += float(table[path[-2] + path[-1]].log_softmax(dim=-1)[word])
            path.append(word)
        assert score / (len(path) - 2) == pytest.approx(float(found.scores[n, 0]), abs=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({"num_beams": 2, "do_sample": True}, "exclude each other"),
    ({"temperature": 0.7}, "without do_sample"),
    ({"do_sample": True, "temperature": 0.0}, "above 0, not 0.0"),
    ({"do_sample": True, "top_p": 1.5}, r"\(0, 1\], not 1.5"),
    ({"do_sample": True, "top_k": -1}, "top_k must be at least 0"),
    ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 .* num_beams=2"),
    ({"num_beams": 0}, "num_beams=0"),
    ({"num_return_sequences": 2}, "num_return_sequences=2 .* num_beams=1"),
    ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ({"num_beams": 2, "max_new_tokens": 4, "min_new_tokens": 5}, "min_new_tokens=5"),
], ids=str)  # fmt: skip
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        decode(toy(torch.eye(3)), torch.zeros(1, 1, dtype=torch.long), eos=0, **options)
