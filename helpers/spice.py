"""SPICE: do caption and references say the same things of the same objects?

Each text is parsed into a scene graph, the graph is taken apart into tuples (an object; an object and its attribute; two
objects and their relation), and SPICE is the F-score of the caption's tuples against those of all references together,
synonyms counted as equal.

The jar is pycocoevalcap's own. Its Stanford CoreNLP 3.6.0, 385 MB, is not in the package: `make spice` brings it.

Source: Anderson et al. (2016), "SPICE: Semantic Propositional Image Caption Evaluation", arXiv 1607.08822, equations 2-4.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from helpers import java
from helpers.environment import find_place, find_work_dir, progress_wanted, require_network, shown
from helpers.errors import InputError
from helpers.files import atomic_path

Captioned = tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]  # gts and res, as in `spice`
JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
FOLDER = find_work_dir(find_place()) / "data" / "spice"  # not the project's own, where that is read-only
# The parser's time and memory grow with the cube of the length: 2 s for 60 words, 28 s and 3 GB for 200. People's
# captions have at most some 80 words, so only broken ones are cut here.
SPICE_WORDS = 80

# Where the cache's library reaches into; Java 16 and later close these packages.
_OPENED = ("java.lang", "java.math", "java.util", "java.util.concurrent", "java.net", "java.text")
# The last thing that the jar does is to pretty-print its JSON in JavaScript, which Java 15 and later do not have: these
# are the instructions from `new ScriptEngineManager()` to `aload 13; aload 17`, the file and the printed text. In their
# place come as many that do nothing (0), and `aload 14`, the JSON as it was.
_PRETTY_PRINTING = bytes.fromhex(
    "bb005859b700593a0f190f125ab6005b3a101910125c190eb9005d0300"
    "1910125eb9005f02005719101260b900610200c000373a11" "190d1911"
)  # fmt: skip
_NO_PRINTING = bytes(len(_PRETTY_PRINTING) - 4) + bytes.fromhex("190d190e")
_SCORER = "edu/anu/spice/SpiceScorer.class"


def spice(gts: Mapping[str, Sequence[str]], res: Mapping[str, Sequence[str]], jars: str | Path | None = None) -> np.ndarray:
    """SPICE, 0 to 1, of each picture: (P,) in the order of gts. As in pycocoevalcap, SPICE of a corpus is their mean.

    gts: {image: references}, res: {image: [caption]}, tokenized or not; pycocoevalcap gives it PTB tokens.
    jars: the folder with CoreNLP's two jars, where it is not one that `find_jars` looks into.

    0 where there is nothing to compare: an empty caption, or references in which SPICE finds no object. Of each caption
    the first 80 words are read. Errors as in `spice_counts`.
    """
    matched, said, wanted = spice_counts(gts, res, jars).T
    return 2 * matched / np.maximum(said + wanted, 1)


def spice_counts(
    gts: Mapping[str, Sequence[str]], res: Mapping[str, Sequence[str]], jars: str | Path | None = None
) -> np.ndarray:
    """The tuples of each picture: (P, 3) matched, in the caption, in the references; SPICE is 2 * matched / (the others).

    A picture whose last count is 0 scores 0 whatever its caption says. What has been counted once in this Python process
    is not counted again. Raises InputError where CoreNLP or Java is missing, RuntimeError where SPICE fails or leaves out
    a picture, which is named.
    """
    pairs = _pairs(gts, res)
    new = {pair: image for image, pair in pairs.items() if pair not in _counted}
    if new:
        _counted.update(zip(new, _count(list(new), list(new.values()), find_jars(jars)), strict=True))
    return np.array([_counted[pair] for pair in pairs.values()], dtype=float)


def spice_minutes(pictures: int, references: float, systems: int = 1) -> float:
    """About how long it will take this machine to score so many systems, with so many references a picture.

    Measured: 10 s for a start, and 0.05 s of one core for a text of 12 words (900 of them: 57 s of processor time);
    0.07 here, since cores are seldom idle. References are parsed once, for the first system.
    """
    return (10 * systems + 0.07 * pictures * (references + systems) / _threads()) / 60


def announce(corpora: Sequence[Captioned]) -> None:
    """Say on stderr how long it will take to score these, before the minutes go by.

    Says nothing where all has been counted, where the jars are missing, or under CAPTIONING_PROGRESS=0.
    """
    runs = [pairs for pairs in (_pairs(*corpus) for corpus in corpora) if not _counted.keys() >= set(pairs.values())]
    with contextlib.suppress(InputError):
        if runs and progress_wanted() and find_jars():
            pictures, texts = len(runs[0]), len({text for pairs in runs for _, group in pairs.values() for text in group})
            minutes = max(1, round(spice_minutes(pictures, texts / pictures, len(runs))))
            print(f"SPICE: {pictures * len(runs):,} captions and {texts:,} references, about {minutes:,} "
                  f"minute{'s' * (minutes > 1)}", file=sys.stderr, flush=True)  # fmt: skip


def without_scene(corpora: Sequence[Captioned]) -> list[str]:
    """The pictures, of those that have been counted, in whose references SPICE finds nothing to compare."""
    counts = {image: _counted.get(pair) for corpus in corpora for image, pair in _pairs(*corpus).items()}
    return [image for image, found in counts.items() if found and found[2] == 0]


def find_jars(folder: str | Path | None = None) -> list[Path]:
    """CoreNLP's two jars: in `folder`, else the one named by CAPTIONING_SPICE_JARS, else pycocoevalcap's, else data/spice.

    Raises InputError, which says how to get them, where one of the two is missing or was not downloaded to its end.
    """
    given = folder or os.environ.get("CAPTIONING_SPICE_JARS")
    places = [Path(given).expanduser()] if given else [_package() / "lib", FOLDER]
    for place in places:
        found = [place / jar for jar in JARS]
        if all(jar.is_file() for jar in found):
            if broken := [jar for jar in found if not zipfile.is_zipfile(jar)]:
                raise InputError(f"{shown(broken[0])} is no whole jar: delete it and run `make spice`")
            return found
    looked = "the folder of pycocoevalcap and data/spice" if not given else shown(places[0])
    raise InputError(
        f"SPICE needs {JARS[0]} and {JARS[1]}, and {looked} did not hold both. `make spice`, or `python -m helpers.spice`, "
        "brings them into data/spice (385 MB, by pycocoevalcap's own download or by Maven); or name the folder that holds "
        "them in CAPTIONING_SPICE_JARS."
    )


def bring_jars() -> list[Path]:
    """What `make spice` does: the two jars come into data/spice, where `find_jars` finds none.

    By pycocoevalcap's own download from Stanford, else as Maven artifacts where mvn is installed. Raises InputError with
    both reasons where neither works.
    """
    with contextlib.suppress(InputError):
        return find_jars()
    problems = []
    for bring in (_from_stanford, _from_maven):
        try:
            with atomic_path(FOLDER) as folder:
                folder.mkdir()
                bring(folder)
                find_jars(folder)  # both, and whole
            return find_jars(FOLDER)
        except (InputError, OSError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            problems.append(str(error))
    raise InputError("SPICE's jars could not be brought. " + " And: ".join(problems))


def _from_stanford(folder: Path) -> None:
    from pycocoevalcap.spice import get_stanford_models as package

    require_network("http://nlp.stanford.edu", what="CoreNLP 3.6.0", instead=f"Put {' and '.join(JARS)} into data/spice.")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "lib").mkdir()
        package.SPICEDIR = scratch  # it would write into its own folder
        package.get_stanford_models()
        for jar in JARS:
            shutil.move(Path(scratch) / "lib" / jar, folder)


def _from_maven(folder: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise InputError("mvn, which would bring the same jars from a Maven repository, is not installed.")
    for classifier in ("", ":jar:models"):
        artifact = f"edu.stanford.nlp:stanford-corenlp:3.6.0{classifier}"
        print(f"mvn dependency:copy {artifact}", flush=True)
        command = [mvn, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True, timeout=1800)


Pair = tuple[str, tuple[str, ...]]  # a caption and its references, as SPICE reads them
_counted: dict[Pair, tuple[int, int, int]] = {}


def _pairs(gts: Mapping[str, Sequence[str]], res: Mapping[str, Sequence[str]]) -> dict[str, Pair]:
    return {image: (_read(res[image][0]), tuple(map(_read, references))) for image, references in gts.items()}


def _count(pairs: list[Pair], names: list[str], corenlp: list[Path]) -> list[tuple[int, int, int]]:
    """Run the jar once on (caption, references) pairs; `names` are those of their pictures."""
    bench = Path(_workbench().name)
    asked = [{"image_id": n, "test": caption, "refs": references} for n, (caption, references) in enumerate(pairs)]
    jars = [_package() / "spice-1.0.jar", *sorted((_package() / "lib").glob("*.jar")), *corenlp]
    command = [java.ensure_java(), f"-Xmx{_heap_gb()}g", f"-Djava.io.tmpdir={bench}", *_options(_java_version())]
    command += ["-cp", os.pathsep.join(map(str, [bench, *dict.fromkeys(jars)])), "edu.anu.spice.SpiceScorer"]
    with tempfile.TemporaryDirectory(dir=bench) as scratch:
        question, answer = Path(scratch) / "captions.json", Path(scratch) / "scores.json"
        question.write_text(json.dumps(asked), encoding="ascii")
        command += [str(question), "-out", str(answer), "-silent", "-threads", str(_threads())]
        if platform.system() == "Linux" and platform.machine() == "x86_64":  # what its library is built for
            command += ["-cache", str(bench / "cache")]
        result = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True)
        if result.returncode or not answer.is_file():
            raise RuntimeError(f"SPICE failed (heap {_heap_gb()} GB): {java._last(result.stderr)}")
        answered = {row["image_id"]: row["scores"]["All"] for row in json.loads(answer.read_text(encoding="utf-8"))}
    if silent := [name for n, name in enumerate(names) if n not in answered]:
        more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
        raise RuntimeError(f"SPICE said nothing of {', '.join(map(str, silent[:3]))}{more}: {java._last(result.stderr)}")
    rows = [answered[n] for n in range(len(pairs))]
    return [(row["tp"], row["tp"] + row["fp"], row["tp"] + row["fn"]) for row in rows]


@functools.cache
def _workbench() -> tempfile.TemporaryDirectory:
    """A folder that lives as long as this Python process: the patched class, and the parsed references."""
    folder = tempfile.TemporaryDirectory(prefix="spice-", ignore_cleanup_errors=True)
    scorer = Path(folder.name) / _SCORER
    scorer.parent.mkdir(parents=True)
    with zipfile.ZipFile(_package() / "spice-1.0.jar") as jar:
        scorer.write_bytes(jar.read(_SCORER).replace(_PRETTY_PRINTING, _NO_PRINTING))
    (Path(folder.name) / "cache").mkdir()
    return folder


def _read(text: str) -> str:
    """What SPICE gets to read of a text."""
    return " ".join(java.clean(text).split()[:SPICE_WORDS])


def _package() -> Path:
    from pycocoevalcap import spice as package

    return Path(package.__file__).parent


def _java_version() -> int:
    """8, 11, 17, ... of the Java that `ensure_java` finds."""
    said = subprocess.run([java.ensure_java(), "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)  # "1.8.0_392" is Java 8
    if found is None:
        raise RuntimeError(f"this Java does not say its version: {said.strip()[:200]}")
    return int(found[1])


def _options(version: int) -> list[str]:
    """What Java of this version needs on its command line. Java 8 refuses what Java 16 and later need."""
    return [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED] if version >= 16 else []


def _heap_gb() -> int:
    """Half of the memory, at least 2 GB and at most 8, which is what pycocoevalcap takes."""
    memory = 8e9
    with contextlib.suppress(AttributeError, ValueError):  # no sysconf on Windows
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # a container's own limit; the file says "max" where there is none
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return int(min(max(memory / 2e9, 2), 8))


def _threads() -> int:
    """One a core, and 1 GB of heap for each: a long caption takes that much."""
    return max(1, min(os.cpu_count() or 1, _heap_gb() - 1))


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m helpers.spice", description="Bring CoreNLP's jars (385 MB) into data/spice, for the score SPICE."
    ).parse_args()
    try:
        print("SPICE's jars:", ", ".join(shown(jar) for jar in bring_jars()))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
