"""Overlays: maps and covers by hand, the one cell that matters found, ranks with ties, words whole, nothing cut."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.captioner import Captioner
from helpers.data.encoders import load_clip
from helpers.data.tokens import Tokens, load_tokens
from helpers.errors import InputError
from helpers.figures import render
from helpers.models.decoder import DecoderCaptioner, DecoderConfig
from helpers.overlays import (
    Look,
    agreement,
    crop,
    look,
    merge,
    occlude,
    occlusion_maps,
    overlay_grid,
    pooled_share,
    truth,
    word_maps,
    words_of,
)
from tests.conftest import make_gpt2


def test_word_maps_are_the_mean_look_without_the_pooled_vector():
    layers = torch.tensor([[0.1, 0.2, 0.0, 0.1, 0.6], [0.3, 0.0, 0.0, 0.3, 0.4]])  # the second look, M = 4 cells and pooled
    attention = torch.full((1, 2, 2, 2, 5), 0.2)  # (B, layers, H, L, M+1)
    attention[0, :, :, 1] = layers[:, None]
    attention[0, :, 0, 1, :2] += 0.1  # two heads that differ, with the same mean
    attention[0, :, 1, 1, :2] -= 0.1
    maps = word_maps(attention, side=2)
    torch.testing.assert_close(maps, torch.tensor([[[[0.25, 0.25], [0.25, 0.25]], [[0.4, 0.2], [0.0, 0.4]]]]))
    torch.testing.assert_close(pooled_share(attention, side=2), torch.tensor([[0.2, 0.5]]))
    first = attention.roll(1, dims=-1)  # a ViT's order: what has no place comes first
    assert torch.equal(word_maps(first, side=2, first=1), maps)
    assert torch.equal(pooled_share(first, side=2, first=1), pooled_share(attention, side=2))


@pytest.mark.parametrize(("rows", "side", "message"), [(7, 3, "7 rows do not hold a grid of 3 x 3 cells from row 1 on"),
                                                       (2, 1, "pooled vector only")])  # fmt: skip
def test_maps_need_a_whole_grid(rows, side, message):
    with pytest.raises(InputError, match=message):
        word_maps(torch.ones(1, 1, 1, 2, rows), side, first=1)


def test_a_real_decoder_gives_one_map_of_each_kind_a_token():
    torch.manual_seed(0)
    model = DecoderCaptioner(DecoderConfig(vocabulary=11, bos=1, pooled_dim=3, memory_dim=3, width=8, layers=2, heads=2))

    def encode(pixels):
        cells = nn.functional.avg_pool2d(pixels, 2).flatten(2).transpose(1, 2)  # (N, 9, 3)
        return {"grid": cells, "pooled": cells.mean(dim=1)}

    pixels, tokens = torch.randn(3, 6, 6), torch.randint(0, 11, (4,))
    _, attention = model(encode(pixels[None]), tokens[None], return_attention=True)
    looks, drops = word_maps(attention.image, side=3)[0], occlusion_maps(model, encode, pixels, tokens, side=3)
    assert looks.shape == drops.shape == (4, 3, 3)
    torch.testing.assert_close(looks.sum(dim=(1, 2)), torch.ones(4))
    assert (drops != 0).all() and agreement(looks, drops).abs().le(1).all()


def test_occlude_changes_the_pixels_of_one_cell_to_the_mean_colour():
    pixels = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    before, copies = pixels.clone(), occlude(pixels, side=3)
    assert copies.shape == (9, 3, 6, 6) and torch.equal(pixels, before)
    for n, copy in enumerate(copies):
        row, column = divmod(n, 3)
        expected = pixels.clone()
        expected[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = pixels.mean(dim=(1, 2))[:, None, None]
        assert torch.equal(copy, expected)
    black = occlude(pixels, side=3, value=torch.zeros(3))
    assert torch.equal(black[8] == 0, torch.arange(6).gt(3).outer(torch.arange(6).gt(3)).expand(3, 6, 6))


def test_cells_that_do_not_divide_the_picture_still_cover_it_once():
    pixels = torch.ones(3, 7, 7)
    assert torch.equal(occlude(pixels, side=3, value=torch.zeros(3)).eq(0).sum(dim=0), torch.ones(3, 7, 7).long())


class OneCell(nn.Module):
    """Says token 1 gladly where cell 6 of the 4 x 4 is bright, but only right after token 2; sees no other cell."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Dropout(0.5).eval()
        self.dropout = nn.Dropout(0.5)
        self.batches = []

    def forward(self, image, tokens):
        self.batches.append(len(tokens))
        after_two = nn.functional.pad(tokens[:, :-1] == 2, (1, 0))  # (N, L)
        logits = torch.zeros(*tokens.shape, 4)
        logits[..., 1] = self.dropout(image["grid"][:, 6, :1]) * after_two
        return logits


