"""Checkpoints on their way out. The clients are the real ones; only what would go over the network is caught."""

import io
import json
import shutil
import sys
import time
import types
import zipfile
from pathlib import Path

import huggingface_hub
import kagglehub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from helpers import share
from helpers.captioner import Captioner
from helpers.checkpoints import load_captioner, read_config, save_captioner
from helpers.data.encoders import load_clip
from helpers.data.tokens import load_tokens
from helpers.environment import ROOT
from helpers.errors import InputError, OfflineError
from helpers.hub import load_language_model
from helpers.models.clipcap import ClipCap
from helpers.share import HubCaptioner, copy_for_others, offer_download, to_hub, to_kaggle

TINY = {"clip": "data/tiny/clip-vit.pt", "language_model": "data/tiny/gpt2"}
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def captioner():
    """On the project's own small backbones, which every checkout has."""
    torch.manual_seed(0)
    encoder, tokens = load_clip(TINY["clip"]), load_tokens(TINY["language_model"])
    model = ClipCap.build(encoder.dim, load_language_model(TINY["language_model"]), prefix_length=4, layers=1, heads=2)
    return Captioner(encoder, tokens, model.eval(), dict(TINY))


@pytest.fixture
def folder(captioner, tmp_path):
    return save_captioner(captioner, tmp_path / "work" / "checkpoint", training={"dataset": "scenes", "pictures": 12})


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(share, "require_network", lambda *_, **__: None)


@pytest.fixture
def offline(monkeypatch):
    """The real look at the network, with nobody there."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: time.sleep(30) or io.BytesIO())


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# --- download


def test_the_zip_holds_the_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    archive = offer_download(folder, "local")
    assert capsys.readouterr().out == "work/checkpoint.zip\n" and archive == tmp_path / "work" / "checkpoint.zip"
    zipfile.ZipFile(archive).extractall(tmp_path / "again")
    assert contents(tmp_path / "again" / "checkpoint") == contents(folder)


def test_kaggle_shows_a_relative_link(folder, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.chdir(tmp_path)
    offer_download(folder, "kaggle")
    assert "href='work/checkpoint.zip'" in shown[0]._repr_html_()  # and the file is there, else it is an error message
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="outside the current folder"):
        offer_download(folder, "kaggle")


def test_colab_starts_the_download(folder, monkeypatch):
    asked = []
    files = types.SimpleNamespace(download=asked.append)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))
    assert offer_download(folder) == Path(asked[0]), "and the place is found out"
    assert zipfile.ZipFile(asked[0]).testzip() is None


def test_an_interrupted_zip_leaves_the_old_one(folder, monkeypatch):
    archive = offer_download(folder, "local")
    before = archive.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        offer_download(folder, "local")
    assert archive.read_bytes() == before and len(list(folder.parent.iterdir())) == 2


def test_what_is_no_checkpoint_is_refused(tmp_path):
    for send in (lambda: offer_download(tmp_path), lambda: to_kaggle(tmp_path, "ann/c"), lambda: to_hub(tmp_path, "ann/c")):
        with pytest.raises(InputError, match="is not a checkpoint"):
            send()


# --- the copy that is published


def test_the_copy_names_no_place_on_this_machine(folder, tmp_path, photos):
    assert read_config(folder)["clip"]["name"].startswith(".."), "a path through this machine"
    copy = copy_for_others(folder, tmp_path / "copy")
    assert {key: read_config(copy)[key]["name"] for key in TINY} == TINY
    assert sorted(contents(copy)) == FILES and str(ROOT) not in (copy / "README.md").read_text()
    picture = [next((photos / "Images").iterdir())]
    assert load_captioner(copy).caption(picture) == load_captioner(folder).caption(picture)


def test_backbones_outside_the_project_keep_their_last_name_only(folder, tmp_path):
    shutil.copytree(ROOT / TINY["language_model"], tmp_path / "ann" / "words")
    config = read_config(folder)
    config["language_model"]["name"] = "../../ann/words"
    (folder / "config.json").write_text(json.dumps(config))
    copy = copy_for_others(folder, tmp_path / "copy")
    assert read_config(copy)["language_model"]["name"] == "./words"
    assert load_captioner(copy, language_model=str(tmp_path / "ann" / "words"))
    with pytest.raises(InputError, match="words does not exist"):
        load_captioner(copy)


def test_names_of_hubs_and_a_readme_of_ones_own_stay(folder, tmp_path):
    config = read_config(folder)
    config["language_model"]["name"], config["clip"]["name"] = "gpt2", "ViT-B/32"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("mine")
    (folder / ".secret").write_text("hidden")
    copy = copy_for_others(folder, tmp_path / "copy")
    assert read_config(copy) == config
    assert sorted(contents(copy)) == FILES and (copy / "README.md").read_text() == "mine"


# --- Kaggle


@pytest.fixture
def kaggle(monkeypatch, tmp_path, online):
    """What kagglehub would have sent: the bytes of each file by name, and the requests by their class."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a-token")
    sent: dict = {"files": {}, "requests": {}}

    def upload(file_path, item_type, **_):
        sent["files"][Path(file_path).name] = Path(file_path).read_bytes()
        return f"token of {Path(file_path).name}"

    def mutate(call, *_):
        return call()

    class Api:
        def __getattr__(self, name):
            return lambda request: sent["requests"].__setitem__(name, request)

    class Client:
        models = types.SimpleNamespace(model_api_client=Api())
        datasets = types.SimpleNamespace(dataset_api_client=Api())

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("kagglehub.gcs_upload._upload_blob", lambda path, kind: upload(path, kind))
    for module in ("models_helpers", "datasets_helpers"):
        monkeypatch.setattr(f"kagglehub.{module}.build_kaggle_client", Client)
        monkeypatch.setattr(f"kagglehub.{module}.handle_mutate_call", mutate)
    return sent


