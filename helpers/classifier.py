"""Train a ResNet to classify CIFAR-10, or its miniature cut from scenes, as an image tower that has seen no captions.

    python -m helpers.classifier --out resnet.pt                                        # the profile's dataset and ResNet
    python -m helpers.classifier --data-dir DIR --out resnet.pt --dataset cifar10 --architecture resnet50 --epochs 30

`helpers.models.towers.load_image_tower` reads the file. He et al. 2016, "Deep Residual Learning for Image Recognition"
(arXiv 1512.03385), section 4.2: pictures mirrored, and cut at random out of a frame of 4 pixels.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader
    from torchvision.datasets import CIFAR10

    from helpers.environment import Run
    from helpers.metrics import Interval


@dataclass(frozen=True)
class ClassifierSettings:
    """What is trained on what, and how. Pictures are enlarged to `resolution` pixels: a ResNet halves them five times."""

    dataset: str
    architecture: str
    resolution: int
    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1  # at its peak, of SGD

    def __post_init__(self) -> None:
        for name in ("resolution", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)}: give more than 0")


SETTINGS = {
    "tiny": ClassifierSettings("scenes10", "small", resolution=48, epochs=4, batch_size=32, learning_rate=0.05),
    "full": ClassifierSettings("cifar10", "resnet50", resolution=128, epochs=30),
}


def make_classifier(
    run: Run, out: str | Path, settings: ClassifierSettings | None = None, data_dir: str | Path | None = None
) -> Interval:
    """Train a classifier, write it to the file `out`, and return its accuracy on the test pictures, 0 to 1.

    settings: None: the profile's. data_dir: as in `load_cifar`; None: below run.work_dir.
    The file holds {"architecture", "state_dict", "classes", "accuracy", "settings", "seed"} and reads with weights_only.
    Raises InputError and OfflineError as `load_cifar` and `build_resnet` do.
    """
    import torch

    from helpers.data.cifar import load_cifar
    from helpers.environment import shown
    from helpers.files import atomic_path
    from helpers.models.towers import build_resnet

    if Path(out).is_dir():
        raise InputError(f"{shown(out)} is a folder: give the name of a file to write (--out)")
    settings = settings or SETTINGS[run.profile]
    torch.manual_seed(run.seed)
    net = build_resnet(settings.architecture, classes=10)  # first: a wrong name shall not wait for a download
    train, test = load_cifar(settings.dataset, data_dir, work_dir=run.work_dir)
    accuracy = train_classifier(net, train, test, settings, seed=run.seed, device=run.device, precision=run.precision)
    saved = {
        "architecture": settings.architecture, "state_dict": net.state_dict(), "classes": list(train.classes),
        "accuracy": accuracy.to_json(), "settings": asdict(settings), "seed": run.seed,
    }  # fmt: skip
    with atomic_path(out) as temporary:
        torch.save(saved, temporary)
    return accuracy


def train_classifier(
    net: nn.Module,
    train: CIFAR10,
    test: CIFAR10,
    settings: ClassifierSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "32-true",
) -> Interval:
    """Train `net`, (B, 3, R, R) -> logits (B, 10), in place, and return its accuracy on `test` with a 95 % interval.

    SGD with momentum and one cycle of the learning rate (Smith 2018, arXiv 1708.07120). The last weights are kept: no
    picture of `test` chooses between epochs. Raises InputError where `train` does not fill a batch.
    """
    import torch
    import torch.nn.functional as F
    from lightning.fabric import Fabric

    from helpers.environment import progress

    if len(train) < settings.batch_size:
        raise InputError(f"batch_size={settings.batch_size}: there are only {len(train)} pictures to train on")
    torch.manual_seed(seed)
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    optimizer = torch.optim.SGD(net.parameters(), settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    learner, optimizer = fabric.setup(net, optimizer)
    batches = fabric.setup_dataloaders(_loader(train, settings, training=True))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.epochs * len(batches))
    bar = progress(range(settings.epochs), desc=f"classifying {settings.dataset}", unit="epoch")
    for _ in bar:
        learner.train()
        for pixels, labels in batches:
            loss = F.cross_entropy(learner(_enlarged(pixels, settings)), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            cycle.step()
        if hasattr(bar, "set_postfix"):
            bar.set_postfix(loss=f"{loss.item():.3f}")
    learner.eval()
    with torch.no_grad():
        hits = [learner(_enlarged(pixels, settings)).argmax(dim=1) == labels
                for pixels, labels in fabric.setup_dataloaders(_loader(test, settings, training=False))]  # fmt: skip
    net.cpu()
    return wilson(int(torch.cat(hits).sum()), len(test))


def _loader(pictures: CIFAR10, settings: ClassifierSettings, *, training: bool) -> DataLoader:
    """Batches of pixels (B, 3, 32, 32) and labels (B,); for training shuffled, mirrored and cut at random."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from helpers.models.towers import IMAGENET

    varied = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()] if training else []
    scaled = [transforms.ToTensor(), transforms.Normalize(IMAGENET.transforms().mean, IMAGENET.transforms().std)]
    pictures = copy.copy(pictures)
    pictures.transform = transforms.Compose(varied + scaled)
    workers = 4 if torch.cuda.is_available() else 0
    return DataLoader(pictures, settings.batch_size, shuffle=training, drop_last=training, num_workers=workers)


def _enlarged(pixels: Tensor, settings: ClassifierSettings) -> Tensor:
    """(B, 3, 32, 32) -> (B, 3, R, R)"""
    from torch.nn.functional import interpolate

    return interpolate(pixels, size=settings.resolution, mode="bilinear")


def wilson(hits: int, trials: int) -> Interval:
    """The share of hits with its 95 % interval (Wilson 1927), which is sound also where nearly all or none hit."""
    from helpers.metrics import Interval

    z, share = 1.959964, hits / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5 / (1 + z**2 / trials)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    try:
        return _main(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130


def _main(options: dict) -> int:
    from helpers.environment import setup, shown  # not above: --help must not wait for torch

    run = setup("classifier", verbose=False, **{name: options[name] for name in ("profile", "device", "seed")})
    chosen = {name: options[name] for name in ClassifierSettings.__dataclass_fields__ if options[name] is not None}
    settings = replace(SETTINGS[run.profile], **chosen)
    accuracy = make_classifier(run, options["out"], settings, options["data_dir"])
    print(f"{settings.architecture} on {settings.dataset}, {settings.epochs} epochs: test accuracy {accuracy}, chance 0.100")
    print(f"written to {shown(options['out'])}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.classifier", description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--data-dir", metavar="DIR", help="where cifar-10-batches-py lies; otherwise downloaded or drawn")
    parser.add_argument("--profile", choices=("tiny", "full"), help="tiny: CPU, scenes10; full: CUDA, CIFAR-10")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--seed", type=int, help="of weights, order, and how pictures are varied")
    how = parser.add_argument_group("training", "defaults are the profile's")
    how.add_argument("--dataset", choices=("cifar10", "scenes10"))
    how.add_argument("--architecture", choices=("resnet50", "small"))
    how.add_argument("--resolution", type=int, metavar="R", help="what 32 x 32 pixels are enlarged to")
    how.add_argument("--epochs", type=int, metavar="N")
    how.add_argument("--batch-size", type=int, metavar="N")
    how.add_argument("--learning-rate", type=float, metavar="X", help="at its peak")
    return parser


if __name__ == "__main__":
    sys.exit(main())
