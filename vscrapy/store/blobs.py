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

    def get(self, shas: list[str], *, limit_bytes: int) -> dict[str, bytes]:
        """
        Fetch blobs, and give them a new life.

        Args:
            limit_bytes: No blob may be larger than this when it is unpacked.

        Raises:
            TaskGone: A blob has expired.
            BundleError: A blob is larger, or not what a blob is.
        """
        pipeline = self._store.client.pipeline(transaction=False)
        for sha in shas:
            pipeline.getex(keys.blob(sha), ex=keys.BLOB_TTL_S)
        with translate(self._store.endpoint):
            replies = pipeline.execute() if shas else []
        blobs = {}
        for sha, packed in zip(shas, replies, strict=True):
            if packed is None:
                raise TaskGone(f"a file of the project (sha256 {sha[:12]}) is not on Redis any more; submit again")
            blobs[sha] = _unpack(sha, packed, limit_bytes)
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


def _unpack(sha: str, packed: bytes, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, limit_bytes)
    except zlib.error as error:
        raise BundleError(f"the blob {sha[:12]} on Redis is damaged: {error}") from error
    if not unpacker.eof:
        raise BundleError(f"the blob {sha[:12]} on Redis is larger than {limit_bytes} bytes, or cut short")
    return content
