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

    def take(self, taskid: int) -> list[bytes]:
        """Take the oldest files off the store, signed as they were put; empty when there is none left."""
        with translate(self._store.endpoint):
            entries = self._store.client.xrange(keys.files(taskid), count=_AT_ONCE)
            if entries:
                self._store.client.xdel(keys.files(taskid), *(cursor for cursor, _ in entries))
        return [fields[b"file"] for _, fields in entries]
