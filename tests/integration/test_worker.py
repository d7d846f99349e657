"""
The worker end to end: a real server, a real agent, a real template, and a stand-in for the crawl.

The stand-in runs the code that a task's job holds, with ``say`` (a log line), ``listen`` (the agent's word to leave)
and ``frontier`` at hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.machine import below
from vscrapy import embedded, keys, wire
from vscrapy.bundle import manifest_to_json
from vscrapy.model import BundleFile, BundleRoot, Endpoint, Manifest
from vscrapy.secret import new_nonce, task_key
from vscrapy.states import StopMode, TaskState
from vscrapy.store.base import Store
from vscrapy.store.blobs import Blobs
from vscrapy.store.streams import Cursors, Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Subscription, TaskRecord, Tasks
from vscrapy.store.workers import Workers

ROOT = Path(__file__).parents[2]

#: What a crawl process does here, in the place of vscrapy.crawl.main.
STAND_IN = """
import json, os, socket, sys, time

def main(spec, channel_fd):
    from vscrapy.model import Endpoint
    from vscrapy.store.base import Store
    from vscrapy.store.frontier import Frontier, NewRequest, Result

    channel = socket.socket(fileno=channel_fd)
    words = channel.makefile("r")

    def say(text):
        line = {"s": "log", "x": text, "t": time.time(), "l": 20, "n": "stand-in"}
        channel.sendall(json.dumps(line).encode() + b"\\n")

    def listen():
        while (word := words.readline()) and json.loads(word)["do"] != "leave":
            pass  # a valve, or the wish for an answer: no end
        return word

    def frontier():
        store = Store(Endpoint(spec["url"], spec["source"], ""), name="vscrapy-crawl")
        return Frontier(store, spec["taskid"], spec["process"], seal=b"".join)

    def lease_one():
        leases = frontier()
        leases.join(capacity=16, is_lifo=True, is_start_lifo=True)
        request = NewRequest("slot", "0", b"payload")
        return leases.commit(1, [Result("start", "1", [request])], wanted=1).leases

    names = {**globals(), **locals()}
    exec(spec["job"]["code"], names)
    return names.get("code", 0)
