"""The embedded server, with real processes: one per home, its data kept, nothing left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import vscrapy
from vscrapy import embedded
from vscrapy.commands import shutdown as shutdown_command
from vscrapy.embedded import daemon, raw, server
from vscrapy.errors import EmbeddedError
from vscrapy.model import Endpoint

#: Seconds until a condition must hold.
DEADLINE_S = 10.0


def processes_below(directory: Path) -> dict[int, str]:
    """List the processes that work below *directory*, with their command lines (Linux)."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end between being listed and being looked at; those of others are not ours to see.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if Path(os.readlink(process / "cwd")).is_relative_to(directory):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition does not hold"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a home of its own to the test; end its server, and fail if a process is left."""
    assert Path("/proc/self/cwd").exists(), "these tests find leaked processes through /proc"
    path = tmp_path / "home"
    monkeypatch.setenv("VSCRAPY_HOME", str(path))
    yield path
    try:
        for place in [path, *tmp_path.glob("*/home")]:
            embedded.shutdown(place)
    finally:
        left = processes_below(tmp_path)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.fixture
def long_home(home: Path) -> Path:
    """Name a home whose path has no room for a socket."""
    return home.parent / ("long" * 40) / "home"


def client(endpoint: Endpoint) -> redis.Redis:
    """Connect as the store does."""
    return redis.Redis.from_url(endpoint.url, decode_responses=True)


def server_pid(home: Path) -> int:
    """Give the running server's pid."""
    pid = embedded.running(home).server_pid
    assert pid is not None
    return pid


def kill_server(home: Path) -> None:
    """Kill the server with signal 9, and wait until its last thread is gone, and with it the lock."""
    os.kill(server_pid(home), signal.SIGKILL)
    with (home / "valkey" / "server.lock").open("rb+") as lock:
        wait_until(lambda: is_free(lock))


def is_free(lock: BinaryIO) -> bool:
    """Take a lock unless it is held."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def python_environ() -> dict[str, str]:
    """Let a child import the package that is tested."""
    return {**os.environ, "PYTHONPATH": str(Path(vscrapy.__file__).parent.parent)}


# --- ensure -------------------------------------------------------------------------------------------------------


def test_ensure_starts_a_server_that_redis_py_reaches(home: Path) -> None:
    """The endpoint's URL is one that redis-py understands, and its secret is the password."""
    endpoint = embedded.ensure(home)
    with client(endpoint) as store:
        assert store.ping()
        assert store.connection_pool.connection_kwargs["db"] == 0
        assert store.connection_pool.connection_kwargs["password"] == endpoint.secret
    assert endpoint.source == "embedded"


def test_ensure_configures_a_server_that_keeps_its_data(home: Path) -> None:
    """An append-only file, no TCP port, no eviction."""
    with client(embedded.ensure(home)) as store:
        options = store.config_get("port", "appendonly", "appendfsync", "save", "maxmemory-policy")
    assert options == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


def test_ensure_requires_the_password_of_every_client(home: Path) -> None:
    """A client without it is refused."""
    with client(embedded.ensure(home)) as store:
        path = store.connection_pool.connection_kwargs["path"]
    once = Retry(NoBackoff(), 0)
    with redis.Redis(unix_socket_path=path, retry=once) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_ensure_keeps_all_for_the_owner_only(home: Path) -> None:
    """The home and the data directory are 0700, the files with the password 0600, the socket 0700."""
    embedded.ensure(home)
    paths = [home, *(home / "valkey" / name for name in ("", "password", "valkey.conf", "valkey.sock"))]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o700, 0o600, 0o600, 0o700]


def test_ensure_starts_one_server_for_ten_processes_at_once(home: Path) -> None:
    """Ten senders that start together share it."""
    code = "import pathlib, sys; from vscrapy import embedded; print(embedded.ensure(pathlib.Path(sys.argv[1])).url)"
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True, env=python_environ()
        )
        for _ in range(10)
    ]
    urls = [sender.communicate(timeout=60)[0] for sender in senders]
    assert [sender.returncode for sender in senders] == [0] * 10
    assert len(set(urls)) == 1
    assert len(processes_below(home)) == 1
    assert (home / "valkey" / "valkey.log").read_text().count("Server initialized") == 1


