"""The scenes dataset: the same everywhere, true captions in good English, honest splits, and files all or nothing."""

import collections
import csv
import hashlib
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageChops, ImageStat

from helpers.data import scenes, sources
from helpers.data.datasets import load_captions
from helpers.data.scenes import cut_out, drawing, make_scenes, sample_scene, scene_stream, world
from helpers.data.scenes.drawing import composition
from helpers.data.scenes.drawing.palette import PAINT, Palette
from helpers.data.scenes.drawing.pencil import PIGMENT
from helpers.data.scenes.drawing.sketch import Sketch
from helpers.data.splits import photo_id

ROOT = Path(__file__).parents[1]
TINY = {"train": 6, "val": 2, "test": 4}


@pytest.fixture(scope="module")
def captioned():
    """Some scenes of every split with their captions, nothing drawn."""
    return [pair for split in world.SPLITS for pair in scene_stream(seed=7, count=500, split=split)]


@pytest.fixture(scope="module")
def noted():
    """The same in the other style: the captions are notes."""
    return [pair for split in world.SPLITS for pair in scene_stream(seed=7, count=500, split=split, style="pencil")]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("CAPTIONING_PROGRESS", "0")


def sentences(captioned):
    return [(scene, caption) for scene, captions in captioned for caption in captions]


def words_of(caption):
    return re.findall(r"[a-z]+", caption.lower())


# --- The same everywhere ---------------------------------------------------------------------------------------------

