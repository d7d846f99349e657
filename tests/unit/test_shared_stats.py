"""The stats collector of a crawl process: the project's own, whose changes are noted for the whole task."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy.settings import Settings
from scrapy.statscollectors import DummyStatsCollector, MemoryStatsCollector, StatsCollector

from vscrapy.crawl.stats import shared
from vscrapy.stats import decode_values


class Renaming(MemoryStatsCollector):
    """Sets a stat as it is made, counts under other names, and leaves one out."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self.set_value("made", True)

    def inc_value(self, key: str, count: int = 1, start: int = 0, spider: Any = None) -> None:
        if key != "dull":
            super().inc_value(f"my/{key}", count, start)
            super().inc_value("all")


class Strange:
    """Not derived from Scrapy's."""

    def __init__(self, crawler: Any) -> None:
        self.kept: dict[str, Any] = {}

    def get_value(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    def set_value(self, key: str, value: Any) -> None:
        self.kept[key] = value

    def inc_value(self, key: str, count: int = 1, start: int = 0) -> None:
        self.kept[key] = self.kept.setdefault(key, start) + count


def make(base: type) -> Any:
    """The collector of a crawl process."""
    return shared(base)(SimpleNamespace(settings=Settings(), spider=None))


@pytest.mark.parametrize("base", [StatsCollector, MemoryStatsCollector, Strange])
def test_counts_are_noted(base: type) -> None:
    """From the first on, and what they start from once."""
    stats = make(base)
    stats.inc_value("pages")
    stats.inc_value("pages", 2)
    stats.inc_value("depth", 1, start=5)
    stats.inc_value("depth", 1, start=5)
    assert stats.take()[0].added == {"pages": 3, "depth": 7}
    assert stats.take()[0].added == {}
    assert (stats.get_value("pages"), stats.get_value("depth")) == (3, 7)


def test_counts_are_noted_with_the_request_at_work() -> None:
    """They travel with what comes of it: done again elsewhere, it is counted there."""
    stats = make(StatsCollector)
    at_work: list[dict[str, int | float] | None] = [{}]
    stats.note_with(lambda: at_work[0])
    stats.inc_value("pages")
    assert (stats.take()[0].added, at_work[0]) == ({}, {"pages": 1})
    held: dict[str, int | float] = {}
    with stats.noted_in(held):
        stats.inc_value("pages", 5)
    at_work[0] = None
    stats.inc_value("pages", 7)
    assert (held, stats.take()[0].added) == ({"pages": 5}, {"pages": 7})
    assert stats.get_value("pages") == 13


@pytest.mark.parametrize("base", [StatsCollector, MemoryStatsCollector, Renaming])
def test_highest_and_lowest_are_noted(base: type) -> None:
    """Each once in a commit, however often they are said; what stands here is as Scrapy has it."""
    stats = make(base)
    for depth in (3, 1, 3, 4, 2):
        stats.max_value("deepest", depth)
        stats.min_value("nearest", depth)
    delta = stats.take()[0]
    assert (delta.raised, delta.lowered) == ({"deepest": 4}, {"nearest": 1})
    stats.max_value("deepest", 2)
    assert stats.take()[0].raised == {"deepest": 2}
    assert (stats.get_value("deepest"), stats.get_value("nearest")) == (4, 1)
    stats.clear_stats()
    stats.max_value("deepest", 1)
    stats.max_value("deepest", 2)
    assert stats.get_value("deepest") == 2


def test_counts_on_what_was_set_set_it() -> None:
    """Such a stat is this process's, and travels as what it is set to."""
    stats = make(MemoryStatsCollector)
    stats.set_value("pages", 5)
    stats.inc_value("pages")
    stats.set_value("deepest", 5)
    stats.max_value("deepest", 9)
    stats.inc_value("share", 0.5)
    delta, values = stats.take()
    assert (delta.added, delta.raised) == ({"share": 0.5}, {})
    assert decode_values(values) == {"pages": 6, "deepest": 9}


@pytest.mark.parametrize("base", [StatsCollector, MemoryStatsCollector, Renaming])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("inc_value", ("pages",)),
        ("max_value", ("pages", 1)),
        ("min_value", ("pages", 1)),
        ("set_value", ("pages", 1)),
        ("set_stats", ({},)),
        ("get_value", ("pages",)),
        ("get_stats", ()),
        ("clear_stats", ()),
        ("open_spider", ()),
        ("close_spider", ()),
    ],
)
def test_given_spider_is_warned_of_as_scrapy_does(base: type, method: str, arguments: tuple[Any, ...]) -> None:
    """Once, at the line that gives it; and not at all where Scrapy does not."""
    with warnings.catch_warnings(record=True) as scrapys:
        warnings.simplefilter("always")
        own = base(SimpleNamespace(settings=Settings(), spider=None))
        getattr(own, method)(*arguments, spider=None)
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        stats = make(base)
        getattr(stats, method)(*arguments)
        assert ours == []
        getattr(stats, method)(*arguments, spider=None)
    assert [(warning.category, warning.filename) for warning in ours] == [
        (warning.category, warning.filename) for warning in scrapys
    ]
    if base is not Renaming:
        assert [str(warning.message) for warning in ours] == [str(warning.message) for warning in scrapys]


def test_begin_and_end_travel_by_the_clock_that_counts() -> None:
    """Here they are as this machine's clock has them; other times are the project's own."""
    stats = make(StatsCollector)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for name in ("start_time", "finish_time", "my/time"):
        stats.set_value(name, noon)
    stats.shift(-3600)
    later = noon - timedelta(hours=1)
    assert decode_values(stats.take()[1]) == {"start_time": later, "finish_time": later, "my/time": noon}
    assert stats.get_value("start_time") == noon


def test_what_the_collector_makes_of_the_calls_is_noted() -> None:
    """Stats that it adds, renames or leaves out, and those that it sets as it is made."""
    stats = make(Renaming)
    for key in ("pages", "dull", "pages"):
        stats.inc_value(key)
    delta, values = stats.take()
    assert delta.added == {"my/pages": 2, "all": 2}
    assert decode_values(values) == {"made": True}


def test_a_collector_that_keeps_nothing_notes_nothing() -> None:
    """As with one process, there are no stats then."""
    stats = make(DummyStatsCollector)
    stats.inc_value("pages")
    stats.set_value("reason", "finished")
    delta, values = stats.take()
    assert (delta.added, values) == ({}, "")


@pytest.mark.parametrize("base", [StatsCollector, Renaming, Strange])
def test_class_goes_by_its_own_name(base: type) -> None:
    """In Scrapy's warnings and dumps."""
    assert (shared(base).__module__, shared(base).__qualname__) == (base.__module__, base.__qualname__)


@pytest.mark.parametrize("base", [StatsCollector, MemoryStatsCollector, Strange])
def test_whole_tasks_stats_are_shown_and_do_not_travel(base: type) -> None:
    """In the end a process holds those of the task, whether or not its collector can have all set at once."""
    stats = make(base)
    stats.inc_value("pages")
    stats.take()
    stats.show({"pages": 30, "items": 4})
    assert (stats.get_value("pages"), stats.get_value("items")) == (30, 4)
    delta, values = stats.take()
    assert (delta.added, values) == ({}, "")
