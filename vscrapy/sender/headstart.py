"""
A command that was given before submits its task before it has read the project: the workers begin while Scrapy is
imported here.

The task is that of the last run, with the files as they are now, and provisional: a crawl process reads the project,
and waits before it opens its spider. When the ordinary way has made the same task of the project, it confirms this
one; otherwise it withdraws it, and submits its own. So what is remembered decides how soon, never what is crawled.
Nothing here imports Scrapy or redis-py, which take as long as all the rest of a start.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy import config, embedded, keys
from vscrapy.errors import StoreRefused, StoreUnavailable, TaskGone, VscrapyError
from vscrapy.labels import Choice
from vscrapy.model import Endpoint, canonical_json
from vscrapy.sender.remembered import Display, Remembered, manifest_now, place, read, remember
from vscrapy.sender.terminal import Terminal, is_before_pipelines
from vscrapy.states import Reason, StopMode
from vscrapy.store.entries import LogEntry, log_entry
from vscrapy.store.plain import Plain, require_password
from vscrapy.store.scripts import source
from vscrapy.store.submission import submission
from vscrapy.wire import encode_job, new_nonce, payload_key, task_key

if TYPE_CHECKING:
    from vscrapy.store.tasks import Tasks

#: The cursor before everything.
_BEGINNING: Final = "0-0"
#: The longest wait for lines (ms).
_WAIT_MS: Final = 100
#: Time between two signs of life (seconds).
_HEARTBEAT_S: Final = 2.0
#: So many tasks that were not the right ones, one after another: it is not tried again.
_MISSES: Final = 2
#: What is wrong with something that is remembered, with a file, or with a connection.
_PROBLEMS: Final = (OSError, LookupError, TypeError, ValueError, VscrapyError)


class EarlyTask:
    """
    A provisional task, while its sender reads the project: shows its first lines, and keeps it alive.

    Args:
        ear: A connection that is subscribed to the sender's channel.
    """

    def __init__(
        self, endpoint: Endpoint, taskid: int, job: Mapping[str, Any], nonce: str, terminal: Terminal, ear: Plain
    ) -> None:
        self.endpoint = endpoint
        self.taskid = taskid
        self.job = job
        self.terminal = terminal
        self._log_key = task_key(endpoint.secret, taskid)
        #: The key that signs its payloads.
        self.key = payload_key(self._log_key, nonce)
        #: Its log is shown up to there.
        self.cursor = _BEGINNING
        self._ear = ear
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vscrapy-headstart", daemon=True)

    def start(self, *, is_shown: bool) -> None:
        """Begin."""
        self._is_shown = is_shown
        self._thread.start()

    def end(self) -> None:
        """Show nothing more; the sign of life stays until :meth:`release`."""
        self._ended.set()
        self._thread.join()

    def release(self) -> None:
        """Somebody else is seen on the sender's channel."""
        self._ear.close()

    def _run(self) -> None:
        # Whatever happens to this connection happens to the ordinary ones, too, and they tell.
        with suppress(OSError, ValueError), Plain(self.endpoint) as plain:
            beat_s = time.monotonic() + _HEARTBEAT_S
            while not self._ended.is_set():
                if time.monotonic() > beat_s:
                    beat_s = time.monotonic() + _HEARTBEAT_S
                    _run_script(plain, "sender", [keys.task(self.taskid)], [])
                if self._is_shown:
                    self._show(plain)
                else:
                    self._ended.wait(_WAIT_MS / 1000)

    def _show(self, plain: Plain) -> None:
        read = ("XREAD", "COUNT", 100, "BLOCK", _WAIT_MS, "STREAMS", keys.log(self.taskid), self.cursor)
        [streams] = plain.run(read)
        for cursor, flat in (entry for _, entries in streams or () for entry in entries):
            entry = log_entry(cursor, dict(zip(flat[::2], flat[1::2], strict=True)), self._log_key)
            if not _is_banner(entry):
                self._is_shown = False
                return
            for line in entry.lines:
                self.terminal.show(line)
            self.cursor = entry.cursor


def _is_banner(entry: LogEntry) -> bool:
    """Is it of what is said before the pipelines here have their say, and no error, which might be said here, too?"""
    is_plain = entry.end is None and not entry.is_joined and not entry.refusal
    return is_plain and all(
        line.is_banner and line.stream == "log" and line.level < logging.WARNING and not is_before_pipelines(line)
        for line in entry.lines
    )


