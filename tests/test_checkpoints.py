"""A captioner's folder: what is in it, that it gives the same captions again, and every way in which it can be wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import files
from helpers.captioner import Captioner
from helpers.checkpoints import load_captioner, save_captioner
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap
from helpers.models.cross_attention import CrossAttentionCaptioner
from helpers.models.decoder import DecoderCaptioner, DecoderConfig
from tests.conftest import make_clip, make_gpt2


@pytest.fixture(scope="module")
def captioner(clip_file, gpt2_folder):
    torch.manual_seed(0)
    encoder, tokens = load_clip(clip_file), load_tokens(gpt2_folder)
    model = ClipCap.build(encoder.dim, load_language_model(gpt2_folder), prefix_length=4, layers=1, heads=2)
    return Captioner(encoder, tokens, model, {"clip": str(clip_file), "language_model": str(gpt2_folder)})


@pytest.fixture
def folder(captioner, tmp_path):
    return save_captioner(captioner, tmp_path / "checkpoint", training={"dataset": "photos", "pictures": 12})


def test_round_trip_gives_the_same_captions(captioner, folder, photos):
    pictures = sorted((photos / "Images").iterdir())[:3]
    again = load_captioner(folder)
    assert again.caption(pictures, max_new_tokens=6) == captioner.caption(pictures, max_new_tokens=6)
    assert again.config["training"] == {"dataset": "photos", "pictures": 12}


def test_holds_the_trained_weights_and_nothing_else(captioner, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    names = set(load_file(folder / "model.safetensors"))
    assert names == {f"clip_project.{name}" for name, _ in captioner.model.clip_project.named_parameters()}
    assert json.loads((folder / "config.json").read_text())["clip"]["name"][0] != "/", "no absolute paths"


def test_checkpoint_and_backbones_move_together(captioner, tmp_path, photos):
    make_clip(tmp_path / "a" / "clip.pt")
    make_gpt2(tmp_path / "a" / "gpt2")
    names = {"clip": str(tmp_path / "a" / "clip.pt"), "language_model": str(tmp_path / "a" / "gpt2")}
    moved = Captioner(captioner.encoder, captioner.tokens, captioner.model, names)
    save_captioner(moved, tmp_path / "a" / "checkpoint")
    (tmp_path / "a").rename(tmp_path / "b")
    picture = [next((photos / "Images").iterdir())]
    assert load_captioner(tmp_path / "b" / "checkpoint").caption(picture) == captioner.caption(picture)


def test_an_interrupted_save_leaves_the_old_one(captioner, folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("helpers.checkpoints.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_captioner(captioner, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_atomic_path_keeps_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def change(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_missing_pieces_are_named(folder, tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        load_captioner(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_captioner(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load_captioner(folder)


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged or truncated"):
        load_captioner(folder)


def test_damaged_config(folder):
    (folder / "config.json").write_text('{"format": 1,')
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        load_captioner(folder)
    (folder / "config.json").write_text('{"format": 1, "system": "clipcap"}')
    with pytest.raises(InputError, match=r"lacks model, clip, language_model"):
        load_captioner(folder)


def test_other_system_or_format(folder):
    change(folder, system="unheard-of")
    with pytest.raises(InputError, match=r"system .unheard-of., format 1 is not known"):
        load_captioner(folder)


def test_other_dimensions_than_the_encoder(folder, tmp_path):
    wide = make_clip(tmp_path / "wide.pt", embed_dim=96)
    with pytest.raises(InputError, match=r"vectors of 64 numbers, .*wide\.pt gives 96"):
        load_captioner(folder, clip=str(wide))


def test_other_weights_than_the_encoder(folder, tmp_path):
    other = make_clip(tmp_path / "other.pt", seed=5)
    with pytest.raises(InputError, match=r"other CLIP weights than .*other\.pt"):
        load_captioner(folder, clip=str(other))


def test_other_language_model(folder, tmp_path):
    with pytest.raises(InputError, match=r"width 64, this one has 32"):
        load_captioner(folder, language_model=str(make_gpt2(tmp_path / "narrow", width=32)))


@pytest.mark.parametrize("harm", ["lacks", "shape", "unknown"])
def test_tensors_that_do_not_fit(folder, harm):
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "clip_project.linear.bias"
    if harm == "lacks":
        del weights[name]
    elif harm == "shape":
        weights[name] = weights[name][:5].clone()
    else:
        weights["extra.weight"] = torch.zeros(1)
    save_file(weights, path)
    expected = {"lacks": f"lacks {name}", "shape": rf"{name} is \(5,\)", "unknown": r"holds extra\.weight"}
    with pytest.raises(InputError, match=expected[harm]):
        load_captioner(folder)


def test_moved_backbone_is_named(folder, clip_file):
    change(folder, clip={"name": "../gone.pt", "fingerprint": "x"})
    with pytest.raises(InputError, match=r"gone\.pt"):
        load_captioner(folder)
    config = json.loads((folder / "config.json").read_text())
    change(folder, model=config["model"] | {"depth": 3})
    with pytest.raises(InputError, match=r"config\.json: model: .*depth"):
        load_captioner(folder, clip=str(clip_file))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beams": 0}, "beams"), ({"temperature": 0.0}, "temperature"), ({"top_p": 1.5}, "top_p"),
     ({"beams": 3, "top_p": 0.9}, "exclude each other"), ({"max_new_tokens": 500}, "64 positions")],
)
def test_decoding_options_out_of_range(captioner, options, message):
    with pytest.raises(InputError, match=message):
        captioner.caption_features(torch.zeros(1, 64), **options)


def test_sampling_is_seeded_and_beams_are_the_same_for_any_batch(captioner):
    features = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first = captioner.caption_features(features, top_p=0.9, max_new_tokens=8)
    torch.manual_seed(0)
    assert captioner.caption_features(features, top_p=0.9, max_new_tokens=8) == first
    together = captioner.caption_features(features, beams=3, max_new_tokens=8)
    assert together == captioner.caption_features(features, beams=3, max_new_tokens=8, batch_size=1)


@pytest.fixture
def decoder_folder(resnet_file, bert_folder, tmp_path):
    encoder, tokens = load_clip(resnet_file), load_tokens(bert_folder)
    config = DecoderConfig(len(tokens), tokens.bos, encoder.dim, encoder.grid[1], width=32, layers=1, heads=2)
    names = {"clip": str(resnet_file), "tokenizer": str(bert_folder)}
    return save_captioner(Captioner(encoder, tokens, DecoderCaptioner(config), names), tmp_path / "decoder")


def test_a_decoder_brings_its_tokenizer_along(decoder_folder, photos):
    assert {path.name for path in decoder_folder.iterdir()} == {"model.safetensors", "config.json", "README.md", "tokenizer"}
    captioner = load_captioner(decoder_folder)
    assert type(captioner.model) is DecoderCaptioner
    assert len(captioner.caption([next((photos / "Images").iterdir())], max_new_tokens=5)) == 1
    config = json.loads((decoder_folder / "config.json").read_text())
    assert config["tokenizer"]["name"][0] != "/" and "learned" not in config


def test_a_decoder_without_its_tokenizer(decoder_folder, gpt2_folder):
    shutil.rmtree(decoder_folder / "tokenizer")
    with pytest.raises(InputError, match="tokenizer"):
        load_captioner(decoder_folder)
    shutil.copytree(gpt2_folder, decoder_folder / "tokenizer")
    with pytest.raises(InputError, match=r"was trained with \d+ tokens, its tokenizer/ has \d+"):
        load_captioner(decoder_folder)


def test_a_decoder_with_a_clip_of_another_grid(decoder_folder, clip_file):
    with pytest.raises(InputError, match=r"takes image vectors of 128 numbers, .* gives 64 \(memory_dim\)"):
        load_captioner(decoder_folder, clip=str(clip_file))


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"tuning": "all"}, lambda name: True),
     ({"tuning": "blocks", "frozen_blocks": 1}, lambda name: name.startswith(("transformer.h.1.", "transformer.ln_f."))),
     ({"tuning": "lora", "lora_rank": 2}, lambda name: ".lora_" in name)],
    ids=["all", "blocks", "lora"],
)  # fmt: skip
def test_of_a_tuned_language_model_only_what_trained_is_kept(captioner, gpt2_folder, photos, tmp_path, options, kept):
    torch.manual_seed(0)
    model = ClipCap.build(captioner.encoder.dim, load_language_model(gpt2_folder), mapping="mlp", prefix_length=4, **options)
    with torch.no_grad():  # as if it had trained
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    tuned = Captioner(captioner.encoder, captioner.tokens, model.eval(), captioner.config)
    folder = save_captioner(tuned, tmp_path / "tuned")
    names = {name for name in load_file(folder / "model.safetensors") if name.startswith("gpt.")}
    every = {name for name, _ in model.named_parameters() if name.startswith("gpt.")}  # tied weights stand here once
    assert names == {name for name in every if kept(name.removeprefix("gpt."))}
    assert "gpt.lm_head.weight" not in names
    again = load_captioner(folder)
    inputs = torch.randn(2, 5, 64)
    with torch.no_grad():
        assert torch.equal(again.model.gpt(inputs_embeds=inputs).logits, model.gpt(inputs_embeds=inputs).logits)
    pictures = sorted((photos / "Images").iterdir())[:3]
    assert again.caption(pictures, max_new_tokens=6) == tuned.caption(pictures, max_new_tokens=6)


def test_a_captioner_that_looks_at_the_grid(resnet_file, clip_file, gpt2_folder, photos, tmp_path):
    encoder, tokens = load_clip(resnet_file), load_tokens(gpt2_folder)
    model = ClipCap.build(encoder.dim, load_language_model(gpt2_folder), mapping="cross-attention",
                          grid_dim=encoder.grid[1], layers=1, heads=2)  # fmt: skip
    names = {"clip": str(resnet_file), "language_model": str(gpt2_folder)}
    captioner = Captioner(encoder, tokens, model, names)
    folder = save_captioner(captioner, tmp_path / "grid")
    pictures = sorted((photos / "Images").iterdir())[:2]
    assert load_captioner(folder).caption(pictures, max_new_tokens=5) == captioner.caption(pictures, max_new_tokens=5)
    with pytest.raises(InputError, match=r"takes image vectors of 128 numbers, .* gives 64 \(grid_dim\)"):
        load_captioner(folder, clip=str(clip_file))


@pytest.mark.parametrize("tuning", ["cross-attention", "mlps"])
def test_a_gpt2_with_cross_attention(clip_file, gpt2_folder, photos, tmp_path, tuning):
    encoder, tokens = load_clip(clip_file), load_tokens(gpt2_folder)
    torch.manual_seed(0)
    gpt2 = load_language_model(gpt2_folder)
    model = CrossAttentionCaptioner.build(encoder.grid[1], gpt2, tokens.bos, tuning=tuning).eval()
    with torch.no_grad():  # as if it had trained
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    captioner = Captioner(encoder, tokens, model, {"clip": str(clip_file), "language_model": str(gpt2_folder)})
    folder = save_captioner(captioner, tmp_path / "cross")
    kept = set(load_file(folder / "model.safetensors"))
    assert kept == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".mlp." in name for name in kept) == (tuning == "mlps") and not any(".attn." in name for name in kept)
    pictures = sorted((photos / "Images").iterdir())[:3]
    assert load_captioner(folder).caption(pictures, max_new_tokens=6) == captioner.caption(pictures, max_new_tokens=6)
    assert "# Image captioner (cross-attention)" in (folder / "README.md").read_text()


def test_config_of_before_there_were_choices(captioner, folder, photos):
    """The fields that ClipCapConfig had at first are enough: what came later has defaults."""
    old = ("image_dim", "width", "prefix_length", "clip_length", "layers", "heads", "mlp_ratio")
    config = json.loads((folder / "config.json").read_text())
    change(folder, model={name: config["model"][name] for name in old})
    pictures = sorted((photos / "Images").iterdir())[:2]
    again = load_captioner(folder)
    assert again.model.config == captioner.model.config
    assert again.caption(pictures, max_new_tokens=6) == captioner.caption(pictures, max_new_tokens=6)
