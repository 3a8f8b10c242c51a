"""Make data/tiny: small CLIPs, a small GPT-2 and tokenizers pretrained on drawn scenes, and captioners trained on top.

    python -m helpers.pretrain                          # all parts into data/tiny, about 13 minutes on 2 cores
    python -m helpers.pretrain clip-rn bert decoder     # these parts only
    python -m helpers.pretrain --out DIR --share 0.02

The classes and the files are the real ones: `clip.model.CLIP`, with a ViT and with a ModifiedResNet, in TorchScript archives
that `clip.load` reads, as OpenAI ships them; `GPT2LMHeadModel`, `GPT2TokenizerFast` and `BertTokenizerFast` in folders
written by save_pretrained(). Only scenes of the training kind are used: the test split's held-out combinations are never
drawn here, nor said.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
import zipfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers.data.scenes import scene_stream
from helpers.environment import TINY, progress, provenance, quiet_libraries, seed_everything
from helpers.files import atomic_path, write_json
from helpers.models.dual_encoder import info_nce


@dataclass(frozen=True)
class Recipe:
    """How much of everything. `scaled` shrinks the amounts, for a rehearsal of the same code."""

    pictures: int = 12_000
    clip_epochs: int = 5
    clip_batch: int = 32  # small batches: more steps in the same minutes, and these decide
    clip_rate: float = 2e-3
    captions: int = 5_500  # pictures whose five captions the language model reads
    language_epochs: int = 1
    language_batch: int = 8
    language_rate: float = 7e-3
    vocabulary: int = 1_000
    captioner_pictures: int = 2_000  # of the scenes' train split: all
    seed: int = 20_000

    def scaled(self, share: float) -> Recipe:
        return replace(
            self,
            pictures=max(256, int(self.pictures * share)),
            captions=max(256, int(self.captions * share)),
            captioner_pictures=max(64, int(self.captioner_pictures * share)),
        )


# OpenAI's architecture at a small width. Heads must be width // 64: clip.load derives them so.
CLIP_SIZES = dict(
    embed_dim=256, image_resolution=96, vision_layers=4, vision_width=128, vision_patch_size=12,
    context_length=24, vocab_size=49_408, transformer_width=128, transformer_heads=2, transformer_layers=1,
)  # fmt: skip
# A ModifiedResNet, whose grid of 4 x 4 cells a decoder can look at.
CLIP_RN_SIZES = dict(
    embed_dim=256, image_resolution=128, vision_layers=(1, 1, 1, 1), vision_width=16, vision_patch_size=None,
    context_length=24, vocab_size=49_408, transformer_width=128, transformer_heads=2, transformer_layers=1,
)  # fmt: skip
GPT2_SIZES = dict(n_embd=128, n_layer=4, n_head=4, n_positions=128)


def draw_pictures(recipe: Recipe, resolution: int) -> tuple[np.ndarray, list[list[str]]]:
    """Scenes of the training kind as CLIP sees them: uint8 (N, R, R, 3), and their captions."""
    chunk = 250
    jobs = [(recipe.seed + n, min(chunk, recipe.pictures - n * chunk), resolution)
            for n in range(-(-recipe.pictures // chunk))]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = list(progress(pool.map(_draw_chunk, jobs), total=len(jobs), desc="drawing"))
    return np.concatenate([pixels for pixels, _ in parts]), [c for _, captions in parts for c in captions]


def _draw_chunk(job: tuple[int, int, int]) -> tuple[np.ndarray, list[list[str]]]:
    from PIL import Image

    from helpers.data.scenes.drawing import draw

    seed, count, resolution = job
    pairs = list(scene_stream(seed, count))
    pixels = [np.asarray(draw(scene).resize((resolution, resolution), Image.Resampling.BICUBIC)) for scene, _ in pairs]
    return np.stack(pixels), [captions for _, captions in pairs]


def pretrain_clip(pixels: np.ndarray, captions: list[list[str]], recipe: Recipe, sizes: dict) -> nn.Module:
    """CLIP from scratch; one caption of each picture's five, drawn anew each epoch, is its text.

    InfoNCE alone learns place and weather first and needs far more pictures to learn who is there, so a head that is thrown
    away later also predicts from the image vector which words the five captions use (text as labels: Huang et al.,
    "Classification Done Right for Vision-Language Pre-Training", 2024, arXiv 2411.03313).
    """
    from helpers.data.encoders import clip

    seed_everything(recipe.seed)
    net = clip.model.CLIP(**sizes).to(memory_format=torch.channels_last)  # twice as fast where it convolves
    ids = torch.stack([clip.tokenize(five, context_length=net.context_length, truncate=True) for five in captions]).long()
    # The few hundred words that occur, in their order (the end token stays the highest, which is how CLIP finds it).
    vocabulary, ids = ids.unique(return_inverse=True)  # ids (N, 5, context)
    net.token_embedding = nn.Embedding.from_pretrained(net.token_embedding.weight[vocabulary].detach(), freeze=False)
    uses = torch.zeros(len(ids), len(vocabulary)).scatter_(1, ids.flatten(1), 1.0)  # (N, words)
    uses = uses[:, uses.mean(dim=0) < 0.9]  # "a", start, end and padding say nothing
    words = nn.Linear(net.visual.output_dim, uses.shape[1])
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))  # CLIP's normalisation
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711))
    steps = recipe.clip_epochs * (len(pixels) // recipe.clip_batch)
    both = nn.ModuleList([net, words])
    optimizers = _optimizers(both, recipe.clip_rate, steps)
    bar = progress(range(recipe.clip_epochs), desc="CLIP")
    for _ in bar:
        order = torch.randperm(len(pixels))
        for rows in order[: steps // recipe.clip_epochs * recipe.clip_batch].split(recipe.clip_batch):
            images = (torch.from_numpy(pixels[rows.numpy()]).float() / 255 - mean) / std  # (B, R, R, 3)
            vectors = net.encode_image(images.permute(0, 3, 1, 2))  # (B, E)
            texts = net.encode_text(ids[rows, torch.randint(ids.shape[1], (len(rows),))])  # (B, E)
            contrast = info_nce(vectors, texts, net.logit_scale.exp().clamp(max=100))
            wanted = uses[rows] / uses[rows].sum(dim=1, keepdim=True)  # (B, words)
            _step(both, contrast + nn.functional.cross_entropy(words(vectors), wanted), optimizers)
        if hasattr(bar, "set_postfix"):
            bar.set_postfix(contrast=f"{contrast.item():.3f}")
    embedding = torch.zeros(sizes["vocab_size"], net.token_embedding.embedding_dim)  # unused words: zeros compress away
    embedding[vocabulary] = net.token_embedding.weight.detach()
    net.token_embedding = nn.Embedding.from_pretrained(embedding)
    return net.eval()


def save_clip(net: nn.Module, path: Path) -> None:
    """Write OpenAI's own format: a TorchScript archive with fp16 weights, here deflated."""
    from helpers.data.encoders import clip

    clip.model.convert_weights(net)
    pixels = torch.zeros(1, 3, net.visual.input_resolution, net.visual.input_resolution).half()
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.simplefilter("ignore")  # tracing is deprecated, and is the format
        traced = torch.jit.trace(net, (pixels, torch.zeros(1, net.context_length, dtype=torch.long)), check_trace=False)
        stored = temporary.with_suffix(".stored")
        torch.jit.save(traced, str(stored))
        with zipfile.ZipFile(stored) as source, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
            for name in source.namelist():
                # A fixed date, so that the same weights give the same file.
                out.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
        stored.unlink()


