"""Requests, items, jobs and log lines to bytes and back; and that nothing unsigned is ever looked into."""

from __future__ import annotations

import base64
import functools
import io
import json
import pickle
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itemadapter import ItemAdapter
from scrapy import Field, FormRequest, Item, Request, Spider
from scrapy.http import JsonRequest, XmlRpcRequest
from scrapy.utils.request import fingerprint

from vscrapy import wire
from vscrapy.errors import NotVerified
from vscrapy.secret import task_key
from vscrapy.wire import Kind, LogLine

KEY = task_key("secret", 7)


def unexpected(error: Exception) -> None:
    """Fail: no item of this test is unreadable."""
    raise error


URL = "https://books.example/a?b=%C3%A9#c"


class BooksSpider(Spider):
    """A spider with every kind of callback."""

    name = "books"

    def parse(self, response: Any) -> None:
        """The usual one."""

    def on_error(self, failure: Any) -> None:
        """An errback."""

    def __hidden(self, response: Any) -> None:
        """Its name is mangled."""

    @staticmethod
    def without_self(response: Any) -> None:
        """Cannot be found by its name."""

    def wrapped(self, response: Any) -> None:
        """Its ``__name__`` is another method's."""

    wrapped.__name__ = "parse"

    @property
    def hidden(self) -> Any:
        """The mangled one."""
        return self.__hidden


class KeyedRequest(Request):
    """It wants an argument, and has attributes, that ``attributes`` does not name."""

    def __init__(self, url: str, key: str, **kwargs: Any) -> None:
        super().__init__(f"{url}?key={key}", **kwargs)
        self.key = key
        self.history = ["a"]


class OwnRequest(Request):
    """A project's request with an attribute and a default of its own."""

    attributes = (*Request.attributes, "shelf")

    def __init__(self, url: str, *, shelf: str = "", priority: int = 5, **kwargs: Any) -> None:
        super().__init__(url, priority=priority, **kwargs)
        self.shelf = shelf


class BookItem(Item):
    """A Scrapy item."""

    title = Field()


@dataclass
class BookData:
    """A dataclass item."""

    title: str


class Shelf:
    """An object with a method that is not the spider's."""

    class NestedRequest(Request):
        """A request that is not found where its module is."""

    def parse(self, response: Any) -> None:
        """Not the spider's."""


class OneWayError(Exception):
    """Can be pickled, and not be read again."""

    def __init__(self, *, code: int) -> None:
        super().__init__(code)


