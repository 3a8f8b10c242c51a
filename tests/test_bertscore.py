"""BERTScore equals its definition and the authors' package; empty captions survive; without a network it says so at once."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import bertscore
from helpers.bertscore import BASELINE, METRICS, RESCALED, bert_scores, compare_by_bert
from helpers.comparison import HUMAN
from helpers.errors import InputError, OfflineError
from helpers.metrics import compare
from tests.conftest import SENTENCES

REFERENCES = {
    "one.jpg": SENTENCES[:3],
    "two.jpg": SENTENCES[5:6],
    "three.jpg": [SENTENCES[8], "A blue kite, big as a house!", SENTENCES[20], "kite"],
}
CAPTIONS = {"three.jpg": "A big kite.", "one.jpg": SENTENCES[1], "two.jpg": "a green car near the beach near the park"}


def scored(captions: dict[str, str], references: dict[str, list[str]], **options: object) -> dict[str, np.ndarray]:
    return bert_scores([captions[image] for image in references], list(references.values()), **options)


SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}


def make_bert(folder: Path) -> Path:
    """A random BERT of three layers, written by save_pretrained()."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(SENTENCES, vocab_size=200, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=32)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **SIZES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A random RoBERTa and a random BERT of three layers, written by save_pretrained()."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("bertscore")
    torch.manual_seed(0)

    pairs = ByteLevelBPETokenizer()
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    pairs.train_from_iterator(SENTENCES, vocab_size=330, special_tokens=list(names.values()), show_progress=False)
    pairs._tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = RobertaTokenizerFast(tokenizer_object=pairs._tokenizer, model_max_length=30)
    tokenizer.save_pretrained(folder / "roberta")
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=32, pad_token_id=1, **SIZES)
    RobertaModel(config).save_pretrained(folder / "roberta")

    make_bert(folder / "bert")
    return {kind: str(folder / kind) for kind in ("roberta", "bert")}


