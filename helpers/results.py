"""Scores on disk: one JSON a run, with what made them; tables are printed from it, never typed.

    python -m helpers.results outputs           # what the last run measured, and where its pictures lie
    python -m helpers.results outputs --keep    # copy it to results/ and put the tables into the README
    python -m helpers.results results           # what is kept
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.environment import ROOT, Run, provenance, shown
from helpers.errors import InputError
from helpers.files import atomic_path, write_json

if TYPE_CHECKING:
    from helpers.metrics import Comparison

KEPT = ROOT / "results"
# Column -> (key of a record's costs, how it is written)
COSTS = {"trained parameters": ("trainable", "{:,}"), "training minutes": ("minutes", "{:.1f}"),
         "captions a second": ("per_second", "{:.0f}")}  # fmt: skip
BEGIN, END = "<!-- results: written by python -m helpers.results --keep -->", "<!-- /results -->"
SHOWN = ("CIDEr-D", "BLEU-4", "METEOR", "ROUGE-L", "SPICE", "CLIPScore")
FOR_ALL = ("06_evaluation", "05_contrastive_retrieval")  # notebooks that compare all systems: in the README, if recorded


def save_record(run: Run, comparison: Comparison | None = None, **extra: object) -> Path:
    """Write outputs/NOTEBOOK/record.json: minutes, memory, seed, commit, hardware, and the scores where there are any."""
    record = {
        "notebook": run.notebook,
        "profile": run.profile,
        "dataset": run.dataset,
        "seed": run.seed,
        "minutes": round((time.perf_counter() - run.started) / 60, 2),
        "memory_gb": peak_memory(),
        **provenance(),
        **extra,
        "systems": {} if comparison is None else comparison.to_json(),
    }
    return write_json(run.output_dir / "record.json", record)


def peak_memory() -> float | None:
    """The most memory that this process has held so far, in GB; None on Windows, which does not keep count."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2)


def read_records(folder: Path) -> list[dict]:
    """The records in `folder`: a notebook's outputs (NOTEBOOK/record.json) or kept ones (NOTEBOOK.PROFILE.json)."""
    paths = sorted({*folder.glob("*/record.json"), *folder.glob("*.*.json")})
    if not paths:
        raise InputError(f"{shown(folder)} holds no records: run the notebooks first (make run)")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def table(scores: dict[str, dict], metrics: Sequence[str], costs: dict[str, dict] | None = None) -> str:
    """Scores by system and metric as a Markdown table, value [low, high], and what each system costs where that is known."""
    metrics = [metric for metric in metrics if any(metric in row for row in scores.values())]
    columns = ["system", *metrics, *(COSTS if costs else ())]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for system, row in scores.items():
        cells = ["{value:.3f} [{low:.2f}, {high:.2f}]".format(**row[m]) if m in row else "" for m in metrics]
        if costs:
            cells += [how.format(costs[system][name]) if costs.get(system, {}).get(name) is not None else ""
                      for name, how in COSTS.values()]  # fmt: skip
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(record: dict) -> str:
    """The record's tables under a line that says what was measured, on what, by which commit."""
    head = "{notebook}, {profile} profile: {dataset}, seed {seed}, {minutes} minutes on {hardware}, commit {commit}"
    parts = [head.format(**record)]
    if record["systems"]:
        parts.append(table(record["systems"], SHOWN, record.get("costs")))
    if recall := record.get("recall"):
        parts.append(table(recall, list(dict.fromkeys(metric for row in recall.values() for metric in row))))
    return "\n\n".join(parts)


def write_readme(readme: Path, records: list[dict]) -> None:
    """Replace what stands between the README's two results marks: all records with scores, or those FOR_ALL systems alone.

    Raises InputError where a mark is missing.
    """
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InputError(f"{readme.name} lacks the marks {BEGIN} and {END}")
    for_all = [record for name in FOR_ALL for record in records if record["notebook"] == name]
    if for_all and for_all[0]["notebook"] == FOR_ALL[0]:
        # The captions that notebook 05 scores are in the other table: of its own it has the recall.
        records = [record | {"systems": {}} if record.get("recall") else record for record in for_all]
    scored = "\n\n".join(summary(record) for record in records if record["systems"] or record.get("recall"))
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
