"""
What a crawl process says arrives at the sender, once, in its order, in the project's format, and soon.

The measure is ``scrapy crawl`` itself: the same lines, on the same of the two outputs, or in the same file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import BIN, Machine, Running, Site, wait_for, write_project
from vscrapy import keys
from vscrapy.states import TaskState
from vscrapy.store.looks import Looks
from vscrapy.store.streams import Cursors, Streams

pytest_plugins = ["tests.integration.machine"]

#: A line takes less than this from the crawl process to the sender (seconds); it is a tenth of it, mostly.
LATENCY_S: Final = 1.0
#: Lines of the burst.
BURST: Final = 50_000
#: What stands where lines are missing.
CUT: Final = re.compile(r"^vscrapy: \[\.\.\. (\d+) lines are cut", re.MULTILINE)

SPIDERS: Final = r'''
import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import time
import warnings

from scrapy import Request, Spider


class OnePage(Spider):
    start_urls = ["data:,"]


class Talk(OnePage):
    """Says something in each way that there is."""

    name = "talk"

    def parse(self, response):
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(self.logger, level)("talk: logged as %s, 100%%", level)
        self.logger.log(25, "talk: on a level of its own")
        logging.getLogger("scrapy.talk.deep").warning("talk: a logger of scrapy's\n    talk: in two lines")
        print("talk: printed")
        print("talk: printed to stderr", file=sys.stderr)
        os.write(1, b"talk: written to 1\n")
        os.write(2, b"talk: written to 2\n")
        subprocess.run(["echo", "talk: echoed"])
        ctypes.CDLL(None).printf(b"talk: printed by C\n")
        warnings.warn("talk: warned")
        raise ValueError("talk: raised")


class Count(OnePage):
    """Prints and logs numbers, in turns."""

    name = "count"
    lines = 1000

    async def parse(self, response):
        for number in range(int(self.lines)):
            if number % 3:
                print(f"line {number}")
            else:
                self.logger.info("line %s", number)
        # The log keeps its newest batch whole, and this one's lines should not be in it.
        await asyncio.sleep(0.3)


class Clock(OnePage):
    """Says what time it is, now and then."""

    name = "clock"

    async def parse(self, response):
        for number in range(50):
            await asyncio.sleep(0.02 + number % 7 / 1000)
            print(f"it is {time.time()}")


class Crowd(Spider):
    """Work for several crawl processes: each has one request at a time, whatever the site sees of all."""

    name = "crowd"
    custom_settings = {"CONCURRENT_REQUESTS": 1, "VSCRAPY_POLITENESS": "worker"}

    async def start(self):
        for number in range(int(self.pages)):
            yield Request(f"{self.base}/slow/{number}?ms=100", cb_kwargs={"number": number})

    def parse(self, response, number):
        print(f"page {number}")
        self.logger.info("page %s", number)


class Flood(Spider):
    """Prints a kilobyte for each page."""

    name = "flood"

    async def start(self):
        for number in range(500):
            yield Request(f"data:,{number}", dont_filter=True, cb_kwargs={"number": number})

    def parse(self, response, number):
        print(f"page {number} {'x' * 1000}")
        yield {"number": number}


class Odd(OnePage):
    """Says what is hard to say."""

    name = "odd"

    def parse(self, response):
        print("odd: Grüße, 東京, 👩‍👩‍👧, e\u0301, \u202eright to left")
        self.logger.info("odd: logged 東京 👩‍👩‍👧")
        os.write(1, "odd: written 東京\n".encode())
        print("odd: a NUL: [\0]")
        os.write(1, b"odd: a written NUL: [\0]\n")
        os.write(1, b"odd: not UTF-8: [\xff\xfe]\n")
        sys.stdout.buffer.write(b"odd: not UTF-8 through the buffer: [\xff]\n")
        print("odd: a lone surrogate: [\udcff]")
        print("odd: a bar: 10%\rodd: a bar: 99%\r", end="")
        print("odd: long: [" + "p" * 1_000_000 + "]")
        os.write(1, b"odd: long: [" + b"w" * 1_000_000 + b"]\n")
        self.logger.info("odd: long: [%s]", "l" * 1_000_000)
        print("odd: all in lines of their own\n" * 3, end="")
        print("odd: no newline, printed;", end="")
        sys.stdout.flush()
        os.write(2, b"odd: no newline, written;")
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose spiders need no site."""
    return write_project(tmp_path / "project", SPIDERS, package="lab")


