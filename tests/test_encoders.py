"""CLIP's ModifiedResNet grid, and the encoder that learns along."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data.encoders import LearningEncoder, grid_and_pooled, load_clip
from helpers.data.features import Pictures, cached_features
from helpers.data.images import open_image
from helpers.errors import InputError


@pytest.fixture
def encoder(resnet_file):
    return load_clip(resnet_file)


@pytest.fixture
def pixels(encoder):
    return torch.randn(3, 3, encoder.resolution, encoder.resolution, generator=torch.Generator().manual_seed(0))


def test_grid_is_what_the_attention_pool_reads(encoder, pixels):
    read = []
    with torch.no_grad():
        hook = encoder.model.visual.attnpool.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        pooled = encoder.model.encode_image(pixels)
        hook.remove()
    parts = encoder.encode_grid(pixels)
    assert encoder.grid == (4, 128) and parts["grid"].shape == (3, 4, 128)
    torch.testing.assert_close(parts["pooled"], pooled.float())
    # Cell (row, column) of the map stands at row * width + column.
    torch.testing.assert_close(parts["grid"][:, 2], read[0][:, :, 1, 0].float())


def test_a_vit_has_no_such_grid(clip_file):
    encoder = load_clip(clip_file)
    assert encoder.grid is None
    with pytest.raises(InputError, match="is a ViT and has no grid"):
        encoder.encode_grid(torch.zeros(1, 3, 32, 32))


def test_grids_are_cached_beside_pooled_vectors(encoder, photos, tmp_path):
    folder = photos / "Images"
    names = sorted(path.name for path in folder.iterdir())[:5]
    features = cached_features(encoder, folder, names, tmp_path, grid=True)
    direct = encoder.encode_grid(torch.stack([encoder.pixels(open_image(folder / name)) for name in names]))
    for part, value in features.batch(names).items():
        torch.testing.assert_close(value, direct[part], atol=2e-3, rtol=2e-3)
    np.testing.assert_array_equal(features.take(names), features.batch(names)["pooled"])
    assert cached_features(encoder, folder, names, tmp_path, grid=True).encoded == 0
    alone = cached_features(encoder, folder, names, tmp_path)
    assert alone.encoded == 5 and alone.batch(names).shape == (5, encoder.dim)


def test_mirrored_features_are_those_of_the_mirrored_picture(encoder, tmp_path):
    halves = np.zeros((64, 64, 3), dtype=np.uint8)
    halves[:, 32:] = np.random.default_rng(0).integers(0, 255, (64, 32, 3))
    Image.fromarray(halves).save(tmp_path / "a.png")
    options = {"grid": True, "mirrored": True}
    mirrored = cached_features(encoder, tmp_path, ["a.png"], tmp_path / "cache", **options).batch(["a.png"])["grid"]
    pixels = encoder.pixels(open_image(tmp_path / "a.png"))
    plain, right = encoder.encode_grid(pixels[None])["grid"], encoder.encode_grid(pixels.flip(-1)[None])["grid"]
    assert (mirrored - right).norm() < 0.1 * (plain - right).norm()
    torch.testing.assert_close(Pictures(encoder, tmp_path, ["a.png"]).in_a_mirror().batch(["a.png"])["pixels"][0],
                               pixels.flip(-1))


def test_a_full_disk_is_said_before_anything_is_encoded(encoder, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 100}))
    with pytest.raises(InputError, match=r"features take 0\.0 GB .* 0\.0 GB free: make room"):
        cached_features(encoder, photos / "Images", ["1000_photo.jpg"], tmp_path)


def test_broken_pictures_are_known_before_training(encoder, tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert "b.jpg" in Pictures(encoder, tmp_path, ["b.jpg"]).broken


def test_only_the_last_parts_learn_and_only_when_it_is_time(encoder, pixels):
    live = LearningEncoder(encoder.model.visual)
    assert not live(pixels)["grid"].requires_grad
    live.learning = True
    live(pixels)["pooled"].sum().backward()
    learned = {name.split(".")[0] for name, p in live.visual.named_parameters() if p.grad is not None}
    assert learned == {"layer4", "attnpool"} and all(p.dtype == torch.float32 for p in live.parameters())


@pytest.mark.parametrize(("parts", "gathers"), [(LearningEncoder.FINE_TUNED, False), (LearningEncoder.ALL, True)])
def test_batch_norm_keeps_its_statistics_unless_everything_learns(encoder, pixels, parts, gathers):
    live = LearningEncoder(encoder.model.visual, parts).train()
    live.learning = True
    before = live.visual.bn1.running_mean.clone()
    live(pixels)
    assert torch.equal(before, live.visual.bn1.running_mean) != gathers
    live.eval()
    after = live.visual.bn1.running_mean.clone()
    live(pixels)
    assert torch.equal(after, live.visual.bn1.running_mean)


def test_changed_weights_have_another_fingerprint(encoder):
    before = encoder.fingerprint
    with torch.no_grad():
        encoder.model.visual.attnpool.c_proj.weight += 0.1
    encoder.take_fingerprint()
    assert encoder.fingerprint != before


def test_rows_and_columns_of_the_grid_follow_the_picture(encoder):
    """A spot in the upper right corner changes cell 1 of 2 x 2 most."""
    blank = torch.zeros(1, 3, 64, 64)
    spot = blank.clone()
    spot[..., :16, 48:] = 2.0
    change = (encoder.encode_grid(spot)["grid"] - encoder.encode_grid(blank)["grid"]).norm(dim=-1)[0]
    assert change.argmax() == 1
    assert grid_and_pooled(encoder.model.visual, blank)["grid"].shape == (1, 4, 128)
