"""A captioner on disk is one folder: model.safetensors (what was trained, nothing else) and config.json (all to rebuild it).

The frozen backbones are named in config.json, not copied: CLIP with its fingerprint, the language model with its width, and
both are checked when the folder is loaded. No pickle anywhere.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers.captioner import Captioner
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.errors import InputError
from helpers.files import atomic_path
from helpers.hub import find_file, load_language_model
from helpers.models.clipcap import ClipCap, ClipCapConfig

FORMAT = 1


def save_captioner(captioner: Captioner, folder: str | Path, **extra: object) -> Path:
    """Write a captioner's folder, atomically. `extra` goes into config.json (what it was trained on, its scores)."""
    folder = Path(folder)
    trained = {name: value for name, value in captioner.model.named_parameters() if value.requires_grad}
    config = {
        "format": FORMAT,
        "system": "clipcap",
        "model": asdict(captioner.model.config),
        "clip": {"name": _portable(captioner.config["clip"], folder), "fingerprint": captioner.encoder.fingerprint},
        "language_model": {"name": _portable(captioner.config["language_model"], folder)},
        "preprocessing": {"resolution": captioner.encoder.resolution, "normalisation": "CLIP"},
        **{k: v for k, v in captioner.config.items() if k not in ("clip", "language_model")},
        **extra,
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file({name: value.detach().cpu().contiguous() for name, value in trained.items()},
                  temporary / "model.safetensors")
        (temporary / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def read_config(folder: str | Path) -> dict:
    """config.json of a checkpoint folder. Raises InputError where it is missing, damaged, or lacks a key."""
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.exists():
        raise InputError(f"the checkpoint {folder} does not exist: give the folder that training wrote")
    if not path.is_file():
        raise InputError(f"{folder} is not a checkpoint: it holds no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): copy the checkpoint again") from error
    missing = [key for key in ("format", "system", "model", "clip", "language_model") if key not in config]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}")
    if config["format"] != FORMAT or config["system"] != "clipcap":
        raise InputError(f"{path}: system {config['system']!r}, format {config['format']} is not known to this version")
    return config


def load_captioner(
    folder: str | Path, *, clip: str | None = None, language_model: str | None = None, device: str = "cpu"
) -> Captioner:
    """Rebuild a captioner from its folder; `clip` and `language_model` say where the backbones lie, if they were moved.

    Raises InputError where a file is missing or truncated, where a tensor is missing or of another shape, and where CLIP or
    the language model is not the one it was trained with; OfflineError where a backbone would have to be downloaded.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = _read_weights(folder / "model.safetensors")
    clip = clip or _resolve(config["clip"]["name"], folder)
    language_model = language_model or _resolve(config["language_model"]["name"], folder)
    encoder = load_clip(clip, device)
    try:
        sizes = ClipCapConfig(**config["model"])
    except TypeError as error:
        raise InputError(f"{folder / 'config.json'}: model: {error}") from error
    if sizes.image_dim != encoder.dim:
        raise InputError(f"{folder} takes image vectors of {sizes.image_dim} numbers, {clip} gives {encoder.dim}: it was "
                         f"trained with {config['clip']['name']}")
    if config["clip"]["fingerprint"] != encoder.fingerprint:
        raise InputError(f"{folder} was trained with other CLIP weights than {clip}: give the right file (--clip)")
    model = ClipCap(sizes, load_language_model(language_model))
    _fill(model, weights, folder)
    joined = {k: v for k, v in config.items() if k not in ("format", "system", "model", "preprocessing")}
    joined |= {"clip": clip, "language_model": language_model}
    return Captioner(encoder, load_tokens(language_model), model.to(device).eval(), joined)


def _read_weights(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path.parent} is not a checkpoint: it holds no {path.name}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or truncated ({error}): copy the checkpoint again") from error


def _fill(model: ClipCap, weights: dict, folder: Path) -> None:
    expected = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for name, value in expected.items():
        if name not in weights:
            raise InputError(f"{folder / 'model.safetensors'} lacks {name}")
        if weights[name].shape != value.shape:
            raise InputError(f"{folder / 'model.safetensors'}: {name} is {tuple(weights[name].shape)}, config.json says "
                             f"{tuple(value.shape)}")
    unknown = sorted(set(weights) - set(expected))
    if unknown:
        raise InputError(f"{folder / 'model.safetensors'} holds {unknown[0]}, which this captioner has no place for")
    model.load_state_dict(weights, strict=False)  # strict was checked above; the frozen backbone is not in the file


def _portable(name: str, folder: Path) -> str:
    """A backbone's path as written down: relative to the checkpoint's folder, so that both can move together."""
    path = find_file(name)
    return Path(os.path.relpath(path, folder.resolve())).as_posix() if path else str(name)


def _resolve(name: str, folder: Path) -> str:
    beside = folder / name
    return str(beside.resolve()) if name.startswith("..") or beside.exists() else name
