"""Score captions in a file: `python -m helpers.score predictions.json references.json [--json OUT]`.

Prints each score with its 95 % interval over pictures. Either file may be in any of these formats, picture names being
numbers or text:

    [{"image_id": 9, "caption": "A dog runs."}, ...]                           COCO's results: a caption a picture
    {"images": [{"id": 9}, ...], "annotations": [{"image_id": 9, ...}, ...]}   COCO's annotations: several
    {"dog.jpg": ["A dog runs.", "The dog is brown."], ...}                     this project's

Every picture of the references needs one prediction. An empty one is scored, as 0; a blank reference is left out. With
--pictures DIR the captions are scored by CLIP too: CLIPScore and RefCLIPScore.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import InputError, OfflineError

if TYPE_CHECKING:
    from helpers.metrics import Comparison

FORMATS = ('[{"image_id": 9, "caption": "A dog runs."}, ...], {"annotations": [the same, ...]}, or '
           '{"dog.jpg": ["A dog runs.", ...], ...}')  # fmt: skip
TOKENS = {"ptb": "ptb", "white-space": "whitespace"}  # as the command line says it: as metrics.compare does

BY_CLIP = ("CLIPScore", "RefCLIPScore")  # clipscore.METRICS, which torch comes with


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: all scores are there; 1: some could not be computed (named on stderr); 2: nothing could be done."""
    options = _parser().parse_args(arguments)
    try:
        return _main(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _main(options: argparse.Namespace) -> int:
    from helpers.metrics import METRICS, QUICK, compare

    _check_out(options)
    metrics = options.metrics or (QUICK if options.quick else METRICS)
    predictions, references = read_pair(options.predictions, options.references, subset=options.subset)
    tokenize = TOKENS[options.tokens]
    by_clip, missing = None, {}
    if options.pictures:  # before the others, so that a wrong folder is told at once
        try:
            by_clip = _by_clip(options, predictions, references)
        except OfflineError as error:
            missing = dict.fromkeys(BY_CLIP, str(error))
    elif not options.metrics and not options.quick:
        print(f"note: {' and '.join(BY_CLIP)} look at the pictures, and are computed with --pictures DIR", file=sys.stderr)
    found = compare({"predictions": predictions}, references, metrics=metrics, tokenize=tokenize, keep_going=True)
    if by_clip:
        found = found.joined(by_clip)
    missing = found.missing | missing
    scores = found["predictions"]
    metrics = [*metrics, *(BY_CLIP if options.pictures else ())]
    width = max(map(len, metrics)) + 2
    for metric, score in scores.metrics.items():
        print(f"{metric:<{width}}{score}")
    for note in [*scores.notes, *(f"{metric} is missing: {missing[metric]}" for metric in BY_CLIP if metric in missing)]:
        print(f"note: {note}", file=sys.stderr)
    if not scores.metrics:
        raise InputError("no score could be computed")
    if options.json:
        _write(options.json, {metric: scores[metric].to_json() if metric in scores.metrics else
                              {"value": None, "low": None, "high": None, "missing": missing[metric]}
                              for metric in metrics})  # fmt: skip
    return 1 if missing else 0


def _by_clip(
    options: argparse.Namespace, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> Comparison:
    """CLIPScore and RefCLIPScore. Raises InputError for a picture that cannot be read, OfflineError without CLIP's weights."""
    from helpers.clipscore import compare_by_clip
    from helpers.data.encoders import load_clip
    from helpers.data.features import cached_features
    from helpers.environment import find_place, find_work_dir

    content, folder = _load(options.references), Path(options.pictures)
    listed = content.get("images", []) if isinstance(content, dict) else []  # COCO says there what each file is called
    called = {str(entry["id"]): str(entry["file_name"]) for entry in listed if "file_name" in entry}
    files = [called.get(image, image) for image in references]
    if not folder.is_dir():
        raise InputError(f"{_shown(folder)}: there is no such folder (--pictures)")
    encoder = load_clip(options.clip, options.device)
    features = cached_features(encoder, folder, files, find_work_dir(find_place()) / "data" / "cache")
    for file, error in features.broken.items():
        raise InputError(f"{len(features.broken):,} of {len(files):,} pictures cannot be read, {_name(file)} for one: {error}")
    return compare_by_clip({"predictions": predictions}, references, encoder.encode_texts, features.take(files),
                           list(references))  # fmt: skip


def read_pair(
    predictions: str | Path, references: str | Path, *, subset: bool = False
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """{image: caption} and {image: references} of two JSON files, the same pictures in both.

    subset: leave out the pictures that have references only. Raises InputError naming file and picture where one has no
    prediction, two, or no references, and as `read_captions`.
    """
    said, known = read_captions(predictions), read_captions(references)
    ours, theirs = _shown(predictions), _shown(references)
    _refuse([i for i in said if i not in known], ours, f"not in {theirs}: leave out the prediction, or add references")
    _refuse([i for i in said if not said[i]], ours, "listed without a caption: an empty one will do")
    _refuse([i for i in said if len(said[i]) > 1], ours, "more than one prediction: keep one")
    if subset:
        known = {image: captions for image, captions in known.items() if image in said}
    _refuse([i for i in known if i not in said], ours, f"no prediction, though it is in {theirs}: caption it too, or score "
            "the others alone (--subset)")  # fmt: skip
    _refuse([i for i in known if not any(map(str.strip, known[i]))], theirs, "no reference with a word in it: add one")
    return {image: captions[0] for image, captions in said.items()}, known


def read_captions(path: str | Path) -> dict[str, list[str]]:
    """{image: captions} of a JSON file in any of FORMATS; image ids become text, for JSON's own keys are text.

    Raises InputError naming the file, and the entry or picture where there is one: no JSON, none of FORMATS, a caption that
    is no text, a picture that is there twice as a key, nothing at all.
    """
    content = _load(path)
    if isinstance(content, dict) and not {"images", "annotations"} & content.keys():
        found = {image: [group] if isinstance(group, str) else group for image, group in content.items()}
        entries = []
    else:
        listed, entries = [], content
        if isinstance(content, dict):
            listed, entries = content.get("images", []), content.get("annotations", [])
        if not isinstance(entries, list) or not isinstance(listed, list):
            raise InputError(f"{_shown(path)} is in none of the known formats: give {FORMATS}")
        found = {_image(path, entry, "id", f"images[{n}]"): [] for n, entry in enumerate(listed)}
    for n, entry in enumerate(entries):
        image = _image(path, entry, "image_id", f"entry {n} (counted from 0)")
        if "caption" not in entry:
            raise InputError(f"{_shown(path)}: image_id {_name(image)} has an entry without a caption: give {FORMATS}")
        found.setdefault(image, []).append(entry["caption"])
    _refuse([image for image, group in found.items() if not isinstance(group, list)], _shown(path),
            f"neither a caption nor a list of captions: give {FORMATS}")
    _refuse([image for image, group in found.items() if not all(isinstance(text, str) for text in group)], _shown(path),
            'a caption that is no text: give "" where there is none')  # fmt: skip
    if not any(found.values()):
        raise InputError(f"{_shown(path)} holds no captions: give {FORMATS}")
    return found


def _load(path: str | Path) -> object:
    from helpers.data.caption_file import decode

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):  # json would keep the last and say nothing
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{_shown(path)}: {_name(twice)} is there twice as a key: keep one")
        return found

    try:
        return json.loads(decode(Path(path)), object_pairs_hook=unique)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{_shown(path)} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_shown(path)} is no JSON ({error}): give {FORMATS}") from error


def _image(path: str | Path, entry: object, key: str, where: str) -> str:
    """The picture of one entry, as text."""
    image = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(image, bool) or not isinstance(image, int | str):
        raise InputError(f'{_shown(path)}: {where} has no "{key}" that is text or a whole number: give {FORMATS}')
    return str(image)


def _refuse(images: list[str], file: str, problem: str) -> None:
    if images:
        more = f" (and {len(images) - 1:,} more)" if len(images) > 1 else ""
        raise InputError(f"{file}: image_id {_name(images[0])}{more}: {problem}")


def _name(image: str) -> str:
    """A picture's name as one line of printable letters."""
    return image if image.isprintable() and image else ascii(image)


def _shown(path: str | Path) -> str:
    from helpers.environment import shown

    return shown(path)


def _check_out(options: argparse.Namespace) -> None:
    """Before the scores are computed, not after."""
    out = options.json
    if out and Path(out).is_dir():
        raise InputError(f"{_shown(out)} is a folder: give a file (--json)")
    if out and any(os.path.realpath(out) == os.path.realpath(path) for path in (options.predictions, options.references)):
        raise InputError(f"{_shown(out)} is one of the files to read: give another (--json)")


def _write(path: str, content: object) -> None:
    from helpers.files import write_json

    try:
        write_json(path, content)
    except OSError as error:
        raise InputError(f"{_shown(path)} cannot be written ({error.strerror}): give another file (--json)") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.score", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", metavar="predictions.json", help="one caption a picture")
    parser.add_argument("references", metavar="references.json", help="what people said, one caption a picture or more")
    parser.add_argument("--json", metavar="OUT", help='also write {metric: {"value", "low", "high"}} to this file; a score '
                        'that could not be computed is null there, with the reason under "missing"')
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--metrics", nargs="+", metavar="METRIC", help="some only, such as BLEU-4 CIDEr-D (default: all)")
    chosen.add_argument("--quick", action="store_true", help="without METEOR, which takes 8 s to start")
    parser.add_argument("--tokens", choices=(*TOKENS,), default="ptb",
                        help="ptb: tokenize as every published table does; white-space: the captions are tokens already")
    parser.add_argument("--pictures", metavar="DIR", help="where the pictures lie: also CLIPScore and RefCLIPScore")
    parser.add_argument("--clip", default="ViT-B/32", metavar="NAME_OR_FILE",
                        help="the CLIP that scores (default: %(default)s, the published one)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of CLIP (default: %(default)s)")
    parser.add_argument("--subset", action="store_true", help="score the predicted pictures alone, where the references "
                        "have more, as COCO's validation set has more than its Karpathy test split")
    return parser


if __name__ == "__main__":
    sys.exit(main())
