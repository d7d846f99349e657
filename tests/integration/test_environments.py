"""Requirements travel: workers build what a project needs and they lack, once, and run it there."""

from __future__ import annotations

import base64
import contextlib
import http.server
import importlib.metadata
import json
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Finished, Machine, below, free_port, is_alive, wait_for, write_project
from tests.integration.packages import write_source, write_wheel
from vscrapy.states import TaskState
from vscrapy.worker.wheels import installed_wheels

pytest_plugins = ["tests.integration.machine"]

#: A build under load takes its time (seconds).
BUILD_S: Final = 110.0
#: What a machine without any index has: the wheels that travel with the project.
OFFLINE: Final = "--no-index\n--find-links wheels\n"
SPIDER: Final = """
    import importlib
    import sys

    import scrapy


    class Versions(scrapy.Spider):
        name = "versions"
        start_urls = ["data:,"]
        module = ""

        def parse(self, response):
            found = importlib.import_module(self.module) if self.module else None
            yield {
                "scrapy": scrapy.__version__,
                "prefix": sys.prefix,
                "found": getattr(found, "VERSION", None),
                "seen": getattr(found, "SEEN", None),
            }
"""


def make_project(directory: Path, requirements: str) -> Path:
    """Write a project with a requirements.txt."""
    project = write_project(directory, SPIDER)
    (project / "requirements.txt").write_text(requirements)
    return project


def crawl(machine: Machine, project: Path, module: str = "", *options: str, url: str = "") -> Finished:
    """Crawl with a project whose spider imports *module*."""
    env = {"VSCRAPY_REDIS_URL": url} if url else None
    command = ["vscrapy", "crawl", "versions", "-a", f"module={module}", "-O", "items.jsonl", *options]
    return machine.run(command, project, BUILD_S, env=env)


def item(project: Path) -> dict[str, Any]:
    """The one item of the last crawl."""
    read: dict[str, Any] = json.loads((project / "items.jsonl").read_text())
    return read


def environments(machine: Machine) -> set[str]:
    """The names of the environments that are complete."""
    return {mark.parent.name for mark in (machine.home / "cache" / "environments").glob("*/vscrapy.json")}


@pytest.fixture(scope="module")
def built(shared_machine: Machine) -> Machine:
    """Give a machine with a worker that builds."""
    shared_machine.start_worker(slots=2, env={"UV_HTTP_RETRIES": "0"})
    return shared_machine


def test_package_that_no_worker_has_is_built_once(built: Machine, tmp_path: Path) -> None:
    """The spider gets it; its build is told at the sender; the next crawl builds nothing, and runs there, too."""
    project = make_project(tmp_path / "project", f"{OFFLINE}-c bounds.txt\naardvark>=2\nvscrapy\n")
    (project / "bounds.txt").write_text("aardvark<2.7\n")
    write_wheel(project / "wheels", "aardvark", "2.5")
    write_wheel(project / "wheels", "aardvark", "2.9")
    before = environments(built)
    first = crawl(built, project, "aardvark")
    assert first.exit_code == 0, first.output
    assert "environment: building… (requirements.txt: aardvark is not installed)" in first.stderr
    assert re.search(r"environment: installed .*aardvark==2\.5", first.stderr)
    assert re.search(r"environment: built in \d+\.\d s", first.stderr)
    assert item(project)["found"] == "2.5"
    second = crawl(built, project, "aardvark")
    assert second.exit_code == 0, second.output
    assert "environment:" not in second.output
    (name,) = environments(built) - before
    assert Path(item(project)["prefix"]).name == name