def test_ensure_outlives_the_process_that_started_it(home: Path) -> None:
    """The server is in a session of its own: a terminal's hang-up or Ctrl-C does not reach it."""
    code = "import pathlib, sys; from vscrapy import embedded; embedded.ensure(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(home)], check=True, env=python_environ(), timeout=60)
    pid = server_pid(home)
    assert os.getsid(pid) == pid


def test_ensure_keeps_data_and_password_after_a_kill(home: Path) -> None:
    """Kill -9 leaves a stale socket and a stale pid file; the next ensure finds all data."""
    before = embedded.ensure(home)
    with client(before) as store:
        store.set("key", "value")
    kill_server(home)
    after = embedded.ensure(home)
    assert after == before
    with client(after) as store:
        assert store.get("key") == "value"


def test_ensure_keeps_the_rest_when_the_tail_of_the_file_is_torn(home: Path) -> None:
    """A power cut can tear the last command; all before it is there."""
    with client(embedded.ensure(home)) as store:
        store.set("first", "1")
        store.set("second", "2")
    kill_server(home)
    (file,) = (home / "valkey" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)
    with client(embedded.ensure(home)) as store:
        assert store.mget("first", "second") == ["1", None]


def test_ensure_waits_while_the_server_loads(home: Path) -> None:
    """A large append-only file makes it answer LOADING for a while; ensure returns when it is done."""
    with client(embedded.ensure(home)) as store:
        store.eval("for i = 1, 300000 do redis.call('SET', 'key:' .. i, string.rep('x', 100)) end", 0)
    kill_server(home)
    with client(embedded.ensure(home)) as store:
        assert store.dbsize() == 300_000


def test_ensure_gives_the_last_lines_of_the_log_when_the_server_dies(home: Path) -> None:
    """A file that cannot be read ends the server at its start: its own words are the best message."""
    embedded.ensure(home)
    embedded.shutdown(home)
    (file,) = (home / "valkey" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"this is no append-only file\r\n" * 10)
    with pytest.raises(EmbeddedError, match="Bad file format"):
        embedded.ensure(home)
    assert not processes_below(home)


def test_ensure_replaces_a_server_whose_socket_was_removed(home: Path) -> None:
    """A cleaner of /tmp takes the socket: two servers on one file would ruin it, so the first is ended."""
    with client(embedded.ensure(home)) as store:
        store.set("key", "value")
    first = server_pid(home)
    (home / "valkey" / "valkey.sock").unlink()
    with client(embedded.ensure(home)) as store:
        assert store.get("key") == "value"
    assert server_pid(home) != first
    assert len(processes_below(home)) == 1


def test_ensure_replaces_a_server_whose_password_was_removed(home: Path) -> None:
    """It cannot be talked to any more; its data can."""
    with client(embedded.ensure(home)) as store:
        store.set("key", "value")
    (home / "valkey" / "password").unlink()
    with client(embedded.ensure(home)) as store:
        assert store.get("key") == "value"
    assert len(processes_below(home)) == 1


def test_ensure_leaves_a_server_alone_that_is_only_slow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped or busy server is not a lost one: no second one, no kill, an error."""
    embedded.ensure(home)
    pid = server_pid(home)
    monkeypatch.setattr(server, "START_S", 0.5)
    monkeypatch.setattr(raw, "REPLY_S", 0.1)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedError, match="busy"):
            embedded.ensure(home)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert list(processes_below(home)) == [pid]


def test_ensure_finds_the_same_server_through_a_link_to_its_home(home: Path) -> None:
    """Two names of one home are one server."""
    endpoint = embedded.ensure(home)
    link = home.parent / "link"
    link.symlink_to(home)
    assert embedded.ensure(link) == endpoint
    assert len(processes_below(home)) == 1


def test_ensure_takes_a_home_with_any_characters(home: Path) -> None:
    """The path goes through the server's configuration and a URL, each with its own quoting."""
    strange = home / "a b'\"#%?*[é\\\n;"
    try:
        with client(embedded.ensure(strange)) as store:
            assert store.ping()
    finally:
        embedded.shutdown(strange)


# --- the socket's directory ---------------------------------------------------------------------------------------


def test_ensure_uses_a_directory_in_tmp_for_a_long_home(long_home: Path) -> None:
    """The socket is where it fits, in a directory for its owner only, which goes with the server."""
    endpoint = embedded.ensure(long_home)
    with client(endpoint) as store:
        path = Path(store.connection_pool.connection_kwargs["path"])
        assert store.ping()
    assert path.parent.parent == Path("/tmp")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert embedded.ensure(long_home) == endpoint
    assert embedded.shutdown(long_home)
    assert not path.parent.exists()


