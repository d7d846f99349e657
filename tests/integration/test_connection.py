"""What a Redis answers that will not work with us, as one line for a person, never with a password in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.support import Process, faults, request, running, submit, view
from vscrapy import embedded
from vscrapy.errors import InsecureStore, StoreRefused, StoreUnavailable, VscrapyError
from vscrapy.model import Endpoint
from vscrapy.states import StopMode, TaskState
from vscrapy.store import connection
from vscrapy.store.base import Store
from vscrapy.store.frontier import leave
from vscrapy.store.looks import Looks
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Heard, Workers

PASSWORD = "correct-horse-battery"
#: Seconds until a condition must hold.
DEADLINE_S = 10.0


@pytest.fixture
def own_store(own_server: Endpoint) -> Iterator[Store]:
    """Give a store on a server that no other test uses."""
    store = Store(own_server, name="vscrapy-test")
    yield store
    store.close()


def with_credentials(endpoint: Endpoint, credentials: str) -> Endpoint:
    """The same server with another user and password (``user:password@``, or nothing)."""
    path = endpoint.url.rpartition("@")[2]
    return Endpoint(f"unix://{credentials}{path}", "the test", "secret")


def error_of(endpoint: Endpoint, call: Callable[[Store], object] = Store.check) -> VscrapyError:
    """The error that a call on a new store raises."""
    store = Store(endpoint, name="vscrapy-test", reply_timeout_s=0.5)
    with pytest.raises(VscrapyError) as caught:
        call(store)
    store.close()
    return caught.value


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition does not hold"


# --- password and rights --------------------------------------------------------------------------------------------


def test_wrong_password_is_told_without_it(own_server: Endpoint) -> None:
    """The message says what is wrong and where the URL is from, and hides the password."""
    error = error_of(with_credentials(own_server, f":{PASSWORD}@"))
    assert isinstance(error, StoreRefused)
    assert "refuses the password" in str(error)
    assert "the test" in str(error)
    assert PASSWORD not in str(error)


def test_missing_password_is_told(own_server: Endpoint) -> None:
    """Who gave none is not told that it is wrong."""
    error = error_of(with_credentials(own_server, ""))
    assert isinstance(error, StoreRefused)
    assert "wants a password" in str(error)


def test_password_for_a_server_that_has_none_is_told(own_store: Store, own_server: Endpoint) -> None:
    """A password too many may be harmless, but is never shown."""
    own_store.client.config_set("requirepass", "")
    try:
        store = Store(own_server, name="vscrapy-test")
        store.check()
        store.close()
    except StoreRefused as error:
        assert own_server.secret not in str(error)  # noqa: PT017 - servers differ in whether they refuse
    own_store.client.config_set("requirepass", own_server.secret)


def test_user_without_rights_is_told(own_store: Store, own_server: Endpoint) -> None:
    """The message says that it is about rights."""
    own_store.client.execute_command(
        "ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~*", "+@read", "+client", "+hello"
    )
    error = error_of(with_credentials(own_server, f"reader:{PASSWORD}@"), submit)
    assert isinstance(error, StoreRefused)
    assert "does not allow this user" in str(error)
    assert PASSWORD not in str(error)


@pytest.mark.parametrize("url", ["redis://redis.example/0", "redis://10.0.0.1:6379", "rediss://redis.example"])
def test_server_without_password_beyond_this_machine_is_refused(url: str) -> None:
    """Nothing is sent to a Redis that anyone can write to."""
    with pytest.raises(InsecureStore, match="--insecure"):
        Store(Endpoint(url, "the test", ""), name="vscrapy-test")


def test_server_without_password_is_accepted_when_the_user_insists() -> None:
    """--insecure accepts the risk."""
    Store(Endpoint("redis://redis.example/0", "the test", "", is_insecure_allowed=True), name="vscrapy-test").close()


# --- not there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1/0",
        f"redis://user:{PASSWORD}@127.0.0.1:1/0",
        f"unix://:{PASSWORD}@/nowhere/redis.sock?db=0",
        f"unix:///nowhere/redis.sock?password={PASSWORD}",
        f"rediss://:{PASSWORD}@127.0.0.1:1",
    ],
)
def test_server_that_is_not_there_is_told_without_the_password(url: str) -> None:
    """The message shows the address and its source, and hides the password."""
    error = error_of(Endpoint(url, "the test", PASSWORD))
    assert isinstance(error, StoreUnavailable)
    assert "from the test" in str(error)
    assert PASSWORD not in str(error)


def test_server_that_is_silent_is_unavailable(own_store: Store, own_server: Endpoint) -> None:
    """No reply in time is no reply: it may have happened."""
    own_store.client.execute_command("CLIENT", "PAUSE", 1500, "WRITE")
    assert isinstance(error_of(own_server, submit), StoreUnavailable)


def test_server_that_restarts_keeps_what_was_committed(
    own_home: Path, own_store: Store, own_server: Endpoint
) -> None:
    """A commit that is repeated after a restart is done once, and the scripts are there again."""
    process = running(own_store, submit(own_store))
    process.feed(request("1"), request("2"), wanted=1)
    embedded.shutdown(own_home)
    assert isinstance(error_of(own_server), StoreUnavailable)
    embedded.ensure(own_home)
    reply = process.repeat(wanted=1)
    assert (reply.is_replayed, reply.queued, len(reply.leases), faults(own_store)) == (True, 1, 1, [])


def test_server_has_another_identity_after_a_restart(own_home: Path, own_store: Store) -> None:
    """Who looks can tell that connections were lost without their owners' fault."""
    before = Looks(own_store).see([]).server_id
    embedded.shutdown(own_home)
    embedded.ensure(own_home)
    wait_until(lambda: _answers(own_store))
    assert Looks(own_store).see([]).server_id != before


