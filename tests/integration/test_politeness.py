"""What the site sees of a task on several crawl processes: no more than one ``scrapy crawl`` would send it."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.machine import Machine, Running, Site, is_alive, wait_for, write_project
from vscrapy import keys
from vscrapy.errors import ConfigError
from vscrapy.states import TaskState

pytest_plugins = ["tests.integration.machine"]

#: Downloads of a site at once, in these tests.
MOST = 4
#: The same, with pages and media.
MOST_OF_BOTH = 8
#: Latency of the site where the use of its limit is measured (ms): what else there is to do counts little.
LATENCY_MS = 500
#: How late one request may be on its way to the site (seconds).
JITTER_S = 0.02


def crawl(machine: Machine, project: Path, site: Site, spider: str, *settings: str) -> int:
    """Run a spider of the example project to its end; the number of crawl processes that worked on it."""
    options = [part for setting in settings for part in ("-s", setting)]
    finished = machine.run(["vscrapy", "crawl", spider, "-a", f"base={site.base}", *options], project)
    assert finished.exit_code == 0, finished.stderr
    record = machine.store.client.hgetall(keys.task(machine.last_taskid()))
    return int(record[b"process_seq"])


def shortest_s(log: list[dict[str, Any]], n_gaps: int) -> float:
    """The shortest time in which *n_gaps* requests followed one; over several, for one may be late on its way."""
    starts: list[float] = sorted(entry["start_monotonic_s"] for entry in log)
    return min(later - earlier for earlier, later in zip(starts, starts[n_gaps:], strict=False))


@pytest.mark.parametrize("queue", ["DownloaderAwarePriorityQueue", "ScrapyPriorityQueue"])
def test_politeness_concurrency_holds_for_the_task_on_three_processes(
    machine: Machine, project: Path, slow_site: Site, queue: str
) -> None:
    """Three processes together run as many downloads of a site as CONCURRENT_REQUESTS_PER_DOMAIN says, no more."""
    machine.start_worker(slots=3)
    n_processes = crawl(
        machine,
        project,
        slow_site,
        "sitemap",
        f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}",
        f"CONCURRENT_REQUESTS={MOST}",
        f"SCHEDULER_PRIORITY_QUEUE=scrapy.pqueues.{queue}",
    )
    assert n_processes == 3
    assert slow_site.state()["peak"] == MOST


def test_politeness_delay_holds_for_the_task_on_three_processes(machine: Machine, project: Path, site: Site) -> None:
    """Downloads of a site follow each other with DOWNLOAD_DELAY between them, whoever starts them."""
    machine.start_worker(slots=3)
    delay_s = 0.02
    crawl(
        machine,
        project,
        site,
        "quotes",
        f"DOWNLOAD_DELAY={delay_s}",
        "RANDOMIZE_DOWNLOAD_DELAY=False",
        "CONCURRENT_REQUESTS=2",
    )
    assert shortest_s(site.log(), 10) >= 10 * delay_s - JITTER_S


@pytest.mark.long
def test_politeness_process_without_work_gives_its_slot_back(machine: Machine, project: Path, site: Site) -> None:
    """With a delay one process does it all; one that joined leaves again, for other tasks to have its slot."""
    machine.start_worker(slots=2)
    running = machine.start(
        [
            "vscrapy",
            "crawl",
            "quotes",
            "-a",
            f"base={site.base}",
            *("-s", "DOWNLOAD_DELAY=0.06", "-s", "CONCURRENT_REQUESTS=2"),
        ],
        project,
    )
    running.wait_for_output(r"crawl process 2 leaves")
    taskid = machine.last_taskid()
    wait_for(lambda: machine.tasks.record(taskid).processes == 1, what="one process has left")
    assert running.wait().exit_code == 0


def test_politeness_robots_txt_is_fetched_once_on_three_processes(
    machine: Machine, project: Path, slow_site: Site
) -> None:
    """What one process learned of robots.txt, the others know; and so do they of a session's cookie."""
    machine.start_worker(slots=3)
    assert crawl(machine, project, slow_site, "account", "CONCURRENT_REQUESTS=2") > 1
    log = slow_site.log()
    assert [entry["path"] for entry in log].count("/robots.txt") == 1
    assert [entry for entry in log if entry["path"] == "/login" and entry["method"] == "GET"] == [
        next(entry for entry in log if entry["path"] == "/login")
    ]


