"""Galleries against brute force, recall against cases worked by hand, and the leaks that must not come back."""

import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from helpers.data.datasets import Captions, load_captions
from helpers.data.encoders import load_clip
from helpers.errors import InputError
from helpers.metrics import Comparison
from helpers.retrieval import Gallery, Places, drop_shared, places, recall, rerank, zero_shot

E = 24


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, E, generator=torch.Generator().manual_seed(seed))


def names(count: int) -> list[str]:
    return [f"{number}.jpg" for number in range(count)]


def brute_force(gallery: Gallery, query: torch.Tensor, k: int, excluded=()) -> list[tuple[float, int]]:
    """Every score in float64, rounded to fp32, sorted by score and then by row."""
    query = normalize(query[None].float())[0].double()
    scores = (normalize(torch.from_numpy(np.array(gallery.embeddings)).float()).double() @ query).float().tolist()
    return sorted((-score, row) for row, score in enumerate(scores) if row not in excluded)[:k]


def as_brute(matches) -> list[tuple[float, int]]:
    return [(-match.score, match.row) for match in matches]


@pytest.mark.parametrize("k", [1, 5, 300, 1000])
def test_search_equals_brute_force(k):
    gallery, queries = Gallery.of(rows(300), names(300)), rows(7, seed=1) * 10
    for query, best in zip(queries, gallery.search(queries, k), strict=True):
        assert as_brute(best) == brute_force(gallery, query, k)
        assert [match.item for match in best] == [f"{match.row}.jpg" for match in best] == [match.photo for match in best]


@pytest.mark.parametrize("k", [9, 600])
def test_equal_scores_stand_in_item_order_wherever_the_rows_lie(k):
    """A matrix product alone gives equal rows different last bits, by their place in it, most often for a single query."""
    torch.manual_seed(0)
    distinct = torch.randn(3, 509)
    gallery = Gallery.of(distinct[torch.randint(3, (1001,))], names(1001))
    for query in torch.randn(10, 509):
        (best,) = gallery.search(query[None], k)
        assert as_brute(best) == brute_force(gallery, query, k)
        assert len({match.score for match in best}) == (1 if k == 9 else 2)
        assert all(a.row < b.row for a, b in itertools.pairwise(best) if a.score == b.score)


def test_rounding_does_not_decide_who_is_among_the_best():
    """Whatever the product's last bits are, within the bound of its error: here they are thrown like dice."""
    gallery, query = Gallery.of(rows(20).repeat(10, 1), names(200)), normalize(rows(1, seed=1))
    product = (query @ gallery.matrix.T)[0].numpy()
    for seed in range(20):
        dice = np.random.default_rng(seed).uniform(-1, 1, size=200) * E / 2 * np.finfo(np.float32).eps * 0.9
        best = gallery._top(query[0].numpy(), (product + dice).astype(np.float32), 15)
        assert [(-score, row) for row, score in best] == brute_force(gallery, query[0], 15)


@pytest.mark.parametrize("dim", [24, 512])
def test_the_same_matches_for_any_batch(dim, monkeypatch):
    torch.manual_seed(0)
    gallery, queries = Gallery.of(torch.randn(500, dim), names(500)), torch.randn(40, dim)
    together = gallery.search(queries, 9)
    assert together == [gallery.search(query[None], 9)[0] for query in queries]
    monkeypatch.setattr("helpers.retrieval.SCORES", 3 * 500)
    assert together == gallery.search(queries, 9)
    assert together == gallery.search(queries.numpy(), 9)


def test_a_row_finds_itself_with_cosine_one():
    """fp16 has rounded the lengths too: the rows are scaled again."""
    vectors = rows(50) * 7
    assert all(best.row == n and best.score == pytest.approx(1, abs=1e-6)
               for n, (best,) in enumerate(Gallery.of(vectors, names(50)).search(Gallery.of(vectors, names(50)).matrix, 1)))


def test_saved_and_loaded_it_is_the_same(tmp_path):
    gallery = Gallery.of(rows(40), [f"caption {n} é" for n in range(40)], names(20) * 2, encoder="abc")
    for _ in range(2):  # over itself too
        gallery.save(tmp_path / "gallery")
    again = Gallery.load(tmp_path / "gallery", encoder="abc")
    assert isinstance(again.embeddings, np.memmap) and again.embeddings.dtype == np.float16
    np.testing.assert_array_equal(again.embeddings, gallery.embeddings)
    np.testing.assert_allclose(np.linalg.norm(again.embeddings.astype(float), axis=1), 1, atol=1e-3)
    assert (again.items, again.photos, again.encoder) == (gallery.items, gallery.photos, "abc")
    assert again.search(rows(3, seed=1), 5) == gallery.search(rows(3, seed=1), 5)
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]
    assert (tmp_path / "gallery" / "embeddings.npy").stat().st_size == 40 * E * 2 + 128