def _answers(store: Store) -> bool:
    try:
        store.check()
    except StoreUnavailable:
        return False
    return True


def test_client_shows_its_name(own_store: Store) -> None:
    """CLIENT LIST tells an operator who is who."""
    assert own_store.client_names() == {"vscrapy-test"}


# --- not able -------------------------------------------------------------------------------------------------------


def test_full_memory_is_told(own_store: Store, own_server: Endpoint) -> None:
    """The message says what to raise."""
    own_store.client.config_set("maxmemory", 1)
    error = error_of(own_server, submit)
    assert isinstance(error, StoreRefused)
    assert "out of memory" in str(error)


def test_full_memory_is_told_by_a_script(own_store: Store) -> None:
    """A commit that does not fit is refused as a whole, in the same words."""
    process = running(own_store, submit(own_store))
    own_store.client.config_set("maxmemory", 1)
    with pytest.raises(StoreRefused, match="out of memory"):
        process.feed(request("1"))
    own_store.client.config_set("maxmemory", 0)
    assert process.repeat().is_replayed is False


def test_full_memory_does_not_keep_a_task_from_ending(own_store: Store) -> None:
    """What frees memory, and what keeps workers alive, works when there is none."""
    workers, tasks = Workers(own_store), Tasks(own_store)
    workers.register("w1", "t", {})
    process = running(own_store, submit(own_store, sender_timeout_ms=1000))
    process.feed(*(request(f"{n}") for n in range(10)), wanted=5)
    own_store.client.config_set("maxmemory", 1)
    assert workers.beat("w1", "t", {"processes": 1}) == Heard([])
    assert tasks.sign_of_life(process.taskid) == (TaskState.RUNNING, 1, 1)
    assert tasks.stop(process.taskid, reason="shutdown", mode=StopMode.GRACEFUL) is TaskState.STOPPING
    assert leave(own_store, process.taskid, process.name, how="left") is TaskState.FINISHED
    assert workers.retire("w1", "t")
    assert view(own_store, process.taskid).faults() == []


def test_full_disk_is_told(own_home: Path, own_store: Store) -> None:
    """A server that cannot save refuses to write; the message says so."""
    client = own_store.client
    (own_home / "valkey" / "dump.rdb" / "in-the-way").mkdir(parents=True)
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    with pytest.raises(StoreRefused, match="cannot write to its disk"):
        Process(own_store, 1).commit()


def test_replica_is_told(own_store: Store) -> None:
    """A replica takes no writes; the message says what to use."""
    own_store.client.replicaof("127.0.0.1", 1)
    own_store.client.config_set("replica-serve-stale-data", "yes")
    with pytest.raises(StoreRefused, match="address of the primary"):
        Process(own_store, 1).commit()


def test_old_server_is_refused(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both versions."""
    monkeypatch.setattr(connection, "_OLDEST_VALKEY", (99, 0))
    monkeypatch.setattr(connection, "_OLDEST_REDIS", (99, 0))
    error = error_of(server)
    assert isinstance(error, StoreRefused)
    assert "or newer" in str(error)


def test_server_that_may_evict_is_warned_of(
    own_store: Store, own_server: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests that vanish under memory pressure are not found out later."""
    own_store.client.config_set("maxmemory", 10**9)
    own_store.client.config_set("maxmemory-policy", "allkeys-lru")
    connection.require_server(own_store.client, own_server)
    assert "allkeys-lru" in capsys.readouterr().err


def test_server_that_keeps_nothing_is_warned_of(
    own_store: Store, own_server: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither an append-only file nor snapshots: after a restart, all is gone."""
    own_store.client.config_set("appendonly", "no")
    connection.require_server(own_store.client, own_server)
    assert "keeps nothing on disk" in capsys.readouterr().err
    own_store.client.config_set("save", "3600 1")
    connection.require_server(own_store.client, own_server)
    assert capsys.readouterr().err == ""


def test_server_that_never_evicts_is_not_warned_of(
    own_store: Store, own_server: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedded server is fine as it is."""
    connection.require_server(own_store.client, own_server)
    assert capsys.readouterr().err == ""


def test_endpoint_with_the_same_url_is_the_same(server: Endpoint) -> None:
    """A store keeps the endpoint it was made with, for messages and children."""
    copy = replace(server)
    store = Store(copy, name="a b\nc")
    store.check()
    assert (store.endpoint, "a-b-c" in store.client_names()) == (server, True)
    store.close()
