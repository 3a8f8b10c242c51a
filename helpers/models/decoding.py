"""Decoding: from "how likely is each next word" to whole captions, for any model that takes one step at a time.

    step(ids, cache) -> (logits, cache)

ids are the newest tokens: the whole prompt (N, L) at first, then one token a row (N, 1); logits (N, V) are those of the
token after them; the cache is whatever the model wants handed back, its own method `reorder(rows)` (or the argument
`reorder(cache, rows)`) gives one whose row n is the old row rows[n]. Rows stay grouped by picture: a row only ever takes
the place of a row of the same picture. Options have the names of the transformers library's generate().

Letters: B prompts (pictures), K beams, R hypotheses returned for each, N = B * K or B * R rows, T new tokens, V words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from helpers.errors import InputError

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
Reorder = Callable[[Any, Tensor], Any]


class Hypotheses(NamedTuple):
    """R captions for each prompt, best first after beam search. The prompt itself is not part of them.

    ids (B, R, T), each ended by eos (unless cut at max_new_tokens) and filled up with it; scores (B, R): the sum of
    log-probabilities, in beam search over length ** length_penalty; -inf where there are no R captions to return.
    """

    ids: Tensor
    scores: Tensor


def decode(
    step: Step,
    prompt: Tensor,
    cache: Any = None,
    *,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    num_return_sequences: int = 1,
    **limits: Any,
) -> Hypotheses:
    """One door to all three: `sample` with do_sample, `beam_search` with num_beams > 1, else `greedy`; `limits` as theirs."""
    if do_sample and num_beams > 1:
        raise InputError("beam search and sampling exclude each other: give num_beams, or do_sample")
    if not do_sample and (temperature, top_k, top_p) != (1.0, 0, 1.0):
        raise InputError("temperature, top_k and top_p change nothing without do_sample=True")
    if do_sample:
        drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "generator": generator}
        return sample(step, prompt, cache, num_return_sequences=num_return_sequences, **drawing, **limits)
    if num_beams == num_return_sequences == 1:
        return greedy(step, prompt, cache, **limits)
    beams = {"num_beams": num_beams, "length_penalty": length_penalty, "num_return_sequences": num_return_sequences}
    return beam_search(step, prompt, cache, **beams, **limits)


@torch.no_grad()
def greedy(
    step: Step, prompt: Tensor, cache: Any = None, *, reorder: Reorder | None = None, **limits: Any
) -> Hypotheses:
    """The most likely next token, over and over, until eos. `limits` as in `_word_by_word`; nothing to reorder here."""
    return _word_by_word(lambda log_probs: log_probs.argmax(dim=-1, keepdim=True), step, prompt, cache, **limits)


@torch.no_grad()
def sample(
    step: Step,
    prompt: Tensor,
    cache: Any = None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    num_return_sequences: int = 1,
    reorder: Reorder | None = None,
    **limits: Any,
) -> Hypotheses:
    """Draw each token; several draws for a prompt may coincide. `limits` as in `_word_by_word`.

    temperature below 1 sharpens the distribution, above 1 flattens it; then `keep_likely` cuts its tail. `generator` lives
    on the prompt's device; without one, torch's global generator draws. Scores are those of the model's own distribution.
    """
    if temperature <= 0:
        raise InputError(f"temperature must be above 0, not {temperature}; towards 0 it becomes greedy decoding")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p must lie in (0, 1], not {top_p}")
    if top_k < 0 or num_return_sequences < 1:
        raise InputError("top_k must be at least 0 (0: no limit), num_return_sequences at least 1")

    def draw(log_probs: Tensor) -> Tensor:
        probabilities = keep_likely(log_probs / temperature, top_k, top_p).softmax(dim=-1)  # (N, V)
        return probabilities.multinomial(1, generator=generator)  # (N, 1)

    prompt, cache = _repeat(prompt, cache, num_return_sequences, reorder)
    ids, scores = _word_by_word(draw, step, prompt, cache, **limits)
    R = num_return_sequences
    return Hypotheses(ids.view(-1, R, ids.shape[-1]), scores.view(-1, R))


def keep_likely(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """The logits (..., V) with the unlikely tail at -inf.

    First top-k (Fan et al. 2018, arXiv 1805.04833; 0: no limit), then of what is left the nucleus: the smallest set of most
    likely tokens with probability of top_p together (Holtzman et al. 2020, arXiv 1904.09751, equation 2).
    """
    if top_k > 0:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        before = probabilities.cumsum(dim=-1) - probabilities  # probability of all tokens that are more likely
        tail = (before >= top_p).gather(-1, order.argsort(dim=-1))  # back in the order of the vocabulary
        logits = logits.masked_fill(tail, -torch.inf)
    return logits


@torch.no_grad()
def beam_search(
    step: Step,
    prompt: Tensor,
    cache: Any = None,
    *,
    eos: int,
    num_beams: int = 5,
    length_penalty: float = 1.0,
    num_return_sequences: int = 1,
    max_new_tokens: int = 40,
    min_new_tokens: int = 0,
    no_repeat_ngram_size: int = 0,
    reorder: Reorder | None = None,
) -> Hypotheses:
    """Keep the num_beams best beginnings of a caption, extend each by every word, keep the best again.

    A hypothesis that ends is set aside with the score `sum of log-probabilities / length ** length_penalty` (length counts
    its end token, not the prompt; 0 favours short captions, larger values longer ones). A picture is done once num_beams
    hypotheses are set aside and the best open one, at its present length, would score no better than the worst of them:
    the transformers library's rule with early_stopping=False. The hypotheses returned for a picture all differ.
    """
    _check_limits(max_new_tokens, min_new_tokens)
    if not 1 <= num_return_sequences <= num_beams:
        raise InputError(f"num_return_sequences={num_return_sequences} must lie between 1 and num_beams={num_beams}")
    B, K, T = len(prompt), num_beams, max_new_tokens
    ids, cache = _repeat(prompt, cache, K, reorder)
    hypotheses = prompt.new_full((B, K, T), eos)
    scores = torch.full((B, K), -torch.inf, device=prompt.device)  # sums of log-probabilities
    scores[:, 0] = 0  # the beams of a picture start equal: only the first counts, or all would stay equal
    finished, finished_scores = hypotheses.clone(), torch.full_like(scores, -torch.inf)
    undone = torch.ones(B, 1, dtype=torch.bool, device=prompt.device)

    for length in range(1, T + 1):
        logits, cache = step(ids, cache)
        words = hypotheses[:, :, : length - 1].flatten(0, 1)  # (B*K, length-1)
        log_probs = _log_probs(logits, words, eos, min_new_tokens, no_repeat_ngram_size)  # (B*K, V)
        V = log_probs.shape[-1]
        # 2K candidates: were K of them to end here, K others would still be left to go on with.
        totals = scores[:, :, None] + log_probs.view(B, K, V)
        candidate_scores, candidates = totals.flatten(1).topk(2 * K)  # (B, 2K) of (B, K*V)
        parents, tokens = candidates // V, candidates % V  # (B, 2K)
        extended = hypotheses.take_along_dim(parents[:, :, None], dim=1)  # (B, 2K, T)
        extended[:, :, length - 1] = tokens
        ends = (tokens == eos) | (length == T)

        # Set aside what ends, if it is among the K best candidates, and keep the best K of all set aside so far.
        ending = candidate_scores[:, :K] / length**length_penalty
        ending = ending.masked_fill(~(ends[:, :K] & undone), -torch.inf)
        finished_scores, best = torch.cat([finished_scores, ending], dim=1).topk(K)  # (B, K) of (B, 2K)
        finished = torch.cat([finished, extended[:, :K]], dim=1).take_along_dim(best[:, :, None], dim=1)  # (B, K, T)

        # Go on with the best K that do not end.
        scores, best = candidate_scores.masked_fill(ends, -torch.inf).topk(K)  # (B, K) of (B, 2K)
        undone &= scores[:, :1] / length**length_penalty > finished_scores[:, -1:]
        if length == T or not undone.any():
            break
        hypotheses = extended.take_along_dim(best[:, :, None], dim=1)  # (B, K, T)
        rows = parents.gather(1, best) + K * torch.arange(B, device=prompt.device)[:, None]  # (B, K)
        cache = _reorder(cache, rows.flatten(), reorder)
        ids = hypotheses[:, :, length - 1].reshape(B * K, 1)

    R = num_return_sequences
    return Hypotheses(_trim(finished[:, :R], eos), finished_scores[:, :R])


def _word_by_word(
    choose: Callable[[Tensor], Tensor],
    step: Step,
    ids: Tensor,
    cache: Any,
    *,
    eos: int,
    max_new_tokens: int = 40,
    min_new_tokens: int = 0,
    no_repeat_ngram_size: int = 0,
) -> Hypotheses:
    """Append what `choose` picks from the log-probabilities (N, V) until every row has its eos, or max_new_tokens.

    eos is forbidden before min_new_tokens tokens; no run of no_repeat_ngram_size tokens (0: any) comes twice in a caption.
    """
    _check_limits(max_new_tokens, min_new_tokens)
    N, device = len(ids), ids.device
    words = ids[:, :0]  # (N, 0): grows to (N, T)
    scores = torch.zeros(N, device=device)
    undone = torch.ones(N, dtype=torch.bool, device=device)
    for _ in range(max_new_tokens):
        logits, cache = step(ids, cache)
        log_probs = _log_probs(logits, words, eos, min_new_tokens, no_repeat_ngram_size)
        ids = choose(log_probs).masked_fill(~undone[:, None], eos)  # (N, 1)
        scores += log_probs.gather(1, ids).squeeze(1).masked_fill(~undone, 0)
        words = torch.cat([words, ids], dim=1)
        undone &= ids.squeeze(1) != eos
        if not undone.any():
            break
    return Hypotheses(words[:, None], scores[:, None])


def _log_probs(logits: Tensor, words: Tensor, eos: int, min_new_tokens: int, no_repeat_ngram_size: int) -> Tensor:
    """Log-probabilities (N, V) of the next token, -inf on what may not come; words (N, T) are the new tokens so far."""
    log_probs = logits.float().log_softmax(dim=-1)
    if words.shape[1] < min_new_tokens:
        log_probs[:, eos] = -torch.inf
    if 0 < no_repeat_ngram_size <= words.shape[1]:
        ngrams = words.unfold(1, no_repeat_ngram_size, 1)  # (N, T-n+1, n)
        newest = words[:, words.shape[1] + 1 - no_repeat_ngram_size :]  # (N, n-1)
        row, start = (ngrams[..., :-1] == newest[:, None]).all(dim=-1).nonzero(as_tuple=True)
        log_probs[row, ngrams[row, start, -1]] = -torch.inf
    return log_probs


def _repeat(prompt: Tensor, cache: Any, times: int, reorder: Reorder | None) -> tuple[Tensor, Any]:
    """Every prompt, with its rows of the cache, `times` times in a row."""
    if times == 1:
        return prompt, cache
    rows = torch.arange(len(prompt), device=prompt.device).repeat_interleave(times)  # (N,)
    return prompt[rows], cache if cache is None else _reorder(cache, rows, reorder)


def _reorder(cache: Any, rows: Tensor, reorder: Reorder | None) -> Any:
    return reorder(cache, rows) if reorder else cache.reorder(rows)


def _trim(ids: Tensor, eos: int) -> Tensor:
    """Without the columns of filling beyond the longest hypothesis and its eos."""
    longest = int((ids != eos).sum(dim=-1).max())
    return ids[..., : longest + 1]


def _check_limits(max_new_tokens: int, min_new_tokens: int) -> None:
    if max_new_tokens < 1 or min_new_tokens > max_new_tokens:
        raise InputError(
            f"max_new_tokens={max_new_tokens} must be at least 1 and at least min_new_tokens={min_new_tokens}"
        )
