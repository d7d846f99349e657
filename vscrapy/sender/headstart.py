"""
A command that was given before submits its task before it has read the project: the workers begin while Scrapy is
imported here.

The task is that of the last run, with the files as they are now, and provisional: a crawl process reads the project,
and waits before it opens its spider. When the ordinary way has made the same task of the project, it confirms this
one; otherwise it withdraws it, and submits its own. So what is remembered decides how soon, never what is crawled.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy import config, embedded
from vscrapy.errors import StoreRefused, StoreUnavailable, TaskGone, VscrapyError
from vscrapy.model import Endpoint, canonical_json
from vscrapy.secret import stretched
from vscrapy.sender.remembered import Display, Remembered, paths, place, read, remember
from vscrapy.states import Reason, StopMode

if TYPE_CHECKING:
    from vscrapy.sender.earlytask import EarlyTask
    from vscrapy.sender.terminal import Terminal
    from vscrapy.store.submission import TaskOptions
    from vscrapy.store.tasks import Tasks

#: So many tasks that were not the right ones, one after another: it is not tried again.
_MISSES: Final = 2
#: What is wrong with something that is remembered, with a file, or with a connection.
_PROBLEMS: Final = (OSError, LookupError, TypeError, ValueError, VscrapyError)


class HeadStart:
    """
    What is remembered of one command, and the task that was made of it.

    Args:
        args: The command line, after the program's name.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self._args = args
        self._path: Path | None = None
        self._remembered: Remembered | None = None
        self._task: EarlyTask | None = None
        self._is_used = False
        self._is_withdrawn = False

    def begin(self) -> None:
        """Submit, if this command was given before and nothing is in the way."""
        try:
            self._path = place(self._args)
            self._remembered = read(self._path)
            if self._remembered.n_missed < _MISSES:
                self._task = _submit(self._remembered, self._endpoint())
        except _PROBLEMS:
            return  # the ordinary way tells what is wrong, if anything is

    def _endpoint(self) -> Endpoint:
        redis = None
        for number, arg in enumerate(self._args):
            if arg == "--redis":
                redis = self._args[number + 1]
            elif arg.startswith("--redis="):
                redis = arg.partition("=")[2]
        found = config.resolve(redis=redis, insecure="--insecure" in self._args) or embedded.find(config.home())
        if found is None:
            raise ValueError("no server runs")
        return found

    @property
    def terminal(self) -> Terminal | None:
        """Where its lines are shown."""
        return None if self._task is None else self._task.terminal

    def take(
        self, tasks: Tasks, endpoint: Endpoint, job: Mapping[str, Any], options: TaskOptions
    ) -> EarlyTask | None:
        """
        Confirm the task that was submitted early, if it is this very one; otherwise it is withdrawn.

        Raises:
            StoreUnavailable, StoreRefused: Redis does not answer.
        """
        task, known = self._task, self._remembered
        if task is None or known is None:
            return None
        is_same = task.endpoint == endpoint and _is_same(task.job, job, known.options, options)
        if not (is_same and self._confirm(task, tasks)):
            self.withdraw()
            return None
        self._is_used = True
        return task

    @staticmethod
    def _confirm(task: EarlyTask, tasks: Tasks) -> bool:
        try:
            return task.confirm()
        except (OSError, ValueError):  # the ordinary way tells what is wrong
            return tasks.confirm(task.taskid)

    def withdraw(self) -> None:
        """End the task that was submitted early, unless it was taken."""
        if self._task is None or self._is_used:
            return
        from vscrapy.store.base import Store
        from vscrapy.store.tasks import Tasks

        task, self._task = self._task, None
        self._is_withdrawn = True
        task.end()
        # If Redis does not answer, the workers miss the sender.
        with suppress(StoreUnavailable, StoreRefused, TaskGone):
            Tasks(Store(task.endpoint, name="vscrapy-sender")).stop(
                task.taskid, reason=Reason.SHUTDOWN, mode=StopMode.FORCED
            )
        task.release()
        task.terminal.skip_banner()

    def keep(
        self,
        job: Mapping[str, Any],
        options: TaskOptions,
        directories: Sequence[Path],
        display: Display | None,
        project: Path,
    ) -> None:
        """Remember the task that the ordinary way has made, for the next time."""
        if self._path is not None:
            with suppress(OSError, VscrapyError):  # it only saves time
                n_missed = self._misses(job, options)
                remember(job, options, directories, display, project, n_missed).write(self._path)

    def _misses(self, job: Mapping[str, Any], options: TaskOptions) -> int:
        known = self._remembered
        if known is None or self._is_used:
            return 0
        if self._is_withdrawn:
            return known.n_missed + 1
        # Edited files are no miss: each run looks at them.
        edited = {**known.job, "manifest": job["manifest"]}
        is_foreseen = _is_same(edited, job, known.options, options) and paths(known.job) == paths(job)
        return 0 if is_foreseen else known.n_missed


def _is_same(
    job: Mapping[str, Any], other_job: Mapping[str, Any], options: TaskOptions, other_options: TaskOptions
) -> bool:
    return options == other_options and canonical_json(job) == canonical_json(other_job)


def _submit(remembered: Remembered, endpoint: Endpoint) -> EarlyTask:
    # The key takes as long as the imports; both at once.
    stretching = threading.Thread(target=stretched, args=(endpoint.secret,))
    stretching.start()
    from vscrapy.sender.earlytask import submit_early

    stretching.join()
    return submit_early(remembered, endpoint)