def test_versions_that_are_compared_are_those_of_the_environment(built: Machine, tmp_path: Path) -> None:
    """A project's own Scrapy is another one than the sender's: that is told, once, and nothing else."""
    project = make_project(tmp_path / "project", f"{OFFLINE}scrapy==2.98.0\n")
    installed_wheels(tmp_path / "installed")
    (wheel,) = (tmp_path / "installed").glob("[Ss]crapy-*.whl")
    (project / "wheels").mkdir()
    other = project / "wheels" / "scrapy-2.98.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(other, "w") as made:
        for name in archive.namelist():
            _, is_info, file = name.partition(".dist-info/")
            content = archive.read(name)
            if is_info and file == "RECORD":
                content = b""
            elif is_info and file == "METADATA":
                content = re.sub(rb"(?m)^Version: .*$", b"Version: 2.98.0", content, count=1)
            made.writestr(f"scrapy-2.98.0.dist-info/{file}" if is_info else name, content)
    done = crawl(built, project)
    assert done.exit_code == 0, done.output
    here = importlib.metadata.version("scrapy")
    assert done.stderr.count("the task was sent with") == 1, done.stderr
    assert done.stderr.count(f"worker w1 has Scrapy 2.98.0; the task was sent with Scrapy {here} ") == 1, done.stderr


def test_nothing_is_built_when_the_worker_has_all(built: Machine, tmp_path: Path) -> None:
    """What is installed, with markers and extras, needs no environment."""
    lines = 'scrapy>=2.13\nredis[hiredis]\naardvark; python_version < "3"\n'
    project = make_project(tmp_path / "project", lines)
    done = crawl(built, project)
    assert done.exit_code == 0, done.output
    assert "environment:" not in done.output
    assert item(project)["prefix"] == sys.prefix


def test_package_that_is_nowhere_fails_with_the_words_of_the_resolver(built: Machine, tmp_path: Path) -> None:
    """The sender learns why, ends with 1 and touches no feed; the worker goes on with other tasks."""
    project = make_project(tmp_path / "project", f"{OFFLINE}no-such-beast\n")
    write_wheel(project / "wheels", "aardvark")
    failed = crawl(built, project)
    assert failed.exit_code == 1
    assert "no-such-beast was not found" in " ".join(re.sub(r"vscrapy: environment:", "", failed.stderr).split())
    assert "was not started: no environment with requirements.txt" in failed.stderr
    assert not (project / "items.jsonl").exists()
    assert crawl(built, project, "", "--requirements", "none").exit_code == 0


def test_conflict_fails_with_the_words_of_the_resolver(built: Machine, tmp_path: Path) -> None:
    """Two packages that cannot be had together are named."""
    project = make_project(tmp_path / "project", f"{OFFLINE}cat\ndog\n")
    write_wheel(project / "wheels", "cat", needs=["mouse==1.0"])
    write_wheel(project / "wheels", "dog", needs=["mouse==2.0"])
    write_wheel(project / "wheels", "mouse", "1.0")
    write_wheel(project / "wheels", "mouse", "2.0")
    failed = crawl(built, project)
    words = " ".join(re.sub(r"vscrapy: environment:", "", failed.stderr).split())
    assert failed.exit_code == 1
    assert re.search(r"cat(==1\.0)? depends? on mouse==1\.0", words), words
    assert "unsatisfiable" in words


def test_package_with_another_hash_is_not_installed(built: Machine, tmp_path: Path) -> None:
    """What a project gives hashes for is held against them."""
    project = make_project(tmp_path / "project", f"{OFFLINE}hen==1.0 --hash=sha256:{'0' * 64}\n")
    write_wheel(project / "wheels", "hen")
    failed = crawl(built, project)
    assert failed.exit_code == 1
    assert "Hash mismatch" in failed.stderr, failed.stderr


def test_what_vscrapy_needs_stands_in_a_conflict(built: Machine, tmp_path: Path) -> None:
    """A project whose packages pin what vscrapy cannot run with is told so, by name; its own pins do not count."""
    project = make_project(tmp_path / "project", f"{OFFLINE}cat\ntwisted==20.3.0\n")
    write_wheel(project / "wheels", "cat", needs=["twisted==20.3.0"])
    write_wheel(project / "wheels", "twisted", "20.3.0")
    failed = crawl(built, project)
    assert failed.exit_code == 1
    assert "twisted==20.3.0 does not count, for vscrapy runs with twisted>=" in failed.stderr
    words = " ".join(re.sub(r"vscrapy: environment:", "", failed.stderr).split())
    assert re.search(r"vscrapy(==\S+)? depends? on twisted>=", words), words