class HeadStart:
    """
    What is remembered of one command, and the task that was made of it.

    Args:
        args: The command line, after the program's name.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self._args = args
        self._path = place(args)
        self._remembered: Remembered | None = None
        self._task: EarlyTask | None = None
        self._is_used = False
        self._is_withdrawn = False

    def begin(self) -> None:
        """Submit, if this command was given before and nothing is in the way."""
        try:
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
        require_password(found)
        return found

    @property
    def terminal(self) -> Terminal | None:
        """Where its lines are shown."""
        return None if self._task is None else self._task.terminal

    def take(
        self, tasks: Tasks, endpoint: Endpoint, job: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EarlyTask | None:
        """Confirm the task that was submitted early, if it is this very one; otherwise it is withdrawn."""
        task, known = self._task, self._remembered
        if task is None or known is None:
            return None
        is_same = task.endpoint == endpoint and _is_same(task.job, job, known.options, options)
        if not (is_same and tasks.confirm(task.taskid)):
            self.withdraw()
            return None
        self._is_used = True
        return task

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
        options: Mapping[str, Any],
        directories: Sequence[Path],
        display: Display | None,
        project: Path,
    ) -> None:
        """Remember the task that the ordinary way has made, for the next time."""
        with suppress(OSError, VscrapyError):  # it only saves time
            n_missed = self._misses(job, options)
            remember(job, _as_data(options), directories, display, project, n_missed).write(self._path)

    def _misses(self, job: Mapping[str, Any], options: Mapping[str, Any]) -> int:
        known = self._remembered
        if known is None or self._is_used:
            return 0
        if self._is_withdrawn:
            return known.n_missed + 1
        # Other files are no miss to come: they are looked at.
        return (
            0 if _is_same({**known.job, "manifest": job["manifest"]}, job, known.options, options) else known.n_missed
        )


def _is_same(
    job: Mapping[str, Any], other_job: Mapping[str, Any], options: Mapping[str, Any], other_options: Mapping[str, Any]
) -> bool:
    """Is it one task? The second options are as :func:`vscrapy.sender.submit.submit` has them."""
    return canonical_json([job, options]) == canonical_json([other_job, _as_data(other_options)])


def _as_data(options: Mapping[str, Any]) -> dict[str, Any]:
    choice = options["choice"]
    return {**options, "choice": {"on": list(choice.on), "exclude": list(choice.exclude)}}


def _submit(remembered: Remembered, endpoint: Endpoint) -> EarlyTask:
    """
    Submit a command's last task with the files as they are now.

    Raises:
        OSError, LookupError, TypeError, ValueError: Something is in the way; at most, blobs were sent.
    """
    manifest, paths = manifest_now(remembered)
    job = {**remembered.job, "manifest": manifest}
    options = dict(remembered.options)
    options["choice"] = Choice(*(tuple(options["choice"][name]) for name in ("on", "exclude")))
    terminal = _terminal(remembered)
    with Plain(endpoint) as plain:
        shas = sorted(paths)
        *are_there, taskid, (seconds, microseconds) = plain.run(
            *(("EXPIRE", keys.blob(sha), keys.BLOB_TTL_S) for sha in shas), ("INCR", keys.TASKID), ("TIME",)
        )
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        sent = [_content(paths[sha], sha) for sha, is_there in zip(shas, are_there, strict=True) if not is_there]
        plain.run(
            *(("SET", keys.blob(sha), packed, "EX", keys.BLOB_TTL_S) for sha, _, packed in sent),
            ("ZADD", keys.TASKS, "NX", now_ms, taskid),
        )
        nonce = new_nonce()
        task = EarlyTask(endpoint, taskid, job, nonce, terminal, _ear(endpoint, taskid))
        signed = encode_job(
            {**job, "taskid": taskid, "nonce": nonce, "sealed_env": ""}, task_key(endpoint.secret, taskid)
        )
        script_keys, args = submission(taskid, signed, spider=job["spider"], is_provisional=True, **options)
        _run_script(plain, "submit", script_keys, args)
        plain.run(("PUBLISH", keys.WAKE, ""))
    terminal.tell(told(taskid, job["spider"], len(remembered.files), sum(size for _, size, _ in sent)))
    task.start(is_shown=remembered.display is not None)
    return task


def told(taskid: int, spider: str, n_files: int, sent_bytes: int, *, goes_on: bool = False) -> str:
    """What a sender says of a task that it has submitted."""
    words = " goes on where it was left" if goes_on else ""
    return f"task {taskid}: {spider}{words}, {n_files} files ({sent_bytes / 1000:.0f} kB new)"


def _ear(endpoint: Endpoint, taskid: int) -> Plain:
    ear = Plain(endpoint)
    ear.run(("SUBSCRIBE", keys.sender(taskid)))
    return ear


def _content(path: str, sha256: str) -> tuple[str, int, bytes]:
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is not what travels")  # it changes, or another file travels in its place
    return sha256, len(content), zlib.compress(content, 1)


def _terminal(remembered: Remembered) -> Terminal:
    handler: logging.Handler | None = None
    if remembered.display is not None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(remembered.display.format, remembered.display.date_format))
        handler.setLevel(remembered.display.level)
    terminal = Terminal(lambda: handler, is_home=True, project=Path(remembered.project))
    terminal.name_outside(map(Path, remembered.outside))
    return terminal


def _run_script(plain: Plain, name: str, script_keys: list[str], args: list[Any]) -> None:
    script = source(name).encode()
    sha1 = hashlib.sha1(script, usedforsecurity=False).hexdigest()
    rest = (len(script_keys), *script_keys, *args)
    try:
        plain.run(("EVALSHA", sha1, *rest))
    except ValueError as error:
        if not str(error).startswith("NOSCRIPT"):
            raise
        plain.run(("EVAL", script, *rest))
