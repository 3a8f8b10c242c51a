"""GPT-2 byte pairs and BERT word pieces behind one face: encode, decode, bos, eos, pad."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helpers.errors import InputError
from helpers.hub import locate


class Tokens:
    """A tokenizer of the transformers library with the few things that captioning needs.

    bos, eos, pad are ids. GPT-2 has one special token, <|endoftext|>, which serves as all three: padding is told from a
    real end by the mask, never by the id, so no row has to be added to a frozen embedding. BERT's are [CLS], [SEP], [PAD].
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        is_bert = tokenizer.sep_token_id is not None
        self.bos = tokenizer.cls_token_id if is_bert else tokenizer.bos_token_id
        self.eos = tokenizer.sep_token_id if is_bert else tokenizer.eos_token_id
        if self.bos is None:
            self.bos = self.eos
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` up to the first eos, special tokens left out, on one line: one blank between words."""
        ids = [int(token) for token in ids]
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        return " ".join(self.tokenizer.decode(ids, skip_special_tokens=True).split())


def load_tokens(name: str | Path) -> Tokens:
    """The tokenizer in a folder written by save_pretrained(), or of a hub name.

    Raises InputError where the folder gives a tokenizer without words (transformers 5 returns an EMPTY one, silently,
    where files are missing), and OfflineError where a name is neither cached nor reachable.
    """
    from transformers import AutoTokenizer

    where = locate(name, what="tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(**where)
    if len(tokenizer) < 20:  # 5 or so: only the special tokens
        raise InputError(f"the tokenizer of {name} has only {len(tokenizer)} tokens: are its files (tokenizer.json) missing?")
    return Tokens(tokenizer)