@pytest.mark.long
def test_wheel_in_the_project_is_installed_by_its_path(built: Machine, tmp_path: Path) -> None:
    """A path in a nested file is relative to that; another content under the same name is another environment."""
    project = make_project(tmp_path / "project", f"{OFFLINE}-r deep/more.txt\n")
    (project / "deep").mkdir()
    (project / "deep" / "more.txt").write_text("./own-archives/bison-3.0-py3-none-any.whl\n")
    write_wheel(project / "deep" / "own-archives", "bison", "3.0", code="SEEN = 'old'\n")
    write_wheel(project / "wheels", "unused")
    assert crawl(built, project, "bison").exit_code == 0
    assert (item(project)["found"], item(project)["seen"]) == ("3.0", "old")
    write_wheel(project / "deep" / "own-archives", "bison", "3.0", code="SEEN = 'new'\n")
    assert crawl(built, project, "bison").exit_code == 0
    assert item(project)["seen"] == "new"


def test_build_sees_no_secret_and_leaves_no_trace_in_the_project(built: Machine, tmp_path: Path) -> None:
    """What runs as a package is built gets the worker's environment without what is vscrapy's."""
    project = make_project(tmp_path / "project", f"{OFFLINE}./sources/snoop\n")
    write_wheel(project / "wheels", "unused")
    write_source(
        project / "sources" / "snoop",
        "snoop",
        at_build="""
            import os
            open("left", "w").close()
            return f"SEEN = {sorted(os.environ)!r}\\n"
        """,
    )
    done = crawl(built, project, "snoop")
    assert done.exit_code == 0, done.output
    seen = item(project)["seen"]
    assert "PATH" in seen
    assert [name for name in seen if name.startswith("VSCRAPY")] == []
    assert not (project / "sources" / "snoop" / "left").exists()