class Moody:
    """Raises what no pickler raises."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not now")


SPIDER: Final = BooksSpider()

#: Few: each costs a guess.
SECRETS: Final = ("", "a", "aa", "a ", "A", "é", "e\u0301", "\udcff", "1")

DECODERS: dict[str, Callable[[bytes], object]] = {
    "request": lambda signed: wire.decode_request(signed, SPIDER, KEY),
    "items": lambda signed: wire.decode_items(signed, KEY, unexpected),
    "job": lambda signed: wire.decode_job(signed, KEY),
    "failure": lambda signed: wire.decode_failure(signed, KEY),
    "request with fresh tries": lambda signed: wire.with_fresh_tries(signed, KEY),
    "file": lambda signed: wire.decode_file(signed, KEY),
    "state": lambda signed: wire.decode_state(signed, KEY),
    "fact": lambda signed: wire.decode_fact("robots:a", base64.b64encode(signed).decode(), KEY),
    "log": lambda signed: wire.decode_lines(signed, KEY),
}

FAILURE: Final = wire.Failure(
    what=wire.What.ERRBACK,
    error="ValueError: é \udcff",
    url=URL,
    method="GET",
    callback="parse",
    errback="on_error",
    tries=3,
    status=503,
    time=1.5,
    worker="w1",
    process=2,
    traceback="Traceback …\n",
)


def there_and_back(request: Request) -> Request:
    """Send a request."""
    return wire.decode_request(wire.encode_request(request, SPIDER, KEY), SPIDER, KEY)


# --- signatures -----------------------------------------------------------------------------------------------------


@given(payload=st.binary(max_size=50), kind=st.sampled_from(Kind))
def test_verify_gives_what_was_signed(payload: bytes, kind: Kind) -> None:
    """Any bytes, also none."""
    assert wire.verify(KEY, kind, wire.sign(KEY, kind, payload)) == payload


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("other", Kind)
def test_verify_refuses_another_kind(kind: Kind, other: Kind) -> None:
    """An item cannot be passed off as a request."""
    if kind is other:
        return
    with pytest.raises(NotVerified):
        wire.verify(KEY, other, wire.sign(KEY, kind, b"payload"))


@given(
    secret=st.sampled_from(SECRETS),
    other=st.sampled_from(SECRETS),
    taskids=st.tuples(st.integers(1, 99), st.integers(1, 99)),
)
def test_task_key_is_another_for_each_task_and_secret(secret: str, other: str, taskids: tuple[int, int]) -> None:
    """A payload of one task is nothing in another."""
    is_same = (secret, taskids[0]) == (other, taskids[1])
    assert (task_key(secret, taskids[0]) == task_key(other, taskids[1])) is is_same


@pytest.mark.parametrize("secret", ["", "é", "\udcff", "x" * 10_000])
def test_task_key_is_made_of_any_secret(secret: str) -> None:
    """An environment variable may hold any bytes."""
    assert len(task_key(secret, 1)) == 32


@pytest.mark.parametrize("length", range(len(wire.sign(KEY, Kind.JOB, b"payload"))))
def test_verify_refuses_what_was_cut_short(length: int) -> None:
    """Neither a part nor nothing at all is taken."""
    with pytest.raises(NotVerified):
        wire.verify(KEY, Kind.JOB, wire.sign(KEY, Kind.JOB, b"payload")[:length])


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_verify_refuses_a_single_turned_bit(at: int, bit: int) -> None:
    """Wherever it is."""
    signed = bytearray(wire.encode_request(Request(URL), SPIDER, KEY))
    signed[at % len(signed)] ^= 1 << bit
    with pytest.raises(NotVerified):
        wire.verify(KEY, Kind.REQUEST, bytes(signed))


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_decode_never_looks_into_what_is_not_signed(name: str, data: st.DataObject) -> None:
    """Neither pickle nor zlib nor JSON sees a byte of it."""
    others = [key for kind, key in _signed_by_others().items() if not name.startswith(kind)]
    signed = data.draw(st.binary(max_size=100) | st.sampled_from(others))

    def reached(*args: object) -> None:
        raise AssertionError("an unsigned payload was decoded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle, "loads", reached)
        patch.setattr(zlib, "decompressobj", reached)
        patch.setattr(json, "loads", reached)
        with pytest.raises(NotVerified):
            DECODERS[name](signed)


def _signed_by_others() -> dict[str, bytes]:
    """Payloads that are well-formed, and of another kind, another task or another cluster."""
    return {
        "request": wire.encode_request(Request(URL), SPIDER, KEY),
        "items": wire.encode_items([pickle.dumps(1)], KEY),
        "job": wire.encode_job({}, KEY),
        "failure": wire.encode_failure(FAILURE, KEY),
        "file": wire.encode_file(wire.WrittenFile("a", b"b", 1), KEY),
        "state": wire.encode_state({"a": 1}, KEY),
        "fact": base64.b64decode(wire.encode_fact("robots:a", "b", KEY)),
        "log": wire.encode_lines([LogLine("out", "a")], KEY),
        "another task's": wire.encode_request(Request(URL), SPIDER, task_key("secret", 8)),
        "another cluster's": wire.encode_job({}, task_key("other", 7)),
    }


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        Request(URL),
        Request(URL, callback=SPIDER.parse, errback=SPIDER.on_error),
        Request(URL, callback=SPIDER.hidden),
        Request(URL, callback=SPIDER.wrapped),
        Request(URL, method="PUT", body=b"\0\xff" * 5000, encoding="latin-1"),
        Request(URL, headers={"X-One": ["a", "b"], "Accept": b"\xff"}, cookies={"a": "é"}),
        Request(URL, cookies=[{"name": "a", "value": "b", "domain": "x", "path": "/"}]),
        Request(URL, meta={"item": BookItem(title="a"), "data": BookData("b"), "depth": 3, "proxy": "p"}),
        Request(URL, cb_kwargs={"page": 2, "tags": {"a"}}, priority=-10, dont_filter=True, flags=["cached"]),
        FormRequest(URL, formdata={"a": "b", "c": ["d", "é"]}),
        FormRequest(URL, method="GET", formdata={"q": "é"}),
        JsonRequest(URL, data={"a": [1, None]}, dumps_kwargs={"indent": 1}),
        JsonRequest(URL, data={}, method="GET"),
        JsonRequest(URL),
        XmlRpcRequest(URL, params=(1, "a"), methodname="m"),
        XmlRpcRequest(URL, params=(1,), methodname="m", dont_filter=False),
        OwnRequest(URL, shelf="B"),
        OwnRequest(URL, priority=0),
    ],
    ids=repr,
)
def test_request_of_any_kind_comes_out_as_it_went_in(request_: Request) -> None:
    """Class, callbacks and all attributes survive, defaults and their opposites included."""
    found = there_and_back(request_)
    assert (type(found), found.to_dict(spider=SPIDER)) == (type(request_), request_.to_dict(spider=SPIDER))


def test_request_of_a_class_with_arguments_that_it_does_not_keep_comes_out_as_it_went_in() -> None:
    """Its class is not called again; all that it holds is there."""
    request = KeyedRequest(URL, "secret", callback=SPIDER.parse, meta={"a": 1})
    request.history.append("b")

    found = there_and_back(request)

    assert isinstance(found, KeyedRequest)
    assert (found.url, found.key, found.history) == (request.url, "secret", ["a", "b"])
    assert (found.callback, found.meta) == (SPIDER.parse, {"a": 1})


@pytest.mark.parametrize(
    "request_", [Request(URL), FormRequest(URL, formdata={"a": "b"}), JsonRequest(URL, data=[1])]
)
def test_request_keeps_its_fingerprint(request_: Request) -> None:
    """What was seen before the journey is seen after it."""
    assert fingerprint(there_and_back(request_)) == fingerprint(request_)


def test_request_finds_its_callback_on_another_spider_object() -> None:
    """Callbacks are names: the spider of the other process is another object."""
    other = BooksSpider()
    signed = wire.encode_request(Request(URL, callback=SPIDER.parse), SPIDER, KEY)
    assert wire.decode_request(signed, other, KEY).callback == other.parse


def test_request_is_compressed_where_that_pays() -> None:
    """A large body travels small."""
    assert len(wire.encode_request(Request(URL, body=b"a" * 100_000), SPIDER, KEY)) < 1000


def _with_lambda() -> Request:
    return Request(URL, callback=cast("Any", lambda response: None))


def _local() -> Request:
    class LocalRequest(Request):
        """Is known here only."""

    return LocalRequest(URL)


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


CANNOT_TRAVEL: Final[dict[str, Callable[[], Request]]] = {
    "lambda": _with_lambda,
    "partial": lambda: Request(URL, callback=functools.partial(SPIDER.parse)),
    "static method": lambda: Request(URL, callback=SPIDER.without_self),
    "method of another object": lambda: Request(URL, callback=Shelf().parse),
    "errback of another object": lambda: Request(URL, errback=Shelf().parse),
    "errback lambda": lambda: Request(URL, callback=SPIDER.parse, errback=lambda failure: None),
    "buffer": lambda: Request(URL, meta={"file": io.BytesIO().getbuffer()}),
    "lock": lambda: Request(URL, meta={"lock": threading.Lock()}),
    "function in meta": lambda: Request(URL, meta={"function": lambda: None}),
    "deep meta": lambda: Request(URL, meta={"deep": _deep()}),
    "reduce raises": lambda: Request(URL, cb_kwargs={"moody": Moody()}),
    "nested class": lambda: Shelf.NestedRequest(URL),
    "local class": _local,
}


@pytest.mark.parametrize("name", CANNOT_TRAVEL)
def test_request_that_cannot_travel_is_a_value_error(name: str) -> None:
    """Such a request stays on its process; whatever the project's objects raise, it is no accident."""
    with pytest.raises(ValueError, match=r"."):
        wire.encode_request(CANNOT_TRAVEL[name](), SPIDER, KEY)


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps((URL, "", {"callback": "not_there"})),
        pickle.dumps((URL, "no.such.Request", {})),
        pickle.dumps((URL, "vscrapy.wire.NoSuchRequest", {})),
        pickle.dumps((URL, "", {"meta": {"error": OneWayError(code=1)}})),
        b"cnowhere\nClass\n.",
        b"",
        pickle.dumps((URL, "")),
        pickle.dumps(("no url", "", {})),
    ],
    ids=["callback", "module", "class", "one way", "import", "nothing", "shape", "url"],
)
def test_request_that_cannot_be_read_here_is_a_value_error(payload: bytes) -> None:
    """A signed request that this project cannot make is dropped by itself, not with the crawl."""
    with pytest.raises(ValueError, match=r"."):
        wire.decode_request(wire.sign(KEY, Kind.REQUEST, b"\0" + payload), SPIDER, KEY)