def test_politeness_is_per_process_when_the_project_says_so(machine: Machine, project: Path, slow_site: Site) -> None:
    """With VSCRAPY_POLITENESS = "worker", each process uses the whole concurrency."""
    machine.start_worker(slots=3)
    crawl(
        machine,
        project,
        slow_site,
        "sitemap",
        "VSCRAPY_POLITENESS=worker",
        f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}",
        f"CONCURRENT_REQUESTS={MOST}",
    )
    assert slow_site.state()["peak"] > MOST


def test_politeness_refuses_another_word_for_the_setting(machine: Machine, project: Path, site: Site) -> None:
    """A wrong VSCRAPY_POLITENESS ends the crawl, and says which words there are."""
    machine.start_worker(slots=1)
    finished = machine.run(
        ["vscrapy", "crawl", "quotes", "-a", f"base={site.base}", "-s", "VSCRAPY_POLITENESS=none"], project
    )
    assert (finished.exit_code, finished.stdout) == (ConfigError.exit_code, "")
    assert 'it takes "task" or "worker"' in finished.stderr
    assert "Traceback" not in finished.stderr


# --- what has no lease ----------------------------------------------------------------------------------------------

SPIDERS = """
    import asyncio

    import scrapy
    from scrapy.utils.defer import maybe_deferred_to_future


    class Pictures(scrapy.Spider):
        name = "pictures"

        async def start(self):
            for number in range(1, int(self.pages) + 1):
                yield scrapy.Request(f"{self.base}/quotes/page/1/?n={number}", cb_kwargs={"number": number})

        def parse(self, response, number):
            urls = [f"{self.base}/shop/image/{number}.png"]
            yield {"url": response.url, "file_urls": urls, "image_urls": urls}


    class Inline(Pictures):
        name = "inline"

        async def parse(self, response, number):
            other = self.base.replace("127.0.0.1", "localhost")
            found = await asyncio.gather(*(
                self.fetch(scrapy.Request(f"{other}/quotes/page/2/?n={number}&part={part}")) for part in range(2)
            ))
            yield {"url": response.url, "statuses": [response.status for response in found]}

        def fetch(self, request):
            engine = self.crawler.engine
            if hasattr(engine, "download_async"):  # since Scrapy 2.14
                return engine.download_async(request)
            return maybe_deferred_to_future(engine.download(request))
"""
MEDIA = """
    ITEM_PIPELINES = {"scrapy.pipelines.%s": 1}
    FILES_STORE = IMAGES_STORE = "store"
"""


def pictures(
    machine: Machine, directory: Path, site: Site, spider: str, pages: int, *options: str, settings: str = ""
) -> Running:
    """Start a crawl of so many pages."""
    project = directory / "shop"
    if not project.exists():
        write_project(project, SPIDERS, settings=settings)
    return machine.start(
        ["vscrapy", "crawl", spider, "-a", f"base={site.base}", "-a", f"pages={pages}", "-L", "INFO", *options],
        project,
    )


def is_medium(entry: dict[str, Any]) -> bool:
    """Is it a medium that was asked for, and no page?"""
    return str(entry["path"]).startswith("/shop/image/")


