"""
Attacks on running workers and senders, by somebody with full access to Redis and without the secret.

Each of them tries all of :func:`tests.security.forge.forgeries`. The canary never sings, the refusals are counted and
told, and the next honest task is crawled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import re
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration import support
from tests.integration.machine import Machine, Running, wait_for, write_project
from tests.security.forge import SECRET, evil_pickle, forgeries, key_of
from vscrapy import keys, wire
from vscrapy.model import Endpoint
from vscrapy.states import TaskState
from vscrapy.store.base import Store
from vscrapy.store.streams import Streams
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.store.workers import Workers
from vscrapy.wire import Kind

pytest_plugins = ["tests.integration.machine"]

SPIDERS: Final = """
    from scrapy import Request, Spider

    class Honest(Spider):
        name = "honest"

        async def start(self):
            for n in range(int(self.n)):
                yield Request(f"data:,{n}", dont_filter=True)

        def parse(self, response):
            if hasattr(self, "state"):
                self.state["pages"] = self.state.get("pages", 0) + 1
            if hasattr(self, "fails"):
                raise ValueError("no price \\x1b]0;owned\\x07")
            yield {"n": int(response.text)}
"""


class Scene:
    """A machine with a worker that has the secret, a project, and the attacker's client."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        server = machine.start_server(password="pw")
        #: What all honest ones have; the attacker lacks the secret.
        self.env = {"VSCRAPY_REDIS_URL": server.url, "VSCRAPY_SECRET": SECRET}
        self.store = Store(Endpoint(server.url, "test", SECRET), name="test")
        self.tasks = Tasks(self.store)
        self.canary = directory / "canary"
        self.project = write_project(directory / "project", SPIDERS)
        self.worker = machine.start_worker(redis=server.url, env=self.env)

    @property
    def client(self) -> Any:
        """Full access to Redis."""
        return self.store.client

    def evil(self) -> bytes:
        """Touches the canary when it is unpickled."""
        return evil_pickle(self.canary)

    def crawl(self, n: int, *options: str, delay_s: float = 0.0) -> Running:
        """Begin an honest crawl of *n* pages."""
        return self.machine.start(
            [
                *("vscrapy", "crawl", "honest", "-a", f"n={n}", "-s", f"DOWNLOAD_DELAY={delay_s}"),
                *("-s", "CONCURRENT_REQUESTS=1", "-s", "RANDOMIZE_DOWNLOAD_DELAY=0", *options),
            ],
            self.project,
            env=self.env,
        )

    def command(self, *words: str) -> Any:
        """Carry out another command of vscrapy's."""
        return self.machine.run(["vscrapy", *words], self.project, env=self.env)

    def nonce(self, taskid: int) -> str:
        """A task's nonce: the attacker can read it."""
        job, _ = wire.open_job(self.tasks.job(taskid), SECRET, taskid)
        return str(job["nonce"])

    def forgeries(self, kind: Kind, taskid: int, honest: bytes) -> dict[str, bytes]:
        """All ways to get a payload of a task wrong."""
        return forgeries(kind, taskid, self.nonce(taskid), evil=self.evil(), honest=honest)

    def queue(self, taskid: int) -> str:
        """The key of the task's queue that has requests."""
        found = wait_for(lambda: list(self.client.scan_iter(f"{keys.prefix(taskid)}queue:*", count=1000)))
        return str(found[0].decode())

    def state(self, taskid: int) -> TaskState:
        """The task's state."""
        return self.tasks.record(taskid).state

    def ended(self, taskid: int) -> dict[str, Any]:
        """Wait for a task's end; its stats."""
        wait_for(lambda: self.state(taskid) is TaskState.FINISHED, 40, "the task ends")
        return self.tasks.stats(taskid)[0]

    def last_taskid(self) -> int:
        """The id of the newest task."""
        return int(self.client.get(keys.TASKID) or 0)

    def check(self) -> None:
        """Nothing evil was done, and an honest task is crawled."""
        assert not self.canary.exists()
        assert self.worker.is_running
        finished = self.crawl(2, "-O", "honest.jsonl").wait()
        assert finished.exit_code == 0, finished.output
        assert len((self.project / "honest.jsonl").read_text().splitlines()) == 2
        assert "refused" not in finished.output


