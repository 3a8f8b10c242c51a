"""Pretrained tokenizers and language models by folder or by name, checked before a library waits minutes for a network."""

from __future__ import annotations

from pathlib import Path

from helpers.environment import ROOT, require_network
from helpers.errors import InputError

HUB = "https://huggingface.co"


def find_file(name: str | Path) -> Path | None:
    """The file or folder that `name` stands for: as given, else inside the project (data/tiny/...); None if neither is."""
    for path in (Path(name).expanduser(), ROOT / name):
        if path.exists():
            return path.resolve()
    return None


def locate(name: str | Path, *, what: str) -> dict[str, object]:
    """Keyword arguments for `from_pretrained`: a local folder, a model already in the hub's cache, or a hub name.

    what: "language model", "text tower" or "tokenizer".

    Raises InputError for a folder without its config or a path that does not exist, and OfflineError (within 2 seconds)
    where the model is neither here nor reachable.
    """
    folder = find_file(name)
    if folder is not None:
        needed = "tokenizer_config.json" if what == "tokenizer" else "config.json"
        if not (folder / needed).is_file():
            raise InputError(f"{name} holds no {needed}: give a folder written by save_pretrained() as the {what}")
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    name = str(name)
    if name.startswith((".", "/", "~", "data/")) or name.count("/") > 1:
        raise InputError(f"{name} does not exist: give a folder written by save_pretrained(), or a hub name such as gpt2")
    import huggingface_hub

    file, option, small = {
        "language model": ("model.safetensors", "--language-model", "data/tiny/gpt2"),
        "tokenizer": ("tokenizer.json", "--tokenizer", "data/tiny/bert"),
        "text tower": ("model.safetensors", "--text-tower", "data/tiny/distilbert"),
    }[what]
    cached = huggingface_hub.try_to_load_from_cache(name, file)
    if isinstance(cached, str):  # its folder: for a name, even of a cached model, the library asks the hub for adapters
        return {"pretrained_model_name_or_path": str(Path(cached).parent), "local_files_only": True}
    require_network(
        HUB,
        what=f"the {what} {name!r}",
        instead=f"Give a folder written by save_pretrained() instead of the name ({option} DIR), "
        f"for example the small one in {small}.",
    )
    return {"pretrained_model_name_or_path": name, "local_files_only": False}


def load_language_model(name: str | Path):
    """Any causal language model of the transformers library, in fp32 and eval mode. Errors as in `locate`."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar over a few hundred tensors that are loaded at once
    return AutoModelForCausalLM.from_pretrained(**locate(name, what="language model")).float().eval()
