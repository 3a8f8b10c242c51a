"""The scenes dataset: the same everywhere, true captions in good English, honest splits, and files all or nothing."""

import collections
import csv
import hashlib
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

import pytest
from PIL import Image, ImageChops, ImageStat

from helpers.data import scenes
from helpers.data.scenes import drawing, make_scenes, sample_scene, scene_stream, world
from helpers.data.scenes.drawing import composition
from helpers.data.scenes.drawing.palette import PAINT, Palette
from helpers.data.scenes.drawing.sketch import Sketch

ROOT = Path(__file__).parents[1]
TINY = {"train": 6, "val": 2, "test": 4}


@pytest.fixture(scope="module")
def captioned():
    """Some scenes of every split with their captions, nothing drawn."""
    return [pair for split in world.SPLITS for pair in scene_stream(seed=7, count=500, split=split)]


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
    "man": "man men guy guys person people", "woman": "woman women lady ladies person people",
    "boy": "boy boys child children kid kids", "girl": "girl girls child children kid kids",
    "dog": "dog dogs puppy puppies", "cat": "cat cats kitten kittens", "horse": "horse horses pony ponies",
    "cow": "cow cows", "rabbit": "rabbit rabbits bunny bunnies", "bird": "bird birds", "duck": "duck ducks",
    "car": "car cars", "bus": "bus buses", "train": "train trains", "sailboat": "sailboat sailboats boat boats",
    "hot air balloon": "balloon balloons",
}
PLACE_WORDS = {
    "beach": "beach sand sea ocean", "park": "park", "field": "field meadow hills", "lake": "lake shore",
    "street": "street city", "forest": "forest woods",
}
TRUE_IF = {
    "night moon moonlight stars snowy": lambda s: s.time == "night" or s.weather == "snow",
    "sunset dusk evening sets": lambda s: s.time == "sunset",
    "sunny sunshine bright": lambda s: (s.time, s.weather) == ("day", "clear"),
    "rain rainy rains": lambda s: s.weather == "rain",
    "cloudy": lambda s: s.weather == "cloudy",
    "clouds": lambda s: s.weather in ("cloudy", "rain"),
    "snow snowy snows winter cold coat coats jacket jackets": lambda s: s.season == "winter",
    "spring": lambda s: s.season == "spring",
    "summer": lambda s: s.season == "summer",
    "autumn fall": lambda s: s.season == "autumn",
    "grass": lambda s: s.season != "winter" or s.action == "graze",
    "mountains": lambda s: s.place in ("mountains", "lake"),
    "trees": lambda s: s.place in ("forest", "park"),
    "houses": lambda s: s.place == "street",
    "two couple": lambda s: s.count == 2,
    "three": lambda s: s.count == 3,
    "tiny puppy kitten pony": lambda s: s.size == "small",
    "little": lambda s: s.size == "small" or s.subject in ("boy", "girl"),
    "small": lambda s: s.size == "small" or s.landmark == "house",
    "big large": lambda s: s.size == "big",
    "umbrella": lambda s: s.action == "umbrella",
    "kite": lambda s: s.action == "kite",
    "bicycle bike": lambda s: s.action == "bicycle",
    "sled": lambda s: s.action == "sled",
    "running runs run jogging jogs jog racing races race galloping gallops gallop": lambda s: s.action == "run",
    "asleep sleeping sleeps sleep napping naps nap": lambda s: s.action == "sleep",
    "swimming swims swim": lambda s: s.action == "swim",
    **{word: lambda s, word=word: s.landmark == word for word in
       ("lighthouse", "windmill", "tent", "snowman", "fence", "house", "tree")},
    **{text: lambda s, place=place: s.place == place for place, text in PLACE_WORDS.items()},
}
TRUE_IF["tree"] = lambda s: s.landmark in ("tree", "palm tree")
TRUTHS = [(word, is_true) for text, is_true in TRUE_IF.items() for word in text.split()]


def test_colour_words_are_those_of_the_scene(captioned):
    for scene, caption in sentences(captioned):
        true = {scene.color, scene.prop_color} | ({"brown"} if scene.action == "dog" else set())
        assert set(words_of(caption)) & set(world.COLORS) <= true, (caption, scene)


def test_words_that_not_every_scene_deserves_are_true(captioned):
    used = collections.Counter()
    for scene, caption in sentences(captioned):
        words = set(words_of(caption))
        for word, is_true in TRUTHS:
            if word in words:
                used[word] += 1
                assert is_true(scene), (word, caption, scene)
    assert set(used) >= {word for word, _ in TRUTHS} - {"fall", "cold"}, "some words are never used: is the list stale?"


def test_the_subject_is_named_and_no_other(captioned):
    for scene, caption in sentences(captioned):
        words = set(words_of(caption))
        assert words & set(NOUNS[scene.subject].split()), (caption, scene)
        others = {word for nouns in NOUNS.values() for word in nouns.split()} - set(NOUNS[scene.subject].split())
        others -= {scene.action, "balloon" if scene.action == "balloon" else ""}  # the dog that is walked
        assert not words & others, (caption, scene)


def test_a_subject_in_a_colour_is_told_of_about_half_the_time(captioned):
    told = [scene.color in words_of(caption) for scene, caption in sentences(captioned)]
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


def test_five_different_sentences(captioned):
    for _, captions in captioned:
        assert len(set(captions)) == len(captions) == 5


def test_every_caption_is_one_tidy_sentence(captioned):
    for _, caption in sentences(captioned):
        assert re.fullmatch(r"[A-Z][a-z]*(,? [a-z]+)+\.", caption), caption
        assert 5 <= len(caption.split()) <= 20, caption


def test_articles_agree_with_what_follows(captioned):
    for _, caption in sentences(captioned):
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|\b(a|an|the) (a|an|the|two|three)\b", caption), caption


def test_verbs_and_nouns_agree_with_the_number(captioned):
    for scene, caption in sentences(captioned):
        words = set(words_of(NOT_THE_SUBJECT.sub(" ", caption)))
        wrong = PLURAL if scene.count == 1 else SINGULAR
        assert not words & set(wrong.split()), (caption, scene)
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

    def stop_at_the_third(scene, size):
        drawn.append(scene)
        if len(drawn) == 3:
            raise stop
        return real(scene, size)

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
