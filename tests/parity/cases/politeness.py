"""What the site sees of a crawl, from its own log: limits are never exceeded, and they are used."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any, Final

from tests.parity.case import Case, Way
from tests.parity.figure import Bounds, Figure, at_least, at_most, between, used
from tests.parity.run import Run
from tests.parity.traffic import (
    MARKING,
    arrivals_a_s,
    at_once,
    by_slot,
    mean_at_once,
    pages_a_s,
    shortest_gap_s,
)

#: Latency of the pages (ms): long against what a crawler needs between two of them.
_LATENCY_MS: Final = 100
#: The same where all of a concurrency is to be used, on a machine that has other things to do.
_LONG_MS: Final = 300
#: How much of a gap the clock and the timers of an event loop may take (s).
_RESOLUTION_S: Final = 0.001
#: How much more than a limit a rate may seem, from a log in which the first and the last request may be late.
_ROUNDING: Final = 1.05
_USED: Final = "at least 90 % of it is used, or of what `scrapy crawl` uses"

#: A spider over pages, which go to the downloader slots in turn; '': the site's own.
_PAGES: Final = """
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range({pages}):
                        yield Request(f"http://demo.test/trouble/fine/{{number}}", meta=self.place(number))

                def place(self, number):
                    names = "{slots}"
                    return {{"download_slot": names[number % len(names)]}} if names else {{}}

                def parse(self, response):
                    yield {{"page": int(response.url.rpartition("/")[2])}}
        """


def _polite(name: str, shows: str, *, pages: int, figures: Sequence[Figure], slots: str = "", **options: Any) -> Case:
    settings = textwrap.dedent(options.pop("settings", ""))
    return Case(
        name=name,
        group="politeness",
        shows=shows,
        source=options.pop("source", "") or _PAGES.format(pages=pages, slots=slots),
        files={"shop/marking.py": MARKING},
        settings=f'DOWNLOAD_HANDLERS = {{"http": "shop.marking.Marking"}}\n{settings}',
        latency_ms=options.pop("latency_ms", _LATENCY_MS),
        figures=tuple(figures),
        timeout_s=90.0,
        **options,
    )


def _of_run(measure: Callable[[Run], float]) -> Callable[[Sequence[Run]], float]:
    return lambda runs: measure(runs[0])


def _peak(most: int, slot: str = "") -> Figure:
    """Requests at once; of one downloader slot."""
    return Figure(
        shows=f"{f'slot {slot}: ' if slot else ''}{{}} at once, limit {most}",
        measure=_of_run(lambda run: at_once(by_slot(run)[slot] if slot else run.site_log)),
        bounds=_as_scrapy_counts(most),
        says="never more at once; one process counts as `scrapy crawl` does, which may start some too many",
    )


def _as_scrapy_counts(most: int) -> Bounds:
    """How many too many Scrapy starts, in one process, is by chance; so it is with us."""

    def bounds(way: Way, expected: float) -> tuple[float, float]:
        return -math.inf, math.inf if way == "1 process" and expected > most else most

    return bounds


def _use_of(most: int) -> Figure:
    """How much of a limit is used, on average."""
    return Figure(
        shows="{} on average",
        measure=_of_run(mean_at_once),
        bounds=used(most),
        says=_USED,
        digits=2,
    )


def _gap(delay_s: float, slot: str = "") -> Figure:
    """Time between two requests of a downloader slot, of the one where it is shortest."""
    return Figure(
        shows=f"{f'slot {slot}: ' if slot else ''}shortest gap {{}} s, limit {delay_s:g} s",
        measure=_of_run(
            lambda run: min(shortest_gap_s(entries) for name, entries in by_slot(run).items() if slot in ("", name))
        ),
        bounds=at_least(delay_s - _RESOLUTION_S),
        says="never closer to each other",
        digits=3,
    )


def _use_of_delay(delay_s: float, slot: str = "", *, most: float = _ROUNDING) -> Figure:
    """How much of the rate that a delay allows is used, of the mean of the downloader slots."""
    return Figure(
        shows=f"{f'slot {slot}: ' if slot else ''}{{}} % used",
        measure=_of_run(
            lambda run: (
                100
                * mean(
                    arrivals_a_s(entries) * delay_s for name, entries in by_slot(run).items() if slot in ("", name)
                )
            )
        ),
        bounds=used(100, most=100 * most),
        says=_USED,
    )


def _ways(one: tuple[float, float], three: tuple[float, float]) -> Bounds:
    return between({"1 process": one, "3 processes": three})


def _fixed_delay(delay_s: float, more: str = "") -> str:
    return f"DOWNLOAD_DELAY = {delay_s}\nRANDOMIZE_DOWNLOAD_DELAY = False\n{more}"


_MOST: Final = 6
#: In flight in a process: enough that only the delays of the slots matter.
_PLENTY: Final = 12

CASES: Final = [
    _polite(
        "polite-concurrency",
        "`CONCURRENT_REQUESTS_PER_DOMAIN`: requests at once, of all processes together",
        pages=120,
        latency_ms=_LONG_MS,
        concurrency=_MOST,
        settings=f"CONCURRENT_REQUESTS_PER_DOMAIN = {_MOST}",
        figures=(_peak(_MOST), _use_of(_MOST)),
        most_at_once=_MOST,
    ),
    _polite(
        "polite-concurrency-one-queue",
        "`CONCURRENT_REQUESTS_PER_DOMAIN` with `ScrapyPriorityQueue`, which knows no downloader slots",
        pages=120,
        latency_ms=_LONG_MS,
        concurrency=_MOST,
        settings=f"""
        CONCURRENT_REQUESTS_PER_DOMAIN = {_MOST}
        SCHEDULER_PRIORITY_QUEUE = "scrapy.pqueues.ScrapyPriorityQueue"
        """,
        figures=(_peak(_MOST), _use_of(_MOST)),
        most_at_once=_MOST,
    ),
    _polite(
        "polite-slots",
        "`download_slot` in `meta`, with `DOWNLOAD_SLOTS` for two of three: each has a limit of its own",
        pages=297,
        latency_ms=_LONG_MS,
        slots="aabbbcccc",  # as the limits are to each other
        concurrency=18,
        settings="""
        CONCURRENT_REQUESTS_PER_DOMAIN = 4
        DOWNLOAD_SLOTS = {"a": {"concurrency": 2}, "b": {"concurrency": 3}}
        """,
        figures=(_peak(2, "a"), _peak(3, "b"), _peak(4, "c"), _use_of(9)),
        # Scrapy 2.19 begins more of a slot's queue than its limit, how many is chance; one process does so, too.
        most_at_once=18,
    ),
    _polite(
        "polite-delay",
        "`DOWNLOAD_DELAY`: one process at a time has the site",
        pages=60,
        least_processes=1,
        settings=_fixed_delay(0.1),
        figures=(_gap(0.1), _use_of_delay(0.1)),
    ),
    _polite(
        "polite-delay-random",
        "`RANDOMIZE_DOWNLOAD_DELAY`: from half of it to one and a half",
        pages=200,
        concurrency=_PLENTY,
        least_processes=1,
        settings="DOWNLOAD_DELAY = 0.05",
        # Of 200 delays, the mean is within a tenth.
        figures=(_gap(0.025), _use_of_delay(0.05, most=1.1)),
    ),
    _polite(
        "polite-delay-slots",
        "`DOWNLOAD_DELAY` in six downloader slots, which three processes share",
        pages=180,
        slots="abcdef",
        concurrency=2,
        least_processes=1,
        settings=_fixed_delay(0.2),
        figures=(_gap(0.2), _use_of_delay(0.2)),
    ),
    _polite(
        "polite-delay-hand-over",
        "six chains of pages, each in a slot with a delay: with each page a slot may go to another process",
        pages=0,
        least_processes=1,
        settings=_fixed_delay(0.25),
        figures=(_gap(0.25), _use_of_delay(0.25)),
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for slot in "abcdef":
                        yield self.page(slot, 0)

                def page(self, slot, number):
                    url = f"http://demo.test/trouble/fine/{ord(slot)}{number:02}"
                    return Request(url, meta={"download_slot": slot}, cb_kwargs={"slot": slot, "number": number})

                def parse(self, response, slot, number):
                    yield {"slot": slot, "number": number}
                    if number < 24:
                        yield self.page(slot, number + 1)
        """,
    ),
    _polite(
        "polite-delays-own",
        "`DOWNLOAD_SLOTS` with delays: a short one, a long one, and one that is random",
        pages=120,
        concurrency=_PLENTY,
        least_processes=1,
        slots="abc",
        settings=_fixed_delay(
            0.1,
            'DOWNLOAD_SLOTS = {"a": {"delay": 0.15}, "b": {"delay": 0.2, "randomize_delay": True}}',
        ),
        figures=(
            *(_gap(0.15, "a"), _gap(0.1, "b"), _gap(0.1, "c")),
            *(_use_of_delay(0.15, "a"), _use_of_delay(0.2, "b", most=1.2), _use_of_delay(0.1, "c")),
        ),
    ),
    _polite(
        "polite-autothrottle",
        "`AUTOTHROTTLE_ENABLED`: the delay comes to the latency, whoever has the site",
        pages=60,
        least_processes=1,
        settings="""
        AUTOTHROTTLE_ENABLED = True
        AUTOTHROTTLE_START_DELAY = 0.3
        RANDOMIZE_DOWNLOAD_DELAY = False
        """,
        figures=(
            _gap(_LATENCY_MS / 1000),
            Figure(
                shows="{} pages/s",
                measure=_of_run(pages_a_s),
                bounds=used(math.inf),
                says="at least 90 % of what `scrapy crawl` reaches",
                digits=1,
            ),
        ),
    ),
    _polite(
        "polite-worker",
        '`VSCRAPY_POLITENESS = "worker"`: the limits are those of each process, n times',
        pages=100,
        latency_ms=_LONG_MS,
        concurrency=2,
        settings="""
        CONCURRENT_REQUESTS_PER_DOMAIN = 2
        VSCRAPY_POLITENESS = "worker"
        """,
        most_at_once=6,
        figures=(
            Figure(
                shows="{} at once, limit 2 for each process",
                measure=_of_run(lambda run: at_once(run.site_log)),
                bounds=_ways((1, 2), (5, 6)),
                says="never more at once",
            ),
            Figure(
                shows="{} on average",
                measure=_of_run(mean_at_once),
                bounds=lambda way, expected: (0.9 * expected * (3 if way == "3 processes" else 1), math.inf),
                says="at least 90 % of what `scrapy crawl` uses, n times",
                digits=2,
            ),
        ),
    ),
    Case(
        name="polite-robots",
        group="politeness",
        shows="`ROBOTSTXT_OBEY`: fetched once by the whole task, before any page; what it forbids is never asked for",
        settings="ROBOTSTXT_OBEY = True",
        latency_ms=_LATENCY_MS,
        figures=(
            Figure(
                shows="robots.txt {} times",
                measure=_of_run(lambda run: sum(path == "/robots.txt" for path in run.paths)),
                bounds=_ways((1, 1), (1, 1)),
                says="once, whatever number of processes",
            ),
            Figure(
                shows="{} forbidden pages",
                measure=_of_run(lambda run: sum(path.startswith("/shop/staff/") for path in run.paths)),
                bounds=at_most(0),
                says="none",
            ),
        ),
        source="""
            from scrapy import Request, Spider

            class Case(Spider):
                name = "case"

                async def start(self):
                    for number in range(60):
                        yield Request(f"http://demo.test/trouble/fine/{number}", errback=self.failed)
                        yield Request(f"http://demo.test/shop/staff/{number}", errback=self.failed)

                def parse(self, response):
                    yield {"page": response.url}
                    yield response.follow("/shop/staff/?from=" + response.url.rpartition("/")[2], errback=self.failed)

                def failed(self, failure):
                    yield {"refused": failure.request.url, "why": type(failure.value).__name__}
        """,
    ),
]
