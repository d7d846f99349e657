"""
A task that is submitted before its project is read: made of what is remembered, provisional, and shown from the first
line on.

Nothing here imports Scrapy or redis-py, which take as long as all the rest of a start.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from vscrapy import keys
from vscrapy.model import Endpoint
from vscrapy.secret import new_nonce, payload_key, task_key
from vscrapy.sender.remembered import Remembered, manifest_now
from vscrapy.sender.terminal import Terminal, is_before_pipelines
from vscrapy.store.entries import log_entry
from vscrapy.store.plain import Plain, require_password
from vscrapy.store.submission import submission
from vscrapy.wire import LogLine, encode_job

#: The cursor before everything.
_BEGINNING: Final = "0-0"
#: The longest wait for lines (ms).
_WAIT_MS: Final = 100
#: Time between two signs of life (seconds).
_HEARTBEAT_S: Final = 2.0


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
        #: Its log is shown up to there, and so many lines of the entry behind that.
        self.cursor = _BEGINNING
        self.n_shown = 0
        self._ear = ear
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vscrapy-headstart", daemon=True)

    def start(self, *, is_shown: bool) -> None:
        """Begin."""
        self._is_shown = is_shown
        self._thread.start()

    def confirm(self) -> bool:
        """
        Let the spiders open: the project makes this very task; False: the task is gone.

        Raises:
            OSError, ValueError: Whether it is confirmed is not known.
        """
        with Plain(self.endpoint) as plain:
            return bool(plain.script("confirm", [keys.task(self.taskid), keys.log(self.taskid)], []))

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
                    plain.script("sender", [keys.task(self.taskid)], [])
                if self._is_shown:
                    self._show(plain)
                else:
                    self._ended.wait(_WAIT_MS / 1000)

    def _show(self, plain: Plain) -> None:
        read = ("XREAD", "COUNT", 100, "BLOCK", _WAIT_MS, "STREAMS", keys.log(self.taskid), self.cursor)
        [streams] = plain.run(read)
        for cursor, flat in (entry for _, entries in streams or () for entry in entries):
            entry = log_entry(cursor, dict(zip(flat[::2], flat[1::2], strict=True)), self._log_key)
            shown = list(takewhile(_is_banner, entry.lines))
            for line in shown:
                self.terminal.show(line)
            if not entry.lines or len(shown) < len(entry.lines):
                self.n_shown, self._is_shown = len(shown), False
                return
            self.cursor = entry.cursor


def _is_banner(line: LogLine) -> bool:
    """Is it said before the pipelines here have their say, and no error, which might be said here, too?"""
    is_plain = line.is_banner and line.stream == "log" and line.level < logging.WARNING
    return is_plain and not is_before_pipelines(line)


def submit_early(remembered: Remembered, endpoint: Endpoint) -> EarlyTask:
    """
    Submit a command's last task with the files as they are now.

    Raises:
        OSError, LookupError, TypeError, ValueError, InsecureStore: Something is in the way; at most, blobs were sent.
    """
    require_password(endpoint)
    manifest, paths = manifest_now(remembered)
    job = {**remembered.job, "manifest": manifest}
    terminal = _terminal(remembered)
    with Plain(endpoint) as plain:
        shas = sorted(paths)
        *are_there, taskid, (seconds, microseconds) = plain.run(
            *(("EXPIRE", keys.blob(sha), keys.BLOB_TTL_S) for sha in shas), ("INCRBY", keys.TASKID, 1), ("TIME",)
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
        script_keys, args = submission(
            taskid, signed, spider=job["spider"], options=remembered.options, is_provisional=True
        )
        plain.script("submit", script_keys, args)
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
