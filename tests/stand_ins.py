"""Stand-ins for all that the full profile downloads: drawn or random and small, but under the true names, in the true layouts.

    folder = make(tmp_path)         # what Kaggle, OpenAI, the Hugging Face hub and PyTorch would serve
    environment(folder, work_dir)   # variables for a process that is to find them
    install(folder)                 # inside that process: the downloads fetch these files

Downloads themselves go on being made by the libraries that make them, from file: addresses, with their checksums.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import tarfile
from functools import partial
from itertools import cycle
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = 100
BROKEN_ROW = "2199200615.jpg| 4   A dog runs across the grass ."  # as in Flickr30k's results.csv
# OpenAI's architectures at the smallest width that clip.load can read, with their true patches and grids.
CLIPS = {
    "ViT-B/32": {"image_resolution": 224, "vision_layers": 12, "vision_width": 64, "vision_patch_size": 32},
    # Shallower, for notebook 04 covers each of its 196 patches in turn.
    "ViT-B/16": {"image_resolution": 224, "vision_layers": 3, "vision_width": 64, "vision_patch_size": 16},
    "RN50": {"image_resolution": 224, "vision_layers": (3, 4, 6, 3), "vision_width": 4, "vision_patch_size": None},
}
GPT2 = {"n_embd": 96, "n_layer": 4, "n_head": 12, "n_positions": 1024}
BERT = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12}
ROBERTA = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 24, "num_attention_heads": 16,
           "max_position_embeddings": 514}  # fmt: skip
DISTILBERT = {"dim": 96, "hidden_dim": 384, "n_layers": 6, "n_heads": 12, "max_position_embeddings": 512}
RESNET_WIDTH, RESNET_PIXELS = 4, 96  # torchvision's ResNet50 has 64 and 224: narrower inside its blocks, not fewer of them
CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# What the full presets are cut down to: enough for each phase to be entered, and for captions that have words.
SHORT = {
    "clipcap": ({"epochs": 2, "learning_rate": 3e-3}, {}),
    "decoder": ({"epochs": 4, "unfreeze_epoch": 3, "batch_size": 16, "learning_rate": 3e-3}, {"width": 64}),
    "cross-attention": ({"epochs": 4, "batch_size": 8, "learning_rate": 3e-3}, {}),
    "dual-encoder": ({"epochs": 2}, {}),
}


def make(folder: Path) -> Path:
    """Write them all into `folder`, in a few seconds, and return it."""
    _make_datasets(folder / "kaggle")
    _make_hub(folder / "hub")
    clips = {name: _serve_by_hash(_make_clip(folder, name), name.replace("/", "-") + ".pt") for name in CLIPS}
    served = {"clip": clips, "resnet50": _make_resnet(folder), "cifar10": _make_cifar(folder)}
    (folder / "served.json").write_text(json.dumps(served), encoding="utf-8")
    startup = folder / "startup" / "sitecustomize.py"  # which Python imports when it starts
    startup.parent.mkdir()
    startup.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests import stand_ins\nstand_ins.install({str(folder)!r})\n",
        encoding="utf-8",
    )
    return folder


def environment(folder: Path, work_dir: Path) -> dict[str, str]:
    """The variables of a process that uses the full profile and is served from `folder`; it writes below `work_dir`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("CAPTIONING_", "KAGGLE", "HF_"))}
    return ours | {
        "CAPTIONING_PROFILE": "full",
        "CAPTIONING_DEVICE": "cpu",
        "CAPTIONING_PROGRESS": "0",
        "CAPTIONING_WORK_DIR": str(work_dir),
        "HOME": str(work_dir / "home"),  # caches of earlier downloads
        "TORCH_HOME": str(work_dir / "home" / "torch"),
        "KAGGLEHUB_CACHE": str(work_dir / "home" / "kagglehub"),
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "CAPTIONING_SPICE_JARS": str(folder / "no jars"),  # SPICE would take longer than all else
        "PYTHONPATH": str(folder / "startup"),
    }


