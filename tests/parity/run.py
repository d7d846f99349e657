"""Run a case in one of its ways, and gather all that it leaves behind."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.integration.machine import Finished, Machine, Running, Site
from tests.integration.outcome import REPEATED, dumped_stats, fixed
from tests.parity.case import Case, Crawl, Way, write_files
from tests.parity.contents import read
from tests.parity.log import Record, records
from tests.parity.traffic import at_once
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
#: The same until several crawls have begun (ms).
SLOWEST_MS: Final = 1000
#: What a crawl says when its task is made, and its project was sent.
_SENT: Final = r"vscrapy: task (\d+): "
#: What the engine says of each page.
_CRAWLED: Final = re.compile(r"Crawled \(\d+\) <\w+ (?P<url>\S+)>")
#: What the preflight names when a crawl starts.
_FINDING: Final = re.compile(r"^vscrapy: check: .* \[([a-z-]+)\]: ", re.MULTILINE)
#: Loggers of what is the same for all: the public suffix list is fetched by the first who needs it, if at all.
_ELSEWHERE: Final = frozenset({"tldextract"})


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
    #: The site's access log, in the order of the arrivals.
    site_log: list[dict[str, Any]]
    #: Requests at once, at most.
    peak: int
    #: Which of the case's crawls it is.
    name: str = ""
    #: URL and number of the crawl process, for each page that was crawled; for vscrapy, with LOG_LEVEL at DEBUG.
    crawled: list[tuple[str, int]] = field(default_factory=list)
    #: Crawl processes that the task has had.
    joined: int = 0
    #: Requests that waited on Redis at a time, at most, as far as was seen.
    deepest: int = 0
    #: When all crawl processes had joined (monotonic seconds), where that was waited for; else 0.
    joined_s: float = 0.0
    #: Tasks that all crawls of the case have made, together.
    made: int = 0

    @property
    def paths(self) -> list[str]:
        """The paths of the site that were asked for, in the order of their arrival."""
        return [entry["path"] for entry in self.site_log]

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
    """Follows a task's log on Redis: which crawl process does what."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._streams = Streams(machine.store)
        self._before = machine.last_taskid()
        self._taskid: int | None = None
        #: Whose task it is; None: the next task is the one.
        self.running: Running | None = None
        self._cursor = Cursors()
        self._opened: set[int] = set()
        self.deepest = 0
        self.crawled: list[tuple[str, int]] = []

    @property
    def taskid(self) -> int | None:
        """The task; None: not yet."""
        if self._taskid is None and self.running is not None:
            found = re.search(_SENT, self.running.stderr, re.MULTILINE)
            self._taskid = None if found is None else int(found[1])
        elif self._taskid is None:
            last = self._machine.last_taskid()
            self._taskid = last if last > self._before else None
        return self._taskid

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


@dataclass
class _Going:
    """A crawl that was started."""

    crawl: Crawl
    project: Path
    running: Running
    #: None: it is no task.
    watch: _Watch | None


def crawl(case: Case, way: Way, machine: Machine, site: Site, directory: Path) -> list[Run]:
    """
    Run the crawls of a case in one way, in a directory of their own.

    On one process, what can be run again is run twice: the second time, with a head start, is what is compared.
    """
    if way == "1 process" and case.can_be_repeated:
        _crawl(case, way, machine, site, directory)
        shutil.rmtree(directory)
    return _crawl(case, way, machine, site, directory)


def _crawl(case: Case, way: Way, machine: Machine, site: Site, directory: Path) -> list[Run]:
    before = machine.last_taskid()
    written: dict[str, dict[str, bytes]] = {}
    for each in case.all_crawls:
        if each.project not in written:
            written[each.project] = _bytes(case.write(directory / each.project, site.base))
            (directory / each.project / case.directory).mkdir(exist_ok=True)
    for turn in range(case.turns):
        site.reset()
        if case.latency_ms is not None:
            site.set_latency(case.latency_ms)
        followed = _Followed(case, way, machine, site, is_last=turn == case.turns - 1)
        for each in case.all_crawls:
            project = directory / each.project
            followed.make_ready(each)
            write_files(project, each.files, site.base)
            written[each.project].update({name: (project / name).read_bytes() for name in each.files})
            followed.start(each, project)
        followed.follow()
    log = sorted(site.log(), key=lambda entry: float(entry["start_monotonic_s"]))
    made = machine.last_taskid() - before
    return [
        _run(case, way, going, log, followed.joined_s, written[going.crawl.project], made) for going in followed.all
    ]


