"""
Bundles to directories: one private directory a crawl process, from files that are cached by their SHA-256.

``HOME/cache/blobs/SHA256`` is shared by all agents of a home, and bounded; ``HOME/run/HOST-PID-TASKID-NUMBER``
belongs to one crawl process of the agent PID on HOST (a home may be on a network disk). No task has the id 0: that
is the agent's ``spare``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from vscrapy.bundle import check, unpack
from vscrapy.errors import BundleError
from vscrapy.httpcache import drop_unused
from vscrapy.model import BundleFile, Manifest
from vscrapy.store.blobs import Blobs
from vscrapy.worker.spare import Spare

#: Size of the cache (bytes); beyond it, what was used longest ago is removed.
CACHE_BYTES: Final = 1024**3
#: Bytes that a bundle may have here, whoever signed it (``VSCRAPY_BUNDLE_LIMIT``).
LIMIT_BYTES: Final = 1024**3
#: Bytes and files that are fetched in one round trip.
FETCH_BYTES: Final = 8 * 1024 * 1024
FETCH_FILES: Final = 500
#: Age at which a directory of another host is a leftover (s): nobody can ask there whether its agent lives.
FOREIGN_S: Final = 7 * 24 * 3600

_NAME = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-\d+-\d+")


class Checkouts:
    """All directories of one agent. Blocks on disk and Redis: not for the reactor's thread."""

    def __init__(
        self,
        home: Path,
        blobs: Blobs,
        say: Callable[[str], None],
        *,
        cache_bytes: int = CACHE_BYTES,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self._blobs = blobs
        self._say = say
        self._cache_bytes = cache_bytes
        self._limit_bytes = limit_bytes
        self.home = home
        self._cache = home / "cache" / "blobs"
        self._run = home / "run"
        self._host = re.sub(r"[^\w.]", "_", socket.gethostname())
        #: What was checked out, by its directory.
        self._manifests: dict[Path, Manifest] = {}
        self.spare = Spare(lambda number: self._place(0, number), self.remove)

    def prepare(self) -> None:
        """
        Make the directories, and remove what dead agents left.

        Raises:
            OSError: The home cannot be used.
        """
        for directory in (self._cache, self._run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in self._run.iterdir():
            matched = _NAME.fullmatch(directory.name)
            if matched is not None and self._is_leftover(directory, matched["host"], int(matched["pid"])):
                self.remove(directory)
        self.trim()
        drop_unused(self.home)

    def check_out(self, taskid: int, number: int, manifest: Manifest) -> Path:
        """
        Make a crawl process's directory.

        Raises:
            BundleError: The manifest is refused, or a file is not what it says.
            TaskGone: A file is not on Redis any more.
            OSError: The disk refuses.
            StoreUnavailable, StoreRefused: No files from Redis now.
        """
        check(manifest, self._limit_bytes)  # before anything is fetched
        target = self._place(taskid, number)
        self._remove_quietly(target)
        files = {file.sha256: file for root in manifest.roots for file in root.files}
        self._fetch([file for file in files.values() if not self._is_cached(file)])
        try:
            if not self.spare.take(manifest, self._read, target):
                unpack(manifest, lambda sha: self._read(files[sha]), target, limit_bytes=self._limit_bytes)
        except BaseException as error:
            self._remove_quietly(target)
            if isinstance(error, BundleError) and isinstance(error.__cause__, OSError):
                # This machine's fault, not the bundle's.
                raise OSError(error.__cause__.errno, str(error)) from error
            raise
        self._manifests[target] = manifest
        return target

    def check_in(self, directory: Path) -> None:
        """A crawl process has ended: its directory goes, and may leave a spare."""
        manifest = self._manifests.pop(directory, None)
        if manifest is not None:
            self.spare.put(directory, manifest)
        self.remove(directory)

    def remove(self, directory: Path) -> None:
        """Remove a directory; what cannot be removed is told and stays."""
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say(f"{directory} cannot be removed: {error.strerror or error}")

    def trim(self) -> None:
        """Bring the cache to its size, what was used longest ago first; and remove an old spare."""
        self.spare.trim()
        found = []
        for path in self._cache.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:  # Another agent trims, too.
                continue
            found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._cache_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _place(self, taskid: int, number: int) -> Path:
        return self._run / f"{self._host}-{os.getpid()}-{taskid}-{number}"

    def _is_leftover(self, directory: Path, host: str, pid: int) -> bool:
        if host != self._host:
            return time.time() - directory.stat().st_mtime > FOREIGN_S
        if pid == os.getpid():  # From before a restart of the machine or the container.
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def _remove_quietly(self, directory: Path) -> None:
        if directory.exists():
            self.remove(directory)

    def _is_cached(self, file: BundleFile) -> bool:
        try:
            os.utime(os.path.join(self._cache, file.sha256))
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, files: list[BundleFile]) -> None:
        """Put files into the cache."""
        for batch in _batches(files):
            for sha, content in self._blobs.get({file.sha256: file.size_bytes for file in batch}).items():
                self._keep(sha, content)

    def _keep(self, sha: str, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._cache, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(name, self._cache / sha)
        except BaseException:
            os.unlink(name)
            raise

    def _read(self, file: BundleFile) -> bytes:
        """Read a file from the cache; one that is damaged, or was trimmed just now, comes from Redis again."""
        try:
            with open(os.path.join(self._cache, file.sha256), "rb", buffering=0) as cached:
                content = cached.read()
        except FileNotFoundError:
            content = None
        if content is None or hashlib.sha256(content).hexdigest() != file.sha256:
            content = self._blobs.get({file.sha256: file.size_bytes})[file.sha256]
            self._keep(file.sha256, content)
        return content


def _batches(files: list[BundleFile]) -> Iterator[list[BundleFile]]:
    batch: list[BundleFile] = []
    size_bytes = 0
    for file in files:
        if batch and (size_bytes + file.size_bytes > FETCH_BYTES or len(batch) == FETCH_FILES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.size_bytes
    if batch:
        yield batch
