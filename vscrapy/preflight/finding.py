"""What the preflight has to say: one value a finding, with where, what, why and what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """How bad it is."""

    #: The crawl runs, and does something else than with ``scrapy crawl``.
    DIFFERS = "differs"
    #: The crawl is not sent.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Where:
    """A line of a file of the project, or a setting that stands in none."""

    path: Path | None = None
    line: int = 0
    #: The setting, where no file has it.
    setting: str = ""

    def __str__(self) -> str:
        if self.path is None:
            return self.setting
        here = os.path.relpath(self.path)
        return f"{self.path if here.startswith(os.pardir) else here}:{self.line}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in the project that behaves otherwise on several crawl processes."""

    #: Short and stable, such as ``state-on-self``.
    code: str
    where: Where
    what: str
    why: str
    do: str
    severity: Severity = Severity.DIFFERS
    #: One crawl process (``--workers 1``) does as ``scrapy crawl``.
    is_void_alone: bool = True
