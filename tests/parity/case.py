"""
One case of the parity suite: a project, a command, and what may differ between the crawls of Scrapy and vscrapy.

In the texts of a case, ``http://demo.test`` stands for the demo site, and ``demo.test`` for its host.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from tests.integration.machine import copy_project, write_project

if TYPE_CHECKING:
    from tests.parity.run import Run

#: What two runs are compared by.
Kind = Literal["items", "files", "stats", "exit code", "log", "prints", "requests", "load"]
#: The ways to run a case; the first one is what the others are compared with.
Way = Literal["scrapy", "1 process", "3 processes"]
Group = Literal["start", "requests", "cookies", "limits", "politeness", "output", "shapes", "tasks", "example"]

#: The groups in the order of the table, and what they are about.
GROUPS: Final[Mapping[Group, str]] = {
    "start": "Start",
    "requests": "Requests",
    "cookies": "Cookies",
    "limits": "Limits for the whole task",
    "politeness": "Politeness",
    "output": "Output",
    "shapes": "Project shapes",
    "tasks": "Several tasks at once",
    "example": "The example project",
}
_SITE: Final = "http://demo.test"
_HOST: Final = "demo.test"


@dataclass(frozen=True)
class Unequal:
    """Something of a case that cannot be the same, with the reason; it is left out of the comparison, and shown."""

    kind: Kind
    #: A regular expression; names that it is found in are not compared: of a file, a stat, a message, a request ...
    names: str
    #: One sentence for the table.
    why: str
    #: Where it differs.
    ways: tuple[Way, ...] = ("1 process", "3 processes")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A crawl that is run in three ways."""

    #: Unique; words with hyphens.
    name: str
    group: Group
    #: One sentence: what is the same.
    shows: str
    #: The spiders' module of a small project (see ``write_project``), ``shop/spiders.py``; '': no small project.
    source: str = ""
    #: More lines of the small project's ``settings.py``.
    settings: str = ""
    #: Further files, or all of them: path -> text or bytes.
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    #: Start from a copy of the example project.
    is_example: bool = False
    #: The spider's name; for ``runspider``, its file.
    spider: str = "case"
    command: str = "crawl"
    args: tuple[str, ...] = ("-O", "items.jsonl")
    env: Mapping[str, str] = field(default_factory=dict)
    #: How often the command is run in the same project; the last run is what is compared.
    turns: int = 1
    #: Where the command is run, below the project.
    directory: str = "."
    #: CONCURRENT_REQUESTS, small so that several processes are needed; None: as the project has it.
    concurrency: int | None = 2
    #: Crawl processes that must have crawled pages in the run with three; fewer where there is nothing to share.
    least_processes: int = 2
    #: What may differ, and why.
    unequal: tuple[Unequal, ...] = ()
    #: Files (patterns) whose very bytes must be the same; others, where feeds are, are lines in any order.
    exact: tuple[str, ...] = ()
    #: Loggers, with those below them, whose records count at every level; the spider's own does always.
    loggers: tuple[str, ...] = ("shop",)
    #: Requests to the site at once, at most; more is fine where ``scrapy crawl`` itself had more.
    most_at_once: int = 8
    #: What the preflight names (its words in brackets) when the crawl may be spread; nothing else may be named.
    preflight: frozenset[str] = frozenset()
    #: A regular expression: vscrapy refuses this project before it begins, with this message and exit code 2.
    refused: str = ""
    #: Further conditions on each of vscrapy's runs; gives what is wrong.
    also: Callable[[Run], list[str]] | None = None
    #: Time for each run (seconds).
    timeout_s: float = 60.0
    #: It is part of ``make test``.
    is_fast: bool = False

    def write(self, target: Path, base: str) -> Path:
        """Write the project, for a site at *base*."""

        def placed(text: str) -> str:
            return text.replace(_SITE, base).replace(_HOST, urlsplit(base).netloc)

        if self.is_example:
            copy_project(target)
        elif self.source:
            write_project(target, placed(self.source), settings=placed(self.settings))
        for name, content in self.files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(placed(textwrap.dedent(content)))
        return target

    def command_line(self, program: str, base: str) -> list[str]:
        """The command, for a site at *base*; it runs on as many processes as there are."""
        few = () if self.concurrency is None else ("-s", f"CONCURRENT_REQUESTS={self.concurrency}")
        args = [arg.replace(_SITE, base) for arg in self.args]
        return [program, self.command, self.spider, *args, *few]


def all_cases() -> Iterator[Case]:
    """The ``CASES`` of all modules in ``cases``, in the order of the groups."""
    found: list[Case] = []
    package = importlib.import_module("tests.parity.cases")
    for module in pkgutil.iter_modules(package.__path__):
        found += importlib.import_module(f"tests.parity.cases.{module.name}").CASES
    order = list(GROUPS)
    yield from sorted(found, key=lambda case: order.index(case.group))
