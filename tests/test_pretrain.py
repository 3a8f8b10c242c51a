"""data/tiny: the command that makes it, in a reduced version, and what is committed."""

import json

import pytest
import torch

from helpers import pretrain
from helpers.checkpoints import load_captioner
from helpers.data.encoders import clip, load_clip
from helpers.environment import TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny")
    pretrain.main(["--out", str(out), "--share", "0.01"])
    return out


def test_a_reduced_version_is_made_by_the_same_code(made):
    assert {path.name for path in made.iterdir()} == {path.name for path in TINY.iterdir()}
    assert set(json.loads((made / "made.json").read_text())) == set(pretrain.PARTS)
    captioner = load_captioner(made / "clipcap")
    assert type(captioner.encoder.model) is clip.model.CLIP and type(captioner.model.gpt).__name__ == "GPT2LMHeadModel"
    assert captioner.encoder.fingerprint != load_clip(TINY / "clip-vit.pt").fingerprint
    assert len(captioner.caption_features(torch.zeros(2, captioner.encoder.dim))) == 2
    decoder = load_captioner(made / "decoder")
    assert type(decoder.encoder.model.visual) is clip.model.ModifiedResNet
    assert type(decoder.tokens.tokenizer).__name__ in ("BertTokenizer", "BertTokenizerFast")  # one class in transformers 5
    noise = torch.randn(2, 3, decoder.encoder.resolution, decoder.encoder.resolution)
    assert len(decoder.caption_features(decoder.encoder.encode_grid(noise))) == 2


def test_parts_can_be_made_one_by_one(tmp_path):
    pretrain.main(["bert", "--out", str(tmp_path), "--share", "0.01"])
    assert {path.name for path in tmp_path.iterdir()} == {"bert", "made.json"}
    with pytest.raises(SystemExit):
        pretrain.main(["bart", "--out", str(tmp_path)])


def test_the_committed_models_are_small_and_were_made_in_time():
    size = sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())
    assert size <= 18e6
    made = json.loads((TINY / "made.json").read_text())
    assert set(made) == set(pretrain.PARTS)
    recipe = pretrain.asdict(pretrain.Recipe())
    assert all(part["recipe"] == recipe for part in made.values()), "data/tiny is older than its recipe: make tiny"
    first, second = (sum(made[part]["minutes"] for part in parts) for parts in
                     (("clip-vit", "gpt2", "clipcap"), ("clip-rn", "bert", "decoder")))
    assert first <= 6 and second <= 8


@pytest.mark.parametrize(("name", "sizes"), [("clip-vit", pretrain.CLIP_SIZES), ("clip-rn", pretrain.CLIP_RN_SIZES)])
def test_clip_load_reads_the_file_itself(name, sizes):
    """OpenAI's own clip.load, not ours."""
    model, preprocess = clip.load(str(TINY / f"{name}.pt"), device="cpu")
    assert model.visual.input_resolution == sizes["image_resolution"]
    assert preprocess.transforms[0].size == model.visual.input_resolution


@pytest.mark.parametrize("name", ["clip-vit", "clip-rn"])
def test_clip_finds_the_picture_of_a_caption(name):
    """Text to picture among 50 scenes of the validation kind: chance is 10 % for recall at 5."""
    from helpers.data.encoders import unit
    from helpers.data.scenes import scene_stream
    from helpers.data.scenes.drawing import draw

    encoder = load_clip(TINY / f"{name}.pt")
    pairs = list(scene_stream(5, 50, "val"))
    images = unit(encoder.encode_images([draw(scene) for scene, _ in pairs]))
    texts = unit(encoder.encode_texts([captions[0] for _, captions in pairs]))
    top = (texts @ images.T).topk(5).indices
    assert (top == torch.arange(50)[:, None]).any(dim=1).float().mean() > 0.6
