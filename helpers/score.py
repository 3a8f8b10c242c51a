"""Score captions in a file: `python -m helpers.score predictions.json references.json [--json OUT]`.

Prints each score with its 95 % interval over pictures. Either file may be in any of these formats, picture names being
numbers or text:

    [{"image_id": 9, "caption": "A dog runs."}, ...]                           COCO's results: a caption a picture
    {"images": [{"id": 9}, ...], "annotations": [{"image_id": 9, ...}, ...]}   COCO's annotations: several
    {"dog.jpg": ["A dog runs.", "The dog is brown."], ...}                     this project's

Every picture of the references needs one prediction. An empty one is scored, as 0; a blank reference is left out.
BLEU, METEOR, ROUGE-L and CIDEr-D are always computed, CLIPScore with --pictures, BERTScore with --bert, SPICE with --spice.
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
    from helpers.comparison import Comparison

FORMATS = ('[{"image_id": 9, "caption": "A dog runs."}, ...], {"annotations": [the same, ...]}, or '
           '{"dog.jpg": ["A dog runs.", ...], ...}')  # fmt: skip
TOKENS = {"ptb": "ptb", "white-space": "whitespace"}  # as the command line says it: as metrics.compare does

BY_CLIP = ("CLIPScore", "RefCLIPScore")  # clipscore.METRICS, which torch comes with
LEFT_OUT = {  # what is computed only where it was asked for, and how
    "pictures": "CLIPScore and RefCLIPScore look at the pictures, and are computed with --pictures DIR",
    "bert": "BERTScore reads with a language model, and is computed with --bert (roberta-large, 1.4 GB) or --bert DIR",
    "spice": "SPICE takes minutes, and is computed with --spice once `make spice` has brought its jars",
}


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
    from helpers.comparison import missing_notes

    _check_out(options)
    by_tokens, by_clip, by_bert = _asked(options)
    predictions, references = read_pair(options.predictions, options.references, subset=options.subset)
    parts, missing = [], {}
    # CLIP first, so that a wrong folder is told at once; last what takes longest.
    for compute, metrics in ((_by_clip, by_clip), (_by_bert, by_bert), (_by_tokens, by_tokens)):
        if metrics:
            try:
                parts.append(compute(options, predictions, references, metrics))
            except OfflineError as error:
                missing |= dict.fromkeys(metrics, str(error))
    scores = {m: score for part in parts for m, score in part["predictions"].metrics.items()}
    notes = [*dict.fromkeys(note for part in parts for note in part.notes), *missing_notes(missing)]
    for part in parts:
        missing |= part.missing
    asked = [*by_tokens, *by_clip, *by_bert]
    width = max(map(len, asked)) + 2
    for metric in asked:
        if metric in scores:
            print(f"{metric:<{width}}{scores[metric]}")
    if not options.metrics and not options.quick:
        notes += [note for option, note in LEFT_OUT.items() if not getattr(options, option)]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not scores:
        raise InputError("no score could be computed")
    if options.json:
        _write(options.json, {metric: scores[metric].to_json() if metric in scores else
                              {"value": None, "low": None, "high": None, "missing": missing[metric]}
                              for metric in asked})  # fmt: skip
    return 1 if missing else 0


def _asked(options: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """The metrics to compute: of tokens, by CLIP, and by BERT.

    A name of --metrics may lack what follows its hyphen: "BLEU" is all four, "BERTScore" what the model of --bert allows.
    Raises InputError for one that is unknown, or needs an option that was not given.
    """
    from helpers.bertscore import METRICS as BERT
    from helpers.bertscore import MODEL, RESCALED, metrics_of
    from helpers.scorers import METRICS, QUICK, SCORERS

    if options.bert_layer is not None and not options.bert:
        raise InputError("--bert-layer says which layer of --bert is read: add --bert DIR")
    families = [SCORERS, BY_CLIP, (*BERT, *RESCALED)]
    known = [metric for family in families for metric in family]
    by_bert = metrics_of(options.bert, options.bert_layer) if options.bert else BERT  # what the name BERTScore stands for
    named: list[str] = []
    for name in options.metrics or ():
        found = [m for m in known if m.casefold() == name.casefold()]
        found = found or [m for m in (*SCORERS, *BY_CLIP, *by_bert) if m.casefold().startswith(f"{name.casefold()}-")]
        if not found:
            raise InputError(f"unknown metric {name!r} (--metrics): choose from {', '.join(known)}")
        named += found
    tokens, clip, bert = ([metric for metric in family if metric in named] for family in families)
    if clip and not options.pictures:
        raise InputError(f"{clip[0]} looks at the pictures: say where they are (--pictures DIR)")
    if bert and not options.bert:
        raise InputError(f"{bert[0]} reads with a language model: add --bert for roberta-large, or --bert DIR --bert-layer N")
    if options.bert and options.bert_layer is None and Path(options.bert).name != MODEL:
        raise InputError(f"{_shown(options.bert)}: say which of its layers is read (--bert-layer N)")
    if not named:
        tokens = [*(QUICK if options.quick else METRICS)]
    if options.spice and "SPICE" not in tokens:
        tokens.append("SPICE")
    if options.pictures and not clip:
        clip = [*BY_CLIP]
    if options.bert and not bert:
        bert = [*by_bert]
    return tokens, clip, bert


def _by_tokens(
    options: argparse.Namespace, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: list[str]
) -> Comparison:
    from helpers.metrics import compare

    tokenize = TOKENS[options.tokens]
    return compare({"predictions": predictions}, references, metrics=metrics, tokenize=tokenize, keep_going=True)


def _by_bert(
    options: argparse.Namespace, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: list[str]
) -> Comparison:
    """BERTScore. Raises OfflineError without its model, InputError without its layer."""
    from helpers.bertscore import compare_by_bert

    found = compare_by_bert({"predictions": predictions}, references, model=options.bert, layer=options.bert_layer,
                            device=options.device)  # fmt: skip
    # Only those that are rescaled can be absent, and the last note says why.
    found.missing.update({metric: found.notes[-1] for metric in metrics if metric not in found["predictions"].metrics})
    return found


def _by_clip(
    options: argparse.Namespace, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], _: list[str]
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
                                     usage="%(prog)s predictions.json references.json [options]",
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
    parser.add_argument("--bert", metavar="NAME_OR_DIR", nargs="?", const="roberta-large",
                        help="also BERTScore, read by roberta-large or by a model of BERT's kind that you name")
    parser.add_argument("--bert-layer", metavar="N", type=int, help="which of its layers is read (roberta-large: 17)")
    parser.add_argument("--spice", action="store_true", help="also SPICE, which takes minutes: they are estimated first")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of CLIP and BERT (default: %(default)s)")
    parser.add_argument("--subset", action="store_true", help="score the predicted pictures alone, where the references "
                        "have more, as COCO's validation set has more than its Karpathy test split")
    return parser


if __name__ == "__main__":
    sys.exit(main())