def test_a_model_goes_to_kaggle(folder, kaggle):
    assert to_kaggle(folder, "ann/captioner", message="first") == "ann/captioner/pyTorch/default"
    assert sorted(kaggle["files"]) == FILES
    assert kaggle["files"]["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert json.loads(kaggle["files"]["config.json"])["clip"]["name"] == TINY["clip"]
    made = kaggle["requests"]["create_model_instance"]
    assert (made.owner_slug, made.model_slug, made.body.instance_slug) == ("ann", "captioner", "default")
    assert made.body.license_name == "MIT" and len(made.body.files) == 3


def test_a_dataset_goes_to_kaggle(folder, kaggle):
    assert to_kaggle(folder, "ann/captioner", kind="dataset") == "ann/captioner"
    assert sorted(kaggle["files"]) == FILES
    made = kaggle["requests"]["create_dataset"]
    assert (made.owner_slug, made.slug, made.is_private) == ("ann", "captioner", True)


def test_kaggle_says_what_is_missing(folder, monkeypatch, online):
    for options in ({"handle": "captioner"}, {"handle": "ann/a/b"}, {"handle": "ann/c/pyTorch/default/1"},
                    {"handle": "ann/", "kind": "dataset"}, {"handle": "ann/c/1", "kind": "dataset"}):  # fmt: skip
        with pytest.raises(InputError, match="handle="):
            to_kaggle(folder, **options)
    with pytest.raises(InputError, match="kind='file'"):
        to_kaggle(folder, "ann/c", kind="file")
    monkeypatch.setattr("kagglehub.config.get_kaggle_credentials", lambda: None)
    with pytest.raises(InputError, match="KAGGLE_API_TOKEN"):
        to_kaggle(folder, "ann/c")


def test_kaggle_refuses_or_cannot_be_reached(folder, monkeypatch, kaggle):
    import requests

    def answer(error):
        def upload(*_, **__):
            raise error

        monkeypatch.setattr(kagglehub, "model_upload", upload)

    answer(requests.HTTPError("403 Client Error"))
    with pytest.raises(InputError, match="refuses the model ann/c/pyTorch/default: 403"):
        to_kaggle(folder, "ann/c")
    answer(requests.ConnectionError("https://host/secret"))
    with pytest.raises(OfflineError, match=r"broke off.*offer_download") as caught:
        to_kaggle(folder, "ann/c")
    assert "secret" not in str(caught.value)


def test_kaggle_offline(folder, monkeypatch, offline):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a-token")
    start = time.perf_counter()
    with pytest.raises(OfflineError, match=r"cannot be uploaded: www\.kaggle\.com cannot be reached"):
        to_kaggle(folder, "ann/c")
    assert time.perf_counter() - start < 2


# --- the Hugging Face hub


@pytest.fixture
def hub(monkeypatch, tmp_path, online):
    """A hub on disk: what upload_folder is given is kept, and given out again by the two ways of downloading."""
    monkeypatch.setenv("HF_TOKEN", "a-token")
    kept: dict = {}

    def create_repo(self, repo_id, **options):
        kept[repo_id] = {"options": options}
        return types.SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, **_):
        kept[repo_id]["folder"] = shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
        return f"https://huggingface.co/{repo_id}/commit/1"

    def find(repo_id):
        if repo_id not in kept:
            raise missing()
        return kept[repo_id]["folder"]

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download",
                        lambda repo_id, filename, **_: str(find(repo_id) / filename))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo_id, **_: str(find(repo_id)))
    return kept


