"""Caption pictures: `python -m helpers.caption -f a.jpg b.png [--checkpoint DIR]` prints one line a caption.

A whole folder, by one captioner or several: `--folder DIR --checkpoints A B --csv out.csv`. The table grows batch by batch,
and the same command again goes on where the last one stopped. A model's name in it is its folder and a fingerprint of its
weights, so that one trained anew at the same place is another model.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError

if TYPE_CHECKING:
    from helpers.captioner import Captioner

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "tiny" / "clipcap"
COLUMNS = ["image_id", "model_name", "caption", "error"]
DECODING = ("num_return", "beams", "top_p", "temperature", "no_repeat_ngram", "min_new_tokens", "max_new_tokens")
Rows = list[list[str]]


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
    from helpers.environment import quiet_libraries

    decoding = {name: getattr(options, name) for name in DECODING}
    decoding_options(**decoding)  # refuse bad values before anything is loaded
    if options.batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, not {options.batch_size}")
    if options.files and (options.csv or options.checkpoints or options.recursive):
        raise InputError("--csv and --checkpoints go with --folder, and so does --recursive; with -f give one --checkpoint")
    quiet_libraries()
    decoding["prompt"] = options.prompt
    return _caption_folder(options, decoding) if options.folder else _caption_files(options, decoding)


def _load(options: argparse.Namespace, checkpoint: str | Path) -> Captioner:
    from helpers.checkpoints import load_captioner
    from helpers.environment import seed_everything

    captioner = load_captioner(checkpoint, clip=options.clip, language_model=options.language_model, device=options.device)
    if checkpoint is SHIPPED:
        training = captioner.config["training"]
        print(
            f"using the shipped captioner, which has seen only {training['pictures']:,} drawn pictures "
            f"({training['dataset']}); for photos, train your own (python -m helpers.train clipcap --help) and give it "
            "by --checkpoint",
            file=sys.stderr,
        )
    seed_everything(options.seed)
    return captioner


def _say(captioner: Captioner, images: list, decoding: dict) -> list[list[str]]:
    """The captions of each picture: one, or several with num_return."""
    captions = captioner.caption(images, **decoding)
    return [[caption] for caption in captions] if decoding["num_return"] == 1 else captions


def _caption_files(options: argparse.Namespace, decoding: dict) -> int:
    from helpers.data.images import open_image

    captioner = _load(options, options.checkpoint or SHIPPED)
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
            for (name, _), captions in zip(read, _say(captioner, [image for _, image in read], decoding), strict=True):
                for caption in captions:
                    print(f"{name}\t{caption}", flush=True)
    return _status(failed, len(options.files))


def _caption_folder(options: argparse.Namespace, decoding: dict) -> int:
    from helpers.checkpoints import read_config
    from helpers.data.images import find_images

    found = find_images(options.folder, recursive=options.recursive)
    pictures = {path.relative_to(options.folder).as_posix(): path for path in found}
    checkpoints = options.checkpoints or [options.checkpoint or SHIPPED]
    for checkpoint in checkpoints:
        read_config(checkpoint)  # a wrong one is named now, not after the others' hours of work
    models = dict(zip(model_names(checkpoints), checkpoints, strict=True))
    table = read_table(options.csv, options.num_return) if options.csv else []
    before = {(image, model): error for image, model, _, error in table if image in pictures and model in models}
    broken: set[str] = set()
    written = 0

    def report(image: str, error: str) -> None:
        if error and image not in broken:  # once, not once a model
            broken.add(image)
            print(f"error: {error}", file=sys.stderr)

    for (image, _), error in before.items():
        report(image, error)
    write = _writer(options.csv)
    for model, checkpoint in models.items():
        missing = {image: path for image, path in pictures.items() if (image, model) not in before}
        if not missing:
            continue
        for rows in _rows(_load(options, checkpoint), missing, model, decoding, options.batch_size):
            write(rows)
            written += sum(not error for *_, error in rows)
            for image, _, _, error in rows:
                report(image, error)
    if options.csv:
        there = f" ({len(before):,} of {len(pictures) * len(models):,} were there already)" if before else ""
        print(f"{_count(len(pictures), 'picture')} x {_count(len(models), 'model')}{there}, {_count(written, 'caption')} "
              f"written, {len(broken):,} broken: {options.csv}")
    return _status(len(broken), len(pictures))


def _rows(
    captioner: Captioner, pictures: dict[str, Path], model: str, decoding: dict, batch_size: int
) -> Iterator[Rows]:
    """The table's rows, batch by batch. A picture that cannot be read has one row, with its error."""
    from concurrent.futures import ThreadPoolExecutor

    from helpers.data.images import open_image
    from helpers.environment import progress

    def crop(image: str) -> object:
        try:
            return captioner.encoder.crop(open_image(pictures[image]))
        except InputError as error:
            return error

    images = list(pictures)
    # Pillow decodes and resizes beside the interpreter; the rest is torch's and stays in this thread. There the square,
    # being of the right size, passes through `crop` as it is.
    with ThreadPoolExecutor() as pool:
        for start in progress(range(0, len(images), batch_size), desc=model, unit="batch", leave=False):
            batch = images[start : start + batch_size]
            opened = dict(zip(batch, pool.map(crop, batch), strict=True))
            squares = {image: square for image, square in opened.items() if not isinstance(square, InputError)}
            said = _say(captioner, list(squares.values()), decoding) if squares else []
            captions = dict(zip(squares, said, strict=True))
            rows = []
            for image in batch:
                if image in captions:
                    rows += [[image, model, caption, ""] for caption in captions[image]]
                else:
                    rows.append([image, model, "", str(opened[image])])
            yield rows


