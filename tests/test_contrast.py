"""A dual encoder trained and used: rates by part, a folder that gives the same vectors again, experiments, the doors."""

import json

import pytest
import torch

from helpers import train
from helpers.contrast import Finder, find_image_tower, load_finder, save_finder, train_dual_encoder
from helpers.data.datasets import load_captions, photo_id
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.environment import setup
from helpers.errors import InputError
from helpers.models.dual_encoder import DualEncoder
from helpers.models.towers import load_text_tower
from helpers.retrieval_experiments import difference, join, pair_table, training_sets
from helpers.settings import TrainSettings

SETTINGS = TrainSettings(epochs=2, batch_size=6, learning_rate=1e-2)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory, bert_folder):
    """A random DistilBERT with BERT's tokenizer beside it."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    folder = tmp_path_factory.mktemp("distilbert")
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    torch.manual_seed(0)
    sizes = dict(dim=32, hidden_dim=64, n_layers=1, n_heads=2, max_position_embeddings=64)
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(photos, resnet_file, clip_file, text_folder, tmp_path):
    return setup("pairs", system="dual-encoder", verbose=False, dataset="flickr8k", data_dir=photos, clip=str(clip_file),
                 image_tower=str(resnet_file), text_tower=str(text_folder), work_dir=tmp_path)  # fmt: skip


@pytest.fixture
def captions(run):
    return load_captions(run.dataset, run.data_dir, work_dir=run.work_dir)


def test_trains_both_towers_at_their_own_rates_and_comes_back(run, captions, photos):
    finder, history = train_dual_encoder(run, captions, SETTINGS, run.output_dir, image_rate=0.5, text_rate=0.1, dim=16)
    rates = history.epochs.loc[0, ["learning_rate", "image_tower_rate", "text_tower_rate"]]
    assert rates["image_tower_rate"] == pytest.approx(0.5 * rates["learning_rate"])
    assert rates["text_tower_rate"] == pytest.approx(0.1 * rates["learning_rate"])
    before = load_clip(run.image_tower).model.visual.float().state_dict()
    after = finder.model.image_tower.net.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    again = load_finder(run.output_dir / "checkpoint")
    pictures = sorted((photos / "Images").iterdir())[:3]
    for encode, items in (("encode_images", pictures), ("encode_texts", ["A red dog.", "A kite"])):
        ours, theirs = getattr(finder, encode)(items), getattr(again, encode)(items)
        assert torch.equal(ours, theirs) and ours.shape == (len(items), 16)
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(items)))
    assert again.fingerprint == finder.fingerprint and again.config["training"]["best_epoch"] == history.best_epoch


def test_checkpoints_hold_the_statistics_that_batchnorm_has_gathered(run, captions):
    """Else the best epoch's weights would come back with the last epoch's statistics, or a resumed run with the first ones."""
    finder, _ = train_dual_encoder(run, captions, SETTINGS, run.output_dir, dim=16)
    kept = torch.load(run.output_dir / "lightning" / "last.ckpt", weights_only=True)["state_dict"]
    statistics = {name: value for name, value in finder.model.state_dict().items() if "running" in name}
    assert statistics and all(f"model.model.{name}" in kept for name in statistics)
    fresh = find_image_tower(run.image_tower).state_dict()
    assert any(not torch.equal(fresh[name.removeprefix("image_tower.")], value) for name, value in statistics.items())


def test_a_checkpoint_needs_no_other_file(run, captions, resnet_file, tmp_path, photos):
    """Also where the image tower was a CLIP's: its sizes are in config.json, its weights in model.safetensors."""
    import shutil
    from dataclasses import replace

    moved = shutil.copy(resnet_file, tmp_path / "clip.pt")
    finder, _ = train_dual_encoder(replace(run, image_tower=str(moved)), captions, SETTINGS, run.output_dir, dim=16)
    (tmp_path / "clip.pt").unlink()
    pictures = sorted((photos / "Images").iterdir())[:3]
    again = load_finder(run.output_dir / "checkpoint")
    torch.testing.assert_close(again.encode_images(pictures), finder.encode_images(pictures))
    (run.output_dir / "checkpoint" / "text" / "config.json").unlink()
    with pytest.raises(InputError, match="not a whole checkpoint"):
        load_finder(run.output_dir / "checkpoint")


def test_experiments_of_other_data_are_not_mixed(run, tmp_path):
    from helpers.retrieval_experiments import run_pair_experiments

    path = tmp_path / "experiments.json"
    conditions = {"system": "dual-encoder", "profile": "tiny", "datasets": ["scenes", "scenes-sketch"], "limit": 50, "seed": 0}
    path.write_text(json.dumps(conditions | {"experiments": {}}))
    with pytest.raises(InputError, match=r"holds experiments with limit=50, now it is 7: give another file"):
        run_pair_experiments(run, path, limit=7)


