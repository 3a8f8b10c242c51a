"""What was wrong with a dataset: counted and shown, so that nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

EXAMPLES = 3  # kept of each kind of problem

# Each kind of problem, and what was done about it. The order is that of the text.
REPAIRED = "rows without their delimiter, repaired"
MALFORMED = "malformed rows, dropped"
EMPTY = "empty captions, dropped"
DUPLICATE = "duplicate rows, dropped"
MISSING = "listed pictures that are not on disk, dropped"
UNCAPTIONED = "pictures of the split lists without captions, passed over"
KINDS = (REPAIRED, MALFORMED, EMPTY, DUPLICATE, MISSING, UNCAPTIONED)


@dataclass
class Report:
    """Counted problems of one dataset with the first few examples of each. `str(report)` is a short text for people."""

    summary: str = ""  # one line: what was kept
    notes: list[str] = field(default_factory=list)  # what a user of this dataset should know
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, kind: str, example: str) -> None:
        """Count one more problem of this kind."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(example)

    @property
    def clean(self) -> bool:
        """Whether nothing at all was found wrong."""
        return not any(self.counts.values())

    def __str__(self) -> str:
        lines = [self.summary] if self.summary else []
        if self.clean:
            lines.append("no problems found")
        for kind, count in self.counts.items():
            if count:
                lines.append(f"{kind}: {count:,}")
                lines += [f"    {example}" for example in self.examples[kind]]
                if count > EXAMPLES:
                    lines.append(f"    and {count - EXAMPLES:,} more")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