def taskid(sender: Running) -> int:
    """The id of the sender's task."""
    return int(sender.wait_for_output(r"vscrapy: task (\d+): ").group(1))


def masked(text: str) -> Counter[str]:
    """The lines with talk, and how often each is there; without what differs from run to run."""
    lines = (line for line in text.splitlines() if "talk: " in line)
    return Counter(re.sub(r"\S*/lab/", "lab/", re.sub(r"\d\d+([-:,.]\d\d+)*", "TIME", line)) for line in lines)


# --- the same as scrapy crawl


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], ""),
        (["-L", "INFO"], ""),
        (["--nolog"], ""),
        (["--logfile", "talk.log"], ""),
        ([], 'LOG_FILE = "talk.log"'),
        (["-s", "LOG_STDOUT=1"], ""),
        (
            ["-s", "LOG_SHORT_NAMES=1", "-s", "LOG_DATEFORMAT=%d.%m. %H Uhr %M"],
            'LOG_FORMAT = "%(levelname)-8s|%(asctime)s|%(name)s|%(module)s:%(lineno)d %(funcName)s|%(message)s"',
        ),
    ],
    ids=["plain", "level", "nolog", "logfile", "log-file-setting", "log-stdout", "format"],
)
def test_lines_are_where_scrapy_puts_them(
    machine: Machine, tmp_path: Path, options: list[str], settings: str
) -> None:
    """Everything that is said arrives once, on stdout, on stderr or in the file, and looks as with scrapy crawl."""
    machine.start_worker()
    projects = {
        program: write_project(tmp_path / program, SPIDERS, package="lab", settings=settings)
        for program in ("scrapy", "vscrapy")
    }
    crawls = {
        program: machine.start([program, "crawl", "talk", *options], project) for program, project in projects.items()
    }
    found = {}
    for program, crawl in crawls.items():
        done = crawl.wait()
        assert done.exit_code == 0, done.output
        log = projects[program] / "talk.log"
        logged = log.read_text() if log.exists() else ""
        found[program] = [masked(text) for text in (done.stdout, done.stderr, logged)]
    assert found["vscrapy"] == found["scrapy"]
    assert found["scrapy"][0].total() + found["scrapy"][2].total() > 0


def test_log_file_begins_as_scrapys_does(machine: Machine, site: Site, tmp_path: Path) -> None:
    """The records of the start are in Scrapy's order, that of the pipelines among them, which run here."""
    machine.start_worker()
    settings = 'LOG_FILE = "crawl.log"\nITEM_PIPELINES = {"lab.pipelines.Nothing": 1}\n'
    begin = re.compile(
        r" \[scrapy[\w.]*\] \w+: (Scrapy \d|Versions|Enabled [a-z ]+|Spider opened|Crawled \(|Dumping)"
    )
    found = {}
    for program in ("scrapy", "vscrapy"):
        made = write_project(tmp_path / program, SPIDERS, package="lab", settings=settings)
        (made / "lab" / "pipelines.py").write_text(
            "class Nothing:\n    def process_item(self, item):\n        return item\n"
        )
        done = machine.run([program, "crawl", "crowd", "-a", f"base={site.base}", "-a", "pages=1"], made)
        assert done.exit_code == 0, done.output
        found[program] = begin.findall((made / "crawl.log").read_text())
    assert found["vscrapy"] == found["scrapy"]
    assert "Enabled item pipelines" in found["scrapy"]


def test_traceback_is_shown_when_a_callback_raises(machine: Machine, project: Path) -> None:
    """An uncaught exception comes with its traceback, once, down to the spider's line."""
    machine.start_worker()
    done = machine.run(["vscrapy", "crawl", "talk"], project)
    assert done.stderr.count("Traceback (most recent call last):") == 1
    assert done.stderr.count('raise ValueError("talk: raised")') == 1
    assert done.stderr.count("\nValueError: talk: raised\n") == 1
    assert re.search(r"'spider_exceptions/(count|ValueError)': 1", done.stderr)


# --- order and time


