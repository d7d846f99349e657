"""
Files that crawl processes have written, put where a local crawl would have left them, as they come.

A file that one process changes again is written again. Of files of one name from several processes: equal content
is one file; what the processes only added to (opened with ``"a"``) is added to one file, in the order of arrival;
all else is told apart by the process's number in the name.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from vscrapy.errors import NotVerified, StoreRefused, StoreUnavailable
from vscrapy.ignore import is_cache, never_travels
from vscrapy.shown import shown
from vscrapy.store.files import Files
from vscrapy.wire import WrittenFile, decode_file

#: Time between two looks whether files have come (seconds).
LOOK_S: Final = 0.5
#: Files whose first line may be a heading, which stands once.
_WITH_HEADING: Final = frozenset({".csv", ".tsv"})


@dataclass(slots=True)
class _Here:
    """A file that came, as it is here."""

    #: The crawl process that sent it first, and all whose content this is, or is part of this.
    owner: int
    processes: set[int]
    #: The whole content's; None for a file that is added to.
    digest: bytes | None
    #: Where begins what came, behind what was here before.
    begin: int = 0


@dataclass(slots=True)
class _Sent:
    """What one crawl process has sent of one name."""

    #: Where it goes, if not to the name itself.
    path: Path | None = None
    #: How far its file is here.
    position: int = 0


@dataclass(slots=True)
class _Table:
    here: dict[Path, _Here] = field(default_factory=dict)
    sent: dict[tuple[str, int], _Sent] = field(default_factory=dict)


class FilesHome:
    """
    Writes files below one directory.

    Args:
        tell: Shows one line to the user.
        came: Called with each file that is about to be written.
    """

    def __init__(
        self,
        files: Files,
        taskid: int,
        key: bytes,
        directory: Path,
        *,
        tell: Callable[[str], None],
        came: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self._files = files
        self._taskid = taskid
        self._key = key
        self._directory = directory.resolve()
        self._tell = tell
        self._came = came
        self._table = _Table()
        self._told: set[str] = set()
        #: Files that were not written: not signed, outside the project, or refused by the disk.
        self.n_refused = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vscrapy-files", daemon=True)

    def begin(self) -> None:
        """Take files as they come, in a thread."""
        self._thread.start()

    def finish(self) -> int:
        """
        After the task's end: take what is left; how many files came in all.

        Raises:
            StoreUnavailable, StoreRefused: Redis does not answer.
        """
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.take_all()
        for (name, process), sent in self._table.sent.items():
            if sent.path is not None and sent.path in self._table.here:
                self._settle_apart(name, process, sent.path)
        return len(self._table.here)

    def take_all(self) -> int:
        """
        Write all files that are there; the number of those that were taken.

        Raises:
            StoreUnavailable, StoreRefused: Redis does not answer.
        """
        n_files = 0
        while signed_files := self._files.read(self._taskid):
            for signed in signed_files.values():
                try:
                    self._take(decode_file(signed, self._key))
                    n_files += 1
                except (NotVerified, OSError, ValueError) as error:
                    self.n_refused += 1
                    self._tell(f"a file of task {self._taskid} was not written: {shown(str(error))}")
            self._files.drop(self._taskid, list(signed_files))
        return n_files

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self.take_all()
            except (StoreUnavailable, StoreRefused):
                continue  # The follower tells of it; they are there yet.

    # --- one file

    def _take(self, file: WrittenFile) -> None:
        path = self._path(file.path)
        sent = self._table.sent.setdefault((file.path, file.process), _Sent())
        if file.is_added:
            self._add(file, sent.path or path, sent)
        else:
            self._replace(file, sent.path or path, sent)
            sent.position = len(file.content)

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
            raise ValueError(f"{name!r} is outside {self._directory}")
        if any(never_travels(part) or is_cache(part, is_directory=True) for part in parts):
            raise ValueError(f"{name!r} is history, a secret or a cache; such files stay on the worker")
        # A link that the user has put there is followed, as a local crawl does.
        return self._directory.joinpath(*parts)

    def _replace(self, file: WrittenFile, path: Path, sent: _Sent) -> None:
        """A whole file."""
        here = self._table.here.get(path)
        digest = hashlib.sha256(file.content).digest()
        is_owner = here is not None and here.owner == file.process
        if here is None or here.processes == {file.process} or (is_owner and here.digest is not None):
            if here is None or here.digest != digest:
                self._write(path, file, "wb")
                self._table.here[path] = _Here(file.process, {file.process}, digest)
        elif here.digest == digest or (here.digest is None and self._begins_with(path, here, file.content)):
            here.processes.add(file.process)
        else:
            sent.path = self._apart(path, file.process)
            self._replace(file, sent.path, sent)

    def _add(self, file: WrittenFile, path: Path, sent: _Sent) -> None:
        """What a process has added to its file."""
        content, is_first = file.content, file.position == 0
        if sent.position > file.position:  # Sent again, for no reply came.
            content = content[sent.position - file.position :]
        here = self._table.here.get(path)
        if here is None:
            begin = path.stat().st_size if path.exists() and not file.is_renewed else 0
            here = self._table.here[path] = _Here(file.process, {file.process}, None, begin)
            if is_first and begin:
                content = self._without_heading(file, path, 0, content)
            self._write(path, file, "wb" if file.is_renewed else "ab", content)
        else:
            if file.process not in here.processes:
                if here.digest is None:
                    content = self._without_heading(file, path, here.begin, content) if is_first else content
                elif is_first and self._is_beginning(path, content):
                    content = content[path.stat().st_size :]
                else:
                    sent.path = self._apart(path, file.process)
                    self._add(file, sent.path, sent)
                    return
                here.processes.add(file.process)
            if len(here.processes) > 1:
                self._tell_once(f"{file.path} has what several crawl processes have added to it")
            here.digest = None
            self._write(path, file, "ab", content)
        sent.position = max(sent.position, file.position + len(file.content))

    @staticmethod
    def _apart(path: Path, process: int) -> Path:
        """The name for a process's own version."""
        return path.with_name(f"{path.stem}.process-{process}{path.suffix}")

    def _settle_apart(self, name: str, process: int, apart: Path) -> None:
        """Tell of a process's own version; if it has become equal to the other one, it need not be there."""
        path = self._path(name)
        try:
            if apart.read_bytes() == path.read_bytes():
                apart.unlink()
                del self._table.here[apart]
                return
        except OSError:
            pass  # The user has moved one of them.
        self._tell(f"{name} was written by several crawl processes; that of process {process} is {apart.name}")

    @staticmethod
    def _begins_with(path: Path, here: _Here, content: bytes) -> bool:
        """Does what came begin with *content*?"""
        with path.open("rb") as stream:
            stream.seek(here.begin)
            return stream.read(len(content)) == content

    @staticmethod
    def _is_beginning(path: Path, content: bytes) -> bool:
        """Is what stands here the beginning of *content*?"""
        return path.stat().st_size <= len(content) and content.startswith(path.read_bytes())

    @staticmethod
    def _without_heading(file: WrittenFile, path: Path, begin: int, content: bytes) -> bytes:
        """A table's first line, if it stands here already: each process has found no file, and begun a new one."""
        if path.suffix.lower() not in _WITH_HEADING:
            return content
        heading, end, rest = content.partition(b"\n")
        with path.open("rb") as stream:
            stream.seek(begin)
            is_there = stream.readline() == heading + end
        has_number = any(_is_number(cell) for cell in heading.replace(b"\t", b",").replace(b";", b",").split(b","))
        return rest if is_there and not has_number else content

    def _write(self, path: Path, file: WrittenFile, mode: str, content: bytes | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._came(path)
        with path.open(mode) as stream:
            stream.write(file.content if content is None else content)
        status = os.stat(path)
        if file.is_executable and not status.st_mode & 0o100:
            path.chmod(status.st_mode | (status.st_mode & 0o444) >> 2)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


def _is_number(cell: bytes) -> bool:
    try:
        float(cell.strip(b' "\r'))
    except ValueError:
        return False
    return True
