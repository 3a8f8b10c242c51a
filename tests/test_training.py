"""Training: the same twice, resumed as if unbroken, the best epoch kept, batches as promised."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.data.batches import CaptionDataset, CaptionSampler, caption_loader
from helpers.data.features import Features
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap
from helpers.training import Loaders, TrainSettings, fit
from tests.conftest import SENTENCES

E, PICTURES = 16, 12
SETTINGS = TrainSettings(epochs=3, batch_size=4, learning_rate=3e-3, seed=1)


@pytest.fixture
def tokens(gpt2_folder):
    return load_tokens(gpt2_folder)


@pytest.fixture
def dataset(tokens):
    vectors = np.random.default_rng(0).standard_normal((PICTURES, E)).astype(np.float16)
    images = [f"{n}.jpg" for n in range(PICTURES)]
    references = {image: [SENTENCES[(n + k) % len(SENTENCES)] for k in range(5)] for n, image in enumerate(images)}
    return CaptionDataset(Features(vectors, {image: n for n, image in enumerate(images)}), references, tokens)


def run(dataset, tokens, gpt2_folder, folder, settings=SETTINGS, **options):
    torch.manual_seed(settings.seed)
    model = ClipCap.build(E, load_language_model(gpt2_folder), prefix_length=2, layers=1, heads=2)
    train = caption_loader(dataset, tokens, batch_size=settings.batch_size, captions=settings.captions, seed=settings.seed)
    val = caption_loader(dataset, tokens, batch_size=settings.batch_size, captions="ordered")
    return model, fit(model, Loaders(train, val), settings, folder, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.clip_project.parameters()])


def test_same_seed_same_losses_and_captions(dataset, tokens, gpt2_folder, tmp_path):
    one, first = run(dataset, tokens, gpt2_folder, tmp_path / "a")
    two, second = run(dataset, tokens, gpt2_folder, tmp_path / "b")
    np.testing.assert_allclose(first.epochs, second.epochs, atol=1e-6)
    image = torch.from_numpy(dataset.source.array.astype(np.float32))
    assert torch.equal(one.generate(image, eos=tokens.eos), two.generate(image, eos=tokens.eos))


def test_a_killed_run_resumes_as_if_unbroken(dataset, tokens, gpt2_folder, tmp_path, monkeypatch):
    unbroken, whole = run(dataset, tokens, gpt2_folder, tmp_path / "a")
    calls = []
    loss = ClipCap.loss

    def dies(self, *args, **named):
        calls.append(1)
        if len(calls) == 25:  # 3 training and 15 validation steps an epoch: in the middle of the second
            raise RuntimeError("killed")
        return loss(self, *args, **named)

    monkeypatch.setattr(ClipCap, "loss", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run(dataset, tokens, gpt2_folder, tmp_path / "b")
    monkeypatch.setattr(ClipCap, "loss", loss)
    resumed, rest = run(dataset, tokens, gpt2_folder, tmp_path / "b", resume=True)
    torch.testing.assert_close(weights(resumed), weights(unbroken), atol=1e-6, rtol=0)
    np.testing.assert_allclose(rest.epochs, whole.epochs, atol=1e-6)


def test_no_room_for_the_checkpoints_is_said_first(dataset, tokens, gpt2_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"checkpoints of this training take .* free: make room, or train less of the model"):
        run(dataset, tokens, gpt2_folder, tmp_path)
    assert not (tmp_path / "history.csv").exists()


class Overfitting(torch.nn.Module):
    """Training pushes `w` up for ever; validation is best where it passes 1."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))

    def loss(self, image, tokens, mask):
        return -self.w if self.training else (self.w - 1) ** 2


def test_the_best_epoch_is_kept(dataset, tokens, tmp_path):
    model, loader = Overfitting(), caption_loader(dataset, tokens, batch_size=4)
    history = fit(model, Loaders(loader, loader), TrainSettings(epochs=6, learning_rate=0.2, weight_decay=0), tmp_path)
    losses = history.epochs["val_loss"]
    assert 0 < losses.idxmin() < 5, "the example is made so that the best epoch lies in between"
    assert history.best_epoch == losses.idxmin() and history.best_val_loss == pytest.approx(losses.min())
    assert (model.w.item() - 1) ** 2 == pytest.approx(losses.min())


def test_history_is_written(dataset, tokens, gpt2_folder, tmp_path):
    _, history = run(dataset, tokens, gpt2_folder, tmp_path)
    written = pd.read_csv(tmp_path / "history.csv")
    assert list(written.columns) == ["epoch", "step", "train_loss", "val_loss", "learning_rate"]
    assert len(written) == SETTINGS.epochs
    assert history.epochs["train_loss"].iloc[-1] < history.epochs["train_loss"].iloc[0]


def test_optimizer_checkpoint_holds_only_what_trains(dataset, tokens, gpt2_folder, tmp_path):
    run(dataset, tokens, gpt2_folder, tmp_path)
    state = torch.load(tmp_path / "lightning" / "last.ckpt", weights_only=True)["state_dict"]
    assert state and all(name.startswith("model.clip_project.") for name in state)


def test_batches_pad_to_their_own_longest(dataset, tokens):
    for batch in caption_loader(dataset, tokens, batch_size=4):
        assert batch["tokens"].shape == batch["mask"].shape
        assert batch["mask"].any(dim=0).all(), "a column that nobody fills"
        assert batch["image"].shape == (4, E)


def test_random_captions_change_by_epoch_and_all_shows_all(dataset):
    sampler = CaptionSampler(dataset, "random", seed=0)
    first = list(sampler)
    assert sorted(i for i, *_ in first) == list(range(PICTURES)) and first == list(sampler)
    sampler.set_epoch(1)
    assert sorted(list(sampler)) != sorted(first)
    everything = {(i, j, False) for i in range(PICTURES) for j in range(5)}
    assert set(CaptionSampler(dataset, "all")) == everything
    assert list(CaptionSampler(dataset, "ordered")) == sorted(everything)
    with pytest.raises(InputError, match="captions='some'"):
        CaptionSampler(dataset, "some")


def test_a_cut_caption_keeps_its_end_token(dataset, tokens):
    references = {"0.jpg": ["A red dog in the park. " * 30]}
    cut = CaptionDataset(dataset.source, references, tokens, max_tokens=10).captions[0][0]
    assert len(cut) == 10 and cut[-1] == tokens.eos


def test_nothing_left_to_train_on(dataset, tokens):
    with pytest.raises(InputError, match="no picture with captions is left"):
        CaptionDataset(dataset.source, {"absent.jpg": ["A dog."]}, tokens)
