"""The feature cache: once a picture, resumed after a kill, damage found, keyed by weights and files."""

import os
import shutil

import numpy as np
import pytest
import torch

from helpers import disk
from helpers.data import features as cache
from helpers.data.encoders import load_clip
from helpers.data.features import CachePlan, cached_features, plan_cache
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


# --- Cached, or on the fly -------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Call it with the free bytes that the disk shall have."""
    return lambda count: monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": count}))


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setattr(disk, "KAGGLE", working)
    return working


VIT_L = type("encoder", (), {"dim": 768, "grid": (257, 1024)})


def test_a_plan_says_whether_features_fit(tmp_path, free):
    free(17 * 10**9)
    plan = plan_cache(VIT_L, 118_287, tmp_path / "not" / "yet", grid=True)
    assert plan == CachePlan(bytes_per_picture=2 * (257 * 1024 + 768), pictures=118_287, free=17 * 10**9) and not plan.cached
    assert str(plan) == ("features: 528 kB a picture, 62.4 GB for 118,287: more than 80% of the 17.0 GB free, so CLIP runs "
                         "anew in each epoch")  # fmt: skip
    pooled = plan_cache(VIT_L, 118_287, tmp_path, grid=False)
    assert pooled.cached and str(pooled) == "features: 2 kB a picture, 181.7 MB for 118,287: cached"
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("room", "fits"), [(125, True), (124, False), (0, False)])
def test_a_plan_leaves_a_margin(room, fits):
    assert CachePlan(bytes_per_picture=10, pictures=10, free=room).cached == fits


def test_a_plan_counts_mirrored_pictures_at_once(tmp_path, free):
    free(2 * 10**9)
    assert plan_cache(VIT_L, 2000, tmp_path, grid=True).cached
    assert not plan_cache(VIT_L, 2000, tmp_path, grid=True, copies=2).cached
    both = plan_cache(VIT_L, 1000, tmp_path, grid=True, copies=2) + plan_cache(VIT_L, 500, tmp_path, grid=True)
    assert both == plan_cache(VIT_L, 2500, tmp_path, grid=True)


def test_pictures_in_the_cache_need_no_more_room(encoder, folder, names, tmp_path, free):
    place = tmp_path / "cache"
    plan = lambda **options: plan_cache(encoder, names, place, grid=True, image_dir=folder, **options)  # noqa: E731
    before = plan()
    assert plan_cache(encoder, names * 2, place, grid=True, image_dir=folder) == before, "each picture once"
    cached_features(encoder, folder, names[:7], place, grid=True)
    assert (before.present, plan().present, plan(copies=2).present) == (0, 7, 7)
    cached_features(encoder, folder, names, place, grid=True)
    cached_features(encoder, folder, names[:3], place, grid=True, mirrored=True)
    free(0)
    assert plan().needed == 0 and plan().cached and str(plan()) == str(before)
    half = plan(copies=2)
    assert (half.pictures, half.present, half.cached) == (2 * len(names), len(names) + 3, False)
    assert f"({len(names) + 3} of them cached already)" in str(half)
    assert (plan_cache(encoder, names[:3], place, grid=True, image_dir=folder, copies=2)
            + plan_cache(encoder, names[3:], place, grid=True, image_dir=folder)).needed == 0  # fmt: skip
    os.utime(folder / names[0], (1, 1))
    assert plan().present == len(names) - 1
    next(place.glob("*grid/index.jsonl")).write_text("no index")
    assert plan().present == 0
    with pytest.raises(InputError, match="pictures: give their file names"):
        plan_cache(encoder, 5, place, grid=True, image_dir=folder)


def test_on_kaggle_the_quota_counts_not_the_disk(kaggle, tmp_path, free, monkeypatch):
    free(70 * 10**9)
    monkeypatch.setattr(disk, "KAGGLE_BYTES", 10_000)
    (kaggle / "outputs" / "run").mkdir(parents=True)
    (kaggle / "outputs" / "run" / "model").write_bytes(bytes(3_000))
    (tmp_path / "archive").write_bytes(bytes(50_000))
    (kaggle / "photos").symlink_to(tmp_path)
    (kaggle / "archive").symlink_to(tmp_path / "archive")
    links = len(str(tmp_path / "archive"))
    plan = lambda place: plan_cache(VIT_L, 1, place, grid=False)  # noqa: E731
    assert plan(kaggle / "data" / "cache").free == 7_000 - links
    assert plan(tmp_path / "elsewhere").free == 70 * 10**9
    (kaggle / "more").write_bytes(bytes(8_000))
    assert plan(kaggle).free == 0 and not plan(kaggle).cached
    (kaggle / "more").unlink()
    free(500)
    assert plan(kaggle).free == 500
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    free(70 * 10**9)
    assert plan(kaggle).free == 70 * 10**9


def test_the_quota_is_the_last_guard_too(kaggle, encoder, folder, names, monkeypatch):
    monkeypatch.setattr(disk, "KAGGLE_BYTES", 100)
    with pytest.raises(InputError, match="make room"):
        cached_features(encoder, folder, names, kaggle / "cache")


def test_checkpoints_are_given_their_room(encoder, tmp_path, free):
    free(50_000)
    plan = lambda reserve: plan_cache(VIT_L, 20, tmp_path, grid=False, reserve=reserve)  # noqa: E731
    assert plan(0).needed == 20 * 2 * VIT_L.dim and plan(0).cached and plan(10_000).cached
    beside = plan(30_000)
    assert not beside.cached
    assert str(beside).endswith("too much for the 50 kB free beside 30 kB of checkpoints, so CLIP runs anew in each epoch")
    assert (plan(30_000) + plan(30_000)).reserve == 30_000
    assert disk.checkpoint_bytes(100) == 3 * 1200 + 400


def test_sizes_are_readable():
    assert [disk.size_text(n) for n in (0, 512, 2_049, 3_400_000, 62_400_000_000)] == [
        "0 bytes", "512 bytes", "2 kB", "3.4 MB", "62.4 GB"
    ]  # fmt: skip
