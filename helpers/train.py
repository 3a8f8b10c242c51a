"""Train a captioner from a folder of captioned photos: `python -m helpers.train SYSTEM --dataset NAME --data-dir DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from helpers.errors import InputError

SETTINGS = ("epochs", "batch_size", "learning_rate", "captions", "max_tokens", "keep", "patience", "mirrored", "encoder",
            "encoder_rate", "unfreeze_epoch")  # fmt: skip
SIZES = ("prefix_length", "clip_length", "width", "layers", "heads", "dropout", "memory")


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    try:
        return _train(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command with --resume goes on from the last whole epoch", file=sys.stderr)
        return 130


def _train(options: dict) -> int:
    # Imported here, not above: --help must not wait for torch.
    from helpers.environment import setup, shown

    system = options["system"]
    where = ("profile", "dataset", "data_dir", "clip", "language_model", "tokenizer", "device", "seed")
    run = setup(f"train_{system}", system=system, **{name: options.get(name) for name in where})
    from helpers import recipes
    from helpers.data.datasets import load_captions
    from helpers.models import clipcap, decoder

    train, counted = {
        "clipcap": (recipes.train_clipcap, clipcap.count_parameters),
        "decoder": (recipes.train_decoder, decoder.count_parameters),
    }[system]
    preset = options.get("preset") or run.profile
    settings = recipes.settings_for(preset, system, seed=run.seed, **{name: options.get(name) for name in SETTINGS})
    sizes = recipes.sizes_for(preset, system, **{name: options.get(name) for name in SIZES})
    captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir, seed=run.seed, limit=options["limit"])
    counts = {split: len(captions.images(split)) for split in ("train", "val", "test")}
    print(f"{captions.name}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()) + " pictures")
    if str(captions.report):
        print(captions.report)
    folder = Path(options["out"]) if options["out"] else run.output_dir
    captioner, history = train(run, captions, settings, folder, resume=options["resume"], **sizes)
    print(", ".join(f"{name} {count:,}" for name, count in counted(captioner.model).items()) + " parameters")
    print(history.epochs.to_string(index=False))
    checkpoint = shown(folder / "checkpoint")
    print(f"kept epoch {history.best_epoch}: {checkpoint}")
    print(f"caption your photos: python -m helpers.caption -f PHOTO.jpg --checkpoint {checkpoint}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.train", description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True)
    clipcap, model = _system(systems, "clipcap", "a transformer mapping network in front of a frozen language model")
    clipcap.add_argument("--language-model", metavar="NAME_OR_DIR", help="a hub name such as gpt2, or a folder")
    model.add_argument("--prefix-length", type=int, help="pseudo-words")
    model.add_argument("--clip-length", type=int, help="positions the CLIP vector is spread over")
    decoder, model = _system(systems, "decoder", "a transformer decoder from scratch on the grid of CLIP's ResNet")
    decoder.add_argument("--tokenizer", metavar="NAME_OR_DIR", help="a hub name such as bert-base-uncased, or a folder")
    decoder.add_argument("--preset", choices=("tiny", "full", "published"), help="settings and sizes (default: the profile)")
    decoder.add_argument("--encoder", choices=("frozen", "two-phases", "all"),
                         help="CLIP: stays as it is; its last parts learn in a second phase; all of it learns from the start")
    decoder.add_argument("--encoder-rate", type=float, help="AdamW's for CLIP, after warm-up")
    decoder.add_argument("--unfreeze-epoch", type=int, help="where the second phase begins, counted from 0")
    decoder.add_argument("--keep", choices=("val_loss", "val_CIDEr-D"), help="which epoch is the best")
    decoder.add_argument("--patience", type=int, help="stop after so many epochs without a better one; 0: never")
    decoder.add_argument("--mirrored", action=argparse.BooleanOptionalAction,
                         help="half of the training pictures in a mirror, left and right exchanged in their captions")
    model.add_argument("--width", type=int, help="of the model")
    model.add_argument("--dropout", type=float, help="share of numbers left out in training")
    model.add_argument("--memory", choices=("grid+pooled", "pooled"), help="what there is to look at")
    return parser


def _system(systems, name: str, what: str) -> tuple[argparse.ArgumentParser, argparse._ArgumentGroup]:
    """A system's parser with the options that all have in common, and its group of model sizes."""
    p = systems.add_parser(name, help=what, description=f"Train {what}. Defaults are the profile's.")
    p.add_argument("--profile", choices=("tiny", "full"), help="tiny: CPU, small backbones; full: CUDA")
    p.add_argument("--dataset", help="scenes, flickr8k, flickr30k, coco2017, coco-karpathy, or folder")
    p.add_argument("--data-dir", metavar="DIR", help="where its files lie; otherwise found or downloaded")
    p.add_argument("--limit", type=int, metavar="N", help="use only so many pictures")
    p.add_argument("--device", choices=("cpu", "cuda"))
    p.add_argument("--seed", type=int, help="of weights, order and caption draws")
    p.add_argument("--out", metavar="DIR", help=f"for checkpoint/ and history.csv (default: outputs/train_{name})")
    p.add_argument("--resume", action="store_true", help="go on from the last whole epoch of a killed run")
    p.add_argument("--clip", metavar="NAME_OR_FILE", help="a name such as RN50 or ViT-B/32, or a file")
    how = p.add_argument_group("training")
    how.add_argument("--epochs", type=int, help="passes over the pictures")
    how.add_argument("--batch-size", type=int, help="captions a step")
    how.add_argument("--learning-rate", type=float, help="AdamW's, after warm-up")
    how.add_argument("--captions", choices=("random", "all"), help="of a picture, an epoch")
    how.add_argument("--max-tokens", type=int, help="longer captions are cut, their end token kept")
    model = p.add_argument_group("model")
    model.add_argument("--layers", type=int, help="blocks")
    model.add_argument("--heads", type=int, help="attention heads")
    return p, model


if __name__ == "__main__":
    sys.exit(main())
