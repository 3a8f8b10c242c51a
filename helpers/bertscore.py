"""BERTScore: how close are the words of caption and reference, each read in its sentence?

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
_PICTURES = 64  # whose texts are held in memory at a time


def bert_score(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    model: str | Path = MODEL,
    layer: int | None = None,
    device: str | None = None,
) -> dict[str, np.ndarray]:
    """{"BERTScore P": (P,), "BERTScore R", "BERTScore F1"} of each picture, in the order of `references`.

    candidates: {image: caption}, references: {image: [caption, ...]}, as people write them: not tokenized.
    model: a name on the hub, or a folder written by save_pretrained(); layer: which of its layers is read, to be given
    for any model but roberta-large. For roberta-large's layer 17 the dictionary also holds the same three "rescaled",
    (x - baseline) / (1 - baseline): 0 for unrelated sentences, 1 for equal ones.
    device: by default the GPU where there is one.

    A caption, or a reference, without a token scores 0 raw (rescaled -4.9). Texts are cut at what the model reads, 510
    tokens for RoBERTa. Raises InputError where the model has no such layer or the layer is not given, OfflineError within
    2 seconds where the model is neither here nor reachable.
    """
    reader = _load(model, layer, device)
    images, scores = list(references), []
    for start in progress(range(0, len(images), _PICTURES), desc="BERTScore"):
        part = images[start : start + _PICTURES]
        read = reader.embed([candidates[image] for image in part] + [text for i in part for text in references[i]])
        for image in part:
            pairs = [_match(*read[candidates[image]], *read[text]) for text in references[image]]
            scores.append(np.max(pairs, axis=0))
    table = np.array(scores).reshape(len(images), 3)  # (P, 3)
    named = dict(zip(("BERTScore P", "BERTScore R", "BERTScore F1"), table.T, strict=True))
    if Path(model).name == MODEL and reader.layer == LAYER:
        rescaled = (table - BASELINE) / (1 - BASELINE)
        named |= {f"{name} rescaled": column for name, column in zip(list(named), rescaled.T, strict=True)}
    return named


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
            "save_pretrained() as `model` (with its `layer`), for example one named roberta-large."
        ) from None
    import torch  # only now: without the model they would be seconds waited for nothing
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    config = AutoConfig.from_pretrained(**place)
    if layer is None and Path(model).name == MODEL:
        layer = LAYER
    if layer is None or not 0 <= layer <= config.num_hidden_layers:
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