# --- items and jobs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item", [{"title": "é"}, BookItem(title="é"), BookData("é")], ids=["dict", "Item", "dataclass"]
)
def test_items_come_out_as_they_went_in(item: Any) -> None:
    """In their order, of their own types."""
    signed = wire.encode_items([wire.pickle_item(item), wire.pickle_item({"n": 2})], KEY)
    found = wire.decode_items(signed, KEY, unexpected)
    assert (type(found[0]), ItemAdapter(found[0]).asdict(), found[1:]) == (type(item), {"title": "é"}, [{"n": 2}])


def test_item_is_as_it_was_when_it_was_pickled() -> None:
    """A spider may reuse its dict."""
    item = {"n": 1}
    pickled = wire.pickle_item(item)
    item["n"] = 2
    assert wire.decode_items(wire.encode_items([pickled], KEY), KEY, unexpected) == [{"n": 1}]


@pytest.mark.parametrize(
    "content", [threading.Lock(), lambda: None, Moody()], ids=["lock", "lambda", "reduce raises"]
)
def test_item_that_cannot_travel_is_a_value_error(content: Any) -> None:
    """Whatever is in it, it is told in one way."""
    with pytest.raises(ValueError, match=r"."):
        wire.pickle_item({"content": content})


def test_no_items_are_no_items() -> None:
    """An empty batch is one."""
    assert wire.decode_items(wire.encode_items([], KEY), KEY, unexpected) == []