DIGEST = """
import hashlib
from helpers.data.scenes import draw, scene_stream
digest = hashlib.sha256()
for split in ("train", "test"):
    for scene, captions in scene_stream(seed=3, count=4, split=split):
        digest.update(repr((scene, captions)).encode() + draw(scene, 96).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_scenes_captions_and_pixels_do_not_depend_on_the_process(hash_seed):
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for scene, captions in scene_stream(seed=3, count=4, split=split):
            digest.update(repr((scene, captions)).encode() + drawing.draw(scene, 96).tobytes())
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    other = subprocess.run([sys.executable, "-c", DIGEST], cwd=ROOT, env=environment, capture_output=True, text=True,
                           check=True)
    assert other.stdout.strip() == digest.hexdigest()


def test_the_default_dataset_stays_as_published():
    """What was trained on it and measured on it stays comparable, and folders that were drawn before are not drawn again."""
    digest = hashlib.sha256()
    for split in world.SPLITS:
        for pair in scene_stream(0, 200, split):
            digest.update(repr(pair).encode())
    assert digest.hexdigest() == "6cc9b218b2aa65a3d9163b8a74c7db3ccac8a4e0f654b724bd4ac35eb719772f"


@pytest.mark.skipif(not PIL.__version__.startswith("13."), reason="another Pillow rounds otherwise")
def test_the_default_pictures_stay_as_published():
    digest = hashlib.sha256()
    for split in world.SPLITS:
        for scene, _ in scene_stream(0, 20, split):
            digest.update(drawing.draw(scene).tobytes())
    assert digest.hexdigest() == "a5377a3836c431a97c2122b74a09b9093346e8b187d2ebb514d554d0bef7b961"


def test_another_seed_gives_other_scenes_and_a_longer_stream_begins_like_a_shorter_one():
    five, ten = list(scene_stream(1, 5)), list(scene_stream(1, 10))
    assert ten[:5] == five
    assert not {scene for scene, _ in five} & {scene for scene, _ in scene_stream(2, 5)}


# --- Splits ----------------------------------------------------------------------------------------------------------


def test_held_out_pairs_are_in_test_only_and_in_half_of_it():
    for split in ("train", "val"):
        assert not any(world.is_held_out(scene) for scene, _ in scene_stream(0, 600, split))
    test = [scene for scene, _ in scene_stream(0, 1500, "test")]
    assert 0.45 < sum(map(world.is_held_out, test)) / len(test) < 0.55
    seen = {(scene.subject, word) for scene in test for word in (scene.color, scene.action, scene.place)}
    assert seen >= world.HELD_OUT


def test_held_out_pairs_are_a_moderate_share_of_what_there_is():
    rng = random.Random(0)
    drawn = [world._any_scene(rng) for _ in range(3000)]
    assert 0.10 < sum(map(world.is_held_out, drawn)) / len(drawn) < 0.17


def test_splits_never_share_a_scene_even_up_to_its_incidental_details():
    words = {split: {tuple(vars(scene).values())[:-1] for scene, _ in scene_stream(seed, 400, split)}
             for seed, split in enumerate(world.SPLITS)}
    assert all(len(some) > 300 for some in words.values())
    assert not any(one & other for one, other in itertools.combinations(words.values(), 2))


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="'dev'"):
        sample_scene(random.Random(0), "dev")


# --- Captions say what is there --------------------------------------------------------------------------------------

# Words that are only true of some scenes, listed here a second time so that a slip in the grammar shows.
NOUNS = {
    "man": "man men guy guys person people fellow fellows gentleman gentlemen",
    "woman": "woman women lady ladies person people gal gals",
    "boy": "boy boys child children kid kids lad lads youngster youngsters",
    "girl": "girl girls child children kid kids lass lasses youngster youngsters",
    "dog": "dog dogs puppy puppies hound hounds pooch pooches", "cat": "cat cats kitten kittens kitty kitties feline felines",
    "horse": "horse horses pony ponies steed steeds", "cow": "cow cows",
    "rabbit": "rabbit rabbits bunny bunnies hare hares", "bird": "bird birds songbird songbirds", "duck": "duck ducks",
    "car": "car cars automobile automobiles", "bus": "bus buses coach coaches", "train": "train trains locomotive locomotives",
    "sailboat": "sailboat sailboats boat boats yacht yachts",
    "hot air balloon": "balloon balloons",
}
PLACE_WORDS = {
    "beach": "beach sand sea ocean seaside coast", "park": "park", "field": "field meadow hills farmland",
    "lake": "lake shore lakeside", "street": "street downtown", "forest": "forest woods woodland",
    "mountains": "highlands alps",
}
TRUE_IF = {
    "night moon moonlight stars snowy": lambda s: s.time == "night" or s.weather == "snow",
    "sunset dusk evening sets twilight": lambda s: s.time == "sunset",
    "sunny sunshine bright": lambda s: (s.time, s.weather) == ("day", "clear"),
    "rain rainy rains wet": lambda s: s.weather == "rain",
    "cloudy overcast": lambda s: s.weather == "cloudy",
    "clouds": lambda s: s.weather in ("cloudy", "rain"),
    "dark": lambda s: s.time == "night" or s.weather == "rain",
    "city": lambda s: s.place in ("street", "park"),
    "snow snowy snows snowfall winter wintertime cold coat coats jacket jackets": lambda s: s.season == "winter",
    "spring springtime": lambda s: s.season == "spring",
    "summer summertime": lambda s: s.season == "summer",
    "autumn fall": lambda s: s.season == "autumn",
    "grass": lambda s: s.season != "winter" or s.action == "graze",
    "mountains": lambda s: s.place in ("mountains", "lake"),
    "trees": lambda s: s.place in ("forest", "park"),
    "houses": lambda s: s.place == "street",
    "one single": lambda s: s.count == 1,
    "two couple pair": lambda s: s.count == 2,
    "three trio": lambda s: s.count == 3,
    "tiny puppy kitten pony": lambda s: s.size == "small",
    "little": lambda s: s.size == "small" or s.subject in ("boy", "girl"),
    "small": lambda s: s.size == "small" or s.landmark == "house",
    "big large huge": lambda s: s.size == "big",
    "umbrella": lambda s: s.action == "umbrella",
    "kite": lambda s: s.action == "kite",
    "bicycle bike pedalling": lambda s: s.action == "bicycle",
    "sled sledge sledding": lambda s: s.action == "sled",
    "running runs run jogging jogs jog racing races race galloping gallops gallop dashing sprinting":
        lambda s: s.action == "run",
    "asleep sleeping sleeps sleep napping naps nap snoozing dozing": lambda s: s.action == "sleep",
    "swimming swims swim": lambda s: s.action == "swim",
    **{word: lambda s, word=word: s.landmark == word for word in
       ("lighthouse", "windmill", "tent", "snowman", "fence", "house", "tree")},
    **{text: lambda s, place=place: s.place == place for place, text in PLACE_WORDS.items()},
}
TRUE_IF["cottage"], TRUE_IF["mill"] = TRUE_IF["house"], TRUE_IF["windmill"]
TRUE_IF["palm"] = lambda s: s.landmark == "palm tree"
TRUE_IF["tree"] = lambda s: s.landmark in ("tree", "palm tree")
TRUTHS = [(word, is_true) for text, is_true in TRUE_IF.items() for word in text.split()]


def test_colour_words_are_those_of_the_scene(captioned, noted):
    for scene, caption in sentences(captioned + noted):
        true = {scene.color, scene.prop_color} | ({"brown"} if scene.action == "dog" else set())
        assert set(words_of(caption)) & set(world.COLORS) <= true, (caption, scene)


def test_words_that_not_every_scene_deserves_are_true(captioned, noted):
    used = collections.Counter()
    for scene, caption in sentences(captioned + noted):
        words = set(words_of(caption))
        for word, is_true in TRUTHS:
            if word in words:
                used[word] += 1
                assert is_true(scene), (word, caption, scene)
    assert set(used) >= {word for word, _ in TRUTHS} - {"fall", "cold"}, "some words are never used: is the list stale?"


def test_the_subject_is_named_and_no_other(captioned, noted):
    for scene, caption in sentences(captioned + noted):
        words = set(words_of(caption))
        assert words & set(NOUNS[scene.subject].split()), (caption, scene)
        others = {word for nouns in NOUNS.values() for word in nouns.split()} - set(NOUNS[scene.subject].split())
        others -= {scene.action, "balloon" if scene.action == "balloon" else ""}  # the dog that is walked
        assert not words & others, (caption, scene)


def test_a_subject_in_a_colour_is_told_of_about_half_the_time(captioned, noted):
    for pairs in (captioned, noted):
        told = [scene.color in words_of(caption) for scene, caption in sentences(pairs)]
        assert 0.35 < sum(told) / len(told) < 0.7


# --- Captions are good English ---------------------------------------------------------------------------------------

# What is said of the sky or of what stands behind, and nouns that look like verbs: neither goes by the number.
NOT_THE_SUBJECT = re.compile(
    r"^(the (sun|moon|sea)|stars|rain|snow|(dark )?clouds|mountains|hills|trees|houses|"
    r"a ([a-z]+ )?(tree|bench|house|lighthouse|windmill|tent|snowman|fence)) "
    r"(shines?|sets|goes down|falls( at night)?|hang|fill the sky|rise|stands?|lies|grows) "
    r"(on|over|behind|above|below|next to) | for a (walk|run|bike ride)| a (walk|nap|break)", re.IGNORECASE)
SINGULAR = """is walks runs jogs races jumps leaps sits rests sleeps naps lies eats grazes gallops hops rides flies
plays kicks chases holds carries skis glides perches swims floats drives travels stands rolls passes sails drifts
strolls waits looks goes takes feeds cycles wanders rises paddles"""
PLURAL = """are walk run jog race jump leap sit rest sleep nap lie eat graze gallop hop ride fly play kick chase hold
carry ski glide perch swim float drive travel stand roll pass sail drift stroll wait
look go take feed cycle wander rise paddle"""


def test_five_different_sentences(captioned, noted):
    for _, captions in captioned + noted:
        assert len(set(captions)) == len(captions) == 5


def test_every_caption_is_one_tidy_sentence(captioned):
    for _, caption in sentences(captioned):
        assert re.fullmatch(r"[A-Z][a-z]*(,? [a-z]+)+\.", caption), caption
        assert 5 <= len(caption.split()) <= 20, caption


def test_articles_agree_with_what_follows(captioned):
    for _, caption in sentences(captioned):
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|\b(a|an|the) (a|an|the|two|three)\b", caption), caption


def test_verbs_agree_with_the_number(captioned):
    for scene, caption in sentences(captioned):
        words = set(words_of(NOT_THE_SUBJECT.sub(" ", caption)))
        wrong = PLURAL if scene.count == 1 else SINGULAR
        assert not words & set(wrong.split()), (caption, scene)


def test_nouns_agree_with_the_number(captioned, noted):
    for scene, caption in sentences(captioned + noted):
        words = set(words_of(caption))
        nouns = NOUNS[scene.subject].split()
        assert not words & set(nouns[1::2] if scene.count == 1 else nouns[::2]), (caption, scene)


def test_captions_are_as_long_and_as_varied_as_meant(captioned):
    lengths = [len(caption.split()) for _, caption in sentences(captioned)]
    vocabulary = {word for _, caption in sentences(captioned) for word in words_of(caption)}
    assert 9 < sum(lengths) / len(lengths) < 12
    assert 200 < len(vocabulary) < 350
    shared = [len(one & other) / len(one | other) for _, captions in captioned
              for one, other in itertools.combinations([set(words_of(caption)) for caption in captions], 2)]
    assert 0.2 < sum(shared) / len(shared) < 0.5, "people neither repeat nor contradict each other"


# --- Notes, the other tone -------------------------------------------------------------------------------------------


def test_notes_are_short_and_without_capitals_articles_and_full_stops(noted, captioned):
    lengths = []
    for _, note in sentences(noted):
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)+", note), note
        assert not {"a", "an", "the", "is", "are"} & set(words_of(note)), note
        lengths.append(len(note.split()))
    assert max(lengths) <= 14
    assert sum(lengths) / len(lengths) < 0.6 * np.mean([len(caption.split()) for _, caption in sentences(captioned)])


def test_notes_use_partly_other_words_than_captions(noted, captioned):
    usual = {word for _, caption in sentences(captioned) for word in words_of(caption)}
    words = [word for _, note in sentences(noted) for word in words_of(note)]
    assert 0.6 < np.mean([word in usual for word in words]) < 0.8, "nothing could be learnt from the one for the other"
    assert len(set(words) - usual) > 50


# --- Pictures --------------------------------------------------------------------------------------------------------


def every_action():
    """One train scene for each thing each subject can do."""
    rng = random.Random(5)
    found = {}
    wanted = {(name, action) for name, subject in world.SUBJECTS.items() for action in subject.actions}
    while len(found) < len(wanted):
        scene = world._any_scene(rng)
        found.setdefault((scene.subject, scene.action), scene)
    return list(found.values())


def test_everything_can_be_drawn_at_the_size_asked_for():
    for scene in every_action():
        picture = drawing.draw(scene, 48)
        assert (picture.mode, picture.size) == ("RGB", (48, 48))
        assert all(low < high for low, high in picture.getextrema())


def test_subjects_are_large_and_inside_the_picture():
    for scene, _ in scene_stream(1, 250):
        whole = Sketch()
        for placed in composition.compose(scene, Palette(scene), random.Random(0)):
            if placed.is_subject:
                whole.add(placed.sketch)
        left, bottom, right, top = whole.bounds()
        if scene.subject != "train":  # so long that it leaves the picture
            assert left > -0.02 and right < 1.02 and bottom > -0.05 and top < 1, scene
        if scene.size != "small":
            assert max(right - left, top - bottom) > 0.25, scene


def test_the_colour_that_captions_name_is_in_the_picture():
    by_day = [scene for scene, _ in scene_stream(4, 200) if (scene.time, scene.weather) == ("day", "clear")][:40]
    for scene in by_day:
        picture = drawing.draw(scene, 96)
        near = ImageChops.difference(picture, Image.new("RGB", picture.size, PAINT[scene.color]))
        close = sum(max(pixel) < 30 for pixel in zip(*[iter(near.tobytes())] * 3, strict=True))
        assert close > 20, scene


def test_no_two_pictures_are_alike():
    small = [drawing.draw(scene, 32) for scene, _ in scene_stream(2, 120)]
    for one, other in itertools.combinations(small, 2):
        assert sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) > 6


def mean_where(mask, picture):
    return np.asarray(picture, dtype=float)[mask].mean(axis=0)


def test_pencil_keeps_the_colours_that_captions_name():
    """Where the subject has its colour of paint, the nearest of all pigments is the one of that colour's name."""
    pigments = {name: [PIGMENT[256 * channel + level] for channel, level in enumerate(rgb)] for name, rgb in PAINT.items()}
    by_day = [scene for scene, _ in scene_stream(4, 200) if (scene.time, scene.weather) == ("day", "clear")][:40]
    right = 0
    for scene in by_day:
        painted, drawn = drawing.draw(scene, 96), drawing.draw(scene, 96, "pencil")
        there = (np.abs(np.asarray(painted, dtype=int) - PAINT[scene.color]) < 30).all(axis=2)
        found = mean_where(there, drawn)
        right += min(pigments, key=lambda name: np.abs(found - pigments[name]).sum()) == scene.color
    assert right >= 36, right


