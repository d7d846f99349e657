"""``vscrapy -l``: workers and tasks."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table

from vscrapy import config, embedded
from vscrapy.commands import _store, _tables
from vscrapy.labels import labels_to_text
from vscrapy.model import PROTOCOL
from vscrapy.sender.waiting import why_waiting
from vscrapy.store.tasks import TaskRecord, Tasks
from vscrapy.store.workers import WorkerRecord, Workers
from vscrapy.valve import Valve
from vscrapy.versions import NAMES, differing, versions_here

#: Finished tasks that are shown.
MOST_FINISHED: Final = 10


def run(argv: list[str]) -> int:
    """
    Show workers and tasks.

    Raises:
        StoreUnavailable, StoreRefused: Redis does not answer.
    """
    parser = argparse.ArgumentParser(prog="vscrapy -l", description="Show workers and tasks.")
    parser.add_argument(
        "--versions",
        action="store_true",
        help="what this machine and the workers have of Python, Scrapy, Twisted, vscrapy",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--all", action="store_true", help="all tasks that ended, not only the last ten")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    store = _store.store(opts)
    if opts.versions:
        _show_versions(Workers(store).list(), is_json=opts.json)
        return 0
    tasks = Tasks(store)
    ids = tasks.live_ids() + tasks.suspended_ids() + tasks.finished_ids(1_000_000 if opts.all else MOST_FINISHED)
    records = sorted(tasks.records(list(dict.fromkeys(ids))).values(), key=lambda record: record.taskid)
    workers = Workers(store).list()
    now_ms = tasks.now_ms()
    if opts.json:
        shown = {
            "workers": [_worker_data(worker) for worker in workers],
            "tasks": [_task_data(record) for record in records],
        }
        json.dump(shown, sys.stdout, indent=2)
        print()
        return 0
    console = _tables.console()
    console.print(f"Redis: {config.redact(store.endpoint.url)} (from {store.endpoint.source})", soft_wrap=True)
    if store.endpoint.source == "embedded":
        console.print(embedded.describe(config.home()), soft_wrap=True)
    console.print()
    console.print(_worker_table(workers, now_ms))
    console.print()
    console.print(_task_table(records, now_ms, workers))
    return 0


def _show_versions(workers: list[WorkerRecord], *, is_json: bool) -> None:
    """Show what everybody has, and where it differs from what is here."""
    here = versions_here()
    if is_json:
        shown = [
            {
                "name": worker.name,
                "state": "online" if worker.is_alive else "lost",
                "versions": worker.versions,
                "protocol": worker.protocol,
                "differs": differing(here, worker.versions),
            }
            for worker in workers
        ]
        json.dump({"here": {"versions": here, "protocol": PROTOCOL}, "workers": shown}, sys.stdout, indent=2)
        print()
        return
    table = _tables.table(
        "versions",
        left=" ".join(["worker", "state", *NAMES, "differs"]),
        right="protocol",
        order=" ".join(["worker", "state", *NAMES, "protocol", "differs"]),
    )
    table.add_row("(here)", "", *here.values(), str(PROTOCOL), "")
    for worker in workers:
        names = differing(here, worker.versions)
        note = ", ".join(names)
        if worker.protocol != PROTOCOL:
            note = "protocol: takes no task from here; install one version of vscrapy"
        state = "online" if worker.is_alive else "lost"
        has = [worker.versions[name] or "?" for name in NAMES]
        table.add_row(worker.name, state, *has, str(worker.protocol or "?"), note)
    _tables.console().print(table)


def _worker_data(worker: WorkerRecord) -> dict[str, Any]:
    data = asdict(worker)
    del data["token"], data["mark"]
    data["state"] = "online" if data.pop("is_alive") else "lost"
    return data


def _task_data(record: TaskRecord) -> dict[str, Any]:
    data = asdict(record)
    data["state"] = record.state.value
    data["valve"] = record.valve.value
    data["stop_mode"] = record.stop_mode.value if record.stop_mode else None
    data["on"], data["exclude"] = record.choice.on, record.choice.exclude
    del data["choice"]
    data["in_flight"] = data.pop("leased")
    data["attached"] = data.pop("is_attached")
    data["waiting"] = record.is_waiting
    data["held"] = record.is_held
    data["exit_code"] = record.exit_code if record.ended_ms else None
    return data


def _ago(since_ms: int, now_ms: int) -> str:
    seconds = max(0, now_ms - since_ms) // 1000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} d"


def _worker_table(workers: list[WorkerRecord], now_ms: int) -> Table:
    table = _tables.table(
        f"workers: {len(workers)}",
        left="worker state host version labels",
        right="procs slots pid up seen",
        order="worker state procs slots host pid up seen version labels",
    )
    for worker in workers:
        table.add_row(
            worker.name,
            _worker_state(worker),
            str(worker.processes),
            str(worker.slots),
            worker.host,
            str(worker.pid),
            _ago(worker.since_ms, now_ms),
            f"{_ago(worker.seen_ms, now_ms)} ago",
            worker.version,
            labels_to_text(worker.labels),
        )
    return table


def _worker_state(worker: WorkerRecord) -> str:
    state = "online" if worker.is_alive else "lost"
    if worker.is_alive and worker.is_draining:
        state += ", ends"
    return state + (f", {worker.refused} refused" if worker.refused else "")


def _task_table(records: list[TaskRecord], now_ms: int, workers: list[WorkerRecord]) -> Table:
    table = _tables.table(
        f"tasks: {len(records)}",
        left="spider state sender",
        right="task age pages items errors queued flight procs",
        order="task spider state age pages items errors queued flight procs sender",
    )
    for record in records:
        state = record.state.value + (f": {record.reason}" if record.reason not in ("", "finished") else "")
        if record.feeds == "failed":
            state += ", feeds not stored"
        if record.is_held:
            state += f", held: {record.items_bytes >> 20} MiB of items wait to be fetched"
        if record.valve is not Valve.AUTO and not record.ended_ms:
            state += f" (valve {record.valve.value})"
        if record.protocol != PROTOCOL and not record.ended_ms:
            state += f", made by {record.maker}, here {PROTOCOL}"
        elif record.is_waiting:
            has_worker = not why_waiting(workers, record.choice, has_begun=True)
            state += ", waits for a slot" if has_worker else f", waits for a worker {record.choice}".rstrip()
        sender = "detached"
        if record.is_attached:
            sender = "attached" if record.ended_ms else f"seen {_ago(record.sender_ms, now_ms)} ago"
        table.add_row(
            str(record.taskid),
            record.spider,
            state,
            _ago(record.created_ms, record.ended_ms or now_ms),
            str(record.pages),
            str(record.items),
            str(record.errors),
            str(record.queued),
            str(record.leased),
            str(record.processes),
            sender,
        )
    return table
