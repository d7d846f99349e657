"""Files that crawl processes have written, put where a local crawl would have left them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from vscrapy.errors import NotVerified
from vscrapy.store.files import Files
from vscrapy.wire import WrittenFile, decode_file


class FilesHome:
    """
    Writes files below one directory.

    Args:
        tell: Shows one line to the user.
    """

    def __init__(
        self, files: Files, taskid: int, key: bytes, directory: Path, *, tell: Callable[[str], None]
    ) -> None:
        self._files = files
        self._taskid = taskid
        self._key = key
        self._directory = directory.resolve()
        self._tell = tell
        #: Path -> digest of what a crawl process has left there.
        self._written: dict[Path, bytes] = {}

    def take_all(self) -> int:
        """
        Write all files that are there; the number of those.

        Raises:
            StoreUnavailable, StoreRefused: Redis does not answer.
        """
        n_files = 0
        while signed_files := self._files.read(self._taskid):
            for signed in signed_files.values():
                try:
                    self._write(decode_file(signed, self._key))
                    n_files += 1
                except (NotVerified, OSError, ValueError) as error:
                    self._tell(f"a file of task {self._taskid} was not written: {error}")
            self._files.drop(self._taskid, list(signed_files))
        return n_files

    def _write(self, file: WrittenFile) -> None:
        path = (self._directory / file.path).resolve()
        if not path.is_relative_to(self._directory):
            raise ValueError(f"{file.path!r} is outside {self._directory}")
        if any(part.startswith(".") for part in Path(file.path).parts):
            raise ValueError(f"{file.path!r} is hidden; such files stay on the worker")
        digest = hashlib.sha256(file.content).digest()
        if self._written.get(path, digest) != digest:
            other = path.with_name(f"{path.stem}.process-{file.process}{path.suffix}")
            self._tell(
                f"{file.path} was written by several crawl processes; that of process {file.process} is {other.name}"
            )
            path = other
        self._written[path] = digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
