"""
The second time a command is given, its task is submitted before the project is read here.

The project's settings wait, in the sender alone, until the test lets them go on: what the workers do by then, they do
early.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import BIN, Machine, Running, wait_for
from vscrapy.states import TaskState
from vscrapy.store.tasks import TaskRecord

pytest_plugins = ["tests.integration.machine"]

LONG: Final = pytest.mark.long
#: Time for all processes of a task to end (seconds).
GONE_S: Final = 5.0
SETTINGS: Final = """
import os, time
from pathlib import Path

GATE = os.environ.get("GATE")  # which does not travel
while GATE and not Path(GATE).exists():
    time.sleep(0.01)
if GATE and "fail" in Path(GATE).read_text():
    raise RuntimeError("the gate has fallen")

SPIDER_MODULES = ["early.spiders"]
"""
SPIDER: Final = """
from pathlib import Path

import scrapy


class Words(scrapy.Spider):
    name = "words"
    start_urls = ["data:,page"]

    def parse(self, response):
        print("parsed")
        for path in sorted(Path(__file__).parent.glob("*.txt")):
            yield {"word": path.read_text()}
"""


@dataclass(frozen=True)
class Early:
    """The project, and its crawls."""

    machine: Machine
    project: Path
    gate: Path

    def start(self, *options: str, is_held: bool = False) -> Running:
        """Give the command."""
        env = {"GATE": str(self.gate)} if is_held else {}
        feed = self.project.parent / "items.jsonl"
        return self.machine.start(
            [str(BIN / "vscrapy"), "crawl", "words", "-O", str(feed), *options], self.project, env=env
        )

    def crawl(self) -> list[str]:
        """Crawl to the end; the words of the items."""
        finished = self.start().wait()
        assert finished.exit_code == 0, finished.output
        return self.words()

    def words(self) -> list[str]:
        """The words of the items in the feed."""
        lines = (self.project.parent / "items.jsonl").read_text().splitlines()
        return [json.loads(line)["word"] for line in lines]

    def write(self, word: str, name: str = "one") -> None:
        """Change what the spider reads."""
        (self.project / "early" / f"{name}.txt").write_text(word)

    def records(self) -> list[TaskRecord]:
        """All tasks, in their order."""
        tasks = self.machine.tasks
        found = tasks.records([*tasks.live_ids(), *tasks.finished_ids(100)])
        return [found[taskid] for taskid in sorted(found)]

    @contextmanager
    def held(self) -> Iterator[Running]:
        """A crawl whose sender has not read its project, while a crawl process waits for it."""
        sender = self.start(is_held=True)
        sender.wait_for_output(r"Scrapy \S+ started")
        wait_for(lambda: self.records()[-1].processes == 1)
        assert self.records()[-1].state is TaskState.RUNNING
        assert "Spider opened" not in sender.output
        yield sender


@pytest.fixture
def early(machine: Machine, tmp_path: Path) -> Early:
    """The project on a machine with one worker, after its first crawl."""
    machine.start_worker(slots=2)
    project = tmp_path / "project"
    package = project / "early"
    package.mkdir(parents=True)
    project.joinpath("scrapy.cfg").write_text("[settings]\ndefault = early.settings\n")
    package.joinpath("__init__.py").touch()
    package.joinpath("settings.py").write_text(SETTINGS)
    package.joinpath("spiders.py").write_text(SPIDER)
    found = Early(machine, project, tmp_path / "gate")
    found.write("first")
    assert found.crawl() == ["first"]
    return found


def test_workers_begin_while_the_sender_reads_its_project(early: Early) -> None:
    """The first lines are there before the project is read; no spider opens before that, and the rest is as ever."""
    with early.held() as sender:
        early.gate.touch()
        finished = sender.wait()
    assert finished.exit_code == 0, finished.output
    assert early.words() == ["first"]
    assert len(early.records()) == 2
    for words in (
        "vscrapy: task ",
        " started (bot: ",
        "Enabled item pipelines:",
        "Spider opened",
        "Dumping Scrapy stats",
    ):
        assert finished.stderr.count(words) == 1, words
    order = [finished.stderr.index(f"Enabled {what}") for what in ("spider middlewares", "item pipelines")]
    assert order == sorted(order)
    assert finished.stderr.index("Enabled item pipelines:") < finished.stderr.index("Spider opened")
    assert finished.stdout.count("parsed") == 1


def test_edited_file_travels_with_the_early_task(early: Early) -> None:
    """What was edited since the last time is what is crawled."""
    early.write("second, which is longer")
    with early.held() as sender:
        early.gate.touch()
        assert sender.wait().exit_code == 0
    assert early.words() == ["second, which is longer"]
    assert len(early.records()) == 2


def test_task_that_is_not_what_the_project_makes_is_withdrawn(early: Early) -> None:
    """A new file is not known early: the task is submitted again with it, and the next one has it from the start."""
    early.write("new", "two")
    with early.held() as sender:
        early.gate.touch()
        finished = sender.wait()
    assert finished.exit_code == 0, finished.output
    assert early.words() == ["first", "new"]
    first, withdrawn, own = early.records()
    assert (withdrawn.state, withdrawn.pages, own.pages) == (TaskState.FINISHED, 0, first.pages)
    assert finished.stderr.count(" started (bot: ") == 1
    assert finished.stdout.count("parsed") == 1
    assert early.crawl() == ["first", "new"]
    assert len(early.records()) == 4


@LONG
def test_task_is_withdrawn_when_the_project_fails_here(early: Early) -> None:
    """What is wrong here is told as Scrapy tells it, and nothing is crawled."""
    with early.held() as sender:
        early.gate.write_text("fail")
        finished = sender.wait()
    assert finished.exit_code == 1
    assert finished.stderr.count("RuntimeError: the gate has fallen") == 1
    assert "parsed" not in finished.stdout
    wait_for(lambda: early.records()[-1].state is TaskState.FINISHED)
    assert early.records()[-1].pages == 0


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=LONG), pytest.param(signal.SIGTERM, marks=LONG), signal.SIGKILL]
)
def test_task_ends_when_its_sender_ends_before_it_has_read_its_project(early: Early, number: signal.Signals) -> None:
    """Whatever ends the sender, the crawl process that waits for it ends, too, and has crawled nothing."""
    with early.held() as sender:
        sender.signal(number)
        finished = sender.wait()
    assert "parsed" not in finished.stdout
    wait_for(lambda: early.records()[-1].state is TaskState.FINISHED, GONE_S)
    assert early.records()[-1].pages == 0
    wait_for(lambda: not any("vscrapy-crawl task" in title for title in early.machine.processes().values()), GONE_S)


@LONG
def test_task_that_waits_for_its_sender_goes_to_another_worker(early: Early) -> None:
    """A worker that is drained does not wait for a sender that reads its project."""
    with early.held() as sender:
        early.machine.run(["vscrapy", "drain", "w1"])
        wait_for(lambda: early.records()[-1].processes == 0)
        early.machine.start_worker(name="w2")
        early.gate.touch()
        finished = sender.wait()
    assert finished.exit_code == 0, finished.output
    assert early.words() == ["first"]
    assert "Traceback" not in finished.output


@LONG
def test_command_that_is_never_foreseen_is_not_tried_again(early: Early) -> None:
    """Where each run leaves a new file, the task is submitted once, as though nothing were remembered."""
    for number in range(4):
        n_tasks = len(early.records())
        early.write("new", f"file-{number}")
        early.crawl()
        assert len(early.records()) == n_tasks + (2 if number < 2 else 1)
