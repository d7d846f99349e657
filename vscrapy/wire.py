"""
Requests, items, jobs, files, facts and log lines, to signed bytes and back.

Whatever is unpickled, run, written or shown as a task's own words carries a MAC. A job and log lines are signed with
the task's key, which is derived from the cluster's secret and the taskid; all else with a key that is derived from
that one and the job's nonce, so that nothing of an earlier task with the same taskid counts. The MAC also covers the
kind of payload: an item cannot be passed off as a request. What does not verify is not looked into: no decoder here
decompresses, parses or unpickles before :func:`verify`, and each of them raises NotVerified or ValueError, whatever
the bytes are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from vscrapy.errors import NotVerified
from vscrapy.secret import payload_key, task_key

if TYPE_CHECKING:
    from scrapy import Request, Spider

#: Length of a MAC (bytes): HMAC-SHA256, truncated as RFC 2104 section 5 allows.
MAC_BYTES: Final = 16
#: Payloads longer than this (bytes) are compressed where that makes them shorter.
COMPRESS_FROM_BYTES: Final = 1024
#: The largest payload that is decompressed (bytes): twice what a value on Redis can hold.
MOST_BYTES: Final = 1024**3

_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"

#: Attributes of a request that travel only when they differ from these.
_REQUEST_DEFAULTS: Final[dict[str, Any]] = {
    "callback": None,
    "errback": None,
    "method": "GET",
    "headers": {},
    "body": b"",
    "cookies": {},
    "meta": {},
    "encoding": "utf-8",
    "priority": 0,
    "dont_filter": False,
    "flags": [],
    "cb_kwargs": {},
}


class Kind(bytes, Enum):
    """What a signed payload is."""

    JOB = b"job"
    REQUEST = b"request"
    ITEMS = b"items"
    FILE = b"file"
    STATE = b"state"
    FAILURE = b"failure"
    FACT = b"fact"
    LOG = b"log"

    @property
    def words(self) -> str:
        """What a person calls it."""
        return {Kind.ITEMS: "batch of items", Kind.LOG: "part of a log"}.get(self, self.value.decode())


def sign(key: bytes, kind: Kind, payload: bytes) -> bytes:
    """Put the MAC of *payload* in front of it."""
    return hmac.digest(key, kind.value + b":" + payload, "sha256")[:MAC_BYTES] + payload


def verify(key: bytes, kind: Kind, signed: bytes) -> bytes:
    """
    Take the MAC off a signed payload.

    Raises:
        NotVerified: The MAC is not the one that *key* makes; nothing was decoded.
    """
    payload = signed[MAC_BYTES:]
    mac = hmac.digest(key, kind.value + b":" + payload, "sha256")[:MAC_BYTES]
    if not hmac.compare_digest(mac, signed[:MAC_BYTES]):
        raise NotVerified(
            f"a {kind.words} of {len(signed)} bytes is not signed with this cluster's secret; "
            "it was not touched (do sender and workers have the same VSCRAPY_SECRET?)"
        )
    return payload


def _deflate(payload: bytes) -> bytes:
    if len(payload) > COMPRESS_FROM_BYTES:
        deflated = zlib.compress(payload, 1)
        if len(deflated) < len(payload):
            return _DEFLATED + deflated
    return _PLAIN + payload


def _inflate(payload: bytes) -> bytes:
    return _decompress(payload[1:]) if payload[:1] == _DEFLATED else payload[1:]


def _decompress(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError(f"larger than {MOST_BYTES} bytes, or cut short")
    return content


def _method_name(spider: Spider, method: Callable[..., Any] | str | None) -> str | None:
    """
    Name the spider's method, the fast way for the usual case.

    Raises:
        LookupError: Not a method that can be found by its name.
    """
    if method is None or isinstance(method, str):
        return method
    name = getattr(method, "__name__", None)
    if name is not None and getattr(method, "__self__", None) is spider:
        found = getattr(spider, name, None)
        if getattr(found, "__func__", None) is getattr(method, "__func__", method):
            return str(name)
    raise LookupError(f"{method!r} is not a method of the spider that can be found by its name")


def encode_request(request: Request, spider: Spider, key: bytes) -> bytes:
    """
    Turn a request into a signed payload.

    Of Scrapy's own class, only what differs from the defaults travels; of others, all attributes as they are, so
    that a class may take and keep whatever it likes.

    Raises:
        ValueError: It cannot be serialised: a lambda or a closure as callback, an open handle in its meta.
    """
    cls = type(request)
    is_plain = f"{cls.__module__}.{cls.__qualname__}" == "scrapy.http.request.Request" and not _has_more(request)
    path = "" if is_plain else _path_of(cls)
    try:
        methods: dict[str, Any] = {
            "callback": _method_name(spider, request.callback),
            "errback": _method_name(spider, request.errback),
        }
    except LookupError:
        found = request.to_dict(spider=spider)
        methods = {name: found[name] for name in ("callback", "errback")}
    if not is_plain:
        return sign(key, Kind.REQUEST, _deflate(_pickle(("", path, _attributes(request) | methods))))
    state = methods | {"headers": dict(request.headers)}
    for name in request.attributes:
        if name not in state:
            state[name] = getattr(request, name)
    url = state.pop("url")
    state = {
        name: value
        for name, value in state.items()
        if name not in _REQUEST_DEFAULTS or value != _REQUEST_DEFAULTS[name]
    }
    return sign(key, Kind.REQUEST, _deflate(_pickle((url, path, state))))


def _attributes(request: Request) -> dict[str, Any]:
    """All that stands in the object: its slots, and its own dict."""
    found = object.__getstate__(request)
    parts = found if isinstance(found, tuple) else (found,)
    return {name: value for part in parts if part for name, value in part.items()}


def _has_more(request: Request) -> bool:
    """Has the project put attributes on a request of Scrapy's own class? Newer ones take none."""
    own: dict[str, Any] = getattr(request, "__dict__", {})
    return bool(own) and not own.keys() <= _plain_names()


