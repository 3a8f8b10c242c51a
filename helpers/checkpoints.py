"""A captioner on disk is one folder: model.safetensors (what was trained), config.json (all to rebuild it), README.md.

The frozen backbones are named in config.json, not copied: CLIP with its fingerprint, the language model with its width, and
both are checked when the folder is loaded. What learned along is in model.safetensors too: parts of CLIP, and of the
language model what its tuning changed (of LoRA, the adapters alone). A captioner without a language model keeps its
tokenizer in tokenizer/. No pickle anywhere; the .pt files of the original ClipCap are read by `load_clipcap_checkpoint`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.captioner import Captioner
from helpers.data.encoders import ClipEncoder, load_clip
from helpers.data.tokens import load_tokens
from helpers.environment import shown
from helpers.errors import InputError
from helpers.files import atomic_path
from helpers.hub import find_file, load_language_model
from helpers.model_card import model_card
from helpers.models.clipcap import ClipCap, ClipCapConfig
from helpers.models.cross_attention import CrossAttentionCaptioner, CrossAttentionConfig
from helpers.models.decoder import DecoderCaptioner, DecoderConfig
from helpers.original_clipcap import StopTokens, fill, original_language_model, original_sizes, read_original

FORMAT = 1
SYSTEMS = {
    "clipcap": (ClipCap, ClipCapConfig),
    "decoder": (DecoderCaptioner, DecoderConfig),
    "cross-attention": (CrossAttentionCaptioner, CrossAttentionConfig),
}
ENCODER = "encoder."  # before the names of CLIP's tensors


def save_captioner(captioner: Captioner, folder: str | Path, **extra: object) -> Path:
    """Write a captioner's folder, atomically. `extra` goes into config.json (what it was trained on, its scores).

    captioner.config names the backbones: "clip" and "language_model" or "tokenizer"; "learned", where parts of CLIP have
    learned along, their names (LearningEncoder.parts), with "clip_fingerprint" of the CLIP that they started from.
    """
    folder = Path(folder)
    given = {k: v for k, v in captioner.config.items() if k != "clip_fingerprint"}
    names = {
        key: {"name": _portable(given.pop(key), folder)} for key in ("clip", "language_model", "tokenizer") if key in given
    }
    names["clip"]["fingerprint"] = captioner.config.get("clip_fingerprint", captioner.encoder.fingerprint)
    config = {
        "format": FORMAT,
        "system": next(name for name, (model, _) in SYSTEMS.items() if type(captioner.model) is model),
        "model": asdict(captioner.model.config),
        **names,
        "preprocessing": {"resolution": captioner.encoder.resolution, "normalisation": "CLIP"},
        **given,
        **extra,
    }
    weights = _places(captioner.model, captioner.encoder, config.get("learned", ()))
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()},
                  temporary / "model.safetensors")
        (temporary / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if "tokenizer" in names:
            captioner.tokens.tokenizer.save_pretrained(temporary / "tokenizer")
        written = (path for path in temporary.rglob("*") if path.is_file())
        files = {path.relative_to(temporary).as_posix(): path.stat().st_size for path in written}
        (temporary / "README.md").write_text(model_card(config, files), encoding="utf-8")
    return folder


def read_config(folder: str | Path) -> dict:
    """config.json of a checkpoint folder. Raises InputError where it is missing, damaged, or lacks a key."""
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.exists():
        raise InputError(f"the checkpoint {shown(folder)} does not exist: give the folder that training wrote")
    if not path.is_file():
        raise InputError(f"{shown(folder)} is not a checkpoint: it holds no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{shown(path)} is not valid JSON ({error}): copy the checkpoint again") from error
    needed = ["format", "system", "model", "clip"]
    if config.get("system") in SYSTEMS:
        needed.append("language_model" if config["system"] in ("clipcap", "cross-attention") else "tokenizer")
    missing = [key for key in needed if key not in config]
    if missing:
        raise InputError(f"{shown(path)} lacks {', '.join(missing)}")
    if config["format"] != FORMAT or config["system"] not in SYSTEMS:
        raise InputError(f"{shown(path)}: system {config['system']!r}, format {config['format']} is not known to this version")
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
    encoder = load_clip(clip, device)
    try:
        sizes = SYSTEMS[config["system"]][1](**config["model"])
    except TypeError as error:
        raise InputError(f"{folder / 'config.json'}: model: {error}") from error
    _check_clip(config, sizes, encoder, clip, folder)
    joined = {k: v for k, v in config.items() if k not in ("format", "system", "model", "preprocessing")} | {"clip": clip}
    build = SYSTEMS[config["system"]][0]
    if "language_model" in config:
        words = joined["language_model"] = language_model or _resolve(config["language_model"]["name"], folder)
        model: nn.Module = build(sizes, load_language_model(words))
    else:
        words = joined["tokenizer"] = str(folder / "tokenizer")
        model = build(sizes)
    tokens = load_tokens(words)
    if "stop" in config:
        tokens = StopTokens(tokens.tokenizer, config["stop"])
    if config["system"] == "decoder" and len(tokens) != sizes.vocabulary:
        raise InputError(f"{shown(folder)} was trained with {sizes.vocabulary} tokens, its tokenizer/ has {len(tokens)}")
    if config.get("learned"):
        joined["clip_fingerprint"] = encoder.fingerprint
        encoder.model.float()
    _fill(_places(model, encoder, config.get("learned", ())), weights, folder)
    if config.get("learned"):
        encoder.take_fingerprint()
    return Captioner(encoder, tokens, model.to(device).eval(), joined)


def load_clipcap_checkpoint(
    path: str | Path,
    *,
    language_model: str = "gpt2",
    clip: str = "ViT-B/32",
    normalize: bool = False,
    device: str = "cpu",
) -> Captioner:
    """A captioner from a .pt file of the original ClipCap (rmokady/CLIP_prefix_caption): MLP or transformer mapping.

    A GPT-2 inside the file is taken from there, with the config and tokenizer of `language_model`; a file with the mapping
    alone is put in front of `language_model`. Sizes come from the shapes. The original has no end token, so captions stop
    at their first full stop. normalize: for files trained with --normalize_prefix, where CLIP's vector has length 1.

    Raises InputError where the file is damaged, of another layout, or does not fit CLIP or the language model; OfflineError
    where a backbone would have to be downloaded.
    """
    weights = read_original(path)
    whole = "gpt.transformer.wte.weight" in weights
    words = original_language_model(weights, language_model, path) if whole else load_language_model(language_model)
    sizes = ClipCapConfig(
        **original_sizes(weights, words.get_input_embeddings().weight.shape[1], path),
        normalize=normalize,
        tuning="all" if whole else "frozen",  # so that save_captioner() keeps a GPT-2 that is found nowhere else
    )
    encoder = load_clip(clip, device)
    if sizes.image_dim != encoder.dim:
        raise InputError(f"{shown(path)} takes image vectors of {sizes.image_dim} numbers, {clip} gives {encoder.dim}: "
                         "give the CLIP that it was trained with (clip)")
    model = ClipCap(sizes, words)
    mapping = {name.removeprefix("clip_project."): value for name, value in weights.items() if name[:4] == "clip"}
    fill(model.clip_project, mapping, f"{shown(path)}: its mapping network is not whole")
    tokens = StopTokens(load_tokens(language_model).tokenizer)
    config = {"clip": clip, "language_model": str(language_model), "stop": tokens.stop, "original": Path(path).name}
    return Captioner(encoder, tokens, model.to(device).eval(), config)


def _check_clip(
    config: dict, sizes: ClipCapConfig | DecoderConfig | CrossAttentionConfig, encoder: ClipEncoder, clip: str, folder: Path
) -> None:
    given = {"image_dim": encoder.dim, "pooled_dim": encoder.dim, "grid_dim": encoder.grid[1], "memory_dim": encoder.grid[1]}
    for name in given:
        if getattr(sizes, name, 0) not in (0, given[name]):  # 0: a mapping that takes no grid
            raise InputError(f"{shown(folder)} takes image vectors of {getattr(sizes, name)} numbers, {clip} gives "
                             f"{given[name]} ({name}): it was trained with {config['clip']['name']}")
    if config["clip"]["fingerprint"] != encoder.fingerprint:
        raise InputError(f"{shown(folder)} was trained with other CLIP weights than {clip}: give the right file (--clip)")


def _places(model: nn.Module, encoder: ClipEncoder, learned: list[str] | tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors that training changes, by their names in the file."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    visual = encoder.model.visual.state_dict()
    return trained | {ENCODER + name: value for name, value in visual.items() if learned and name.startswith(tuple(learned))}


def _read_weights(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path.parent} is not a checkpoint: it holds no {path.name}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{shown(path)} is damaged or truncated ({error}): copy the checkpoint again") from error


def _fill(places: dict[str, Tensor], weights: dict, folder: Path) -> None:
    for name, value in places.items():
        if name not in weights:
            raise InputError(f"{folder / 'model.safetensors'} lacks {name}")
        if weights[name].shape != value.shape:
            raise InputError(f"{folder / 'model.safetensors'}: {name} is {tuple(weights[name].shape)}, config.json says "
                             f"{tuple(value.shape)}")
    unknown = sorted(set(weights) - set(places))
    if unknown:
        raise InputError(f"{folder / 'model.safetensors'} holds {unknown[0]}, which this captioner has no place for")
    for name, value in places.items():
        value.data.copy_(weights[name])


def _portable(name: str, folder: Path) -> str:
    """A backbone's path as written down: relative to the checkpoint's folder, so that both can move together."""
    path = find_file(name)
    return Path(os.path.relpath(path, folder.resolve())).as_posix() if path else str(name)


def _resolve(name: str, folder: Path) -> str:
    beside = folder / name
    return str(beside.resolve()) if name.startswith("..") or beside.exists() else name
