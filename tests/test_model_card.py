"""The model card: read back by the hub's own parser, complete, and free of anybody's paths."""

import copy

import pytest
from huggingface_hub import ModelCard

from helpers.model_card import is_hub_name, model_card

CLIPCAP = {
    "format": 1,
    "system": "clipcap",
    "model": {"image_dim": 512, "width": 768, "prefix_length": 10, "mapping": "transformer", "tuning": "frozen"},
    "clip": {"name": "ViT-B/32", "fingerprint": "583edd029064f98a"},
    "language_model": {"name": "openai-community/gpt2"},
    "training": {"dataset": "flickr8k", "pictures": 6000, "minutes": 12.5, "best_epoch": 7, "epochs": 10, "seed": 3,
                 "learning_rate": 2e-05, "captions": "all"},
}  # fmt: skip
FILES = {"model.safetensors": 167_000_000, "config.json": 1400}


def test_the_hub_reads_its_front_matter():
    data = ModelCard(model_card(CLIPCAP, FILES)).data
    assert data.language == "en" and data.license == "mit" and data.library_name == "image-captioning-tutorial"
    assert {"image-to-text", "image-captioning", "clipcap"} <= set(data.tags)
    assert data.base_model == ["openai/clip-vit-base-patch32", "openai-community/gpt2"]


def test_says_what_it_is_and_how_it_was_made():
    text = model_card(CLIPCAP, FILES)
    for row in ("| image_dim | 512 |", "| dataset | flickr8k |", "| pictures | 6000 |", "| epochs | 10 |", "| seed | 3 |",
                "| minutes | 12.5 |", "| learning_rate | 2e-05 |", "| `config.json` | 1.4 kB |",
                "| `model.safetensors` | 167.0 MB |", "583edd029064f98a", "Not scored yet."):  # fmt: skip
        assert row in text
    assert text.index("`config.json`") < text.index("| `model.safetensors`"), "files in order, whatever order they came in"
    assert "non-commercial research" in text and "safety" in text and "biased" in text


def test_usage_can_be_copied(tmp_path):
    text = model_card(CLIPCAP, FILES)
    assert "python -m helpers.caption -f photo.jpg --checkpoint FOLDER\n" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert len(code.splitlines()) == 3 and 'load_captioner("FOLDER")' in code
    local = CLIPCAP | {"clip": {"name": "../my-clip.pt"}}
    assert 'load_captioner("FOLDER", clip=...)' in model_card(local, FILES)
    assert "--checkpoint FOLDER --clip PLACE\n" in model_card(local, FILES)


def test_scores_with_their_intervals():
    config = CLIPCAP | {"scores": {"CIDEr-D": {"value": 0.5512, "low": 0.51, "high": 0.6}, "pictures": 1000}}
    text = model_card(config, FILES)
    assert "| CIDEr-D | 0.551 | [0.510, 0.600] |" in text and "Not scored yet" not in text


@pytest.mark.parametrize("path", ["../../../home/ann/gpt2", "/home/ann/gpt2", "~/ann/gpt2", r"C:\ann\gpt2"])
def test_of_a_local_backbone_only_the_last_name_is_told(path):
    config = CLIPCAP | {"clip": {"name": path + ".pt", "fingerprint": "a"}, "language_model": {"name": path}}
    text = model_card(config, FILES)
    assert "ann" not in text.replace("annot", "") and "base_model" not in text
    assert "`gpt2` (a local folder" in text or "`gpt2` (a local file or folder" in text


def test_decoder_and_what_learned_along():
    config = {
        "system": "decoder", "model": {"vocabulary": 30522},
        "clip": {"name": "../../../data/tiny/clip-rn.pt", "fingerprint": "b"},
        "tokenizer": {"name": "bert-base-uncased"}, "learned": ["layer4", "attnpool"], "training": {"dataset": "scenes"},
    }  # fmt: skip
    text = model_card(config, {})
    assert "`data/tiny/clip-rn.pt` (comes with the project)" in text and "../" not in text
    assert "layer4, attnpool" in text and "| vocabulary | 30,522 |" in text and "drawn pictures only" in text
    assert ModelCard(text).data.base_model is None


def test_is_pure_and_needs_no_training_record():
    config = copy.deepcopy(CLIPCAP)
    assert model_card(config, FILES) == model_card(config, dict(reversed(FILES.items()))) and config == CLIPCAP
    del config["training"]
    assert "Not recorded." in model_card(config, FILES)


@pytest.mark.parametrize(("name", "expected"), [
    ("gpt2", True), ("openai-community/gpt2", True), ("data/tiny", False), ("clip.pt", False), ("./gpt2", False),
    ("a/b/c", False), ("~/gpt2", False), ("", False),
])  # fmt: skip
def test_hub_names(name, expected):
    assert is_hub_name(name) is expected
