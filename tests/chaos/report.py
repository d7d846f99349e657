"""What came of one crawl, and the table of many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

#: The kinds of violations, as the table's columns are called.
KINDS: Final = (
    "pages missing",
    "items missing",
    "items twice",
    "stats wrong",
    "ended wrong",
    "processes left",
    "keys left",
)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    kind: str
    text: str
    #: How many pages, items, stats, processes or keys.
    n: int = 1


@dataclass(slots=True)
class Report:
    """One crawl."""

    seed: int
    crawl: int
    #: The faults that struck, and how often each.
    faults: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self) | {"faults": dict(self.faults)})

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what :meth:`to_json` gave."""
        data = json.loads(text)
        data["faults"] = Counter(data["faults"])
        data["violations"] = [Violation(**violation) for violation in data["violations"]]
        return cls(**data)

    def lines(self) -> list[str]:
        """What happened, and which promises were not kept."""
        violations = [f"{violation.kind} ({violation.n}): {violation.text}" for violation in self.violations]
        again = f"once more: make chaos SEED={self.seed} CRAWL={self.crawl}"
        return [*self.story, *violations, again]


def table(reports: Sequence[Report]) -> list[str]:
    """The table, in Markdown: one row a fault, and one for all crawls."""
    heads: tuple[str, ...] = ("fault", "times", "crawls", "pages", *KINDS, "longest crawl (s)")
    rows = [heads]
    for fault in sorted({fault for report in reports for fault in report.faults}):
        rows.append(_row(fault, fault, [report for report in reports if fault in report.faults]))
    rows.append(_row("all", None, reports))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = [
        "| "
        + " | ".join(cell.rjust(width) if n else cell.ljust(width) for n, (cell, width) in enumerate(pairs))
        + " |"
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    rule = "| " + " | ".join("-" * (width - 1) + ("-" if not n else ":") for n, width in enumerate(widths)) + " |"
    return [lines[0], rule, *lines[1:]]


def _row(name: str, fault: str | None, reports: Sequence[Report]) -> tuple[str, ...]:
    times = sum(report.faults[fault] if fault else report.faults.total() for report in reports)
    counts = Counter[str]()
    for report in reports:
        for violation in report.violations:
            counts[violation.kind] += violation.n
    pages = sum(report.pages for report in reports)
    longest = max((report.seconds for report in reports), default=0.0)
    numbers = (times, len(reports), pages, *(counts[kind] for kind in KINDS))
    return (name, *(f"{number}" for number in numbers), f"{longest:.0f}")
