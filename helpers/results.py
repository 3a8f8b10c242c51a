"""Scores on disk: one JSON a run, with what made them; tables are printed from it, never typed.

    python -m helpers.results outputs           # what the last run measured, and where its pictures lie
    python -m helpers.results outputs --keep    # copy it to results/ and put the table into the README
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.environment import ROOT, Run, provenance, shown
from helpers.errors import InputError
from helpers.files import atomic_path, write_json

if TYPE_CHECKING:
    from helpers.metrics import Comparison

KEPT = ROOT / "results"
BEGIN, END = "<!-- results: written by python -m helpers.results --keep -->", "<!-- /results -->"
SHOWN = ("BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D")


def save_record(run: Run, comparison: Comparison | None = None, **extra: object) -> Path:
    """Write outputs/NOTEBOOK/record.json: minutes, seed, commit, hardware, and the scores where there are any."""
    record = {
        "notebook": run.notebook,
        "profile": run.profile,
        "dataset": run.dataset,
        "seed": run.seed,
        "minutes": round((time.perf_counter() - run.started) / 60, 2),
        **provenance(),
        **extra,
        "systems": {} if comparison is None else comparison.to_json(),
    }
    return write_json(run.output_dir / "record.json", record)


def read_records(folder: Path) -> list[dict]:
    """The records in `folder`: a notebook's outputs (NOTEBOOK/record.json) or kept ones (NOTEBOOK.PROFILE.json)."""
    paths = sorted({*folder.glob("*/record.json"), *folder.glob("*.*.json")})
    if not paths:
        raise InputError(f"{shown(folder)} holds no records: run the notebooks first (make run)")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def table(record: dict) -> str:
    """A record's scores as a Markdown table: value [low, high], a row a system."""
    rows = record["systems"]
    metrics = [metric for metric in SHOWN if any(metric in scores for scores in rows.values())]
    lines = ["| system | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    for system, scores in rows.items():
        cells = ["{value:.3f} [{low:.3f}, {high:.3f}]".format(**scores[m]) if m in scores else "" for m in metrics]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(record: dict) -> str:
    """The table under a line that says what was measured, on what, by which commit."""
    head = "{notebook}, {profile} profile: {dataset}, seed {seed}, {minutes} minutes on {hardware}, commit {commit}"
    return head.format(**record) + ("\n\n" + table(record) if record["systems"] else "")


def write_readme(readme: Path, records: list[dict]) -> None:
    """Replace what stands between the README's two results marks. Raises InputError where a mark is missing."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InputError(f"{readme.name} lacks the marks {BEGIN} and {END}")
    scored = "\n\n".join(summary(record) for record in records if record["systems"])
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with atomic_path(readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{scored}\n{END}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.results", description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "outputs", help="default: outputs")
    parser.add_argument("--keep", action="store_true", help="copy to results/ and write the README's table")
    options = parser.parse_args(arguments)
    try:
        records = read_records(options.folder)
        print("\n\n".join(summary(record) for record in records))
        for sheet in sorted(options.folder.glob("*/captions.png")):
            print(f"\ncaptioned pictures: {shown(sheet)}")
        if options.keep:
            for record in records:
                name = f"{record['notebook']}.{record['profile']}"
                write_json(KEPT / f"{name}.json", record)
                sheet = options.folder / record["notebook"] / "captions.png"
                if sheet.is_file():
                    shutil.copyfile(sheet, KEPT / f"{name}.png")
            write_readme(ROOT / "README.md", read_records(KEPT))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
