"""Folders that the kaggle command pushes: one a notebook, and the helpers as a dataset that all of them attach.

Formats: https://github.com/Kaggle/kaggle-cli, docs/kernels_metadata.md and docs/datasets_metadata.md.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from helpers.data.layouts import KARPATHY_FILES
from helpers.data.sources import KAGGLE, KARPATHY_SPLITS
from helpers.environment import DEFAULTS, ROOT, shown
from helpers.errors import InputError
from helpers.files import atomic_path, write_json
from helpers.first_cell import find_notebooks

TITLE = "Image captioning tutorial"  # of the dataset; notebooks are called "Image captioning 03 clipcap"
PACKED = ("helpers", "data/tiny", "data/README.md", "results", "requirements.txt", "LICENSE", "README.md")
ACCELERATOR = "NvidiaTeslaT4"  # which is GPU T4 x2: a single one is not lent (kaggle-cli, pull request 1198)

# Whose checkpoints a notebook reads, by number: these are attached, and must have run before.
READS = {"05": ("02", "03", "04"), "06": ("02", "03", "04", "05"), "07": ("02", "03", "04", "05")}

USER = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")  # the kaggle command's own rule for owners
SETUP = re.compile(r'setup\(\\?"\w+\\?"(?:, system=\\?"([\w-]+)\\?")?')  # as it stands in a notebook's JSON


def write_folders(user: str, out: Path, root: Path = ROOT) -> list[Path]:
    """Write `out`/SLUG for the dataset and for every notebook: the folders, the dataset's first, then in reading order.

    What an earlier call wrote is replaced. Raises InputError, before anything is written, for a name that cannot be a
    Kaggle user's, and where a folder of that name holds something else; and where `out` cannot be written to.
    """
    if not USER.fullmatch(user):
        raise InputError(f"--user {user!r} is no Kaggle user: give the name in your profile's address, kaggle.com/NAME, in "
                         "small letters")
    notebooks = find_notebooks(root)
    folders = {out / slugify(TITLE): "dataset-metadata.json"}
    folders |= {out / slugify(title(notebook)): "kernel-metadata.json" for notebook in notebooks}
    for folder, metadata in folders.items():
        if folder.exists() and not (folder / metadata).is_file():
            raise InputError(f"{shown(folder)} holds something else: choose another folder with --out")
    dataset, *kernels = folders
    try:
        with atomic_path(dataset) as temporary:
            pack_helpers(user, temporary, root)
        for folder, notebook in zip(kernels, notebooks, strict=True):
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                shutil.copyfile(notebook, temporary / notebook.name)
                write_json(temporary / "kernel-metadata.json", kernel_metadata(notebook, user))
    except OSError as error:
        raise InputError(f"{shown(out)} cannot be written to ({error.strerror}): choose another folder with --out, "
                         "with some 25 MB of room") from error
    return list(folders)


def pack_helpers(user: str, folder: Path, root: Path = ROOT) -> None:
    """Copy what notebooks import and read into `folder`, with Kaggle's metadata. Each folder in it goes up as one zip."""
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    for name in PACKED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_dir():
            shutil.copytree(root / name, target, ignore=hidden)
        else:
            shutil.copyfile(root / name, target)
    metadata = {
        "id": f"{user}/{slugify(TITLE)}",
        "title": TITLE,
        "subtitle": "The helpers and small models of a series of notebooks",  # 20 to 80 characters
        "description": "Attach this to the notebooks of the series. MIT licence: see LICENSE.",
        "licenses": [{"name": "other"}],  # Kaggle's list has no MIT: the description names it
    }
    write_json(folder / "dataset-metadata.json", metadata)


def kernel_metadata(notebook: Path, user: str) -> dict:
    """kernel-metadata.json of a notebook: private, on GPU T4 x2, with internet, and all that its full profile reads."""
    siblings = {path.stem[:2]: path for path in find_notebooks(notebook.parents[1])}
    read = [siblings[number] for number in READS.get(notebook.stem[:2], ()) if number in siblings]
    return {
        "id": f"{user}/{slugify(title(notebook))}",
        "title": title(notebook),
        "code_file": notebook.name,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": True,
        "machine_shape": ACCELERATOR,
        "dataset_sources": [f"{user}/{slugify(TITLE)}", *photo_datasets(notebook.read_text(encoding="utf-8"))],
        "competition_sources": [],
        "kernel_sources": [f"{user}/{slugify(title(path))}" for path in read],
        "model_sources": [],
    }


def photo_datasets(notebook: str) -> list[str]:
    """The Kaggle datasets that a notebook reads in the full profile, by its call of setup(); `notebook` is its JSON."""
    call = SETUP.search(notebook)
    if call is None or "load_captions(" not in notebook:
        return []
    dataset = DEFAULTS[call[1] or "clipcap"]["full"]["dataset"]
    return [KAGGLE[dataset][0], *[KARPATHY_SPLITS] * (dataset in KARPATHY_FILES)]


def title(notebook: Path) -> str:
    """A notebook's title on Kaggle, such that its slug is the title in small letters with hyphens."""
    return f"Image captioning {notebook.stem.replace('_', ' ')}"


def slugify(title: str) -> str:
    """What Kaggle makes of a title of letters, digits and spaces."""
    return title.lower().replace(" ", "-")


def instructions(folders: list[Path], user: str, out: Path) -> str:
    """The commands that bring `folders` (of write_folders) to Kaggle, in order: what is read is pushed before its readers."""
    dataset, *kernels = folders
    number = {folder: re.search(r"-(\d\d)-", folder.name)[1] for folder in kernels}
    known = set(number.values())

    def stage(number: str) -> int:
        return 1 + max((stage(read) for read in READS.get(number, ()) if read in known), default=0)

    lines = [
        f"{len(folders)} folders are in {shown(out)}. To bring them to Kaggle (pip install kaggle; kaggle auth login):",
        "",
        "# The helpers and small models. A new version later: kaggle datasets version -m NOTE, with the same options.",
        f"kaggle datasets create --dir-mode zip -p {_quoted(dataset)}",
        f"kaggle datasets status {user}/{dataset.name}    # go on when it says ready",
    ]
    for n in sorted({stage(number[folder]) for folder in kernels}):
        same = [folder for folder in kernels if stage(number[folder]) == n]
        lines += ["", "# Each push starts a run on Kaggle's GPU." if n == 1 else
                  f"# Reads checkpoints of those above: push when they have run (kaggle kernels status {user}/SLUG)."]
        lines += [f"kaggle kernels push -p {_quoted(folder)}" for folder in same]
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    """`path` as it may be printed, for the shell, which does not look for ~ inside quotes."""
    text = shown(path.absolute())
    return f"~/{shlex.quote(text[2:])}" if text.startswith("~/") else shlex.quote(text)