def test_password_of_an_index_is_never_shown(built: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that does not answer is named, with a word on the network, and without what opens it."""
    port = free_port()
    line = f"--index-url http://keeper:${{ZOO_PASSWORD}}@127.0.0.1:{port}/simple\naardvark\n"
    project = make_project(tmp_path / "project", line)
    monkeypatch.setitem(built.env, "ZOO_PASSWORD", "open-sesame")
    checked = built.run(["vscrapy", "crawl", "--check", "versions"], project)
    failed = crawl(built, project)
    listed = built.run(["vscrapy", "-l", "--all"])
    assert failed.exit_code == 1
    assert f"127.0.0.1:{port}" in failed.stderr
    assert "it may be the network" in failed.stderr
    assert "open-sesame" not in failed.output + checked.output + listed.output


@pytest.mark.long
def test_worker_that_reaches_no_index_takes_what_is_here(built: Machine, tmp_path: Path) -> None:
    """With a wheel in the project, and the rest installed on the worker, it needs no network."""
    index = f"--index-url http://127.0.0.1:{free_port()}/simple\n"
    project = make_project(tmp_path / "project", f"{index}./okapi-1.0-py3-none-any.whl\n")
    write_wheel(project, "okapi")
    done = crawl(built, project, "okapi")
    assert done.exit_code == 0, done.output
    assert "no package index is reached; looking at what is here" in done.stderr
    assert item(project)["found"] == "1.0"


class _ClosedIndex(http.server.BaseHTTPRequestHandler):
    """A package index that has one wheel, for who has the password."""

    wheel: Path

    def do_GET(self) -> None:
        password = base64.b64encode(b"keeper:open-sesame").decode()
        if self.headers.get("Authorization") != f"Basic {password}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
        elif self.path == "/simple/kiwi/":
            self._answer(f'<a href="/files/{self.wheel.name}">{self.wheel.name}</a>'.encode(), "text/html")
        elif self.path == f"/files/{self.wheel.name}":
            self._answer(self.wheel.read_bytes(), "application/octet-stream")
        else:
            self.send_error(404)

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.mark.long
def test_index_of_its_own_is_asked_with_its_password(
    built: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the project's package only: what Scrapy and vscrapy need is the worker's. The password stays unseen."""
    handler = type("Handler", (_ClosedIndex,), {"wheel": write_wheel(tmp_path / "served", "kiwi", "6.0")})
    monkeypatch.setitem(built.env, "ZOO_PASSWORD", "open-sesame")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://keeper:${{ZOO_PASSWORD}}@127.0.0.1:{server.server_port}/simple"
        project = make_project(tmp_path / "project", f"--index-url {url}\nkiwi\n")
        done = crawl(built, project, "kiwi")
        server.shutdown()
    assert done.exit_code == 0, done.output
    assert item(project)["found"] == "6.0"
    assert "open-sesame" not in done.output


def test_build_ends_with_its_task(built: Machine, tmp_path: Path) -> None:
    """A task that is stopped while its environment is built ends at once, and so does the build."""
    project = make_project(tmp_path / "project", f"{OFFLINE}./sources/sloth\n")
    write_wheel(project / "wheels", "unused")
    write_source(project / "sources" / "sloth", "sloth", at_build="import time\ntime.sleep(600)")
    sender = built.start(["vscrapy", "crawl", "versions"], project)
    sender.wait_for_output("environment: building…")

    def builders() -> set[str]:
        return {line for line in built.processes().values() if "uv pip " in line or "backend" in line}

    wait_for(builders, what="uv runs")
    sender.signal(signal.SIGINT)
    sender.wait()
    wait_for(lambda: not builders(), what=lambda: f"{builders()} have ended")


def test_build_ends_with_its_worker(machine: Machine, tmp_path: Path) -> None:
    """A worker that is told to end does not wait for it, and leaves its task to others."""
    project = make_project(tmp_path / "my project", f"{OFFLINE}./sources/sloth\n")
    write_wheel(project / "wheels", "unused")
    write_source(project / "sources" / "sloth", "sloth", at_build="import time\ntime.sleep(600)")
    worker = machine.start_worker()
    assert machine.run(["vscrapy", "crawl", "versions", "--detach"], project).exit_code == 0
    wait_for(lambda: any("uv pip " in line for line in machine.processes().values()), what="uv runs")
    worker.signal(signal.SIGTERM)
    assert worker.wait(30).exit_code == 0
    wait_for(lambda: not any("uv pip " in line for line in machine.processes().values()), what="uv has ended")
    machine.start_worker(name="w2")  # somebody must archive the task
    machine.end_tasks()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_build_ends_with_its_killed_agent_and_the_next_one_builds_anew(machine: Machine, tmp_path: Path) -> None:
    """After a kill -9 nothing builds on; locks and what is half made keep nobody from building it whole."""
    project = make_project(tmp_path / "project", f"{OFFLINE}./sources/sloth\n")
    write_wheel(project / "wheels", "unused")
    begun = tmp_path / "begun"
    at_build = f"""
        import os, time
        if not os.path.exists({str(begun)!r}):
            open({str(begun)!r}, "w").close()
            time.sleep(600)
        return "VERSION = 'awake'"
    """
    write_source(project / "sources" / "sloth", "sloth", at_build=at_build)
    agent = machine.start_worker()
    sender = machine.start(["vscrapy", "crawl", "versions", "-a", "module=sloth", "-O", "items.jsonl"], project)
    wait_for(begun.exists, BUILD_S, lambda: f"the build has begun; {sender.output}")
    builders = below(agent.pid)
    assert any("uv pip " in line for line in machine.processes().values()), machine.processes()
    agent.kill()
    wait_for(lambda: not any(map(is_alive, builders)), BUILD_S, lambda: f"{machine.processes()}")
    machine.start_worker(name="w2")
    done = sender.wait(BUILD_S)
    assert done.exit_code == 0, done.output
    assert item(project)["found"] == "awake"
    (name,) = environments(machine)
    mark = machine.home / "cache" / "environments" / name / "vscrapy.json"
    mark.unlink()  # as if it had never been finished
    again = crawl(machine, project, "sloth")
    assert again.exit_code == 0, again.output
    assert "environment: built in" in again.stderr
    assert mark.exists()


@pytest.mark.long
def test_ten_tasks_at_once_build_once(machine: Machine, tmp_path: Path) -> None:
    """Two agents of one home have five slots each, and ten tasks that need the same come together."""
    project = make_project(tmp_path / "project", f"{OFFLINE}./sources/herd\n")
    write_wheel(project / "wheels", "unused")
    builds = tmp_path / "builds"
    at_build = f"""
        with open({str(builds)!r}, "a") as file:
            file.write("built\\n")
        return "VERSION = 'herd'"
    """
    write_source(project / "sources" / "herd", "herd", at_build=at_build)
    workers = [machine.start_worker(slots=5, name=f"w{number}") for number in range(2)]

    def one(number: int) -> Finished:
        command = ["vscrapy", "crawl", "versions", "-a", "module=herd", "-O", f"items-{number}.jsonl"]
        return machine.run(command, project, BUILD_S)

    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(one, range(10)))
    assert [finished.exit_code for finished in done] == [0] * 10, done
    assert {json.loads((project / f"items-{number}.jsonl").read_text())["found"] for number in range(10)} == {"herd"}
    assert sum(worker.output.count(": built in") for worker in workers) == 1
    assert len(environments(machine)) == 1
    assert builds.read_text().count("built") == 1


