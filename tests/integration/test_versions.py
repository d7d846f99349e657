"""A worker that speaks another version of the protocol: it takes nothing, and the sender says why it waits."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.integration.machine import Machine, Site
from vscrapy.states import TaskState

pytest_plugins = ["tests.integration.machine"]

#: A worker as the next version's would be.
NEXT_WORKER = """
import sys

import vscrapy, vscrapy.model

vscrapy.__version__ = "99.0"
vscrapy.model.PROTOCOL += 1
from vscrapy.cli import main

sys.exit(main(["worker", "--slots", "1", "--name", "next"]))
"""


def test_version_of_all_workers_is_another_one_says_so(machine: Machine, project: Path, site: Site) -> None:
    """The sender tells that all workers have another version; a worker of its own version then runs the task."""
    url = machine.start_embedded().url
    worker = machine.start(["python", "-c", NEXT_WORKER], env={"VSCRAPY_REDIS_URL": url})
    worker.wait_for_output(r"vscrapy worker next ready")
    sender = machine.start(["vscrapy", "crawl", "quotes", "-a", f"base={site.base}"], project)
    told = sender.wait_for_output(r"all workers have another version of vscrapy \(([\d.]+), here [\d.]+\)")
    assert told.group(1) == "99.0"
    assert machine.tasks.record(machine.last_taskid()).state is TaskState.QUEUED
    machine.start_worker(slots=1, name="same")
    assert sender.wait().exit_code == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait().exit_code == 0
