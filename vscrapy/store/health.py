"""
How a Redis is: what ``vscrapy doctor`` asks it.

Whether a user has the rights that vscrapy needs is tried on one key of a few seconds: commands for other types of
keys are refused there for that reason, if for no other.
"""

from __future__ import annotations

import statistics
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

from vscrapy import keys
from vscrapy.store.base import Store
from vscrapy.store.connection import saves, translate

#: Pings, of which the middle one counts.
N_PINGS: Final = 5
#: Life of the key that rights are tried on (ms).
TRIAL_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Health:
    """What a Redis says of itself, and how it answers."""

    #: Such as ``Valkey 8.1.0``.
    server: str
    #: Time of one round trip (ms).
    round_trip_ms: float
    #: Clock of this machine, minus that of Redis (ms).
    clock_ms: int
    has_append_only: bool
    has_snapshots: bool
    #: The last write to its disk succeeded.
    is_written: bool
    policy: str
    used_bytes: int
    #: 0: no limit.
    most_bytes: int
    #: Of its machine; 0: it does not say.
    machine_bytes: int
    #: Commands that vscrapy needs, and that this user may not.
    denied: tuple[str, ...]


def examine(store: Store) -> Health:
    """
    Ask a Redis that answers how it is.

    Raises:
        StoreUnavailable, StoreRefused: It does not say.
    """
    client = store.client
    with translate(store.endpoint):
        info: dict[str, Any] = {**client.info("server"), **client.info("memory"), **client.info("persistence")}
        times_ms = []
        for _ in range(N_PINGS):
            began = time.perf_counter()
            client.ping()
            times_ms.append((time.perf_counter() - began) * 1000)
        seconds, microseconds = client.time()
        has_snapshots = saves(client)
    name = "Valkey" if "valkey_version" in info else "Redis"
    return Health(
        server=f"{name} {info.get('valkey_version', info['redis_version'])}",
        round_trip_ms=statistics.median(times_ms),
        clock_ms=round(time.time() * 1000 - seconds * 1000 - microseconds / 1000),
        has_append_only=bool(info.get("aof_enabled")),
        has_snapshots=has_snapshots,
        is_written=all(
            info.get(field, "ok") == "ok"
            for field in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        ),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        used_bytes=int(info.get("used_memory", 0)),
        most_bytes=int(info.get("maxmemory", 0)),
        machine_bytes=int(info.get("total_system_memory", 0)),
        denied=_denied(store),
    )


def _denied(store: Store) -> tuple[str, ...]:
    """Try what vscrapy does; nothing is left of it after a few seconds."""
    from redis.exceptions import NoPermissionError

    key, client = keys.trial(uuid.uuid4().hex), store.client
    with translate(store.endpoint):
        try:
            client.set(key, "x", px=TRIAL_MS)
        except NoPermissionError:
            return ("set",)  # without the key, the others would have an effect
        pipeline = client.pipeline(transaction=False)
        for command in _TRIALS:
            pipeline.execute_command(*command.replace("KEY", key).split(" "))
        replies = pipeline.execute(raise_on_error=False)
    return tuple(
        " ".join(command.split(" ")[: 2 if command.startswith(("SCRIPT", "PUBSUB")) else 1]).lower()
        for command, reply in zip(_TRIALS, replies, strict=True)
        if isinstance(reply, NoPermissionError)
    )


#: The commands of docs/security.md, as they have no effect on a key that holds a short text.
_TRIALS: Final = (
    *("GET KEY", "GETRANGE KEY 0 1", "INCRBY KEY 1", "EXISTS KEY", f"EXPIRE KEY {TRIAL_MS // 1000}"),
    *("HGET KEY f", "HSET KEY f v", "HSETNX KEY f v", "HMGET KEY f", "HGETALL KEY", "HEXISTS KEY f", "HDEL KEY f"),
    *("HLEN KEY", "HKEYS KEY", "HVALS KEY", "HINCRBY KEY f 1", "HINCRBYFLOAT KEY f 1"),
    *("RPUSH KEY v", "LPUSH KEY v", "RPOP KEY", "LPOP KEY"),
    *("SADD KEY v", "SREM KEY v", "SCARD KEY", "SMEMBERS KEY", "SISMEMBER KEY v", "SMISMEMBER KEY v"),
    *("ZADD KEY 1 v", "ZREM KEY v", "ZSCORE KEY v", "ZRANGE KEY 0 1", "ZREVRANGE KEY 0 1"),
    *("ZRANGEBYSCORE KEY 0 1", "ZREMRANGEBYSCORE KEY 0 1"),
    *("XADD KEY * f v", "XDEL KEY 1-1", "XTRIM KEY MAXLEN 1", "XREAD STREAMS KEY 0", "XRANGE KEY - +"),
    "XREVRANGE KEY + -",
    *(f"EVALSHA {'0' * 40} 1 KEY", f"EVALSHA_RO {'0' * 40} 1 KEY", "SCRIPT LOAD return(1)"),
    *("PUBLISH KEY x", "PUBSUB NUMSUB KEY", "UNLINK KEY"),
)
