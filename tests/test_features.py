"""The feature cache: once a picture, resumed after a kill, damage found, keyed by weights and files."""

import os
import shutil

import numpy as np
import pytest
import torch

from helpers.data import features as cache
from helpers.data.encoders import load_clip
from helpers.data.features import cached_features
from helpers.errors import InputError
from tests.conftest import make_clip


class Counting:
    """A ClipEncoder that counts pictures, and can be killed after some."""

    def __init__(self, encoder, dies_after=None):
        self.encoder, self.pictures, self.dies_after = encoder, 0, dies_after
        self.dim, self.fingerprint = encoder.dim, encoder.fingerprint
        self.crop, self.normalise = encoder.crop, encoder.normalise

    def encode(self, pixels):
        if self.dies_after is not None and self.pictures >= self.dies_after:
            raise KeyboardInterrupt
        self.pictures += len(pixels)
        return self.encoder.encode(pixels)


@pytest.fixture
def folder(photos, tmp_path):
    shutil.copytree(photos / "Images", tmp_path / "Images")
    return tmp_path / "Images"


@pytest.fixture
def names(folder):
    return sorted(os.listdir(folder))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(cache, "BLOCK", 4)


@pytest.fixture(scope="module")
def encoder(clip_file):
    return load_clip(clip_file)


def test_each_picture_is_encoded_once(encoder, folder, names, tmp_path):
    counting = Counting(encoder)
    first = cached_features(counting, folder, names, tmp_path / "cache")
    second = cached_features(counting, folder, names[::-1], tmp_path / "cache")
    assert (first.encoded, second.encoded, counting.pictures) == (len(names), 0, len(names))
    assert isinstance(second.array, np.memmap) and second.array.dtype == np.float16
    direct = encoder.encode_images([folder / name for name in names])
    np.testing.assert_allclose(second.take(names), direct.numpy(), atol=2e-3)


def test_a_killed_run_resumes(encoder, folder, names, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cached_features(Counting(encoder, dies_after=8), folder, names, tmp_path)
    again = cached_features(Counting(encoder), folder, names, tmp_path)
    assert again.encoded == len(names) - 8
    np.testing.assert_allclose(again.take(names), encoder.encode_images([folder / n for n in names]), atol=2e-3)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "index"])
def test_damage_is_found_and_rebuilt(encoder, folder, names, tmp_path, damage):
    whole = cached_features(encoder, folder, names, tmp_path).take(names)
    data, index = next(tmp_path.glob("*/features.f16")), next(tmp_path.glob("*/index.jsonl"))
    content = bytearray(data.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    data.write_bytes({"truncated": content[:-7], "longer": content + b"xyz"}.get(damage, content))
    if damage == "index":
        index.write_text(index.read_text()[:-40])
    rebuilt = cached_features(encoder, folder, names, tmp_path)
    assert (rebuilt.encoded > 0) == (damage != "longer")
    np.testing.assert_array_equal(rebuilt.take(names), whole)
    assert cached_features(encoder, folder, names, tmp_path).encoded == 0


def test_key_is_weights_preprocessing_and_file(encoder, folder, names, tmp_path):
    cached_features(encoder, folder, names, tmp_path)
    other = load_clip(make_clip(tmp_path / "other.pt", seed=1))
    assert other.fingerprint != encoder.fingerprint
    assert cached_features(other, folder, names, tmp_path).encoded == len(names)
    os.utime(folder / names[0], (1, 1))
    assert cached_features(encoder, folder, names, tmp_path).encoded == 1


def test_fingerprint_is_the_same_in_half_precision(encoder, clip_file):
    half = load_clip(clip_file)
    half.model.half()
    assert cache.ClipEncoder(half.model, "half").fingerprint == encoder.fingerprint


def test_broken_pictures_are_reported_and_skipped(encoder, folder, names, tmp_path):
    (folder / names[3]).write_bytes(b"not a picture")
    got = cached_features(encoder, folder, [*names, "absent.jpg"], tmp_path / "cache")
    assert set(got.broken) == {names[3], "absent.jpg"} and names[3] in got.broken[names[3]]
    assert len(got.rows) == len(names) - 1 and names[3] not in got
    with pytest.raises(InputError, match=r"absent\.jpg"):
        cached_features(encoder, folder, ["absent.jpg"], tmp_path / "cache")


def test_features_do_not_depend_on_batch_size(encoder, folder, names, tmp_path):
    one = cached_features(encoder, folder, names, tmp_path / "a", batch_size=1).take(names)
    all_ = cached_features(encoder, folder, names, tmp_path / "b", batch_size=64).take(names)
    np.testing.assert_allclose(one, all_, atol=2e-3)


def test_a_damaged_clip_file_is_named(clip_file, tmp_path):
    short = tmp_path / "short.pt"
    short.write_bytes(clip_file.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"short\.pt cannot be read as a CLIP model"):
        load_clip(short)
    with pytest.raises(InputError, match=r"ViT-B/33.* neither a file nor one of: .*ViT-B/32"):
        load_clip("ViT-B/33")


def test_a_plain_state_dict_gives_the_same_vectors(encoder, folder, names, tmp_path):
    torch.save(encoder.model.state_dict(), tmp_path / "state.pt")
    plain = load_clip(tmp_path / "state.pt")
    pictures = [folder / name for name in names[:3]]
    torch.testing.assert_close(plain.encode_images(pictures), encoder.encode_images(pictures), atol=5e-3, rtol=1e-2)