def used(log: list[dict[str, Any]], most: int) -> float:
    """How much of the limit was used, from when both pages and media come to the last page."""
    media = sorted(entry["start_monotonic_s"] for entry in log if is_medium(entry))
    begin_s = media[len(media) // 10]
    end_s = max(entry["start_monotonic_s"] for entry in log if not is_medium(entry))
    busy_s = sum(
        max(0.0, min(entry["end_monotonic_s"], end_s) - max(entry["start_monotonic_s"], begin_s)) for entry in log
    )
    return float(busy_s / (end_s - begin_s) / most)


def at_once(log: list[dict[str, Any]]) -> int:
    """The most requests of a log that the site had at a time."""
    moments = sorted(
        moment for entry in log for moment in ((entry["start_monotonic_s"], 1), (entry["end_monotonic_s"], -1))
    )
    peak = active = 0
    for _, change in moments:
        active += change
        peak = max(peak, active)
    return peak


@pytest.mark.long
@pytest.mark.parametrize(
    ("n_processes", "pipeline"), [(1, "images.ImagesPipeline"), (3, "files.FilesPipeline")], ids=["1", "3"]
)
def test_politeness_holds_for_pages_and_media_together(
    machine: Machine, tmp_path: Path, site: Site, n_processes: int, pipeline: str
) -> None:
    """Crawl processes and home's media pipeline share a host's concurrency, and leave little of it unused."""
    machine.start_worker(slots=n_processes)
    site.set_latency(LATENCY_MS)
    running = pictures(
        machine,
        tmp_path,
        site,
        "pictures",
        60 + 30 * n_processes,
        *("-s", f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST_OF_BOTH}", "-s", f"CONCURRENT_REQUESTS={MOST_OF_BOTH}"),
        settings=MEDIA % pipeline,
    )
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    state = site.state()
    assert state["peak"] == MOST_OF_BOTH
    assert len([entry for entry in state["entries"] if is_medium(entry)]) == 60 + 30 * n_processes
    assert used(state["entries"], MOST_OF_BOTH) >= 0.9
    record = machine.store.client.hgetall(keys.task(machine.last_taskid()))
    assert int(record[b"process_seq"]) == n_processes


@pytest.mark.long
def test_politeness_holds_for_media_where_the_frontier_has_one_queue(
    machine: Machine, tmp_path: Path, slow_site: Site
) -> None:
    """With ScrapyPriorityQueue, home has a share of the one queue's."""
    machine.start_worker(slots=2)
    running = pictures(
        machine,
        tmp_path,
        slow_site,
        "pictures",
        80,
        *("-s", f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}", "-s", f"CONCURRENT_REQUESTS={MOST}"),
        *("-s", "SCHEDULER_PRIORITY_QUEUE=scrapy.pqueues.ScrapyPriorityQueue"),
        settings=MEDIA % "files.FilesPipeline",
    )
    assert running.wait().exit_code == 0
    assert slow_site.state()["peak"] == MOST
    assert sum(map(is_medium, slow_site.log())) == 80


@pytest.mark.long
@pytest.mark.parametrize("n_processes", [1, 3])
def test_politeness_delay_holds_for_pages_and_media_and_both_have_turns(
    machine: Machine, tmp_path: Path, site: Site, n_processes: int
) -> None:
    """One delay between any two downloads of a host, and media come long before the last page."""
    machine.start_worker(slots=n_processes)
    delay_s = 0.05
    running = pictures(
        machine,
        tmp_path,
        site,
        "pictures",
        60,
        *("-s", f"DOWNLOAD_DELAY={delay_s}", "-s", "RANDOMIZE_DOWNLOAD_DELAY=False"),
        settings=MEDIA % "files.FilesPipeline",
    )
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    log = sorted(site.log(), key=lambda entry: float(entry["start_monotonic_s"]))
    assert len(log) == 120
    assert shortest_s(log, 10) >= 9 * delay_s  # one may be late on its way
    turns = sum(is_medium(one) != is_medium(other) for one, other in pairwise(log))
    assert turns >= 3, [entry["path"] for entry in log]


@pytest.mark.long
@pytest.mark.parametrize("most", [1, MOST])
def test_politeness_holds_for_downloads_in_callbacks_on_three_processes(
    machine: Machine, tmp_path: Path, slow_site: Site, most: int
) -> None:
    """A host that no process has a lease of is shared as well; with one download at a time, in turns."""
    machine.start_worker(slots=3)
    running = pictures(
        machine,
        tmp_path,
        slow_site,
        "inline",
        90,
        *("-s", f"CONCURRENT_REQUESTS_PER_DOMAIN={most}", "-s", "CONCURRENT_REQUESTS=8"),
        *("-O", "items.jl"),
    )
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    log = slow_site.log()
    inline = [entry for entry in log if entry["path"] == "/quotes/page/2/"]
    assert len(inline) == 180
    assert at_once(inline) == most


def needs(machine: Machine, taskid: int, name: str = "*") -> list[bytes]:
    """The keys of the needs of processes whose names are like this."""
    found: list[bytes] = machine.store.client.keys(f"{keys.prefix(taskid)}needs:{name}")
    return found


@pytest.mark.long
def test_politeness_share_of_a_killed_process_goes_to_the_others(
    machine: Machine, tmp_path: Path, slow_site: Site
) -> None:
    """A crawl process that is killed while it downloads a host without a lease leaves nothing behind."""
    machine.start_worker(slots=2)
    running = pictures(
        machine,
        tmp_path,
        slow_site,
        "inline",
        120,
        *("-s", f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}", "-s", "CONCURRENT_REQUESTS=8", "-O", "items.jl"),
    )
    running.wait_for_output(r"task \d+: inline")
    taskid = machine.last_taskid()
    key = wait_for(lambda: needs(machine, taskid), what="a process has a need")[0]
    wait_for(lambda: machine.tasks.record(taskid).pages > 5, what="pages")
    process = key.decode().rpartition("needs:")[2]
    pids = [pid for pid, title in machine.processes().items() if title.startswith("vscrapy-crawl")]
    pid = min(pids)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid), what=f"crawl process {process} is dead")
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    items = (tmp_path / "shop" / "items.jl").read_text().splitlines()
    assert len(items) == 120
    assert at_once([entry for entry in slow_site.log() if entry["path"] == "/quotes/page/2/"]) <= 2 * MOST
    assert needs(machine, taskid) == []