@cache
def _plain_names() -> frozenset[str]:
    from scrapy import Request

    return frozenset(vars(Request("data:,")))


def _pickle(value: Any) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    # It is the project's objects that raise, whatever they like.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _path_of(cls: type) -> str:
    if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is not cls:
        raise ValueError(f"{cls.__module__}.{cls.__qualname__} cannot be found by its name on another process")
    return f"{cls.__module__}.{cls.__name__}"


def decode_request(signed: bytes, spider: Spider, key: bytes) -> Request:
    """
    Turn a signed payload into a request again.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: The spider has no such callback, a class in it is missing, or does not take what it gave.
    """
    from scrapy.utils.misc import load_object
    from scrapy.utils.request import request_from_dict

    payload = verify(key, Kind.REQUEST, signed)
    try:
        url, path, state = pickle.loads(_inflate(payload))
        if not path:
            return request_from_dict({"url": url, **state}, spider=spider)
        return _request_of(load_object(path), state, spider)
    # It is the project's classes that raise, whatever they like.
    except Exception as error:
        raise ValueError(f"a request cannot be read here: {type(error).__name__}: {error}") from error


def with_fresh_tries(signed: bytes, key: bytes) -> bytes:
    """
    Take out of a signed request how often it was retried: Scrapy's retry middleware counts anew.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: A class in it is missing, or it cannot be serialised again.
    """
    payload = verify(key, Kind.REQUEST, signed)
    try:
        url, path, state = pickle.loads(_inflate(payload))
        attribute = "_meta" if path else "meta"  # of a class of the project's own, the very attributes travel
        meta = state.get(attribute) or {}
        state[attribute] = {name: value for name, value in meta.items() if name != "retry_times"}
    # It is the project's classes that raise, whatever they like.
    except Exception as error:
        raise ValueError(f"a request cannot be read here: {type(error).__name__}: {error}") from error
    return sign(key, Kind.REQUEST, _deflate(_pickle((url, path, state))))


def sign_anew(signed: bytes, key: bytes, new_key: bytes) -> bytes:
    """
    Sign a signed request for another task; it is not looked into.

    Raises:
        NotVerified: Not signed with *key*.
    """
    return sign(new_key, Kind.REQUEST, verify(key, Kind.REQUEST, signed))


def _request_of(cls: type[Request], attributes: dict[str, Any], spider: Spider) -> Request:
    """Make a request with these attributes; not by its class, which may want arguments that it does not keep."""
    request = cls.__new__(cls)
    for name, value in attributes.items():
        is_method = name in ("callback", "errback") and value is not None
        setattr(request, name, getattr(spider, value) if is_method else value)
    return request


def encode_items(items: Sequence[bytes], key: bytes) -> bytes:
    """Sign a batch of items, each already pickled by :func:`pickle_item`."""
    return sign(key, Kind.ITEMS, _deflate(pickle.dumps(list(items), protocol=5)))


def pickle_item(item: Any) -> bytes:
    """
    Pickle one item as it is now; later changes to it do not travel.

    Raises:
        ValueError: It holds something that cannot be pickled.
    """
    return _pickle(item)