def install(folder: str | Path) -> None:
    """Let every download of this process be served from `folder`, and shorten the full profile's training."""
    folder = Path(folder)
    from helpers import disk, environment

    # Before anybody imports them: a file: address needs no network, and no stand-in as much room as the true dataset.
    environment.require_network = lambda *_, **__: None
    disk.free_bytes = lambda _: 10**12
    import kagglehub
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import extract_archive
    from torchvision.models.resnet import ResNet50_Weights, resnet50

    from helpers import recipes
    from helpers.data.encoders import clip
    from helpers.models import towers

    kagglehub.dataset_download = partial(_serve, folder / "kaggle")
    served = json.loads((folder / "served.json").read_text(encoding="utf-8"))
    clip.clip._MODELS.update(served["clip"])
    ResNet50_Weights.IMAGENET1K_V2.value.url = served["resnet50"]
    towers.ARCHITECTURES["resnet50"] = partial(resnet50, width_per_group=RESNET_WIDTH)
    towers.RESOLUTIONS["resnet50"] = RESNET_PIXELS
    for name, value in served["cifar10"].items():
        setattr(CIFAR10, name, value)
    CIFAR10.download = lambda reader: extract_archive(folder / CIFAR10.filename, reader.root)  # which wants http:
    for system, (settings, sizes) in SHORT.items():
        recipes.PRESETS[system]["full"][0].update(settings)
        recipes.PRESETS[system]["full"][1].update(sizes)


def _serve(datasets: Path, slug: str) -> str:
    """kagglehub.dataset_download: the folder that holds the dataset."""
    if not (datasets / slug).is_dir():
        raise ValueError(f"there is no stand-in for the Kaggle dataset {slug}")
    return str(datasets / slug)


def _make_datasets(kaggle: Path) -> None:
    """Drawn scenes as Flickr8k, as Flickr30k, as COCO with Karpathy's splits; each with other pictures."""
    pictures = _draw(kaggle.with_name("drawn"))
    eight, thirty, coco = (pictures[n::3] for n in range(3))

    root = kaggle / "adityajn105" / "flickr8k"
    names = {f"{1000268201 + n}_{n:010x}.jpg": pair for n, pair in enumerate(eight)}
    _place(root / "Images", names)
    with open(root / "captions.txt", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows((name, f"{caption[:-1]} .") for name, (_, five) in names.items() for caption in five)

    root = kaggle / "hsankesara" / "flickr-image-dataset" / "flickr30k_images"
    names = {f"{1000092795 + n}.jpg": pair for n, pair in enumerate(thirty[1:])} | {"2199200615.jpg": thirty[0]}
    _place(root / "flickr30k_images", names)
    lines = [f"{name}| {n}| {five[n][:-1]} ." for name, (_, five) in names.items() for n in range(5)]
    lines[-1] = BROKEN_ROW
    (root / "results.csv").write_text("\n".join(["image_name| comment_number| comment", *lines, ""]), encoding="utf-8")

    root = kaggle / "awsaf49" / "coco-2017-dataset" / "coco2017"
    (root / "annotations").mkdir(parents=True)
    cut = len(coco) * 4 // 5
    splits = {"train": dict(enumerate(coco[:cut], start=9)), "val": dict(enumerate(coco[cut:], start=139))}
    for split, numbered in splits.items():
        _place(root / f"{split}2017", {f"{number:012d}.jpg": pair for number, pair in numbered.items()})
        images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in numbered]
        notes = [{"id": 10 * number + k, "image_id": number, "caption": five[k]} for k in range(5)
                 for number, (_, five) in numbered.items()]  # fmt: skip
        content = json.dumps({"images": images, "annotations": notes})
        (root / "annotations" / f"captions_{split}2017.json").write_text(content, encoding="utf-8")

    # Karpathy's splits of COCO cut across those of 2017, and name the files as they were called in 2014.
    everything = splits["train"] | splits["val"]
    chosen = dict(zip(everything, cycle(("train", "restval", "train", "val", "test")), strict=False))
    images = [{"filepath": "val2014", "filename": f"COCO_val2014_{number:012d}.jpg", "split": chosen[number],
               "sentences": [{"raw": caption} for caption in five]} for number, (_, five) in everything.items()]  # fmt: skip
    path = kaggle / "shtvkumar" / "karpathy-splits" / "dataset_coco.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "dataset": "coco"}), encoding="utf-8")