def test_pencil_shows_the_same_things_otherwise():
    for scene, _ in scene_stream(1, 20):
        painted, drawn = drawing.draw(scene, 96), drawing.draw(scene, 96, "pencil")
        assert (drawn.mode, drawn.size) == ("RGB", (96, 96)) and drawn.tobytes() == drawing.draw(scene, 96, "pencil").tobytes()
        one, other = (np.asarray(picture.convert("L").resize((24, 24)), dtype=float).ravel() for picture in (painted, drawn))
        assert np.corrcoef(one, other)[0, 1] > 0.85, scene
        assert sum(ImageStat.Stat(ImageChops.difference(painted, drawn)).mean) > 30


def test_a_cut_out_shows_more_of_the_subject_than_the_picture():
    def share(picture, scene):
        return (np.abs(np.asarray(picture, dtype=int) - PAINT[scene.color]) < 40).all(axis=2).mean()

    small = [scene for scene, _ in scene_stream(4, 400)
             if scene.size == "small" and (scene.time, scene.weather) == ("day", "clear")][:20]
    gains = [share(cut_out(scene), scene) / share(drawing.draw(scene, 64), scene) for scene in small]
    assert min(gains) > 1 and np.median(gains) > 3, gains
    for scene in every_action():
        assert (cut_out(scene, 16).mode, cut_out(scene, 16).size) == ("RGB", (16, 16))


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", TINY, size=48, workers=1, progress=False)


