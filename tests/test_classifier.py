"""A ResNet that learns to classify, and becomes an image tower."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from helpers import classifier
from helpers.classifier import SETTINGS, make_classifier, train_classifier, wilson
from helpers.data import cifar
from helpers.data.cifar import load_cifar
from helpers.environment import ROOT, setup
from helpers.errors import InputError
from helpers.models.towers import build_resnet, load_image_tower

QUICK = replace(SETTINGS["tiny"], resolution=32, epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """With a miniature of CIFAR-10 that is smaller still."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cifar, "RECIPE", cifar.RECIPE | {"train": 400, "test": 100})
        load_cifar("scenes10", work_dir=folder)
        yield folder


@pytest.fixture(scope="module")
def run(work_dir):
    return setup("classifier", verbose=False, profile="tiny", device="cpu", work_dir=work_dir)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """(file, accuracy) of a short training."""
    file = tmp_path_factory.mktemp("classifier") / "resnet.pt"
    return file, make_classifier(run, file, replace(QUICK, epochs=5))


def test_it_learns(made):
    _, accuracy = made
    assert accuracy.low > 0.2, f"{accuracy}: chance is 0.100"


def test_the_file_becomes_an_image_tower(made, run):
    file, accuracy = made
    saved = torch.load(file, weights_only=True)
    assert saved["architecture"] == "small" and saved["accuracy"] == accuracy.to_json()
    assert tuple(saved["classes"]) == cifar.CLASSES and saved["settings"]["epochs"] == 5 and saved["seed"] == run.seed
    tower = load_image_tower(file).eval()
    net = build_resnet("small", classes=10).eval()
    net.load_state_dict(saved["state_dict"])
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(net.fc(tower(pixels)), net(pixels))


def test_the_accuracy_is_that_of_the_weights_in_the_file(made, work_dir):
    """Counted here a second time, one picture after the other."""
    file, accuracy = made
    saved = torch.load(file, weights_only=True)
    net = build_resnet("small", classes=10).eval()
    net.load_state_dict(saved["state_dict"])
    _, test = load_cifar("scenes10", work_dir=work_dir)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))  # ImageNet's
    hits = 0
    for picture, label in test:
        pixels = ((torch.from_numpy(np.array(picture)) / 255 - mean) / std).permute(2, 0, 1)[None]
        hits += net(torch.nn.functional.interpolate(pixels, size=QUICK.resolution, mode="bilinear")).argmax().item() == label
    assert hits / len(test) == pytest.approx(accuracy.value, abs=0.011)  # one tie


def test_the_seed_decides(work_dir):
    train, test = load_cifar("scenes10", work_dir=work_dir)
    train.data, train.targets = train.data[:64], train.targets[:64]
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        net = build_resnet("small", classes=10)
        train_classifier(net, train, test, replace(QUICK, epochs=1), seed=seed)
        weights.append(net.conv1.weight.detach())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_pictures_vary_in_training_and_not_in_the_test(work_dir):
    train, test = load_cifar("scenes10", work_dir=work_dir)
    for pictures, training in ((train, True), (test, False)):
        loader = classifier._loader(pictures, QUICK, training=training)
        once, again = (default_collate([loader.dataset[n] for n in range(20)])[0] for _ in range(2))
        assert once.shape == (20, 3, 32, 32) and torch.equal(once, again) != training
    assert train.transform is None, "the caller's dataset stays as it is"


def test_resnet50_takes_the_same_way(work_dir):
    train, test = load_cifar("scenes10", work_dir=work_dir)
    for pictures in (train, test):
        pictures.data, pictures.targets = pictures.data[:4], pictures.targets[:4]
    net = build_resnet("resnet50", classes=10)
    before = net.layer4[0].conv1.weight.detach().clone()
    train_classifier(net, train, test, replace(QUICK, epochs=1, batch_size=2), precision="bf16-mixed")
    assert net.layer4[0].conv1.weight.dtype == torch.float32 and not torch.equal(before, net.layer4[0].conv1.weight)


@pytest.mark.parametrize(("hits", "trials", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0, 0.2775), (9, 9, 0.7008, 1)])
def test_intervals_are_wilsons(hits, trials, low, high):
    """Worked by hand."""
    interval = wilson(hits, trials)
    assert (interval.value, interval.low, interval.high) == pytest.approx((hits / trials, low, high), abs=1e-4)


# --- What is refused, and the door


@pytest.mark.parametrize(("wrong", "message"), [
    ({"epochs": 0}, "epochs=0"), ({"learning_rate": -1.0}, r"learning_rate=-1\.0"),
    ({"batch_size": 401}, "batch_size=401: there are only 400 pictures"), ({"dataset": "mnist"}, "'mnist' is not known"),
    ({"architecture": "vgg"}, "'vgg' is not known")])  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong, message, run, tmp_path):
    with pytest.raises(InputError, match=message):
        make_classifier(run, tmp_path / "resnet.pt", replace(QUICK, **wrong))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_write(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is a folder"):
        make_classifier(run, tmp_path, QUICK)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_door_prints_the_accuracy_with_its_interval(work_dir, tmp_path, capsys):
    arguments = ["--data-dir", str(work_dir / "data" / "scenes10"), "--epochs", "1", "--resolution", "32", "--profile", "tiny"]
    assert classifier.main([*arguments, "--out", str(tmp_path / "resnet.pt")]) == 0
    out, err = capsys.readouterr()
    value = torch.load(tmp_path / "resnet.pt", weights_only=True)["accuracy"]["value"]
    assert out.startswith(f"small on scenes10, 1 epochs: test accuracy {value:.3f} [") and not err


def test_the_door_says_why_not(tmp_path, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    arguments = ["--dataset", "cifar10", "--data-dir", str(tmp_path / "here"), "--out", str(tmp_path / "resnet.pt")]
    assert classifier.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: CIFAR-10 must be downloaded") and "here" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "resnet.pt").exists()


def test_ctrl_c_leaves_nothing(work_dir, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier, "_enlarged", interrupted)
    data = str(work_dir / "data" / "scenes10")
    assert classifier.main(["--data-dir", data, "--out", str(tmp_path / "resnet.pt")]) == 130
    assert "nothing was written" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_help_answers_at_once():
    code = ("import sys; from helpers import classifier\n"
            "try: classifier.main(['--help'])\n"
            "except SystemExit: pass\n"
            "assert not {'torch', 'torchvision', 'transformers', 'lightning', 'numpy'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