"""

#: The command, with the stand-in put in.
DRIVER = """
import functools, sys
import vscrapy.worker.agent as agent
agent.AgentOptions = functools.partial(agent.AgentOptions, entry=("stand_in", "main"))
from vscrapy.commands.worker import run
sys.exit(run(sys.argv[1:]))
"""


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        time.sleep(0.01)  # Between two looks at the condition, which has a deadline.


def is_alive(pid: int) -> bool:
    """Does a process run? A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Worker:
    """A worker process and its two outputs."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path
    seen: set[int] = field(default_factory=set)

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.output.read_text() + self.errors.read_text()

    def is_ready(self) -> bool:
        """Has it said so? Also remembers its descendants, for the end."""
        self.seen |= below(self.process.pid)
        assert self.process.poll() is None, self.said
        return " ready: " in self.said


class Cluster:
    """A server, and the workers and tasks on it."""

    def __init__(self, endpoint: Endpoint, directory: Path) -> None:
        self.endpoint = endpoint
        self.directory = directory
        self.store = Store(endpoint, name="test")
        self.tasks = Tasks(self.store)
        self.workers: list[Worker] = []
        #: The tasks are followed, so that all lines are relayed.
        self.following: list[Subscription] = []
        directory.joinpath("stand_in.py").write_text(STAND_IN)

    def launch(self, *args: str, **environ: str) -> Worker:
        """Start a worker."""
        place = self.directory / f"worker-{len(self.workers)}"
        place.mkdir()
        output, errors = place / "out", place / "err"
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, "--redis", self.endpoint.url, *args],
                env={
                    **os.environ,
                    "VSCRAPY_HOME": str(place / "home"),
                    "PYTHONPATH": f"{ROOT}:{self.directory}",
                    **environ,
                },
                stdout=out,
                stderr=err,
                cwd=place,
                start_new_session=True,
            )
        worker = Worker(process, output, errors)
        self.workers.append(worker)
        return worker

    def worker(self, *args: str, **environ: str) -> Worker:
        """Start a worker, and wait until it is ready."""
        worker = self.launch(*args, **environ)
        wait_for(worker.is_ready)
        return worker

    def submit(
        self,
        code: str,
        *,
        max_processes: int = 1,
        sender_timeout_ms: int = 0,
        key: bytes = b"",
        files: Mapping[str, bytes] | None = None,
    ) -> int:
        """Submit a task that runs *code*, in a project of one file, or of these."""
        found = []
        for name, content in (files or {"module.py": b"answer = 42\n"}).items():
            path = self.directory / name
            path.write_bytes(content)
            file = BundleFile(name, hashlib.sha256(content).hexdigest(), len(content))
            Blobs(self.store).put({file.sha256: path})
            found.append(file)
        manifest = manifest_to_json(Manifest((BundleRoot("project", True, tuple(found)),)))
        taskid = self.tasks.new_id()
        self.following.append(Subscription(self.store, keys.followers(taskid)))
        self.following[-1].keep(wait_s=1)
        job = {
            "protocol": 1,
            "spider": "books",
            "nonce": new_nonce(),
            "manifest": manifest,
            "code": textwrap.dedent(code),
        }
        self.tasks.submit(
            taskid,
            wire.encode_job(job, key or task_key(self.endpoint.secret, taskid)),
            spider="books",
            options=TaskOptions(max_processes=max_processes, sender_timeout_ms=sender_timeout_ms, log_keep=1_000_000),
        )
        return taskid

    def record(self, taskid: int) -> TaskRecord:
        """The task's record."""
        return self.tasks.record(taskid)

    def lines(self, taskid: int) -> list[wire.LogLine]:
        """The task's log."""
        entries, _ = Streams(self.store).read(taskid, Cursors(), with_items=False)
        return [line for entry in entries for line in entry.lines]

    def text(self, taskid: int) -> str:
        """The task's log as one text."""
        return "\n".join(line.text for line in self.lines(taskid))

    def pid(self, taskid: int) -> int:
        """The pid that a crawl process of the task has said, as ``pid=...``."""
        wait_for(lambda: "pid=" in self.text(taskid))
        pid = int(self.text(taskid).rpartition("pid=")[2].split()[0])
        for worker in self.workers:
            worker.seen |= below(worker.process.pid)
        return pid

    def close(self) -> None:
        """End all that was started, and see that nothing is left."""
        for worker in self.workers:
            worker.seen |= below(worker.process.pid)
            if worker.process.poll() is None:
                worker.process.kill()
            worker.process.wait()
        for subscription in self.following:
            subscription.close()
        self.store.close()
        everyone = {pid for worker in self.workers for pid in worker.seen}
        try:
            wait_for(lambda: not any(is_alive(pid) for pid in everyone))
        finally:
            for pid in everyone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One server for all tests here, emptied for each."""
    home = tmp_path_factory.mktemp("server")
    yield embedded.ensure(home)
    embedded.shutdown(home)


@pytest.fixture
def cluster(server: Endpoint, tmp_path: Path) -> Iterator[Cluster]:
    """An empty server."""
    cluster = Cluster(server, tmp_path)
    cluster.store.client.flushall()
    yield cluster
    cluster.close()


WAITS = """
say(f"pid={os.getpid()} ")
if not listen():
    os._exit(72)
"""


def test_lines_arrive_in_the_log_from_channel_and_raw_descriptors(cluster: Cluster) -> None:
    """A record, a print, a write to fd 2 and a subprocess's output come with process and worker."""
    cluster.worker("--name", "w1")
    taskid = cluster.submit("""
        import subprocess
        say("a record")
        print("a print", flush=True)
        os.write(2, "caf\\u00e9 without an end".encode())
        subprocess.run(["echo", "from a child"])
        sys.path.insert(0, spec["directory"] + "/project")
        import module
        say(f"answer {module.answer}, {os.path.basename(os.readlink('/proc/self/fd/0'))}")
        say(os.environ.get("VSCRAPY_SECRET", "no secret"))
        listen()
    """)
    wait_for(lambda: len(cluster.lines(taskid)) == 6)
    lines = cluster.lines(taskid)
    assert {(line.process, line.worker) for line in lines} == {(1, "w1")}
    assert {(line.stream, line.text) for line in lines} == {
        ("log", "a record"),
        ("out", "a print\n"),
        ("err", "café without an end"),
        ("out", "from a child\n"),
        ("log", "answer 42, null"),
        ("log", "no secret"),
    }


