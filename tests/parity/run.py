"""Run a case in one of its ways, and gather all that it leaves behind."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.integration.machine import Finished, Machine, Running, Site
from tests.integration.outcome import REPEATED, dumped_stats, fixed
from tests.parity.case import Case, Way
from tests.parity.contents import read
from tests.parity.log import Record, records
from vscrapy import keys
from vscrapy.errors import TaskGone
from vscrapy.store.streams import Cursors, Streams
from vscrapy.wire import LogLine

#: Program and options of each way; there are three slots.
WAYS: Final[Mapping[Way, tuple[str, tuple[str, ...]]]] = {
    "scrapy": ("scrapy", ()),
    "1 process": ("vscrapy", ("--workers", "1")),
    "3 processes": ("vscrapy", ()),
}
#: Pages are so slow (ms) until all processes have joined, so that there is something to do for them.
SLOW_MS: Final = 250
#: What the engine says of each page.
_CRAWLED: Final = re.compile(r"Crawled \(\d+\) <\w+ (?P<url>\S+)>")
#: What the preflight names when a crawl starts.
_FINDING: Final = re.compile(r"^vscrapy: check: .* \[([a-z-]+)\]: ", re.MULTILINE)
#: Loggers of what is the same for all: the public suffix list is fetched by the first who needs it, if at all.
_ELSEWHERE: Final = frozenset({"tldextract"})
#: The feed of most cases.
_FEED: Final = "items.jsonl"


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    case: Case
    way: Way
    finished: Finished
    #: The project's directory, as it is after the run.
    project: Path
    #: The items of ``items.jsonl``, as JSON, and how often each.
    items: Counter[str]
    #: New and changed files but that one: path -> contents, see :mod:`tests.parity.contents`.
    files: dict[str, Any]
    #: Stats but those that vary between two runs of Scrapy; empty when none were dumped.
    stats: dict[str, Any]
    #: Records from WARNING on, and the project's own at every level.
    log: list[Record]
    #: The site's access log.
    site_log: list[dict[str, Any]]
    #: Requests at once, at most.
    peak: int
    #: URL and number of the crawl process, for each page that was crawled; for vscrapy, with LOG_LEVEL at DEBUG.
    crawled: list[tuple[str, int]] = field(default_factory=list)
    #: Crawl processes that the task has had.
    joined: int = 0
    #: Requests that waited on Redis at a time, at most, as far as was seen.
    deepest: int = 0

    @property
    def paths(self) -> list[str]:
        """The paths of the site that were asked for, in the order of their arrival."""
        return [entry["path"] for entry in sorted(self.site_log, key=lambda entry: entry["start_monotonic_s"])]

    @property
    def requests(self) -> Counter[str]:
        """Method, path, query and status of each request, and how often."""
        found = Counter(f"{e['method']} {e['path']}?{e['query']} {e['status']}" for e in self.site_log)
        return Counter({request: count for request, count in found.items() if not REPEATED.match(request)})

    @property
    def preflight(self) -> frozenset[str]:
        """What the preflight named."""
        return frozenset(_FINDING.findall(self.finished.stderr))

    @property
    def processes(self) -> int:
        """Crawl processes that have crawled a page."""
        return len({number for _, number in self.crawled}) or self.joined


class _Watch:
    """Follows the newest task's log on Redis: which crawl process does what."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._streams = Streams(machine.store)
        self._before = machine.last_taskid()
        self._cursor = Cursors()
        self._opened: set[int] = set()
        self.deepest = 0
        self.crawled: list[tuple[str, int]] = []

    @property
    def taskid(self) -> int | None:
        """The task; None: not yet."""
        last = self._machine.last_taskid()
        return last if last > self._before else None

    @property
    def n_open(self) -> int:
        """Crawl processes that are ready."""
        return len(self._opened)

    def look(self, block_ms: int = 20) -> bool:
        """Take what is new, after a short wait; was there something?"""
        taskid = self.taskid
        if taskid is None:
            time.sleep(block_ms / 1000)
            return False
        with contextlib.suppress(TaskGone):  # its id is there a moment before its record
            self.deepest = max(self.deepest, self._machine.tasks.record(taskid).queued)
        entries, _ = self._streams.read(taskid, self._cursor, with_items=False, block_ms=block_ms)
        for entry in entries:
            self._cursor = Cursors(log=entry.cursor)
            for line in entry.lines:
                self._take(line)
        return bool(entries)

    def _take(self, line: LogLine) -> None:
        if line.logger != "scrapy.core.engine":
            return
        if line.text == "Spider opened":
            self._opened.add(line.process)
        elif found := _CRAWLED.match(line.text):
            self.crawled.append((found["url"], line.process))

    @property
    def joined(self) -> int:
        """Crawl processes that the task has had."""
        taskid = self.taskid
        return 0 if taskid is None else int(self._machine.store.client.hget(keys.task(taskid), "process_seq") or 0)


def crawl(case: Case, way: Way, machine: Machine, site: Site, directory: Path) -> Run:
    """Run a case in one way, in a directory of its own."""
    program, options = WAYS[way]
    project = case.write(directory, site.base)
    before = _bytes(project)
    (project / case.directory).mkdir(exist_ok=True)
    command = [*case.command_line(program, site.base), *options]
    for turn in range(case.turns):
        site.reset()
        watch = None if program == "scrapy" else _Watch(machine)
        running = machine.start(command, project / case.directory, env=case.env)
        if watch is not None:
            is_slow = way == "3 processes" and (case.least_processes > 1 or turn < case.turns - 1)
            _follow(watch, running, site, case, is_slow=is_slow)
        finished = running.wait(case.timeout_s)
    if watch is not None:
        while watch.look(1):
            pass
    state = site.state()
    written = [name for name, data in _bytes(project).items() if before.get(name) != data]
    return Run(
        case,
        way,
        finished,
        project,
        items=_items(project / case.directory / _FEED),
        files={
            name: read(project / name, is_exact=any(fnmatch.fnmatch(name, pattern) for pattern in case.exact))
            for name in written
            if Path(name).name != _FEED
        },
        stats=fixed(dumped_stats(finished)) if "Dumping Scrapy stats" in finished.stderr else {},
        log=[record for record in records(finished.stderr, str(project)) if _counts(case, record)],
        site_log=state["entries"],
        peak=state["peak"],
        crawled=watch.crawled if watch is not None else [],
        joined=watch.joined if watch is not None else 0,
        deepest=watch.deepest if watch is not None else 0,
    )


def _follow(watch: _Watch, running: Running, site: Site, case: Case, *, is_slow: bool) -> None:
    """Watch a run to its end; until all processes are there, the site may be slow."""
    deadline = time.monotonic() + case.timeout_s
    if is_slow:
        site.set_latency(SLOW_MS)
    while running.is_running and time.monotonic() < deadline:
        watch.look()
        if is_slow and watch.n_open == 3:
            is_slow = False
            site.set_latency(site.delay_ms)


def _bytes(directory: Path) -> dict[str, bytes]:
    """All files below a directory, but Python's own caches."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _items(feed: Path) -> Counter[str]:
    if not feed.exists():
        return Counter()
    return Counter(json.dumps(json.loads(line), sort_keys=True) for line in feed.read_text().splitlines())


def _counts(case: Case, record: Record) -> bool:
    from_here = record.logger == case.spider or any(
        record.logger == name or record.logger.startswith(f"{name}.") for name in case.loggers
    )
    return from_here or (record.level >= logging.WARNING and record.logger not in _ELSEWHERE)
