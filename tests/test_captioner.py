"""One `caption()` for every system: several captions, prompts, lengths, blocked repetitions; greedy stays what it was."""

from itertools import pairwise

import pytest
import torch

from helpers import captioner as captioner_module
from helpers.captioner import Captioner, decoding_options
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap
from helpers.models.decoder import DecoderCaptioner, DecoderConfig


@pytest.fixture(scope="module")
def clipcap(clip_file, gpt2_folder):
    torch.manual_seed(0)
    encoder, tokens = load_clip(clip_file), load_tokens(gpt2_folder)
    model = ClipCap.build(encoder.dim, load_language_model(gpt2_folder), prefix_length=4, layers=1, heads=2)
    return Captioner(encoder, tokens, model)


@pytest.fixture(scope="module")
def decoder(resnet_file, bert_folder):
    torch.manual_seed(0)
    encoder, tokens = load_clip(resnet_file), load_tokens(bert_folder)
    config = DecoderConfig(len(tokens), tokens.bos, encoder.dim, encoder.grid[1], width=32, layers=1, heads=2)
    model = DecoderCaptioner(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return Captioner(encoder, tokens, model)


@pytest.fixture(params=["clipcap", "decoder"])
def captioner(request):
    return request.getfixturevalue(request.param)


def features(captioner, count=4):
    draw = torch.Generator().manual_seed(1)
    pooled = torch.randn(count, captioner.encoder.dim, generator=draw)
    if captioner.model.sees == "pooled":
        return pooled
    return {"grid": torch.randn(count, *captioner.encoder.grid, generator=draw), "pooled": pooled}


def ids_of(captioner, **options):
    return captioner.model.generate(features(captioner), eos=captioner.tokens.eos, **options)


def test_the_default_is_greedy_and_one_string_a_picture(captioner):
    captions = captioner.caption_features(features(captioner), max_new_tokens=8)
    greedy = ids_of(captioner, max_new_tokens=8, do_sample=False, num_beams=1)
    assert captions == [captioner.tokens.decode(row) for row in greedy.tolist()]
    assert decoding_options() == {"max_new_tokens": 40, "do_sample": False, "num_beams": 1}


@pytest.mark.parametrize("beams", [1, 4])
def test_several_captions_are_the_hypotheses_best_first(captioner, beams):
    options = {"max_new_tokens": 6, "min_new_tokens": 2, "no_repeat_ngram": 1}
    several = captioner.caption_features(features(captioner), num_return=3, beams=beams, **options)
    assert len(several) == 4 and all(1 <= len(each) <= 3 and len(set(each)) == len(each) for each in several)
    assert any(len(each) > 1 for each in several)  # a random GPT-2 says bytes that are no letters, and look all the same
    best = captioner.caption_features(features(captioner), beams=max(3, beams), **options)
    assert [each[0] for each in several] == best
    alone = captioner.caption_features(features(captioner), num_return=3, beams=beams, batch_size=1, **options)
    assert alone == several


def test_several_captions_of_picture_files(captioner, photos):
    pictures = sorted((photos / "Images").iterdir())[:2]
    several = captioner.caption(pictures, num_return=2, max_new_tokens=4)
    assert len(several) == 2 and all(isinstance(caption, str) for each in several for caption in each)


def test_draws_are_different_and_seeded(captioner):
    options = {"num_return": 4, "top_p": 0.95, "temperature": 1.5, "max_new_tokens": 6}
    torch.manual_seed(0)
    first = captioner.caption_features(features(captioner), **options)
    assert all(len(each) == len(set(each)) == 4 for each in first)
    torch.manual_seed(0)
    assert captioner.caption_features(features(captioner), **options) == first
    assert captioner.caption_features(features(captioner), **options) != first


class Talker(torch.nn.Module):
    """Says the next of `rounds` each time it is asked: lists of rows, one list a picture."""

    sees = "pooled"

    def __init__(self, *rounds):
        super().__init__()
        self.rounds, self.asked, self.parameter = list(rounds), [], torch.nn.Parameter(torch.zeros(1))

    def generate(self, image, **options):
        self.asked.append(image[:, 0].tolist())
        return torch.tensor(self.rounds.pop(0)).flatten(0, 1)


class Letters:
    """Ids are letters, 0 ends."""

    eos = 0

    def decode(self, ids):
        return "".join(chr(96 + i) for i in ids[: ids.index(0) if 0 in ids else None])

    def encode(self, text):
        return [ord(letter) - 96 for letter in text]


def talk(*rounds, **options):
    model = Talker(*rounds)
    return Captioner(None, Letters(), model).caption_features(torch.tensor([[0.0], [1.0]]), **options), model.asked


def test_draws_that_coincide_are_drawn_again_where_captions_are_lacking(monkeypatch):
    said, asked = talk([[[1, 0], [2, 0]], [[3, 0], [3, 0]]], [[[3, 0], [4, 0]]], num_return=2, top_p=0.9)
    assert said == [["a", "b"], ["c", "d"]] and asked == [[0, 1], [1]]
    monkeypatch.setattr(captioner_module, "DRAWS", 2)
    said, asked = talk([[[1, 0], [1, 0]]] * 2, [[[1, 0], [1, 0]]] * 2, num_return=2, top_p=0.9)
    assert said == [["a"], ["a"]] and len(asked) == 2, "what there is, after so many rounds"


def test_hypotheses_that_spell_the_same_or_nothing_are_left_out():
    said, asked = talk([[[1, 0], [1, 0], [2, 0]], [[0, 0], [0, 0], [0, 0]]], num_return=2, beams=3)
    assert said == [["a", "b"], [""]] and len(asked) == 1
    said, _ = talk([[[1, 0], [0, 0]], [[0, 0], [0, 0]]], num_return=2, prompt="xy")
    assert said == [["xya"], ["xy"]]


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"temperature": 1.3}, {"num_return": 3},
                                     {"num_return": 3, "top_p": 0.9}], ids=str)  # fmt: skip
