"""CLIPScore equals the paper's formula, worked out one picture at a time, and fits beside the other scores."""

import clip
import numpy as np
import pytest
import torch

from helpers.clipscore import METRICS, clip_scores, compare_by_clip
from helpers.data.encoders import load_clip
from helpers.errors import InputError
from helpers.metrics import HUMAN, compare

REFERENCES = {
    "dog.jpg": ["A dog runs.", "The brown dog is running.", "A dog, on a lawn!"],
    "men.jpg": ["Two men sit on a bench.", "Two guys are sitting outside."],
    "surf.jpg": ["A surfer rides a wave.", "Someone surfs.", "A man on a surfboard.", "The sea."],
    "girl.jpg": ["A little girl climbs.", "A girl in a pink dress."],
}
SAID = {"dog.jpg": "A dog is running.", "men.jpg": "", "surf.jpg": "surf " * 10_000, "girl.jpg": "девочка 🐕\n\t\"\ud83d"}
OTHER = dict.fromkeys(SAID, "Two men sit on a bench.")
IMAGES = list(REFERENCES)


@pytest.fixture(scope="module")
def encoder(clip_file):
    return load_clip(clip_file)


@pytest.fixture(scope="module")
def features(encoder):
    """Of any length. A random CLIP's English texts all look much the same way, the first picture the other."""
    vectors = torch.randn(len(IMAGES), 64, generator=torch.Generator().manual_seed(0)) * 7
    return vectors * (vectors @ encoder.encode_texts(["a dog"])[0]).sign()[:, None] * torch.tensor([[-1], [1], [1], [-1]])


def by_hand(model, image, caption, references):
    """Equations of section 3 of the paper, for one picture, with OpenAI's own tokenizer and model."""

    def text(words):
        ids = clip.tokenize("A photo depicts " + words, context_length=model.context_length, truncate=True)
        vector = model.encode_text(ids)[0].double()
        return vector / vector.norm()

    with torch.no_grad():
        said, seen = text(caption), image.double() / image.double().norm()
        score = 2.5 * max(float(said @ seen), 0)
        best = max(0, max(float(said @ text(reference)) for reference in references))
    return score, 2 * score * best / (score + best) if score + best else 0


def test_equals_the_definition(encoder, features):
    said = SAID | {"girl.jpg": "девочка 🐕\n\t\"?"}  # as "\ud83d", half an emoji, is read
    expected = np.array([by_hand(encoder.model, features[n], said[image], REFERENCES[image])
                         for n, image in enumerate(IMAGES)])  # fmt: skip
    found = clip_scores(list(SAID.values()), list(REFERENCES.values()), encoder.encode_texts, features, batch_size=3)
    assert list(found) == list(METRICS)
    np.testing.assert_allclose(np.stack(list(found.values()), axis=1), expected, atol=1e-6)
    assert (expected == 0).any(axis=1).tolist() == [True, False, False, False], "both sides of zero are tried"
    halved = clip_scores(list(SAID.values()), list(REFERENCES.values()), encoder.encode_texts, features.half().numpy())
    np.testing.assert_allclose(halved["CLIPScore"], expected[:, 0], atol=2e-3)


def test_cosines_below_zero_count_as_zero():
    """A picture opposite to all texts, and a caption opposite to its references."""
    vectors = {"A photo depicts up": [1.0, 0.0], "A photo depicts down": [-2.0, 0.0], "A photo depicts side": [1.0, 1.0]}

    def encode(texts):
        return torch.tensor([vectors[text] for text in texts])

    found = clip_scores(["up", "up", "up", "side"], [["up"], ["down"], ["down", "side"], ["up"]], encode,
                        np.array([[-1, 0], [1, 0], [3, 0], [0, 2]]))  # fmt: skip
    root = 0.5**0.5
    np.testing.assert_allclose(found["CLIPScore"], [0, 2.5, 2.5, 2.5 * root], atol=1e-6)
    harmonic = [0, 0, 2 * 2.5 * root / (2.5 + root), 2 * 2.5 * root * root / (3.5 * root)]
    np.testing.assert_allclose(found["RefCLIPScore"], harmonic, atol=1e-6)


