"""The table of the parity suite: one row a case, printed, and kept in a document between two marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.parity.case import GROUPS, Case, all_cases

BEGIN: Final = "<!-- parity: made by `make parity` from here on -->"
END: Final = "<!-- parity: up to here -->"
HEAD: Final = (
    "| case | what is the same | scrapy | 1 process | 3 processes | note |",
    "| --- | --- | --- | --- | --- | --- |",
)
#: The property of a test's report that holds its row.
PROPERTY: Final = "parity-row"
_ROW: Final = re.compile(r"^\| `(?P<name>[\w-]+)` \|.*\|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """How a case came out."""

    case: str
    #: What ``scrapy crawl`` did.
    scrapy: str
    one: str
    three: str
    note: str

    @classmethod
    def from_data(cls, data: Any) -> Row:
        """Take it back from a test report, which holds plain data."""
        return cls(*(str(value) for value in data))

    def to_data(self) -> list[str]:
        """As plain data."""
        return [self.case, self.scrapy, self.one, self.three, self.note]

    def to_markdown(self, case: Case) -> str:
        """As a row of the document."""
        cells = (f"`{self.case}`", case.shows, self.scrapy, self.one, self.three, self.note)
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def printed(rows: Iterable[Row]) -> Iterator[str]:
    """The table for the terminal, in lines."""
    table = [("case", "scrapy", "1 process", "3 processes", "note")]
    table += [(row.case, row.scrapy, row.one, row.three, row.note) for row in rows]
    widths = [max(len(cells[column]) for cells in table) for column in range(4)]
    for cells in table:
        columns = [cell.ljust(width) for cell, width in zip(cells, [*widths, 0], strict=True)]
        yield "  ".join(columns).rstrip()


def update(document: Path, rows: Iterable[Row]) -> None:
    """Put rows into a document, in the order of the cases; those of cases that were not run stay, if they exist."""
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    table, after = rest.split(END, 1)
    lines = {found["name"]: found[0] for found in _ROW.finditer(table)}
    cases = list(all_cases())
    by_name = {case.name: case for case in cases}
    lines.update({row.case: row.to_markdown(by_name[row.case]) for row in rows if row.case in by_name})
    parts = [BEGIN]
    for group, title in GROUPS.items():
        found = [lines[case.name] for case in cases if case.group == group and case.name in lines]
        if found:
            parts.append("\n".join([f"### {title}", "", *HEAD, *found]))
    document.write_text(before + "\n\n".join(parts) + "\n\n" + END + after, encoding="utf-8")


def names(document: Path) -> list[str]:
    """The cases that have a row in a document."""
    return [found["name"] for found in _ROW.finditer(document.read_text(encoding="utf-8"))]