def model_names(checkpoints: list[str] | list[Path]) -> list[str]:
    """FOLDER@FINGERPRINT of each, the same in every run whatever else is given, and never that of other weights.

    The fingerprint is the first 8 letters of the SHA-256 of the weights. A folder called checkpoint, as training calls all of
    them, has the one above with it. Raises InputError where weights are missing, or given twice.
    """
    names: list[str] = []
    for given in checkpoints:
        weights = Path(given) / "model.safetensors"
        if not weights.is_file():
            raise InputError(f"{given} is not a checkpoint: it holds no {weights.name}")
        with open(weights, "rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        parts = Path(given).resolve().parts
        name = "/".join(parts[-2:] if parts[-1] == "checkpoint" else parts[-1:]) + "@" + fingerprint
        if name in names:
            raise InputError(f"the checkpoint {given} is given twice (--checkpoints)")
        names.append(name)
    return names


def read_table(path: str | Path, num_return: int = 1) -> Rows:
    """The rows of a table written so far, without its header. What a kill has left half-written is cut off the file.

    That is a torn last line, and, with num_return > 1, the last picture's captions where they are fewer: they may be torn
    between two lines. Raises InputError where the file is not such a table.
    """
    from helpers.environment import shown
    from helpers.files import atomic_path

    path = Path(path)
    with _named(path):
        # surrogateescape: a name on disk need not be UTF-8, and a kill may cut a letter in two.
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape") if path.exists() else ""
    if _as_csv([COLUMNS]).startswith(text):  # nothing yet, or a header that was never finished
        whole, rows = "", []
    else:
        whole = _whole_records(text)
        try:
            header, *rows = csv.reader(io.StringIO(whole, newline=""), strict=True)
        except (ValueError, csv.Error):
            header = None
        if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
            raise InputError(f"{shown(path)} is not a table of this command (its columns are {', '.join(COLUMNS)}): give "
                             "another file (--csv)")
    last = [row for row in rows if row[:2] == rows[-1][:2]]
    kept = rows[: -len(last)] if last and not rows[-1][3] and len(last) < num_return else rows
    if whole != text or kept != rows:
        with _named(path), atomic_path(path) as temporary:
            temporary.write_bytes(_as_bytes(_as_csv([COLUMNS, *kept])))
    return kept


def _whole_records(text: str) -> str:
    """`text` up to the last line end that is not inside quotes."""
    end = quotes = start = 0
    while (stop := text.find("\n", start) + 1) > 0:
        quotes += text.count('"', start, stop)
        start = stop
        if quotes % 2 == 0:
            end = stop
    return text[:end]


def _as_csv(rows: Rows, **dialect: str) -> str:
    written = io.StringIO(newline="")
    csv.writer(written, **dialect).writerows(rows)
    return written.getvalue()


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _writer(path: str | None) -> Callable[[Rows], None]:
    """What appends rows to the table at `path`, on disk before it returns; without a path, prints them."""

    def show(rows: Rows) -> None:
        lines = _as_csv([row[:3] for row in rows if not row[3]], delimiter="\t", lineterminator="\n")
        print(_as_bytes(lines).decode("utf-8", errors="replace"), end="", flush=True)

    def append(rows: Rows) -> None:
        with _named(path), open(path, "ab") as file:
            file.write(_as_bytes(_as_csv(rows)))

    if path is None:
        return show
    with _named(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
        empty = Path(path).stat().st_size == 0
    append([COLUMNS] if empty else [])
    return append


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """What the disk refuses, in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read or written ({error.strerror}): give another file (--csv)") from error


def _status(failed: int, pictures: int) -> int:
    return 0 if not failed else 1 if failed < pictures else 2


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.caption", description=__doc__)
    pictures = parser.add_mutually_exclusive_group(required=True)
    pictures.add_argument("-f", "--files", nargs="+", metavar="PICTURE", help="picture files")
    pictures.add_argument("--folder", metavar="DIR", help="every picture in a folder")
    parser.add_argument("--recursive", action="store_true", help="with --folder: also the folders inside it")
    captioners = parser.add_mutually_exclusive_group()
    captioners.add_argument("--checkpoint", metavar="DIR", help="a captioner's folder (default: the shipped small one)")
    captioners.add_argument("--checkpoints", nargs="+", metavar="DIR", help="several, one after the other (with --folder)")
    parser.add_argument("--csv", metavar="FILE",
                        help=f"with --folder: the table to write, or to go on with ({', '.join(COLUMNS)}); pictures that "
                             "have a row there are passed over (default: print tab-separated lines)")
    parser.add_argument("--num_return", "--num-return", type=int, default=1, metavar="N",
                        help="different captions a picture, a line each: hypotheses of beam search, best first, or draws "
                             "(default: %(default)s)")
    parser.add_argument("--beams", type=int, default=1, metavar="N", help="beam search over N hypotheses (default: greedy)")
    parser.add_argument("--top_p", "--top-p", type=float, metavar="P", help="sample from the nucleus of probability P")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="of sampling (default: %(default)s)")
    parser.add_argument("--no_repeat_ngram", "--no-repeat-ngram", type=int, default=0, metavar="N",
                        help="no run of N tokens twice in a caption (default: any)")
    parser.add_argument("--min_new_tokens", "--min-new-tokens", type=int, default=0, metavar="N",
                        help="tokens a caption at least (default: %(default)s)")
    parser.add_argument("--max_new_tokens", "--max-new-tokens", type=int, default=40, metavar="N",
                        help="tokens a caption at most (default: %(default)s)")
    parser.add_argument("--prompt", default="", metavar="TEXT", help='what every caption begins with, as "a photo of"')
    parser.add_argument("--seed", type=int, default=0, help="of sampling (default: %(default)s)")
    parser.add_argument("--clip", metavar="NAME_OR_FILE", help="where the checkpoint's CLIP lies, if it was moved")
    parser.add_argument("--language-model", metavar="NAME_OR_DIR", help="where its language model lies, if it was moved")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures at once (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
