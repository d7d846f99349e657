"""
Connections to Redis, and its refusals as our errors.

No command is retried inside: whoever calls knows whether a repeat is harmless. redis-py is imported when the first
client is made, for that takes a tenth of a start.
"""

from __future__ import annotations

import logging
import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from vscrapy.config import insecure, is_local, redact, without_password
from vscrapy.errors import StoreRefused, StoreUnavailable
from vscrapy.model import Endpoint
from vscrapy.shown import shown

if TYPE_CHECKING:
    import redis

#: Time for a connection to come about (seconds).
CONNECT_TIMEOUT_S: Final = 5.0
#: Time for a reply (seconds); blocking reads ask for less.
REPLY_TIMEOUT_S: Final = 15.0
#: Longest blocking read (milliseconds); well below ``REPLY_TIMEOUT_S``.
BLOCK_MS: Final = 5000

#: What redis-py puts before the server's words; it holds the command, which may be a whole file.
_COMMAND: Final = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
#: How a server's TLS says that it does not take a client's certificate.
_NOT_TRUSTED: Final = ("unknown ca", "bad certificate", "decrypt error", "certificate expired", "certificate unknown")
_OLDEST_REDIS: Final = (7, 0)
_OLDEST_VALKEY: Final = (7, 2)


def connect(endpoint: Endpoint, *, name: str, reply_timeout_s: float = REPLY_TIMEOUT_S) -> redis.Redis:
    """
    Make a client; nothing is sent yet.

    Args:
        name: What CLIENT LIST shows, such as ``vscrapy-worker-w1``.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # redis-py logs each operation that fails, at DEBUG, which is Scrapy's default level; we tell it ourselves.
    logging.getLogger("redis").setLevel(logging.WARNING)
    options: dict[str, Any] = {} if endpoint.url.startswith("unix:") else {"socket_keepalive": True}
    if endpoint.url.startswith("rediss:"):
        # redis-py before 6 does not look whose certificate it is, unless it is told to.
        options["ssl_check_hostname"] = "ssl_cert_reqs=none" not in endpoint.url.lower()
    return redis.Redis.from_url(
        endpoint.url,
        client_name=re.sub(r"\s", "-", name),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=reply_timeout_s,
        **options,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
    )


@contextmanager
def translate(endpoint: Endpoint) -> Iterator[None]:
    """
    Turn redis-py's errors into ours.

    Raises:
        StoreUnavailable: No connection, no reply, or the server is still loading.
        StoreRefused: The server says no: password, rights, memory, disk.
    """
    try:
        yield
    except Exception as error:
        ours = _ours(endpoint, error)
        if ours is None:
            raise
        raise ours from error


def _ours(endpoint: Endpoint, error: Exception) -> StoreUnavailable | StoreRefused | None:
    """Our error for one of redis-py's; None: it is none, or a defect of ours, with which nothing was sent."""
    import redis.exceptions as theirs

    where = f"{redact(endpoint.url)} (from {endpoint.source})"
    match error:
        case theirs.DataError():
            return None
        case theirs.AuthenticationError():
            # redis-py takes the code off the server's words: "NOAUTH HELLO must be called with ... authenticated".
            if "HELLO must be called" in str(error) or "Authentication required" in str(error):
                return StoreRefused(_refusal(where, error))
            return StoreRefused(
                f"Redis at {where} refuses the password: {_words(error)}; set the right one in the URL "
                "(redis://:PASSWORD@HOST:PORT/DB) or with 'vscrapy config -pa PASSWORD'"
            )
        case theirs.BusyLoadingError():
            return StoreUnavailable(f"Redis at {where} is still loading its data; try again soon")
        case theirs.ConnectionError() | theirs.TimeoutError() | OSError():
            if (problem := _tls_problem(error)) is not None:
                return StoreRefused(f"Redis at {where}: {problem}")
            hint = "is it running, and is this the right address? ('vscrapy config' shows which one is used and why)"
            if endpoint.url.startswith("rediss:") and _is_cut(error):
                # Under TLS 1.3 its refusal can come too late to be read. It may as well have been restarted.
                hint = (
                    "if it wants a client certificate, name one that it trusts in the URL (ssl_certfile, ssl_keyfile)"
                )
            return StoreUnavailable(f"Redis at {where} cannot be reached: {_words(error)}; {hint}")
        case theirs.NoPermissionError():
            return StoreRefused(
                f"Redis at {where} does not allow this user what vscrapy needs: {_words(error)}; docs/security.md "
                "has the rules (ACL SETUSER) that it takes"
            )
        case theirs.ResponseError():
            return StoreRefused(_refusal(where, error))
        case theirs.RedisError():
            return StoreUnavailable(f"Redis at {where} gave no usable reply: {_words(error)}")
    return None


