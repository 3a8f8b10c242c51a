"""Train a captioner from a folder of captioned photos: `python -m helpers.train SYSTEM --dataset NAME --data-dir DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack, redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError
from helpers.settings import CHOICES, LogSettings, TrainSettings

if TYPE_CHECKING:
    from helpers.environment import Run

SETTINGS = tuple(field.name for field in fields(TrainSettings) if field.name != "seed")
SIZES = ("mapping", "tuning", "frozen_blocks", "lora_rank", "prefix_length", "clip_length", "mlp_ratio", "normalize",
         "width", "layers", "heads", "dropout", "memory", "tied", "gradient_checkpointing",
         "loss", "temperature", "dim", "image_rate", "text_rate", "architecture")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    try:
        with ExitStack() as stack:
            if os.environ.get("LOCAL_RANK", "0") != "0":  # of several processes, one tells the story
                stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            return _train(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command with --resume goes on from the last checkpoint", file=sys.stderr)
        return 130


def _train(options: dict) -> int:
    # Imported here, not above: --help must not wait for torch.
    from helpers.environment import DEFAULTS, PROFILES, setup, shown

    system = options["system"]
    names = ("profile", "dataset", "data_dir", "clip", "language_model", "tokenizer", "image_tower", "text_tower", "device",
             "seed")  # fmt: skip
    backbones = {} if options["preset"] in PROFILES else DEFAULTS[system].get(options["preset"], {})
    where = {name: backbones.get(name) if options.get(name) is None else options[name] for name in names}
    dry = options["dry_run"]
    given = [name for name in ("dataset", "data_dir", "preset", "image_tower", "text_tower") if options.get(name)]
    if options.get("experiment") and given:
        raise InputError(f"--experiment {options['experiment']} says what --{given[0].replace('_', '-')} is: leave it out")
    if dry:  # what is asked for need not be here
        wanted = options["device"] or os.environ.get("CAPTIONING_DEVICE")
        where["device"] = "cpu"
    run = setup(f"train_{system.replace('-', '_')}", system=system, verbose=not dry, **where)
    if dry:
        return _plan(options, run, wanted)
    from helpers import recipes
    from helpers.data.datasets import load_captions
    from helpers.devices import find_devices
    from helpers.models import clipcap, cross_attention, decoder, dual_encoder
    from helpers.retrieval_experiments import choose_experiment

    counted = {
        "clipcap": clipcap.count_parameters,
        "decoder": decoder.count_parameters,
        "cross-attention": cross_attention.count_parameters,
        "dual-encoder": dual_encoder.count_parameters,
        "clip": lambda net: {"CLIP": sum(parameter.numel() for parameter in net.parameters())},
    }[system]
    preset = options.get("preset") or run.profile
    settings = recipes.settings_for(preset, system, seed=run.seed, **{name: options.get(name) for name in SETTINGS})
    sizes = recipes.sizes_for(preset, system, **{name: options.get(name) for name in SIZES})
    if options.get("experiment"):
        run, captions, settings, chosen = choose_experiment(run, options["experiment"], limit=options["limit"])
        # What is given beside the experiment's number goes over its settings.
        settings = replace(settings, **{name: options[name] for name in SETTINGS if options.get(name) is not None})
        sizes = chosen | {name: options[name] for name in SIZES if options.get(name) is not None}
    log = LogSettings(**{field.name: options[field.name] for field in fields(LogSettings)})
    devices = find_devices(options["devices"], run.device)
    if not options.get("experiment"):
        captions = load_captions(run.dataset, run.data_dir, work_dir=run.work_dir, seed=run.seed, limit=options["limit"])
    else:  # its report says which photos left, and not how many there are
        counts = {split: len(captions.images(split)) for split in ("train", "val", "test")}
        print(f"{captions.name}: " + ", ".join(f"{count:,} {split}" for split, count in counts.items()) + " pictures")
    print(captions.report)
    batch = settings.batch_size * settings.accumulate * devices
    print(f"{batch} captions a step: batches of {settings.batch_size} x accumulate {settings.accumulate} x devices {devices}")
    folder = Path(options["out"]) if options["out"] else run.output_dir
    captioner, history = recipes.TRAIN[system](
        run, captions, settings, folder, devices=devices, resume=options["resume"], log=log, **sizes
    )
    print(", ".join(f"{name} {count:,}" for name, count in counted(captioner.model).items()) + " parameters")
    print(history.epochs.to_string(index=False))
    checkpoint = shown(folder / ("clip.pt" if system == "clip" else "checkpoint"))
    print(f"kept epoch {history.best_epoch}: {checkpoint}")
    if system == "clip":
        print(f"a CLIP like any other: python -m helpers.train clipcap --clip {checkpoint}")
    elif system == "dual-encoder":
        print(f'search your photos: python -m helpers.search --folder DIR "two dogs on a beach" --checkpoint {checkpoint}')
    else:
        print(f"caption your photos: python -m helpers.caption -f PHOTO.jpg --checkpoint {checkpoint}")
    return 0


def _plan(options: dict, run: Run, wanted: str | None) -> int:
    """Print what the training would take on the device `wanted`; nothing is downloaded, drawn or written."""
    from helpers.devices import find_devices
    from helpers.plan import dry_run, of_experiment
    from helpers.presets import settings_for, sizes_for

    system, preset = options["system"], options.get("preset") or run.profile
    settings, sizes = settings_for(preset, system, seed=run.seed), sizes_for(preset, system)
    if options.get("experiment"):
        run, settings, sizes = of_experiment(run, options["experiment"])
    settings = replace(settings, **{name: options[name] for name in SETTINGS if options.get(name) is not None})
    sizes = sizes | {name: options[name] for name in SIZES if options.get(name) is not None}
    devices = find_devices(options["devices"], "cpu")  # as many as are asked for, whether they are here or not
    print(dry_run(run, system, preset, settings, sizes, limit=options["limit"], devices=devices, wanted=wanted))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.train", description=__doc__)
    systems = parser.add_subparsers(dest="system", required=True)
    clipcap, model = _system(systems, "clipcap", "a transformer mapping network in front of a frozen language model")
    clipcap.add_argument("--language-model", metavar="NAME_OR_DIR", help="a hub name such as gpt2, or a folder")
    model.add_argument("--mapping", choices=("transformer", "mlp", "linear", "cross-attention", "cross-attention-pooled"),
                       help="from CLIP's vector, or its grid (cross-attention), to pseudo-words")
    model.add_argument("--tuning", choices=("frozen", "all", "blocks", "lora"),
                       help="of the language model: none, all of it, all but the first blocks, or LoRA adapters")
    model.add_argument("--frozen-blocks", type=int, help="with --tuning blocks: the first so many stay frozen")
    model.add_argument("--lora-rank", type=int, help="with --tuning lora")
    model.add_argument("--mlp-ratio", type=float, help="hidden width of the transformer mapping's MLPs, in widths")
    model.add_argument("--normalize", action=argparse.BooleanOptionalAction, help="scale CLIP's vector to length 1 first")
    model.add_argument("--prefix-length", type=int, help="pseudo-words")
    model.add_argument("--clip-length", type=int, help="positions the CLIP vector is spread over")
    model.add_argument("--layers", type=int, help="blocks of the mapping")
    decoder, model = _system(systems, "decoder", "a transformer decoder from scratch on the grid of CLIP's ResNet")
    decoder.add_argument("--tokenizer", metavar="NAME_OR_DIR", help="a hub name such as bert-base-uncased, or a folder")
    model.add_argument("--width", type=int, help="of the model")
    model.add_argument("--dropout", type=float, help="share of numbers left out in training")
    model.add_argument("--tied", action=argparse.BooleanOptionalAction, help="read words with the table that embeds them")
    model.add_argument("--memory", choices=("grid+pooled", "pooled"), help="what there is to look at")
    model.add_argument("--layers", type=int, help="blocks")
    crossing, model = _system(systems, "cross-attention", "a GPT-2 that looks at CLIP's patches through gated cross-attention")
    crossing.add_argument("--language-model", metavar="NAME_OR_DIR", help="a GPT-2: gpt2, gpt2-medium, or a folder")
    model.add_argument("--tuning", choices=("cross-attention", "norms", "mlps", "all"),
                       help="what learns, each with those before it: what is new, GPT-2's LayerNorms, its MLPs, the rest")
    model.add_argument("--dropout", type=float, help="of GPT-2 while it learns")
    model.add_argument("--gradient-checkpointing", action=argparse.BooleanOptionalAction,
                       help="less memory, a third slower: activations are computed anew on the way back")
    _, model = _system(systems, "clip", "a small CLIP from nothing, whose file all else takes as --clip")
    model.add_argument("--architecture", choices=("ViT", "ModifiedResNet"), help="of its image tower (default: ViT)")
    pairs, model = _system(systems, "dual-encoder", "a dual encoder that finds pictures by words and words by pictures")
    pairs.add_argument("--image-tower", metavar="NAME_OR_FILE",
                       help="resnet50, resnet50-random, small, a CLIP's name or file, or a file of helpers.classifier")
    pairs.add_argument("--text-tower", metavar="NAME_OR_DIR", help="a DistilBERT or BERT: a hub name, or a folder")
    pairs.add_argument("--experiment", metavar="N", help="one of the published experiments 0 to 6, or published")
    model.add_argument("--loss", choices=("info-nce", "soft-targets"), help="soft-targets: the published one")
    model.add_argument("--temperature", type=float, help="info-nce: where the learned one starts; soft-targets: fixed")
    model.add_argument("--dim", type=int, help="of the common space")
    model.add_argument("--dropout", type=float, help="in the heads")
    model.add_argument("--image-rate", type=float, help="the image tower's learning rate as a share of the heads'")
    model.add_argument("--text-rate", type=float, help="the text tower's")
    return parser


def _system(systems, name: str, what: str) -> tuple[argparse.ArgumentParser, argparse._ArgumentGroup]:
    """A system's parser with the options that all have in common, and its group of model sizes."""
    p = systems.add_parser(name, help=what, description=f"Train {what}. Defaults are the profile's.")
    p.add_argument("--profile", choices=("tiny", "full"), help="tiny: CPU, small backbones; full: CUDA")
    p.add_argument("--dataset", help="scenes, scenes-sketch, flickr8k, flickr30k, coco2017, coco-karpathy, or folder")
    p.add_argument("--data-dir", metavar="DIR", help="where its files lie; otherwise found or downloaded")
    p.add_argument("--limit", type=int, metavar="N", help="use only so many pictures")
    p.add_argument("--device", choices=("cpu", "cuda"))
    p.add_argument("--seed", type=int, help="of weights, order and caption draws")
    p.add_argument("--out", metavar="DIR", help=f"for checkpoint/ and history.csv (default: outputs/train_{name})")
    p.add_argument("--dry-run", action="store_true", help="print steps, memory, disk and minutes, and do nothing")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint of a killed run")
    if name not in ("dual-encoder", "clip"):
        p.add_argument("--clip", metavar="NAME_OR_FILE", help="a name such as RN50 or ViT-B/32, or a file")
    p.add_argument("--preset", metavar="NAME", help="settings and sizes that belong together (default: the profile's)")
    how = p.add_argument_group("training")
    _options(how, TrainSettings, without="seed")
    how.add_argument("--devices", default="1", metavar="N", help="GPUs, or processes on a CPU, that share the work; auto: all")
    _options(p.add_argument_group("logs"), LogSettings, defaults=True)
    model = p.add_argument_group("model")
    if name not in ("dual-encoder", "clip"):
        model.add_argument("--heads", type=int, help="attention heads")
    return p, model


def _options(group: argparse._ArgumentGroup, settings: type, *, without: str = "", defaults: bool = False) -> None:
    """An option for each field of a dataclass of settings. Without `defaults`, those not given are None."""
    for field in fields(settings):
        if field.name == without:
            continue
        flags = dict.fromkeys("--" + name for name in (field.name.replace("_", "-"), *([field.name] * defaults)))
        options = {"dest": field.name, "help": field.metadata["help"], "default": field.default if defaults else None}
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif field.name in CHOICES:
            options["choices"] = CHOICES[field.name]
        else:
            options["type"] = str if field.default is None else type(field.default)
            options["metavar"] = {int: "N", float: "X", str: "NAME"}[options["type"]]
        group.add_argument(*flags, **options)


if __name__ == "__main__":
    sys.exit(main())
