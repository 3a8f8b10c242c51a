"""What each system is trained with, by preset: settings of the training and sizes of the model that belong together."""

from __future__ import annotations

from helpers.errors import InputError
from helpers.settings import TrainSettings

# By system and preset: (fields of TrainSettings, fields of the model's config). "full" and "tiny" are the profiles'. The
# small backbones learn at rates that would wreck the large ones, and their width holds fewer heads.
PRESETS: dict[str, dict[str, tuple[dict, dict]]] = {
    "clipcap": {
        "full": ({"captions": "all"}, {}),  # the paper's: a transformer mapping, GPT-2 frozen
        "tiny": (
            {"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "captions": "all", "weight_decay": 0.05},
            {"layers": 4, "heads": 4},
        ),
        "mlp": ({"captions": "all"}, {"mapping": "mlp", "tuning": "all"}),  # the paper's other captioner
        "p1": (  # Chantoone/image-captioning-via-GPT2-and-CLIP: a memory of length 1
            {"epochs": 30, "batch_size": 32, "learning_rate": 1e-5, "weight_decay": 1e-5, "warmup_share": 0.0},
            {"mapping": "cross-attention-pooled"},
        ),
        **{  # Lahdhirim/CV-image-captioning-clip-gpt2's six experiments, on shares of COCO
            f"p2-{n}": (
                {"batch_size": 64, "learning_rate": 1e-4, "weight_decay": 0.0, "share": share},
                {"mapping": "linear", "prefix_length": prefix, "tuning": "blocks", "frozen_blocks": frozen},
            )
            for n, (prefix, frozen, share) in enumerate(
                ((2, 10, 0.005), (2, 10, 0.1), (4, 10, 0.2), (5, 11, 0.4), (10, 11, 0.5), (4, 6, 0.4)), start=1
            )
        },
    },
    "decoder": {
        "full": (
            {"epochs": 15, "batch_size": 64, "learning_rate": 3e-4, "weight_decay": 0.05, "schedule": "cosine",
             "label_smoothing": 0.1, "captions": "all", "keep": "val_CIDEr-D", "patience": 3, "encoder": "two-phases",
             "encoder_rate": 1e-5, "unfreeze_epoch": 10, "mirrored": True},
            {},
        ),
        "tiny": (
            {"epochs": 2, "batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.05, "schedule": "cosine",
             "label_smoothing": 0.1, "captions": "all", "keep": "val_CIDEr-D", "encoder": "two-phases",
             "encoder_rate": 1e-4, "unfreeze_epoch": 1, "mirrored": True},
            {"width": 128, "layers": 2, "heads": 4, "dropout": 0.0},  # two epochs are too few to overfit
        ),
        # As published, at rates of learning that hardly learn, and with a memory of length 1: nowhere to look.
        "published": (
            {"epochs": 10, "batch_size": 64, "learning_rate": 1e-6, "weight_decay": 0.01, "schedule": "cosine",
             "warmup_share": 0.0, "gradient_clip": 0.1, "label_smoothing": 0.1, "captions": "all", "patience": 3,
             "encoder": "two-phases", "encoder_rate": 1e-8, "unfreeze_epoch": 3, "mirrored": True, "max_tokens": 49},
            {"width": 1024, "layers": 4, "heads": 8, "dropout": 0.44, "memory": "pooled", "tied": False, "positions": 49},
        ),
    },
    "cross-attention": {
        "full": (  # fits a T4
            {"learning_rate": 1e-4, "batch_size": 32, "captions": "all", "keep": "val_CIDEr-D", "patience": 3},
            {},
        ),
        "tiny": (
            {"epochs": 4, "batch_size": 64, "learning_rate": 3e-3, "captions": "all", "weight_decay": 0.05},
            {},
        ),
        # What is trained of Xiangyu-Lou/Image-Captions; its backbones are in environment.DEFAULTS.
        "published": ({"learning_rate": 1e-4, "batch_size": 32}, {"tuning": "mlps", "gradient_checkpointing": True}),
    },
    "clip": {
        "full": ({"epochs": 30, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 0.1, "schedule": "cosine",
                  "captions": "all"}, {}),
        "tiny": ({"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "weight_decay": 0.1, "schedule": "cosine",
                  "captions": "all"}, {}),
    },
    "dual-encoder": {
        "full": ({"learning_rate": 1e-3, "batch_size": 128, "weight_decay": 1e-3, "schedule": "cosine", "mirrored": True}, {}),
        "tiny": (
            {"epochs": 3, "batch_size": 128, "learning_rate": 2e-3, "weight_decay": 1e-3, "schedule": "cosine",
             "captions": "all"},
            {"image_rate": 0.1, "text_rate": 1.0, "dropout": 0.0},
        ),
        # richardwzhu/image-captioning-CLIP, whose rate falls by a fifth where the loss no longer does: here, by a line.
        "published": (
            {"epochs": 2, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 1e-3, "captions": "all"},
            {"loss": "soft-targets"},
        ),
    },
}  # fmt: skip


def settings_for(preset: str, system: str = "clipcap", **changes: object) -> TrainSettings:
    """The preset's training settings, with `changes` on top (None: as the preset has it)."""
    return TrainSettings(**(_preset(system, preset)[0] | _given(changes)))


def sizes_for(preset: str, system: str = "clipcap", **changes: object) -> dict[str, object]:
    """The preset's sizes of the model, fields of its config, with `changes` on top (None: as the preset has it)."""
    return _preset(system, preset)[1] | _given(changes)


def _preset(system: str, preset: str) -> tuple[dict, dict]:
    if preset not in PRESETS[system]:
        raise InputError(f"preset {preset!r} is not known: choose one of {', '.join(PRESETS[system])}")
    return PRESETS[system][preset]


def _given(changes: dict) -> dict:
    return {name: value for name, value in changes.items() if value is not None}
