"""The reaper: gives back what dead workers held. Any live worker does it; doing it twice does no harm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from vscrapy.store.base import Store
from vscrapy.store.streams import Streams
from vscrapy.store.workers import Workers
from vscrapy.wire import LogLine


def reap(store: Store, names: list[str], reaper: str, say: Callable[[str], None]) -> None:
    """
    Let the crawl processes of dead workers leave their tasks, and take the workers off the list.

    Blocks on Redis: not for the reactor's thread. After an error, the next heartbeat names the rest again.

    Raises:
        StoreUnavailable, StoreRefused: As all of the store.
    """
    workers = Workers(store)
    for name in names:
        processes = workers.processes(name)
        for taskid, count in Counter(taskid for taskid, _ in processes).items():
            plural = "es" if count > 1 else ""
            words = f"vscrapy: worker {name} is dead; what its {count} crawl process{plural} had in hand goes back\n"
            # Before they leave: the last one's end can be the task's, and then nobody takes lines any more.
            Streams(store).append_log(taskid, [LogLine("err", words, time.time(), worker=reaper)])
        workers.leave_places(name)
        if workers.retire(name):
            say(f"worker {name} is dead; it had {len(processes)} crawl processes")
