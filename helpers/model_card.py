"""The README.md of a published checkpoint, in the form that model hubs read: YAML front matter, then Markdown.

Format: https://huggingface.co/docs/hub/model-cards. Written from config.json alone (checkpoints.py), so the same checkpoint
always gets the same card, and nothing in it is typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

TITLES = {
    "clipcap": "ClipCap: a mapping network between CLIP and a language model (Mokady et al. 2021, arXiv 2111.09734)",
    "decoder": "a transformer decoder, trained from scratch on what CLIP sees (Vaswani et al. 2017, arXiv 1706.03762)",
    "cross-attention": "GPT-2 with gated cross-attention to what CLIP sees (Alayrac et al. 2022, arXiv 2204.14198)",
}
# Where OpenAI's CLIP weights lie on the hub; the ResNets are not there.
CLIP_REPOSITORIES = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
CLIP_NAMES = {*CLIP_REPOSITORIES, "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"}
# By how a dataset's name begins.
LICENCES = {
    "flickr": "The photos of Flickr8k and Flickr30k belong to their Flickr users and are given out for non-commercial "
              "research and education only: use this captioner likewise.",
    "coco": "COCO's captions are licensed CC BY 4.0; its photos belong to their Flickr users, under Flickr's terms of use.",
    "scenes": "It has seen drawn pictures only (code under the project's licence): of photos it says nothing sensible.",
}  # fmt: skip
UNKNOWN_LICENCE = "The licence of the pictures and captions that it was trained on holds for what is done with it, too."
SUMMARY = ("dataset", "pictures", "epochs", "best_epoch", "seed", "minutes")  # of config["training"]; the rest are settings


def model_card(config: Mapping, files: Mapping[str, int]) -> str:
    """The text of README.md. Pure: the same arguments give the same text.

    config: config.json of a checkpoint folder, with "training" and "scores" ({metric: {"value", "low", "high"}}) where there
    are any. files: the folder's files by name, with their sizes in bytes.
    """
    title = TITLES.get(config["system"], config["system"])
    sections = {
        "Sizes": _table(("size", "value"), config["model"].items()),
        "What else it needs": _backbones(config),
        "Trained on": _training(config.get("training")),
        "Scores": _scores(config.get("scores")),
        "How to use it": _usage(config),
        "Limits": _limits(config.get("training") or {}),
        "Files": _table(("file", "size"), ((f"`{name}`", _size(files[name])) for name in sorted(files))),
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    opening = f"It writes English captions of pictures. System: {title}."
    return f"{_front_matter(config)}\n# Image captioner ({config['system']})\n\n{opening}\n\n{body}\n"


def is_hub_name(name: str) -> bool:
    """Whether a backbone's name is one of the Hugging Face hub ("gpt2", "OWNER/NAME"), not a file or folder."""
    return bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)) and not re.search(r"^data/|\.(pt|pth|bin|safetensors)$", name)


def _front_matter(config: Mapping) -> str:
    words = config.get("language_model", {}).get("name", "")
    bases = [CLIP_REPOSITORIES.get(config["clip"]["name"]), words if is_hub_name(words) else None]
    bases = [name for name in bases if name]
    lines = [
        "language: en",
        "license: mit",
        "library_name: image-captioning-tutorial",
        "pipeline_tag: image-to-text",
        "tags:",
        *(f"- {tag}" for tag in ("image-to-text", "image-captioning", config["system"])),
        *(["base_model:", *(f"- {name}" for name in bases)] if bases else []),
    ]
    return "\n".join(("---", *lines, "---"))


def _backbones(config: Mapping) -> str:
    clip = config["clip"]
    learned = config.get("learned")
    lines = [f"- CLIP: {_origin(clip['name'], 'OpenAI, by the package clip')}; fingerprint of its weights "
             f"`{clip.get('fingerprint', 'unknown')}`, which is checked when the captioner is loaded."]  # fmt: skip
    if learned:
        lines.append(f"- Parts of CLIP that have learned along are in `model.safetensors`: {', '.join(learned)}.")
    if "language_model" in config:
        tuning = config["model"].get("tuning", "frozen")
        changed = "frozen, not in this folder" if tuning == "frozen" else f"what has learned (`{tuning}`) is in this folder"
        lines.append(f"- Language model: {_origin(config['language_model']['name'], 'the Hugging Face hub')}; {changed}.")
    if "tokenizer" in config:
        lines.append(f"- Tokenizer: in `tokenizer/`; it came from {_origin(config['tokenizer']['name'], 'the hub')}.")
    return "\n".join(lines)


def _origin(name: str, source: str) -> str:
    """What a backbone is called and where it comes from; of a path only the last part, the rest is somebody's machine."""
    if name in CLIP_NAMES or is_hub_name(name):
        return f"`{name}` ({source})"
    if "data/tiny/" in name:
        return f"`data/tiny/{name.rpartition('data/tiny/')[2]}` (comes with the project)"
    return f"`{PurePosixPath(name.replace(chr(92), '/')).name}` (a local file or folder: say where it lies when loading)"


def _training(training: Mapping | None) -> str:
    if not training:
        return "Not recorded."
    shown = {name: training[name] for name in SUMMARY if name in training}
    settings = {name: value for name, value in training.items() if name not in SUMMARY}
    text = _table(("what", "value"), shown.items())
    return f"{text}\n\nSettings and what came out:\n\n{_table(('setting', 'value'), settings.items())}" if settings else text


def _scores(scores: Mapping | None) -> str:
    rows = []
    for metric, score in (scores or {}).items():
        if isinstance(score, Mapping) and "value" in score:
            interval = f"[{score['low']:.3f}, {score['high']:.3f}]" if {"low", "high"} <= set(score) else ""
            rows.append((metric, f"{score['value']:.3f}", interval))
    return _table(("metric", "value", "95 % interval"), rows) if rows else "Not scored yet."


def _usage(config: Mapping) -> str:
    names = [config[key]["name"] for key in ("clip", "language_model") if key in config]
    options = [
        f"{option}=..."
        for option, name in zip(("clip", "language_model"), names, strict=False)
        if not (name in CLIP_NAMES or is_hub_name(name) or "data/tiny/" in name)
    ]
    arguments = ", ".join(('"FOLDER"', *options))
    flags = "".join(" --" + option.replace("_", "-").replace("=...", " PLACE") for option in options)
    return f"""With this folder downloaded as FOLDER, in a checkout of the project:

```bash
python -m helpers.caption -f photo.jpg --checkpoint FOLDER{flags}
```

```python
from helpers.checkpoints import load_captioner
captioner = load_captioner({arguments})
print(captioner.caption(["photo.jpg"]))
```"""


def _limits(training: Mapping) -> str:
    dataset = str(training.get("dataset", "")).lower()
    licence = next((text for name, text in LICENCES.items() if dataset.startswith(name)), UNKNOWN_LICENCE)
    return "\n".join((
        f"- {licence}",
        "- Captions can be wrong: things that are not there, wrong colours, counts and places, said in a sure voice.",
        "- They repeat what the captions, CLIP and the language model are biased to, of people above all: who is taken for a "
        "man or a woman, and for what.",
        "- Do not rely on them for anybody's safety, nor to judge or to find out who a person is.",
    ))  # fmt: skip


def _table(head: tuple[str, ...], rows: Iterable[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in lines)


def _cell(value: object) -> str:
    text = f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _size(count: int) -> str:
    """1000 bytes a kB, as hubs count."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