def pretrain_gpt2(recipe: Recipe):
    """A byte-pair tokenizer and a GPT-2, both from captions of training scenes.

    A document is what people said of one picture, in any order: <end> caption <end> caption <end> ... So the model learns
    to end a caption, and to say what fits what came before it, which is how a prefix will steer it.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

    seed_everything(recipe.seed)
    groups = [five for _, five in scene_stream(recipe.seed, recipe.captions)]
    end = "<|endoftext|>"
    pairs = ByteLevelBPETokenizer()
    texts = (caption for five in groups for caption in five)
    pairs.train_from_iterator(texts, vocab_size=recipe.vocabulary, special_tokens=[end], show_progress=False)
    tokenizer = GPT2TokenizerFast(tokenizer_object=pairs._tokenizer, bos_token=end, eos_token=end, unk_token=end)
    eos = tokenizer.eos_token_id
    sizes = GPT2Config(vocab_size=len(tokenizer), bos_token_id=eos, eos_token_id=eos, **GPT2_SIZES)
    net = GPT2LMHeadModel(sizes)
    documents = [torch.tensor([eos, *tokenizer(end.join(five) + end)["input_ids"]]) for five in groups]
    steps = recipe.language_epochs * (len(documents) // recipe.language_batch)
    optimizers = _optimizers(net, recipe.language_rate, steps)
    for _ in progress(range(recipe.language_epochs), desc="GPT-2"):
        order = torch.randperm(len(documents)).tolist()
        for start in range(0, len(documents) - recipe.language_batch + 1, recipe.language_batch):
            batch = [documents[n] for n in order[start : start + recipe.language_batch]]
            tokens = nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=eos)  # (B, L)
            length = torch.tensor([len(document) for document in batch])
            mask = torch.arange(tokens.shape[1]) < length[:, None]
            loss = net(input_ids=tokens, attention_mask=mask.long(), labels=tokens.masked_fill(~mask, -100)).loss
            _step(net, loss, optimizers)
    return tokenizer, net.eval()


def _optimizers(net: nn.Module, rate: float, steps: int) -> list[tuple]:
    """Muon for the blocks' matrices, which halves the steps that are needed, AdamW for all else; each with its schedule.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    blocks = [p for name, p in net.named_parameters() if p.ndim == 2 and ("blocks" in name or ".h." in name)]
    chosen = {id(p) for p in blocks}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(blocks, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=rate / 2, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR
    return [
        (optimizer, cycle(optimizer, peak, total_steps=max(2, steps), pct_start=0.1, cycle_momentum=False))
        for optimizer, peak in ((muon, rate), (adamw, rate / 2))
    ]


def _step(net: nn.Module, loss: Tensor, optimizers: list[tuple]) -> None:
    net.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for optimizer, schedule in optimizers:
        optimizer.step()
        schedule.step()


def make_clip(out: Path, recipe: Recipe, name: str, sizes: dict) -> None:
    pixels, captions = draw_pictures(recipe, sizes["image_resolution"])
    save_clip(pretrain_clip(pixels, captions, recipe, sizes), out / f"{name}.pt")


def make_gpt2(out: Path, recipe: Recipe) -> None:
    tokenizer, net = pretrain_gpt2(recipe)
    with atomic_path(out / "gpt2") as temporary:
        net.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def make_bert(out: Path, recipe: Recipe) -> None:
    """BERT's word pieces for what people say of scenes. The tokenizer alone: no BERT is behind it."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    pieces = BertWordPieceTokenizer(lowercase=True)
    texts = (caption for _, five in scene_stream(recipe.seed, recipe.captions) for caption in five)
    pieces.train_from_iterator(texts, vocab_size=recipe.vocabulary, show_progress=False)
    with atomic_path(out / "bert") as temporary:
        BertTokenizerFast(tokenizer_object=pieces._tokenizer).save_pretrained(temporary)


def make_text_tower(out: Path, recipe: Recipe, kind: str) -> None:
    """A small DistilBERT or BERT that has learned to guess words left out of captions, with BERT's tokenizer beside it.

    Devlin et al., "BERT", 2019 (arXiv 1810.04805), section 3.1: of 15 % of the pieces, 80 % are masked, 10 % exchanged.
    """
    import transformers

    seed_everything(recipe.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "bert")
    texts = [caption for _, five in scene_stream(recipe.seed, recipe.captions) for caption in five]
    if kind == "distilbert":
        sizes = dict(dim=128, hidden_dim=512, n_layers=2, n_heads=4, max_position_embeddings=64)
        net = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(vocab_size=len(tokenizer), **sizes))
    else:
        sizes = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
                     max_position_embeddings=64)  # fmt: skip
        net = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(tokenizer), **sizes))
    left_out = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    steps = len(texts) // 64
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=max(2, steps), pct_start=0.1)
    order = torch.randperm(len(texts)).tolist()
    for start in progress(range(0, steps * 64, 64), desc=kind):
        batch = left_out([tokenizer(texts[n], truncation=True, max_length=64) for n in order[start : start + 64]])
        _step(net, net(**batch).loss, [(optimizer, schedule)])
    with atomic_path(out / kind) as temporary:
        net.base_model.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def make_captioner(out: Path, recipe: Recipe, system: str) -> None:
    """A captioner trained by the recipe of its notebook, on the scenes' train split."""
    from helpers import recipes
    from helpers.checkpoints import save_captioner
    from helpers.data.datasets import load_captions
    from helpers.environment import DEFAULTS, setup

    made = {key: str(out / Path(name).name) for key, name in DEFAULTS[system]["tiny"].items() if key != "dataset"}
    run = setup(f"pretrain_{system}", system=system, verbose=False, profile="tiny", dataset="scenes", **made)
    scenes = load_captions("scenes", work_dir=run.work_dir, limit=recipe.captioner_pictures)
    # CLIP frozen: what learned of it would have to be shipped too, and would be most of the file.
    settings, sizes = recipes.settings_for("tiny", system, encoder="frozen"), recipes.sizes_for("tiny", system)
    captioner, _ = recipes.TRAIN[system](run, scenes, settings, run.output_dir, **sizes)
    captioner.model.half()  # on disk; it is read as fp32
    save_captioner(captioner, out / system)


# In the order in which they need each other.
PARTS = {
    "clip-vit": partial(make_clip, name="clip-vit", sizes=CLIP_SIZES),
    "gpt2": make_gpt2,
    "clipcap": partial(make_captioner, system="clipcap"),
    "clip-rn": partial(make_clip, name="clip-rn", sizes=CLIP_RN_SIZES),
    "bert": make_bert,
    "distilbert": partial(make_text_tower, kind="distilbert"),
    "bert-small": partial(make_text_tower, kind="bert-small"),
    "decoder": partial(make_captioner, system="decoder"),
    "cross-attention": partial(make_captioner, system="cross-attention"),
}


def make(out: Path, recipe: Recipe, parts: Iterable[str] = PARTS) -> None:
    """Each part is written whole or not at all; `out`/made.json records its recipe, minutes and hardware."""
    record = out / "made.json"
    made = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for part in (name for name in PARTS if name in parts):
        start = time.perf_counter()
        PARTS[part](out, recipe)
        minutes = round((time.perf_counter() - start) / 60, 2)
        made[part] = {"minutes": minutes, "recipe": asdict(recipe), **provenance()}
        write_json(record, made)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.pretrain", description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=TINY, help="folder to write to (default: data/tiny)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the full amounts, for a rehearsal (default: 1)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(PARTS)}")
    quiet_libraries()
    make(options.out, Recipe() if options.share == 1 else Recipe().scaled(options.share), options.parts or PARTS)


if __name__ == "__main__":
    main()
