"""What closes a crawl before its end, or keeps pages from it: ``CLOSESPIDER_*`` and ``DEPTH_LIMIT``, for the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.integration.outcome import dumped_stats
from tests.parity.case import Case, Unequal, Way
from tests.parity.figure import Bounds, Figure, between
from tests.parity.run import Run

#: Requests in flight of one process.
_CONCURRENCY: Final = 2
#: In flight in each way.
_IN_FLIGHT: Final[dict[Way, float]] = {"1 process": _CONCURRENCY, "3 processes": 3 * _CONCURRENCY}
_SAYS: Final = (
    f"beyond the limit at most what `scrapy crawl` has in flight, which is {_CONCURRENCY}, and {_CONCURRENCY} for "
    "each process"
)
#: What depends on which pages are in flight when the limit is reached.
_WHERE_IT_STOPS: Final = "which pages are in flight then differs from run to run, with Scrapy, too"
_STOPS: Final = (
    Unequal("items", "", _WHERE_IT_STOPS),
    Unequal("requests", "", _WHERE_IT_STOPS),
    Unequal("stats", r"^(?!finish_reason$)", _WHERE_IT_STOPS),
)
#: Pages of the spiders that become barren which have items.
_FERTILE: Final = 10
#: How late a close may be seen (s), beyond Scrapy's own: processes look twice a second, and finish their pages.
_LATE_S: Final = 1.5
#: CLOSESPIDER_TIMEOUT and CLOSESPIDER_TIMEOUT_NO_ITEM (s).
_TIMEOUT_S: Final = 3
_PERIOD_S: Final = 2


def _spider(parse: str, more: str = "") -> str:
    """A spider over endless pages."""
    return f"""
            from scrapy import Request, Spider
            from scrapy.exceptions import DropItem

            class DropsOdd:
                def process_item(self, item):
                    if item["page"] % 2:
                        raise DropItem("odd")
                    return item

            class Case(Spider):
                name = "case"
                {more}

                async def start(self):
                    for number in range(600):
                        yield Request(f"http://demo.test/trouble/fine/{{number}}", cb_kwargs={{"number": number}})

                def parse(self, response, number):
                    {parse}
        """


def _closes(name: str, shows: str, settings: dict[str, int], figure: Figure, parse: str, **options: Any) -> Case:
    more = options.pop("more", "")
    return Case(
        name=name,
        group="limits",
        shows=shows,
        source=_spider(parse, more),
        settings="\n".join(f"{setting} = {value}" for setting, value in settings.items()),
        concurrency=_CONCURRENCY,
        latency_ms=60,
        unequal=(*_STOPS, *options.pop("unequal", ())),
        figures=(figure,),
        **options,
    )


def _counted(what: str, measure: Callable[[Run], float], limit: int, *, least: float | None = None) -> Figure:
    """What is counted; beyond the limit there is only what is in flight."""
    return Figure(
        shows=f"{{}} {what}, limit {limit}",
        measure=lambda runs: measure(runs[0]),
        bounds=between(
            {way: (limit if least is None else least, limit + _CONCURRENCY + n) for way, n in _IN_FLIGHT.items()}
        ),
        says=_SAYS,
    )


def _number(entry: dict[str, Any]) -> int:
    return int(str(entry["path"]).rpartition("/")[2])


def _since_last_item(run: Run) -> int:
    """Pages that came after the last one with an item."""
    log = sorted(run.site_log, key=lambda entry: float(entry["end_monotonic_s"]))
    return len(log) - 1 - max(at for at, entry in enumerate(log) if _number(entry) < _FERTILE)


def _elapsed_s(runs: Sequence[Run]) -> float:
    return float(dumped_stats(runs[0].finished)["elapsed_time_seconds"])


def _s_since_last_item(runs: Sequence[Run]) -> float:
    """Time from the last page with an item to the last page."""
    log = runs[0].site_log
    ends_s = [float(entry["end_monotonic_s"]) for entry in log]
    return max(ends_s) - max(end for end, entry in zip(ends_s, log, strict=True) if _number(entry) < _FERTILE)


def _same_for_both(least: float, most: float) -> Bounds:
    return between({"1 process": (least, most), "3 processes": (least, most)})


_YIELDS: Final = 'yield {"page": number}'
_BARREN: Final = f"""if number < {_FERTILE}:
                        yield {{"page": number}}"""

CASES: Final = [
    _closes(
        "limit-itemcount",
        "`CLOSESPIDER_ITEMCOUNT`: the items of all processes, the reason, and the exit code",
        {"CLOSESPIDER_ITEMCOUNT": 60},
        _counted("items", lambda run: run.items.total(), 60),
        _YIELDS,
    ),
    _closes(
        "limit-itemcount-pipelines",
        "`CLOSESPIDER_ITEMCOUNT`: only what has come through the pipelines counts",
        {"CLOSESPIDER_ITEMCOUNT": 40},
        _counted("items", lambda run: run.items.total(), 40),
        _YIELDS,
        more='custom_settings = {"ITEM_PIPELINES": {DropsOdd: 100}}',
        unequal=(Unequal("log", r"Dropped: odd", _WHERE_IT_STOPS),),
    ),
    _closes(
        "limit-pagecount",
        "`CLOSESPIDER_PAGECOUNT`: the site sees no more than what is in flight beyond it",
        {"CLOSESPIDER_PAGECOUNT": 60},
        _counted("pages", lambda run: len(run.site_log), 60),
        _YIELDS,
        is_fast=True,
    ),
    _closes(
        "limit-errorcount",
        "`CLOSESPIDER_ERRORCOUNT`: the errors of all callbacks",
        {"CLOSESPIDER_ERRORCOUNT": 40},
        _counted("errors", lambda run: run.finished.stderr.count("Spider error processing"), 40),
        "raise ValueError(number)",
        unequal=(Unequal("log", r"Spider error processing", _WHERE_IT_STOPS),),
    ),
    _closes(
        "limit-pagecount-no-item",
        "`CLOSESPIDER_PAGECOUNT_NO_ITEM`: pages since the last item of any process",
        {"CLOSESPIDER_PAGECOUNT_NO_ITEM": 40},
        # Pages that are in flight with the last item's count, though they were begun before it.
        _counted("pages after the last item's", _since_last_item, 40, least=40 - 3 * _CONCURRENCY),
        _BARREN,
    ),
    _closes(
        "limit-timeout",
        "`CLOSESPIDER_TIMEOUT`: from the open of the first spider",
        {"CLOSESPIDER_TIMEOUT": _TIMEOUT_S},
        Figure(
            shows=f"{{}} s, limit {_TIMEOUT_S} s",
            measure=_elapsed_s,
            bounds=_same_for_both(_TIMEOUT_S, _TIMEOUT_S + _LATE_S),
            says=f"at most {_LATE_S} s late",
            digits=1,
        ),
        _YIELDS,
    ),
    _closes(
        "limit-timeout-no-item",
        "`CLOSESPIDER_TIMEOUT_NO_ITEM`: a period in which no process has an item",
        {"CLOSESPIDER_TIMEOUT_NO_ITEM": _PERIOD_S},
        Figure(
            shows=f"{{}} s without an item, period {_PERIOD_S} s",
            measure=_s_since_last_item,
            bounds=_same_for_both(_PERIOD_S - 0.1, 2 * _PERIOD_S + _LATE_S),
            says="it closes at the end of the first whole period without one",
            digits=1,
        ),
        _BARREN,
    ),
    Case(
        name="limit-not-reached",
        group="limits",
        shows="all of `CLOSESPIDER_*`, each by one more than there is: the crawl ends as ever",
        latency_ms=60,
        settings="""
        CLOSESPIDER_ITEMCOUNT = 81
        CLOSESPIDER_PAGECOUNT = 101
        CLOSESPIDER_ERRORCOUNT = 21
        CLOSESPIDER_TIMEOUT = 50
        CLOSESPIDER_TIMEOUT_NO_ITEM = 40
        CLOSESPIDER_PAGECOUNT_NO_ITEM = 101
        """,
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(100)]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    if number % 5 == 0:
                        raise ValueError(number)
                    yield {"page": number}
        """,
    ),
    Case(
        name="limit-at-the-last",
        group="limits",
        shows="`CLOSESPIDER_PAGECOUNT` is as many pages as there are: it is the reason of the close",
        latency_ms=60,
        settings="CLOSESPIDER_PAGECOUNT = 60",
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = [f"http://demo.test/trouble/fine/{n}" for n in range(60)]

                def parse(self, response):
                    yield {"page": response.url.rpartition("/")[2]}
        """,
    ),
    Case(
        name="limit-depth",
        group="limits",
        shows="`DEPTH_LIMIT`, `DEPTH_STATS_VERBOSE`: what is deeper is filtered, on whatever process its page was",
        latency_ms=60,
        settings="""
        DEPTH_LIMIT = 3
        DEPTH_STATS_VERBOSE = True
        """,
        source="""
            from scrapy import Spider

            class Case(Spider):
                name = "case"
                start_urls = ["http://demo.test/trouble/fine/1", "http://demo.test/trouble/fine/2"]

                def parse(self, response):
                    number = int(response.url.rpartition("/")[2])
                    yield {"page": number, "depth": response.meta["depth"]}
                    for child in range(number * 10, number * 10 + 4):
                        yield response.follow(f"/trouble/fine/{child}")
        """,
    ),
]
