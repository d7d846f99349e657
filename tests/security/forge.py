"""
What somebody with full access to Redis and without the secret can put in the place of a signed payload.

PYTEST_DONT_REWRITE: test modules import this before pytest could rewrite it.
"""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any, Final

from vscrapy.secret import payload_key, task_key
from vscrapy.wire import MAC_BYTES, Kind, sign

#: The cluster's secret in these tests: not the server's password, which the attacker has.
SECRET: Final = "correct horse battery staple"
#: Kinds that are signed with the task's own key; all others with that of its payloads.
_OF_TASK: Final = frozenset({Kind.JOB, Kind.LOG})


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def evil_pickle(canary: Path) -> bytes:
    """A payload of each kind that is unpickled, as :mod:`vscrapy.wire` packs it: not compressed."""
    return b"\0" + pickle.dumps(Canary(canary))


def key_of(kind: Kind, taskid: int, nonce: str, *, secret: str = SECRET) -> bytes:
    """The key that honest payloads of a kind are signed with."""
    key = task_key(secret, taskid)
    return key if kind in _OF_TASK else payload_key(key, nonce)


def forgeries(kind: Kind, taskid: int, nonce: str, *, evil: bytes, honest: bytes) -> dict[str, bytes]:
    """
    All ways to get a payload wrong, by name.

    Args:
        evil: What does harm when it is taken, without a signature.
        honest: What was signed for just this place.
    """
    noise = random.Random(kind.value)
    middle = len(honest) // 2
    other_nonce = nonce[::-1] if nonce != nonce[::-1] else "0" * 32
    right, task, payloads = (
        key_of(kind, taskid, nonce),
        task_key(SECRET, taskid),
        payload_key(task_key(SECRET, taskid), nonce),
    )
    found = {
        "nothing": b"",
        "unsigned": evil,
        "a made-up signature": noise.randbytes(MAC_BYTES) + evil,
        "a signature of zeros": bytes(MAC_BYTES) + evil,
        "the signature of something else": honest[:MAC_BYTES] + evil,
        "cut short": honest[:-1],
        "only a signature": honest[:MAC_BYTES],
        "less than a signature": honest[: MAC_BYTES - 1],
        "something added": honest + b"\0",
        "a bit of the signature": bytes([honest[0] ^ 1]) + honest[1:],
        "a bit of the content": honest[:middle] + bytes([honest[middle] ^ 0x80]) + honest[middle + 1 :],
        "another task's": sign(key_of(kind, taskid + 1, nonce), kind, evil),
        "another secret": sign(key_of(kind, taskid, nonce, secret="password"), kind, evil),
        "no secret": sign(key_of(kind, taskid, nonce, secret=""), kind, evil),
        "no key": sign(b"", kind, evil),
    }
    if kind in _OF_TASK:
        # A crawl process, whose key user code can read, cannot make one.
        found["signed with the payloads' key"] = sign(payloads, kind, evil)
    else:
        found["an earlier task's of the same id"] = sign(key_of(kind, taskid, other_nonce), kind, evil)
        found["signed with the task's key"] = sign(task, kind, evil)
    for other in Kind:
        if other is not kind:
            found[f"a {other.value.decode()}"] = sign(right, other, evil)
    return found