def test_exit_0_leaves_the_task(cluster: Cluster) -> None:
    """A process that ends well leaves without a word, and the task takes another one."""
    worker = cluster.worker("--slots", "1")
    taskid = cluster.submit("say(f'number {spec[\"number\"]}')\nif spec['number'] == 2: listen()")
    wait_for(lambda: "number 2" in cluster.text(taskid))
    assert "vscrapy:" not in cluster.text(taskid)
    assert cluster.record(taskid).processes == 1
    assert len(list((worker.output.parent / "home" / "run").iterdir())) == 1


def test_next_crawl_has_the_files_of_the_last_one(cluster: Cluster) -> None:
    """They are moved to its directory, but for what the last one has changed; the worker's end leaves none."""
    worker = cluster.worker("--slots", "1")
    files = {f"module_{number}.py": b"answer = %d\n" % number for number in range(30)}
    found = crawl_of(files | {"version": b"1"}, cluster, worker)
    assert {name: text.encode() for name, (_, text) in found.items()} == files | {"version": b"1"}
    with contextlib.ExitStack() as stack:
        # Held, lest another file gets the inode of one that was removed.
        kept = [stack.enter_context(path.open()) for path in spares(worker)[0].rglob("*") if path.is_file()]
        inodes = {os.path.basename(file.name): os.fstat(file.fileno()).st_ino for file in kept}
        found = crawl_of(files | {"version": b"2"}, cluster, worker)
    assert {name: text.encode() for name, (_, text) in found.items()} == files | {"version": b"2"}
    same = {name for name, (inode, _) in found.items() if inode == inodes.get(name)}
    assert same == files.keys() - {"module_0.py"}
    worker.process.terminate()
    assert worker.process.wait(10) == 0
    assert list((worker.output.parent / "home" / "run").iterdir()) == []


def crawl_of(files: Mapping[str, bytes], cluster: Cluster, worker: Worker) -> dict[str, tuple[int, str]]:
    """Inode and text of each file that a crawl process has found, before it changed one and added one."""
    taskid = cluster.submit(
        """
        project = spec["directory"] + "/project/"
        paths = {name: project + name for name in os.listdir(project)}
        say("found=" + json.dumps({name: (os.stat(path).st_ino, open(path).read()) for name, path in paths.items()}))
        open(project + "module_0.py", "a").write("import evil")
        open(project + "module_0.pyc", "w").write("import evil")
        code = 70
        """,
        files=files,
    )
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED)
    wait_for(lambda: len(spares(worker)) == 1)
    found: dict[str, tuple[int, str]] = json.loads(cluster.text(taskid).partition("found=")[2].partition("\n")[0])
    return found


def spares(worker: Worker) -> list[Path]:
    """What lies beside the directories of crawl processes, once none is left of these."""
    found = list((worker.output.parent / "home" / "run").iterdir())
    return found if all(path.name.split("-")[-2] == "0" for path in found) else []


def test_exit_70_ends_the_task_as_failed(cluster: Cluster) -> None:
    """A crawl that did not come about is not tried again; its words are in the log before the end."""
    cluster.worker()
    taskid = cluster.submit("print('no such spider', file=sys.stderr)\ncode = 70")
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED)
    assert cluster.record(taskid).reason == "failed"
    assert "no such spider" in cluster.text(taskid)
    wait_for(lambda: cluster.tasks.live_ids() == [])
    assert cluster.tasks.finished_ids(5) == [taskid]


def test_exception_is_told_and_counts_as_crash(cluster: Cluster) -> None:
    """A process that raises ends with code 1 and its traceback; five such crashes end the task."""
    cluster.worker()
    taskid = cluster.submit("raise RuntimeError('out of luck')")
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED)
    assert cluster.record(taskid).reason == "crashed"
    assert cluster.text(taskid).count("RuntimeError: out of luck") == 5
    assert "exited with code 1; what it had in hand goes back" in cluster.text(taskid)


def test_full_disk_is_no_crash(cluster: Cluster) -> None:
    """A worker that cannot write the project's files leaves the task to others, and takes it when it can."""
    worker = cluster.worker("--slots", "2", "--name", "w1")
    _, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    taskid = cluster.submit("say('it runs')" + WAITS)
    wait_for(lambda: cluster.text(taskid).count("was not started") == 2)
    assert "File too large" in cluster.text(taskid)
    assert cluster.store.client.hget(keys.task(taskid), "crashes") == b"0"
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(lambda: "it runs" in cluster.text(taskid))