class _Followed:
    """The crawls of a case, started one after the other and followed to their ends."""

    def __init__(self, case: Case, way: Way, machine: Machine, site: Site, *, is_last: bool) -> None:
        self._case, self._way, self._machine, self._site = case, way, machine, site
        self._program, self._options = WAYS[way]
        self._deadline = time.monotonic() + case.timeout_s
        self.all: list[_Going] = []
        #: When all processes had joined, all crawls begun, or all been sent (monotonic seconds), where that was
        #: waited for.
        self.joined_s = 0.0
        #: Until then the site is slow, so that there is something to do for them.
        self._is_slow = way == "3 processes" and (case.least_processes > 1 or not is_last)
        if len(case.crawls) in range(2, case.slots + 1) or case.are_started_together:
            self._is_slow = way != "scrapy"
        if self._is_slow:
            site.set_latency(SLOWEST_MS if case.crawls else SLOW_MS)

    def make_ready(self, crawl: Crawl) -> None:
        """Wait until one may start: the project of the one before was sent, and that has the processes it needs."""
        if not self.all or self.all[-1].watch is None or self._case.are_started_together:
            return
        before = self.all[-1]
        before.running.wait_for_output(_SENT)
        most = 1 if self._way == "1 process" else crawl.after
        while self._n_open(before) < min(crawl.after, most) and self._is_going(before):
            self._look()

    def start(self, crawl: Crawl, project: Path) -> None:
        """Start one; with ``scrapy crawl``, wait for its end."""
        is_task = self._program == "vscrapy"
        command = [*self._case.command_line(self._program, self._site.base, crawl), *self._options]
        watch = _Watch(self._machine) if is_task else None
        running = self._machine.start(command, project / self._case.directory, env=self._case.env)
        if watch is not None and crawl.name:
            watch.running = running
        self.all.append(_Going(crawl, project, running, watch))
        if not is_task:
            running.wait(self._case.timeout_s)

    def follow(self) -> None:
        """Watch them until all have ended."""
        while any(map(self._is_going, self.all)):
            self._look()
        for going in self.all:
            going.running.wait(max(1.0, self._deadline - time.monotonic()))
            while going.watch is not None and going.watch.look(1):
                pass

    def _is_going(self, going: _Going) -> bool:
        return going.running.is_running and time.monotonic() < self._deadline

    @staticmethod
    def _n_open(going: _Going) -> int:
        return 0 if going.watch is None else going.watch.n_open

    @property
    def _have_joined(self) -> bool:
        if self._case.are_started_together:
            watches = [going.watch for going in self.all]
            return len(watches) == len(self._case.crawls) and all(watch and watch.taskid for watch in watches)
        n_open = [self._n_open(going) for going in self.all]
        if self._case.crawls:
            return len(n_open) == len(self._case.crawls) and all(n_open)
        return sum(n_open) >= self._case.slots

    def _look(self) -> None:
        for going in self.all:
            if going.watch is not None and going.running.is_running:
                going.watch.look()
        if self._is_slow and self._have_joined:
            self._is_slow = False
            self.joined_s = time.monotonic()
            latency_ms = self._case.latency_ms
            self._site.set_latency(self._site.delay_ms if latency_ms is None else latency_ms)


def _run(
    case: Case,
    way: Way,
    going: _Going,
    log: list[dict[str, Any]],
    joined_s: float,
    before: dict[str, bytes],
    made: int,
) -> Run:
    """What a crawl left behind."""
    project, crawl, watch = going.project, going.crawl, going.watch
    finished = going.running.wait()
    written = [name for name, data in _bytes(project).items() if before.get(name) != data]
    site_log = [entry for entry in log if crawl.name in ("", entry["user_agent"])]
    return Run(
        case,
        way,
        finished,
        project,
        items=_items(project / case.directory / crawl.feed),
        files={
            name: read(project / name, is_exact=any(fnmatch.fnmatch(name, pattern) for pattern in case.exact))
            for name in written
            if Path(name).name != crawl.feed
        },
        stats=fixed(dumped_stats(finished)) if "Dumping Scrapy stats" in finished.stderr else {},
        log=[record for record in records(finished.stderr, str(project)) if _counts(case, record)],
        site_log=site_log,
        peak=at_once(site_log),
        name=crawl.name,
        crawled=watch.crawled if watch is not None else [],
        joined=watch.joined if watch is not None else 0,
        deepest=watch.deepest if watch is not None else 0,
        joined_s=joined_s,
        made=made,
    )


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