def decode_items(signed: bytes, key: bytes, on_error: Callable[[Exception], None]) -> list[Any]:
    """
    Turn a signed batch into items; the project's classes must be importable.

    Args:
        on_error: Called for each item that cannot be read here; the others are returned.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: Signed, and no batch of items all the same.
    """
    payload = verify(key, Kind.ITEMS, signed)
    try:
        batch = pickle.loads(_inflate(payload))
        if not (isinstance(batch, list) and all(isinstance(pickled, bytes) for pickled in batch)):
            raise ValueError("it is no list of pickled items")
    except Exception as error:
        raise ValueError(f"a batch of items cannot be read here: {type(error).__name__}: {error}") from error
    items = []
    for pickled in batch:
        try:
            items.append(pickle.loads(pickled))
        except Exception as error:  # noqa: BLE001 - an item's own class may raise anything
            on_error(error)
    return items


def encode_state(state: dict[Any, Any], key: bytes) -> bytes:
    """
    Turn a spider's state into a signed payload.

    Raises:
        ValueError: It holds something that cannot be pickled.
    """
    return sign(key, Kind.STATE, _deflate(_pickle(state)))


def decode_state(signed: bytes, key: bytes) -> dict[Any, Any]:
    """
    Turn a signed payload into a spider's state again.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: It cannot be read here.
    """
    payload = verify(key, Kind.STATE, signed)
    try:
        state = pickle.loads(_inflate(payload))
    # It is the project's classes that raise, whatever they like.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"it is no dict, but {type(state).__name__}")
    return state


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that a crawl process has written."""

    #: Below the project's directory, with ``/``.
    path: str
    content: bytes
    #: The crawl process's number in its task.
    process: int
    is_executable: bool = False
    #: Where *content* begins in the process's own file; 0 for the whole of it.
    position: int = 0
    #: The file is only added to, and *content* is what was added.
    is_added: bool = False
    #: The process has made the file, or written it anew, before it was added to.
    is_renewed: bool = False


def encode_file(file: WrittenFile, key: bytes) -> bytes:
    """Turn a file into a signed payload."""
    head = json.dumps(
        [file.path, file.process, file.is_executable, file.position, file.is_added, file.is_renewed]
    ).encode()
    return sign(key, Kind.FILE, _deflate(len(head).to_bytes(4, "big") + head + file.content))


def decode_file(signed: bytes, key: bytes) -> WrittenFile:
    """
    Turn a signed payload into a file again; nothing of it is unpickled.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: Signed, and no file all the same.
    """
    payload = _inflate(verify(key, Kind.FILE, signed))
    end = 4 + int.from_bytes(payload[:4], "big")
    try:
        path, process, is_executable, position, is_added, is_renewed = json.loads(payload[4:end])
        flags = (int(process), bool(is_executable), int(position), bool(is_added), bool(is_renewed))
        return WrittenFile(str(path), payload[end:], *flags)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the head of a file cannot be read: {error}") from error


class What(StrEnum):
    """What made a request fail for good."""

    #: Its callback raised, or a spider middleware around it.
    CALLBACK = "callback raised"
    ERRBACK = "errback raised"
    #: No response, and no errback that took care of it.
    DOWNLOAD = "download failed"
    #: Scrapy's HttpErrorMiddleware kept the response from the callback, after all retries.
    IGNORED = "response ignored"
    #: Process after process died with it, alone, in hand.
    PROCESS = "crawl process died"


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed for good."""

    what: What
    #: ``ValueError: no price``, or the response's status.
    error: str
    url: str
    method: str
    #: Names of the methods; empty: none was given.
    callback: str
    errback: str
    #: How often it was tried: once, and then each retry.
    tries: int
    #: The response's status; 0: there was none.
    status: int
    #: Seconds since the epoch, on the worker.
    time: float
    worker: str
    #: The crawl process's number in its task.
    process: int
    #: Empty where nothing was raised by the project.
    traceback: str = ""


def encode_failure(failure: Failure, key: bytes) -> bytes:
    """Turn a failure into a signed payload."""
    return sign(key, Kind.FAILURE, _deflate(json.dumps(asdict(failure)).encode()))


def decode_failure(signed: bytes, key: bytes) -> Failure:
    """
    Turn a signed payload into a failure again; nothing of it is unpickled.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: Signed, and no failure all the same.
    """
    payload = _inflate(verify(key, Kind.FAILURE, signed))
    try:
        data = json.loads(payload)
        return Failure(**{**data, "what": What(data["what"])})
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"a failure cannot be read: {type(error).__name__}: {error}") from error


def encode_fact(fact: str, value: str, key: bytes) -> str:
    """Sign what one crawl process tells the others; the fact's name is signed with it."""
    return base64.b64encode(sign(key, Kind.FACT, json.dumps([fact, value]).encode())).decode()


def decode_fact(fact: str, signed: str, key: bytes) -> str:
    """
    Give the value of a fact.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: It was signed as another fact, or is not what a fact is.
    """
    payload = verify(key, Kind.FACT, base64.b64decode(signed, validate=True))
    try:
        named, value = json.loads(payload)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"a fact cannot be read: {error}") from error
    if named != fact:
        raise ValueError("a fact was signed under another name")
    return str(value)


