"""Which checkpoint is taken, what it costs, and every metric in one comparison."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from helpers import evaluation
from helpers.comparison import HUMAN, Comparison, mean_score
from helpers.environment import TINY, setup
from helpers.evaluation import Checkpoint, caption_all, compare_all, find_checkpoints, one_table, told_apart
from helpers.metrics import QUICK

PEOPLE = {"a": ["A dog runs.", "A white dog."], "b": ["A red car.", "The car is parked."], "c": ["Two birds.", "Birds fly."]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("CAPTIONING_CHECKPOINTS", raising=False)
    return setup("06_evaluation", profile="tiny", work_dir=tmp_path, verbose=False)


def train(run, part: str, **training: object) -> None:
    folder = run.work_dir / "outputs" / part / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"training": {"dataset": "scenes", "seed": 0, **training}}))


def test_shipped_where_nothing_is_trained(run) -> None:
    found, missing = find_checkpoints(run)
    assert {name: str(checkpoint) for name, checkpoint in found.items()} == {
        "decoder": "shipped: data/tiny/decoder",
        "ClipCap": "shipped: data/tiny/clipcap",
        "cross-attention": "shipped: data/tiny/cross-attention",
    }
    assert list(missing) == ["dual encoder"] and "notebooks/05_contrastive_retrieval.ipynb" in missing["dual encoder"]


def test_trained_is_taken_where_it_is_there(run, monkeypatch) -> None:
    train(run, "03_clipcap")
    train(run, "train_cross_attention")
    train(run, "05_contrastive_retrieval")
    found, missing = find_checkpoints(run)
    origins = {name: checkpoint.origin for name, checkpoint in found.items()}
    assert origins == {"decoder": "shipped", "ClipCap": "trained", "cross-attention": "trained", "dual encoder": "trained"}
    assert found["cross-attention"].folder.parent.name == "train_cross_attention" and not missing
    assert [name for name, checkpoint in found.items() if checkpoint.finder] == ["dual encoder"]

    monkeypatch.setenv("CAPTIONING_CHECKPOINTS", "shipped")
    assert {checkpoint.origin for checkpoint in find_checkpoints(run)[0].values()} == {"shipped"}
    assert find_checkpoints(run, "trained")[0]["ClipCap"].origin == "trained"  # the argument comes first
    with pytest.raises(ValueError, match="CAPTIONING_CHECKPOINTS='best': choose trained or shipped"):
        find_checkpoints(run, "best")


def test_a_checkpoint_that_may_know_the_test_pictures_is_refused(run) -> None:
    train(run, "02_transformer_decoder", dataset="flickr30k")
    train(run, "03_clipcap", seed=1)
    (run.work_dir / "outputs/04_cross_attention/checkpoint").mkdir(parents=True)
    (run.work_dir / "outputs/04_cross_attention/checkpoint/config.json").write_text("{")
    found, _ = find_checkpoints(run)
    assert {checkpoint.origin for checkpoint in found.values()} == {"shipped"}

    found, missing = find_checkpoints(dataclasses.replace(run, dataset="flickr8k"))
    assert list(found) == ["decoder (drawings only)", "ClipCap (drawings only)", "cross-attention (drawings only)"]
    assert "was trained on flickr30k, which may hold the test pictures" in missing["decoder"]
    assert "is damaged" in missing["cross-attention"]
    assert "python -m helpers.train clipcap --profile tiny --dataset flickr8k" in missing["ClipCap"]


def test_captions_and_costs_of_a_shipped_captioner(tmp_path) -> None:
    paths = {}
    for name, colour in (("a.png", "white"), ("b.png", "navy")):
        Image.new("RGB", (96, 96), colour).save(tmp_path / name)
        paths[name] = tmp_path / name
    checkpoint = Checkpoint(TINY / "clipcap", "shipped", finder=False)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text("{}")
    unread = {"lost": Checkpoint(tmp_path / "damaged", "trained", finder=False),
              "dual encoder": Checkpoint(tmp_path / "damaged", "trained", finder=True)}  # fmt: skip
    systems, failed = caption_all(unread | {"ClipCap": checkpoint}, paths, PEOPLE, max_new_tokens=5)
    assert list(systems) == ["ClipCap"] and list(failed) == list(unread)
    assert "config.json lacks format" in failed["lost"] and "CAPTIONING_CHECKPOINTS=shipped takes" in failed["lost"]
    found = systems["ClipCap"]
    assert list(found.captions) == list(paths) and all(found.captions.values())
    from safetensors.torch import load_file

    assert found.trainable == sum(value.numel() for value in load_file(TINY / "clipcap/model.safetensors").values())
    assert found.parameters > found.trainable and found.per_second > 0
    assert found.minutes == json.loads((TINY / "clipcap/config.json").read_text())["training"]["minutes"]
    assert found.costs()["checkpoint"] == "data/tiny/clipcap" and json.dumps(found.costs())


def test_a_learning_part_of_clip_counts_as_trained() -> None:
    from helpers.checkpoints import load_captioner

    captioner = load_captioner(TINY / "decoder")
    trained, runs = evaluation.count(captioner)
    captioner.config["learned"] = ["attnpool"]
    pool = sum(parameter.numel() for parameter in captioner.encoder.model.visual.attnpool.parameters())
    assert evaluation.count(captioner) == (trained + pool, runs)


def test_a_retriever_says_the_nearest_training_caption() -> None:
    import torch

    class Encoder:
        fingerprint = "x"
        places = {"A dog runs.": (1.0, 0.1), "A white dog.": (0.5, 0.5), "a": (1.0, 0.0), "b": (1.0, 1.0)}  # noqa: RUF012

        def encode_texts(self, texts):
            return torch.tensor([self.places[str(text)] for text in texts])

        encode_images = encode_texts

    assert evaluation.Retriever(Encoder(), {"t": PEOPLE["a"]}).caption(["a", "b"]) == ["A dog runs.", "A white dog."]


def test_every_metric_in_one_comparison_and_what_is_missing(monkeypatch) -> None:
    from helpers.data.encoders import load_clip

    monkeypatch.setattr(evaluation, "METRICS", QUICK)  # METEOR takes seconds to start
    judge = load_clip(TINY / "clip-vit.pt")
    systems = {"same": {image: group[0] for image, group in PEOPLE.items()}, "dog": dict.fromkeys(PEOPLE, "A dog.")}
    vectors = np.random.default_rng(0).normal(size=(3, judge.dim))
    options = {"judge": judge, "vectors": vectors, "bert": TINY / "bert-small", "layer": 2, "resamples": 20}
    found = compare_all(systems, PEOPLE, **options)
    assert list(found.systems) == ["same", "dog", HUMAN]
    assert {*QUICK, "CLIPScore", "RefCLIPScore", "BERTScore-F1"} <= set(found["same"].metrics)
    assert "make spice" in found.missing["SPICE"] and found.notes[-1].startswith("SPICE is missing: ")
    assert found["same"]["BERTScore-F1"].value == pytest.approx(1, abs=1e-4)  # a caption that is one of the references
    assert found["same"]["CIDEr-D"].value > found["dog"]["CIDEr-D"].value

    def offline(*_: object, **__: object) -> None:
        raise evaluation.OfflineError("no hub")

    monkeypatch.setattr(evaluation, "compare_by_bert", offline)
    assert compare_all(systems, PEOPLE, **options).missing["BERTScore"] == "no hub"


def comparison_of(**systems: list[float]) -> Comparison:
    images = tuple("abcd")
    return Comparison.of({n: {"CIDEr-D": mean_score(np.array(v))} for n, v in systems.items()}, images, [])


def test_told_apart_is_paired() -> None:
    found = comparison_of(one=[1.0, 2.0, 3.0, 4.0], better=[1.1, 2.1, 3.1, 4.1], other=[4.0, 1.0, 2.0, 3.1])
    gaps, apart = told_apart(found, ["one", "better", "other"], "CIDEr-D")
    assert gaps[1, 0] == pytest.approx(0.1) and np.allclose(gaps, -gaps.T)
    assert apart[0, 1] and apart[1, 0]  # always better, by a little, though the intervals overlap nearly wholly
    assert not apart[0, 2] and not apart.diagonal().any()


def test_the_one_table_has_scores_and_costs() -> None:
    from helpers.diversity import table

    found = comparison_of(learner=[1.0, 2.0, 3.0, 4.0], baseline=[0.0, 0.0, 0.0, 0.4])
    for scores in found.systems.values():
        scores.metrics.update(dict.fromkeys(("BERTScore-R rescaled", "BERTScore-F1 rescaled"), scores["CIDEr-D"]))
    said = {"learner": {"a": "A dog.", "b": "A cat."}, "baseline": {"a": "A dog.", "b": "A dog."}}
    checkpoint = Checkpoint(TINY / "clipcap", "shipped", finder=False)
    cost = evaluation.Captioned(said["learner"], checkpoint, 1_500_000, 2_000_000, None, 12.3)
    made = one_table(found, comparison_of(learner=[0.1, 0.1, 0.1, 0.1]), table(said, tokenize="whitespace"), {"learner": cost})
    assert list(made.columns) == ["learner", "baseline"]
    assert made.loc["CIDEr-D", "learner"].startswith("2.500 [") and made.loc["CIDEr-D", "baseline"].startswith("0.100 [")
    assert "BERTScore-F1 rescaled" in made.index and "BERTScore-R rescaled" not in made.index
    assert made.loc["CIDEr-D, shuffled"].tolist() == ["0.100 [0.10,\u00a00.10]", ""]
    assert made.loc["different captions"].tolist() == ["100%", "50%"]
    assert made["learner"][["trainable parameters", "training minutes", "captions a second", "checkpoint"]].tolist() == [
        "1.50 M", "not recorded", "12", "shipped"]  # fmt: skip
    assert made.loc["trainable parameters", "baseline"] == ""
