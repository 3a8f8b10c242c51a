"""CIFAR-10's own files, read and checked by torchvision, and their miniature cut from scenes."""

import hashlib
import json
import pickle
import random

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from helpers.data import cifar
from helpers.data.cifar import CLASSES, Scenes10, load_cifar
from helpers.data.scenes import cut_out, world
from helpers.errors import InputError, OfflineError

BATCH = 3  # pictures a file
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """CIFAR-10 with three pictures a file, in the layout and under the keys of the true one, whose checksums it gets."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for n, (name, _) in enumerate([*CIFAR10.train_list, *CIFAR10.test_list]):
        rows = draw.integers(0, 256, (BATCH, 3072), dtype=np.uint8)
        content = {"batch_label": "", "labels": [n, 7, 9], "data": rows, "filenames": ["a.png", "b.png", "c.png"]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {"num_cases_per_batch": BATCH, "label_names": NAMES, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))

    def sum_of(name):
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for files in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, files, [[name, sum_of(name)] for name, _ in getattr(CIFAR10, files)])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sum_of("batches.meta")})
    return folder


@pytest.fixture
def offline(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cifar, "RECIPE", cifar.RECIPE | {"train": 50, "test": 20})


# --- CIFAR-10


def test_the_true_layout_is_read(published):
    train, test = load_cifar("cifar10", published.parent)
    assert (len(train), len(test)) == (5 * BATCH, BATCH) and train.classes == NAMES
    assert train.targets[::BATCH] == [0, 1, 2, 3, 4] and test.targets == [5, 7, 9]
    rows = pickle.loads((published / "data_batch_2").read_bytes())["data"]
    picture, label = train[BATCH + 1]
    # A row is the red channel, then the green, then the blue, each line by line.
    assert np.array_equal(np.asarray(picture), rows[1].reshape(3, 32, 32).transpose(1, 2, 0)) and label == 7


def test_the_folder_itself_may_be_named_too(published):
    assert len(load_cifar("cifar10", published)[0]) == 5 * BATCH


@pytest.mark.parametrize("lost", ["data_batch_4", "test_batch", "batches.meta"])
def test_a_damaged_file_is_named_where_it_cannot_be_downloaded(lost, published, offline):
    (published / lost).write_bytes((published / lost).read_bytes()[:-1])
    with pytest.raises(OfflineError, match=rf"must be downloaded.*cifar-10-batches-py into .*\({lost} there: damaged"):
        load_cifar("cifar10", published.parent)


def test_without_a_network_the_folder_to_fill_is_named(tmp_path, offline):
    with pytest.raises(OfflineError, match=r"cannot be reached\. Put .* cifar-10-batches-py into .*data/cifar10"):
        load_cifar("cifar10", work_dir=tmp_path)


def test_a_download_that_fails_says_so(tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(cifar, "require_network", lambda *_, **__: None)
    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(InputError, match=r"could not be downloaded: File not found.*--data-dir"):
        load_cifar("cifar10", tmp_path)


def test_other_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="'cifar100' is not known here: choose cifar10 or scenes10"):
        load_cifar("cifar100", tmp_path)


# --- The miniature


def test_the_miniature_is_balanced_and_true_to_its_scenes(tmp_path, small):
    train, test = load_cifar("scenes10", work_dir=tmp_path)
    assert np.bincount(train.targets).tolist() == [5] * 10 and np.bincount(test.targets).tolist() == [2] * 10
    assert tuple(train.classes) == CLASSES and train.data.shape == (50, 32, 32, 3) and train.data.dtype == np.uint8
    scenes = cifar._scenes_of_each_class(random.Random(f"scenes10/{cifar.RECIPE['seed']}/val"), "val", 20)
    for (picture, label), scene in zip(test, scenes, strict=True):
        assert isinstance(picture, Image.Image) and picture.tobytes() == cut_out(scene).tobytes()
        assert CLASSES[label] == scene.subject
    assert len(set(train.targets[:10])) > 3, "shuffled"


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_miniature_shows_nothing_that_is_kept_for_tests(split):
    scenes = cifar._scenes_of_each_class(random.Random(0), split, 100)
    assert {world.split_of(scene) for scene in scenes} == {split} and {scene.count for scene in scenes} == {1}
    assert not any(world.is_held_out(scene) for scene in scenes)


def test_the_miniature_lies_in_cifars_own_files(tmp_path, small):
    load_cifar("scenes10", tmp_path)
    folder = tmp_path / Scenes10.base_folder
    names = [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]]
    assert {path.name for path in folder.iterdir()} == {*names, "batches.meta", cifar.MARKER}
    batch = pickle.loads((folder / "data_batch_1").read_bytes())
    assert set(batch) == {"batch_label", "labels", "data", "filenames"} and batch["data"].shape == (10, 3072)
    assert pickle.loads((folder / "batches.meta").read_bytes())["label_names"] == list(CLASSES)


def test_the_miniature_is_drawn_once_and_anew_by_another_recipe(tmp_path, small, monkeypatch):
    load_cifar("scenes10", tmp_path)
    first = (tmp_path / Scenes10.base_folder / "test_batch").stat()
    load_cifar("scenes10", tmp_path)
    assert (tmp_path / Scenes10.base_folder / "test_batch").stat() == first
    monkeypatch.setattr(cifar, "RECIPE", cifar.RECIPE | {"seed": 11})
    load_cifar("scenes10", tmp_path)
    assert json.loads((tmp_path / Scenes10.base_folder / cifar.MARKER).read_text())["recipe"]["seed"] == 11


def test_a_damaged_miniature_is_refused(tmp_path, small):
    load_cifar("scenes10", tmp_path)
    file = tmp_path / Scenes10.base_folder / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="scenes-10-batches-py is damaged: delete it"):
        load_cifar("scenes10", tmp_path)


def test_an_interrupted_miniature_leaves_nothing(tmp_path, small, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cifar.scenes, "cut_out", stop)
    with pytest.raises(KeyboardInterrupt):
        load_cifar("scenes10", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []
