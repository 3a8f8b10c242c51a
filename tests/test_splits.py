"""No test picture shares an image with training: one test on every splitter, in miniatures of the true layouts."""

import hashlib
import random
from itertools import combinations

import pytest

from helpers.data.datasets import SPLITS, UNLISTED, load_captions, photo_id
from helpers.data.images import open_image
from helpers.data.scenes import make_scenes, scene_stream, world
from helpers.data.splits import OFFICIAL_LISTS, seeded_split
from helpers.errors import InputError
from tests.test_datasets import (
    NAMES,
    NUMBERS,
    coco2017,
    flickr8k,
    flickr30k_pipes,
    karpathy,
    karpathy_coco,
    nothing_attached,  # noqa: F401  (a fixture: nothing outside tmp_path is found)
    thirds,
    touch,
    write,
)

SCENES = {"train": 12, "val": 4, "test": 6}


# --- one function per splitter: build its layout in `folder` and load it


def official_lists(folder):
    for split, images in (("train", NAMES[:10]), ("val", NAMES[10:13]), ("test", NAMES[13:18])):
        write(folder / OFFICIAL_LISTS[split], "\n".join(images))
    return load_captions("flickr8k", flickr8k(folder))


def karpathy_beside_flickr8k(folder):
    karpathy(folder / "dataset_flickr8k.json", thirds(NAMES[:15]))
    return load_captions("flickr8k", flickr8k(folder))


def karpathy_beside_flickr30k_by_the_names_of_flickr8k(folder):
    karpathy(folder / "dataset_flickr30k.json", thirds(NAMES))
    return load_captions("flickr30k", flickr30k_pipes(folder), splits="karpathy")


def karpathy_of_flickr30k_alone(folder):
    touch(folder / "flickr30k_images", NUMBERS)
    karpathy(folder / "dataset_flickr30k.json", thirds(NUMBERS))
    return load_captions("flickr30k", folder)


def karpathy_file_of_your_own(folder):
    file = karpathy(folder / "elsewhere" / "mine.json", thirds(NAMES))
    return load_captions("folder", flickr8k(folder), splits=str(file))


def karpathy_of_coco_with_restval_among_2014_files(folder):
    karpathy_coco(folder / "dataset_coco.json")
    touch(folder / "val2014", [f"COCO_val2014_{number:012d}.jpg" for number in (9, 25, 30, 139, 285)])
    return load_captions("coco-karpathy", folder)


def karpathy_of_coco_with_restval_among_2017_files(folder):
    karpathy_coco(folder / "dataset_coco.json")
    return load_captions("coco-karpathy", coco2017(folder))


def coco_2017(folder):
    return load_captions("coco2017", coco2017(folder))


def seeded_flickr8k(folder):
    rows = (flickr8k(folder) / "captions.txt").read_text(encoding="utf-8").splitlines()
    captions = random.Random(0).sample(rows[1:], len(rows) - 1)  # a picture's five captions lie far apart
    write(folder / "captions.txt", "\n".join([rows[0], *captions]))
    return load_captions("flickr8k", folder, splits="seeded", seed=3)


def seeded_flickr30k(folder):
    return load_captions("flickr30k", flickr30k_pipes(folder))


def limited(folder):
    return load_captions("flickr8k", flickr8k(folder), limit=3)


def folder_of_your_own(folder):
    for album in ("spring", "été"):
        (folder / "Images" / album).mkdir(parents=True)
    names = [f"{name} {number}.jpg" for name in ("spring/IMG", "été/DSC", "cat") for number in range(5)]
    return load_captions(str(flickr8k(folder, names=names)))


def scenes(folder, seed=0):
    return load_captions("scenes", make_scenes(folder / "scenes", SCENES, seed, size=32, workers=1, progress=False))


SPLITTERS = [official_lists, karpathy_beside_flickr8k, karpathy_beside_flickr30k_by_the_names_of_flickr8k,
             karpathy_of_flickr30k_alone, karpathy_file_of_your_own, karpathy_of_coco_with_restval_among_2014_files,
             karpathy_of_coco_with_restval_among_2017_files, coco_2017, seeded_flickr8k, seeded_flickr30k, limited,
             folder_of_your_own, scenes]  # fmt: skip


@pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda splitter: splitter.__name__)
def test_no_test_picture_shares_an_image_with_training(tmp_path, splitter):
    captions = splitter(tmp_path)
    images = {split: captions.images(split) for split in (*SPLITS, UNLISTED)}
    assert images["train"] and images["val"] and (images["test"] or splitter is coco_2017)
    for one, other in combinations(images, 2):
        for same in (str, photo_id, lambda image: captions.path(image).resolve()):
            assert {same(image) for image in images[one]}.isdisjoint(same(image) for image in images[other]), (one, other)
    rows = captions.table.groupby("image")
    assert rows["split"].nunique().max() == 1 and rows["caption"].nunique().min() == 5, "all five captions in one split"


# --- a photo that is listed in two splits

TWIN = NAMES[0], NUMBERS[0]  # one photo by its names in Flickr8k and in Flickr30k


def two_lists(folder):
    write(folder / OFFICIAL_LISTS["train"], TWIN[0])
    write(folder / OFFICIAL_LISTS["test"], TWIN[1])
    return load_captions("flickr8k", flickr8k(folder, names=TWIN))


def two_karpathy_entries_beside_captions(folder):
    karpathy(folder / "dataset_flickr8k.json", dict(zip(TWIN, ("train", "test"), strict=True)))
    return load_captions("flickr8k", flickr8k(folder))


def two_karpathy_entries_alone(folder):
    karpathy(folder / "dataset_flickr8k.json", dict(zip(TWIN, ("train", "test"), strict=True)))
    touch(folder / "Images", TWIN)
    return load_captions("flickr8k", folder)


def restval_and_test(folder):
    names = {f"COCO_{part}2014_{9:012d}.jpg": split for part, split in (("train", "restval"), ("val", "test"))}
    karpathy(folder / "dataset_coco.json", names, filepath=lambda name: "val2014")
    return load_captions("coco-karpathy", coco2017(folder))


def both_years_of_coco(folder):
    return load_captions("coco2017", coco2017(folder, train=(9, 25), val=(9, 139)))


@pytest.mark.parametrize("load", [
    two_lists,
    two_karpathy_entries_beside_captions,
    two_karpathy_entries_alone,
    restval_and_test,
    both_years_of_coco,
])  # fmt: skip
def test_a_photo_in_two_splits_is_refused(tmp_path, load):
    with pytest.raises(InputError, match=r"is in (train|test) and in (train|val|test)"):
        load(tmp_path)


def test_a_second_name_of_a_listed_photo_in_no_list_is_used_for_nothing(tmp_path):
    write(tmp_path / OFFICIAL_LISTS["train"], TWIN[0])
    captions = load_captions("flickr8k", flickr8k(tmp_path, names=TWIN))
    assert captions.images("train") == [TWIN[0]] and captions.images(UNLISTED) == [TWIN[1]]


# --- photos of your own that have one name in two folders

ALBUMS = {"a/1.jpg": "train", "b/1.jpg": "test", "b/2.jpg": "val"}


def albums(folder):
    for album in ("a", "b"):
        (folder / "Images" / album).mkdir(parents=True)
    return flickr8k(folder, names=ALBUMS)


def albums_in_lists(folder):
    for image, split in ALBUMS.items():
        write(folder / OFFICIAL_LISTS[split], image)
    return load_captions(str(albums(folder)))


def albums_in_a_karpathy_file(folder):
    file = karpathy(folder / "elsewhere" / "mine.json", ALBUMS)
    return load_captions(str(albums(folder)), splits=str(file))


def albums_in_a_karpathy_file_alone(folder):
    karpathy(albums(folder) / "dataset_mine.json", ALBUMS)
    (folder / "captions.txt").unlink()
    return load_captions(str(folder))


