"""Small stand-ins in the true formats: a CLIP archive, a GPT-2 folder, a folder of captioned pictures."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

SENTENCES = [f"A {colour} {thing} {place}." for colour in ("red", "blue", "green") for thing in ("dog", "car", "kite")
             for place in ("in the park", "on the beach", "near a big house")]


def make_clip(path: Path, seed: int = 0, embed_dim: int = 64, resnet: bool = False, context_length: int = 32, **sizes) -> Path:
    """A random CLIP of OpenAI's class in OpenAI's file format (TorchScript, fp16): a ViT or a ModifiedResNet.

    sizes: those of its image tower, where they are to be others, as clip.model.CLIP names them.
    """
    import torch

    from helpers.data.encoders import clip
    from helpers.pretrain import save_clip

    torch.manual_seed(seed)
    visual = {"image_resolution": 32, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 16}
    if resnet:
        visual = {"image_resolution": 64, "vision_layers": (1, 1, 1, 1), "vision_width": 4, "vision_patch_size": None}
    net = clip.model.CLIP(
        embed_dim=embed_dim, **(visual | sizes),
        context_length=context_length, vocab_size=49_408, transformer_width=64, transformer_heads=1, transformer_layers=1,
    )  # fmt: skip
    with torch.no_grad():
        net.token_embedding.weight[1000:-2] = 0  # compresses away
    save_clip(net.eval(), path)
    return path


def make_gpt2(folder: Path, width: int = 64) -> Path:
    """A random GPT-2 and a byte-pair tokenizer, written by save_pretrained()."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    end = "<|endoftext|>"
    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(SENTENCES, vocab_size=330, special_tokens=[end], show_progress=False)
    tokenizer = GPT2TokenizerFast(tokenizer_object=pairs._tokenizer, bos_token=end, eos_token=end, unk_token=end)
    torch.manual_seed(0)
    sizes = GPT2Config(vocab_size=len(tokenizer), n_embd=width, n_layer=2, n_head=2, n_positions=64,
                       bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    GPT2LMHeadModel(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_photos(folder: Path, count: int = 20) -> Path:
    """Flickr8k's layout: Images/, captions.txt, and the official lists (60 % train, 20 % val, 20 % test)."""
    from PIL import Image

    (folder / "Images").mkdir(parents=True)
    draw = random.Random(0)
    names = [f"{1000 + n}_photo.jpg" for n in range(count)]
    with open(folder / "captions.txt", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for name in names:
            colour = tuple(draw.randrange(256) for _ in range(3))
            Image.new("RGB", (48, 40), colour).save(folder / "Images" / name)
            rows.writerows([name, sentence] for sentence in draw.sample(SENTENCES, 5))
    cuts = {"train": names[: count * 3 // 5], "dev": names[count * 3 // 5 : count * 4 // 5], "test": names[count * 4 // 5 :]}
    for split, listed in cuts.items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.pt")


@pytest.fixture(scope="session")
def resnet_file(tmp_path_factory) -> Path:
    """Its grid has 2 x 2 cells of 128 channels."""
    return make_clip(tmp_path_factory.mktemp("clip") / "resnet.pt", resnet=True)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory) -> Path:
    """BERT's tokenizer, made of SENTENCES."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(SENTENCES * 3, vocab_size=200, show_progress=False)
    BertTokenizerFast(tokenizer_object=pieces._tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory) -> Path:
    return make_gpt2(tmp_path_factory.mktemp("gpt2") / "gpt2")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "flickr8k")
