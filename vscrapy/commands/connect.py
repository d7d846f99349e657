"""``vscrapy -c 7,8``: follow the logs of tasks."""

from __future__ import annotations

import argparse
import signal
import threading
from typing import Final

from vscrapy import config
from vscrapy.commands import _store
from vscrapy.model import Endpoint
from vscrapy.sender.follow import Follower
from vscrapy.sender.presence import Following
from vscrapy.sender.terminal import Terminal, plain_handler
from vscrapy.store.entries import EndRecord
from vscrapy.store.tasks import Tasks

#: Lines that are shown of what was said before.
REPLAY_LINES: Final = 200


def run(argv: list[str]) -> int:
    """
    Follow tasks until they end.

    Returns:
        The exit code of the task, the largest of several; 0 when the user detaches.

    Raises:
        TaskGone: One of the tasks does not exist.
    """
    parser = argparse.ArgumentParser(
        prog="vscrapy -c",
        description="Follow the logs of tasks. Ctrl-C only detaches; the tasks go on.",
    )
    parser.add_argument("taskids", nargs="*", metavar="ID[,ID...]")
    parser.add_argument("--connect", action="append", default=[], metavar="ID[,ID...]", help="the same")
    parser.add_argument(
        "--lines", type=int, default=REPLAY_LINES, metavar="N", help="first show the last N lines (default: 200)"
    )
    config.add_redis_options(parser)
    opts = parser.parse_args(argv)
    ids = _store.taskids(opts.taskids + opts.connect)
    if not ids:
        parser.error("which tasks? 'vscrapy -l' lists them")
    endpoint = _store.endpoint(opts)
    tasks = Tasks(_store.store(opts))
    for taskid in ids:
        tasks.record(taskid)
    return _follow(endpoint, ids, max(0, opts.lines))


def _follow(endpoint: Endpoint, ids: list[int], lines: int) -> int:
    handler = plain_handler()
    detached = threading.Event()
    ends: dict[int, EndRecord | None] = {}

    def follow(taskid: int) -> None:
        terminal = Terminal(lambda: handler, prefix=f"{taskid} | " if len(ids) > 1 else "")
        follower = Follower(endpoint, taskid, terminal)
        end = follower.replay(lines) or follower.run(is_wanted=lambda: not detached.is_set())
        if end is not None:
            ends[taskid] = end
            terminal.tell(f"task {taskid} ended: {end.reason} (exit code {end.exit_code})")
        follower.close()

    signal.signal(signal.SIGINT, lambda *_: detached.set())
    signal.signal(signal.SIGTERM, lambda *_: detached.set())
    following = Following(endpoint, ids)
    following.start()
    threads = [threading.Thread(target=follow, args=(taskid,), daemon=True) for taskid in ids]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not detached.is_set():
        threads[0].join(0.1)
        for thread in threads[1:]:
            thread.join(0.01)
    following.stop()
    going_on = [str(taskid) for taskid in ids if taskid not in ends]
    if detached.is_set() and going_on:
        noun, verb, pronoun = ("task", "goes", "it") if len(going_on) == 1 else ("tasks", "go", "them")
        print(
            f"\nvscrapy: detached from {noun} {', '.join(going_on)}, which {verb} on; "
            f"vscrapy stop {','.join(going_on)} ends {pronoun}"
        )
        return 0
    return max((end.exit_code if end else 1) for end in (ends.get(taskid) for taskid in ids))
