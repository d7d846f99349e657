"""Decoders: whatever the bytes are, a refusal and nothing else; and nothing of them is looked into before."""

from __future__ import annotations

import base64
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapy import Request, Spider

from tests.security.forge import SECRET, Canary, evil_pickle, forgeries, key_of
from vscrapy import wire
from vscrapy.errors import NotVerified
from vscrapy.secret import new_nonce
from vscrapy.wire import Kind, LogLine

TASKID: Final = 7
NONCE: Final = "0123456789abcdef" * 2
#: Payloads that are tried, over all kinds.
MANY: Final = 100_000


class AnySpider(Spider):
    """A spider."""

    name = "any"


SPIDER: Final = AnySpider()
KEYS: Final = {kind: key_of(kind, TASKID, NONCE) for kind in Kind}
FAILURE: Final = wire.Failure(
    wire.What.CALLBACK, "KeyError: 'a'", "http://a", "GET", "parse", "", 1, 200, 1.0, "w", 1
)


def _unread(error: Exception) -> None:
    raise AssertionError(f"an item was unpickled: {error}")


DECODERS: Final[dict[Kind, Callable[[bytes], object]]] = {
    Kind.JOB: lambda signed: wire.open_job(signed, SECRET, TASKID),
    Kind.REQUEST: lambda signed: wire.decode_request(signed, SPIDER, KEYS[Kind.REQUEST]),
    Kind.ITEMS: lambda signed: wire.decode_items(signed, KEYS[Kind.ITEMS], _unread),
    Kind.FILE: lambda signed: wire.decode_file(signed, KEYS[Kind.FILE]),
    Kind.STATE: lambda signed: wire.decode_state(signed, KEYS[Kind.STATE]),
    Kind.FAILURE: lambda signed: wire.decode_failure(signed, KEYS[Kind.FAILURE]),
    Kind.FACT: lambda signed: wire.decode_fact("robots:a", base64.b64encode(signed).decode(), KEYS[Kind.FACT]),
    Kind.LOG: lambda signed: wire.decode_lines(signed, KEYS[Kind.LOG]),
}
HONEST: Final[dict[Kind, bytes]] = {
    Kind.JOB: wire.encode_job({"nonce": NONCE, "spider": "any", "manifest": "{}" * 100}, KEYS[Kind.JOB]),
    Kind.REQUEST: wire.encode_request(Request("http://a", meta={"a": 1}), SPIDER, KEYS[Kind.REQUEST]),
    Kind.ITEMS: wire.encode_items([wire.pickle_item({"a": n}) for n in range(5)], KEYS[Kind.ITEMS]),
    Kind.FILE: wire.encode_file(wire.WrittenFile("a/b", b"content", 1), KEYS[Kind.FILE]),
    Kind.STATE: wire.encode_state({"a": 1}, KEYS[Kind.STATE]),
    Kind.FAILURE: wire.encode_failure(FAILURE, KEYS[Kind.FAILURE]),
    Kind.FACT: base64.b64decode(wire.encode_fact("robots:a", "b", KEYS[Kind.FACT])),
    Kind.LOG: wire.encode_lines([LogLine("out", "a\n", 1.0)], KEYS[Kind.LOG]),
}


def _mutated(honest: bytes, noise: random.Random) -> bytes:
    """A payload that is no honest one: turned, cut, put together, doubled or made up."""
    changed = bytearray(honest)
    match noise.randrange(7):
        case 0:
            changed[noise.randrange(len(changed))] ^= 1 << noise.randrange(8)
        case 1:
            changed[noise.randrange(len(changed))] = noise.randrange(256)
        case 2:
            del changed[noise.randrange(len(changed)) :]
        case 3:
            at = noise.randrange(len(changed))
            del changed[at : at + noise.randrange(1, 9)]
        case 4:
            at = noise.randrange(len(changed))
            changed[at:at] = noise.randbytes(noise.randrange(1, 40))
        case 5:
            changed += bytes(changed)
        case _:
            return noise.randbytes(noise.randrange(200))
    return bytes(changed)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value.decode())
