"""BERTScore: how close are the words of caption and reference, each read in its sentence?

    found = compare_by_bert({"clipcap": captions, "nearest": others}, references)
    comparison.joined(found).table()                                # beside BLEU and the others
    found.difference("clipcap", "nearest", "BERTScore-F1")          # the paired interval

Every token of one text is matched with the token of the other whose contextual embedding has the largest cosine. Averaged
over the caption's tokens that is precision, over the reference's recall; F1 is their harmonic mean. The rare-word weights
(idf) are off, as in the published default. With several references the best one counts, for each of the three alone.

Source: Zhang et al. (2020), "BERTScore: Evaluating Text Generation with BERT", arXiv 1904.09675, equations 1-4; the
authors' package bert-score 0.3.13, whose numbers these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.comparison import Comparison, compare_means, named, refuse_bare
from helpers.environment import progress, shown
from helpers.errors import InputError, OfflineError
from helpers.hub import locate

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "roberta-large"
LAYER = 17  # the layer of roberta-large that agrees best with people (Zhang et al., table 8)
# What unrelated English sentences score there, measured by the authors: raw values lie between 0.8 and 1 for any caption.
# bert-score: rescale_baseline/en/roberta-large.tsv, row 17: P, R, F1.
BASELINE = np.array([0.83150584, 0.8314941, 0.83122575])
METRICS = ("BERTScore-P", "BERTScore-R", "BERTScore-F1")
RESCALED = tuple(f"{metric} rescaled" for metric in METRICS)
_CAPTIONS = 64  # scored at a time, for memory's sake


def bert_scores(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    model: str | Path = MODEL,
    layer: int | None = None,
    device: str | None = None,
) -> dict[str, np.ndarray]:
    """{each of METRICS: (N,)}, the scores of N captions beside N lists of references, as people write them: not tokenized.

    model: a name on the hub, or a folder written by save_pretrained(); layer: which of its layers is read, to be given
    for any model but roberta-large. For roberta-large's layer 17 the dictionary also holds RESCALED, the same three as
    (x - baseline) / (1 - baseline): 0 for unrelated sentences, 1 for equal ones.
    device: by default the GPU where there is one.

    A caption, or a reference, without a token scores 0 raw (rescaled -4.9). Texts are cut at what the model reads, 510
    tokens for RoBERTa. Raises InputError where the numbers of captions and lists differ, a list is empty, or the model has
    no such layer or the layer is not given; OfflineError within 2 seconds where the model is neither here nor reachable.
    """
    if len(captions) != len(references):
        raise InputError(f"{len(captions)} captions and {len(references)} lists of references: give one of each a picture")
    refuse_bare(references)
    reader = _load(model, layer, device)
    pairs, scores = list(zip(captions, references, strict=True)), []
    for start in progress(range(0, len(pairs), _CAPTIONS), desc="BERTScore", unit="batch", leave=False):
        part = pairs[start : start + _CAPTIONS]
        read = reader.embed([text for caption, group in part for text in (caption, *group)])
        for caption, group in part:
            scores.append(np.max([_match(*read[caption], *read[text]) for text in group], axis=0))
    table = np.array(scores).reshape(len(pairs), 3)  # (N, 3)
    found = dict(zip(METRICS, table.T, strict=True))
    if RESCALED[0] in metrics_of(model, layer):
        found |= zip(RESCALED, ((table - BASELINE) / (1 - BASELINE)).T, strict=True)
    return found


def metrics_of(model: str | Path = MODEL, layer: int | None = None) -> tuple[str, ...]:
    """METRICS, and RESCALED where the baseline is known: for roberta-large's layer 17."""
    return METRICS + RESCALED if Path(model).name == MODEL and layer in (None, LAYER) else METRICS


def compare_by_bert(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    *,
    model: str | Path = MODEL,
    layer: int | None = None,
    device: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    human: bool = False,
) -> Comparison:
    """BERTScore of every system ({name: {image: caption}}), as `metrics.compare` gives the others; the two can be `joined`.

    human: add the row HUMAN, each person scored against the picture's other references, as in
    `metrics.human_leave_one_out`; blank references are left out everywhere. As the best reference counts, people are
    there a little too low beside systems, which have one reference more.
    `notes` names the captions that are empty, and says why where there is nothing RESCALED. Other options, and errors, as
    in `bert_scores`; InputError also as from `metrics.compare`.
    """

    def scorer(_: list[int], captions: list[str], groups: list[list[str]]) -> dict[str, np.ndarray]:
        return bert_scores(captions, groups, model=model, layer=layer, device=device)

    found = compare_means(systems, references, scorer, resamples=resamples, seed=seed, human=human)
    for name, captions in systems.items():
        if empty := [image for image in references if not captions[image].strip()]:
            found.notes.append(f"{name!r} has empty captions, whose BERTScore is 0: {named(empty)}.")
    if RESCALED[0] not in metrics_of(model, layer):
        found.notes.append(
            f"BERTScore of {shown(model)}, layer {layer}, is not rescaled: what unrelated sentences score there has not "
            f"been measured, as it has for {MODEL}, layer {LAYER}."
        )
    return found