def test_killed_process_gives_its_lease_back_within_a_second(cluster: Cluster) -> None:
    """After kill -9 of a crawl process, the request that it had waits again, and the log says why."""
    cluster.worker("--slots", "1", "--name", "w1")
    taskid = cluster.submit("if spec['number'] == 1: lease_one()" + WAITS)
    pid = cluster.pid(taskid)
    assert cluster.record(taskid).leased == 1
    started = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: cluster.record(taskid).leased == 0, 1.0)
    print(f"the lease was back after {time.monotonic() - started:.3f} s")
    assert cluster.record(taskid).queued == 1
    assert "crawl process 1 on worker w1 was killed by SIGKILL" in cluster.text(taskid)


def test_killed_process_takes_its_children_with_it(cluster: Cluster) -> None:
    """What a killed crawl process has started does not outlive it."""
    cluster.worker("--slots", "1")
    taskid = cluster.submit("""
        import subprocess
        child = subprocess.Popen(["sleep", "100"])
        say(f"pid={child.pid} ")
        if spec["number"] == 1: os.kill(os.getpid(), 9)
        child.kill()
        say("the second has ended its own")
        listen()
    """)
    pid = cluster.pid(taskid)
    wait_for(lambda: not is_alive(pid))
    # The end of this test kills the agent, which then ends no children of its processes.
    wait_for(lambda: "the second has ended its own" in cluster.text(taskid))


def test_daemonised_grandchild_does_not_hold_up_the_end(cluster: Cluster) -> None:
    """A grandchild in a session of its own that keeps stdout open delays the end by a second only."""
    cluster.worker("--slots", "1")
    taskid = cluster.submit("""
        import subprocess
        if spec["number"] == 1:
            child = subprocess.Popen(["sleep", "100"], start_new_session=True)
            say(f"pid={child.pid} ")
        else:
            say("the second")
            listen()
    """)
    pid = cluster.pid(taskid)
    try:
        wait_for(lambda: "the second" in cluster.text(taskid), 3)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_killed_agent_ends_its_processes_and_is_reaped(cluster: Cluster) -> None:
    """After kill -9 of an agent, its template and crawl process end, and another agent gives its lease back."""
    first = cluster.worker("--name", "first", "--slots", "1")
    taskid = cluster.submit("if spec['worker'] == 'first': lease_one()" + WAITS)
    pid = cluster.pid(taskid)
    cluster.worker("--name", "second", "--slots", "1")
    pids = below(first.process.pid)
    assert pid in pids
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    wait_for(lambda: not any(is_alive(child) for child in pids))
    wait_for(lambda: cluster.record(taskid).leased == 0, 30)
    wait_for(lambda: [worker.name for worker in Workers(cluster.store).list()] == ["second"])
    wait_for(lambda: "second" in {line.worker for line in cluster.lines(taskid) if "pid=" in line.text})
    assert "vscrapy: worker first is dead; what its 1 crawl process had in hand goes back" in cluster.text(taskid)


def test_suspended_agent_registers_again(cluster: Cluster) -> None:
    """An agent that was given up for dead kills its crawl processes, says so, and works on."""
    first = cluster.worker("--name", "first", "--slots", "1")
    taskid = cluster.submit(WAITS)
    pid = cluster.pid(taskid)
    cluster.worker("--name", "second", "--slots", "1")
    os.kill(first.process.pid, signal.SIGSTOP)
    wait_for(lambda: [worker.name for worker in Workers(cluster.store).list()] == ["second"], 30)
    wait_for(lambda: cluster.text(taskid).count("pid=") == 2)
    os.kill(first.process.pid, signal.SIGCONT)
    wait_for(lambda: not is_alive(pid))
    wait_for(lambda: len(Workers(cluster.store).list()) == 2)
    assert first.said.count("was given up for dead") == 1
    assert cluster.record(taskid).processes == 1


def test_explicit_name_that_is_taken_is_an_error(cluster: Cluster) -> None:
    """Two workers cannot have one name: the second ends with code 7 and one line."""
    cluster.worker("--name", "same")
    second = cluster.launch("--name", "same")
    assert second.process.wait(10) == 7
    assert "a live worker is named 'same' already" in second.said


