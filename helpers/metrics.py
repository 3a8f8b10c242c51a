"""How good are the captions? Several systems scored on the same pictures, with intervals.

    comparison = compare({"clipcap": captions, "nearest": others}, references)
    comparison.table()                                        # 0.531 [0.48, 0.58]
    comparison.difference("clipcap", "nearest", "CIDEr-D")    # the paired interval

The scores are those of pycocoevalcap (Chen et al., 2015, "Microsoft COCO Captions") on PTB tokens: see `scorers.py`.
What comes back, intervals and differences included, is in `comparison.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from helpers import java
from helpers.comparison import HUMAN, Comparison, Score, Scores, check, common_notes, draw, missing_notes, named, refuse
from helpers.comparison import Interval as Interval
from helpers.comparison import mean_score as mean_score
from helpers.errors import InputError
from helpers.scorers import METRICS, READ, SCORERS, Corpus
from helpers.scorers import QUICK as QUICK
from helpers.spice import announce, without_scene

TOKENIZERS = ("ptb", "whitespace")


def compare(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] = METRICS,
    resamples: int = 1000,
    seed: int = 0,
    tokenize: str = "ptb",
    human: bool = False,
    keep_going: bool = False,
) -> Comparison:
    """Score every system ({name: {image: caption}}) on the same pictures ({image: reference captions}).

    metrics: any of METRICS; QUICK leaves out METEOR, which takes 8 s to start.
    tokenize: "ptb" as in every published table, or "whitespace" for captions that are tokens already.
    human: add the row HUMAN, see `human_leave_one_out`.
    keep_going: leave out the metrics whose scorer, or whose tokenizer, cannot run and name them, with the reason, in
    `missing` and `notes`, instead of raising what was raised.
    How long SPICE will take is said on stderr beforehand.
    Raises InputError naming the pictures where a system lacks a caption, has one for a picture without references, or a
    picture has no reference with a word in it; for unknown metrics or tokenizers; and where Java is missing.
    """
    if unknown := [metric for metric in metrics if metric not in SCORERS]:
        raise InputError(f"unknown metrics {unknown}: choose from {', '.join(SCORERS)}; CLIPScore is computed by "
                         "clipscore.compare_by_clip, BERTScore by bertscore.compare_by_bert")  # fmt: skip
    check(systems, references, resamples, human)
    if "METEOR" in metrics:
        with suppress(InputError):  # no Java: its scorer says so when its turn comes
            java.meteor()  # loads in the background while the captions are tokenized
    texts = [text for captions in references.values() for text in captions]
    texts += [text for captions in systems.values() for text in captions.values()]
    try:
        tokens = tokenized(texts, tokenize)
    except (InputError, RuntimeError) as error:
        if not keep_going or tokenize not in TOKENIZERS:
            raise
        missing = dict.fromkeys(metrics, str(error))
        nothing = {name: {} for name in [*systems, *[HUMAN] * human]}
        return Comparison.of(nothing, references, missing_notes(missing), missing)

    gts = {image: [tokens[text] for text in captions if tokens[text]] for image, captions in references.items()}
    refuse([image for image, captions in gts.items() if not captions], "no reference with a word in it")
    corpora = {
        name: [Corpus(gts, {image: [tokens[captions[image]]] for image in gts})] for name, captions in systems.items()
    }
    if human:
        corpora[HUMAN] = _leave_one_out(gts)

    everything = [(corpus.gts, corpus.res) for group in corpora.values() for corpus in group]
    if "SPICE" in metrics:
        announce(everything)
    weights, missing = draw(len(gts), resamples, seed), {}
    found = {name: _score(group, metrics, weights, missing if keep_going else None) for name, group in corpora.items()}
    metrics = [metric for metric in metrics if metric not in missing]  # for one system, so for all
    notes = _notes(systems, references, gts, tokens, metrics, human)
    if "SPICE" in metrics and (bare := without_scene(everything)):
        notes.append(f"SPICE finds no object in the references of {named(bare)}: there, any caption scores 0.")
    notes += missing_notes(missing)
    scored = {name: {metric: scores[metric] for metric in metrics} for name, scores in found.items()}
    return Comparison.of(scored, gts, notes, missing)


def score(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], **options: object) -> Scores:
    """Score one system ({image: caption}); options and errors as in `compare`."""
    return compare({"predictions": predictions}, references, **options)["predictions"]


def human_leave_one_out(references: Mapping[str, Sequence[str]], **options: object) -> Scores:
    """How people score against each other: each picture's i-th caption against its other captions, averaged over i.

    i runs to the smallest number of captions that any picture has. For BLEU and METEOR the corpus scores of the n sets
    of i-th captions are averaged; CIDEr-D takes its document frequencies from the captions left over. With five
    captions a person is scored against four while a system has all five, and BLEU, METEOR and ROUGE-L, which look for
    the best-fitting reference, rise with the number of references: beside systems these three are a little too low, and
    so are RefCLIPScore and BERTScore (`compare_by_clip`, `compare_by_bert`). To compare them fairly, score one person
    as a system, and all systems against the others' captions.
    Options and errors as in `compare`; InputError too where a picture has a single reference.
    """
    return compare({}, references, human=True, **options)[HUMAN]


def tokenized(texts: Iterable[str], tokenize: str = "ptb") -> dict[str, str]:
    """Each text's tokens, joined by spaces. tokenize: as in `compare`. Raises InputError where Java is missing."""
    if tokenize not in TOKENIZERS:
        raise InputError(f"tokenize={tokenize!r}: choose ptb or whitespace")
    return java.ptb_tokenize(texts) if tokenize == "ptb" else {text: java.clean(text) for text in texts}