@pytest.mark.long
def test_worker_that_builds_nothing_leaves_the_task_to_others(machine: Machine, tmp_path: Path) -> None:
    """
    It says why; if there is no other, the sender is told and ends; another one runs it.

    That one looks where pip's variables say.
    """
    project = make_project(tmp_path / "project", "aardvark\n")
    write_wheel(tmp_path / "wheels", "aardvark")
    machine.start_worker(slots=1, name="strict", options=["--no-build"])
    refused = crawl(machine, project, "aardvark")
    assert refused.exit_code == 1
    assert "aardvark is not installed, and this worker builds no environments (--no-build)" in refused.stderr
    assert "no worker can run this task" in refused.stderr
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    machine.start_worker(slots=1, name="builder", env=pip)
    done = crawl(machine, project, "aardvark")
    assert done.exit_code == 0, done.output
    assert item(project)["found"] == "1.0"


def test_task_ends_when_all_workers_that_it_may_run_on_refuse(machine: Machine, tmp_path: Path) -> None:
    """A worker that builds and is not asked for does not count; the sender is told why nobody runs the task."""
    project = make_project(tmp_path / "project", f"{OFFLINE}aardvark\n")
    write_wheel(project / "wheels", "aardvark")
    machine.start_worker(slots=1, name="strict", options=["--no-build", "--label", "kind=strict"])
    machine.start_worker(slots=1, name="builder", options=["--label", "kind=free"])
    refused = crawl(machine, project, "aardvark", "--on", "kind=strict")
    assert refused.exit_code == 1, refused.output
    assert "no worker can run this task: requirements.txt: aardvark is not installed" in refused.stderr


#: A worker with an older Python, by what it says.
OLD_PYTHON: Final = """
import platform
import sys

platform.python_version = lambda: "3.8.1"
from vscrapy.cli import main

sys.exit(main(["worker", "--slots", "1", "--name", "old"]))
"""


def test_worker_whose_python_does_not_fit_leaves_the_task_to_others(machine: Machine, tmp_path: Path) -> None:
    """The sender is told which one is asked for, and which there is; if no other worker fits, that is the reason."""
    project = write_project(tmp_path / "project", SPIDER)
    (project / "pyproject.toml").write_text('[project]\nname = "shop"\nrequires-python = ">=3.9"\n')
    url = machine.start_embedded().url
    old = machine.start(["python", "-c", OLD_PYTHON], env={"VSCRAPY_REDIS_URL": url})
    old.wait_for_output("vscrapy worker old ready", BUILD_S)
    refused = crawl(machine, project)
    assert refused.exit_code == 1, refused.output
    why = "pyproject.toml asks for Python >=3.9, and this worker has 3.8.1 ('--requirements none' lets it run all the"
    why += " same)"
    assert refused.stderr.count(f"crawl process 1 on worker old was not started: {why}; another worker must\n") == 1
    assert refused.stderr.count(f"no worker can run this task: {why}\n") == 1
    assert crawl(machine, project, "", "--requirements", "none").exit_code == 0
    machine.start_worker(slots=1, name="fits")
    done = crawl(machine, project)
    assert done.exit_code == 0, done.output
    old.signal(signal.SIGTERM)
    assert old.wait(BUILD_S).exit_code == 0


