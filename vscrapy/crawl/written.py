"""
Files that a crawl process leaves in its working directory: they go home while it runs and at its end.

What counts is what is new or changed below the project's directory; caches do not. A file that is written anew
goes whole, when it has come to rest, and never twice with the same content. Of a file that is only added to
(opened with ``"a"``) go the whole lines that are new, so that home can put those of all processes into one file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vscrapy.crawl.opened import Opened
from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.ignore import is_cache, never_travels
from vscrapy.wire import WrittenFile

logger = logging.getLogger("vscrapy")

#: Most that one crawl process sends home (bytes; setting ``VSCRAPY_FILES_LIMIT``).
FILES_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Time between two looks (seconds), and the least, as a multiple of the time that a look takes.
LOOK_S: Final = 1.0
LOOK_PAUSE_FACTOR: Final = 20.0
#: Longest time until a file that keeps changing is sent again (seconds); from one on, it doubles each time.
AGAIN_MOST_S: Final = 60.0
#: A file that was changed so lately may change again without a new time (ns).
_FRESH_NS: Final = 100_000_000
#: Time for the last files to reach Redis (seconds), and between two tries.
LAST_S: Final = 20.0
RETRY_S: Final = 0.2

#: Size, time of the last change (ns), inode, mode.
_Look = tuple[int, int, int, int]


@dataclass(slots=True)
class _File:
    """What is known of one file."""

    #: How it looked last.
    look: _Look | None = None
    #: How it looked when its content was taken last.
    taken: _Look | None = None
    #: What is home, or was shipped: the content's, and whether it is executable.
    digest: str = ""
    #: Of a file that is added to: how far it is home.
    position: int = 0
    inode: int = 0
    #: How often it had been written anew then.
    renewals: int = 0
    #: It has been shortened or replaced while it was added to: from then on it goes whole.
    is_whole: bool = False
    n_sent: int = 0
    not_before_s: float = 0.0
    is_told: bool = False


class Written:
    """
    The files of one crawl process. To be made before the project's code runs.

    Args:
        shipped: SHA-256 of the files that came with the project, by path.
    """

    def __init__(self, directory: Path, opened: Opened, shipped: Mapping[str, str]) -> None:
        self._directory = os.path.realpath(directory)
        self._opened = opened
        self._files: dict[str, _File] = {}
        self._is_over = False
        self._is_outside_told = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        for path, look in self._walk(self._directory):
            digest = f"{shipped.get(self._name(path), '')}{_suffix(look)}"
            self._files[path] = _File(look, look, digest, position=look[0], inode=look[2])

    def begin(
        self, put: Callable[[WrittenFile], bool], *, number: int, worker: str, is_same_host: bool, limit_bytes: int
    ) -> None:
        """
        Send files from now on, in a thread.

        Args:
            put: Sends one file; False: nobody wants it any more. May raise StoreUnavailable, StoreRefused.
            number: This crawl process's number in its task.
            is_same_host: The sender is on this machine: files beyond the project are where it finds them.
        """
        self._put = put
        self._number = number
        self._worker = worker
        self._is_same_host = is_same_host
        self._limit_bytes = self._room_bytes = limit_bytes
        self._thread = threading.Thread(target=self._run, name="vscrapy-files", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Send what is left; without Redis it stays, and is named."""
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        deadline_s = time.monotonic() + LAST_S
        while True:
            try:
                self._send(is_last=True)
            except (StoreUnavailable, StoreRefused) as error:
                if time.monotonic() < deadline_s:
                    time.sleep(RETRY_S)
                    continue
                names = ", ".join(self._name(path) for path in self._changed())
                logger.error("vscrapy: files stay on the worker (%s): %s", names, error)
            return

    # In the thread, and at the end.

    def _run(self) -> None:
        pause_s = LOOK_S
        while not self._over.wait(pause_s):
            began_s = time.monotonic()
            try:
                self._send(is_last=False)
            except (StoreUnavailable, StoreRefused):
                pass  # The session tells of it; what was not taken is looked at again.
            except Exception:
                logger.exception("vscrapy: a defect in the sending of files; they are sent at the end")
                return
            pause_s = max(LOOK_S, LOOK_PAUSE_FACTOR * (time.monotonic() - began_s))

    def _walk(self, directory: str) -> Iterator[tuple[str, _Look]]:
        try:
            entries = list(os.scandir(directory))
        except OSError:  # It has just been removed, or is not for us.
            return
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    if not (is_cache(entry.name, is_directory=True) or never_travels(entry.name)):
                        yield from self._walk(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    yield entry.path, (status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)
            except OSError:
                continue

    def _changed(self) -> list[str]:
        """The files with something that is not home, those that were changed first in front."""
        found = []
        for path, look in self._walk(self._directory):
            known = self._files.setdefault(path, _File())
            if look != known.taken and not (is_cache(os.path.basename(path), is_directory=False)):
                found.append((look[1], path))
        return [path for _, path in sorted(found) if not never_travels(os.path.basename(path))]

    def _send(self, *, is_last: bool) -> None:
        self._tell_outside()
        for path in self._changed():
            if self._is_over:
                return
            file = self._files[path]
            try:
                look = _look_at(path)
                if self._opened.is_added_to(path) and not file.is_whole:
                    self._send_lines(path, file, look, is_last=is_last)
                if file.is_whole or not self._opened.is_added_to(path):
                    self._send_whole(path, file, look, is_last=is_last)
                file.look = look
            except OSError:  # Removed, or not to be read: a local crawl would have nothing more of it.
                continue

    def _send_whole(self, path: str, file: _File, look: _Look, *, is_last: bool) -> None:
        is_at_rest = look == file.look and time.monotonic() >= file.not_before_s
        if not is_last and (not is_at_rest or look[0] == 0):
            return
        if look[0] > self._room_bytes:
            self._tell_limit(path, file, look[0])
            return
        # Half of the room is for what is sent for the first time, and for the end.
        if not is_last and file.n_sent and self._room_bytes - look[0] < self._limit_bytes / 2:
            return
        renewals = self._opened.renewals(path)
        content = Path(path).read_bytes()
        if not is_last and _look_at(path) != look:
            return
        digest = hashlib.sha256(content).hexdigest() + _suffix(look)
        if digest != file.digest:
            self._put_file(WrittenFile(self._name(path), content, self._number, is_executable=bool(_suffix(look))))
            file.n_sent += 1
            file.not_before_s = time.monotonic() + min(AGAIN_MOST_S, 2.0**file.n_sent)
        file.digest, file.position, file.inode, file.renewals = digest, len(content), look[2], renewals
        if is_last or time.time_ns() - look[1] > _FRESH_NS:
            file.taken = look

    def _send_lines(self, path: str, file: _File, look: _Look, *, is_last: bool) -> None:
        if not is_last and time.monotonic() < file.not_before_s:
            return
        renewals = self._opened.renewals(path)
        is_renewed = renewals > 0 and not file.n_sent
        if is_renewed:
            file.position, file.inode, file.renewals = 0, look[2], renewals
        if look[0] < file.position or file.renewals != renewals or (file.inode and file.inode != look[2]):
            file.is_whole = True
            return
        with open(path, "rb") as stream:
            stream.seek(file.position)
            content = stream.read()
        if not is_last:
            content = _lines(content)
            if not content:
                file.not_before_s = time.monotonic() + LOOK_PAUSE_FACTOR * LOOK_S
        if len(content) > self._room_bytes:
            self._tell_limit(path, file, look[0])
            return
        if content:
            self._put_file(
                WrittenFile(
                    self._name(path),
                    content,
                    self._number,
                    is_executable=bool(_suffix(look)),
                    position=file.position,
                    is_added=True,
                    is_renewed=is_renewed,
                )
            )
            file.n_sent += 1
        file.position += len(content)
        file.inode = look[2]
        file.digest = ""
        if file.position == look[0]:
            file.taken = look

    def _put_file(self, file: WrittenFile) -> None:
        if not self._put(file):
            self._is_over = True
        self._room_bytes -= len(file.content)

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._directory).replace(os.sep, "/")

    def _tell_limit(self, path: str, file: _File, size: int) -> None:
        if not file.is_told:
            file.is_told = True
            logger.warning(
                "vscrapy: %s (%d bytes) stays on the worker: a crawl process sends %d bytes home at most "
                "(VSCRAPY_FILES_LIMIT), and has sent %d",
                self._name(path),
                size,
                self._limit_bytes,
                self._limit_bytes - self._room_bytes,
            )

    def _tell_outside(self) -> None:
        """Name the first file beyond the project that the sender will not find."""
        for path, is_removed in list(self._opened.outside.items()):
            if not self._is_outside_told and (is_removed or not self._is_same_host):
                self._is_outside_told = True
                logger.warning(
                    "vscrapy: %s is written on worker %s and %s: only files below the project's directory come "
                    "home; use a relative path",
                    path,
                    self._worker,
                    "is lost" if is_removed else "stays there",
                )


def _look_at(path: str) -> _Look:
    status = os.stat(path, follow_symlinks=False)
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode


def _suffix(look: _Look) -> str:
    return "x" if look[3] & stat.S_IXUSR else ""


def _lines(content: bytes) -> bytes:
    """The whole lines of a text; nothing of what is no text, which is better not cut."""
    lines = content[: content.rfind(b"\n") + 1]
    try:
        lines.decode()
    except UnicodeDecodeError:
        return b""
    return b"" if b"\0" in lines else lines
