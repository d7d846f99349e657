"""
Scrapy's HTTP cache in crawl processes: in a directory that outlives them, which several of them use at once.

Each response is read and written under a lock of the directory. A DBM file, which one process alone can have open,
gives way to Scrapy's storage in files. A project's own storage is left as it is, and finds the directory in its
settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.extensions.httpcache import DbmCacheStorage, FilesystemCacheStorage
from scrapy.utils.misc import load_object

from vscrapy.httpcache import IDENTITY, place

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

logger = logging.getLogger("vscrapy")


def share(settings: BaseSettings, job: dict[str, Any], home: Path, *, priority: int) -> None:
    """Let the settings of a crawl process name its cache; *job* says which one, if there is one."""
    if not settings.getbool("HTTPCACHE_ENABLED") or job["http_cache"] is None:
        return
    directory = place(Path(job["http_cache"]["directory"]), job["http_cache"]["identity"], home)
    settings.set("HTTPCACHE_DIR", str(directory), priority=priority)
    storage = load_object(settings["HTTPCACHE_STORAGE"])
    if issubclass(storage, DbmCacheStorage):
        logger.info("vscrapy: the HTTP cache is kept in files: several processes cannot use one DBM file")
        storage = FilesystemCacheStorage
    if issubclass(storage, FilesystemCacheStorage):
        settings.set("HTTPCACHE_STORAGE", _locked(storage), priority=priority)


def _locked(storage: type[Any]) -> type[Any]:
    """Make a class of *storage*'s that reads and writes under the lock."""

    class Locked(storage):  # type: ignore[misc]
        def store_response(self, *args: Any) -> None:
            with _lock(self.cachedir, fcntl.LOCK_EX):
                super().store_response(*args)

        def retrieve_response(self, *args: Any) -> Any:
            with _lock(self.cachedir, fcntl.LOCK_SH):
                return super().retrieve_response(*args)

    Locked.__name__ = Locked.__qualname__ = storage.__name__
    return Locked


@contextlib.contextmanager
def _lock(directory: str, how: int) -> Iterator[None]:
    """Hold the lock of a directory, for as long as it takes to read or write one response."""
    descriptor = os.open(os.path.join(directory, IDENTITY), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: as safe as with Scrapy itself
            fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
