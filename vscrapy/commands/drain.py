"""``vscrapy drain w1``: let workers finish what they have in hand, and end."""

from __future__ import annotations

import argparse

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.errors import WorkerGone
from vscrapy.store.workers import Workers


def run(argv: list[str]) -> int:
    """
    Tell workers to finish and end.

    Raises:
        WorkerGone: One of them is not online; none was told.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy drain",
        description="Let workers finish what is in flight, give the rest to others, and end: as SIGTERM there.",
    )
    parser.add_argument("workers", nargs="+", metavar="WORKER")
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    workers = Workers(_store.store(opts))
    online = {worker.name: worker for worker in workers.list() if worker.is_alive}
    for name in opts.workers:
        if name not in online:
            there = f"online: {', '.join(online)}" if online else "there is none"
            raise WorkerGone(f"no worker named {name!r} is online; {there} ('vscrapy -l' lists those that are lost)")
    for name in dict.fromkeys(opts.workers):
        n_busy = len(workers.processes(name))  # what its record says is as old as its last heartbeat
        what = f"{n_busy} crawl process{'es' if n_busy != 1 else ''}"
        print(f"worker {name} {'ends' if workers.drain(name) else 'is ending already'}: {what} to finish with")
    return 0