def test_random_and_mutated_payloads_are_refused(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand, over all kinds; pickle sees none of them."""
    honest, decode, noise = HONEST[kind], DECODERS[kind], random.Random(f"{kind.value!r} 1")

    def loads(data: bytes) -> None:
        raise AssertionError("a payload that is not signed was unpickled")

    monkeypatch.setattr(pickle, "loads", loads)
    refused = tried = 0
    for _ in range(MANY // len(Kind)):
        payload = _mutated(honest, noise)
        if payload == honest:
            continue
        tried += 1
        try:
            decode(payload)
        except NotVerified:
            refused += 1
    assert refused == tried > MANY // len(Kind) * 0.99


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value.decode())
def test_forged_payloads_are_refused(kind: Kind, tmp_path: Path) -> None:
    """Each way to get one wrong: the canary in it stays unborn, and the refusal says which kind it was to be."""
    canary = tmp_path / "canary"
    forged = forgeries(kind, TASKID, NONCE, evil=evil_pickle(canary), honest=HONEST[kind])
    for name, payload in forged.items():
        with pytest.raises(NotVerified, match=f"^a {kind.words} of {len(payload)} bytes is not signed"):
            raise AssertionError(f"{name}: {DECODERS[kind](payload)}")
    assert not canary.exists()


def test_canary_would_sing(tmp_path: Path) -> None:
    """These tests would see an unpickle: signed as it should be, the evil is done."""
    canary = tmp_path / "canary"
    signed = wire.sign(KEYS[Kind.STATE], Kind.STATE, evil_pickle(canary))
    with pytest.raises(ValueError, match="no dict"):
        DECODERS[Kind.STATE](signed)
    assert canary.exists()
    assert pickle.loads(pickle.dumps(Canary(canary))) is None


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value.decode())
@settings(max_examples=60)
@given(data=st.data())
def test_signed_nonsense_is_a_refusal_too(kind: Kind, data: st.DataObject) -> None:
    """Who has the secret may have a defect: it is told as an error of ours, or of values, and as nothing else."""
    payload = data.draw(
        st.binary(max_size=60)
        | st.binary(max_size=60).map(lambda content: b"\1" + content)
        | st.from_regex(rb'\{"?[a-z":,\[\]0-9 ]{0,20}\}?', fullmatch=True).map(lambda content: b"\0" + content)
    )
    try:
        DECODERS[kind](wire.sign(KEYS[kind], kind, payload))
    except (NotVerified, ValueError):
        return


def test_signed_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than anything that fits on Redis is refused, whoever has signed it."""
    monkeypatch.setattr(wire, "MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match="larger than 10000 bytes"):
        wire.open_job(wire.encode_job({"nonce": NONCE, "manifest": "x" * 20_000}, KEYS[Kind.JOB]), SECRET, TASKID)
    big = wire.encode_file(wire.WrittenFile("a", b"x" * 20_000, 1), KEYS[Kind.FILE])
    with pytest.raises(ValueError, match="larger than 10000 bytes"):
        wire.decode_file(big, KEYS[Kind.FILE])


def test_fact_is_bound_to_its_name() -> None:
    """The robots.txt of one site is none of another's."""
    signed = wire.encode_fact("robots:b", "", KEYS[Kind.FACT])
    with pytest.raises(ValueError, match="another name"):
        wire.decode_fact("robots:a", signed, KEYS[Kind.FACT])


@pytest.mark.parametrize("nonce", ["", "x" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n", "A" * 32])
def test_job_without_a_nonce_is_refused(nonce: str) -> None:
    """Without one, the payloads of all tasks with this id would count."""
    with pytest.raises(ValueError, match="no nonce"):
        wire.open_job(wire.encode_job({"nonce": nonce}, KEYS[Kind.JOB]), SECRET, TASKID)


def test_payloads_of_two_tasks_with_one_id_have_other_keys() -> None:
    """After Redis has lost its data, taskids begin anew."""
    keys = {key_of(Kind.ITEMS, TASKID, new_nonce()) for _ in range(20)}
    assert len(keys) == 20
