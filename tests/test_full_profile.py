"""The full profile's path with stand-ins in the true formats: CLIP by its name, GPT-2 from the hub's cache; and offline."""

import hashlib
import os
import shutil
import time

import pytest
from huggingface_hub import constants

from helpers import hub
from helpers.data.encoders import clip, load_clip
from helpers.data.tokens import load_tokens
from helpers.environment import find_precision, require_network, setup
from helpers.errors import InputError, OfflineError

NOWHERE = "http://127.0.0.1:9/"  # the discard port: refused at once


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home: no cached CLIP, no cached hub."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def test_clip_by_name_is_downloaded_checked_and_loaded(home, clip_file, monkeypatch):
    """clip.load's own download, from a file: URL whose folder is the file's SHA-256, as OpenAI's are."""
    digest = hashlib.sha256(clip_file.read_bytes()).hexdigest()
    served = home.parent / "served" / digest / "ViT-B-32.pt"
    served.parent.mkdir(parents=True)
    shutil.copy(clip_file, served)
    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/32", served.as_uri())
    encoder = load_clip("ViT-B/32")
    assert encoder.dim == 64 and encoder.fingerprint == load_clip(clip_file).fingerprint
    assert (home / ".cache" / "clip" / "ViT-B-32.pt").is_file()
    shutil.rmtree(served.parent)
    assert load_clip("ViT-B/32").dim == 64, "the second time it comes from the cache"


def test_gpt2_by_name_comes_from_the_hubs_cache(home, gpt2_folder):
    cached = home.parent / "hub" / "models--gpt2"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(gpt2_folder, cached / "snapshots" / ("0" * 40))
    assert hub.locate("gpt2", what="language model")["local_files_only"]
    assert hub.load_language_model("gpt2").config.n_embd == 64
    assert len(load_tokens("gpt2")) > 256


def test_offline_is_said_within_two_seconds_with_the_way_out(home, monkeypatch):
    monkeypatch.setattr(hub, "HUB", NOWHERE)
    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/32", NOWHERE + "digest/ViT-B-32.pt")
    start = time.perf_counter()
    with pytest.raises(OfflineError, match=r"language model 'gpt2'.*--language-model DIR.*data/tiny/gpt2"):
        hub.load_language_model("gpt2")
    with pytest.raises(OfflineError, match=r"CLIP ViT-B/32.*~/\.cache/clip/ViT-B-32\.pt.*--clip FILE"):
        load_clip("ViT-B/32")
    assert time.perf_counter() - start < 4


def test_a_network_that_never_answers_takes_two_seconds_at_most():
    """A listening port that accepts nobody's request."""
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        start = time.perf_counter()
        with pytest.raises(OfflineError):
            require_network(f"http://127.0.0.1:{server.getsockname()[1]}/", what="It", instead="")
        assert time.perf_counter() - start < 2


def test_a_folder_that_is_no_model(tmp_path, gpt2_folder):
    with pytest.raises(InputError, match="holds no config"):
        hub.load_language_model(tmp_path)
    shutil.copy(gpt2_folder / "config.json", tmp_path)
    with pytest.raises((InputError, OSError, ValueError)):  # no tokenizer files at all
        load_tokens(tmp_path)


def test_setup_by_argument_variable_and_profile(monkeypatch, tmp_path, capsys):
    assert setup("03_clipcap").dataset == "scenes"
    assert "minutes to expect" in capsys.readouterr().out
    monkeypatch.setenv("CAPTIONING_PROFILE", "full")
    monkeypatch.setenv("CAPTIONING_DATASET", "flickr30k")
    monkeypatch.setenv("CAPTIONING_DATA_DIR", str(tmp_path))
    run = setup("03_clipcap", clip="ViT-L/14", verbose=False)
    assert (run.profile, run.dataset, run.data_dir) == ("full", "flickr30k", tmp_path.resolve())
    assert (run.clip, run.language_model) == ("ViT-L/14", "gpt2")
    with pytest.raises(InputError, match="profile 'huge' is not known"):
        setup("03_clipcap", profile="huge")
    with pytest.raises(InputError, match="no parameter cilp"):
        setup("03_clipcap", cilp="x")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"device 'cuda': there is no GPU here: leave it out, or cpu"):
        setup("03_clipcap", device="cuda")
    monkeypatch.setenv("CAPTIONING_SEED", "x")
    with pytest.raises(InputError, match=r"seed 'x' is no whole number.*CAPTIONING_SEED"):
        setup("03_clipcap")


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")])
def test_precision_goes_by_capability(monkeypatch, capability, precision):
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert find_precision("cuda") == precision
    assert find_precision("cpu") == "32-true"


@pytest.mark.skipif(not os.environ.get("CAPTIONING_FLICKR8K_DIR"), reason="CAPTIONING_FLICKR8K_DIR names no folder of photos")
def test_clipcap_trains_on_real_photos(tmp_path, capsys):
    """A few photos, the shipped backbones: trains, saves, reloads, captions."""
    from helpers import caption, train

    folder = os.environ["CAPTIONING_FLICKR8K_DIR"]
    arguments = ["--dataset", "flickr8k", "--data-dir", folder, "--limit", "64", "--epochs", "1", "--out", str(tmp_path)]
    assert train.main(["clipcap", *arguments]) == 0
    photos = sorted(os.listdir(os.path.join(folder, "Images")))[:2]
    files = [os.path.join(folder, "Images", photo) for photo in photos]
    capsys.readouterr()
    assert caption.main(["-f", *files, "--checkpoint", str(tmp_path / "checkpoint")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
