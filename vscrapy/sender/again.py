"""Requests that failed for good, once more: in their own task, or, when that has ended, as a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vscrapy.bundle import manifest_from_json
from vscrapy.errors import BundleError, TaskGone
from vscrapy.labels import Choice
from vscrapy.sealed import seal, unseal
from vscrapy.secret import new_nonce, payload_key, task_key
from vscrapy.states import TaskState
from vscrapy.store.blobs import Blobs
from vscrapy.store.failures import Failures, Retried
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.wire import encode_job, open_job, sign_anew

if TYPE_CHECKING:
    from vscrapy.store.base import Store


class Again:
    """Puts requests of one task back."""

    def __init__(self, store: Store, taskid: int) -> None:
        self._store = store
        self._secret = store.endpoint.secret
        self._taskid = taskid
        self._tasks = Tasks(store)
        self._failures = Failures(store)

    def run(self, numbers: Sequence[int]) -> Retried | None:
        """
        Put requests back, of a task in whatever state.

        Safe to call again; when an earlier call was cut short, it is finished instead, and what it did is returned.

        Returns:
            None when the task is about to end, and nothing was done.

        Raises:
            TaskGone: The task, or its project, is not on Redis any more.
            NotVerified: A request, or the job, was not signed with this cluster's secret; nothing was put back.
        """
        if self._tasks.record(self._taskid).state is not TaskState.FINISHED:
            found = self._failures.retry(self._taskid, numbers)
            self._tasks.wake()
            return found
        job, key = self._job()
        for request in self._failures.requests(self._taskid, numbers).values():
            sign_anew(request.payload, key, key)  # before anything is noted
        taskid = self._tasks.new_id()
        found = self._failures.retry(self._taskid, numbers, new_taskid=taskid)
        if found is None or found.taskid != taskid:  # an earlier call's, or nothing is to be done
            self._tasks.forget(taskid, older_than_ms=self._tasks.now_ms() + 1)
        if found is not None and found.taskid:
            self._submit(job, key, found.taskid, found.numbers)
        return found

    def _job(self) -> tuple[dict[str, Any], bytes]:
        """The job of the task that has ended, with all of its project there for a while; and its payloads' key."""
        try:
            job, key = open_job(self._tasks.job(self._taskid), self._secret, self._taskid)
        except ValueError as error:
            raise BundleError(f"task {self._taskid} cannot be sent again: {error}") from error
        shas = [file.sha256 for root in manifest_from_json(job["manifest"]).roots for file in root.files]
        if not Blobs(self._store).are_kept(shas):
            raise TaskGone(
                f"task {self._taskid} has ended, and its project is not on Redis any more: files are kept for seven "
                "days; send it again with vscrapy crawl"
            )
        return job, key

    def _submit(self, job: dict[str, Any], old_key: bytes, taskid: int, numbers: Sequence[int]) -> None:
        """
        Make the new task; nobody is there for its items and files, as with --detach.

        It writes no feeds: those of the old task would be written over with what little the new one gives.
        """
        key, nonce = task_key(self._secret, taskid), new_nonce()
        env = unseal(job.get("sealed_env", ""), task_key(self._secret, self._taskid), self._taskid, job["nonce"])
        job = {
            **job,
            "taskid": taskid,
            "nonce": nonce,
            "sealed_env": seal(env, key, taskid, nonce),
            "pipelines": "worker",
            "counts_items_at_home": False,
            "feeds": None,
            "is_attached": False,
            "has_job_dir": False,
            "profile": "",
        }
        record = self._tasks.record(self._taskid)
        requests = self._failures.requests(self._taskid, numbers)
        if requests:
            self._tasks.enter(taskid)  # whoever noted it may have been cut short long ago
            self._tasks.submit(
                taskid,
                encode_job(job, key),
                spider=job["spider"],
                options=TaskOptions(
                    max_processes=job["max_processes"],
                    log_keep=record.log_keep,
                    items_limit=record.items_limit,
                    choice=Choice(tuple(job.get("on", ())), tuple(job.get("exclude", ()))),
                ),
                requests=[
                    replace(request, payload=sign_anew(request.payload, old_key, payload_key(key, nonce)))
                    for request in requests.values()
                ],
            )
        self._failures.retried(self._taskid, taskid)