def by_hand(folder: str, caption: str, reference: str, layer: int) -> list[float]:
    """Equations 2 to 4, one token after the other."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, net = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in (caption, reference):
        ids = tokenizer(" " + text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            vectors.append(net(ids, output_hidden_states=True).hidden_states[layer][0].double().numpy())
    x_hat, x = ([vector / np.linalg.norm(vector) for vector in row] for row in vectors)
    precision = np.mean([max(a @ b for b in x) for a in x_hat[1:-1]])  # [CLS] and [SEP] are matched, not counted
    recall = np.mean([max(a @ b for b in x_hat) for a in x[1:-1]])
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("layer", [1, 3])
def test_equals_the_definition(folders, kind, layer) -> None:
    found = scored(CAPTIONS, REFERENCES, model=folders[kind], layer=layer, device="cpu")
    assert tuple(found) == METRICS  # no rescaling: nobody has measured this model's baseline
    for n, (image, references) in enumerate(REFERENCES.items()):
        each = [by_hand(folders[kind], CAPTIONS[image], reference, layer) for reference in references]
        # The best reference, for each of the three alone.
        assert [found[name][n] for name in METRICS] == pytest.approx(np.max(each, axis=0), abs=1e-6)
    assert found["BERTScore-F1"][0] == pytest.approx(1, abs=1e-6)  # the caption is one of its references
    assert 0 < found["BERTScore-F1"][2] < 0.999


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_equals_the_package_of_the_authors(folders, kind, tmp_path) -> None:
    """bert-score asks RoBERTa's tokenizer for a blank before the first word, which transformers 5 ignores unless the folder
    asks for it: here it does, on the package's side."""
    package = pytest.importorskip("bert_score", reason="bert-score is not installed")
    from transformers import AutoTokenizer

    folder = shutil.copytree(folders[kind], tmp_path / kind)
    if kind == "roberta":
        AutoTokenizer.from_pretrained(folder, add_prefix_space=True).save_pretrained(folder)
    with contextlib.redirect_stderr(io.StringIO()):
        expected = package.score(
            [CAPTIONS[image] for image in REFERENCES], list(REFERENCES.values()), model_type=str(folder), num_layers=2,
            device="cpu", use_fast_tokenizer=True,
        )  # fmt: skip
    found = scored(CAPTIONS, REFERENCES, model=folders[kind], layer=2, device="cpu")
    for name, values in zip(METRICS, expected, strict=True):
        assert found[name] == pytest.approx(values.numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_bad_captions_survive(folders, kind) -> None:
    bad = {"empty": "", "blank": " \n\t ", "half an emoji": "A dog \ud83d", "not English": "собака 狗 🐕"}
    bad["long"] = "A dog. " * 3000
    references = dict.fromkeys(bad, SENTENCES[:2]) | {"good": SENTENCES[:2], "no reference": ["", "  "]}
    found = scored({**bad, "good": "A dog.", "no reference": "A dog."}, references, model=folders[kind], layer=2)
    alone = scored({"good": "A dog."}, {"good": SENTENCES[:2]}, model=folders[kind], layer=2)
    for name in METRICS:
        scores = dict(zip(references, found[name], strict=True))
        assert scores["empty"] == scores["blank"] == scores["no reference"] == 0
        assert all(0 < scores[image] <= 1 + 1e-6 for image in ("half an emoji", "long", "good"))
        assert scores["good"] == pytest.approx(alone[name][0], abs=1e-6)  # undisturbed by its neighbours
        assert np.isfinite(found[name]).all()


def test_only_roberta_large_is_rescaled(folders, tmp_path, monkeypatch) -> None:
    """A folder called roberta-large stands for the model; here a small one plays it, at its own depth."""
    folder = shutil.copytree(folders["roberta"], tmp_path / "roberta-large")
    monkeypatch.setattr(bertscore, "LAYER", 2)
    found = scored(CAPTIONS, REFERENCES, model=folder)
    assert list(found) == [*METRICS, *RESCALED]
    assert not compare_by_bert({"a": CAPTIONS}, REFERENCES, model=folder, resamples=2).notes
    raw = scored(CAPTIONS, REFERENCES, model=folders["roberta"], layer=2)
    for name, baseline in zip(METRICS, BASELINE, strict=True):
        np.testing.assert_array_equal(found[name], raw[name])
        np.testing.assert_allclose(found[f"{name} rescaled"], (raw[name] - baseline) / (1 - baseline), rtol=1e-12)
    assert list(scored(CAPTIONS, REFERENCES, model=folder, layer=3)) == list(METRICS)


def test_comparison_has_intervals_and_joins_the_others(folders) -> None:
    """More captions than are scored at a time, so that the cuts fall between and within pictures."""
    references = {f"{n}.jpg": [SENTENCES[n % 27], SENTENCES[(n + 5) % 27], " "] for n in range(25)}
    mute = dict.fromkeys(references, "A kite.") | {"3.jpg": " "}
    systems = {"parrot": {image: group[0] for image, group in references.items()}, "mute": mute}
    options = {"model": folders["bert"], "layer": 2, "device": "cpu"}
    found = compare_by_bert(systems, references, human=True, resamples=50, **options)
    groups = [group[:2] for group in references.values()]
    for name, captions in systems.items():
        for metric, expected in bert_scores(list(captions.values()), groups, **options).items():
            score = found[name][metric]
            np.testing.assert_allclose(score.per_image, expected, atol=1e-6)
            assert score.value == pytest.approx(expected.mean()) and score.low <= score.value <= score.high
    people = [bert_scores([g[i] for g in groups], [[g[1 - i]] for g in groups], **options)["BERTScore-R"] for i in (0, 1)]
    np.testing.assert_allclose(found[HUMAN]["BERTScore-R"].per_image, np.mean(people, axis=0), atol=1e-6)
    assert found["parrot"]["BERTScore-F1"].value == pytest.approx(1, abs=1e-6)
    assert found.difference("parrot", "mute", "BERTScore-F1").low > 0
    assert "'mute' has empty captions, whose BERTScore is 0: 3.jpg." in found.notes
    assert any("bert, layer 2, is not rescaled" in note for note in found["parrot"].notes)
    others = compare(systems, references, metrics=["ROUGE-L"], tokenize="whitespace", resamples=50, human=True)
    joined = others.joined(found)
    assert list(joined.table().columns) == ["ROUGE-L", *METRICS]
    assert sum("References without a word" in note for note in joined.notes) == 1


def test_bad_systems_are_named_before_the_model_is_read() -> None:
    with pytest.raises(InputError, match=r"'a' has no caption for: one\.jpg"):
        compare_by_bert({"a": {}}, {"one.jpg": ["A dog."]}, model="nobody/nothing")
    with pytest.raises(InputError, match=r"fewer than 1 references with words for: one\.jpg"):
        compare_by_bert({"a": {"one.jpg": "x"}}, {"one.jpg": [" "]}, model="nobody/nothing")
    with pytest.raises(InputError, match="1 captions and 2 lists of references"):
        bert_scores(["x"], [["x"], ["y"]], model="nobody/nothing")
    with pytest.raises(InputError, match=r"references: picture 1 \(counted from 0\) has none"):
        bert_scores(["x", "y"], [["x"], []], model="nobody/nothing")


def test_the_published_baseline() -> None:
    """What bert-score 0.3.13 subtracts for roberta-large, layer 17."""
    assert (bertscore.MODEL, bertscore.LAYER) == ("roberta-large", 17)
    assert BASELINE.round(4).tolist() == [0.8315, 0.8315, 0.8312]


def test_nothing_is_printed(folders, capfd, monkeypatch) -> None:
    monkeypatch.setenv("CAPTIONING_PROGRESS", "0")
    scored(CAPTIONS, REFERENCES, model=folders["bert"], layer=1)
    assert capfd.readouterr() == ("", "")


def test_a_layer_must_be_named_and_there(folders) -> None:
    for layer in (None, 4, 0):
        with pytest.raises(InputError, match=rf"layer={layer}: say which layer of .*bert is read, 1 to 3"):
            scored(CAPTIONS, REFERENCES, model=folders["bert"], layer=layer)


def test_a_model_that_reads_only_leftwards_is_refused(tmp_path) -> None:
    from tests.conftest import make_gpt2

    with pytest.raises(InputError, match=r"has no \[CLS\], \[SEP\] or \[PAD\]"):
        scored(CAPTIONS, REFERENCES, model=make_gpt2(tmp_path), layer=1)


def test_a_folder_without_weights_is_refused(folders, tmp_path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "half")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"half cannot be loaded as a model: .*model\.safetensors"):
        scored(CAPTIONS, REFERENCES, model=folder, layer=1)


def test_offline_the_way_out_is_named(monkeypatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OfflineError("unreachable")

    monkeypatch.setattr("helpers.hub.require_network", unreachable)
    with pytest.raises(OfflineError, match=r"'nobody/roberta-large' must be downloaded.*Give a folder"):
        scored(CAPTIONS, REFERENCES, model="nobody/roberta-large")