def test_lines_keep_their_order_when_prints_and_records_mix(machine: Machine, project: Path) -> None:
    """On a terminal, where both outputs are one, a thousand prints and log records come in the order they had."""
    machine.start_worker()
    done = machine.run(["vscrapy", "crawl", "count"], project, pty=True)
    numbers = [int(number) for number in re.findall(r"\bline (\d+)$", done.stdout, re.MULTILINE)]
    assert numbers == list(range(1000))


def test_line_arrives_soon(machine: Machine, project: Path) -> None:
    """From the print in the crawl process to the line on the sender's stdout, it takes a moment only."""
    machine.start_worker()
    stamp = "import sys, time\nfor line in sys.stdin: print(time.time(), line, end='')"
    pipe = 'python=$1; stamp=$2; shift 2; "$@" 2>/dev/null | "$python" -u -c "$stamp"'
    crawl = [str(BIN / "vscrapy"), "crawl", "clock"]
    done = machine.run(["sh", "-c", pipe, "sh", sys.executable, stamp, *crawl], project)
    pairs = re.findall(r"^(\S+) it is (\S+)$", done.stdout, re.MULTILINE)
    assert len(pairs) == 50
    delays_s = sorted(float(arrived) - float(said) for arrived, said in pairs)
    median_s = statistics.median(delays_s)
    spread = f"{delays_s[0] * 1000:.0f} to {delays_s[-1] * 1000:.0f}"
    print(f"figure: a line takes {median_s * 1000:.0f} ms (median of 50; {spread})")
    assert median_s < LATENCY_S


# --- several processes and workers


def test_banner_is_shown_once_when_three_processes_run(machine: Machine, site: Site, project: Path) -> None:
    """Of three crawl processes on one worker, only the first says how it begins, and no line names the worker."""
    machine.start_worker(slots=3)
    sender = machine.start(["vscrapy", "crawl", "crowd", "-a", f"base={site.base}", "-a", "pages=60"], project)
    task = keys.task(taskid(sender))
    wait_for(lambda: machine.store.client.hget(task, "process_seq") == b"3")
    done = sender.wait()
    for words in ("Scrapy 2", "Enabled extensions", "Spider opened", "Closing spider", "Spider closed"):
        assert done.stderr.count(words) == 1, words
    assert sorted(map(int, re.findall(r"^page (\d+)$", done.stdout, re.MULTILINE))) == list(range(60))
    assert "w1" not in done.output


def test_lines_name_their_worker_when_there_are_two(machine: Machine, site: Site, project: Path) -> None:
    """As soon as a second worker has said something, each line says which one it is from."""
    machine.start_worker(name="w1")
    machine.start_worker(name="w2")
    done = machine.run(["vscrapy", "crawl", "crowd", "-a", f"base={site.base}", "-a", "pages=40"], project)
    marks = re.findall(r"^(?:\[(w\d)\] )?page \d+$", done.stdout, re.MULTILINE)
    assert len(marks) == 40
    assert {"w1", "w2"} <= set(marks)
    assert "" not in marks[max(marks.index("w1"), marks.index("w2")) :]
    assert re.search(r"\[crowd\] INFO: \[w[12]\] page \d+$", done.stderr, re.MULTILINE)


# --- much


@pytest.mark.long
def test_cut_is_shown_when_the_log_keeps_few_lines(machine: Machine, project: Path) -> None:
    """With VSCRAPY_LOG_KEEP=100, whoever comes late sees the newest lines, and how many there were before."""
    machine.start_worker()
    options = ["-a", "lines=10000", "-s", "VSCRAPY_LOG_KEEP=100"]
    sender = machine.start(["vscrapy", "crawl", "count", *options], project)
    task = taskid(sender)
    done = sender.wait()
    shown = len(re.findall(r"\bline \d+$", done.output, re.MULTILINE))
    assert shown + sum(map(int, CUT.findall(done.stderr))) >= 10_000
    late = machine.run(["vscrapy", "-c", str(task)], project)
    assert late.exit_code == 0
    n_cut = int(CUT.findall(late.stderr)[0])
    entries, _ = Streams(machine.store).read(task, Cursors(), with_items=False, block_ms=1)
    kept = sum(len(entry.lines) for entry in entries)
    assert n_cut + kept == int(machine.store.client.hget(keys.task(task), "log_lines"))
    assert kept <= 100
    assert len(re.findall(r"\bline \d+$", late.output, re.MULTILINE)) <= kept


