"""A trained checkpoint out of Kaggle or Colab: as a download, to Kaggle's models or datasets, to the Hugging Face hub.

What goes to a hub is a copy of the checkpoint's folder (`copy_for_others`): with a README.md (model_card.py), and without
the paths of the machine that it was trained on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from helpers.captioner import Captioner
from helpers.checkpoints import load_captioner, read_config, save_captioner
from helpers.environment import ROOT, find_place, require_network, shown
from helpers.errors import InputError, OfflineError
from helpers.files import atomic_path
from helpers.hub import HUB
from helpers.model_card import model_card

KAGGLE = "https://www.kaggle.com"
BACKBONES = ("clip", "language_model", "tokenizer")  # keys of config.json that name something outside the folder
PARTS = ["config.json", "model.safetensors", "README.md", "tokenizer/*"]  # what of a hub repository is downloaded


def offer_download(folder: str | Path, place: str | None = None) -> Path:
    """Zip a checkpoint beside its folder as NAME.zip and offer it to the browser: the path of the zip.

    place: "kaggle" shows a link, "colab" starts the browser's download, "local" prints where the file lies; None: found out.
    Raises InputError where the folder is no checkpoint, and on Kaggle where it lies outside the current folder, whose files
    alone the notebook's server gives out.
    """
    folder = Path(folder)
    read_config(folder)
    place = place or find_place()
    archive = _zip(folder, place)
    if place == "kaggle":
        from IPython.display import FileLink, display

        display(FileLink(Path(os.path.relpath(archive)).as_posix()))
    elif place == "colab":
        from google.colab import files

        files.download(str(archive))
    else:
        print(shown(archive))
    return archive


def to_kaggle(folder: str | Path, handle: str, *, kind: str = "model", message: str = "") -> str:
    """Upload a checkpoint to Kaggle, private at first, a new version where it is there already: its handle there.

    kind: "model", handle OWNER/MODEL/FRAMEWORK/VARIATION, of which the last two may be left out (pyTorch/default); or
    "dataset", handle OWNER/DATASET. message: the notes of this version.

    Raises InputError for a folder that is no checkpoint, another kind, a malformed handle, where nobody is logged in, and
    where Kaggle refuses; OfflineError where it cannot be reached.
    """
    if kind not in ("model", "dataset"):
        raise InputError(f"kind={kind!r} is not known: choose model or dataset")
    handle = _kaggle_handle(handle, kind)
    read_config(folder)
    import kagglehub
    import requests
    from kagglehub.config import get_kaggle_credentials
    from kagglehub.exceptions import BackendError, UnauthenticatedError

    if get_kaggle_credentials() is None:
        raise InputError(
            "nobody is logged in to Kaggle: make a token at kaggle.com/settings (API), and set it as KAGGLE_API_TOKEN (Colab: "
            "among the secrets, the key symbol on the left), or call kagglehub.login()"
        )
    _reach(KAGGLE, handle)
    with _copied(Path(folder)) as copy:
        try:
            if kind == "model":
                kagglehub.model_upload(handle, str(copy), license_name="MIT", version_notes=message)
            else:
                kagglehub.dataset_upload(handle, str(copy), version_notes=message)
        except (BackendError, UnauthenticatedError, requests.HTTPError) as error:
            raise InputError(f"Kaggle refuses the {kind} {handle}: {error}") from error
        except requests.RequestException as error:
            raise OfflineError(f"the upload of {handle} to Kaggle broke off: run it again. {_INSTEAD}") from error
    return handle


def to_hub(folder: str | Path, repo_id: str, private: bool = True) -> str:
    """Upload a checkpoint to the Hugging Face hub as OWNER/NAME: the address of the commit. What is there is replaced.

    Raises InputError for a folder that is no checkpoint, a malformed name, where nobody is logged in, and where the hub
    refuses; OfflineError where it cannot be reached (within 2 seconds).
    """
    read_config(folder)
    with _copied(Path(folder)) as copy:

        def upload() -> str:
            api = huggingface_hub.HfApi()
            name = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=name, folder_path=copy, commit_message="Upload a captioner"))

        return _publish(repo_id, upload)


class HubCaptioner(
    huggingface_hub.ModelHubMixin,
    library_name="image-captioning-tutorial",
    tags=["image-to-text", "image-captioning"],
    license="mit",
):
    """A captioner with the hub's three methods: save_pretrained, push_to_hub, from_pretrained (huggingface_hub.ModelHubMixin).

        HubCaptioner(captioner).push_to_hub("OWNER/NAME", private=True)
        HubCaptioner.from_pretrained("OWNER/NAME").caption(["photo.jpg"])

    PyTorchModelHubMixin does the same for a bare nn.Module. A captioner is more: its files are checkpoints.py's, a tokenizer
    among them, and loading checks that CLIP is the one it was trained with.
    """

    def __init__(self, captioner: Captioner):
        self.captioner = captioner

    def caption(self, images: list, **decoding: object) -> list[str] | list[list[str]]:
        """As Captioner.caption."""
        return self.captioner.caption(images, **decoding)

    def push_to_hub(self, repo_id: str, **options: object) -> str:
        """As ModelHubMixin's (private, commit_message, branch, ...), with the errors of `to_hub`."""
        return str(_publish(repo_id, lambda: super(HubCaptioner, self).push_to_hub(repo_id, **options), options.get("token")))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: object) -> HubCaptioner:
        """From a folder, or from the hub by OWNER/NAME; without a network, from the hub's cache.

        options: ModelHubMixin's (revision, token, cache_dir, ...), and those of load_captioner: clip, language_model, device.

        Raises InputError where the hub does not have it, or as load_captioner; OfflineError (within 2 seconds) where it is
        neither cached nor reachable.
        """
        name = pretrained_model_name_or_path
        if Path(name).is_dir():
            return super().from_pretrained(str(name), **options)
        missing = f"the captioner {str(name)!r} is neither a folder nor, as OWNER/NAME, on the Hugging Face hub"
        if str(name).count("/") > 1 or str(name).startswith((".", "/", "~")):
            raise InputError(missing)
        try:
            where = {key: options[key] for key in ("cache_dir", "revision") if options.get(key)}
            cached = isinstance(huggingface_hub.try_to_load_from_cache(str(name), "model.safetensors", **where), str)
            if not options.get("local_files_only"):
                options["local_files_only"] = _from_cache(str(name), cached)
            return super().from_pretrained(str(name), **options)
        except LocalEntryNotFoundError as error:
            raise OfflineError(f"the captioner {str(name)!r} is not in the hub's cache: run once with a network") from error
        except (HfHubHTTPError, HFValidationError) as error:
            raise InputError(f"{missing} ({_reason(error)}); if it is private, log in: hf auth login") from error

    def _save_pretrained(self, save_directory: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:  # save_captioner() would replace the whole folder
            copy_for_others(save_captioner(self.captioner, Path(temporary) / "checkpoint"), save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **options: str,
    ) -> HubCaptioner:
        folder = model_id if Path(model_id).is_dir() else huggingface_hub.snapshot_download(
            model_id, revision=revision, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only, token=token, allow_patterns=PARTS,
        )  # fmt: skip
        return cls(load_captioner(folder, **options))


def copy_for_others(source: str | Path, target: str | Path) -> Path:
    """Copy a checkpoint into the folder `target`, as it may be published; a README.md that is there stays.

    Backbones on this machine are named by their place in the project (data/tiny/gpt2), or, where they lie elsewhere, by
    their last name alone (./gpt2): whoever loads the copy says where they have them.
    """
    source, target = Path(source), Path(target)
    config = read_config(source)
    for key in BACKBONES:
        if key in config:
            config[key]["name"] = _published(config[key]["name"], source)
    kept = (target / "README.md").is_file()
    hidden = shutil.ignore_patterns(".*", *(["README.md"] if kept else []))
    shutil.copytree(source, target, ignore=hidden, dirs_exist_ok=True)
    (target / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if not (target / "README.md").is_file():
        (target / "README.md").write_text(model_card(config, _sizes(target)), encoding="utf-8")
    return target


_INSTEAD = "Download the checkpoint instead: helpers.share.offer_download(FOLDER)."


def _published(name: str, folder: Path) -> str:
    path = Path(name).expanduser()
    place = (folder / path).resolve()
    if not (path.is_absolute() or name.startswith(".") or place.exists()) or place.is_relative_to(folder.resolve()):
        return name  # of a hub, or of something that is copied along
    return place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else f"./{place.name}"


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the folder's files by name, hidden ones left out."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path.stat().st_size for name, path in files.items() if not any(p[0] == "." for p in name.parts)}


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        yield copy_for_others(folder, Path(temporary) / folder.resolve().name)


def _zip(folder: Path, place: str) -> Path:
    folder = folder.resolve()
    archive = folder.with_name(f"{folder.name}.zip")
    if place == "kaggle" and not archive.is_relative_to(Path.cwd().resolve()):
        raise InputError(f"{shown(folder)} lies outside the current folder, and only files below it can be linked to: copy it "
                         "there first (on Kaggle: below /kaggle/working)")
    try:
        # Weights do not compress.
        with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as pack:
            for name in _sizes(folder):
                pack.write(folder / name, f"{folder.name}/{name}")
    except OSError as error:
        raise InputError(f"{shown(archive)} cannot be written ({error.strerror}): copy the checkpoint to a folder that can be "
                         "written to, and with room") from error
    return archive


def _kaggle_handle(handle: str, kind: str) -> str:
    parts = handle.split("/")
    if kind == "model" and len(parts) == 2:
        parts += ["pyTorch", "default"]
    if len(parts) != {"model": 4, "dataset": 2}[kind] or not all(parts):
        wanted = {"model": "OWNER/MODEL or OWNER/MODEL/FRAMEWORK/VARIATION", "dataset": "OWNER/DATASET"}[kind]
        raise InputError(f"handle={handle!r} is not a {kind}'s: give {wanted}, without a version")
    return "/".join(parts)


def _publish(repo_id: str, upload: Callable[[], object], token: object = None) -> object:
    """upload(), with errors that say what to do."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"repo_id={repo_id!r} is no name of the hub: give OWNER/NAME") from error
    if not token and not huggingface_hub.get_token():
        raise InputError(
            "nobody is logged in to the Hugging Face hub: make a token that may write at huggingface.co/settings/tokens, and "
            "set it as HF_TOKEN (Colab: among the secrets, the key symbol on the left), or call huggingface_hub.login()"
        )
    _reach(HUB, repo_id)
    try:
        return upload()
    except HfHubHTTPError as error:
        raise InputError(f"the Hugging Face hub refuses {repo_id} ({_reason(error)}): may this token write there?") from error


def _reach(url: str, name: str) -> None:
    try:
        require_network(url, what=name, instead=_INSTEAD)
    except OfflineError as error:  # which speaks of downloading
        raise OfflineError(f"{name} cannot be uploaded: {url.split('/')[2]} cannot be reached. {_INSTEAD}") from error


def _from_cache(name: str, cached: bool) -> bool:
    """Whether to take the cached copy: where the hub cannot be asked for a newer one."""
    if constants.HF_HUB_OFFLINE:
        return True
    try:
        require_network(HUB, what=f"the captioner {name!r}", instead="Give a checkpoint's folder instead of the name.")
    except OfflineError:
        if not cached:
            raise
        return True
    return False


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    return getattr(error, "server_message", None) or (f"status {answer.status_code}" if answer is not None else "not a name")
