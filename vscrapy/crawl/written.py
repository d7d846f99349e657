"""
Files that a crawl process leaves in its working directory: they go home at its end, as a local crawl leaves them.

What counts is what is new or changed below the project's directory; caches do not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vscrapy.store.files import Files
from vscrapy.wire import WrittenFile, encode_file

logger = logging.getLogger("vscrapy")

#: Most that one crawl process sends home (bytes; setting ``VSCRAPY_FILES_LIMIT``).
FILES_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Directories whose files stay: Python's and Scrapy's caches.
_CACHES: Final = frozenset({"__pycache__", ".scrapy"})


class Written:
    """Remembers what is in a directory now, to tell later what is new."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._before = dict(self._look())

    def _look(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for parent, directories, names in os.walk(self._directory):
            directories[:] = sorted(name for name in directories if name not in _CACHES)
            for name in sorted(names):
                path = Path(parent, name)
                if path.is_file() and not path.is_symlink():
                    status = path.stat()
                    yield path, (status.st_size, status.st_mtime_ns)

    def new(self) -> list[Path]:
        """The files that are new or changed, in order."""
        return [path for path, look in self._look() if self._before.get(path) != look]

    def send(self, files: Files, taskid: int, process: str, number: int, key: bytes, *, limit_bytes: int) -> None:
        """
        Send the new files home; those beyond the limit are named in the log.

        Raises:
            StoreUnavailable, StoreRefused: Redis did not take a file.
        """
        room = limit_bytes
        for path in self.new():
            name = path.relative_to(self._directory).as_posix()
            size = path.stat().st_size
            if size > room:
                logger.warning(
                    "vscrapy: %s (%d bytes) stays on the worker: a crawl process sends %d bytes home at most "
                    "(VSCRAPY_FILES_LIMIT)",
                    name,
                    size,
                    limit_bytes,
                )
                continue
            room -= size
            files.put(taskid, process, encode_file(WrittenFile(name, path.read_bytes(), number), key))