def _score(
    corpora: list[Corpus], metrics: Sequence[str], weights: np.ndarray, missing: dict[str, str] | None
) -> dict[str, Score]:
    """The metrics of one system, averaged over its corpora: one, or n where people are left out in turn.

    Where a dictionary is given, metrics that cannot run are entered there, and not asked for again.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    asked = [metric for metric in metrics if metric not in (missing or ())]
    scorers = dict.fromkeys(SCORERS[metric] for metric in asked)  # BLEU-1..4 come from one
    for scorer in sorted(scorers, key=lambda scorer: scorer is SCORERS["METEOR"]):  # last: it loads meanwhile
        try:
            answers = [scorer(corpus, weights) for corpus in corpora]
        except (InputError, RuntimeError) as error:
            if missing is None:
                raise
            missing |= {metric: str(error) for metric in asked if SCORERS[metric] is scorer}
            continue
        for answer in answers:
            for metric, arrays in answer.items():
                found.setdefault(metric, []).append(arrays)
    scores = {}
    for metric in [metric for metric in asked if metric not in (missing or ())]:
        if metric not in found:
            raise InputError(f"SCORERS[{metric!r}] has to return {metric!r}; what was returned is {', '.join(found)}")
        per_image, values = (np.mean(arrays, axis=0) for arrays in zip(*found[metric], strict=True))
        scores[metric] = Score.drawn(per_image, values)
    return scores


def _leave_one_out(gts: dict[str, list[str]]) -> list[Corpus]:
    refuse([i for i, captions in gts.items() if len(captions) < 2], "a single reference, nobody to compare with")
    count = min(map(len, gts.values()))
    return [
        Corpus(
            gts={image: captions[:i] + captions[i + 1 :] for image, captions in gts.items()},
            res={image: [captions[i]] for image, captions in gts.items()},
        )
        for i in range(count)
    ]


def _notes(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    gts: dict[str, list[str]],
    tokens: dict[str, str],
    metrics: Sequence[str],
    human: bool,
) -> list[str]:
    """What a reader of these scores has to know, in whole sentences."""
    blank = [image for image, captions in references.items() if len(captions) > len(gts[image])]
    notes = common_notes(len(gts), human, blank)
    if len(gts) == 1 and "CIDEr-D" in metrics:
        notes.append(
            "One picture: CIDEr-D is 0 by definition. It weighs words by how few of the pictures have them in their "
            "references, and every word of a single picture is in the references of all pictures."
        )
    for name, captions in systems.items():
        if silent := [image for image in gts if not tokens[captions[image]]]:
            notes.append(f"{name!r} has captions without a word, which are scored as they are, 0: {named(silent)}.")
    longest = max(len(text.split()) for text in tokens.values())
    for metric, words in READ.items():
        if metric in metrics and longest > words:
            notes.append(f"{metric} read the first {words} words of each caption; the longest has {longest:,}.")
    return notes