def files_of(folder):
    return {path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_layout_is_that_of_flickr8k(dataset):
    with open(dataset / "captions.txt", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "caption"]
    counts = collections.Counter(name for name, _ in rows)
    pictures = {path.name for path in (dataset / "Images").iterdir()}
    assert set(counts) == pictures and set(counts.values()) == {5}
    lists = {split: (dataset / name).read_text().split() for split, name in scenes.SPLIT_LISTS.items()}
    assert {split: len(names) for split, names in lists.items()} == TINY
    assert sorted(itertools.chain(*lists.values())) == sorted(pictures)
    streams = [scene_stream(0, count, split) for split, count in TINY.items()]
    assert [caption for _, caption in rows] == [caption for stream in streams for _, five in stream for caption in five]
    with Image.open(dataset / "Images" / lists["test"][0]) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (48, 48))
    assert json.loads((dataset / "scenes.json").read_text())["counts"] == TINY


def test_captions_with_commas_are_quoted(dataset):
    lines = (dataset / "captions.txt").read_text().splitlines()
    assert any(line.endswith('."') and ',"' in line for line in lines)


def test_a_second_call_touches_nothing(dataset, monkeypatch):
    before = files_of(dataset)
    monkeypatch.setattr(scenes, "draw", None)
    assert make_scenes(dataset, TINY, size=48, workers=1) == dataset
    assert files_of(dataset) == before


