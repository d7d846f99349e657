"""Several crawls at once: each is compared with its own ``scrapy crawl``, and all together share the slots."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from tests.integration.machine import SLOW_MS
from tests.parity.case import Case, Crawl
from tests.parity.figure import Figure, between
from tests.parity.run import Run

#: A project's name, and how many pages its spider asks for from which number on; each project, and each version of
#: one, has its own.
_SHOP: Final = """
    NAME = {name!r}
    PAGES = range({first}, {last})
"""
_SPIDER: Final = """
            from scrapy import Spider

            from shop.names import NAME, PAGES

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in PAGES]

                def parse(self, response):
                    self.logger.info("a page for %s", NAME)
                    self.crawler.stats.inc_value(f"pages/{NAME}")
                    yield {"page": int(response.url.rpartition("/")[2]), "name": NAME}
        """
#: A task's turn while others wait (s), and when a short task has its first page while a long one has all slots (s).
_TURN_S: Final = 1.0
_SOON_S: Final = 15.0


def _crawl(name: str, project: str, pages: range, **options: Any) -> Crawl:
    names = textwrap.dedent(_SHOP).format(name=name, first=pages.start, last=pages.stop)
    return Crawl(name=name, project=project, files={"shop/names.py": names}, **options)


def _tasks(name: str, shows: str, crawls: Sequence[Crawl], *figures: Figure, **options: Any) -> Case:
    return Case(
        name=name,
        group="tasks",
        shows=shows,
        source=_SPIDER,
        least_processes=1,
        crawls=tuple(crawls),
        figures=figures,
        turn_s=_TURN_S,
        **{"latency_ms": 60, "timeout_s": 120.0, **options},
    )


def _span_s(run: Run) -> tuple[float, float]:
    """When its first request came, and when its last one was answered."""
    starts = [float(entry["start_monotonic_s"]) for entry in run.site_log]
    return min(starts), max(float(entry["end_monotonic_s"]) for entry in run.site_log)


def _crawls_at_once(runs: Sequence[Run]) -> int:
    """Crawls that were begun and not at their end, at most."""
    spans = [_span_s(run) for run in runs]
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


def _begun_at_half(runs: Sequence[Run]) -> int:
    """Crawls that had begun when half of them had ended."""
    spans = [_span_s(run) for run in runs]
    half_s = sorted(end for _, end in spans)[len(spans) // 2 - 1]
    return sum(begin <= half_s for begin, _ in spans)


def _foreign_items(runs: Sequence[Run]) -> int:
    """Items of one crawl in the feed of another one."""
    return sum(count for run in runs for item, count in run.items.items() if f'"name": "{run.name}"' not in item)


def _s_of_short(runs: Sequence[Run]) -> float:
    """Time from the first page of the long crawl until the short ones had begun."""
    long, *short = [_span_s(run) for run in runs]
    return max(begin for begin, _ in short) - long[0]


def _at_once(least: int) -> Figure:
    return Figure(
        shows="{} at once",
        measure=_crawls_at_once,
        bounds=between({"1 process": (least, least), "3 processes": (least, least)}),
        says="they ran at once",
    )


_NOT_MIXED: Final = Figure(
    shows="{} items in another's feed",
    measure=_foreign_items,
    bounds=between({"1 process": (0, 0), "3 processes": (0, 0)}),
    says="each is compared with its own `scrapy crawl`",
)

CASES: Final = [
    _tasks(
        "tasks-of-one-name",
        "two projects whose packages have the same name, and other modules and settings, at once",
        [
            _crawl("one", "one", range(1, 201)),
            _crawl("two", "two", range(101, 301), args=("-s", "DEPTH_STATS_VERBOSE=True")),
        ],
        _at_once(2),
        _NOT_MIXED,
    ),
    _tasks(
        "tasks-of-two-versions",
        "two versions of one project, which was changed while the first one ran, and added to",
        [
            _crawl("old", "shop", range(1, 201)),
            _crawl("new", "shop", range(101, 301)),
        ],
        _at_once(2),
        _NOT_MIXED,
    ),
    _tasks(
        "tasks-short-beside-long",
        "two short crawls, while a long one has all slots: each gets one, and ends long before it",
        [
            _crawl("long", "long", range(1, 401)),
            _crawl("short", "short", range(501, 521), after=3),
            _crawl("shorter", "shorter", range(601, 611)),
        ],
        _NOT_MIXED,
        Figure(
            shows="the last one begins {} s after the first",
            measure=_s_of_short,
            bounds=between({"1 process": (0, _SOON_S), "3 processes": (0, _SOON_S)}),
            says=f"it waits for less than {_SOON_S:g} s",
            digits=1,
        ),
        latency_ms=150,
    ),
    _tasks(
        "tasks-twenty",
        "twenty crawls on two slots: they take turns, so that none waits for most others to end",
        [_crawl(f"crawl-{n:02}", f"project-{n:02}", range(100 * n, 100 * n + 20)) for n in range(20)],
        _NOT_MIXED,
        Figure(
            shows="{} had begun when half had ended",
            measure=_begun_at_half,
            # With --workers 1 a task keeps its process to its end.
            bounds=between({"1 process": (10, 14), "3 processes": (18, 20)}),
            says="with `--workers 1`, a task keeps its process to its end",
        ),
        slots=2,
        are_started_together=True,
        concurrency=1,
        latency_ms=4 * SLOW_MS,
        timeout_s=240.0,
    ),
]