@pytest.mark.parametrize("failure", [FAILURE, replace(FAILURE, traceback="line\n" * 5000, what=wire.What.IGNORED)])
def test_failure_comes_out_as_it_went_in(failure: wire.Failure) -> None:
    """Whatever stands in an exception's text; long tracebacks are compressed."""
    signed = wire.encode_failure(failure, KEY)
    assert wire.decode_failure(signed, KEY) == failure
    assert len(signed) < 1024


@pytest.mark.parametrize(
    "request_",
    [
        Request(URL, callback=SPIDER.parse, meta={"retry_times": 2, "depth": 1}, priority=-2, dont_filter=True),
        JsonRequest(URL, data={"a": 1}, meta={"retry_times": 1}),
        Request(URL, cb_kwargs={"page": 2}),
    ],
    ids=repr,
)
def test_request_with_fresh_tries_is_the_same_but_for_its_retries(request_: Request) -> None:
    """Scrapy's retry middleware counts anew; nothing else is another."""
    fresh = wire.decode_request(wire.with_fresh_tries(wire.encode_request(request_, SPIDER, KEY), KEY), SPIDER, KEY)
    meta = {name: value for name, value in request_.meta.items() if name != "retry_times"}
    assert type(fresh) is type(request_)
    assert fresh.to_dict(spider=SPIDER) == {**request_.to_dict(spider=SPIDER), "meta": meta}


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(job=st.dictionaries(st.text(st.characters(), max_size=3), any_json, max_size=4))
def test_job_comes_out_as_it_went_in(job: dict[str, Any]) -> None:
    """Any JSON, surrogates included: command lines may hold any bytes."""
    assert wire.decode_job(wire.encode_job(job, KEY), KEY) == job


# --- fingerprints ---------------------------------------------------------------------------------------------------


@given(value=st.binary(max_size=40))
def test_fingerprint_has_a_place_in_range(value: bytes) -> None:
    """Any bytes of any length: a place that is there, and an integer of 64 bits."""
    place, member = wire.fingerprint_place(value)
    assert len(place) == 4
    assert 0 <= int(place, 16) < 65536
    assert -(2**63) <= int(member) < 2**63


@given(value=st.binary(min_size=10, max_size=10), other=st.binary(min_size=10, max_size=10))
def test_fingerprint_keeps_all_of_its_first_ten_bytes(value: bytes, other: bytes) -> None:
    """Nothing of them is lost."""
    assert (wire.fingerprint_place(value) == wire.fingerprint_place(other)) is (value == other)


@given(value=st.binary(max_size=9), other=st.binary(max_size=9))
def test_short_fingerprint_is_told_from_another(value: bytes, other: bytes) -> None:
    """A project's own fingerprinter may make them as short as it likes."""
    assert (wire.fingerprint_place(value) == wire.fingerprint_place(other)) is (value == other)


# --- log lines ------------------------------------------------------------------------------------------------------

log_lines = st.builds(
    LogLine,
    stream=st.just("log"),
    text=st.text(st.characters()),
    time=st.integers(0, 2**33).map(float),
    level=st.integers(0, 60),
    logger=st.text(),
    is_banner=st.booleans(),
    attributes=st.dictionaries(st.text(), st.integers() | st.text()).map(lambda found: tuple(found.items())),
    process=st.integers(0, 99),
    worker=st.text(),
)


@given(line=log_lines)
def test_log_line_comes_out_as_it_went_in(line: LogLine) -> None:
    """Through JSON, with any text."""
    assert LogLine.from_data(json.loads(json.dumps(line.to_data()))) == line


@pytest.mark.parametrize("stream", ["out", "err"])
def test_text_line_has_neither_level_nor_logger(stream: str) -> None:
    """What was printed travels with nothing that is not needed."""
    assert LogLine(stream, "x", 1.0000004).to_data() == {"s": stream, "x": "x", "t": 1.0}


@given(
    data=any_json | st.fixed_dictionaries({"s": any_json, "x": any_json}, optional=dict.fromkeys("tlnbapw", any_json))
)
def test_log_line_of_any_json_is_a_line_or_one_of_three_errors(data: Any) -> None:
    """User code can write what it likes to the channel."""
    try:
        LogLine.from_data(data)
    except (KeyError, TypeError, ValueError):
        return