PENCIL = {"counts": {"train": 34, "val": 2, "test": 2}, "seed": 1, "style": "pencil", "shared": 3}


@pytest.fixture(scope="module")
def other_dataset(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", size=48, workers=1, progress=False, **PENCIL)


def test_the_recipe_of_the_default_style_stays_as_it_was(dataset):
    """Else all that were drawn before would be drawn again."""
    assert json.loads((dataset / "scenes.json").read_text()) == {"version": 6, "seed": 0, "size": 48, "counts": TINY}


def test_shared_pictures_are_photos_of_the_default_test_split(other_dataset):
    """The same pixels under the same photo id, said otherwise, and in training, where they do harm."""
    lists = {split: (other_dataset / name).read_text().split() for split, name in scenes.SPLIT_LISTS.items()}
    assert {split: len(names) for split, names in lists.items()} == PENCIL["counts"]
    shared = {split: [name for name in names if int(photo_id(name)) < scenes.OWN_NUMBERS] for split, names in lists.items()}
    assert [photo_id(name) for name in shared["train"]] == ["02200", "02201", "02202"] and not shared["val"] + shared["test"]
    positions = [lists["train"].index(name) for name in shared["train"]]
    assert np.diff(positions).min() > 9, "spread, so that the first pictures hold their part"
    captions = load_captions("scenes-sketch", other_dataset).references("train")
    for name, (scene, said) in zip(shared["train"], scene_stream(0, 3, "test"), strict=True):
        painted = io.BytesIO()
        drawing.draw(scene, 48).save(painted, "JPEG", quality=90, subsampling=0)
        assert (other_dataset / "Images" / name).read_bytes() == painted.getvalue()
        assert not set(captions[name]) & set(said)
        assert all(set(words_of(note)) & set(NOUNS[scene.subject].split()) for note in captions[name])


def test_no_own_picture_of_another_style_has_the_photo_id_of_a_default_one(other_dataset, dataset):
    ids = [{photo_id(path.name) for path in (folder / "Images").iterdir()} for folder in (other_dataset, dataset)]
    assert len(ids[0]) == sum(PENCIL["counts"].values()) and not ids[0] & ids[1]


def test_two_workers_draw_the_other_style_likewise(other_dataset, tmp_path):
    folder = make_scenes(tmp_path / "scenes", size=48, workers=2, **PENCIL)
    assert {name: content for name, (_, content) in files_of(folder).items()} == \
           {name: content for name, (_, content) in files_of(other_dataset).items()}


@pytest.mark.parametrize("name", sources.DRAWN)
def test_drawn_datasets_are_known_by_name(name, tmp_path, monkeypatch):
    small = {"counts": TINY, "size": 32, "workers": 1, "progress": False} | ({"shared": 2} if "sketch" in name else {})
    monkeypatch.setitem(sources.DRAWN, name, sources.DRAWN[name] | small)
    captions = load_captions(name, work_dir=tmp_path)
    assert captions.name == name and captions.image_dir == tmp_path / "data" / name / "Images"
    assert {split: len(captions.images(split)) for split in TINY} == TINY
    assert captions.report.summary.endswith("(official lists)")


@pytest.mark.parametrize(("wrong", "message"), [
    ({"style": "oil"}, "'oil'"), ({"shared": 2}, "another style"), ({"style": "pencil", "shared": 4}, "0 to 3"),
    ({"style": "pencil", "shared": -1}, "0 to 3")])  # fmt: skip
def test_styles_and_shares_that_cannot_be_are_refused(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_scenes(tmp_path / "scenes", TINY, **wrong)
    assert not list(tmp_path.iterdir())


def test_two_workers_make_the_same_files_and_other_arguments_replace_them(dataset, tmp_path):
    folder = make_scenes(tmp_path / "scenes", TINY | {"train": 40}, size=48, workers=2)
    assert len(list((folder / "Images").iterdir())) == 46
    make_scenes(folder, TINY, size=48, workers=1)
    assert {name: content for name, (_, content) in files_of(folder).items()} == \
           {name: content for name, (_, content) in files_of(dataset).items()}
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_call_leaves_what_was_there_before(tmp_path, monkeypatch, stop):
    folder = make_scenes(tmp_path / "scenes", {"train": 2}, size=32, workers=1)
    before = files_of(folder)
    real, drawn = scenes.draw, []

    def stop_at_the_third(*arguments):
        drawn.append(arguments)
        if len(drawn) == 3:
            raise stop
        return real(*arguments)

    monkeypatch.setattr(scenes, "draw", stop_at_the_third)
    for target in (folder, tmp_path / "new"):
        drawn.clear()
        with pytest.raises(stop):
            make_scenes(target, TINY, size=32, workers=1)
    assert files_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_while_several_processes_draw_leaves_nothing(tmp_path):
    code = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run behind a &
            f"from helpers.data.scenes import make_scenes; make_scenes({str(tmp_path / 'scenes')!r}, workers=2)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    while len(list(tmp_path.glob(".scenes.*/Images/*.jpg"))) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=10)[1]
    assert process.returncode and not list(tmp_path.iterdir())


@pytest.mark.parametrize("marker", [None, "not json"])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, marker):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"mine")
    if marker:
        (folder / "scenes.json").write_text(marker)
    with pytest.raises(FileExistsError, match="photos"):
        make_scenes(folder, TINY, size=32, workers=1)
    assert (folder / "holiday.jpg").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_empty_folder_is_filled(tmp_path):
    assert (make_scenes(tmp_path, {"val": 1}, size=32, workers=1) / "scenes.json").exists()


def test_unknown_splits_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="'dev'"):
        make_scenes(tmp_path / "scenes", {"dev": 3})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("setting", "progress", "shown"), [("0", True, False), ("1", False, False), ("1", True, True)])
def test_the_progress_bar_shows_only_where_wanted(tmp_path, capfd, monkeypatch, setting, progress, shown):
    monkeypatch.setenv("CAPTIONING_PROGRESS", setting)
    make_scenes(tmp_path / "scenes", {"train": 1}, size=32, workers=1, progress=progress)
    output = capfd.readouterr()
    assert bool(output.err) == shown and not output.out