def _match(caption: Tensor, said: Tensor, reference: Tensor, wanted: Tensor) -> tuple[float, float, float]:
    """P, R, F1 of embeddings (C, D) and (R, D) of length 1; said (C,) and wanted (R,) are False on [CLS] and [SEP].

    The two special tokens may be matched, but their own matches are not counted.
    """
    if not said.any() or not wanted.any():
        return 0.0, 0.0, 0.0
    cosine = caption @ reference.T  # (C, R)
    precision = cosine.max(dim=1).values[said].mean().item()
    recall = cosine.max(dim=0).values[wanted].mean().item()
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


@dataclass(frozen=True)
class _Reader:
    """A model cut off above the layer that is read."""

    net: object
    tokenizer: object
    layer: int
    longest: int  # tokens, the special ones included

    def embed(self, texts: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """{text: (embeddings (L, D) of length 1, which tokens count (L,))}, on the CPU."""
        import torch
        from torch.nn.functional import normalize

        # RoBERTa's byte pairs tell a word within a sentence by the blank before it: so too the first one.
        blank = " " if self.net.config.model_type == "roberta" else ""
        special = [self.tokenizer.cls_token_id, self.tokenizer.sep_token_id]
        texts = sorted(dict.fromkeys(texts), key=len)  # texts of about one length share a batch
        found = {}
        for start in range(0, len(texts), 64):
            part = texts[start : start + 64]
            lines = [blank + text.strip() if text.strip() else "" for text in map(_printable, part)]
            batch = self.tokenizer(lines, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
            with torch.inference_mode():
                mask = batch["attention_mask"].to(self.net.device)
                hidden = self.net(input_ids=batch["input_ids"].to(self.net.device), attention_mask=mask).last_hidden_state
            hidden = normalize(hidden.float(), dim=-1).cpu()  # (B, L, D)
            for text, row, ids, real in zip(part, hidden, batch["input_ids"], batch["attention_mask"].bool(), strict=True):
                found[text] = row[real], ~torch.isin(ids[real], torch.tensor(special))
        return found


def _printable(text: str) -> str:
    """Half an emoji becomes a question mark: tokenizers refuse it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _load(model: str | Path, layer: int | None, device: str | None) -> _Reader:
    try:
        place = locate(model, what="text tower")
    except OfflineError:
        raise OfflineError(
            f"BERTScore's model {str(model)!r} must be downloaded, and its hub cannot be reached. Give a folder written by "
            "save_pretrained() instead (--bert DIR), and which of its layers is read (--bert-layer N)."
        ) from None
    try:
        return _read(place, model, layer, device)
    except OSError as error:  # a file is missing, or the hub knows no such name
        raise InputError(f"{shown(model)} cannot be loaded as a model: {str(error).strip().splitlines()[0]}") from error


def _read(place: dict[str, object], model: str | Path, layer: int | None, device: str | None) -> _Reader:
    import torch  # only now: without the model they would be seconds waited for nothing
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    config = AutoConfig.from_pretrained(**place)
    if layer is None and Path(model).name == MODEL:
        layer = LAYER
    if layer is None or not 1 <= layer <= config.num_hidden_layers:
        raise InputError(f"layer={layer}: say which layer of {shown(model)} is read, 1 to {config.num_hidden_layers}")
    config.num_hidden_layers = layer  # what lies above is not needed
    tokenizer = AutoTokenizer.from_pretrained(**place)
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id):
        raise InputError(f"the tokenizer of {shown(model)} has no [CLS], [SEP] or [PAD]: BERTScore reads BERT's relatives")
    talkative = logging.get_verbosity()
    logging.set_verbosity_error()  # the layers above are left over, as they should be
    logging.disable_progress_bar()
    try:
        net = AutoModel.from_pretrained(**place, config=config).float().eval()
    finally:
        logging.set_verbosity(talkative)
    # RoBERTa counts positions from its padding id + 1 on.
    offset = net.config.pad_token_id + 1 if net.config.model_type == "roberta" else 0
    longest = min(tokenizer.model_max_length, net.config.max_position_embeddings - offset)
    return _Reader(net.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer, layer, longest)