@pytest.fixture(scope="module")
def scene(shared_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests of this module; a worker that dies of one fails the next, too."""
    made = Scene(shared_machine, tmp_path_factory.mktemp("scene"))
    yield made
    made.check()
    assert support.orphans(made.store) == []
    made.store.close()


def submit_job(scene: Scene, signed: bytes) -> int:
    """Make a task of these bytes, as a sender does."""
    taskid = scene.tasks.new_id()
    scene.tasks.submit(taskid, signed, spider="honest", options=TaskOptions(max_processes=1, log_keep=100))
    return taskid


def evil_job(scene: Scene, honest: dict[str, Any]) -> bytes:
    """A whole job whose spider touches the canary, as it would be signed; its files are on Redis."""
    source = f"import pathlib\npathlib.Path({str(scene.canary)!r}).touch()\n".encode()
    sha = hashlib.sha256(source).hexdigest()
    scene.client.set(keys.blob(sha), zlib.compress(source), ex=1000)
    manifest = json.loads(honest["manifest"])
    for file in manifest["roots"][0]["files"]:
        if file["path"].endswith("spiders.py"):
            file.update(sha256=sha, size_bytes=len(source))
    return zlib.compress(json.dumps({**honest, "manifest": json.dumps(manifest)}).encode())


def test_forged_jobs_are_not_run(scene: Scene) -> None:
    """Each is refused with one line in the worker's log, counted, and its task has failed."""
    first = int(scene.crawl(1, "--detach").wait_for_output(r"task (\d+)")[1])
    scene.ended(first)
    taskid = scene.last_taskid() + 1
    honest, _ = wire.open_job(scene.tasks.job(first), SECRET, first)
    evil = evil_job(scene, honest)
    # It would be run: with the right signature, the canary is touched. So the test can see what it looks for.
    signed = wire.sign(key_of(Kind.JOB, taskid, ""), Kind.JOB, evil)
    assert submit_job(scene, signed) == taskid
    scene.ended(taskid)
    assert scene.canary.exists()
    scene.canary.unlink()

    names: dict[int, str] = {}
    n_names = len(forgeries(Kind.JOB, 1, "0" * 32, evil=evil, honest=evil))
    for number in range(n_names):
        taskid = scene.last_taskid() + 1
        right = wire.encode_job({**honest, "taskid": taskid}, key_of(Kind.JOB, taskid, ""))
        name, forged = list(forgeries(Kind.JOB, taskid, "0" * 32, evil=evil, honest=right).items())[number]
        names[submit_job(scene, forged)] = name
    for taskid, name in names.items():
        scene.ended(taskid)
        assert scene.tasks.record(taskid).reason == "failed", name
    for taskid in names:
        told = re.findall(rf"^vscrapy worker: task {taskid} is not run: .*$", scene.worker.stderr, re.MULTILINE)
        assert len(told) == 1
        assert "is not signed with this cluster's secret; it was not touched" in told[0]
    worker = wait_for(lambda: [w for w in Workers(scene.store).list() if w.refused == n_names], what="the count")[0]
    assert worker.is_alive


#: Stats that crawl processes are said to have set: none of them keeps a sender from its end.
EVIL_STATS: Final = (
    "[1]",
    '{"start_time": {"$datetime": "2020-01-01T00:00:00"}, "finish_time": {"$datetime": "x"}, "a": {"$datetime": 1}}',
    '{"item_scraped_count": "x", "items_per_minute": 1, "response_received_count": [], "responses_per_minute": null}',
    '{"deep": ' + "[" * 900 + "]" * 900 + "}",
    '{"finish_time": {"$datetime": "9999-12-31T23:59:59"}}',
)
HOSTILE: Final[dict[str, dict[str, Any]]] = {
    "a path upward": {"path": "../../../canary"},
    "an absolute path": {"path": "/canary"},
    "a path through a file": {"path": "shop/spiders.py/canary"},
    "another spelling": {"path": "shop/SPIDERS.py"},
    "a name twice": {"path": "shop/spiders.py"},
    "a link": {"link": "/etc/passwd"},
    "a mode": {"mode": 0o4755},
    "a device": {"path": "x", "device": [1, 3]},
    "no hash": {"sha256": "../../canary"},
    "a size of its own": {"size_bytes": 3},
    "a size below zero": {"size_bytes": -1},
    "a huge size": {"size_bytes": 2**50},
    "a size that is none": {"size_bytes": True},
}


def test_hostile_manifests_are_refused_although_they_are_signed(scene: Scene) -> None:
    """A sender may have a defect: names, sizes and forms are checked by the worker, before anything is written."""
    first = int(scene.crawl(1, "--detach").wait_for_output(r"task (\d+)")[1])
    scene.ended(first)
    honest, _ = wire.open_job(scene.tasks.job(first), SECRET, first)
    names = {}
    for name, change in HOSTILE.items():
        manifest = json.loads(honest["manifest"])
        files = manifest["roots"][0]["files"]
        files.append({**files[0], "path": "canary", **change})
        taskid = scene.last_taskid() + 1
        signed = wire.encode_job({**honest, "manifest": json.dumps(manifest)}, key_of(Kind.JOB, taskid, ""))
        names[submit_job(scene, signed)] = name
    for taskid, name in names.items():
        scene.ended(taskid)
        assert scene.tasks.record(taskid).reason == "failed", name
        scene.worker.wait_for_output(rf"^vscrapy worker: task {taskid} is not run: ")
    assert not list(scene.machine.home.parent.rglob("canary"))
    assert not Path("/canary").exists()


@pytest.mark.long
def test_whole_job_of_another_task_is_not_run(scene: Scene) -> None:
    """What was signed for one taskid is nothing under another."""
    first = int(scene.crawl(1, "--detach").wait_for_output(r"task (\d+)")[1])
    scene.ended(first)
    taskid = submit_job(scene, scene.tasks.job(first))
    scene.ended(taskid)
    assert (scene.tasks.record(taskid).reason, scene.tasks.stats(taskid)[0]) == ("failed", {})


def test_forged_requests_are_dropped_and_the_others_crawled(scene: Scene) -> None:
    """In the queue of a running task, in the places of honest ones."""
    running = scene.crawl(60, "--detach", "--workers", "1", delay_s=0.3)
    taskid = int(running.wait_for_output(r"task (\d+)")[1])
    queue = scene.queue(taskid)
    wait_for(lambda: scene.client.llen(queue) > 50)
    scene.command("pause", str(taskid))
    wait_for(lambda: scene.tasks.record(taskid).leased == 0)
    n_waiting = scene.client.llen(queue)
    forged = scene.forgeries(Kind.REQUEST, taskid, scene.client.lindex(queue, 0))
    assert len(forged) < n_waiting
    for index, payload in enumerate(payload for payload in forged.values() if payload):  # none: not even in a queue
        scene.client.lset(queue, index, payload)
    n_forged = len(forged) - 1
    for _ in range(n_waiting - n_forged - 3):  # the test need not take so long
        scene.client.rpop(queue)
        scene.client.hincrby(keys.task(taskid), "queued", -1)
    scene.command("resume", str(taskid))
    stats = scene.ended(taskid)
    assert stats["vscrapy/requests_refused"] == n_forged
    assert stats["item_scraped_count"] == 60 - n_waiting + 3
    log = [
        line.text
        for entry in Streams(scene.store).last_lines(taskid, 10_000)
        for line in entry.lines
        if "was dropped" in line.text
    ]
    assert len(log) == n_forged
    assert all("is not signed with this cluster's secret; it was not touched" in line for line in log)


@pytest.mark.long
def test_forged_leases_of_any_form_are_dropped(scene: Scene) -> None:
    """Also under names that no queue has, and where a lease has no parts at all."""
    running = scene.crawl(12, "--detach", "--workers", "1", delay_s=0.3)
    taskid = int(running.wait_for_output(r"task (\d+)")[1])
    queue = scene.queue(taskid)
    prefix = keys.prefix(taskid)
    slot = queue.removeprefix(f"{prefix}queue:").rpartition(":")[0]
    names = ["abc", "9" * 30, "1e5", "", "s", "\x1b[31m", "5\n6", "ｎ"]
    for name in names:
        scene.client.rpush(f"{prefix}queue:{slot}:{name}", self_signed(scene))
        scene.client.zadd(f"{prefix}queues:{slot}", {name: -1000})
        scene.client.hincrby(keys.task(taskid), "queued", 1)
    stats = scene.ended(taskid)
    assert (stats["vscrapy/requests_refused"], stats["item_scraped_count"]) == (len(names), 12)
    assert scene.tasks.record(taskid).reason == "finished"
    scene.check()


def self_signed(scene: Scene) -> bytes:
    """Signed with a secret of the attacker's own."""
    return wire.sign(key_of(Kind.REQUEST, 1, "0" * 32, secret="mine"), Kind.REQUEST, scene.evil())


def test_senders_refuse_forged_items_files_facts_and_lines(scene: Scene) -> None:
    """All that comes home to an attached sender, while it crawls: one sender, each forgery of four kinds."""
    running = scene.crawl(12, "-O", "items.jsonl", "--workers", "1", delay_s=0.3)
    taskid = int(running.wait_for_output(r"task (\d+)")[1])
    client = scene.client
    wait_for(lambda: scene.tasks.record(taskid).items > 1)
    key = key_of(Kind.ITEMS, taskid, scene.nonce(taskid))
    task_key = key_of(Kind.LOG, taskid, "")

    items = scene.forgeries(Kind.ITEMS, taskid, wire.encode_items([pickle.dumps({"n": 666})], key))
    for payload in items.values():
        client.xadd(keys.items(taskid), {"n": "1", "items": payload})
    client.xadd(keys.items(taskid), {"n": "many\x1b[2J", "what": "else"})

    evil_file = wire.encode_file(wire.WrittenFile("shop/settings.py", b"import os\n", 1), b"")[wire.MAC_BYTES :]
    honest_file = wire.encode_file(wire.WrittenFile("came.txt", b"honest", 1), key)
    files = forgeries(Kind.FILE, taskid, scene.nonce(taskid), evil=evil_file, honest=honest_file)
    settings = (scene.project / "shop" / "settings.py").read_bytes()
    for payload in files.values():
        client.xadd(keys.files(taskid), {"file": payload})
    client.xadd(keys.files(taskid), {"what": "else"})

    fact = "cookie:" + json.dumps(["0", "a", "/", "session"])
    honest_fact = base64.b64decode(wire.encode_fact("robots:http://b", "", key))
    facts = scene.forgeries(Kind.FACT, taskid, honest_fact)
    for number, payload in enumerate(facts.values()):
        name = f"{fact}{number}" if number % 2 else f"robots:http://site{number}"
        together = client.pipeline(transaction=True)
        together.hset(keys.facts(taskid), name, base64.b64encode(payload))
        together.zadd(keys.fact_versions(taskid), {name: 1000 + number})
        together.hset(keys.task(taskid), "fact_version", 1000 + number)
        together.execute()

    says = '[{"s":"err","x":"\\u001b]0;owned\\u0007 FORGED\\n","t":1}]'
    lines = forgeries(
        Kind.LOG,
        taskid,
        scene.nonce(taskid),
        evil=says.encode(),
        honest=wire.encode_lines([wire.LogLine("out", "x")], task_key),
    )
    for payload in lines.values():
        client.xadd(keys.log(taskid), {"first": "1", "n": "1", "lines": payload})
    client.xadd(keys.log(taskid), {"first": "x", "n": "1", "lines": says})
    client.xadd(keys.log(taskid), {"end": "{"})
    client.xadd(keys.log(taskid), {"end": "[1]"})
    client.hset(keys.stats(taskid), "evil\x1b[2J", "no number")
    client.hset(keys.stat_values(taskid), "evil", "no json")
    for number, values in enumerate(EVIL_STATS):
        client.hset(keys.stat_values(taskid), f"z{number}", values)

    finished = running.wait()
    assert finished.exit_code == 0, finished.output
    assert sorted(json.loads(line)["n"] for line in (scene.project / "items.jsonl").open()) == list(range(12))
    stats = dict(re.findall(r"'(vscrapy/\w+_refused)': (\d+)", finished.output))
    assert stats == {
        "vscrapy/items_refused": str(len(items) + 1),
        "vscrapy/files_refused": str(len(files) + 1),
        "vscrapy/facts_refused": str(len(facts)),
        "vscrapy/log_entries_refused": str(len(lines) + 3),
    }
    assert "\x1b" not in finished.output
    assert "FORGED" not in finished.output
    assert finished.output.count("a batch of items was refused: ") == len(items) + 1
    assert len(re.findall(r"^vscrapy: some lines of task \d+'s log are not shown", finished.output, re.M)) == 1
    assert (scene.project / "shop" / "settings.py").read_bytes() == settings
    assert not (scene.project / "came.txt").exists()


@pytest.mark.long
def test_items_command_leaves_out_what_is_forged(scene: Scene) -> None:
    """It says how many batches, and its exit code tells, too; the honest items are there."""
    taskid = int(scene.crawl(2, "--detach").wait_for_output(r"task (\d+)")[1])
    scene.ended(taskid)
    key = key_of(Kind.ITEMS, taskid, scene.nonce(taskid))
    forged = scene.forgeries(Kind.ITEMS, taskid, wire.encode_items([pickle.dumps({"n": 666})], key))
    for payload in forged.values():
        scene.client.xadd(keys.items(taskid), {"n": "1", "items": payload})
    finished = scene.command("items", str(taskid))
    assert finished.exit_code == 6
    assert sorted(json.loads(line)["n"] for line in finished.stdout.splitlines()) == [0, 1]
    assert f"{len(forged)} batches of items were refused: a batch of items of" in finished.stderr
    assert not scene.canary.exists()


@pytest.mark.long
def test_forged_states_are_not_unpickled(scene: Scene, tmp_path: Path) -> None:
    """The spider's state of a suspended crawl: all forgeries, one run each."""
    running = scene.crawl(500, "--workers", "1", "-s", f"JOBDIR={tmp_path / 'job'}", delay_s=0.2)
    taskid = int(running.wait_for_output(r"task (\d+)")[1])
    key = key_of(Kind.STATE, taskid, scene.nonce(taskid))
    forged = scene.forgeries(Kind.STATE, taskid, wire.encode_state({"pages": 1}, key))
    names = ["another task's", "an earlier task's of the same id", "a request"]
    for name in names:
        wait_for(lambda: scene.tasks.record(taskid).pages > 0)
        scene.command("stop", str(taskid))
        assert running.wait().exit_code == 0
        assert scene.state(taskid) is TaskState.SUSPENDED
        scene.client.hset(keys.facts(taskid), "state", base64.b64encode(forged[name]))
        running = scene.crawl(500, "--workers", "1", "-s", f"JOBDIR={tmp_path / 'job'}", delay_s=0.2)
        running.wait_for_output("the spider's state of the last run is lost: a state of ", 60)
    scene.command("stop", "--force", str(taskid))
    running.wait()
    scene.command("stop", "--force", str(taskid))
    assert not scene.canary.exists()


@pytest.mark.long
def test_forged_failures_are_neither_shown_nor_retried(scene: Scene) -> None:
    """What is shown of the honest one has no escape sequence, whatever the site has put into the exception."""
    taskid = int(scene.crawl(1, "--detach", "-a", "fails=1").wait_for_output(r"task (\d+)")[1])
    scene.ended(taskid)
    ((_, honest),) = scene.client.xrange(keys.failures(taskid))
    forged = scene.forgeries(Kind.FAILURE, taskid, honest[b"failure"])
    for payload in forged.values():
        scene.client.xadd(keys.failures(taskid), {"failure": payload}, id=f"{scene.client.incr('n') + 100}-0")
    requests = scene.forgeries(Kind.REQUEST, taskid, honest[b"payload"])
    scene.client.delete("n")
    shown = scene.command("errors", str(taskid))
    assert (shown.exit_code, shown.stderr.count("is not shown: a failure of")) == (6, len(forged))
    assert "ValueError: no price" in shown.stdout
    assert "\x1b" not in shown.output
    for number, payload in enumerate(requests.values()):
        entry = {"failure": honest[b"failure"], "slot": "a", "queue": "0", "payload": payload or b"-"}
        scene.client.xadd(keys.failures(taskid), entry, id=f"{number + 1000}-0")
        tried = scene.command("retry", str(taskid), "--only", str(number + 1000)) if number < 3 else None
        assert tried is None or (tried.exit_code, "not signed" in tried.stderr) == (6, True)
    assert scene.last_taskid() == taskid or scene.tasks.live_ids() == []
    scene.check()


@pytest.mark.long
def test_forged_blob_is_not_run(scene: Scene, tmp_path: Path) -> None:
    """The content of a project's module is exchanged on Redis while its task waits: the worker refuses it."""
    spiders = scene.project / "shop" / "spiders.py"
    before = spiders.read_text()
    spiders.write_text(f"{before}\n# {tmp_path}\n")  # not in the worker's cache
    try:
        scene.worker.signal(signal.SIGSTOP)
        taskid = int(scene.crawl(1, "--detach").wait_for_output(r"task (\d+)")[1])
        job, _ = wire.open_job(scene.tasks.job(taskid), SECRET, taskid)
        (file,) = (
            file for file in json.loads(job["manifest"])["roots"][0]["files"] if file["path"].endswith("spiders.py")
        )
        evil = f"import pathlib; pathlib.Path({str(scene.canary)!r}).touch()\n#".encode()
        evil += b"#" * (file["size_bytes"] - len(evil))
        assert len(evil) == file["size_bytes"]
        scene.client.set(keys.blob(file["sha256"]), zlib.compress(evil), ex=1000)
    finally:
        scene.worker.signal(signal.SIGCONT)
        spiders.write_text(before)
    scene.ended(taskid)
    assert scene.tasks.record(taskid).reason == "failed"
    scene.worker.wait_for_output(f"task {taskid} is not run: the blob .* has another content than its name says")
    scene.check()


def test_garbage_in_all_places_keeps_nobody_from_the_others(scene: Scene) -> None:
    """Records, registries and workers' entries that cannot be read: the worker goes on, lists are shown."""
    client, bad = scene.client, 900_000
    client.zadd(keys.TASKS, {"no number": 1, "-5": 1, str(bad): 4e12, "\x1b[31m": 2, str(bad + 1): 4e12})
    client.hset(keys.task(bad), mapping={"state": "evil\x1b[2J", "spider": "\x1b]0;owned\x07"})
    client.hset(keys.task(bad + 1), mapping={"state": "queued", "protocol": "x", "capacity": "inf", "spider": "x"})
    client.zadd(keys.WORKERS, {"\x1b[31mevil[red]": 4e12})
    client.hset(keys.worker("\x1b[31mevil[red]"), mapping={"slots": "many", "host": "[bold]h\x1b[2J", "pid": "-"})
    client.sadd(keys.worker_processes("w1"), "no:number", "x")
    try:
        scene.check()
        shown = scene.command("-l")
        assert (shown.exit_code, "\x1b" in shown.stdout) == (0, False)
        assert r"\x1b[31mevil[red]" in shown.stdout
    finally:
        client.zrem(keys.TASKS, "no number", "-5", str(bad), "\x1b[31m", str(bad + 1))
        client.zrem(keys.WORKERS, "\x1b[31mevil[red]")
        client.srem(keys.worker_processes("w1"), "no:number", "x")
        client.delete(keys.task(bad), keys.task(bad + 1), keys.worker("\x1b[31mevil[red]"))


@pytest.mark.long
def test_what_was_recorded_before_redis_lost_its_data_counts_for_nothing(scene: Scene) -> None:
    """The same taskid, the same secret, and yet another task: its items and requests are refused."""
    client = scene.client
    before = int(client.get(keys.TASKID))
    taskid = int(scene.crawl(3, "--detach").wait_for_output(r"task (\d+)")[1])
    scene.ended(taskid)
    recorded = client.xrange(keys.items(taskid))
    job = client.get(keys.job(taskid))
    assert recorded
    for name in client.scan_iter(f"{keys.prefix(taskid)}*", count=1000):
        client.delete(name)
    client.set(keys.TASKID, before)
    again = int(scene.crawl(2, "--detach").wait_for_output(r"task (\d+)")[1])
    assert again == taskid
    scene.ended(taskid)
    for _, fields in recorded:
        client.xadd(keys.items(taskid), fields)
    finished = scene.command("items", str(taskid))
    assert (finished.exit_code, len(finished.stdout.splitlines())) == (6, 2)
    # The whole of the old task is what was signed: who puts its job back, gets its crawl once more, and no other.
    assert wire.open_job(job, SECRET, taskid)[1] != key_of(Kind.ITEMS, taskid, scene.nonce(taskid))
