"""
For tests: run a crawler in the test's own process, with the scheduler and the stats that crawl processes have.

A real task on a real Redis or Valkey, with this process as its only crawl process::

    with testing.server() as endpoint, testing.task(endpoint) as task:
        crawler = get_crawler(MySpider, task.settings({"CONCURRENT_REQUESTS": 4}))
        await crawler.crawl_async()
        assert task.stats()["item_scraped_count"] == 10

Feeds, pipelines and extensions stay in this process, as in a crawl without vscrapy: only what a crawl process shares
with others is put in. One task is for one crawler. Use a server that no worker looks at, for a worker would take the
task for its own.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from vscrapy import embedded
from vscrapy.crawl.log import NoChannel
from vscrapy.crawl.main import LAST_STATS_S, take_part
from vscrapy.crawl.place import Place
from vscrapy.errors import TaskGone
from vscrapy.secret import new_nonce, payload_key, task_key
from vscrapy.states import StopMode
from vscrapy.stats import merge
from vscrapy.store.base import Store
from vscrapy.store.frontier import leave
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Workers
from vscrapy.wire import encode_job

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from vscrapy.model import Endpoint

#: The name under which the place is claimed: no worker's.
_WORKER: Final = "testing"
#: Log lines kept: nobody writes any.
_LOG_KEEP: Final = 100


class Task:
    """A task with this process as its only crawl process. Made by :func:`task`."""

    def __init__(self, store: Store, place: Place) -> None:
        self._store = store
        self._place = place

    @property
    def taskid(self) -> int:
        """The task's id on its server."""
        return self._place.taskid

    def install(self, settings: BaseSettings) -> None:
        """
        Put the scheduler and the stats of this task into a crawler's settings, before it reads them.

        Raises:
            ConfigError: They have a scheduler of their own.
        """
        take_part(settings, self._place)

    def settings(self, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Make settings for one crawler of *own* ones.

        Raises:
            ConfigError: They have a scheduler of their own.
        """
        from scrapy.settings import Settings

        made = Settings(dict(own or {}))
        self.install(made)
        return {**(own or {}), **{name: made[name] for name in ("SCHEDULER", "STATS_CLASS")}}

    def stats(self) -> dict[str, Any]:
        """Read the task's stats, as ``vscrapy stats`` does; after the crawl, the last ones are among them."""
        if self._place.scheduler is not None and self._place.scheduler.is_closed:
            self._place.scheduler.finish(timeout_s=LAST_STATS_S)
        return merge(*Tasks(self._store).stats(self.taskid))

    def end(self) -> None:
        """End the task, and what of its crawl is left. Safe to call again."""
        place = self._place
        if place.scheduler is not None:
            if not place.scheduler.is_closed:
                place.scheduler.close("shutdown")
            place.scheduler.finish(timeout_s=LAST_STATS_S)
        leave(self._store, place.taskid, place.process, how="left")
        Workers(self._store).release(place.taskid, place.process, place.worker)
        tasks = Tasks(self._store)
        tasks.stop(place.taskid, reason="finished", mode=StopMode.FORCED)
        tasks.archive(tasks.record(place.taskid))
        self._store.close()


class _TestPlace(Place):
    def end_process(self, code: int) -> NoReturn:
        """End only the thread that says so: the process is the test's."""
        raise SystemExit(code)


@contextmanager
def server() -> Iterator[Endpoint]:
    """
    Start an empty Valkey of this test's own, which ends with the context.

    Raises:
        EmbeddedError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="vscrapy-testing-") as home:
        try:
            yield embedded.ensure(Path(home))
        finally:
            embedded.shutdown(Path(home))


@contextmanager
def task(endpoint: Endpoint, *, project: Path | None = None) -> Iterator[Task]:
    """
    Make a task that this process works on; it ends with the context.

    Args:
        project: The directory that tracebacks are told relative to; this one, if none is given.

    Raises:
        TaskGone: A worker was quicker to take it.
        StoreUnavailable, StoreRefused: The server does not do as it should.
    """
    made = begin(endpoint, project=project)
    try:
        yield made
    finally:
        made.end()


def begin(endpoint: Endpoint, *, project: Path | None = None) -> Task:
    """As :func:`task`, for who calls :meth:`Task.end` by themselves."""
    store = Store(endpoint, name=f"vscrapy-testing-{os.getpid()}")
    tasks = Tasks(store)
    taskid, nonce = tasks.new_id(), new_nonce()
    key = task_key(endpoint.secret, taskid)
    tasks.submit(
        taskid,
        encode_job({"kind": "testing", "nonce": nonce}, key),
        spider=_WORKER,
        options=TaskOptions(max_processes=1, log_keep=_LOG_KEEP),
    )
    process = f"{_WORKER}.{uuid.uuid4().hex[:12]}"
    number = Workers(store).claim(taskid, process, _WORKER)
    if number == 0:
        raise TaskGone(f"a worker has taken task {taskid} of this test; use a server that no worker looks at")
    place = _TestPlace(
        store,
        NoChannel(),
        taskid=taskid,
        process=process,
        number=number,
        worker=_WORKER,
        key=payload_key(key, nonce),
        is_alone=True,
        has_job_dir=False,
        project=project or Path.cwd(),
    )
    return Task(store, place)
