"""
Scrapy stats whose changes can be taken, to travel with the next commit.

What is counted on behalf of a request that is not done yet is noted with that request, and travels with what comes
of it: if this process ends before, the request is done again elsewhere, and counted there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from scrapy.exceptions import ScrapyDeprecationWarning
from scrapy.statscollectors import MemoryStatsCollector, StatsCollector

from vscrapy.stats import TIMES, encode_values, put_all
from vscrapy.store.stat_changes import StatChanges

#: An argument that was not given.
_NOT_GIVEN: Final[Any] = object()
#: Does Scrapy's collector look for a wrapped method behind each name, to warn of a given "spider"? Since 2.14.
_WRAPS_METHODS: Final = "__getattribute__" in vars(StatsCollector)


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, (int, float)) and not isinstance(value, bool))


@dataclass(slots=True)
class _Ledger:
    """What has changed since the last commit."""

    added: dict[str, int | float] = field(default_factory=dict)
    raised: dict[str, int | float] = field(default_factory=dict)
    lowered: dict[str, int | float] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    is_set_dirty: bool = False
    shift: timedelta = timedelta()
    #: Where counts are noted: what gives the notes of the request at work, if there is one; and a place that holds
    #: whatever it says.
    notes_at_work: Callable[[], dict[str, int | float] | None] = lambda: None
    notes_held: dict[str, int | float] | None = None

    def notes(self) -> dict[str, int | float]:
        """Where a count is noted now."""
        notes = self.notes_held if self.notes_held is not None else self.notes_at_work()
        return self.added if notes is None else notes


def _ledger(stats: Noted) -> _Ledger:
    # Scrapy's collector looks each attribute up in two ways, which takes longer than to count.
    found: _Ledger = object.__getattribute__(stats, "_ledger")
    return found


class Noted:
    """
    Notes the changes of the stats collector under it.

    A stat that is set stays "set" for this process; counting on it changes the set value.
    """

    _ledger: _Ledger

    def __new__(cls, *args: Any, **kwargs: Any) -> Noted:
        """Make it able to note before any __init__ runs: a project's may set stats, or call no other."""
        made = super().__new__(cls)
        made._ledger = _Ledger()
        return made

    def note_with(self, at_work: Callable[[], dict[str, int | float] | None]) -> None:
        """Note counts where *at_work* says from now on; where it gives None, they travel with the next commit."""
        _ledger(self).notes_at_work = at_work

    @contextmanager
    def noted_in(self, notes: dict[str, int | float] | None) -> Iterator[None]:
        """Note counts in *notes* meanwhile, whatever else is at work."""
        ledger = _ledger(self)
        before, ledger.notes_held = ledger.notes_held, notes
        try:
            yield
        finally:
            ledger.notes_held = before

    def inc_value(self, key: str, count: int = 1, start: int = 0, spider: Any = None) -> None:
        """Count, here and for the whole task."""
        ledger = _ledger(self)
        is_first = bool(start) and super().get_value(key) is None  # type: ignore[misc]
        super().inc_value(key, count, start)  # type: ignore[misc]
        if key in ledger.set or not _is_number(count):
            self._note(key)
        else:
            notes = ledger.notes()
            notes[key] = notes.get(key, 0) + count + (start if is_first else 0)

    def set_value(self, key: str, value: Any, spider: Any = None) -> None:
        """Set, for this process."""
        super().set_value(key, value)  # type: ignore[misc]
        ledger = _ledger(self)
        ledger.set[key] = value
        ledger.is_set_dirty = True

    def set_stats(self, stats: dict[str, Any], spider: Any = None) -> None:
        """Set all of them, for this process."""
        super().set_stats(stats)  # type: ignore[misc]
        ledger = _ledger(self)
        ledger.set = dict(stats)
        ledger.is_set_dirty = True

    def max_value(self, key: str, value: Any, spider: Any = None) -> None:
        """Raise, here and for the whole task."""
        super().max_value(key, value)  # type: ignore[misc]
        ledger = _ledger(self)
        if key in ledger.set or not _is_number(value):
            self._note(key)
        else:
            ledger.raised[key] = max(ledger.raised.get(key, value), value)

    def min_value(self, key: str, value: Any, spider: Any = None) -> None:
        """Lower, here and for the whole task."""
        super().min_value(key, value)  # type: ignore[misc]
        ledger = _ledger(self)
        if key in ledger.set or not _is_number(value):
            self._note(key)
        else:
            ledger.lowered[key] = min(ledger.lowered.get(key, value), value)

    def _note(self, key: str) -> None:
        ledger = _ledger(self)
        ledger.set[key] = super().get_value(key)  # type: ignore[misc]
        ledger.is_set_dirty = True

    def show(self, stats: dict[str, Any]) -> None:
        """Hold these from now on: the whole task's. What was set here and travels only as text stays as it is."""
        mine = {name: value for name, value in _ledger(self).set.items() if stats.get(name) == repr(value)}
        put_all(super(), stats | mine)

    def shift(self, seconds: float) -> None:
        """Let the crawl's begin and end travel by another clock than this machine's, which is so much ahead."""
        _ledger(self).shift = timedelta(seconds=seconds)

    def take(self) -> tuple[StatChanges, str]:
        """Take the changes since the last call: counted ones, and those set as JSON ('' when unchanged)."""
        ledger = _ledger(self)
        delta = StatChanges(ledger.added, ledger.raised, ledger.lowered)
        ledger.added, ledger.raised, ledger.lowered = {}, {}, {}
        values = encode_values(ledger.set | _shifted(ledger)) if ledger.is_set_dirty else ""
        ledger.is_set_dirty = False
        return delta, values