#: Lets a process fail as Scrapy 2.13.0 does with a Twisted that is too new for it.
TOO_NEW: Final = """
import sys


class TooNew:
    def find_spec(self, name, path=None, target=None):
        if name == "scrapy.core.downloader.handlers.http11":
            raise ImportError("cannot import name '_setAcceptableProtocols'")


sys.meta_path.insert(0, TooNew())
"""


def test_task_ends_with_the_reason_where_scrapy_and_twisted_do_not_fit(machine: Machine, tmp_path: Path) -> None:
    """One crawl process says what is wrong and what to do, in one line, and no other one is tried."""
    project = write_project(tmp_path / "project", SPIDER)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(TOO_NEW)
    machine.start_worker(slots=1, env={"PYTHONPATH": str(tmp_path / "path")})
    failed = crawl(machine, project)
    assert failed.exit_code == 1, failed.output
    pattern = r"^vscrapy: Scrapy \S+ does not run with Twisted \S+, .*_setAcceptableProtocols.*; with a Scrapy before"
    assert re.search(pattern, failed.stderr, re.MULTILINE)
    assert "name twisted<=25.5.0 beside it" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.count("does not run with Twisted") == 1


@pytest.mark.long
def test_feeds_of_a_detached_task_are_written_in_its_environment(built: Machine, tmp_path: Path) -> None:
    """Home on a worker has what the project needs: here, the storage of its feeds."""
    project = make_project(tmp_path / "project", f"{OFFLINE}vault\n")
    write_wheel(project / "wheels", "vault", "4.0")
    target = tmp_path / "stored"
    (project / "shop" / "storage.py").write_text(
        "from scrapy.extensions.feedexport import FileFeedStorage\n\n\n"
        "class Storage(FileFeedStorage):\n"
        "    def __init__(self, uri, *, feed_options=None):\n"
        "        import vault\n"
        f"        super().__init__({str(target)!r} + vault.VERSION, feed_options=feed_options)\n"
    )
    settings = project / "shop" / "settings.py"
    settings.write_text(
        settings.read_text()
        + 'FEED_STORAGES = {"vault": "shop.storage.Storage"}\nFEEDS = {"vault://x": {"format": "jsonlines"}}\n'
    )
    taskid = built.last_taskid() + 1
    sent = built.run(["vscrapy", "crawl", "versions", "-a", "module=vault", "--detach"], project)
    assert sent.exit_code == 0, sent.output
    stored = Path(f"{target}4.0")
    wait_for(
        lambda: stored.exists() and stored.read_text().endswith("\n"),
        BUILD_S,
        lambda: built.run(["vscrapy", "-c", str(taskid)]).output,
    )
    assert json.loads(stored.read_text())["found"] == "4.0"
    wait_for(lambda: built.tasks.record(taskid).state is TaskState.FINISHED, what="the task has ended")


@contextlib.contextmanager
def _index_or_skip() -> Iterator[None]:
    import uv

    asked = subprocess.run(
        [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-deps", "-"],
        input="scrapy==2.13.4",
        text=True,
        capture_output=True,
        check=False,
        timeout=BUILD_S,
    )
    if asked.returncode:
        pytest.skip(f"no package index is reached from here: {asked.stderr.strip().splitlines()[-1:]}")
    yield


@pytest.mark.long
@pytest.mark.parametrize("version", ["2.13.0", "2.13.4"])
def test_project_runs_with_the_scrapy_that_it_pins(built: Machine, tmp_path: Path, version: str) -> None:
    """
    An older Scrapy than the worker's comes from the index, and runs beside it.

    The first release does not say that it needs an older Twisted, too.
    """
    with _index_or_skip():
        project = make_project(tmp_path / "project", f"scrapy=={version}\n")
        done = crawl(built, project)
    assert done.exit_code == 0, done.output
    assert item(project)["scrapy"] == version
