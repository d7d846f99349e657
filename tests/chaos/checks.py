"""What must hold after a crawl, whatever has happened to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pytest

from tests.chaos.lab import SPIDER, Result, items_of, pages_of
from tests.chaos.report import Violation
from tests.chaos.stage import LEFT_S, Stage
from tests.integration import support
from tests.integration.machine import Finished, wait_for
from tests.integration.outcome import dumped_stats, fixed
from vscrapy.states import TaskState

#: So many of them are named.
NAMED: Final = 12
#: A page that some requests of stay on its process commits the others early; when it is done again, these are
#: duplicates of their own.
_CAN_BE_MORE: Final = frozenset({"dupefilter/filtered"})


def after_end(stage: Stage, expected: Result) -> list[Violation]:
    """When the task has ended and nothing is broken any more: its end, its result, and what is left of it."""
    found = [*_end(stage), *_left_on_server(stage)]
    items, stats = _result(stage)
    found += _elapsed(stats.get("elapsed_time_seconds"), stage.elapsed_s)
    return [*found, *_items(items, expected.items), *_pages(stage, expected), *_stats(fixed(stats), expected.stats)]


def _end(stage: Stage) -> list[Violation]:
    record = stage.record()
    assert record is not None
    assert stage.sender is not None
    wrong = []
    if (record.state, record.reason, record.exit_code) != (TaskState.FINISHED, "finished", 0):
        wrong.append(f"the task is {record.state}, {record.reason!r}, exit code {record.exit_code}")
    if record.queued or record.leased or record.processes:
        wrong.append(f"{record.queued} are queued, {record.leased} leased, {record.processes} processes there")
    code = stage.sender.running.wait(LEFT_S).exit_code
    if code:
        wrong.append(f"the sender's exit code is {code}; it said: {stage.sender.output[-3000:]}")
    return [Violation("ended wrong", words) for words in wrong]


def _left_on_server(stage: Stage) -> list[Violation]:
    try:
        wait_for(lambda: not stage.crawl_processes(), LEFT_S)
    except pytest.fail.Exception:
        processes = [f"{pid} {stage.processes().get(pid)}" for pid in stage.crawl_processes()]
        return [Violation("processes left", "; ".join(processes), len(processes))]
    try:
        wait_for(lambda: not stage.tasks.live_ids() and not support.faults(stage.store), LEFT_S)
    except pytest.fail.Exception:
        faults = [
            *support.faults(stage.store),
            *(f"task {taskid} is on the list" for taskid in stage.tasks.live_ids()),
        ]
        return [Violation("keys left", "; ".join(faults), len(faults))]
    return []


def _result(stage: Stage) -> tuple[Counter[str], dict[str, Any]]:
    assert stage.sender is not None
    if not stage.layout.is_detached:
        finished = Finished(0, "", stage.sender.errors)
        return items_of(stage.feed), dumped_stats(finished)
    command = ["items", str(stage.taskid), "-O", str(stage.feed), "--redis", stage.server.url]
    stage.home.run(["vscrapy", *command], stage.project)
    shown = stage.home.run(["vscrapy", "stats", str(stage.taskid), "--json", "--redis", stage.server.url])
    stats = json.loads(shown.stdout)["stats"]
    return items_of(stage.feed), {"feedexport/success_count/FileFeedStorage": 1, **stats}


def _elapsed(found_s: Any, most_s: float) -> list[Violation]:
    if isinstance(found_s, float) and 0 < found_s < most_s:
        return []
    return [Violation("stats wrong", f"elapsed_time_seconds is {found_s}, of a crawl that took less than {most_s}")]


def _items(items: Counter[str], expected: Counter[str]) -> list[Violation]:
    missing, more = expected - items, items - expected
    return [*_listed("items missing", missing.elements()), *_listed("items twice", more.elements())]


def _pages(stage: Stage, expected: Result) -> list[Violation]:
    pages = pages_of(stage.site)
    strange = [Violation("ended wrong", f"pages that nobody wanted: {sorted(pages - expected.pages)[:NAMED]}")]
    return [*_listed("pages missing", sorted(expected.pages - pages)), *(strange if pages - expected.pages else ())]


def _listed(kind: str, what: Iterable[str]) -> list[Violation]:
    found = list(what)
    return [Violation(kind, "; ".join(found[:NAMED]), len(found))] if found else []


def _stats(stats: Mapping[str, Any], expected: Mapping[str, Any]) -> list[Violation]:
    wrong = [
        f"{name} is {stats.get(name)}, not {expected.get(name)}"
        for name in sorted({*stats, *expected})
        if stats.get(name) != expected.get(name) and not (name in _CAN_BE_MORE and stats[name] > expected[name])
    ]
    return [Violation("stats wrong", "; ".join(wrong), len(wrong))] if wrong else []


def after_shutdown(stage: Stage) -> list[Violation]:
    """When all workers were sent away: none was broken, and no process is left."""
    found = [Violation("ended wrong", words) for words in stage.end_workers()]
    left = stage.left_processes()
    if left:
        found.append(
            Violation("processes left", "; ".join(f"{pid} {title}" for pid, title in left.items()), len(left))
        )
    return found


def situation(stage: Stage) -> str:
    """What there is to see where a crawl does not end."""
    processes = "\n".join(f"{pid} {title}" for pid, title in stage.processes().items())
    view = support.view(stage.store, stage.taskid) if stage.record() is not None else None
    shown = ""
    if view is not None:
        leased = {process: len(leases) for process, leases in view.leased.items()}
        shown = f"{dict(view.record)}\nplaces {dict(view.processes)}\nleased {leased}"
    said = stage.sender.output[-3000:] if stage.sender is not None else ""
    return f"spider {SPIDER}\n{shown}\n{processes}\nthe sender said: {said}"