def brightness(pixels):
    """16 cells, one channel."""
    cells = nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 2)  # (N, 1, 4, 4)
    return {"grid": cells.flatten(2).transpose(1, 2), "pooled": torch.zeros(len(pixels), 1)}


def test_occlusion_finds_the_one_cell_that_matters_and_the_word_it_matters_to():
    pixels = torch.zeros(3, 8, 8)
    pixels[:, 2:4, 4:6] = 4.0  # cell 6; the mean colour is 4/16
    model = OneCell().train()
    model.frozen.eval()
    drops = occlusion_maps(model, brightness, pixels, [1, 2, 1, 3], side=4, batch_size=5)
    assert drops.shape == (4, 4, 4) and model.batches == [5, 5, 5, 2]
    expected = torch.zeros(4, 4, 4)
    expected[2, 1, 2] = (4 - math.log(math.exp(4) + 3)) - (0.25 - math.log(math.exp(0.25) + 3))
    torch.testing.assert_close(drops, expected)
    assert model.training and model.dropout.training and not model.frozen.training and not drops.requires_grad


def test_occlusion_restores_the_model_when_something_fails():
    model = OneCell().train()
    with pytest.raises(IndexError):
        occlusion_maps(model, lambda pixels: {"grid": torch.zeros(len(pixels), 1, 1), "pooled": pixels}, torch.zeros(3, 8, 8),
                       [1], side=4)  # fmt: skip
    assert model.training


def test_agreement_is_spearmans_with_ties_averaged():
    rising = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert agreement(rising, rising.exp()) == 1 and agreement(rising, -rising) == -1
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    torch.testing.assert_close(agreement(torch.tensor([[0.0, 7.0], [7.0, 9.0]]), rising), torch.tensor(4.5 / math.sqrt(22.5)))
    # Ranks 2, 2, 2, 4 against 4, 3, 2, 1: the last cell alone decides: covariance -3, variances 3 and 5
    torch.testing.assert_close(agreement(torch.tensor([[0.0, 0], [0, 1]]), -rising), torch.tensor(-3 / math.sqrt(15)))


def test_agreement_takes_many_maps_and_knows_what_it_cannot_say():
    maps = torch.stack([torch.arange(9.0).view(3, 3), torch.ones(3, 3) / 9, torch.arange(9.0).view(3, 3)])
    maps[2, 1, 1] = math.nan  # one unknown cell: no answer, rather than a wrong one
    found = agreement(torch.stack([maps, -maps]), maps[:1].expand(2, 3, 3, 3))
    assert found.shape == (2, 3)
    assert found[0, 0] == 1 and found[1, 0] == -1 and found[:, 1:].isnan().all()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    from transformers import GPT2TokenizerFast

    return Tokens(GPT2TokenizerFast.from_pretrained(make_gpt2(tmp_path_factory.mktemp("words") / "gpt2", width=2)))


@pytest.fixture(scope="module")
def bert():
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##ning", "##s", "."]
    tokenizer = BertWordPieceTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}, lowercase=True)
    return Tokens(BertTokenizerFast(tokenizer_object=tokenizer._tokenizer))


def test_word_pieces_of_bert_become_words(bert):
    ids = [*bert.encode("A dog running, dogs."), bert.eos, bert.pad, bert.pad]
    assert words_of(bert, ids) == [
        ("a", [0]), ("dog", [1]), ("running", [2, 3]), ("[UNK]", [4]), ("dogs", [5, 6]), (".", [7]),
    ]  # fmt: skip
    assert words_of(bert, torch.tensor([8, 6])) == [("##ning", [0]), ("dog", [1])]  # a caption may begin anyhow
    assert words_of(bert, [bert.eos]) == []


def test_byte_pairs_of_gpt2_become_words(gpt2):
    ids = gpt2.encode("A red kangaroo's t-shirt near a dog.")
    words = words_of(gpt2, [*ids, gpt2.eos, gpt2.eos])
    assert [word for word, _ in words] == ["A", "red", "kangaroo's", "t-shirt", "near", "a", "dog", "."]
    assert [place for _, places in words for place in places] == list(range(len(ids)))
    assert len(words[2][1]) > 1 and words_of(gpt2, torch.tensor(ids)) == words


def test_maps_of_pieces_are_averaged():
    words, maps = [("a", [0]), ("running", [1, 2])], torch.arange(12.0).view(3, 2, 2)
    assert torch.equal(merge(maps, words), torch.stack([maps[0], (maps[1] + maps[2]) / 2]))
    assert torch.equal(merge(torch.tensor([1.0, 2, 4, 9]), words), torch.tensor([1.0, 3.0]))


PICTURE = Image.new("RGB", (40, 40), (200, 120, 40))