@pytest.fixture
def socket_directory(long_home: Path) -> Iterator[Path]:
    """Learn where the long home's socket would be, and leave nothing there afterwards."""
    endpoint = embedded.ensure(long_home)
    with client(endpoint) as store:
        directory = Path(store.connection_pool.connection_kwargs["path"]).parent
    embedded.shutdown(long_home)
    yield directory
    if directory.is_symlink():
        directory.unlink()
    elif directory.exists():
        directory.rmdir()


def assert_is_refused(long_home: Path) -> None:
    """Neither start a server behind that directory, nor send a password into it."""
    with pytest.raises(EmbeddedError, match="will not be used"):
        embedded.ensure(long_home)
    with pytest.raises(EmbeddedError, match="will not be used"):
        embedded.find(long_home)
    assert not processes_below(long_home.parent)


def test_ensure_refuses_a_socket_directory_that_is_open_to_others(long_home: Path, socket_directory: Path) -> None:
    """Others could put their own socket there."""
    socket_directory.mkdir()
    socket_directory.chmod(0o755)
    assert_is_refused(long_home)


def test_ensure_refuses_a_socket_directory_that_is_a_link(
    long_home: Path, socket_directory: Path, tmp_path: Path
) -> None:
    """Its owner could turn it elsewhere."""
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    socket_directory.symlink_to(target)
    assert_is_refused(long_home)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a directory that is somebody else's")
def test_ensure_refuses_a_socket_directory_of_somebody_else(long_home: Path, socket_directory: Path) -> None:
    """Its owner would get the password."""
    socket_directory.mkdir(mode=0o700)
    os.chown(socket_directory, 65534, -1)
    assert_is_refused(long_home)


# --- find and describe --------------------------------------------------------------------------------------------


def test_find_creates_nothing_for_a_home_that_does_not_exist(home: Path) -> None:
    """Looking is not starting."""
    assert embedded.find(home) is None
    assert not home.exists()


def test_find_gives_the_endpoint_only_while_the_server_runs(home: Path) -> None:
    """The same endpoint as ensure gave, and none after a kill, although the socket is still there."""
    endpoint = embedded.ensure(home)
    assert embedded.find(home) == endpoint
    kill_server(home)
    assert (home / "valkey" / "valkey.sock").exists()
    assert embedded.find(home) is None


def test_describe_says_in_one_line_whether_the_server_runs(home: Path) -> None:
    """With its pid while it runs, and never with the password."""
    assert "not running" in embedded.describe(home)
    endpoint = embedded.ensure(home)
    line = embedded.describe(home)
    assert f"running, pid {server_pid(home)}," in line
    assert endpoint.secret not in line
    assert len(line.splitlines()) == 1


def test_describe_says_how_much_is_kept_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and logs, each in a unit that suits it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "valkey" / "appendonlydir").mkdir(parents=True, mode=0o700)
    (tmp_path / "valkey" / "appendonlydir" / "1.aof").write_bytes(bytes(2_300_000))
    (tmp_path / "valkey" / "valkey.log").write_bytes(bytes(900))
    (tmp_path / "worker.log").write_bytes(bytes(300))
    line = embedded.describe(tmp_path)
    assert line.startswith("embedded server: not running, 2.3 MB of data, 1.2 kB of logs in ")
    assert line.endswith(str(tmp_path)[-20:])


def test_describe_fits_into_a_hundred_characters_for_a_long_home(long_home: Path) -> None:
    """The end of the path stays, since it tells homes apart."""
    embedded.ensure(long_home)
    line = embedded.describe(long_home)
    assert len(line) == 100
    assert line.endswith("long/home")


# --- the worker ---------------------------------------------------------------------------------------------------


def test_ensure_worker_starts_nothing_when_one_is_live(home: Path) -> None:
    """A live worker is enough."""
    endpoint = embedded.ensure(home)
    assert not embedded.ensure_worker(home, endpoint, slots=1, idle_exit_s=60, is_live=lambda: True)
    assert list(processes_below(home)) == [server_pid(home)]


def environ_of(pid: int) -> dict[str, str]:
    """Read the environment that a process was started with (Linux)."""
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if line)