def _shifted(ledger: _Ledger) -> dict[str, Any]:
    times = {name: ledger.set.get(name) for name in TIMES}
    return {name: value + ledger.shift for name, value in times.items() if isinstance(value, datetime)}


class NotedStats(Noted, StatsCollector):
    """Scrapy's own collector, under the project's own."""

    if _WRAPS_METHODS:

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("_"):  # none of these is wrapped
                return object.__getattribute__(self, name)
            return super().__getattribute__(name)


class DirectStats(NotedStats):
    """
    Scrapy's own collector where the project has none: the same, without a detour.

    A page takes some fifty calls. Scrapy wraps each method, for the warning alone; here, the method itself warns.
    """

    __getattribute__ = object.__getattribute__

    def inc_value(self, key: str, count: int = 1, start: int = 0, spider: Any = _NOT_GIVEN) -> None:
        """Count, here and for the whole task."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("inc_value")
        ledger = self._ledger
        if type(count) is not int or start or key in ledger.set:
            super().inc_value(key, count, start)
            return
        stats = StatsCollector.get_stats(self)
        stats[key] = stats.get(key, 0) + count
        notes = ledger.notes()
        notes[key] = notes.get(key, 0) + count

    def max_value(self, key: str, value: Any, spider: Any = _NOT_GIVEN) -> None:
        """Raise, here and for the whole task."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("max_value")
        if type(value) is int:
            # Nearly always it is not more than before.
            highest = min(self._ledger.raised.get(key, value - 1), StatsCollector.get_stats(self).get(key, value - 1))
            if highest >= value and key not in self._ledger.set:
                return
        super().max_value(key, value)

    def min_value(self, key: str, value: Any, spider: Any = _NOT_GIVEN) -> None:
        """Lower, here and for the whole task."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("min_value")
        super().min_value(key, value)

    def set_value(self, key: str, value: Any, spider: Any = _NOT_GIVEN) -> None:
        """Set, for this process."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("set_value")
        super().set_value(key, value)

    def set_stats(self, stats: dict[str, Any], spider: Any = _NOT_GIVEN) -> None:
        """Set all of them, for this process."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("set_stats")
        super().set_stats(stats)

    def get_value(self, key: str, default: Any = None, spider: Any = _NOT_GIVEN) -> Any:
        """As Scrapy's."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("get_value")
        return super().get_value(key, default)

    def get_stats(self, spider: Any = _NOT_GIVEN) -> dict[str, Any]:
        """As Scrapy's."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("get_stats")
        return super().get_stats()

    def clear_stats(self, spider: Any = _NOT_GIVEN) -> None:
        """As Scrapy's."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("clear_stats")
        super().clear_stats()

    def open_spider(self, spider: Any = _NOT_GIVEN) -> None:
        """As Scrapy's."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("open_spider")
        super().open_spider()

    def close_spider(self, spider: Any = _NOT_GIVEN, reason: str | None = None) -> None:
        """As Scrapy's."""
        if spider is not _NOT_GIVEN:
            _warn_of_spider("close_spider")
        super().close_spider(reason=reason)


def _warn_of_spider(method: str) -> None:
    warnings.warn(
        f"Passing a 'spider' argument to StatsCollector.{method}() is deprecated and the argument will be removed "
        "in a future Scrapy version.",
        ScrapyDeprecationWarning,
        stacklevel=3,
    )


def shared(base: type) -> type:
    """
    Make the class for STATS_CLASS: *base*, the project's own, with its changes noted; it goes by the same name.

    What *base* makes of the calls is noted, not the calls: it may add stats of its own, rename some or leave them
    out. So we stand between it and Scrapy's collector; in front of it where it is not derived from that.
    """
    noted = DirectStats if _WRAPS_METHODS and base in (StatsCollector, MemoryStatsCollector) else NotedStats
    bases: tuple[type, ...] = (base, noted) if issubclass(base, StatsCollector) else (Noted, base)
    if base is StatsCollector:
        bases = (noted,)
    named = {"__doc__": base.__doc__, "__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, bases, named)
