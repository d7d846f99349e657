"""Workers with other versions: of the protocol, which take nothing, and of Python or Scrapy, which are warned of."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Site, another_version
from vscrapy import __version__, keys
from vscrapy.errors import EmbeddedError
from vscrapy.model import PROTOCOL
from vscrapy.states import TaskState
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.versions import differing, versions_here

pytest_plugins = ["tests.integration.machine"]

#: Time for something to be seen, on a busy machine (seconds).
SOON_S: Final = 60.0


@pytest.mark.long
def test_version_of_all_workers_is_another_one_says_so(
    machine: Machine, project: Path, site: Site, tmp_path: Path
) -> None:
    """The sender tells what to do; where other machines may have workers, one of its own version runs the task."""
    url = machine.start_embedded().url
    env = another_version(tmp_path / "next", "99.0", protocol=PROTOCOL + 1)
    worker = machine.start_worker(name="next", env=env)
    command = ["vscrapy", "crawl", "quotes", "-a", f"base={site.base}"]
    refused = machine.run(command, project)
    assert refused.exit_code == EmbeddedError.exit_code, refused.output
    assert "the local worker next of" in refused.stderr
    assert "'vscrapy drain next', then give this command again" in refused.stderr
    sender = machine.start(command, project, env={"VSCRAPY_REDIS_URL": url})
    told = sender.wait_for_output(r"all workers have another version of vscrapy \(([\d.]+), here [\d.]+\)")
    assert told.group(1) == "99.0"
    assert machine.tasks.record(machine.last_taskid()).state is TaskState.QUEUED
    machine.start_worker(slots=1, name="same")
    assert sender.wait().exit_code == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait().exit_code == 0


@pytest.mark.long
def test_other_scrapy_on_a_worker_is_warned_of_once(machine: Machine, project: Path, site: Site) -> None:
    """In the log of each task that it takes, and in the table; the crawl runs all the same."""
    info = machine.home.parent / "path" / "scrapy-2.12.7.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Scrapy\nVersion: 2.12.7\n")
    worker = machine.start_worker(slots=2, name="old", env={"PYTHONPATH": str(info.parent)})
    here = versions_here()
    for _ in range(2):
        done = machine.run(["vscrapy", "crawl", "quotes", "-a", f"base={site.base}"], project, SOON_S)
        assert done.exit_code == 0, done.output
        said = f"warning: worker old has Scrapy 2.12.7; the task was sent with Scrapy {here['scrapy']} "
        assert done.stderr.count(said) == 1, done.stderr
    table = machine.run(["vscrapy", "-l", "--versions"]).stdout
    assert re.search(rf"^\(here\) +{here['python']} +{here['scrapy']} ", table, re.MULTILINE), table
    assert re.search(rf"^old +online +{here['python']} +2.12.7 .* {PROTOCOL} +scrapy *$", table, re.MULTILINE), table
    found = json.loads(machine.run(["vscrapy", "-l", "--versions", "--json"]).stdout)
    assert found["here"] == {"versions": here, "protocol": PROTOCOL}
    assert [(one["name"], one["differs"]) for one in found["workers"]] == [("old", ["scrapy"])]
    worker.signal(signal.SIGTERM)
    assert worker.wait().exit_code == 0


def test_same_versions_are_no_matter(machine: Machine, project: Path, site: Site) -> None:
    """Not a word of it."""
    machine.start_worker(slots=1)
    done = machine.run(["vscrapy", "crawl", "quotes", "-a", f"base={site.base}"], project, SOON_S)
    assert (done.exit_code, "the task was sent with" in done.output) == (0, False)


def test_record_without_versions_and_task_of_another_protocol_are_shown(machine: Machine) -> None:
    """A worker and a task of an older vscrapy: question marks, and what to do."""
    machine.start_embedded()
    machine.workers.register("ancient", "token", {"protocol": 1, "slots": 1})
    table = machine.run(["vscrapy", "-l", "--versions"]).stdout
    assert re.search(r"^ancient +online +\? +\? +\? +\? +1 +protocol: takes no task from here", table, re.MULTILINE)
    tasks = Tasks(machine.store)
    taskid = tasks.new_id()
    tasks.submit(taskid, b"job", spider="s", options=TaskOptions(log_keep=1))
    machine.store.client.hset(keys.task(taskid), "protocol", 1)
    listed = " ".join(machine.run(["vscrapy", "-l"]).stdout.split())
    assert f"made by vscrapy {__version__} (protocol 1), here {PROTOCOL}" in listed, listed
    assert f"{__version__}" in " ".join(machine.run(["vscrapy", "-l", "--versions"]).stdout.split())
    stopped = machine.run(["vscrapy", "stop", str(taskid)])
    assert stopped.exit_code == 10
    assert f"(protocol 1), and this is vscrapy {__version__} (protocol {PROTOCOL}); give this" in stopped.stderr
    machine.store.client.hset(keys.task(taskid), "protocol", PROTOCOL)
    assert machine.run(["vscrapy", "stop", str(taskid)]).exit_code == 0
    machine.start_worker(slots=1)
    machine.end_tasks()


def test_minor_versions_differ_and_patches_do_not() -> None:
    """What is not known does not differ."""
    one = {"python": "3.11.7", "scrapy": "2.19.0", "twisted": "25.5.0", "vscrapy": "0.1.0"}
    assert differing(one, {"python": "3.11.9", "scrapy": "2.18.0", "twisted": "", "vscrapy": "0.1.0.dev1"}) == [
        "scrapy"
    ]
    assert differing(one, {}) == []
