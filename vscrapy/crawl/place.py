"""One crawl process's place in its task: who it is, what it talks with, and what its agent tells it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from vscrapy.crawl.log import ORPHANED, Channel, ChannelHandler
from vscrapy.store.frontier import Frontier
from vscrapy.store.tasks import Tasks
from vscrapy.wire import encode_items

if TYPE_CHECKING:
    from pathlib import Path

    from vscrapy.crawl.scheduler import Scheduler
    from vscrapy.store.base import Store


class Place:
    """
    Made once per crawl process, before its crawler.

    Args:
        key: The key that signs the task's payloads.
        number: The process's number in its task, from 1.
        is_alone: The task has one process at a time.
        has_job_dir: The crawl has a JOBDIR: what is not done when it ends is kept, and done later.
        project: The process's own copy of the project.
    """

    def __init__(
        self,
        store: Store,
        channel: Channel,
        *,
        taskid: int,
        process: str,
        number: int,
        worker: str,
        key: bytes,
        is_alone: bool,
        has_job_dir: bool,
        project: Path,
    ) -> None:
        self.taskid = taskid
        self.process = process
        self.number = number
        self.worker = worker
        self.key = key
        self.is_alone = is_alone
        self.has_job_dir = has_job_dir
        self.project = project
        self.channel = channel
        self.handler = ChannelHandler(channel)
        self.frontier = Frontier(store, taskid, process, seal=partial(encode_items, key=key))
        self.tasks = Tasks(store)
        self._lock = threading.Lock()
        #: Why the process is to leave; None: it is not.
        self._why: str | None = None
        self._leave: Callable[[str], None] | None = None
        self._call: Callable[..., Any] | None = None
        self.scheduler: Scheduler | None = None

    def attach(self, scheduler: Scheduler, call: Callable[..., Any]) -> None:
        """The spider is being opened: from now on the process can leave gracefully."""
        self.scheduler = scheduler
        self._call = call
        with self._lock:
            self._leave = leave = partial(call, scheduler.leave)
            why = self._why
        if why is not None:
            leave(why)

    def leave(self, why: str = "") -> None:
        """Leave the task to others, as soon as there is something to leave; *why*: for its log. From any thread."""
        with self._lock:
            self._why = why
            leave = self._leave
        if leave is not None:
            leave(why)

    def end_process(self, code: int) -> NoReturn:
        """End this process here and now: it is not wanted any more, or cannot go on. From any thread."""
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def listen(self) -> None:
        """Do what the agent says, in a thread; when the agent is gone, end."""

        def hear() -> None:
            while words := self.channel.listen():
                for word in words:
                    if word["do"] == "leave":
                        self.leave(word["why"])
                    elif word["do"] == "valve":
                        self.channel.least = int(word["level"])
                    elif word["do"] == "look" and self.scheduler is not None:
                        self.scheduler.look()
                    elif word["do"] == "answer":
                        self._answer()
            os._exit(ORPHANED)

        threading.Thread(target=hear, name="vscrapy-agent", daemon=True).start()

    def _answer(self) -> None:
        """Answer from the reactor's thread: a callback that blocks it keeps the answer back."""
        if self._call is not None:
            self._call(self.channel.tell, answers=True)
        else:
            self.channel.tell(answers=True)

    def take_signals(self) -> None:
        """SIGTERM and SIGINT to this process alone: leave; the task goes on elsewhere."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.leave())