def test_burst_arrives_whole_or_with_a_cut(machine: Machine, project: Path) -> None:
    """Of 50,000 lines at once, those that do not arrive show as a cut."""
    machine.start_worker()
    since_s = time.monotonic()
    done = machine.run(["vscrapy", "crawl", "count", "-a", f"lines={BURST}"], project)
    took_s = time.monotonic() - since_s
    numbers = [int(number) for number in re.findall(r"\bline (\d+)$", done.output, re.MULTILINE)]
    n_cut = sum(map(int, CUT.findall(done.stderr)))
    print(f"figure: {len(numbers)} of {BURST} lines in {took_s:.1f} s, {n_cut} cut")
    assert len(numbers) == len(set(numbers))
    assert len(numbers) + n_cut >= BURST


@pytest.mark.parametrize("how", ["pipe", "suspended"])
def test_crawl_is_not_slowed_when_the_terminal_is_slow(
    machine: Machine, project: Path, tmp_path: Path, how: str
) -> None:
    """A sender that cannot print, or does not move, holds up nothing; what was said comes later, all of it."""
    machine.start_worker()
    gate, feed = tmp_path / "gate", tmp_path / "items.jsonl"
    os.mkfifo(gate)
    crawl = [str(BIN / "vscrapy"), "crawl", "flood", "-O", str(feed)]
    if how == "pipe":
        reader = 'gate=$1; shift; "$@" | { read word <"$gate"; exec cat; }'
        sender = machine.start(["sh", "-c", reader, "sh", str(gate), *crawl], project)
        task = taskid(sender)
    else:
        sender = machine.start(crawl, project)
        task = taskid(sender)
        wait_for(lambda: Looks(machine.store).audience([task]).senders[task] == 1, what="the sender is seen")
        sender.signal(signal.SIGSTOP)
    since_s = time.monotonic()
    wait_for(lambda: machine.tasks.record(task).state is TaskState.FINISHED)
    print(f"figure: with a terminal that is {how}, 500 pages took {time.monotonic() - since_s:.2f} s")
    assert machine.tasks.record(task).pages == 500
    assert sender.stdout == ""
    if how == "pipe":
        gate.write_text("go\n")
    else:
        sender.signal(signal.SIGCONT)
    done = sender.wait()
    assert done.exit_code == 0, done.stderr
    assert sorted(map(int, re.findall(r"^page (\d+) x{1000}$", done.stdout, re.MULTILINE))) == list(range(500))
    items = [json.loads(line)["number"] for line in feed.read_text().splitlines()]
    assert sorted(items) == list(range(500))


# --- odd things


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_lines_arrive(machine: Machine, project: Path, encoding: str) -> None:
    """Whatever the bytes are, they arrive, or something that stands for them; the crawl comes to its end."""
    machine.start_worker()
    done = machine.run(["vscrapy", "crawl", "odd"], project, env={"PYTHONIOENCODING": encoding})
    assert done.exit_code == 0, done.stderr
    assert "'finish_reason': 'finished'" in done.stderr
    for words in ("a NUL: [\0]", "a written NUL: [\0]", "no newline, printed;", "a bar: 99%\r"):
        assert done.stdout.count(f"odd: {words}") == 1, words
    assert done.stderr.count("odd: no newline, written;") == 1
    assert done.stdout.count("odd: all in lines of their own\n") == 3
    for start in ("odd: not UTF-8: [", "odd: not UTF-8 through the buffer: [", "odd: a lone surrogate: ["):
        assert done.stdout.count(start) == 1, start
    for letter, output in (("p", done.stdout), ("w", done.stdout), ("l", done.stderr)):
        longest = max(len(run) for run in re.findall(rf"{letter}+", output))
        assert longest > 60_000
        assert longest == 1_000_000 or "cut by vscrapy: the line is too long" in output
    if encoding == "utf-8":
        for words in ("Grüße, 東京, 👩‍👩‍👧, e\u0301, \u202eright to left", "written 東京"):
            assert done.stdout.count(f"odd: {words}\n") == 1, words
        assert "odd: logged 東京 👩‍👩‍👧\n" in done.stderr
    else:
        assert "\\u6771\\u4eac" in done.stdout
    assert "Logging error" not in done.stderr