def test_a_save_that_is_stopped_leaves_the_old_one(tmp_path, monkeypatch):
    Gallery.of(rows(4), names(4)).save(tmp_path / "gallery")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("helpers.retrieval.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        Gallery.of(rows(9), names(9)).save(tmp_path / "gallery")
    assert len(Gallery.load(tmp_path / "gallery")) == 4 and len(list(tmp_path.iterdir())) == 1


DAMAGES = ["no folder", "no items", "torn items", "other items", "truncated", "fewer items", "flat", "nan"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gallery_is_refused(damage, tmp_path):
    Gallery.of(rows(9), names(9)).save(tmp_path / "gallery")
    items, data = tmp_path / "gallery" / "items.json", tmp_path / "gallery" / "embeddings.npy"
    listed = json.loads(items.read_text())
    match damage:
        case "no folder":
            shutil.rmtree(tmp_path / "gallery")
        case "no items":
            items.unlink()
        case "torn items":
            items.write_text(items.read_text()[:-20])
        case "other items":
            items.write_text("[]")
        case "truncated":
            data.write_bytes(data.read_bytes()[:-7])
        case "fewer items":
            items.write_text(json.dumps(listed | {"items": listed["items"][1:]}))
        case "flat":
            np.save(data, np.ones(9, dtype=np.float16))
        case "nan":
            np.save(data, np.full((9, E), np.nan, dtype=np.float16))
    with pytest.raises(InputError, match=r"gallery is not a gallery, or a damaged one .*make it anew"):
        Gallery.load(tmp_path / "gallery")


def test_a_gallery_of_another_encoder_is_refused(tmp_path):
    Gallery.of(rows(9), names(9), encoder="abc").save(tmp_path / "gallery")
    with pytest.raises(InputError, match=r"another encoder \(abc\) than the queries \(xyz\)"):
        Gallery.load(tmp_path / "gallery", encoder="xyz")


def test_of_pictures_one_row_a_picture_encoded_once_and_broken_ones_reported(photos, clip_file, tmp_path):
    encoder, folder = load_clip(clip_file), tmp_path / "Images"
    shutil.copytree(photos / "Images", folder)
    images = sorted(path.name for path in folder.iterdir())
    (folder / images[2]).write_bytes(b"")
    gallery = Gallery.of_pictures(encoder, folder, images, tmp_path / "cache", batch_size=3)
    whole = [image for image in images if image != images[2]]
    assert gallery.items == gallery.photos == whole and gallery.encoder == encoder.fingerprint
    assert list(gallery.broken) == [images[2]] and "is empty" in gallery.broken[images[2]]
    direct = normalize(encoder.encode_images([folder / image for image in whole]))
    torch.testing.assert_close(gallery.matrix, direct, atol=2e-3, rtol=0)
    encoder.encode = lambda _: 1 / 0  # everything is in the cache
    again = Gallery.of_pictures(encoder, folder, whole, tmp_path / "cache")
    np.testing.assert_array_equal(again.embeddings, gallery.embeddings)


REFERENCES = {"5_0123456789.jpg": ["a dog", "a cat"], "6_0123456789.jpg": ["a dog"],
              "dir/7.jpg": ["a bird", "a boat", "a cat"]}  # fmt: skip


class Texts:
    """Encodes a text as a vector drawn by it, and remembers the batches."""

    def __init__(self):
        self.batches: list[list[str]] = []

    def __call__(self, texts):
        self.batches.append(list(texts))
        return torch.cat([rows(1, seed=sum(text.encode())) for text in texts])


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_of_captions_one_row_a_caption(batch_size):
    texts = Texts()
    gallery = Gallery.of_captions(REFERENCES, texts, encoder="abc", batch_size=batch_size)
    assert gallery.items == ["a dog", "a cat", "a dog", "a bird", "a boat", "a cat"]
    assert gallery.photos == [photo for photo, captions in REFERENCES.items() for _ in captions]
    assert [text for batch in texts.batches for text in batch] == ["a dog", "a cat", "a bird", "a boat"]
    assert max(map(len, texts.batches)) <= batch_size and gallery.encoder == "abc"
    np.testing.assert_array_equal(gallery.embeddings, Gallery.of_captions(REFERENCES, Texts()).embeddings)


@pytest.mark.parametrize("photo", ["5_0123456789.jpg", "5.jpg", "Images/5_abcdef0123.png"])
def test_the_query_photos_own_captions_are_never_found(photo):
    """The published gallery holds them, and finds them first; here not even under the photo's name in another dataset."""
    gallery = Gallery.of_captions(REFERENCES, Texts())
    query = Texts()(["a cat"])
    (best,) = gallery.captions_for(query, 9, [photo])
    assert [match.row for match in best] == [row for _, row in brute_force(gallery, query[0], 9, excluded=(0, 1))]
    assert best[0] == ("a cat", pytest.approx(1), "dir/7.jpg", 5), "another photo's same words are fair"
    (first, *_), = gallery.captions_for(query, 9, [photo], own=True)
    assert (first.item, first.row) == ("a cat", 1), "the caption itself, not the one after it"


def test_captions_for_many_photos_at_once_equal_one_by_one():
    photos = [f"{n}_0123456789.jpg" for n in range(30)]
    gallery = Gallery.of(rows(150), [f"caption {n}" for n in range(150)], [photo for photo in photos for _ in range(5)])
    queries, asked = rows(31, seed=1), [*photos, "unknown.jpg"]
    together = gallery.captions_for(queries, 4, asked)
    for n, (query, best) in enumerate(zip(queries, together, strict=True)):
        assert as_brute(best) == brute_force(gallery, query, 4, excluded=range(5 * n, 5 * n + 5))
        assert gallery.captions_for(query[None], 4, [asked[n]]) == [best]


def test_a_photo_that_is_alone_finds_nothing():
    gallery = Gallery.of(rows(2), ["one", "two"], ["a.jpg", "a.jpg"])
    assert gallery.captions_for(rows(1), 3, ["a.jpg"]) == [[]]
    assert len(gallery.captions_for(rows(1), 3, ["b.jpg"])[0]) == 2


# Three pictures, two captions each; a picture's similarities with all six captions are its row.
#            captions of A    of B        of C
BY_HAND = [[0.9, 0.1,      0.5, 0.4,   0.3, 0.2],  # A: its first caption leads                    -> rank 1
           [0.8, 0.7,      0.2, 0.6,   0.1, 0.0],  # B: two of A's before its second               -> rank 3
           [0.3, 0.2,      0.7, 0.9,   0.6, 0.6]]  # C: two of B's before both of its own, equal   -> rank 3
# Columns: the captions' ranks. A1 .9 .8 .3 -> 1; A2 .1 .7 .2 -> 3; B1 .5 .2 .7 -> 3; B2 .4 .6 .9 -> 2; C1, C2: C leads -> 1


def with_similarities(matrix) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit pictures (P, E) and captions (M, E) whose cosines are those of `matrix` times 0.5."""
    half = 0.5 * torch.tensor(matrix, dtype=torch.float64)
    count, others = half.shape
    assert (half.square().sum(dim=0) < 1).all()
    images = torch.eye(count, count + others, dtype=torch.float64)
    rest = torch.diag((1 - half.square().sum(dim=0)).sqrt())  # in directions of their own
    return images, torch.cat([half.T, rest], dim=1)


def test_recall_of_a_case_worked_by_hand():
    images, texts = with_similarities(BY_HAND)
    scores = recall(images, texts, ["A.jpg", "B.jpg", "C.jpg"], ["A.jpg", "A.jpg", "B.jpg", "B.jpg", "C.jpg", "C.jpg"],
                    ks=(1, 2, 3))  # fmt: skip
    values = {metric: score.value for metric, score in scores.metrics.items()}
    assert values == pytest.approx({
        "text to image R@1": 3 / 6, "text to image R@2": 4 / 6, "text to image R@3": 1,
        "text to image median rank": 1.5,  # of 1 3 3 2 1 1
        "image to text R@1": 1 / 3, "image to text R@2": 1 / 3, "image to text R@3": 1,
        "image to text median rank": 3,
    })  # fmt: skip
    assert scores["text to image R@1"].per_image.tolist() == [0.5, 0, 1] and scores.images == ("A.jpg", "B.jpg", "C.jpg")
    assert "any of the picture's captions is a hit" in scores.notes[0]


def random_case(seed: int = 0, pictures: int = 12, captions: int = 3):
    """Pictures with captions that resemble them. All are 16 numbers of 1 or -1, so cosines are exact and many are equal."""
    draw = np.random.default_rng(seed)
    images = draw.choice([-1.0, 1.0], size=(pictures, 16))
    of = np.repeat(np.arange(pictures), captions)
    texts = images[of] * draw.choice([-1.0, 1.0], p=[0.4, 0.6], size=(len(of), 16))
    return torch.from_numpy(images), torch.from_numpy(texts), of


def test_recall_is_that_of_all_orders_of_equals():
    """Brute force: sort by score, equals in random order, many times; look whether an own item is among the first k."""
    images, texts, of = random_case()
    similarity, draw = (images @ texts.T).numpy(), np.random.default_rng(0)
    for queries, gallery, query_photos, photos, scores in (
        (images, texts, np.arange(12), of, similarity),
        (texts, images, of, np.arange(12), similarity.T),
    ):
        found = places(queries, query_photos, gallery, photos)
        hits, ranks = Counter(), np.zeros(len(scores))
        for _ in range(1000):
            order = np.lexsort((draw.random(scores.shape), -scores))
            first = (photos[order] == query_photos[:, None]).argmax(axis=1)  # (Q,)
            ranks += (first + 1) / 1000
            for k in (1, 5, 10):
                hits[k] += (first < k) / 1000
        assert (found.rivals > 0).sum() >= 5, "ties with others"
        np.testing.assert_allclose(found.ranks, ranks, atol=0.3)
        for k in (1, 5, 10):
            np.testing.assert_allclose(found.hits(k), hits[k], atol=0.07)


def test_whoever_gives_everything_the_same_score_is_as_good_as_chance():
    photos = [name for name in names(20) for _ in range(5)]
    scores = recall(torch.ones(20, E), torch.ones(100, E), names(20), photos, resamples=10)
    for k in (1, 5, 10):
        assert scores[f"text to image R@{k}"].value == pytest.approx(k / 20)
        missed = np.prod([(95 - n) / (100 - n) for n in range(k)])
        assert scores[f"image to text R@{k}"].value == pytest.approx(1 - missed)
    assert scores["text to image median rank"].value == pytest.approx(10.5)


def test_rounding_does_not_part_what_is_equal(monkeypatch):
    monkeypatch.setattr("helpers.retrieval.SCORES", 1)  # each query alone, see above
    torch.manual_seed(0)
    found = places(torch.randn(20, 509), np.arange(20), torch.randn(1, 509).expand(1001, -1), np.arange(1001))
    assert not found.above.any() and (found.rivals == 1000).all() and (found.own == 1).all()


def test_places_without_ties_are_plain():
    found = Places(above=np.array([0, 4, 5]), rivals=np.zeros(3), own=np.ones(3))
    assert found.ranks.tolist() == [1, 5, 6]
    assert [found.hits(k).tolist() for k in (1, 5, 10)] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_recall_does_not_depend_on_blocks_lengths_or_order(monkeypatch):
    images, texts, of = random_case()
    whole = recall(images, texts, names(12), [f"{n}.jpg" for n in of], resamples=20).to_json()
    monkeypatch.setattr("helpers.retrieval.SCORES", 1)
    blocks = recall(3 * images.numpy(), texts, names(12), [f"{n}.jpg" for n in of], resamples=20).to_json()
    assert whole == blocks
    order = torch.randperm(len(of), generator=torch.Generator().manual_seed(0))
    mixed = recall(images, texts[order], names(12), [f"{of[n]}.jpg" for n in order], resamples=20)
    assert {metric: score["value"] for metric, score in whole.items()} == pytest.approx(
        {metric: score.value for metric, score in mixed.metrics.items()}
    )


def test_intervals_are_over_pictures_and_differences_are_paired():
    images, texts, of = random_case(pictures=100)
    photos = [f"{n}.jpg" for n in of]
    good = recall(images, texts, names(100), photos)
    same = recall(images, texts, names(100), photos)
    worse = recall(images, texts * random_case(1, pictures=100)[1], names(100), photos)
    metric = "image to text R@1"
    value, per_image = good[metric].value, good[metric].per_image
    error = per_image.std() / 10
    assert (good[metric].low, good[metric].high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.02)
    comparison = Comparison({"good": good, "same": same, "worse": worse}, good.images, [])
    assert comparison.difference("good", "same", metric).to_json() == {"value": 0, "low": 0, "high": 0}
    assert comparison.difference("good", "worse", metric).low > 0


def test_recall_refuses_what_does_not_fit():
    images, texts = rows(2), rows(3, seed=1)
    for photos, message in ((["0.jpg", "1.jpg"], "3 embeddings for 2 names in `photos`"),
                            (["0.jpg", "1.jpg", "9.jpg"], "1 captions are of pictures that are not in `images`, 9.jpg"),
                            (["0.jpg", "0.jpg", "0.jpg"], "1 have no caption in `photos`, 1.jpg")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            recall(images, texts, names(2), photos)
    with pytest.raises(InputError, match=r"the photo 5_0123456789\.jpg is among them more than once"):
        recall(images, texts, ["5_0123456789.jpg", "5.jpg"], ["5.jpg"] * 3)
    with pytest.raises(InputError, match="resamples=0"):
        recall(images, texts[:2], names(2), names(2), resamples=0)


def test_shared_photos_are_dropped_and_counted(photos, tmp_path):
    """The second dataset holds five of the first's training photos and two of its test photos, named as in Flickr8k."""
    first = load_captions("flickr8k", data_dir=photos)
    table = first.table.assign(image=[f"{image[:4]}.jpg" for image in first.table["image"]])
    first = Captions("first", photos, table, first.report)
    known = {"1000", "1001", "1002", "1003", "1004", "1018", "1019"}
    images = [f"{i[:4]}_0123456789.jpg" if i[:4] in known else f"x{i}" for i in table["image"]]
    again = table.assign(image=images, split="test")
    second = Captions("second", photos, again, first.report)
    kept, count = drop_shared(first, second)
    assert count == 5 and len(first.images("train")) == 12 and len(table) == len(first.table)
    assert kept.images("train") == first.images("train")[5:] and kept.images("test") == first.images("test")
    assert drop_shared(kept, second)[1] == 0 and drop_shared(first, second, ("val", "test"))[1] == 0


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_rerank_takes_the_most_similar_and_of_equals_the_first(batch_size):
    texts = Texts()
    images = torch.cat([texts(["a cat"]), texts(["a dog"]), -texts(["a boat"])])
    candidates = [["a dog", "a cat", "a boat"], ["a dog"], ["a boat", "a boat"]]
    assert rerank(candidates, texts, images, batch_size=batch_size) == ["a cat", "a dog", "a boat"]
    assert rerank([["god a", "a dog"]], texts, texts(["a dog"])) == ["god a"], "the same letters, the same vector here"
    with pytest.raises(InputError, match=r"picture 1 .* has no caption"):
        rerank([["a"], []], texts, images[:2])
    with pytest.raises(InputError, match="1 lists for 3 pictures"):
        rerank([["a"]], texts, images)


def test_zero_shot_is_the_softmax_of_scaled_cosines():
    images, classes = torch.tensor([[2.0, 0], [0, 3]]), torch.tensor([[5.0, 0], [1, 1], [0, -1]])
    found = zero_shot(images, classes, 4.0)
    cosines = np.array([[1, 0.5**0.5, 0], [0, 0.5**0.5, -1]])
    by_hand = np.exp(4 * cosines) / np.exp(4 * cosines).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    torch.testing.assert_close(zero_shot(images, classes, torch.tensor(4.0)), found)


def test_what_cannot_be_searched_is_refused():
    gallery = Gallery.of(rows(5), names(5))
    for vectors, k, message in ((rows(1), 0, "k=0"),
                                (torch.ones(1, E + 1), 1, "25 numbers a row, the gallery's embeddings 24"),
                                (torch.ones(E), 1, r"rows of numbers \(N, E\), not \(24,\)"),
                                (torch.zeros(1, E), 1, "the queries: row 0 .* is zero or not finite"),
                                (torch.full((1, E), torch.nan), 1, "row 0 .* is zero or not finite")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            gallery.search(vectors, k)
    with pytest.raises(InputError, match="1 picture embeddings for 2 names"):
        gallery.captions_for(rows(1), 1, ["a", "b"])
    with pytest.raises(InputError, match="5 embeddings, 4 items"):
        Gallery.of(rows(5), names(4))
    with pytest.raises(InputError, match="no caption to make a gallery of"):
        Gallery.of_captions({}, Texts())