def test_a_text_is_the_same_vector_in_any_batch(run):
    torch.manual_seed(0)
    model = DualEncoder.build(find_image_tower("small"), load_text_tower(run.text_tower), dim=8).eval()
    finder = Finder(model, load_tokens(run.tokenizer))
    texts = ["A red dog.", "A blue car near a big house in the park.", "A kite"]
    torch.testing.assert_close(finder.encode_texts(texts)[2:], finder.encode_texts(texts[2:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tower", ["small", "clip"])
def test_towers_come_back_by_their_architecture(run, tower, tmp_path, photos):
    image_tower = find_image_tower(run.image_tower if tower == "clip" else "small")
    model = DualEncoder.build(image_tower, load_text_tower(run.text_tower), dim=8, loss="soft-targets")
    names = {"image_tower": run.image_tower if tower == "clip" else "small", "text_tower": run.text_tower}
    finder = Finder(model, load_tokens(run.tokenizer), names)
    pictures = sorted((photos / "Images").iterdir())[:2]
    again = load_finder(save_finder(finder, tmp_path / "finder", scores={}))
    assert torch.equal(again.encode_images(pictures), finder.encode_images(pictures))


def test_what_is_no_finder_is_refused(run, captions, tmp_path):
    with pytest.raises(InputError, match="not a whole checkpoint"):
        load_finder(tmp_path / "none")
    with pytest.raises(InputError, match="neither a file nor one of resnet50"):
        find_image_tower("resnet51")
    for settings, name in ((TrainSettings(encoder="all"), "encoder"), (TrainSettings(label_smoothing=0.1), "label_smoothing")):
        with pytest.raises(InputError, match=f"leave {name}"):
            train_dual_encoder(run, captions, settings, run.output_dir)


def test_the_command_trains_and_says_how_to_search(photos, text_folder, tmp_path, capsys):
    arguments = ["dual-encoder", "--dataset", "flickr8k", "--data-dir", str(photos), "--image-tower", "small", "--text-tower",
                 str(text_folder), "--epochs", "1", "--dim", "8", "--out", str(tmp_path / "out")]  # fmt: skip
    assert train.main(arguments) == 0
    told = capsys.readouterr().out
    assert "image tower" in told and "python -m helpers.search --folder DIR" in told
    config = json.loads((tmp_path / "out" / "checkpoint" / "config.json").read_text())
    assert config["system"] == "dual-encoder" and config["architecture"] == "small" and config["model"]["dim"] == 8


def test_photos_that_the_other_dataset_tests_with_leave_the_training(captions):
    """A dataset that trains on the other one's test photos, as Flickr30k does on Flickr8k's."""
    from dataclasses import replace

    swapped = captions.table.assign(split=captions.table["split"].map({"train": "test", "test": "train", "val": "val"}))
    other = replace(captions, name="other", table=swapped)
    sets = training_sets(captions, other)
    assert sets["first"].images("train") == [] and "12 photos left the training of flickr8k" in sets["first"].report.summary
    alone = replace(captions, name="alone", table=captions.table[captions.table["split"] != "test"])
    both = join(alone, replace(captions, name="tests", table=captions.table[captions.table["split"] == "test"]))
    assert {photo_id(image) for image in both.images("test")} == {photo_id(image) for image in captions.images("test")}
    assert all(both.path(image).is_file() for image in both.images("train"))
    assert len(join(captions, captions).table) == len(captions.table), "a photo that is in both stays once"


def test_differences_of_experiments_are_paired():
    def entry(hits):
        score = {"value": sum(hits) / len(hits), "low": 0.0, "high": 1.0}
        test = {"text to image R@5": score, "image to text R@5": score, "hits": {"text to image R@5": hits}}
        return {"what": "", "pictures": 10, "minutes": 1.0, "tests": {"a": test}}

    record = {"datasets": ["a"], "experiments": {"0": entry([0.2, 0.4, 0.6, 0.8] * 5), "5": entry([0.3, 0.5, 0.7, 0.9] * 5)}}
    better = difference(record, "5", "a")
    assert better.value == pytest.approx(0.1) and better.low == pytest.approx(0.1) and better.high == pytest.approx(0.1)
    table = pair_table(record)
    assert table.loc["0", "a: against 0"] == "" and "0.100" in table.loc["5", "a: against 0"]


def test_every_experiment_says_what_it_changes(run):
    from helpers.retrieval_experiments import pair_experiments

    experiments = pair_experiments(run)
    assert list(experiments) == ["0", "1", "2", "3", "4", "5", "6", "published"]
    assert experiments["3"].settings == experiments["0"].settings and experiments["3"].sizes == experiments["0"].sizes
    assert experiments["6"].sizes["temperature"] == 5.0 and experiments["5"].train_on == "both"


@pytest.mark.parametrize("architecture", ["ViT", "ModifiedResNet"])
def test_a_clip_from_nothing_is_a_clip_like_any_other(architecture, photos, gpt2_folder, tmp_path, capsys):
    shared = ["--dataset", "flickr8k", "--data-dir", str(photos), "--epochs", "1", "--batch-size", "6"]
    assert train.main(["clip", *shared, "--architecture", architecture, "--out", str(tmp_path / "clip")]) == 0
    assert "helpers.train clipcap --clip" in capsys.readouterr().out
    encoder = load_clip(tmp_path / "clip" / "clip.pt")
    assert encoder.grid == {"ViT": (65, 128), "ModifiedResNet": (16, 512)}[architecture]
    texts = encoder.encode_texts(["A red dog.", "A blue car."])
    assert texts.shape == (2, 256) and not torch.equal(texts[0], texts[1])
    assert train.main(["clipcap", *shared, "--clip", str(tmp_path / "clip" / "clip.pt"), "--language-model", str(gpt2_folder),
                       "--layers", "1", "--heads", "2", "--out", str(tmp_path / "clipcap")]) == 0  # fmt: skip
