"""Train a captioner from a folder of captioned photos: `python -m helpers.train clipcap --dataset NAME --data-dir DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError

if TYPE_CHECKING:  # imported only when training starts: --help answers at once
    from helpers.captioner import Captioner
    from helpers.data.datasets import Captions
    from helpers.environment import Run
    from helpers.training import History, TrainSettings

# The small backbones learn at rates that would wreck the large ones, and their width holds fewer heads.
TINY_SETTINGS = {"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "captions": "all", "weight_decay": 0.05}
TINY_SIZES = {"layers": 4, "heads": 4}


def settings_for(profile: str, **changes: object) -> TrainSettings:
    """The profile's training settings (full: the paper's; tiny: for the small backbones), with `changes` on top."""
    from helpers.training import TrainSettings

    given = {name: value for name, value in changes.items() if value is not None}
    return TrainSettings(**({**TINY_SETTINGS, **given} if profile == "tiny" else given))


def sizes_for(profile: str) -> dict[str, int]:
    """The profile's sizes of the mapping network, as options of ClipCap.build (full: the paper's, its defaults)."""
    return dict(TINY_SIZES) if profile == "tiny" else {}


def train_clipcap(
    run: Run,
    captions: Captions,
    settings: TrainSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    **sizes: int,
) -> tuple[Captioner, History]:
    """Train ClipCap's mapping network on the train split, validate on the val split, save the best epoch to `folder`.

    `folder`/checkpoint is the captioner's folder, `folder`/history.csv the losses. `sizes` are fields of ClipCapConfig.
    Raises InputError or OfflineError as the readers of data and backbones do.
    """
    from helpers.captioner import Captioner
    from helpers.checkpoints import save_captioner
    from helpers.data.batches import CaptionDataset, caption_loader
    from helpers.data.encoders import load_clip
    from helpers.data.features import cached_features
    from helpers.data.tokens import load_tokens
    from helpers.environment import seed_everything
    from helpers.hub import load_language_model
    from helpers.models.clipcap import ClipCap
    from helpers.training import fit

    encoder = load_clip(run.clip, run.device)
    tokens = load_tokens(run.language_model)
    language_model = load_language_model(run.language_model)
    seed_everything(settings.seed)  # here, so that notebook, command and data/tiny start from the same weights
    model = ClipCap.build(encoder.dim, language_model, **sizes)
    loaders = []
    for split, which in (("train", settings.captions), ("val", "ordered")):
        features = cached_features(encoder, captions.image_dir, captions.images(split), run.cache_dir)
        for image, reason in features.broken.items():
            print(f"skipped {image}: {reason}", file=sys.stderr)
        dataset = CaptionDataset(features, captions.references(split), tokens, max_tokens=settings.max_tokens)
        loaders.append(
            caption_loader(dataset, tokens, batch_size=settings.batch_size, captions=which, seed=settings.seed)
        )
    start = time.perf_counter()
    history = fit(model, *loaders, settings, folder, device=run.device, precision=run.precision, resume=resume)
    trained_on = {
        "dataset": captions.name,
        "pictures": len(loaders[0].dataset),
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "best_epoch": history.best_epoch,
        "val_loss": round(history.best_val_loss, 4),
        **dataclasses.asdict(settings),
    }
    captioner = Captioner(
        encoder, tokens, model, {"clip": run.clip, "language_model": run.language_model, "training": trained_on}
    )
    save_captioner(captioner, Path(folder) / "checkpoint")
    return captioner, history


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    from helpers.environment import setup, shown

    try:
        return _train(options, setup, shown)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command with --resume goes on from the last whole epoch", file=sys.stderr)
        return 130


def _train(options: dict, setup, shown) -> int:
    where = {name: options[name] for name in ("profile", "dataset", "data_dir", "clip", "language_model", "device", "seed")}
    run = setup("train_clipcap", **where)
    from helpers.data.datasets import load_captions
    from helpers.models.clipcap import count_parameters

    captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir, seed=run.seed, limit=options["limit"])
    counts = {split: len(captions.images(split)) for split in ("train", "val", "test")}
    print(f"{captions.name}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()) + " pictures")
    if str(captions.report):
        print(captions.report)
    settings = settings_for(
        run.profile,
        seed=run.seed,
        **{name: options[name] for name in ("epochs", "batch_size", "learning_rate", "captions", "max_tokens")},
    )
    given = {name: options[name] for name in ("prefix_length", "clip_length", "layers", "heads") if options[name]}
    sizes = sizes_for(run.profile) | given
    folder = Path(options["out"]) if options["out"] else run.output_dir
    captioner, history = train_clipcap(run, captions, settings, folder, resume=options["resume"], **sizes)
    parameters = count_parameters(captioner.model)
    print(", ".join(f"{name} {count:,}" for name, count in parameters.items()) + " parameters")
    print(history.epochs.to_string(index=False))
    checkpoint = shown(folder / "checkpoint")
    print(f"kept epoch {history.best_epoch}: {checkpoint}")
    print(f"caption your photos: python -m helpers.caption -f PHOTO.jpg --checkpoint {checkpoint}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.train", description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True)
    p = systems.add_parser(
        "clipcap",
        help="a transformer mapping network in front of a frozen language model",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    data = p.add_argument_group("data and backbones (default: the profile's)")
    data.add_argument("--profile", choices=("tiny", "full"), default=None, help="tiny: CPU, small backbones; full: CUDA")
    data.add_argument("--dataset", default=None, help="scenes, flickr8k, flickr30k, coco2017, coco-karpathy, or folder")
    data.add_argument("--data-dir", default=None, help="where its files lie; otherwise found or downloaded")
    data.add_argument("--clip", default=None, help="a name such as ViT-B/32, or a file")
    data.add_argument("--language-model", default=None, help="a hub name such as gpt2, or a folder")
    data.add_argument("--limit", type=int, default=None, help="use only so many pictures")
    data.add_argument("--device", choices=("cpu", "cuda"), default=None, help="default: the profile's")
    how = p.add_argument_group("training (default: the profile's)")
    how.add_argument("--epochs", type=int, default=None, help="passes over the pictures")
    how.add_argument("--batch-size", type=int, default=None, help="captions a step")
    how.add_argument("--learning-rate", type=float, default=None, help="AdamW's, after warm-up")
    how.add_argument("--captions", choices=("random", "all"), default=None, help="of a picture, an epoch")
    how.add_argument("--max-tokens", type=int, default=None, help="longer captions are cut, their end token kept")
    how.add_argument("--seed", type=int, default=None, help="of weights, order and caption draws")
    model = p.add_argument_group("mapping network (default: the paper's, smaller in the tiny profile)")
    for name, what in (("prefix-length", "pseudo-words"), ("clip-length", "positions the CLIP vector is spread over"),
                       ("layers", "blocks"), ("heads", "attention heads")):
        model.add_argument(f"--{name}", type=int, default=None, help=what)
    p.add_argument("--out", default=None, help="folder for checkpoint/ and history.csv (default: outputs/train_clipcap)")
    p.add_argument("--resume", action="store_true", default=False, help="go on from the last whole epoch of a killed run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
