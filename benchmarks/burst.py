"""
What a page costs a server that is never idle: commits that were made beforehand, one right behind the other.

So little of the CPU time is that of waking up, and of caches that others have emptied meanwhile: it is what a server
has to pay for a page when its core is full. The commits are those of one simulated crawl process
(``benchmarks/simulated.py``); that leases are numbered in order lets it know them before the server has given them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks import machine
from benchmarks.simulated import HOST, Pages, SimulatedProcess, Tally, main_thread_s
from vscrapy.states import StopMode
from vscrapy.store.base import Store
from vscrapy.store.frontier import Limits
from vscrapy.store.scripts import source
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.testing import server

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

#: Pages that are committed with one burst.
BURST: Final = 128
#: Pages a commit, and the part of the known links that is not sent.
CASES: Final = tuple((pages, remembered) for remembered in (0.0, 0.6, 1.0) for pages in (1, 2, 4, 8, 16))
HEAD: Final = """\
| pages a commit, links sent a page | server CPU a page (µs), median | least | pages/s on one core, by the median |
| --- | --- | --- | --- |"""


@dataclass(frozen=True, slots=True)
class Burst:
    """What was measured of one kind of commits."""

    pages_a_commit: int
    links_sent: float
    #: Server CPU a page (µs), of each burst.
    page_us: tuple[float, ...]


class _Recording(Store):
    """Keeps commits instead of sending them, and answers as a server would that has enough of everything."""

    def begin(self) -> None:
        """Keep them from now on."""
        self._sha = self.client.script_load(source("commit"))
        self.kept: list[Any] = []
        self._n_leases = 0

    def run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        """Run a script, or keep it."""
        if script != "commit" or not hasattr(self, "kept"):
            return super().run(script, keys, args)
        self.kept.append(("EVALSHA", self._sha, len(keys), *keys, *args))
        leases: list[bytes] = []
        for _ in range(int(args[3])):
            self._n_leases += 1
            url = b"%s\n0\nhttp://%s/%08d" % (HOST, HOST, self._n_leases)
            leases += [str(self._n_leases).encode(), url]
        return [b"ok", b"running", b"", b"", 1, 1, 0, b"", leases, 0, [], [], 0, [], 0, b""]


@dataclass(frozen=True, slots=True)
class Made:
    """Commits that are sent at once."""

    pages: int
    commits: int
    #: Requests.
    links: int


class Recorded:
    """A crawl process on a server that has no tasks yet; its commits are made first, and then sent at once."""

    def __init__(self, endpoint: Endpoint, remembered: float, limits: Limits | None = None) -> None:
        self.store, self._tally = _Recording(endpoint, name="vscrapy-burst"), Tally()
        self._tasks = Tasks(self.store)
        self._taskid = self._tasks.new_id()
        self._tasks.submit(self._taskid, b"job", spider="burst", options=TaskOptions(log_keep=1000))
        pages = Pages(20_000, remembered=remembered)
        self._process = SimulatedProcess(
            self.store, self._taskid, "burst", "burst.1", pages, pages_a_s=1.0, tally=self._tally
        )
        self._process.begin(limits or Limits())
        self._process.feed()
        self._connection = self.store.client.connection_pool.make_connection()
        self._connection.connect()
        self.store.begin()

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()
        self._tasks.stop(self._taskid, reason="finished", mode=StopMode.FORCED)
        self.store.close()

    def make(self, pages_a_commit: int, pages: int) -> Made:
        """Make commits with so many pages, or some more; :meth:`send` sends them."""
        n_pages, n_links = self._tally.pages, self._tally.sent
        while self._tally.pages < n_pages + pages:
            self._process.step(n_done=pages_a_commit)
            self._process.forget()
        packed = [part for command in self.store.kept for part in self._connection.pack_command(*command)]
        self._packed, self._n_commits = b"".join(packed), len(self.store.kept)
        self.store.kept.clear()
        return Made(self._tally.pages - n_pages, self._n_commits, self._tally.sent - n_links)

    def send(self) -> None:
        """
        Send what was made.

        Raises:
            RuntimeError: A commit was not taken.
        """
        self._connection.send_packed_command([self._packed])
        for _ in range(self._n_commits):
            reply = self._connection.read_response()
            if reply[0] != b"ok":
                raise RuntimeError(f"a commit was not taken: {reply}")


def measure_one(
    endpoint: Endpoint, pages_a_commit: int, remembered: float, *, bursts: int, limits: Limits | None = None
) -> Burst:
    """Send so many bursts to a server that has no tasks yet."""
    found, n_links, n_pages = [], 0, 0
    with Recorded(endpoint, remembered, limits) as commits:
        for _ in range(bursts + 1):
            made = commits.make(pages_a_commit, BURST)
            before_s = main_thread_s(commits.store)
            commits.send()
            found.append((main_thread_s(commits.store) - before_s) / made.pages * 1e6)
            n_links, n_pages = n_links + made.links, n_pages + made.pages
    return Burst(pages_a_commit, n_links / n_pages, tuple(found[1:]))


def measure(cases: Sequence[tuple[int, float]] = CASES, *, bursts: int = 20) -> list[Burst]:
    """Measure each kind of commits on a server of its own."""
    rows = []
    for pages_a_commit, remembered in cases:
        with server() as endpoint:
            rows.append(measure_one(endpoint, pages_a_commit, remembered, bursts=bursts))
        print(f"{time.strftime('%H:%M:%S')} {line(rows[-1])}", file=sys.stderr)
    return rows


def line(row: Burst) -> str:
    """A row of the table."""
    cost_us = median(row.page_us)
    return (
        f"| {row.pages_a_commit}, {row.links_sent:.0f} | {cost_us:.0f} | {min(row.page_us):.0f} "
        f"| {round(1e6 / cost_us, -2):,.0f} |"
    )


def table(rows: Sequence[Burst]) -> str:
    """What was measured, as Markdown."""
    return "\n".join([HEAD, *map(line, rows)])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.burst", description=__doc__)
    parser.add_argument("--bursts", type=int, default=20, help=f"of {BURST} pages, for each kind of commits")
    options = parser.parse_args()
    print(machine.describe())
    print(table(measure(bursts=options.bursts)))


if __name__ == "__main__":
    main()
