"""Keys that are derived from the cluster's secret: each signs, or seals, for one purpose."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from functools import cache
from typing import Final

#: Cost of one guess at a secret, for who has a signed payload to try it on (scrypt's n, r and p): 8 MiB.
_STRETCH: Final = (2**13, 8, 1)
_NONCE: Final = re.compile(r"[0-9a-f]{32}")


@cache
def stretched(secret: str) -> bytes:
    """
    Make guessing slow: many a secret is a password that somebody made up.

    It takes some hundredths of a second, once in a process, during which other threads run.
    """
    n, r, p = _STRETCH
    return hashlib.scrypt(secret.encode("utf-8", "surrogatepass"), salt=b"vscrapy:3", n=n, r=r, p=p, dklen=32)


def task_key(secret: str, taskid: int) -> bytes:
    """Derive the key that signs the jobs and the log lines of one taskid (32 bytes)."""
    return hmac.digest(stretched(secret), f"task:{taskid}".encode(), "sha256")


def worker_mark(secret: str, token: str) -> str:
    """Make what shows, to who has the secret, that a worker has it, too (32 hex digits)."""
    return hmac.digest(stretched(secret), f"worker:{token}".encode(), "sha256")[:16].hex()


def has_mark(secret: str, token: str, mark: str) -> bool:
    """Is it the mark of a worker that has this secret?"""
    return hmac.compare_digest(worker_mark(secret, token), mark)


def new_nonce() -> str:
    """Make what tells a task from all others, also from another one with its taskid."""
    return os.urandom(16).hex()


def payload_key(key: bytes, nonce: str) -> bytes:
    """
    Derive the key that signs the payloads of one task from its key; crawl processes know this one only (32 bytes).

    Raises:
        ValueError: That is no nonce.
    """
    if not _NONCE.fullmatch(nonce):
        raise ValueError("the job has no nonce; was it sent by another version of vscrapy?")
    return hmac.digest(key, b"payloads:" + nonce.encode(), "sha256")