def test_default_name_that_is_taken_gets_a_number(cluster: Cluster) -> None:
    """Workers on one host find names by themselves; each prints one line that hides the password."""
    first, second = cluster.worker(), cluster.worker("--slots", "3")
    names = [worker.name for worker in Workers(cluster.store).list()]
    assert names[1] == f"{names[0]}-2"
    assert first.output.read_text().count("\n") == 1
    assert second.output.read_text().startswith(f"vscrapy worker {names[1]} ready: 3 slots, unix://:***@")


def test_graceful_end_lets_processes_leave(cluster: Cluster) -> None:
    """After SIGTERM, crawl processes are asked to leave, the worker signs off, and the task goes on."""
    worker = cluster.worker("--slots", "1")
    taskid = cluster.submit(WAITS + "say('leaving')")
    cluster.pid(taskid)
    worker.process.terminate()
    assert worker.process.wait(10) == 0
    assert "leaving" in cluster.text(taskid)
    assert "waiting for 1 crawl process to leave" in worker.said
    assert Workers(cluster.store).list() == []
    assert (cluster.record(taskid).state, cluster.record(taskid).processes) == (TaskState.RUNNING, 0)
    assert list((worker.output.parent / "home" / "run").iterdir()) == []


def test_second_signal_ends_at_once(cluster: Cluster) -> None:
    """A second SIGTERM kills what did not leave; its places are left."""
    worker = cluster.worker("--slots", "1")
    taskid = cluster.submit("lease_one()" + WAITS + "listen()")
    pid = cluster.pid(taskid)
    worker.process.terminate()
    wait_for(lambda: "no new work" in worker.said)
    worker.process.terminate()
    assert worker.process.wait(5) == 0
    wait_for(lambda: not is_alive(pid))
    assert (cluster.record(taskid).leased, cluster.record(taskid).processes) == (0, 0)
    assert Workers(cluster.store).list() == []


def test_forced_stop_kills_at_once(cluster: Cluster) -> None:
    """A forced stop ends a process that does not listen, and with it the task."""
    cluster.worker()
    taskid = cluster.submit(WAITS)
    pid = cluster.pid(taskid)
    cluster.tasks.stop(taskid, reason="shutdown", mode=StopMode.FORCED)
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED, 3)
    assert not is_alive(pid)


def test_slow_close_is_killed_after_the_timeout(cluster: Cluster) -> None:
    """A spider that does not close in time is killed, and the log says so."""
    cluster.worker(VSCRAPY_CLOSE_TIMEOUT="0.5")
    taskid = cluster.submit(WAITS)
    cluster.pid(taskid)
    cluster.tasks.stop(taskid, reason="shutdown", mode=StopMode.GRACEFUL)
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED, 5)
    assert "was killed: its spider did not close within 0.5 s" in cluster.text(taskid)


def test_job_that_does_not_verify_fails_the_task(cluster: Cluster) -> None:
    """A job that was not signed with this cluster's secret is not run, and its sender sees why."""
    cluster.worker()
    taskid = cluster.submit("say('I run')", key=b"another key")
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED)
    assert cluster.record(taskid).reason == "failed"
    assert "was not started: " in cluster.text(taskid)
    assert "I run" not in cluster.text(taskid)


def test_lost_sender_stops_its_task(cluster: Cluster) -> None:
    """An attached task whose sender's channel nobody hears is stopped."""
    cluster.worker(VSCRAPY_CLOSE_TIMEOUT="0.1")
    taskid = cluster.submit(WAITS, sender_timeout_ms=60_000)
    wait_for(lambda: cluster.record(taskid).state is TaskState.FINISHED, 10)
    assert cluster.record(taskid).reason == "sender_lost"


def test_dead_template_is_replaced_and_its_processes_go_on(cluster: Cluster) -> None:
    """A crawl process outlives its template; its end is seen all the same, and others start."""
    worker = cluster.worker("--slots", "1")
    taskid = cluster.submit(WAITS)
    pid = cluster.pid(taskid)
    (template,) = below(worker.process.pid) - {pid}
    os.kill(template, signal.SIGKILL)
    wait_for(lambda: "the template for crawl processes has ended" in worker.said)
    assert is_alive(pid)
    worker.seen.add(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: cluster.text(taskid).count("pid=") == 2)
    assert "ended in an unknown way" in cluster.text(taskid)


