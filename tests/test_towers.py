"""Towers: what is loaded is what was trained, or it is refused; what they see; and offline, what would serve."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

from helpers import hub
from helpers.errors import InputError, OfflineError
from helpers.models import towers
from helpers.models.dual_encoder import DualEncoder
from helpers.models.towers import (
    ImageTower,
    TextTower,
    build_resnet,
    load_image_tower,
    load_text_tower,
    preprocessing,
)

DISTILBERT = {"vocab_size": 60, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 20}
BERT = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 20}  # fmt: skip
NOWHERE = "http://127.0.0.1:9/"  # the discard port: refused at once


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each as its kind is published: with the head it was pretrained with, its weights under a prefix."""
    folder = tmp_path_factory.mktemp("text")
    torch.manual_seed(0)
    DistilBertForMaskedLM(DistilBertConfig(**DISTILBERT)).save_pretrained(folder / "distilbert")
    BertForPreTraining(BertConfig(**BERT)).save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def captions():
    torch.manual_seed(1)
    mask = torch.arange(9) < torch.tensor([9, 4, 1, 6])[:, None]
    return torch.randint(60, (4, 9)), mask


@pytest.mark.parametrize(("kind", "head"), [("distilbert", DistilBertForMaskedLM), ("bert", BertForMaskedLM)])
def test_the_class_follows_from_the_configuration_and_gives_cls(folders, captions, kind, head):
    tower, (tokens, mask) = load_text_tower(folders / kind), captions
    assert all(module.training for module in tower.modules()) and (tower.width, tower.positions) == (32, 20)
    whole = head.from_pretrained(folders / kind).eval()
    states = whole.base_model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(tower.eval()(tokens, mask), states[:, 0])
    assert not torch.equal(tower.train()(tokens, mask), tower(tokens, mask)), "dropout"


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_padding_and_batch_change_no_caption(folders, captions, kind):
    tower, (tokens, mask) = load_text_tower(folders / kind).eval(), captions
    together = tower(tokens, mask)
    for n, length in enumerate(mask.sum(dim=1).tolist()):
        torch.testing.assert_close(tower(tokens[n : n + 1, :length])[0], together[n], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_tower_is_built_anew_from_its_configuration_and_weights(folders, captions, kind):
    tower = load_text_tower(folders / kind)
    again = TextTower.build(json.loads(json.dumps(tower.net.config.to_dict())))
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.eval()(*captions), tower.eval()(*captions))


def test_weights_in_half_precision_are_read_as_fp32(folders, tmp_path):
    BertForMaskedLM.from_pretrained(folders / "bert").half().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_text_tower(tmp_path).parameters()} == {torch.float32}


def with_config(folder: Path, into: Path, **changes: object) -> Path:
    """The weights of `folder` beside a configuration that says otherwise."""
    config = json.loads((folder / "config.json").read_text())
    shutil.copytree(folder, into)
    (into / "config.json").write_text(json.dumps(config | changes))
    return into


@pytest.fixture
def heard(caplog, monkeypatch):
    """What the transformers library has to say, at its usual verbosity."""
    monkeypatch.setattr(logging.get_logger(), "propagate", True)
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    yield caplog
    logging.set_verbosity(before)