def _words(error: BaseException) -> str:
    """What a server says may come from anybody who can write to it."""
    return shown(" ".join(str(error).split()))


def _is_cut(error: BaseException | None) -> bool:
    """Was the connection there, and ended by the other side?"""
    while error is not None:
        if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
            return True
        if "closed by server" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _tls_problem(error: BaseException | None) -> str | None:
    """Say what is wrong with a certificate, ours or the server's; None: it is something else."""
    while error is not None:
        words = str(error).lower()
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted: {shown(error.verify_message)}; name the file of its CA in the URL "
                "(?ssl_ca_certs=/PATH/ca.pem), and the host as in the certificate"
            )
        if isinstance(error, ssl.SSLError) and ("certificate required" in words or "handshake failure" in words):
            return (
                "it wants a client certificate; name its files in the URL "
                "(?ssl_certfile=/PATH/client.pem&ssl_keyfile=/PATH/client.key)"
            )
        if isinstance(error, ssl.SSLError) and any(alert in words for alert in _NOT_TRUSTED):
            return "it does not trust the client certificate that ssl_certfile in the URL names"
        error = error.__cause__ or error.__context__
    return None


def _refusal(where: str, error: Exception) -> str:
    from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError

    words = shown(_COMMAND.sub("", str(error)))
    if isinstance(error, AuthenticationError) or "NOAUTH" in words or "Authentication required" in words:
        return f"Redis at {where} wants a password; give one in the URL (redis://:PASSWORD@HOST:PORT/DB)"
    if isinstance(error, OutOfMemoryError) or "OOM" in words:
        return f"Redis at {where} is out of memory and refuses writes: {words}; raise maxmemory or free some"
    if "MISCONF" in words:
        return f"Redis at {where} cannot write to its disk and refuses writes: {words}"
    if isinstance(error, ReadOnlyError) or "READONLY" in words:
        return f"Redis at {where} is a read-only replica; give the address of the primary"
    if "unknown command" in words and "HELLO" in words:
        return f"Redis at {where} is older than Redis 6; vscrapy needs Redis 7.0 or newer"
    return f"Redis at {where} refuses: {words}"


def check_server(client: redis.Redis, endpoint: Endpoint) -> None:
    """
    Say hello, and see that the server is new enough.

    Raises:
        StoreUnavailable, StoreRefused: As :func:`translate`; also a server older than Redis 7 or Valkey 7.2.
        InsecureStore: It is not on this machine, and lets in who gives no password.
    """
    with translate(endpoint):
        info: dict[str, Any] = client.info("server")
    if not (endpoint.is_insecure_allowed or is_local(endpoint.url)) and _is_open(endpoint):
        raise insecure(endpoint, "asks for no password, whatever the URL has")
    is_valkey = "valkey_version" in info
    version = str(info["valkey_version"] if is_valkey else info["redis_version"])
    name, oldest = ("Valkey", _OLDEST_VALKEY) if is_valkey else ("Redis", _OLDEST_REDIS)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < oldest:
        raise StoreRefused(
            f"the server at {redact(endpoint.url)} (from {endpoint.source}) is {name} {version}; "
            f"vscrapy needs {name} {'.'.join(map(str, oldest))} or newer"
        )


def _is_open(endpoint: Endpoint) -> bool:
    """Does the server let in who gives no password? One without any takes whatever it is given."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    stranger = redis.Redis.from_url(
        without_password(endpoint.url),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        return bool(stranger.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        stranger.close()


def require_server(client: redis.Redis, endpoint: Endpoint) -> None:
    """As :func:`check_server`; with a warning on stderr when the server may lose what it is given."""
    check_server(client, endpoint)
    with translate(endpoint):
        memory: dict[str, Any] = client.info("memory")
        persistence: dict[str, Any] = client.info("persistence")
        is_kept = bool(persistence.get("aof_enabled")) or saves(client)
    if not is_kept:
        print(
            f"vscrapy: warning: Redis at {redact(endpoint.url)} keeps nothing on disk (appendonly no, no save); "
            "when it restarts, its tasks are lost; set appendonly yes",
            file=sys.stderr,
        )
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and int(memory.get("maxmemory", 0)) > 0:
        print(
            f"vscrapy: warning: Redis at {redact(endpoint.url)} may evict keys (maxmemory-policy {policy}); "
            "requests and items can get lost; set maxmemory-policy noeviction",
            file=sys.stderr,
        )


def saves(client: redis.Redis) -> bool:
    """Does the server write snapshots? Yes, where it does not let us see."""
    from redis.exceptions import ResponseError

    try:
        found: Any = client.config_get("save")
    except ResponseError:  # no rights, or a hosted server without CONFIG
        return True
    return bool(found.get("save", "yes"))