@pytest.mark.long
def test_politeness_share_of_a_killed_home_is_given_back(machine: Machine, tmp_path: Path, slow_site: Site) -> None:
    """A sender that is killed while its pipelines download leaves nothing behind, and the same command goes on."""
    machine.start_worker(slots=1)
    command = (
        "pictures",
        300,
        *("-s", f"CONCURRENT_REQUESTS_PER_DOMAIN={MOST}", "-s", f"CONCURRENT_REQUESTS={MOST}", "-s", "JOBDIR=job"),
    )
    running = pictures(machine, tmp_path, slow_site, *command, settings=MEDIA % "files.FilesPipeline")
    running.wait_for_output(r"task \d+: pictures")
    taskid = machine.last_taskid()
    wait_for(lambda: needs(machine, taskid, "home"), what="home downloads")
    running.kill()
    wait_for(lambda: machine.tasks.record(taskid).state is TaskState.SUSPENDED, what="the task is suspended")
    client, prefix = machine.store.client, keys.prefix(taskid)
    assert [key for kind in ("needs", "holders", "waiters") for key in client.keys(f"{prefix}{kind}:*")] == []
    finished = pictures(machine, tmp_path, slow_site, *command).wait()
    assert finished.exit_code == 0, finished.stderr
    assert slow_site.state()["peak"] == MOST
    assert {entry["path"] for entry in slow_site.log() if is_medium(entry)} == {
        f"/shop/image/{number}.png" for number in range(1, 301)
    }


def test_politeness_home_goes_on_when_commits_are_refused(machine: Machine, tmp_path: Path, slow_site: Site) -> None:
    """Redis is out of memory: what home takes frees some, so the crawl processes still let it have its share."""
    machine.start_worker(slots=1)
    running = pictures(
        machine,
        tmp_path,
        slow_site,
        "pictures",
        60,
        *("-s", "CONCURRENT_REQUESTS_PER_DOMAIN=1", "-s", "CONCURRENT_REQUESTS=4"),
        settings=MEDIA % "files.FilesPipeline",
    )
    running.wait_for_output(r"task \d+: pictures")
    taskid = machine.last_taskid()
    wait_for(lambda: needs(machine, taskid, "home"), what="home waits for its turn")
    client = machine.store.client
    client.config_set("maxmemory", 1)
    n_before = sum(map(is_medium, slow_site.log()))
    n_items = sum(int(fields[b"n"]) for _, fields in client.xrange(keys.items(taskid)))
    assert n_items
    wait_for(lambda: sum(map(is_medium, slow_site.log())) > n_before, what="media come")
    wait_for(lambda: client.xlen(keys.items(taskid)) == 0, what="home has taken all items")
    client.config_set("maxmemory", 0)
    finished = running.wait()
    assert finished.exit_code == 0, finished.stderr
    assert sum(map(is_medium, slow_site.log())) == 60


@pytest.mark.long
def test_politeness_counts_requests_in_flight_of_the_whole_task(
    machine: Machine, project: Path, slow_site: Site
) -> None:
    """Where CONCURRENT_REQUESTS is the smaller one, a site sees no more than that from all processes together."""
    machine.start_worker(slots=3)
    assert crawl(machine, project, slow_site, "sitemap", "CONCURRENT_REQUESTS=3") == 3
    assert slow_site.state()["peak"] <= 4  # robots.txt is downloaded beside the requests in flight
