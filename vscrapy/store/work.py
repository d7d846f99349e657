"""What each worker has done for a task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vscrapy import keys
from vscrapy.shown import shown
from vscrapy.store.base import Store, text


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
    counts, held = store.run("work", [keys.processes(taskid), keys.counts(taskid)], [keys.prefix(taskid)])
    counted = {shown(text(name)): int(number) for name, number in zip(counts[::2], counts[1::2], strict=True)}
    processes: Counter[str] = Counter()
    in_flight: Counter[str] = Counter()
    for worker, leases in zip(held[::2], held[1::2], strict=True):
        processes[shown(text(worker))] += 1
        in_flight[shown(text(worker))] += int(leases)
    names = {name.partition(" ")[2] for name in counted} | set(processes)
    return [
        Work(
            worker=name,
            processes=processes[name],
            done=counted.get(f"done {name}", 0),
            in_flight=in_flight[name],
            failed=counted.get(f"failed {name}", 0),
            errors=counted.get(f"errors {name}", 0),
            items=counted.get(f"items {name}", 0),
        )
        for name in sorted(names)
    ]