@pytest.mark.parametrize("load", [albums_in_lists, albums_in_a_karpathy_file, albums_in_a_karpathy_file_alone])
def test_two_photos_of_one_name_in_two_folders_may_be_in_two_splits(tmp_path, load):
    captions = load(tmp_path)
    assert {image: split for split in SPLITS for image in captions.images(split)} == ALBUMS
    assert all(captions.path(image).is_file() for image in ALBUMS)


def test_a_karpathy_file_without_your_folders_goes_by_the_name(tmp_path):
    file = karpathy(tmp_path / "elsewhere" / "mine.json", {"1.jpg": "test", "2.jpg": "train"})
    captions = load_captions(str(albums(tmp_path)), splits=str(file))
    assert captions.images("test") == ["a/1.jpg", "b/1.jpg"] and captions.images("train") == ["b/2.jpg"]


# --- seeded splits of whatever names there are

FORMS = ["{n}.jpg", "{n}_0a1b2c3d4e.jpg", "{n}_b.png", "COCO_val2014_{n:012d}.jpg", "album/IMG {n}.JPG", "été {n}.jpeg"]


@pytest.mark.parametrize("seed", range(30))
def test_seeded_split_of_any_names(seed):
    rng = random.Random(seed)
    numbers = rng.sample(range(1, 10**9), rng.choice([0, 1, 2, 3, 4, 9, rng.randrange(10, 300)]))
    names = [rng.choice(FORMS).format(n=number) for number in numbers]
    splits = seeded_split(names, seed=seed)
    assert set(splits) == set(names)
    assert splits == seeded_split(rng.sample(names * 5, 5 * len(names)), seed=seed), "rows in any order, five per picture"
    counts = [list(splits.values()).count(split) for split in SPLITS]
    tenth = max(1, round(len(names) / 10)) if len(names) > 2 else 0
    assert counts == [len(names) - 2 * tenth, tenth, tenth]


@pytest.mark.parametrize("seed", range(3))
def test_seeded_split_keeps_two_names_of_one_photo_together(seed):
    names = [form.format(n=number) for number in range(1, 40) for form in ("{n}.jpg", "{n}_0a1b2c3d4e.jpg", "./{n}.jpg")]
    splits = seeded_split(names, seed=seed)
    assert len({(photo_id(name), split) for name, split in splits.items()}) == 39


@pytest.mark.parametrize(("form", "seed", "digest"), [
    ("train_{n:05d}.png", 0, "10eb58347d5bf490"),
    ("train_{n:05d}.png", 3, "09cb83656e76a875"),
    ("10009{n:05d}_0a1b2c3d4e.jpg", 0, "9c7457b4636d0b42"),
    ("10009{n:05d}.jpg", 0, "beda18dbca138b5b"),
    ("train2017/{n:012d}.jpg", 0, "aeed531d6a099642"),
    ("été/IMG {n}.JPG", 3, "9fac5abd8d82be7b"),
    ("./{n}.jpg", 0, "4c37e9f437126d07"),
])  # fmt: skip
def test_recorded_seeded_splits_stay(form, seed, digest):
    """The digests were taken when names, not photos, were ranked: a score on an earlier split stays comparable."""
    splits = seeded_split([form.format(n=n) for n in range(1000)], seed=seed)
    assert hashlib.sha256(repr(sorted(splits.items())).encode()).hexdigest().startswith(digest)


# --- scenes: what the folder calls test is what the world keeps for the test


def test_scenes_in_the_folder_are_of_the_split_that_their_list_says(tmp_path):
    captions = scenes(tmp_path)
    for split, count in SCENES.items():
        drawn = list(scene_stream(0, count, split))
        assert list(captions.references(split).values()) == [list(dict.fromkeys(five)) for _, five in drawn]
        assert {world.split_of(scene) for scene, _ in drawn} == {split}
        assert split == "test" or not any(world.is_held_out(scene) for scene, _ in drawn)


def test_no_two_scenes_have_the_same_pixels_in_any_split_of_any_seed(tmp_path):
    datasets = [scenes(tmp_path / str(seed), seed) for seed in (0, 1)]
    pictures = {open_image(captions.path(image)).tobytes() for captions in datasets for image in captions.table["image"]}
    assert len(pictures) == 2 * sum(SCENES.values())
