"""What each worker has done for a task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vscrapy import keys
from vscrapy.shown import shown
from vscrapy.store.base import Store, text
from vscrapy.store.stat_changes import WORKER, of_commit, unpacked


@dataclass(frozen=True, slots=True)
class Work:
    """One worker's part of a task; a worker that has left keeps its counts."""

    worker: str
    #: Crawl processes now.
    processes: int
    #: Requests that are done: their leases ended, with all that came of them.
    done: int
    #: Requests that its crawl processes have leased.
    in_flight: int
    #: Requests that failed for good.
    failed: int
    #: Log records of level ERROR.
    errors: int
    items: int


def work(store: Store, taskid: int) -> list[Work]:
    """Read what each worker has done for a task, by name."""
    names = [keys.processes(taskid), keys.counts(taskid), keys.commits(taskid)]
    counts, held = store.run("work", names, [keys.prefix(taskid)])
    counted: Counter[str] = Counter()
    for name, number in zip(counts[::2], counts[1::2], strict=True):
        counted[shown(text(name))] += int(number)
    processes: Counter[str] = Counter()
    in_flight: Counter[str] = Counter()
    for told, leases, commit in zip(held[::3], held[1::3], held[2::3], strict=True):
        worker = shown(text(told))
        processes[worker] += 1
        in_flight[worker] += int(leases)
        for what, operation, n in unpacked(of_commit(commit)):
            if operation == WORKER:
                counted[f"{shown(what)} {worker}"] += int(n)
    workers = {name.partition(" ")[2] for name in counted} | set(processes)
    return [
        Work(
            worker=name,
            processes=processes[name],
            done=counted[f"done {name}"],
            in_flight=in_flight[name],
            failed=counted[f"failed {name}"],
            errors=counted[f"errors {name}"],
            items=counted[f"items {name}"],
        )
        for name in sorted(workers)
    ]