def missing() -> RepositoryNotFoundError:
    answer = types.SimpleNamespace(status_code=404, headers={}, request=None)  # of whichever client the hub's library uses
    return RepositoryNotFoundError("not there", response=answer)


def test_a_folder_goes_to_the_hub(folder, hub):
    assert to_hub(folder, "ann/captioner") == "https://huggingface.co/ann/captioner/commit/1"
    sent = contents(hub["ann/captioner"]["folder"])
    assert hub["ann/captioner"]["options"]["private"] is True
    assert sorted(sent) == FILES and sent["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert json.loads(sent["config.json"])["training"] == {"dataset": "scenes", "pictures": 12}
    assert huggingface_hub.ModelCard(sent["README.md"].decode()).data.license == "mit"


def test_push_to_hub_and_from_pretrained(captioner, hub, photos):
    HubCaptioner(captioner).push_to_hub("ann/captioner", private=True)
    assert sorted(contents(hub["ann/captioner"]["folder"])) == FILES
    picture = [next((photos / "Images").iterdir())]
    again = HubCaptioner.from_pretrained("ann/captioner")
    assert again.caption(picture, max_new_tokens=6) == captioner.caption(picture, max_new_tokens=6)
    again.push_to_hub("ann/again")  # and goes out again as it came in
    assert contents(hub["ann/again"]["folder"]) == contents(hub["ann/captioner"]["folder"])


def test_save_pretrained_and_from_a_folder(captioner, tmp_path, photos):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    HubCaptioner(captioner).save_pretrained(tmp_path / "saved")
    assert sorted(contents(tmp_path / "saved")) == [*FILES, "notes.txt"]
    again = HubCaptioner.from_pretrained(tmp_path / "saved", language_model=str(ROOT / TINY["language_model"]))
    picture = [next((photos / "Images").iterdir())]
    assert again.caption(picture, max_new_tokens=6) == captioner.caption(picture, max_new_tokens=6)


def test_the_hub_says_what_is_missing(folder, hub, captioner, monkeypatch):
    with pytest.raises(InputError, match=r"ann/nothing.*\(status 404\)"):
        HubCaptioner.from_pretrained("ann/nothing")
    for name in ("./nowhere", "no where", "a/b/c"):
        with pytest.raises(InputError, match="neither a folder nor"):
            HubCaptioner.from_pretrained(name)
    with pytest.raises(InputError, match="repo_id='a b' is no name"):
        to_hub(folder, "a b")

    def refused(*_, **__):
        raise missing()

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refused)
    for send in (lambda: to_hub(folder, "ann/c"), lambda: HubCaptioner(captioner).push_to_hub("ann/c")):
        with pytest.raises(InputError, match="refuses ann/c"):
            send()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match="HF_TOKEN"):
        to_hub(folder, "ann/c")


def test_the_hub_offline(folder, captioner, monkeypatch, offline):
    monkeypatch.setenv("HF_TOKEN", "a-token")
    for send in (lambda: to_hub(folder, "ann/c"), lambda: HubCaptioner(captioner).push_to_hub("ann/c"),
                 lambda: HubCaptioner.from_pretrained("ann/c")):  # fmt: skip
        start = time.perf_counter()
        with pytest.raises(OfflineError, match=r"huggingface\.co cannot be reached"):
            send()
        assert time.perf_counter() - start < 2


def test_without_a_network_the_cached_copy_is_taken(captioner, hub, monkeypatch, offline):
    HubCaptioner(captioner).push_to_hub("ann/captioner")
    copy = hub["ann/captioner"]["folder"]
    asked = []
    monkeypatch.setattr(share, "require_network", lambda *_, **__: (_ for _ in ()).throw(OfflineError("nobody there")))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(copy / "model.safetensors"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda *_, local_files_only, **__: asked.append(local_files_only) or str(copy))
    assert HubCaptioner.from_pretrained("ann/captioner") and asked == [True]

    def nothing(*_, **__):
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", nothing)
    with pytest.raises(OfflineError, match="not in the hub's cache"):
        HubCaptioner.from_pretrained("ann/captioner", local_files_only=True)
