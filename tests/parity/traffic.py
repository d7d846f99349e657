"""
What the site's access log tells of a crawl: how many requests at once, how close to each other, how much of a limit.

A site sees when a request arrives, which is some milliseconds after it was let go. Where that matters, projects use
``MARKING``: their requests say in their User-Agent from which downloader slot they were let go, and when. Times of
all processes are of one clock, the machine's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from tests.parity.run import Run

Entry: TypeAlias = "Mapping[str, Any]"

#: A project's download handler. ``lastseen`` is what the downloader's delays are counted from; it cannot have changed
#: since, for the slot lets its next request go after a delay.
MARKING: Final = """
    from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler

    class Marking(HTTP11DownloadHandler):
        async def download_request(self, request):
            name = request.meta["download_slot"]
            let_go_s = self._crawler.engine.downloader.slots[name].lastseen
            request.headers["User-Agent"] = f"{name} {let_go_s!r}"
            return await super().download_request(request)
"""
#: Of a crawl's pages, in the order of their arrival, the parts at its begin and end in which it is not at full speed.
_BEGIN: Final = 0.1
_END: Final = 0.2


def at_once(entries: Iterable[Entry]) -> int:
    """Requests at once, at most."""
    changes = [(entry["start_monotonic_s"], 1) for entry in entries] + [
        (entry["end_monotonic_s"], -1) for entry in entries
    ]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def mean_at_once(run: Run) -> float:
    """Requests at once, on average, while the crawl is at full speed."""
    starts = sorted(float(entry["start_monotonic_s"]) for entry in _full_speed(run))
    begin_s, end_s = starts[int(len(starts) * _BEGIN)], starts[int(len(starts) * (1 - _END)) - 1]
    busy_s = sum(
        max(0.0, min(float(entry["end_monotonic_s"]), end_s) - max(float(entry["start_monotonic_s"]), begin_s))
        for entry in run.site_log
    )
    return busy_s / (end_s - begin_s)


def by_slot(run: Run) -> dict[str, list[Entry]]:
    """The requests of each downloader slot, in the order in which they were let go; for projects with ``MARKING``."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(run.site_log, key=_let_go_s):
        found[entry["user_agent"].rpartition(" ")[0]].append(entry)
    return found


def shortest_gap_s(entries: Iterable[Entry]) -> float:
    """The shortest time between two requests of a slot, from when the one was let go until the other was."""
    return min(later - earlier for earlier, later in pairwise(sorted(map(_let_go_s, entries))))


def arrivals_a_s(entries: Sequence[Entry]) -> float:
    """Requests a second, by when they arrived."""
    starts = sorted(float(entry["start_monotonic_s"]) for entry in entries)
    return (len(starts) - 1) / (starts[-1] - starts[0])


def pages_a_s(run: Run) -> float:
    """Requests a second, while the crawl is at full speed."""
    entries = sorted(_full_speed(run), key=lambda entry: float(entry["start_monotonic_s"]))
    return arrivals_a_s(entries[int(len(entries) * _BEGIN) :])


def _full_speed(run: Run) -> list[Entry]:
    """What arrived after all crawl processes had joined."""
    return [entry for entry in run.site_log if entry["start_monotonic_s"] >= run.joined_s]


def _let_go_s(entry: Entry) -> float:
    return float(entry["user_agent"].rpartition(" ")[2])
