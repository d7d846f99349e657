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
    from tests.parity.figure import Figure
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
class Crawl:
    """
    One of several crawls that a case runs at once; with ``scrapy crawl``, they run one after the other.

    Its name is its User-Agent, by which the site's log tells whose a request is; its feed is ``NAME.jsonl``.
    """

    #: Unique in its case.
    name: str
    #: Its project, below the case's directory; crawls may share one.
    project: str
    #: What is written into its project before it starts: path -> text or bytes.
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    #: It starts when the one before has so many crawl processes; 0: when the one before was sent.
    after: int = 0

    @property
    def feed(self) -> str:
        """The file of its items."""
        return f"{self.name}.jsonl" if self.name else "items.jsonl"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A crawl, or several at once, that are run in three ways."""

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
    #: Several crawls at once, each compared with its own ``scrapy crawl``; (): one.
    crawls: tuple[Crawl, ...] = ()
    #: How often the command is run in the same project; the last run is what is compared.
    turns: int = 1
    #: Where the command is run, below the project.
    directory: str = "."
    #: CONCURRENT_REQUESTS, small so that several processes are needed; None: as the project has it.
    concurrency: int | None = 2
    #: Crawl processes that must have crawled pages in the run with three; fewer where there is nothing to share.
    least_processes: int = 2
    #: Latency of the site's pages (ms); None: as it is.
    latency_ms: int | None = None
    #: Slots of the worker, and a task's turn on it (s) while others wait; None: as it is.
    slots: int = 3
    turn_s: float | None = None
    #: The crawls are all started at once; until all are sent, the site is slow.
    are_started_together: bool = False
    #: Numbers that are seen, with their bounds.
    figures: tuple[Figure, ...] = ()
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

    @property
    def all_crawls(self) -> tuple[Crawl, ...]:
        """The crawls; the only one of most cases has no name."""
        return self.crawls or (Crawl(name="", project="."),)

    @property
    def can_be_repeated(self) -> bool:
        """Is it one crawl, which finds the same each time?"""
        return not (self.crawls or self.refused) and self.turns == 1

    def write(self, target: Path, base: str) -> Path:
        """Write the project, for a site at *base*."""
        if self.is_example:
            copy_project(target)
        elif self.source:
            write_project(target, _placed(self.source, base), settings=_placed(self.settings, base))
        write_files(target, self.files, base)
        return target

    def command_line(self, program: str, base: str, crawl: Crawl) -> list[str]:
        """The command of a crawl, for a site at *base*; it runs on as many processes as there are."""
        few = () if self.concurrency is None else ("-s", f"CONCURRENT_REQUESTS={self.concurrency}")
        args = [arg.replace(_SITE, base) for arg in self.args]
        if crawl.name:
            args = ["-O", crawl.feed, "-s", f"USER_AGENT={crawl.name}", *crawl.args]
        return [program, self.command, self.spider, *args, *few]


def write_files(target: Path, files: Mapping[str, str | bytes], base: str) -> None:
    """Write files below a project, for a site at *base*."""
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(_placed(textwrap.dedent(content), base))


def _placed(text: str, base: str) -> str:
    return text.replace(_SITE, base).replace(_HOST, urlsplit(base).netloc)


def all_cases() -> Iterator[Case]:
    """The ``CASES`` of all modules in ``cases``, in the order of the groups."""
    found: list[Case] = []
    package = importlib.import_module("tests.parity.cases")
    for module in pkgutil.iter_modules(package.__path__):
        found += importlib.import_module(f"tests.parity.cases.{module.name}").CASES
    order = list(GROUPS)
    yield from sorted(found, key=lambda case: order.index(case.group))
