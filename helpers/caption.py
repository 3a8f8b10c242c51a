"""Caption pictures: `python -m helpers.caption -f a.jpg b.png [--checkpoint DIR]` prints one line a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from helpers.errors import InputError

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "tiny" / "clipcap"


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: every picture captioned; 1: some could not be read (named on stderr); 2: nothing could be done."""
    options = _parser().parse_args(arguments)
    try:
        return _caption(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _caption(options: argparse.Namespace) -> int:
    # Imported here, not above: --help must not wait for torch.
    from helpers.captioner import decoding_options
    from helpers.environment import quiet_libraries, seed_everything

    decoding = {name: getattr(options, name) for name in ("beams", "top_p", "temperature", "max_new_tokens")}
    decoding_options(**decoding)  # refuse bad values before anything is loaded
    quiet_libraries()
    from helpers.checkpoints import load_captioner
    from helpers.data.images import open_image

    captioner = load_captioner(
        options.checkpoint or SHIPPED, clip=options.clip, language_model=options.language_model, device=options.device
    )
    if options.checkpoint is None:
        training = captioner.config["training"]
        print(
            f"using the shipped captioner, which has seen only {training['pictures']:,} drawn pictures "
            f"({training['dataset']}); for photos, train your own (python -m helpers.train clipcap --help) and give it "
            "by --checkpoint",
            file=sys.stderr,
        )
    seed_everything(options.seed)
    failed = 0
    for start in range(0, len(options.files), options.batch_size):
        read = []
        for name in options.files[start : start + options.batch_size]:
            try:
                read.append((name, open_image(name)))
            except InputError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
        if read:
            for (name, _), caption in zip(read, captioner.caption([image for _, image in read], **decoding), strict=True):
                print(f"{name}\t{caption}", flush=True)
    return 0 if not failed else 1 if failed < len(options.files) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.caption", description=__doc__)
    parser.add_argument("-f", "--files", nargs="+", required=True, metavar="PICTURE", help="picture files")
    parser.add_argument("--checkpoint", metavar="DIR", help="a captioner's folder (default: the shipped small one)")
    parser.add_argument("--beams", type=int, default=1, metavar="N", help="beam search over N hypotheses (default: greedy)")
    parser.add_argument("--top_p", "--top-p", type=float, metavar="P", help="sample from the nucleus of probability P")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of sampling (default: %(default)s)")
    parser.add_argument("--max_new_tokens", "--max-new-tokens", type=int, default=40, metavar="N",
                        help="tokens a caption at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of sampling (default: %(default)s)")
    parser.add_argument("--clip", metavar="NAME_OR_FILE", help="where the checkpoint's CLIP lies, if it was moved")
    parser.add_argument("--language-model", metavar="NAME_OR_DIR", help="where its language model lies, if it was moved")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures at once (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