def test_comparison_has_intervals_and_paired_differences(encoder, features):
    order = [2, 0, 3, 1]
    found = compare_by_clip({"a": SAID, "b": OTHER}, REFERENCES, encoder.encode_texts, features[order],
                            [IMAGES[n] for n in order], resamples=200)  # fmt: skip
    for name, captions in (("a", SAID), ("b", OTHER)):
        expected = clip_scores([captions[i] for i in IMAGES], list(REFERENCES.values()), encoder.encode_texts, features)
        for metric in METRICS:
            np.testing.assert_allclose(found[name][metric].per_image, expected[metric], atol=1e-6)
            assert found[name][metric].value == pytest.approx(expected[metric].mean())
            assert found[name][metric].low < found[name][metric].value < found[name][metric].high
    gap = found.difference("a", "b", "CLIPScore")
    assert gap.value == pytest.approx(found["a"]["CLIPScore"].value - found["b"]["CLIPScore"].value)
    assert found.difference("b", "b", "RefCLIPScore").to_json() == {"value": 0, "low": 0, "high": 0}
    others = compare({"a": SAID, "b": OTHER}, REFERENCES, metrics=["ROUGE-L"], tokenize="whitespace", resamples=200)
    assert list(others.joined(found).table().columns) == ["ROUGE-L", *METRICS]


def test_people_are_scored_against_the_others(encoder, features):
    blank = REFERENCES | {"men.jpg": [*REFERENCES["men.jpg"], " "]}
    found = compare_by_clip({}, blank, encoder.encode_texts, features, IMAGES, human=True, resamples=10)[HUMAN]
    parts = []
    for i in range(2):  # "men.jpg" has two
        groups = list(REFERENCES.values())
        others = [group[:i] + group[i + 1 :] for group in groups]
        parts.append(clip_scores([group[i] for group in groups], others, encoder.encode_texts, features))
    for metric in METRICS:
        np.testing.assert_allclose(found[metric].per_image, np.mean([part[metric] for part in parts], axis=0), atol=1e-6)


def test_what_is_wrong_is_named(encoder, features):
    def scores(captions=("a", "b"), references=(("a",), ("b",)), vectors=features[:2]):
        return clip_scores(captions, references, encoder.encode_texts, vectors)

    def compared(systems, references=REFERENCES, vectors=features, images=IMAGES, **options):
        return compare_by_clip(systems, references, encoder.encode_texts, vectors, images, **options)

    nan = features.clone()
    nan[1, 0] = torch.nan
    for wrong, message in [
        (lambda: scores(captions=["a"]), "1 captions, 2 lists of references and 2 image_embeddings"),
        (lambda: scores(references=[["a"], []]), r"references: picture 1 \(counted from 0\) has none"),
        (lambda: scores(vectors=nan[:2]), "image_embeddings: row 1 .* is not finite"),
        (lambda: scores(vectors=features[:2, :5]), "image_embeddings have 5 numbers each, the texts' 64"),
        (lambda: scores(vectors=features[0]), r"rows of numbers \(N, E\), not \(64,\)"),
        (lambda: compared({"a": {"dog.jpg": "x"}}), "'a' has no caption for: men.jpg, surf.jpg, girl.jpg"),
        (lambda: compared({"a": SAID}, images=[*IMAGES[:3], "x"]), "no image embedding for: girl.jpg"),
        (lambda: compared({"a": SAID}, images=IMAGES[:3]), "4 image_embeddings for 3 names"),
        (lambda: compared({"a": SAID}, REFERENCES | {"men.jpg": ["x", " "]}, human=True), "fewer than 2 .* men.jpg"),
        (lambda: compared({"a": SAID}, resamples=0), "resamples=0"),
    ]:
        with pytest.raises(InputError, match=message):
            wrong()