def _draw(folder: Path) -> list[tuple[Path, list[str]]]:
    """Pictures with five captions each, enough for three datasets."""
    from helpers.data.scenes import make_scenes

    make_scenes(folder, counts={"train": 3 * PICTURES}, workers=1, progress=False)
    with open(folder / "captions.txt", newline="", encoding="utf-8") as file:
        said: dict[str, list[str]] = {}
        for row in csv.DictReader(file):
            said.setdefault(row["image"], []).append(row["caption"])
    return [(folder / "Images" / name, five) for name, five in said.items()]


def _place(folder: Path, names: dict[str, tuple[Path, list[str]]]) -> None:
    folder.mkdir(parents=True)
    for name, (picture, _) in names.items():
        os.link(picture, folder / name)


def _make_clip(folder: Path, name: str) -> Path:
    from tests.conftest import make_clip

    path = folder / (name.replace("/", "-") + ".pt")
    return make_clip(path, resnet=name.startswith("RN"), context_length=77, **CLIPS[name])


def _serve_by_hash(file: Path, name: str) -> str:
    """The address of a file under its SHA-256, by which clip.load checks it."""
    served = file.parent / "openai" / hashlib.sha256(file.read_bytes()).hexdigest() / name
    served.parent.mkdir(parents=True)
    return file.rename(served).as_uri()


def _make_hub(hub: Path) -> None:
    """The hub's cache, which is what a download leaves: random weights, with the tokenizers of data/tiny."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    for name, shipped, make, config, sizes in (
        ("gpt2", "gpt2", t.GPT2LMHeadModel, t.GPT2Config, GPT2),
        ("bert-base-uncased", "bert", t.BertModel, t.BertConfig, BERT),
        ("distilbert-base-uncased", "bert", t.DistilBertModel, t.DistilBertConfig, DISTILBERT),
        ("roberta-large", "bert", t.RobertaModel, t.RobertaConfig, ROBERTA),  # its own tokenizer does not matter here
    ):
        cached, commit = hub / f"models--{name}", "0" * 40
        tokenizer = t.AutoTokenizer.from_pretrained(ROOT / "data" / "tiny" / shipped)
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        make(config(vocab_size=len(tokenizer), **ids, **sizes)).save_pretrained(cached / "snapshots" / commit)
        tokenizer.save_pretrained(cached / "snapshots" / commit)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(commit, encoding="utf-8")


def _make_resnet(folder: Path) -> str:
    """The address of ResNet50's weights, with the beginning of their SHA-256 in the name, as torch.hub wants it."""
    import torch
    from torchvision.models.resnet import resnet50

    path = folder / "resnet50.pth"
    torch.save(resnet50(width_per_group=RESNET_WIDTH).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(folder / f"resnet50-{digest[:8]}.pth").as_uri()


def _make_cifar(folder: Path) -> dict[str, object]:
    """CIFAR-10's archive with few pictures in it; the attributes of torchvision's reader, with the checksums of these."""
    from torchvision.datasets import CIFAR10

    from helpers.data import cifar

    inside = folder / CIFAR10.base_folder
    inside.mkdir()
    for name, content in cifar._files(cifar.RECIPE | {"train": 50, "test": 100}):
        content = content | {"label_names": list(CIFAR_NAMES)} if name == CIFAR10.meta["filename"] else content
        (inside / name).write_bytes(pickle.dumps(content, protocol=2))
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as packed:
        packed.add(inside, arcname=CIFAR10.base_folder)

    def sum_of(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()

    listed = {"train_list": CIFAR10.train_list, "test_list": CIFAR10.test_list}
    sums = {files: [[name, sum_of(inside / name)] for name, _ in pairs] for files, pairs in listed.items()}
    return sums | {"meta": CIFAR10.meta | {"md5": sum_of(inside / CIFAR10.meta["filename"])}}
