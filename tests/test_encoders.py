"""CLIP's grid, a ModifiedResNet's cells or a ViT's patches, and the encoder that learns along, or encodes on the fly."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data.encoders import LearningEncoder, clip, grid_and_pooled, load_clip
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
    assert (encoder.side, encoder.summary_rows) == (2, 0)
    torch.testing.assert_close(parts["pooled"], pooled.float())
    # Cell (row, column) of the map stands at row * width + column.
    torch.testing.assert_close(parts["grid"][:, 2], read[0][:, :, 1, 0].float())


@pytest.mark.parametrize("name", ["resnet_file", "clip_file"])
def test_grids_are_cached_beside_pooled_vectors(name, request, photos, tmp_path):
    encoder = load_clip(request.getfixturevalue(name))
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


@pytest.mark.parametrize("name", ["resnet_file", "clip_file"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frozen_on_the_fly_gives_what_the_cache_gives(name, mirrored, request, photos, tmp_path):
    encoder = load_clip(request.getfixturevalue(name))
    names = sorted(path.name for path in (photos / "Images").iterdir())[:5]
    source = Pictures(encoder, photos / "Images", names)
    source = source.in_a_mirror() if mirrored else source
    cached = cached_features(encoder, photos / "Images", names, tmp_path, grid=True, mirrored=mirrored).batch(names)
    live = LearningEncoder(encoder.model.visual, parts=())
    fresh = live(source.batch(names)["pixels"])
    assert fresh.keys() == cached.keys()
    for part in cached:
        assert fresh[part].dtype == torch.float32 and fresh[part].shape == cached[part].shape
        torch.testing.assert_close(fresh[part], cached[part], atol=2e-3, rtol=2e-3)


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
    with pytest.raises(InputError, match=r"features take 128 bytes .* 100 bytes free: make room"):
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


@pytest.mark.parametrize("name", ["resnet_file", "clip_file"])
def test_without_parts_nothing_learns(name, request):
    encoder = load_clip(request.getfixturevalue(name))
    encoder.model.requires_grad_(True)
    before = {name: value.clone() for name, value in encoder.model.visual.state_dict().items()}
    live = LearningEncoder(encoder.model.visual, parts=()).train()
    assert not live.learning and not any(part.training for part in live.modules())
    for live.learning in (False, True):  # the switch has nothing to switch
        parts = live(torch.randn(2, 3, encoder.resolution, encoder.resolution))
        assert not any(part.requires_grad for part in (*parts.values(), *live.parameters()))
    for name, value in encoder.model.visual.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_frozen_encoder_keeps_its_precision(clip_file):
    """Not only for speed: the text tower asks the image tower what precision it has."""
    half = load_clip(clip_file)
    clip.model.convert_weights(half.model)
    live = LearningEncoder(half.model.visual, parts=())
    assert live.visual.conv1.weight.dtype == torch.float16 and half.encode_texts(["a dog"]).shape == (1, half.dim)
    assert live(torch.zeros(1, 3, 32, 32))["grid"].dtype == torch.float32


def test_a_vit_learns_whole_or_by_its_own_parts(clip_file):
    visual = load_clip(clip_file).model.visual
    for parts, learned in ((LearningEncoder.ALL, {name for name, _ in visual.named_parameters()}),
                           (("ln_post", "proj"), {"ln_post.weight", "ln_post.bias", "proj"})):  # fmt: skip
        visual.zero_grad()
        live = LearningEncoder(visual, parts)
        live.learning = True
        sum(part.square().sum() for part in live(torch.randn(2, 3, 32, 32)).values()).backward()
        assert {name for name, p in visual.named_parameters() if p.grad is not None} == learned


def test_a_vit_has_no_last_stage_to_fine_tune(clip_file):
    with pytest.raises(InputError, match=r"layer4 and attnpool cannot learn.* only .*ln_post\. It is a ViT: give RN50 \("):
        LearningEncoder(load_clip(clip_file).model.visual)


def test_a_part_that_a_resnet_has_not(encoder):
    with pytest.raises(InputError, match=r"layer5 cannot learn, .* no such part, only conv1, .*layer4, attnpool$"):
        LearningEncoder(encoder.model.visual, ("layer4", "layer5"))


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


def test_a_gpu_that_is_not_there(clip_file, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"device 'cuda': there is no GPU here.*--device"):
        load_clip(clip_file, "cuda")
