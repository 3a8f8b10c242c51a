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
    captioner = load_captioner(made / "clipcap")
    assert type(captioner.encoder.model) is clip.model.CLIP and type(captioner.model.gpt).__name__ == "GPT2LMHeadModel"
    assert captioner.encoder.fingerprint != load_clip(TINY / "clip-vit.pt").fingerprint
    assert len(captioner.caption_features(torch.zeros(2, captioner.encoder.dim))) == 2


def test_the_committed_models_are_small_and_were_made_in_time():
    size = sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())
    assert size <= 12e6
    made = json.loads((TINY / "made.json").read_text())
    assert made["recipe"] == pretrain.asdict(pretrain.Recipe()), "data/tiny is older than its recipe: make tiny"
    assert sum(made["minutes"].values()) <= 6


def test_clip_load_reads_the_file_itself():
    """OpenAI's own clip.load, not ours."""
    model, preprocess = clip.load(str(TINY / "clip-vit.pt"), device="cpu")
    assert model.visual.input_resolution == pretrain.CLIP_SIZES["image_resolution"]
    assert preprocess.transforms[0].size == model.visual.input_resolution


def test_clip_finds_the_picture_of_a_caption():
    """Text to picture among 50 scenes of the validation kind: chance is 10 % for recall at 5."""
    from helpers.data.encoders import unit
    from helpers.data.scenes import scene_stream
    from helpers.data.scenes.drawing import draw

    encoder = load_clip(TINY / "clip-vit.pt")
    pairs = list(scene_stream(5, 50, "val"))
    images = unit(encoder.encode_images([draw(scene) for scene, _ in pairs]))
    texts = unit(encoder.encode_texts([captions[0] for _, captions in pairs]))
    top = (texts @ images.T).topk(5).indices
    assert (top == torch.arange(50)[:, None]).any(dim=1).float().mean() > 0.6
