"""What a follower shows of a log whose first lines a head start has shown."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from tests.integration.machine import wait_for
from tests.integration.support import Process, submit
from vscrapy.model import Endpoint
from vscrapy.secret import new_nonce
from vscrapy.sender.earlytask import EarlyTask
from vscrapy.sender.follow import Follower
from vscrapy.sender.terminal import Terminal
from vscrapy.states import StopMode
from vscrapy.store.base import Store
from vscrapy.store.plain import Plain
from vscrapy.store.streams import Streams
from vscrapy.store.tasks import Tasks
from vscrapy.wire import LogLine


def banner(text: str, logger: str = "scrapy.utils.log") -> LogLine:
    """A line that each crawl process says as it starts."""
    return LogLine("log", text, level=logging.INFO, logger=logger, is_banner=True, process=1, worker="w1")


@pytest.mark.parametrize("n_entries", [1, 2, 4])
def test_early_lines_and_the_others_are_each_shown_once(server: Endpoint, store: Store, n_entries: int) -> None:
    """However the lines come, in one entry or in several: what may be shown early is, and the rest later."""
    taskid = submit(store)
    process = Process(store, taskid)
    assert process.claim()  # it has not joined: the task is not confirmed
    said = [
        banner("Scrapy started"),
        banner("Enabled extensions:"),
        banner("Enabled spider middlewares:", "scrapy.middleware"),
        LogLine("log", "page 1", level=logging.INFO, logger="shop", process=1, worker="w1"),
    ]
    size = len(said) // n_entries
    for at in range(0, len(said), size):
        assert Streams(store).append_log(taskid, said[at : at + size])
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    terminal = Terminal(lambda: handler, is_home=True, project=Path.cwd())
    early = EarlyTask(server, taskid, {}, new_nonce(), terminal, Plain(server))
    early.start(is_shown=True)
    wait_for(lambda: "Enabled extensions:" in shown.getvalue(), what="the early lines are shown")
    early.end()
    early.release()
    assert shown.getvalue() == "Scrapy started\nEnabled extensions:\n"

    Tasks(store).stop(taskid, reason="shutdown", mode=StopMode.FORCED)
    process.leave()
    follower = Follower(server, taskid, terminal, start=early.cursor, n_shown=early.n_shown)
    assert follower.run() is not None
    follower.close()
    assert shown.getvalue().splitlines()[2:] == ["Enabled spider middlewares:", "page 1"]
