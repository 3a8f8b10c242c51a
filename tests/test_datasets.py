"""Miniatures of every published layout, and of everything that can be wrong with one."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from helpers.data import sources
from helpers.data.datasets import SPLITS, UNLISTED, load_captions, photo_id, shared_photos
from helpers.data.report import DUPLICATE, EMPTY, MALFORMED, MISSING, REPAIRED, UNCAPTIONED, Report
from helpers.data.splits import assign, seeded_split
from helpers.errors import InputError, OfflineError

NAMES = [f"10009{number:05d}_0a1b2c3d4e.jpg" for number in range(20)]
NUMBERS = [f"10009{number:05d}.jpg" for number in range(20)]


@pytest.fixture(autouse=True)
def nothing_attached(tmp_path, monkeypatch):
    """Whatever this machine has mounted or downloaded stays out of the tests, and nothing is downloaded."""
    monkeypatch.setattr(sources, "KAGGLE_INPUT", tmp_path / "kaggle-input")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setattr(sources, "KAGGLE_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")


def touch(folder: Path, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def flickr8k(folder: Path, names=NAMES, captions=5) -> Path:
    """As adityajn105/flickr8k has it."""
    touch(folder / "Images", names)
    rows = [f"{name},Caption {number} of {name[:10]} ." for name in names for number in range(captions)]
    write(folder / "captions.txt", "\n".join(["image,caption", *rows, ""]))
    return folder


def flickr30k_pipes(folder: Path, names=NUMBERS) -> Path:
    """As hsankesara/flickr-image-dataset has it, with its one row that lacks a delimiter."""
    touch(folder / "flickr30k_images" / "flickr30k_images", names)
    rows = [f"{name}| {number}| Caption , {number} of {name} ." for name in names for number in range(5)]
    rows[4] = f"{names[0]}| 4   A dog runs across the grass ."
    write(folder / "flickr30k_images" / "results.csv", "\n".join(["image_name| comment_number| comment", *rows]))
    return folder


def coco2017(folder: Path, train=(9, 25, 30), val=(139, 285)) -> Path:
    """As awsaf49/coco-2017-dataset has it: annotations in no particular order."""
    for split, numbers in (("train", train), ("val", val)):
        files = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in numbers]
        notes = [{"id": n, "image_id": n, "caption": f"Caption {k} of {n}.\n"} for k in range(5) for n in reversed(numbers)]
        write(folder / f"coco2017/annotations/captions_{split}2017.json", {"images": files, "annotations": notes})
        touch(folder / f"coco2017/{split}2017", [file["file_name"] for file in files])
    return folder


def karpathy(path: Path, splits: dict[str, str], filepath=None) -> Path:
    """A Karpathy file; `splits` maps image to split."""
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": f"{name} {n}."} for n in range(5)]}
        for name, split in splits.items()
    ]
    for image in images if filepath else []:
        image["filepath"] = filepath(image["filename"])
    return write(path, {"images": images, "dataset": "mini"})


def karpathy_coco(path: Path) -> Path:
    splits = {9: "train", 25: "restval", 30: "test", 139: "val", 285: "restval"}
    named = {f"COCO_val2014_{number:012d}.jpg": split for number, split in splits.items()}
    return karpathy(path, named, filepath=lambda name: "val2014")


def thirds(names):
    return {name: SPLITS[number % 3] for number, name in enumerate(names)}


def one_caption_file(folder: Path, text, names=("a.jpg", "b.jpg", "c.jpg")):
    touch(folder / "Images", names)
    write(folder / "captions.txt", text)
    return load_captions("folder", folder)


# --- layouts


def test_flickr8k(tmp_path):
    captions = load_captions("flickr8k", flickr8k(tmp_path))
    assert list(captions.table.columns) == ["image", "caption", "split"] and len(captions.table) == 100
    assert captions.report.clean and "no problems" in str(captions.report)
    assert "20 pictures with 100 captions; train 16, val 2, test 2" in str(captions.report)
    image = captions.images("test")[0]
    assert captions.references("test")[image] == [f"Caption {number} of {image[:10]} ." for number in range(5)]
    assert captions.path(image).is_file()
    assert captions.images("train") == [name for name in NAMES if name in captions.images("train")], "file order"


def test_flickr30k_with_pipes_and_its_row_without_delimiter(tmp_path):
    captions = load_captions("flickr30k", flickr30k_pipes(tmp_path))
    assert len(captions.table) == 100
    assert captions.table["caption"][4] == "A dog runs across the grass ."
    assert captions.table["caption"][5] == "Caption , 0 of 1000900001.jpg ."
    assert captions.report.counts[REPAIRED] == 1 and captions.report.counts[MALFORMED] == 0
    assert "line 6: '1000900000.jpg| 4   A dog" in str(captions.report)
    assert all(captions.path(image).is_file() for image in captions.table["image"])
    assert len(load_captions("flickr30k", tmp_path / "flickr30k_images").table) == 100, "given the inner folder"


@pytest.mark.parametrize("folder", ["flickr30k_images", "Images", "Images/flickr30k_images"])
def test_flickr30k_with_commas_and_either_picture_folder(tmp_path, folder):
    touch(tmp_path / folder, NUMBERS)
    rows = [f'{name},{number}," A ""quoted"" , caption {number} ."' for name in NUMBERS for number in range(5)]
    rows[4] = f"{NUMBERS[0]}, 4   A dog runs across the grass .,"  # what a spreadsheet makes of the missing delimiter
    write(tmp_path / "captions.txt", "\n".join(["image_name,comment_number,comment", *rows]))
    captions = load_captions("flickr30k", tmp_path)
    assert captions.image_dir == tmp_path / folder
    assert captions.table["caption"][0] == 'A "quoted" , caption 0 .'
    assert captions.table["caption"][4] == "A dog runs across the grass ." and captions.report.counts[REPAIRED] == 1


@pytest.mark.parametrize("inner", ["", "coco2017"])
def test_coco_2017(tmp_path, inner):
    captions = load_captions("coco2017", coco2017(tmp_path) / inner)
    assert captions.images("train") == [f"train2017/{number:012d}.jpg" for number in (30, 25, 9)], "order of the captions"
    assert len(captions.images("val")) == 2 and captions.images("test") == []
    assert captions.references("val")["val2017/000000000139.jpg"][1] == "Caption 1 of 139."
    assert captions.path("val2017/000000000139.jpg").is_file()
    assert "never report a Karpathy-test score" in str(captions.report)


def test_coco_2017_without_its_training_pictures(tmp_path):
    folder = coco2017(tmp_path)
    for file in (folder / "coco2017/train2017").iterdir():
        file.unlink()
    (folder / "coco2017/train2017").rmdir()
    captions = load_captions("coco2017", folder)
    assert captions.images("train") == [] and len(captions.images("val")) == 2
    assert "no folder train2017" in str(captions.report) and "Karpathy" not in str(captions.report)


def test_coco_karpathy_finds_2014_names_among_2017_files(tmp_path):
    folder = coco2017(tmp_path)
    karpathy_coco(folder / "dataset_coco.json")
    captions = load_captions("coco-karpathy", folder)
    assert captions.images("train") == [
        "train2017/000000000009.jpg",
        "train2017/000000000025.jpg",
        "val2017/000000000285.jpg",
    ], "restval trains"
    assert captions.images("test") == ["train2017/000000000030.jpg"]
    assert all(captions.path(image).is_file() for image in captions.table["image"])
    leaked = shared_photos(load_captions("coco2017", folder), captions, splits=("train", "test"))
    assert leaked == 1, "the leak that coco2017's report warns of"


def test_coco_karpathy_with_2014_folders(tmp_path):
    karpathy_coco(tmp_path / "dataset_coco.json")
    touch(tmp_path / "val2014", [f"COCO_val2014_{number:012d}.jpg" for number in (9, 25, 30, 139, 285)])
    captions = load_captions("coco-karpathy", tmp_path)
    assert captions.images("val") == ["val2014/COCO_val2014_000000000139.jpg"]
    assert captions.path(captions.images("val")[0]).is_file()


@pytest.mark.parametrize("attached", ["karpathy-splits", "datasets/shtvkumar/karpathy-splits"])
def test_coco_karpathy_with_its_splits_attached_apart(tmp_path, attached):
    folder = coco2017(tmp_path / "kaggle-input/coco-2017-dataset")
    karpathy_coco(tmp_path / "kaggle-input" / attached / "dataset_coco.json")
    captions = load_captions("coco-karpathy", work_dir=tmp_path)
    assert captions.image_dir == folder / "coco2017"
    assert len(captions.images("train")) == 3


def test_karpathy_file_as_captions_and_splits(tmp_path):
    touch(tmp_path / "Images", NAMES)
    karpathy(tmp_path / "dataset_flickr8k.json", thirds(NAMES))
    karpathy(tmp_path / "dataset_flickr30k.json", thirds(NUMBERS))  # the other files of the same download
    captions = load_captions("flickr8k", tmp_path)
    assert captions.images("val") == NAMES[1::3] and len(captions.table) == 100
    assert "Karpathy's splits" in str(captions.report)


def test_a_karpathy_file_of_your_own(tmp_path):
    touch(tmp_path / "Images", NAMES)
    karpathy(tmp_path / "dataset_mine.json", thirds(NAMES))
    assert load_captions("folder", tmp_path).images("test") == NAMES[2::3]


def test_a_folder_of_your_own_by_its_path(tmp_path):
    folder = flickr8k(tmp_path / "holiday", names=["one.jpg", "two.png", "three.jpeg", "a, b.jpg"], captions=0)
    write(folder / "captions.txt", 'image,caption\none.jpg,Sea\ntwo.png,Sand\nthree.jpeg,Sun\n"a, b.jpg",Two names\n')
    captions = load_captions(str(folder))
    assert captions.name == "holiday" and list(captions.table["image"])[-1] == "a, b.jpg"
    assert sorted(captions.table["split"]) == ["test", "train", "train", "val"]


def test_scenes_are_drawn_into_the_work_folder(tmp_path, monkeypatch):
    import helpers.data.scenes

    monkeypatch.setattr(helpers.data.scenes, "make_scenes", flickr8k)
    captions = load_captions("scenes", work_dir=tmp_path)
    assert captions.image_dir == tmp_path / "data/scenes/Images" and len(captions.table) == 100


# --- splits


def test_official_lists_of_which_one_is_missing(tmp_path):
    flickr8k(tmp_path)
    write(tmp_path / "Flickr_8k.trainImages.txt", "\n".join([*NAMES[:12], "gone.jpg"]))
    write(tmp_path / "Flickr_8k.devImages.txt", "\ufeff" + "\r\n".join(NAMES[12:15]))
    captions = load_captions("flickr8k", tmp_path)
    assert captions.images("train") == NAMES[:12] and captions.images("val") == NAMES[12:15]
    assert captions.images("test") == [] and captions.images(UNLISTED) == NAMES[15:]
    assert captions.report.counts[UNCAPTIONED] == 1 and "gone.jpg" in str(captions.report)
    assert "no list Flickr_8k.testImages.txt" in str(captions.report)


def test_karpathy_file_beside_captions(tmp_path):
    flickr8k(tmp_path)
    karpathy(tmp_path / "dataset_flickr8k.json", thirds(NAMES[:15]))
    captions = load_captions("flickr8k", tmp_path)
    assert captions.images("test") == NAMES[2:15:3] and captions.images(UNLISTED) == NAMES[15:]
    assert captions.table["caption"][0] == "Caption 0 of 1000900000 .", "captions come from captions.txt"


def test_the_splits_argument_overrules(tmp_path):
    flickr8k(tmp_path)
    write(tmp_path / "Flickr_8k.trainImages.txt", "\n".join(NAMES))
    other = karpathy(tmp_path / "elsewhere.json", thirds(NAMES))
    assert len(load_captions("flickr8k", tmp_path).images("train")) == 20
    assert len(load_captions("flickr8k", tmp_path, splits="seeded").images("train")) == 16
    assert load_captions("flickr8k", tmp_path, splits=str(other)).images("val") == NAMES[1::3]
    with pytest.raises(OfflineError, match=r"dataset_flickr8k\.json"):
        load_captions("flickr8k", tmp_path, splits="karpathy")
    with pytest.raises(InputError, match="no karpathy splits"):
        load_captions("folder", tmp_path, splits="karpathy")
    with pytest.raises(InputError, match="'bylength' is not known"):
        load_captions("flickr8k", tmp_path, splits="bylength")
    (tmp_path / "Flickr_8k.trainImages.txt").unlink()
    with pytest.raises(InputError, match="no official splits"):
        load_captions("flickr8k", tmp_path, splits="official")


def test_seeded_split_does_not_depend_on_row_order():
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    assert seeded_split(NAMES) == seeded_split(shuffled)
    assert seeded_split(NAMES) != seeded_split(NAMES, seed=1)
    counts = [list(seeded_split(map(str, range(1000))).values()).count(split) for split in SPLITS]
    assert counts == [800, 100, 100]
    assert set(seeded_split(["a", "b"]).values()) == {"train"}
    assert sorted(seeded_split(["a", "b", "c"]).values()) == ["test", "train", "val"]


@pytest.mark.parametrize(("size", "unlisted"), [(31_783, 769), (31_014, 0), (31_000, None)])
def test_full_flickr30k_has_its_published_sizes(size, unlisted):
    values = list(seeded_split(map(str, range(size)), flickr30k=True).values())
    counts = [values.count(split) for split in (*SPLITS, UNLISTED)]
    assert counts == ([29_000, 1_014, 1_000, unlisted] if unlisted is not None else [24_800, 3_100, 3_100, 0])


def test_a_photo_in_two_splits_is_named(tmp_path):
    flickr8k(tmp_path)
    write(tmp_path / "Flickr_8k.trainImages.txt", "\n".join(NAMES[:10]))
    write(tmp_path / "Flickr_8k.testImages.txt", "\n".join(NAMES[9:]))
    with pytest.raises(InputError, match=f"{NAMES[9]} is in train and in test"):
        load_captions("flickr8k", tmp_path)
    with pytest.raises(InputError, match="a is in train and in val"):
        assign([("a", "train"), ("b", "val"), ("a", "val")], where="here")


def test_a_photo_in_two_splits_of_a_karpathy_file_is_named(tmp_path):
    touch(tmp_path / "val2014", ["COCO_val2014_000000000009.jpg"])
    splits = {"COCO_val2014_000000000009.jpg": "test", "COCO_train2014_000000000009.jpg": "train"}
    karpathy(tmp_path / "dataset_coco.json", splits, filepath=lambda name: name[5:14].rstrip("_"))
    with pytest.raises(InputError, match="is in test and in train"):
        load_captions("coco-karpathy", tmp_path)


def test_photo_ids():
    assert photo_id("1000268201_693b08cb0e.jpg") == photo_id("Images/1000268201.jpg") == "1000268201"
    assert photo_id("COCO_val2014_000000391895.jpg") == photo_id("train2017/000000391895.jpg") == "391895"
    assert photo_id("train_00012.png") == "train_00012" and photo_id("7_a.jpg") == "7_a"
    assert photo_id("album/1000268201_693b08cb0e.jpg") == "1000268201" and photo_id("album/000000391895.jpg") == "391895"
    assert photo_id("a/1.jpg") == photo_id("./a//1.jpg") == photo_id("b/../a/1.png") == "a/1", "a folder tells your own apart"
    assert photo_id("./x.jpg") == photo_id("x.jpg") == photo_id("flickr30k_images/flickr30k_images/x.jpg") == "x"


def test_shared_photos_between_flickr8k_and_flickr30k(tmp_path):
    small = load_captions("flickr8k", flickr8k(tmp_path / "8k", names=NAMES[:7]))
    large = load_captions("flickr30k", flickr30k_pipes(tmp_path / "30k"))
    assert shared_photos(small, large) == 7
    by_split = [shared_photos(small, large, splits=("test", split)) for split in SPLITS]
    assert sum(by_split) == len(small.images("test"))


def test_limit_takes_the_first_pictures_of_each_split(tmp_path):
    flickr8k(tmp_path)
    whole, part = load_captions("flickr8k", tmp_path), load_captions("flickr8k", tmp_path, limit=2)
    for split in SPLITS:
        assert part.images(split) == whole.images(split)[:2]
    assert len(part.table) == 30
    with pytest.raises(InputError, match="limit=0"):
        load_captions("flickr8k", tmp_path, limit=0)
    with pytest.raises(InputError, match="'dev' is not known"):
        whole.images("dev")


# --- where a dataset is found


def test_the_work_folder_comes_before_kaggles_mounts(tmp_path):
    flickr8k(tmp_path / "kaggle-input/datasets/adityajn105/flickr8k")
    assert len(load_captions("flickr8k", work_dir=tmp_path).table) == 100
    flickr8k(tmp_path / "data/flickr8k", names=NAMES[:10])
    assert len(load_captions("flickr8k", work_dir=tmp_path).table) == 50


def test_an_earlier_download_is_used_without_a_network(tmp_path):
    for version in (2, 10):
        folder = flickr30k_pipes(tmp_path / f"kagglehub/datasets/hsankesara/flickr-image-dataset/versions/{version}")
        (folder.parents[1] / f"{version}.complete").touch()
    assert "/versions/10/" in load_captions("flickr30k", work_dir=tmp_path).image_dir.as_posix()


def test_without_a_network_the_error_is_quick_and_names_the_folder(tmp_path):
    start = time.perf_counter()
    with pytest.raises(OfflineError, match=r"data/flickr8k.*--data-dir.*CAPTIONING_DATA_DIR"):
        load_captions("flickr8k", work_dir=tmp_path)
    assert time.perf_counter() - start < 2


def test_a_refused_download_names_the_folder(tmp_path, monkeypatch):
    import kagglehub

    def refuse(slug):
        raise RuntimeError(f"403 for {slug}")

    monkeypatch.setattr(sources, "require_network", lambda *args, **options: None)
    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(InputError, match=r"403 for adityajn105/flickr8k.*data/flickr8k.*--data-dir"):
        load_captions("flickr8k", work_dir=tmp_path)
    monkeypatch.setattr(kagglehub, "dataset_download", lambda slug: flickr8k(tmp_path / slug).as_posix())
    assert load_captions("flickr8k", work_dir=tmp_path).image_dir == tmp_path / "adityajn105/flickr8k/Images"


def test_a_disk_too_small_is_said_before_the_download(tmp_path, monkeypatch):
    """The archive and its files are there together, so it takes twice its size; on Kaggle it is attached and takes nothing."""
    import kagglehub

    monkeypatch.setattr(sources, "require_network", lambda *_, **__: None)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 2 * 10**9}))
    monkeypatch.setattr(kagglehub, "dataset_download", lambda slug: flickr8k(tmp_path / "got" / slug).as_posix())
    with pytest.raises(InputError, match=r"flickr8k \(.*\) and its archive take about 2\.2 GB and the disk has 2\.0 GB free: "
                                         r"attach the dataset on Kaggle.*smaller one.*--data-dir"):
        load_captions("flickr8k", work_dir=tmp_path)
    with pytest.raises(InputError, match=r"54\.0 GB .* 2\.0 GB free"):
        load_captions("coco2017", work_dir=tmp_path)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert load_captions("flickr8k", work_dir=tmp_path).name == "flickr8k"
    assert set(sources.SIZES) == set(sources.KAGGLE)


@pytest.mark.parametrize("mount", ["{name}", "datasets/{owner}/{name}"])
@pytest.mark.parametrize(("dataset", "slug"), [(name, slug) for name, slugs in sources.KAGGLE.items() for slug in slugs])
def test_every_slug_is_found_in_both_layouts(tmp_path, dataset, slug, mount):
    owner, name = slug.split("/")
    folder = tmp_path / "kaggle-input" / mount.format(owner=owner, name=name)
    assert sources.find(dataset, None, tmp_path) is None, "nothing is attached, and nothing is downloaded"
    folder.mkdir(parents=True)
    assert sources.find(dataset, None, tmp_path) == sources.locate(dataset, None, tmp_path) == folder


def test_without_internet_kaggle_is_told_where_to_click(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    with pytest.raises(OfflineError, match=r"Attach it \(Add Input, Datasets\), or turn the internet on \(Settings\)\. Put"):
        load_captions("flickr8k", work_dir=tmp_path)


def test_unknown_names_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"'flickr9k' is neither .* scenes, scenes-sketch, flickr8k, .*, coco-karpathy"):
        load_captions("flickr9k")
    with pytest.raises(InputError, match="--data-dir"):
        load_captions("folder")
    with pytest.raises(InputError, match=r"nowhere: there is no such folder"):
        load_captions("flickr8k", tmp_path / "nowhere")
    touch(tmp_path / "other", ["photo.jpg", "notes.md"])
    with pytest.raises(InputError, match=r"captions\.txt or results\.csv or .*the folder holds notes\.md, photo\.jpg"):
        load_captions("flickr8k", tmp_path / "other")


# --- bad input


def test_bom_crlf_commas_and_quotes(tmp_path):
    rows = ["image,caption", "a.jpg,one, two, three", 'b.jpg,"a ""big"", red dog"', 'c.jpg,"Hi" says a 6" dog', "", ""]
    captions = one_caption_file(tmp_path, b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert list(captions.table["caption"]) == ["one, two, three", 'a "big", red dog', '"Hi" says a 6" dog']
    assert captions.report.clean


def test_a_quoted_caption_over_two_lines(tmp_path):
    text = 'image,caption\na.jpg,"A dog\nruns, fast"\nb.jpg,A 6" ruler\nc.jpg,"never closed\n'
    captions = one_caption_file(tmp_path, text)
    assert list(captions.table["caption"]) == ["A dog runs, fast", 'A 6" ruler', '"never closed']


def test_malformed_empty_and_duplicate_rows_are_counted_with_their_lines(tmp_path):
    text = "image,caption\na.jpg,A dog .\nno delimiter here\n,no picture\nb.jpg,  \na.jpg,A dog .\nb.jpg,A dog .\nc.jpg,\n"
    captions = one_caption_file(tmp_path, text)
    assert captions.table[["image", "caption"]].values.tolist() == [["a.jpg", "A dog ."], ["b.jpg", "A dog ."]]
    counts = captions.report.counts
    assert (counts[MALFORMED], counts[EMPTY], counts[DUPLICATE], counts[MISSING]) == (2, 2, 1, 0)
    for part in ("line 3: 'no delimiter here'", "line 4: ',no picture'", "line 5: b.jpg", "line 8: c.jpg", "a.jpg: A dog ."):
        assert part in str(captions.report)


def test_malformed_row_of_three_columns(tmp_path):
    text = "image_name| comment_number| comment\na.jpg| 0| A dog\na.jpg| one| A dog\na.jpg| A dog\n"
    touch(tmp_path, ["a.jpg"])
    write(tmp_path / "results.csv", text)
    report = load_captions("folder", tmp_path).report
    assert report.counts[MALFORMED] == 2 and "line 3" in str(report) and "line 4" in str(report)


def test_missing_pictures_are_counted_and_dropped(tmp_path):
    flickr8k(tmp_path)
    for name in NAMES[:4]:
        (tmp_path / "Images" / name).unlink()
    captions = load_captions("flickr8k", tmp_path)
    assert captions.report.counts[MISSING] == 4 and len(captions.table) == 80
    assert NAMES[0] in str(captions.report) and NAMES[3] not in str(captions.report) and "and 1 more" in str(captions.report)
    for name in NAMES[4:11]:
        (tmp_path / "Images" / name).unlink()
    with pytest.raises(InputError, match=rf"11 of the 20 pictures .*{NAMES[0]}.*Images"):
        load_captions("flickr8k", tmp_path)
    for name in NAMES[11:]:
        (tmp_path / "Images" / name).unlink()
    with pytest.raises(InputError, match="none of the 20 pictures"):
        load_captions("flickr8k", tmp_path)


@pytest.mark.parametrize(("mark", "word"), [("|", "pipes"), ("\t", "tabs"), (";", "semicolons")])
def test_wrong_delimiter_is_named(tmp_path, mark, word):
    with pytest.raises(InputError, match=f"captions.txt: separated by {word}"):
        one_caption_file(tmp_path, f"image{mark}caption\na.jpg{mark}A dog .\n")


def test_header_is_missing_or_strange(tmp_path):
    with pytest.raises(InputError, match=r"first line must be 'image,caption', found 'a\.jpg,A dog \.'"):
        one_caption_file(tmp_path, "a.jpg,A dog .\nb.jpg,A cat .\n")
    with pytest.raises(InputError, match="first line must be"):
        one_caption_file(tmp_path, "")
    with pytest.raises(InputError, match="no captions in this file"):
        one_caption_file(tmp_path, "image,caption\n")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_wrong_encoding_names_byte_and_line(tmp_path, mark):
    data = mark + "image,caption\na.jpg,A dog .\nb.jpg,A café .\n".encode("cp1252")
    with pytest.raises(InputError, match=rf"byte {data.index(0xE9)}, on line 3, is 0xe9.*iconv -f cp1252"):
        one_caption_file(tmp_path, data)


def test_utf16_is_named(tmp_path):
    with pytest.raises(InputError, match="UTF-16"):
        one_caption_file(tmp_path, "image,caption\na.jpg,A dog .\n".encode("utf-16"))


def test_broken_json_is_named(tmp_path):
    touch(tmp_path / "Images", NAMES)
    path = write(tmp_path / "dataset_flickr8k.json", '{"images": [')
    with pytest.raises(InputError, match=r"dataset_flickr8k\.json: not valid JSON"):
        load_captions("flickr8k", tmp_path)
    write(path, {"pictures": []})
    with pytest.raises(InputError, match=r"dataset_flickr8k\.json: not a caption file.*images"):
        load_captions("flickr8k", tmp_path)
    karpathy(path, dict.fromkeys(NAMES, "dev"))
    with pytest.raises(InputError, match="unknown split 'dev'"):
        load_captions("flickr8k", tmp_path)


def test_coco_problems_are_counted(tmp_path):
    folder = coco2017(tmp_path)
    path = folder / "coco2017/annotations/captions_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] += [{"image_id": 999, "caption": "Lost."}, {"image_id": 139, "caption": " "}]
    write(path, content)
    report = load_captions("coco2017", folder).report
    assert report.counts[MALFORMED] == 1 and report.counts[EMPTY] == 1 and "image id 999" in str(report)


def test_report_keeps_few_examples():
    report = Report()
    for number in range(10):
        report.add(EMPTY, f"line {number}")
    assert str(report).splitlines() == [
        "empty captions, dropped: 10",
        "    line 0",
        "    line 1",
        "    line 2",
        "    and 7 more",
    ]


# --- size and real photos


def test_a_table_of_flickr30ks_size_is_read_in_two_seconds(tmp_path, monkeypatch):
    names = [f"{10**9 + number}.jpg" for number in range(31_783)]
    rows = [f"{name}| {n}| A man in a blue shirt , {n} of them , stands on a ladder ." for name in names for n in range(5)]
    write(tmp_path / "results.csv", "\n".join(["image_name| comment_number| comment", *rows]))
    (tmp_path / "flickr30k_images").mkdir()
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: names if Path(folder).name == "flickr30k_images" else listdir(folder))
    start = time.perf_counter()
    captions = load_captions("flickr30k", tmp_path)
    assert time.perf_counter() - start < 2
    assert len(captions.table) == 158_915 and len(captions.images("train")) == 29_000


def test_real_flickr8k():
    folder = os.environ.get("CAPTIONING_FLICKR8K_DIR")
    if not folder:
        pytest.skip("set CAPTIONING_FLICKR8K_DIR to a folder with Flickr8k's Images/ and captions.txt")
    captions = load_captions("flickr8k", folder)
    pictures = captions.table.drop_duplicates("image")["split"].value_counts()
    assert (pictures["train"], pictures["val"]) in ((5_996, 1_000), (6_000, 1_000))
    if pictures["train"] == 5_996:
        assert pictures[UNLISTED] == 90
    assert captions.report.counts[MALFORMED] == captions.report.counts[MISSING] == captions.report.counts[EMPTY] == 0
    assert captions.table["image"].map(photo_id).str.fullmatch(r"\d+").all()