def encode_job(job: dict[str, Any], key: bytes) -> bytes:
    """Turn a job (JSON types only) into a signed payload."""
    return sign(key, Kind.JOB, zlib.compress(json.dumps(job, sort_keys=True).encode()))


def decode_job(signed: bytes, key: bytes) -> dict[str, Any]:
    """
    Turn a signed payload into a job again.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: Signed, and no job all the same.
    """
    packed = verify(key, Kind.JOB, signed)
    try:
        job = json.loads(_decompress(packed))
    except RecursionError as error:
        raise ValueError(f"a job cannot be read: {error}") from error
    if not isinstance(job, dict):
        raise ValueError(f"a job is no object, but {type(job).__name__}")
    return job


def open_job(signed: bytes, secret: str, taskid: int) -> tuple[dict[str, Any], bytes]:
    """
    Read a task's job: it, and the key that signs the task's payloads.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: Signed, and no job of this version all the same.
    """
    key = task_key(secret, taskid)
    job = decode_job(signed, key)
    return job, payload_key(key, str(job.get("nonce", "")))


def fingerprint_place(fingerprint: bytes) -> tuple[str, str]:
    """
    Say where a request's fingerprint stands in the task's seen sets: a place, 0000 to ffff, and a 64-bit integer.

    Fingerprints shorter than ten bytes (a project's own fingerprinter) are hashed first. 76 bits of it count at least
    (``_seen.lua``): among ten million requests, a wrong match has a chance of 1 to 10^9.
    """
    if len(fingerprint) < 10:
        fingerprint = hashlib.sha1(fingerprint, usedforsecurity=False).digest()
    return fingerprint[:2].hex(), str(int.from_bytes(fingerprint[2:10], "big", signed=True))


@dataclass(frozen=True, slots=True)
class LogLine:
    """
    One thing a crawl process said: a log record, or text on its stdout or stderr.

    As data it travels as one JSON object with the short names given here.
    """

    #: ``log``, ``out`` or ``err`` (``s``).
    stream: str
    #: The message, with the traceback under it; or the text as written (``x``).
    text: str
    #: Seconds since the epoch (``t``).
    time: float = 0.0
    #: Level number (``l``).
    level: int = 0
    #: Logger's name (``n``).
    logger: str = ""
    #: Is it part of the banner that each crawl process prints as it starts? (``b``)
    is_banner: bool = False
    #: Further attributes of the record, those that LOG_FORMAT names (``a``).
    attributes: tuple[tuple[str, Any], ...] = ()
    #: Crawl process's number in its task, and its worker's name (``p``, ``w``): put in by the agent.
    process: int = 0
    worker: str = ""

    def to_data(self) -> dict[str, Any]:
        """The JSON object; what is empty is left out."""
        data: dict[str, Any] = {"s": self.stream, "x": self.text, "t": round(self.time, 6)}
        if self.stream == "log":
            data |= {"l": self.level, "n": self.logger}
        if self.is_banner:
            data["b"] = 1
        if self.attributes:
            data["a"] = dict(self.attributes)
        if self.process:
            data["p"] = self.process
        if self.worker:
            data["w"] = self.worker
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> LogLine:
        """
        Read what :meth:`to_data` gave.

        Raises:
            KeyError, TypeError, ValueError: Not such an object.
        """
        try:
            return cls(
                stream=str(data["s"]),
                text=str(data["x"]),
                time=float(data.get("t", 0)),
                level=int(data.get("l", 0)),
                logger=str(data.get("n", "")),
                is_banner=bool(data.get("b")),
                attributes=tuple(dict(data.get("a", {})).items()),
                process=int(data.get("p", 0)),
                worker=str(data.get("w", "")),
            )
        except OverflowError as error:  # JSON has Infinity, in Python's eyes.
            raise ValueError(str(error)) from error


def encode_lines(lines: Sequence[LogLine], key: bytes) -> bytes:
    """Sign some lines of a task's log."""
    data = json.dumps([line.to_data() for line in lines], ensure_ascii=False, separators=(",", ":"))
    return sign(key, Kind.LOG, data.encode("utf-8", "surrogatepass"))


def decode_lines(signed: bytes, key: bytes) -> tuple[LogLine, ...]:
    """
    Give the lines that were signed together.

    Raises:
        NotVerified: Not signed for this task.
        ValueError: Signed, and no lines all the same.
    """
    payload = verify(key, Kind.LOG, signed)
    try:
        return tuple(LogLine.from_data(data) for data in json.loads(payload.decode("utf-8", "surrogatepass")))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"log lines cannot be read: {type(error).__name__}: {error}") from error