def test_ensure_worker_starts_it_free_of_the_senders_surroundings(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It outlives this sender: neither the project, nor PYTHONPATH, nor another Redis, nor its directory count."""
    endpoint = embedded.ensure(home)
    (home / "json.py").write_text("raise SystemExit('a module of the working directory was imported')")
    removed = ("SCRAPY_SETTINGS_MODULE", "SCRAPY_PROJECT", "PYTHONPATH", "VSCRAPY_REDIS_URL", "VSCRAPY_SECRET")
    for name in removed:
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("VX_KEPT", "1")

    def is_live() -> bool:
        return embedded.running(home).worker_pid is not None

    assert embedded.ensure_worker(home, endpoint, slots=1, idle_exit_s=60, is_live=is_live)
    pid = embedded.running(home).worker_pid
    assert pid is not None
    environ = environ_of(pid)
    assert not environ.keys() & set(removed)
    assert (environ["VX_KEPT"], environ["VSCRAPY_HOME"]) == ("1", str(home))
    embedded.shutdown(home)
    wait_until(lambda: not processes_below(home))  # its template ends right after it


# --- shutdown -----------------------------------------------------------------------------------------------------


def test_shutdown_ends_the_server_and_removes_its_socket(home: Path) -> None:
    """True for the first time, False for the second; the data is there for the next server."""
    with client(embedded.ensure(home)) as store:
        store.set("key", "value")
    assert embedded.shutdown(home)
    assert not processes_below(home)
    assert not (home / "valkey" / "valkey.sock").exists()
    assert not embedded.shutdown(home)
    with client(embedded.ensure(home)) as store:
        assert store.get("key") == "value"


def test_shutdown_creates_nothing_for_a_home_that_does_not_exist(home: Path) -> None:
    """There is nothing to end."""
    assert not embedded.shutdown(home)
    assert not home.exists()


def test_shutdown_removes_the_socket_of_a_server_that_was_killed(home: Path) -> None:
    """A stale socket is no running server."""
    embedded.ensure(home)
    kill_server(home)
    assert not embedded.shutdown(home)
    assert not (home / "valkey" / "valkey.sock").exists()


def test_shutdown_ends_a_server_whose_socket_was_removed(home: Path) -> None:
    """What cannot be asked is told by a signal."""
    embedded.ensure(home)
    (home / "valkey" / "valkey.sock").unlink()
    assert embedded.shutdown(home)
    assert not processes_below(home)


def start_stand_in(home: Path, code: str, *argv: str) -> subprocess.Popen[str]:
    """Start a process in a session of its own that says when it is ready, and write its pid as the worker's."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *argv], cwd=home, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (home / "worker.pid").write_text(f"{process.pid}\n")
    return process


#: A process that ends on SIGTERM.
POLITE = "import signal; print('ready', flush=True); signal.pause()"
#: A process that does not, as its child does not.
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()"])
signal.pause()
"""


def test_shutdown_ends_the_worker_before_the_server(home: Path) -> None:
    """SIGTERM is enough for a worker that listens."""
    endpoint = embedded.ensure(home)
    with start_stand_in(home, POLITE, "vscrapy", "worker") as worker:
        assert embedded.shutdown(home)
        assert worker.wait(DEADLINE_S) == -signal.SIGTERM
    assert embedded.find(home) is None
    assert endpoint.source == "embedded"


def test_shutdown_kills_the_group_of_a_worker_that_does_not_listen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time is up, the worker goes with all of its group."""
    home.mkdir()
    monkeypatch.setattr(daemon, "STOP_S", 0.2)
    with start_stand_in(home, STUBBORN, "vscrapy", "worker") as worker:
        assert embedded.shutdown(home)
        assert worker.wait(DEADLINE_S) == -signal.SIGKILL
    wait_until(lambda: not processes_below(home))


def test_shutdown_spares_a_process_that_took_over_the_workers_pid(home: Path) -> None:
    """A pid file can be older than the process that has its number now."""
    home.mkdir()
    with start_stand_in(home, POLITE, "somebody", "else") as stranger:
        assert not embedded.shutdown(home)
        assert stranger.poll() is None
        stranger.terminate()


def test_shutdown_command_says_what_it_ended(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 0, also when nothing was running."""
    embedded.ensure(home)
    pid = server_pid(home)
    assert shutdown_command.run([]) == 0
    assert f"Ended the embedded server (pid {pid})" in capsys.readouterr().out
    assert shutdown_command.run([]) == 0
    assert "Nothing was running" in capsys.readouterr().out