def test_fast_prints_all_arrive_in_order(cluster: Cluster) -> None:
    """A print loop that is faster than Redis loses nothing while Redis is there."""
    cluster.worker("--slots", "1")
    taskid = cluster.submit("""
        if spec["number"] == 1:
            sys.stdout.reconfigure(line_buffering=False)
            started = time.monotonic()
            for number in range(200_000): print(number)
            sys.stdout.flush()
            say(f"done in {time.monotonic() - started:.2f} s")
        listen()
    """)
    seen: list[int] = []
    cursor = Cursors()
    deadline = time.monotonic() + 60
    is_done = False
    while not is_done or len(seen) < 200_000:
        assert time.monotonic() < deadline
        entries, _ = Streams(cluster.store).read(taskid, cursor, with_items=False, block_ms=100, most=100)
        for entry in entries:
            cursor = Cursors(log=entry.cursor)
            seen += [int(line.text) for line in entry.lines if line.stream == "out"]
            is_done = is_done or any("done in" in line.text for line in entry.lines)
            for line in entry.lines:
                if line.stream != "out":
                    print(line.text)
    assert seen == list(range(200_000))


def test_idle_worker_ends(cluster: Cluster) -> None:
    """With --idle-exit, a worker without work ends when nobody is about to bring some."""
    worker = cluster.worker("--idle-exit", "0.1")
    cluster.store.close()
    cluster.store.client.connection_pool.disconnect()
    assert worker.process.wait(10) == 0
    assert Workers(cluster.store).list() == []


def test_unreachable_redis_is_waited_for(tmp_path: Path, cluster: Cluster) -> None:
    """A worker that is up before its Redis says so in one line, and goes on trying until it is told to end."""
    worker = cluster.launch("--redis", "redis://127.0.0.1:1/0")
    wait_for(lambda: "trying again" in worker.said)
    worker.process.terminate()
    assert worker.process.wait(10) == 0
    assert worker.said.count("\n") == 1


def test_wrong_password_is_an_error(cluster: Cluster) -> None:
    """A Redis that refuses the password ends the worker with code 5 and one line."""
    url = cluster.endpoint.url.replace(cluster.endpoint.secret, "wrong")
    worker = cluster.launch("--redis", url)
    assert worker.process.wait(10) == 5
    assert "refuses the password" in worker.said
    assert worker.said.count("\n") == 1


def test_redis_restart_is_survived(tmp_path: Path) -> None:
    """While Redis is away, crawl processes go on; what they said meanwhile arrives; nothing counts as lost."""
    home = tmp_path / "server"
    cluster = Cluster(embedded.ensure(home), tmp_path)
    try:
        worker = cluster.worker("--slots", "1")
        taskid = cluster.submit(
            WAITS.replace("if not", "say('before')\nfor n in range(30): say(f'line {n}')\nif not")
        )
        pid = cluster.pid(taskid)
        server_pid = embedded.running(home).server_pid
        assert server_pid is not None
        os.kill(server_pid, signal.SIGKILL)
        wait_for(lambda: "cannot be reached" in worker.said)
        os.kill(pid, signal.SIGTERM)  # It ends while Redis is away.
        wait_for(lambda: not is_alive(pid))
        embedded.ensure(home)
        wait_for(lambda: "Redis is back" in worker.said)
        wait_for(lambda: cluster.text(taskid).count("pid=") == 2, 15)
        assert "was killed by SIGTERM" in cluster.text(taskid)
        assert worker.said.count("cannot be reached") == 1
    finally:
        cluster.close()
        embedded.shutdown(home)


def test_second_signal_ends_although_redis_is_silent(tmp_path: Path) -> None:
    """A worker that was told to end at once does not wait for a Redis that does not answer."""
    home = tmp_path / "server"
    cluster = Cluster(embedded.ensure(home), tmp_path)
    server_pid = embedded.running(home).server_pid
    assert server_pid is not None
    try:
        worker = cluster.worker("--slots", "1")
        pid = cluster.pid(cluster.submit(WAITS + "listen()"))
        os.kill(server_pid, signal.SIGSTOP)
        worker.process.terminate()
        wait_for(lambda: "no new work" in worker.said)
        worker.process.terminate()
        assert worker.process.wait(15) == 0
        assert "could not sign off" in worker.said
        wait_for(lambda: not is_alive(pid))
    finally:
        os.kill(server_pid, signal.SIGCONT)
        cluster.close()
        embedded.shutdown(home)
