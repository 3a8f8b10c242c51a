"""The two towers of a dual encoder: a ResNet of torchvision for pictures, DistilBERT or BERT for captions.

Weights come by a name (ImageNet's, a model on the Hugging Face hub) or from files of one's own. A file whose weights would
not be used is refused: a tower that is random where it should know something trains on without a word, and worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models.resnet import BasicBlock, ResNet, ResNet50_Weights, resnet50
from transformers import AutoConfig, BertModel, DistilBertModel, PretrainedConfig

from helpers.environment import progress_wanted, require_network, shown
from helpers.errors import InputError
from helpers.hub import find_file, locate

IMAGENET = ResNet50_Weights.IMAGENET1K_V2
# By model_type. What BERT's pooler makes of [CLS] is not asked for: without gradients, it would only be in DDP's way.
TEXT_CLASSES = {"distilbert": (DistilBertModel, {}), "bert": (BertModel, {"add_pooling_layer": False})}


class _SmallResNet(ResNet):
    """One block a stage and half of ResNet18's channels: 1.3 M parameters, for CPUs."""

    def __init__(self, **options: object):
        super().__init__(BasicBlock, [1, 1, 1, 1], **options)
        self.fc = nn.Linear(self.inplanes, self.fc.out_features)

    def _make_layer(self, block: type[nn.Module], planes: int, *sizes: object, **options: object) -> nn.Sequential:
        return super()._make_layer(block, planes // 2, *sizes, **options)


ARCHITECTURES = {"resnet50": resnet50, "small": _SmallResNet}
RESOLUTIONS = {"resnet50": 224, "small": 96}


def build_resnet(architecture: str, classes: int) -> ResNet:
    """A classifier with random weights, as it is trained before it becomes a tower: (B, 3, R, R) -> logits (B, classes).

    architecture: a key of ARCHITECTURES, else InputError.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"image tower {architecture!r} is not known: choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[architecture](num_classes=classes)


def preprocessing(resolution: int) -> transforms.Compose:
    """From a picture (PIL, RGB) to what an image tower sees (3, R, R); the same for training and inference.

    The shorter side becomes R pixels and the square in the middle is taken, as CLIP does: torchvision's own recipe resizes
    to more and cuts all four sides off, and captions speak of what stands there.
    """
    return transforms.Compose([
        transforms.Resize(resolution),
        transforms.CenterCrop(resolution),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET.transforms().mean, IMAGENET.transforms().std),
    ])  # fmt: skip


class ImageTower(nn.Module):
    """A ResNet without its classification layer, with random weights: pixels (B, 3, R, R) -> features (B, F).

    Attributes: `architecture`, `width` (F: 2048 for a ResNet50, 256 for the small one), `resolution` (R), `preprocess`.
    """

    def __init__(self, architecture: str):
        super().__init__()
        self.net = build_resnet(architecture, classes=1)
        self.architecture = architecture
        self.width = self.net.fc.in_features
        self.resolution = RESOLUTIONS[architecture]
        self.preprocess = preprocessing(self.resolution)
        self.net.fc = nn.Identity()

    def load_weights(self, state: Mapping[str, Tensor]) -> ImageTower:
        """Those of the same ResNet, with or without its classification layer. Raises RuntimeError where any other differs."""
        self.net.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels)


def load_image_tower(name: str | Path) -> ImageTower:
    """An image tower by name or from a file, in training mode.

        resnet50          with ImageNet's weights, downloaded by torchvision into its cache
        resnet50-random   the same network, nothing learned
        small             random too; small-random is the same
        FILE.pt           trained by helpers.classifier: {"architecture": ..., "state_dict": ...}

    Raises InputError for another name or a file that is not such a one, OfflineError (within 2 seconds) where ImageNet's
    weights are neither in the cache nor reachable.
    """
    if name == "resnet50":
        return ImageTower("resnet50").load_weights(_imagenet_weights())
    if str(name).removesuffix("-random") in ARCHITECTURES:
        return ImageTower(str(name).removesuffix("-random"))
    path = find_file(name)
    if path is None or not path.is_file():
        raise InputError(f"image tower {str(name)!r} is neither a file nor one of resnet50, resnet50-random, small")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return ImageTower(saved["architecture"]).load_weights(saved["state_dict"])
    except Exception as error:  # torch.load alone raises a dozen kinds; to the user they are one
        raise InputError(f"{path.name} cannot be read as an image tower: give a file written by helpers.classifier, whole "
                         f"({_first_line(error)})") from error


def _imagenet_weights() -> Mapping[str, Tensor]:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(IMAGENET.url).name
    if not cached.is_file():
        require_network(
            IMAGENET.url,
            what="ResNet50 with ImageNet's weights",
            instead=f"Put the file {cached.name} into {_tilde(cached.parent)}, or give instead of resnet50 a file written by "
            "helpers.classifier, or resnet50-random, or small.",
        )
    try:
        if not cached.is_file():  # here, for get_state_dict() would first print where to, the home folder included
            cached.parent.mkdir(parents=True, exist_ok=True)
            digest = cached.stem.split("-")[-1]
            torch.hub.download_url_to_file(IMAGENET.url, str(cached), hash_prefix=digest, progress=progress_wanted())
        return IMAGENET.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        raise InputError(f"{_tilde(cached)} cannot be read or downloaded whole: delete it and try again "
                         f"({_first_line(error)})") from error


class TextTower(nn.Module):
    """DistilBERT or BERT: tokens (B, L), mask (B, L), True on what counts -> [CLS]'s last hidden state (B, W).

    [CLS] is the first token; the tokens must bring it. Attributes: `net`, and `net.config` of the transformers library;
    `width` (W), `positions` (the longest L).
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net.train()  # trainers keep the mode they find, and from_pretrained() gives eval mode
        self.width = net.config.hidden_size
        self.positions = net.config.max_position_embeddings

    @classmethod
    def build(cls, config: PretrainedConfig | Mapping[str, object]) -> TextTower:
        """Random weights; the sizes from a configuration of the transformers library, or its to_dict()."""
        if isinstance(config, Mapping):
            config = AutoConfig.for_model(**config)
        make, options = _text_class(config)
        return cls(make(config, **options))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        if tokens.shape[1] > self.positions:
            raise InputError(f"captions of {tokens.shape[1]} tokens exceed the text tower's {self.positions} positions: cut "
                             "them")
        mask = None if mask is None else mask.long()
        return self.net(input_ids=tokens, attention_mask=mask).last_hidden_state[:, 0]


def load_text_tower(name: str | Path) -> TextTower:
    """A text tower from a folder written by save_pretrained() or by a hub name, fp32, in training mode.

    The class follows from the configuration's model_type. Raises InputError where that is neither distilbert nor bert, and
    where the file's weights and the tower's are not the same ones (the published experiment with BERT loads BERT's as
    DistilBERT, which leaves DistilBERT random); OfflineError (within 2 seconds) where the model is neither here nor reachable.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar over a few hundred tensors that are loaded at once
    place = locate(name, what="text tower")
    try:
        config = AutoConfig.from_pretrained(**place)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the text tower {shown(name)} has no config.json that can be read ({_first_line(error)})") from error
    make, options = _text_class(config, name)
    talkative = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is said below, as an error
    try:
        net, report = make.from_pretrained(
            **place, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except Exception as error:  # no weights, or damaged: the library raises half a dozen kinds
        raise InputError(f"the weights of the text tower {shown(name)} cannot be read, are they whole? "
                         f"({_first_line(error)})") from error
    finally:
        logging.set_verbosity(talkative)
    _check_all_used(report, f"{shown(name)} says model_type {config.model_type!r}, but its weights")
    return TextTower(net.float())


def _check_all_used(report: Mapping[str, object], subject: str) -> None:
    """InputError unless every weight of the tower came from the file, and no block of the file is left over."""
    misfits = {
        "lack {} that it needs": set(report["missing_keys"]),
        "have {} of another size": {name for name, *_ in report["mismatched_keys"]},
        "have {} that it has no place for": {name for name in report["unexpected_keys"] if ".layer." in name},  # a head may
    }
    for what, names in misfits.items():
        if names:
            raise InputError(f"{subject} {what.format(len(names))}, {min(names)} for one: the tower would not know what it is "
                             "said to know. Give a folder whose config.json and weights were saved together")


def _text_class(config: PretrainedConfig, name: str | Path = "") -> tuple[type[nn.Module], dict[str, object]]:
    if config.model_type not in TEXT_CLASSES:
        raise InputError(f"the text tower {shown(name)} is a {config.model_type}: give a DistilBERT or a BERT, for example "
                         "distilbert-base-uncased or bert-base-uncased")
    return TEXT_CLASSES[config.model_type]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _tilde(path: Path) -> str:
    """The path with ~ for the home folder."""
    return f"~/{path.relative_to(Path.home()).as_posix()}" if path.is_relative_to(Path.home()) else shown(path)