def test_captions_begin_with_the_prompt(captioner, options):
    options = {"max_new_tokens": 6, "min_new_tokens": 2} | options
    captions = captioner.caption_features(features(captioner), prompt="A red dog ", **options)
    flat = captions if "num_return" not in options else [caption for each in captions for caption in each]
    assert all(caption.startswith("A red dog") for caption in flat)
    assert any(len(caption) > len("A red dog") for caption in flat)


def test_the_prompt_is_read(captioner):
    limits = {"max_new_tokens": 6, "min_new_tokens": 6}
    one = captioner.caption_features(features(captioner), prompt="a dog", **limits)
    other = captioner.caption_features(features(captioner), prompt="in the park", **limits)
    assert [c.removeprefix("a dog") for c in one] != [c.removeprefix("in the park") for c in other]
    assert captioner.caption_features(features(captioner), prompt=" ") == captioner.caption_features(features(captioner))
    with pytest.raises(InputError, match="holds the token that ends a caption"):
        captioner.caption_features(features(captioner), prompt=captioner.tokens.tokenizer.decode([captioner.tokens.eos]))
    with pytest.raises(InputError, match="positions"):
        captioner.caption_features(features(captioner), prompt="a dog " * 70)


@pytest.mark.parametrize("beams", [1, 3])
def test_lengths_and_repetitions(captioner, beams):
    """What decoding_options makes of the names, as each model's generate() obeys it."""
    options = decoding_options(beams=beams, max_new_tokens=12, min_new_tokens=9, no_repeat_ngram=2)
    ids = ids_of(captioner, **options)
    assert ids.shape[1] <= 12 and (ids[:, :9] != captioner.tokens.eos).all()
    for row in ids.tolist():
        row = row[: row.index(captioner.tokens.eos)] if captioner.tokens.eos in row else row
        pairs = list(pairwise(row))
        assert len(set(pairs)) == len(pairs)
    free = ids_of(captioner, **decoding_options(max_new_tokens=12, min_new_tokens=9))
    pairs = [list(pairwise(row)) for row in free.tolist()]
    assert any(len(set(each)) < len(each) for each in pairs), "nothing to block: the test says nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_return": 0}, "num_return must be at least 1"), ({"no_repeat_ngram": -1}, "no_repeat_ngram must be at least 0"),
     ({"min_new_tokens": -1}, "min_new_tokens must lie"), ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
     ({"min_new_tokens": 9, "max_new_tokens": 8}, "between 0 and max_new_tokens=8, not 9")],
)  # fmt: skip
def test_values_out_of_range(captioner, options, message):
    with pytest.raises(InputError, match=message):
        captioner.caption_features(features(captioner), **options)
