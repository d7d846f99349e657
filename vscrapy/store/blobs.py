"""Blobs: the files of bundles, by their SHA-256, each stored once for the whole cluster."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vscrapy import keys
from vscrapy.errors import BundleError, TaskGone
from vscrapy.store.base import Store
from vscrapy.store.connection import translate

#: Bytes sent in one pipeline at most.
_CHUNK_BYTES: Final = 4 * 1024 * 1024


class Blobs:
    """The blobs on a Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, paths: Mapping[str, Path]) -> int:
        """
        Store the files that are not there yet, and give all of them a new life.

        Args:
            paths: SHA-256 -> file.

        Returns:
            Bytes of the files that had to be sent.

        Raises:
            BundleError: A file cannot be read any more, or its content is another one by now.
        """
        shas = sorted(paths)
        client = self._store.client
        pipeline = client.pipeline(transaction=False)
        for sha in shas:
            pipeline.expire(keys.blob(sha), keys.BLOB_TTL_S)
        with translate(self._store.endpoint):
            present = pipeline.execute() if shas else []
        sent = waiting = 0
        pipeline = client.pipeline(transaction=False)
        for sha, is_present in zip(shas, present, strict=True):
            if is_present:
                continue
            try:
                content = paths[sha].read_bytes()
            except OSError as error:
                raise BundleError(f"{paths[sha]} cannot be read: {error.strerror}") from error
            # A wrong content under this name would fail every project with the right one, until it expires.
            if hashlib.sha256(content).hexdigest() != sha:
                raise BundleError(f"{paths[sha]} has changed while it was sent; send the project again")
            pipeline.set(keys.blob(sha), zlib.compress(content, 1), ex=keys.BLOB_TTL_S)
            sent += len(content)
            waiting += len(content)
            if waiting > _CHUNK_BYTES:
                with translate(self._store.endpoint):
                    pipeline.execute()
                waiting = 0
        with translate(self._store.endpoint):
            pipeline.execute()
        return sent

    def get(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """
        Fetch blobs, and give them a new life. What is returned is what the names say.

        No more is fetched of a blob than one of its size can have, and no more of it is unpacked.

        Args:
            sizes: SHA-256 -> size of the content (bytes).

        Raises:
            TaskGone: A blob has expired.
            BundleError: A blob has another size or another content, or is not what a blob is; it is removed.
        """
        pipeline = self._store.client.pipeline(transaction=False)
        for sha, size_bytes in sizes.items():
            pipeline.expire(keys.blob(sha), keys.BLOB_TTL_S)
            pipeline.getrange(keys.blob(sha), 0, _packed_bytes(size_bytes))
        with translate(self._store.endpoint):
            replies = pipeline.execute() if sizes else []
        blobs = {}
        for (sha, size_bytes), is_there, packed in zip(sizes.items(), replies[::2], replies[1::2], strict=True):
            if not is_there:
                raise TaskGone(f"a file of the project (sha256 {sha[:12]}) is not on Redis any more; submit again")
            try:
                blobs[sha] = _unpack(sha, packed, size_bytes)
            except BundleError:
                with translate(self._store.endpoint):
                    self._store.client.unlink(keys.blob(sha))  # else put() would take it for the right one
                raise
        return blobs

    def refresh(self, shas: list[str]) -> None:
        """Give blobs a new life: their task still lives."""
        self.are_kept(shas)

    def are_kept(self, shas: list[str]) -> bool:
        """Give blobs a new life; False: some are not there any more."""
        pipeline = self._store.client.pipeline(transaction=False)
        for sha in shas:
            pipeline.expire(keys.blob(sha), keys.BLOB_TTL_S)
        with translate(self._store.endpoint):
            return all(pipeline.execute()) if shas else True


def _packed_bytes(size_bytes: int) -> int:
    """The most that zlib makes of so many bytes, and a little more."""
    return size_bytes + size_bytes // 1000 + 100


def _unpack(sha: str, packed: bytes, size_bytes: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        # One more: zlib says that a blob is whole only when there is room left.
        content = unpacker.decompress(packed, size_bytes + 1)
    except zlib.error as error:
        raise BundleError(f"the blob {sha[:12]} on Redis is damaged: {error}") from error
    if not unpacker.eof or len(content) != size_bytes:
        raise BundleError(f"the blob {sha[:12]} on Redis does not have its {size_bytes} bytes")
    if hashlib.sha256(content).hexdigest() != sha:
        raise BundleError(f"the blob {sha[:12]} on Redis has another content than its name says")
    return content
