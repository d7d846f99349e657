"""Files that crawl processes have written, on their way home."""

from __future__ import annotations

from vscrapy import keys
from vscrapy.store.base import Store
from vscrapy.store.connection import translate

#: Files read in one round trip.
_AT_ONCE = 20


class Files:
    """The files of tasks."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, taskid: int, process: str, signed: bytes) -> bool:
        """Send one signed file; False when the process was given up for dead: nothing is sent."""
        return bool(self._store.run("file", [keys.processes(taskid), keys.files(taskid)], [process, signed]))

    def read(self, taskid: int) -> dict[str, bytes]:
        """Read the oldest files, signed as they were put, by cursor; empty when there is none left."""
        with translate(self._store.endpoint):
            entries = self._store.client.xrange(keys.files(taskid), count=_AT_ONCE)
        return {cursor.decode(): fields.get(b"file", b"") for cursor, fields in entries}

    def drop(self, taskid: int, cursors: list[str]) -> None:
        """Forget files that are written. Safe to repeat."""
        with translate(self._store.endpoint):
            self._store.client.xdel(keys.files(taskid), *cursors)