def test_each_word_has_its_picture_its_title_and_its_note():
    words = ["a", "$1", "$2", "antidisestablishmentarianism", "."]
    figure = overlay_grid(PICTURE, words, torch.rand(5, 4, 4), columns=3, notes=["agreement 0.62"] * 4 + [""])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["picture", *words]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["", *["agreement 0.62"] * 4, ""]
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box, title, note = (part.get_window_extent() for part in (axes, axes._left_title, axes.texts[0]))
        assert box.width == pytest.approx(box.height)
        assert title.y0 >= box.y1 and title.y1 <= height and title.x1 <= box.x1 + 1 <= width
        assert not axes.texts[0].get_text() or (note.y0 >= 0 and note.y1 <= box.y0 and note.x1 <= box.x1 + 1)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert boxes[0].y0 > boxes[3].y1 and boxes[0].x0 == pytest.approx(boxes[3].x0)
    assert render(figure) == render(figure)


def test_light_falls_where_the_word_looked():
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, 3] = 0.7  # the upper right cell
    maps[1] = 1 / 16  # everywhere
    maps[2] = -1.0  # nowhere
    plain, corner, everywhere, nowhere = (axes.images[0].get_array() for axes in overlay_grid(PICTURE, "abc", maps).axes)
    eighth = len(plain) // 8
    assert corner[eighth // 2, -eighth // 2].tolist() == plain[0, 0].tolist() == [200, 120, 40]
    assert len(set(corner[-1, 0].tolist())) == 1 and corner[-1, 0].max() < 100  # grey and dark
    middle = corner[eighth, -2 * eighth]  # between two cells: half lit
    assert corner[-1, 0, 0] + 20 < middle[0] < plain[0, 0, 0] - 20
    assert (everywhere == plain).all() and (nowhere == corner[-1, 0]).all()


def test_overlays_refuse_what_the_model_did_not_see_and_unequal_lists(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    assert len(overlay_grid(tmp_path / "a.png", ["a"], torch.ones(1, 2, 2)).axes) == 2
    with pytest.raises(InputError, match="40 x 30: crop it"):
        overlay_grid(PICTURE.resize((40, 30)), ["a"], torch.ones(1, 2, 2))
    with pytest.raises(InputError, match="2 words need as many maps, not 1"):
        overlay_grid(PICTURE, ["a", "b"], torch.ones(1, 2, 2))
    with pytest.raises(InputError, match="notes"):
        overlay_grid(PICTURE, ["a"], torch.ones(1, 2, 2), notes=["x", "y"])


def test_a_look_at_a_picture(resnet_file, bert_folder, photos):
    """Words, maps and drops of a real captioner's caption belong together; the maps are those of its own attention."""
    encoder, tokens = load_clip(resnet_file), load_tokens(bert_folder)
    torch.manual_seed(3)
    config = DecoderConfig(len(tokens), tokens.bos, encoder.dim, encoder.grid[1], width=32, layers=1, heads=2)
    captioner = Captioner(encoder, tokens, DecoderCaptioner(config).eval())
    with torch.no_grad():  # fresh weights say one thing for ever: louder ones say something
        for parameter in captioner.model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    picture = next((photos / "Images").iterdir())
    seen = look(captioner, picture)
    assert seen.caption == captioner.caption([picture])[0]
    W = len(seen.words)
    assert W > 0 and seen.maps.shape == seen.drops.shape == (W, 2, 2) and seen.pooled.shape == (W,)
    torch.testing.assert_close(seen.maps.sum(dim=(1, 2)), torch.ones(W))
    assert ((seen.pooled > 0) & (seen.pooled < 1)).all()


def test_the_crop_is_the_square_that_clip_sees(clip_file):
    encoder = load_clip(clip_file)
    wide = Image.effect_noise((200, 100), 60).convert("RGB")
    assert crop(wide).size == (100, 100)
    cropped, whole = (encoder.pixels(image)[..., 2:-2] for image in (crop(wide), wide))  # its edge has neighbours only in one
    torch.testing.assert_close(cropped, whole, atol=0.02, rtol=0)


def test_truth_tells_a_true_overlay_from_a_false_one():
    torch.manual_seed(0)
    drops = [torch.rand(2, 3, 3) + 1 for _ in range(12)]  # (W, S, S): every word hangs on the picture
    true = truth([Look("", ["a", "b"], d / d.sum(dim=(1, 2), keepdim=True), d, torch.zeros(2)) for d in drops])
    assert true.agreement == pytest.approx(np.ones(12)) and (true.hits == 1).all() and true.better
    assert abs(true.chance.mean()) < 0.3 and "agrees with covering better than" in str(true)
    false = truth([Look("", ["a", "b"], torch.rand(2, 3, 3), d, torch.zeros(2)) for d in drops])
    assert not false.better and "does not agree" in str(false)
    idle = Look("", ["a"], torch.rand(1, 3, 3), torch.zeros(1, 3, 3), torch.zeros(1))
    assert len(truth([*[Look("", ["a"], d[:1], d[:1], torch.zeros(1)) for d in drops[:3]], idle]).hits) == 3
    nothing = truth([idle, idle])
    assert "nothing to compare" in str(nothing) and not nothing.better and not nothing.peaked