@pytest.mark.parametrize(("weights", "config"), [("bert", "distilbert"), ("distilbert", "bert")])
def test_one_kind_s_weights_under_the_other_s_name_are_refused(folders, tmp_path, heard, weights, config):
    """The published experiment 2, which trained a DistilBERT that had learned nothing and called it BERT."""
    shutil.copytree(folders / weights, tmp_path / "model")
    shutil.copy(folders / config / "config.json", tmp_path / "model")
    with pytest.raises(InputError, match=rf"says model_type '{config}', but its weights lack 3\d that it needs, embeddings\."):
        load_text_tower(tmp_path / "model")
    assert not heard.records, "an error, not a warning"
    assert logging.get_verbosity() == logging.WARNING


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_hidden_layers": 3}, r"lack 16 that it needs, encoder\.layer\.2\."),
     ({"intermediate_size": 64}, "have 6 of another size"),
     ({"num_hidden_layers": 1}, r"have 16 that it has no place for, bert\.encoder\.layer\.1\.")],
)  # fmt: skip
def test_other_sizes_are_refused(folders, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_text_tower(with_config(folders / "bert", tmp_path / "model", **changes))


def test_other_models_and_damaged_folders_are_refused(folders, tmp_path, gpt2_folder):
    sizes = {**BERT, "max_position_embeddings": 24}
    RobertaModel(RobertaConfig(**sizes)).save_pretrained(tmp_path / "roberta")
    with pytest.raises(InputError, match="is a roberta: give a DistilBERT or a BERT"):
        load_text_tower(tmp_path / "roberta")
    with pytest.raises(InputError, match="is a gpt2"):
        load_text_tower(gpt2_folder)
    with pytest.raises(InputError, match=r"no config\.json that can be read"):
        load_text_tower(with_config(folders / "bert", tmp_path / "unknown", model_type="of_tomorrow"))
    cut = with_config(folders / "bert", tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:999])
    with pytest.raises(InputError, match=r"weights of the text tower .*cut cannot be read, are they whole"):
        load_text_tower(cut)
    (cut / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_text_tower(cut)


def test_too_long_captions_are_refused_with_both_numbers(folders):
    with pytest.raises(InputError, match="21 tokens exceed the text tower's 20 positions"):
        load_text_tower(folders / "distilbert")(torch.zeros(1, 21, dtype=torch.long))


def test_offline_is_said_within_two_seconds_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HUB", NOWHERE)
    monkeypatch.setattr(towers, "require_network", lambda url, **said: hub.require_network(NOWHERE, **said))
    start = time.perf_counter()
    with pytest.raises(OfflineError, match=r"'distilbert-base-uncased'.*Give a folder written by save_pretrained"):
        load_text_tower("distilbert-base-uncased")
    with pytest.raises(OfflineError, match=r"resnet50-11ad3fa6\.pth into ~/\.cache/torch/hub/checkpoints.*classifier"):
        load_image_tower("resnet50")
    assert time.perf_counter() - start < 4


def test_imagenet_s_weights_come_from_torchvision_s_cache(tmp_path, monkeypatch):
    torch.manual_seed(2)
    learned = build_resnet("resnet50", classes=1000)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
    cached.parent.mkdir(parents=True)
    torch.save(learned.state_dict(), cached)
    tower = load_image_tower("resnet50")
    assert (tower.width, tower.resolution) == (2048, 224)
    assert torch.equal(tower.net.layer4[2].conv3.weight, learned.layer4[2].conv3.weight)
    assert not torch.equal(load_image_tower("resnet50-random").net.conv1.weight, learned.conv1.weight)
    cached.write_bytes(cached.read_bytes()[:999])
    with pytest.raises(InputError, match=r"resnet50-11ad3fa6\.pth cannot be read .*delete it"):
        load_image_tower("resnet50")


def test_features_are_what_the_classification_layer_reads(tmp_path):
    torch.manual_seed(3)
    classifier = build_resnet("small", classes=10).eval()
    torch.save({"architecture": "small", "state_dict": classifier.state_dict(), "accuracy": 0.5}, tmp_path / "small.pt")
    tower = load_image_tower(tmp_path / "small.pt")
    assert all(module.training for module in tower.modules())
    assert (tower.architecture, tower.width) == ("small", 256)
    pixels = torch.randn(5, 3, tower.resolution, tower.resolution)
    features = tower.eval()(pixels)
    assert features.shape == (5, 256)
    torch.testing.assert_close(classifier.fc(features), classifier(pixels))
    alone = torch.cat([tower(pixels[n : n + 1]) for n in range(5)])
    torch.testing.assert_close(alone, features, atol=1e-5, rtol=0)


def test_what_is_no_image_tower_is_refused(tmp_path, clip_file):
    small = build_resnet("small", classes=3).state_dict()
    lacking = {name: value for name, value in small.items() if name != "layer1.0.conv1.weight"}
    for content, message in [
        ({"architecture": "vgg", "state_dict": small}, "'vgg' is not known: choose one of resnet50, small"),
        ({"architecture": "small", "state_dict": lacking}, "RuntimeError"),
        ({"architecture": "resnet50", "state_dict": small}, "RuntimeError"),
        (small, "KeyError"),
        ([1], "TypeError"),
    ]:
        torch.save(content, tmp_path / "tower.pt")
        with pytest.raises(InputError, match=rf"tower\.pt cannot be read as an image tower.*{message}"):
            load_image_tower(tmp_path / "tower.pt")
    (tmp_path / "tower.pt").write_bytes(b"no pickle")
    for wrong in (tmp_path / "tower.pt", clip_file):
        with pytest.raises(InputError, match="cannot be read as an image tower"):
            load_image_tower(wrong)
    with pytest.raises(InputError, match="'resnet51' is neither a file nor one of resnet50, resnet50-random, small"):
        load_image_tower("resnet51")


def test_pictures_are_cut_to_the_middle_square_and_normalised_as_imagenet_s():
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = (255, 128, 0)  # the middle square
    pixels = preprocessing(40)(Image.fromarray(wide))
    orange, mean, deviation = torch.tensor([[255, 128, 0], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    expected = (orange / 255 - mean) / deviation
    torch.testing.assert_close(pixels, expected[:, None, None].expand(3, 40, 40))
    assert preprocessing(96)(Image.fromarray(wide)).shape == (3, 96, 96)
    assert ImageTower("small").preprocess(Image.fromarray(wide)).shape == (3, 96, 96)


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_a_dual_encoder_of_these_towers_trains_all_of_it(folders, captions, kind):
    torch.manual_seed(4)
    tokens, mask = captions
    model = DualEncoder.build(ImageTower("small"), load_text_tower(folders / kind), dim=16)
    model.loss(torch.randn(4, 3, 96, 96), tokens, mask, torch.tensor([0, 1, 0, 2])).backward()
    nothing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not nothing
    model.eval()
    texts = model.embed_texts(tokens, mask)
    alone = torch.cat([model.embed_texts(tokens[n : n + 1], mask[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(alone, texts, atol=1e-5, rtol=0)
