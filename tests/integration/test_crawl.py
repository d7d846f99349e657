"""``vscrapy crawl`` does what ``scrapy crawl`` does: the same items, pages, stats, files and exit code."""

from __future__ import annotations

import json
import re
import signal
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.machine import Finished, Machine, Site, copy_project, wait_for, write_project
from tests.integration.outcome import dumped_stats, fixed, requests
from vscrapy import keys
from vscrapy.states import TaskState
from vscrapy.store.tasks import TaskRecord

pytest_plugins = ["tests.integration.machine"]

SPIDERS: Final = ("account", "books", "quotes", "reviews", "sitemap", "trouble")
#: Small, so that several crawl processes are needed.
FEW: Final = ("-s", "CONCURRENT_REQUESTS=4")
#: One request at a time.
ONE: Final = ("--workers", "1", "-s", "CONCURRENT_REQUESTS=1")
#: Requests of an endless start() that wait at a time, at most: 1000, and what is on its way.
MOST_AHEAD: Final = 1500

#: Spiders that each do one thing; the site's pages /trouble/fine/N have any number.
SHOP: Final = """
    import threading
    from pathlib import Path

    from scrapy import Request, Spider, signals
    from scrapy.exceptions import CloseSpider, DontCloseSpider
    from scrapy.statscollectors import MemoryStatsCollector


    class PageSpider(Spider):
        first = range(1, 2)

        def __init__(self, base, **kwargs):
            super().__init__(**kwargs)
            self.base = base

        def page(self, number, callback=None, **kwargs):
            return Request(f"{self.base}/trouble/fine/{number}", callback, **kwargs)

        async def start(self):
            for number in self.first:
                yield self.page(number)

        def item(self, response):
            return {"page": int(response.url.rpartition("/")[2])}

        def parse(self, response):
            yield self.item(response)


    class Lambda(PageSpider):
        name = "lambda"

        def parse(self, response):
            yield self.item(response)
            for number in range(2, 6):
                yield self.page(number, lambda r, n=number: [{"page": n}, self.page(n + 10, self.parse_last)])

        def parse_last(self, response):
            yield self.item(response)


    class Many(PageSpider):
        name = "many"
        first = range(1, 1501)


    class Endless(PageSpider):
        name = "endless"
        first = range(1, 1_000_000)


    class Idle(PageSpider):
        name = "idle"
        left = 3

        @classmethod
        def from_crawler(cls, crawler, *args, **kwargs):
            spider = super().from_crawler(crawler, *args, **kwargs)
            crawler.signals.connect(spider.idle, signals.spider_idle)
            return spider

        def idle(self):
            if self.left:
                self.left -= 1
                self.crawler.engine.crawl(self.page(100 + self.left))
                raise DontCloseSpider


    class UntilTold(Endless):
        name = "until-told"

        def __init__(self, gate, **kwargs):
            super().__init__(**kwargs)
            self.gate = Path(gate)

        def parse(self, response):
            if self.gate.exists():
                raise CloseSpider("enough")
            yield self.item(response)


    class Raises(PageSpider):
        name = "raises"
        first = range(1, 4)

        def parse(self, response):
            yield self.item(response)
            if response.url.endswith("/2"):
                raise RuntimeError("this page is no good")
            yield {"after": True}


    class Unpicklable(PageSpider):
        name = "unpicklable"
        first = range(1, 4)

        def parse(self, response):
            if response.url.endswith("/2"):
                yield {"page": 2, "lock": threading.Lock()}
            yield self.item(response)


    class Twice(PageSpider):
        name = "twice"

        def parse(self, response):
            for _ in range(2):
                yield self.page(2, self.parse_second)
                yield self.page(3, self.parse_second, dont_filter=True)

        def parse_second(self, response):
            yield self.item(response)


    class Priorities(PageSpider):
        name = "priorities"

        def parse(self, response):
            for number in range(10, 40):
                yield self.page(number, self.parse_second, priority=number * 7 % 5)

        def parse_second(self, response):
            yield self.item(response)
            if response.request.priority == 2:
                number = self.item(response)["page"]
                yield self.page(number + 100, self.parse_third, priority=4)
                yield self.page(number + 200, self.parse_third, priority=-1)

        def parse_third(self, response):
            yield self.item(response)


    class Beginning(PageSpider):
        name = "beginning"

        async def start(self):
            yield self.page(1)
            for number, priority in ((2, 1), (5, 0)):
                self.crawler.engine.crawl(self.page(number, priority=priority))
            yield self.page(6)
            yield self.page(3, priority=1)
            yield self.page(4, priority=1)


    class Counted(MemoryStatsCollector):
        def inc_value(self, key, count=1, start=0, **kwargs):
            super().inc_value(key, count, start)
            if key == "response_received_count":
                super().inc_value("counted", 10)


    class Few(PageSpider):
        name = "few"
        first = range(1, 6)
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of one of the six spiders left behind."""

    finished: Finished
    feed: Counter[str]
    pipeline_file: Counter[str]
    #: Method, path and query of each request, and how often.
    requests: Counter[str]
    stats: dict[str, Any]


def lines(path: Path) -> Counter[str]:
    """The lines of a file, without their order."""
    return Counter(path.read_text().splitlines())


def items(path: Path) -> list[dict[str, Any]]:
    """The items of a feed in JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def pages(path: Path) -> list[int]:
    """The pages of the items in a feed, sorted."""
    return sorted(item["page"] for item in items(path))


def live(machine: Machine) -> list[TaskRecord]:
    """The records of the tasks that have not ended."""
    return list(machine.tasks.records(machine.tasks.live_ids()).values())


def n_processes(machine: Machine) -> int:
    """How many crawl processes the newest task has had."""
    return int(machine.store.client.hget(keys.task(machine.last_taskid()), "process_seq"))


def crawl(machine: Machine, program: str, spider: str, site: Site, project: Path, *options: str) -> Outcome:
    """Run one of the six spiders, with all that it leaves behind."""
    site.reset()
    feed = project / "feed.jsonl"
    finished = machine.run([program, "crawl", spider, "-a", f"base={site.base}", "-O", feed.name, *options], project)
    stats = dumped_stats(finished)
    return Outcome(finished, lines(feed), lines(project / f"items-{spider}.jl"), requests(site), stats)


@pytest.fixture(scope="module")
def _cluster(shared_machine: Machine) -> Machine:
    shared_machine.start_worker(1, "w1")
    shared_machine.start_worker(3, "w2")
    return shared_machine


@pytest.fixture
def cluster(_cluster: Machine) -> Iterator[Machine]:
    """The module's machine with two workers, which have four slots together; the tasks of a test end with it."""
    yield _cluster
    _cluster.end_tasks()


@pytest.fixture(scope="module")
def local(
    shared_machine: Machine, _slow_site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Outcome]:
    """What a spider of the example project does with ``scrapy crawl``; run once for all tests."""
    found: dict[str, Outcome] = {}

    def outcome(spider: str) -> Outcome:
        if spider not in found:
            project = copy_project(tmp_path_factory.mktemp("local") / "project")
            found[spider] = crawl(shared_machine, "scrapy", spider, _slow_site, project)
        return found[spider]

    return outcome


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with the spiders of ``SHOP``."""
    return write_project(tmp_path / "shop-project", SHOP)


def run(
    machine: Machine, project: Path, site: Site, spider: str, *options: str, program: str = "vscrapy"
) -> Finished:
    """Run a spider of ``SHOP``; its items go to ``items.jsonl``."""
    return machine.run([program, "crawl", spider, "-a", f"base={site.base}", "-O", "items.jsonl", *options], project)


# --- the six spiders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [pytest.param(("--workers", "1"), marks=pytest.mark.long, id="one-process"), pytest.param(FEW, id="four-slots")],
)
@pytest.mark.parametrize("spider", SPIDERS)
def test_crawl_has_the_outcome_of_scrapy_crawl(
    local: Callable[[str], Outcome],
    cluster: Machine,
    slow_site: Site,
    project: Path,
    spider: str,
    options: tuple[str, ...],
) -> None:
    """Items, the pipeline's file, requests, prints, stats and exit code are the same; stats are printed once."""
    expected = local(spider)
    found = crawl(cluster, "vscrapy", spider, slow_site, project, *options)
    assert found.feed == expected.feed
    assert found.pipeline_file == expected.pipeline_file
    assert found.requests == expected.requests
    assert fixed(found.stats) == fixed(expected.stats)
    assert found.finished.exit_code == expected.finished.exit_code == 0
    marks = re.compile(r"^\[w\d\] ", re.MULTILINE)
    said, expected_said = (Counter(marks.sub("", o.finished.stdout).splitlines()) for o in (found, expected))
    assert said == expected_said
    if "--workers" in options:
        assert n_processes(cluster) == 1
    elif spider == "books":
        assert n_processes(cluster) > 1


# --- feeds --------------------------------------------------------------------------------------------------------


def test_feed_is_appended_to_with_small_o(cluster: Machine, site: Site, shop: Path) -> None:
    """``-o`` adds to the file, as often as it is run."""
    for _ in range(2):
        cluster.run(["vscrapy", "crawl", "few", "-a", f"base={site.base}", "-o", "all.jsonl"], shop)
    assert pages(shop / "all.jsonl") == sorted([*range(1, 6)] * 2)


def test_feed_to_stdout_has_nothing_but_items_on_stdout(cluster: Machine, site: Site, shop: Path) -> None:
    """``-O -:jsonlines`` can be piped into another program."""
    found = cluster.run(["vscrapy", "crawl", "few", "-a", f"base={site.base}", "-O", "-:jsonlines"], shop)
    assert sorted(json.loads(line)["page"] for line in found.stdout.splitlines()) == [1, 2, 3, 4, 5]


def test_feeds_of_the_spider_are_written_where_scrapy_writes_them(
    cluster: Machine, site: Site, tmp_path: Path
) -> None:
    """FEEDS in custom_settings, with a name to fill in, a CSV with its columns in order, and batches."""
    spiders = textwrap.dedent(SHOP) + textwrap.dedent(
        """
        class Fed(Few):
            name = "fed"
            custom_settings = {
                "FEEDS": {
                    "out/%(name)s.csv": {"format": "csv", "fields": ["page", "square"]},
                    "out/batch-%(batch_id)d.json": {"format": "json", "batch_item_count": 2},
                }
            }

            def item(self, response):
                page = super().item(response)["page"]
                return {"square": page * page, "page": page, "hidden": "x"}
        """
    )
    written = {}
    for program in ("scrapy", "vscrapy"):
        project = write_project(tmp_path / program, spiders)
        finished = cluster.run([program, "crawl", "fed", "-a", f"base={site.base}"], project)
        assert finished.exit_code == 0, finished.output
        batches = [json.loads(path.read_text()) for path in sorted(project.glob("out/*.json"))]
        written[program] = (
            lines(project / "out" / "fed.csv"),
            [len(batch) for batch in batches],
            sorted(item["page"] for batch in batches for item in batch),
        )
    assert written["vscrapy"] == written["scrapy"]


def test_items_reach_exporter_and_pipeline_with_their_types(cluster: Machine, site: Site, tmp_path: Path) -> None:
    """A dict, an Item and a dataclass arrive as what they are, with values that JSON does not have."""
    spiders = textwrap.dedent(SHOP) + textwrap.dedent(
        """
        from dataclasses import dataclass, field
        from datetime import datetime, timezone
        from decimal import Decimal
        from scrapy import Field, Item
        from scrapy.exporters import BaseItemExporter

        class Thing(Item):
            page = Field()
            values = Field()

        @dataclass
        class Part:
            page: int
            inner: "Part | None" = None
            values: list = field(default_factory=list)

        VALUES = [b"\\xff", (1, 2), {3}, Decimal("1.10"), datetime(2024, 5, 1, tzinfo=timezone.utc), None, "Zürich"]

        class Typed(PageSpider):
            name = "typed"
            def parse(self, response):
                yield {"page": 1, "values": VALUES}
                yield Thing(page=2, values=VALUES)
                yield Part(3, Part(4), VALUES)

        def words(item):
            return f"{type(item).__module__}.{type(item).__qualname__} {item!r}\\n"

        class Pipeline:
            def process_item(self, item):
                with open("pipeline.txt", "a") as file:
                    file.write(words(item))
                return item

        class Exporter(BaseItemExporter):
            def __init__(self, file, **kwargs):
                super().__init__(**kwargs)
                self.file = file
            def export_item(self, item):
                self.file.write(words(item).encode())
        """
    )
    settings = """
        ITEM_PIPELINES = {"shop.spiders.Pipeline": 1}
        FEED_EXPORTERS = {"words": "shop.spiders.Exporter"}
    """
    written = {}
    for program in ("scrapy", "vscrapy"):
        project = write_project(tmp_path / program, spiders, settings=settings)
        command = [program, "crawl", "typed", "-a", f"base={site.base}", "-O", "feed.txt:words"]
        finished = cluster.run(command, project)
        assert finished.exit_code == 0, finished.output
        written[program] = (project / "feed.txt").read_text(), (project / "pipeline.txt").read_text()
    assert written["vscrapy"] == written["scrapy"]
    assert "shop.spiders.Part Part(page=3, inner=Part(page=4" in written["vscrapy"][0]


# --- where the code comes from ------------------------------------------------------------------------------------


def test_runspider_runs_a_single_file_with_the_module_beside_it(cluster: Machine, site: Site, tmp_path: Path) -> None:
    """No project is needed; what the file imports from its own directory comes along."""
    directory = tmp_path / "single"
    directory.mkdir()
    (directory / "beside.py").write_text("WORD = 'beside'\n")
    (directory / "alone.py").write_text(
        textwrap.dedent(
            """
            import scrapy
            from beside import WORD

            class Alone(scrapy.Spider):
                name = "alone"

                def __init__(self, base, **kwargs):
                    super().__init__(**kwargs)
                    self.start_urls = [f"{base}/trouble/fine/1"]

                def parse(self, response):
                    yield {"page": 1, "word": WORD}
            """
        )
    )
    command = ["vscrapy", "runspider", "alone.py", "-a", f"base={site.base}", "-O", "alone.jsonl"]
    finished = cluster.run(command, directory)
    assert finished.exit_code == 0, finished.output
    assert items(directory / "alone.jsonl") == [{"page": 1, "word": "beside"}]
    assert len(site.log()) == 1


def test_crawl_takes_along_what_the_spider_imports_and_reads(cluster: Machine, site: Site, tmp_path: Path) -> None:
    """A package from PYTHONPATH outside the project, a file beside the module, one in the working directory."""
    library = tmp_path / "lib" / "outside"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("from outside.inner import WORD\n")
    (library / "inner.py").write_text("WORD = 'outside'\n")
    (library / "data.txt").write_text("beside the package\n")
    project = write_project(
        tmp_path / "project",
        SHOP
        + """
    import outside

    class Reader(PageSpider):
        name = "reader"
        def parse(self, response):
            yield {
                "import": outside.WORD,
                "package": Path(outside.__file__).with_name("data.txt").read_text().strip(),
                "module": Path(__file__).with_name("data.txt").read_text().strip(),
                "working": Path("data/here.txt").read_text().strip(),
            }
    """,
    )
    (project / "shop" / "data.txt").write_text("beside the module\n")
    (project / "deep" / "data").mkdir(parents=True)
    (project / "deep" / "data" / "here.txt").write_text("below the working directory\n")
    finished = cluster.run(
        ["vscrapy", "crawl", "reader", "-a", f"base={site.base}", "-O", "items.jsonl"],
        project / "deep",
        env={"PYTHONPATH": str(tmp_path / "lib")},
    )
    assert finished.exit_code == 0, finished.output
    assert items(project / "deep" / "items.jsonl") == [
        {
            "import": "outside",
            "package": "beside the package",
            "module": "beside the module",
            "working": "below the working directory",
        }
    ]


def test_two_projects_with_the_same_package_name_do_not_mix(
    cluster: Machine, slow_site: Site, tmp_path: Path
) -> None:
    """Two tasks at once, on the same workers, each with its own code."""
    gate = tmp_path / "gate"
    running = {}
    for name in ("one", "two"):
        project = write_project(tmp_path / name, SHOP)
        project.joinpath("shop", "names.py").write_text(f"NAME = {name!r}\n")
        with project.joinpath("shop", "spiders.py").open("a") as file:
            file.write("\nfrom shop.names import NAME\nUntilTold.item = lambda *_: {'page': NAME}\n")
        command = ["vscrapy", "crawl", "until-told", "-a", f"base={slow_site.base}", "-a", f"gate={gate}"]
        running[project] = cluster.start([*command, "-O", "items.jsonl", *ONE], project)
    wait_for(lambda: [record.items > 20 for record in live(cluster)] == [True, True], what="both have items")
    gate.touch()
    for project, process in running.items():
        assert process.wait().exit_code == 0
        found = items(project / "items.jsonl")
        assert found == [{"page": project.name}] * len(found)
        assert len(found) > 20


# --- detached -----------------------------------------------------------------------------------------------------


def test_detached_task_is_followed_to_its_end_and_its_items_are_fetched(
    local: Callable[[str], Outcome], cluster: Machine, slow_site: Site, project: Path
) -> None:
    """``--detach`` says the taskid; ``-c`` ends with the task's exit code; ``items`` writes what ``-O`` writes."""
    command = ["vscrapy", "crawl", "account", "-a", f"base={slow_site.base}", "-O", "feed.jsonl", "--detach"]
    sent = cluster.run(command, project)
    assert sent.exit_code == 0
    taskid = cluster.last_taskid()
    assert f"task {taskid}" in sent.stdout
    assert f"vscrapy -c {taskid}" in sent.stdout

    followed = cluster.run(["vscrapy", "-c", str(taskid)], project)
    assert followed.exit_code == 0
    assert f"task {taskid} ended: finished (exit code 0)" in followed.stderr

    fetched = cluster.run(["vscrapy", "items", str(taskid), "-o", "fetched.jsonl"], project)
    assert fetched.exit_code == 0
    assert lines(project / "fetched.jsonl") == local("account").feed
    assert not (project / "feed.jsonl").exists()
    printed = cluster.run(["vscrapy", "items", str(taskid)], project)
    assert Counter(printed.stdout.splitlines()) == local("account").feed


# --- spiders of all kinds -----------------------------------------------------------------------------------------


def test_lambda_callbacks_are_run_and_told_once(cluster: Machine, site: Site, shop: Path) -> None:
    """A request that cannot travel is done where it was made; what comes of it travels again."""
    finished = run(cluster, shop, site, "lambda")
    assert finished.exit_code == 0
    assert pages(shop / "items.jsonl") == [1, 2, 3, 4, 5, 12, 13, 14, 15]
    assert finished.stderr.count("cannot travel") == 1


def test_many_start_requests_are_each_done_once(cluster: Machine, site: Site, shop: Path) -> None:
    """1,500 of them, more than are read ahead."""
    finished = run(cluster, shop, site, "many", "-L", "INFO")
    assert finished.exit_code == 0
    assert pages(shop / "items.jsonl") == list(range(1, 1501))
    assert set(requests(site).values()) == {1}
    assert dumped_stats(finished)["scheduler/enqueued"] == 1500


def test_endless_start_is_read_as_far_ahead_as_is_needed(cluster: Machine, slow_site: Site, shop: Path) -> None:
    """Neither the frontier nor the process fills up, and pages are crawled meanwhile, one after the other."""
    command = ["vscrapy", "crawl", "endless", "-a", f"base={slow_site.base}", "-L", "INFO", *FEW]
    running = cluster.start(command, shop)
    deepest = 0

    def has_crawled() -> bool:
        nonlocal deepest
        deepest = max(deepest, *(record.queued for record in live(cluster)), 0)
        return len(slow_site.log()) >= 300

    wait_for(has_crawled, timeout=60, what="300 pages are there")
    running.signal(signal.SIGINT)
    assert running.wait().exit_code == 0
    assert 300 < deepest < MOST_AHEAD


def test_idle_handler_feeds_requests(cluster: Machine, site: Site, shop: Path) -> None:
    """spider_idle comes when the task has nothing to do; DontCloseSpider keeps it going."""
    finished = run(cluster, shop, site, "idle")
    assert finished.exit_code == 0
    assert pages(shop / "items.jsonl") == [1, 100, 101, 102]


def test_close_spider_in_a_callback_ends_all_processes(
    cluster: Machine, slow_site: Site, shop: Path, tmp_path: Path
) -> None:
    """The reason stands in the stats and in the task's record, and nobody crawls on."""
    gate = tmp_path / "gate"
    command = ["vscrapy", "crawl", "until-told", "-a", f"base={slow_site.base}", "-a", f"gate={gate}"]
    running = cluster.start([*command, "-O", "items.jsonl", *FEW], shop)
    wait_for(
        lambda: [record.processes > 1 and record.items > 0 for record in live(cluster)] == [True],
        what="several processes, and items",
    )
    gate.touch()
    finished = running.wait()
    assert finished.exit_code == 0
    assert dumped_stats(finished)["finish_reason"] == "enough"
    assert finished.stderr.count("Closing spider (enough)") == 1
    assert finished.stderr.count("Spider closed (enough)") == 1
    record = cluster.tasks.record(cluster.last_taskid())
    assert (record.state, record.reason, record.exit_code) == (TaskState.FINISHED, "enough", 0)
    assert record.processes == 0
    found = pages(shop / "items.jsonl")
    assert found
    assert len(found) == len(set(found))


def test_exception_in_a_callback_is_logged_and_the_rest_goes_on(cluster: Machine, site: Site, shop: Path) -> None:
    """What the callback gave before it is kept, its traceback is shown as Scrapy shows it."""
    finished = run(cluster, shop, site, "raises")
    assert finished.exit_code == 0
    found = items(shop / "items.jsonl")
    assert sorted(item["page"] for item in found if "page" in item) == [1, 2, 3]
    assert found.count({"after": True}) == 2
    assert re.search(
        r"\[scrapy\.core\.scraper\] ERROR: Spider error processing <GET \S+/trouble/fine/2> \(referer: None\)\n"
        r"Traceback \(most recent call last\):\n(?:.*\n)*?"
        r'  File ".*/shop/spiders\.py", line \d+, in parse\n'
        r'    raise RuntimeError\("this page is no good"\)\n'
        r"RuntimeError: this page is no good\n",
        finished.stderr,
    ), finished.stderr
    assert dumped_stats(finished)["spider_exceptions/RuntimeError"] == 1


def test_unpicklable_item_is_an_error_line_and_the_rest_goes_on(cluster: Machine, site: Site, shop: Path) -> None:
    """It cannot come home; that is said with the item, and counted."""
    finished = run(cluster, shop, site, "unpicklable")
    assert finished.exit_code == 0
    assert pages(shop / "items.jsonl") == [1, 2, 3]
    errors = [line for line in finished.stderr.splitlines() if " ERROR: " in line]
    assert len(errors) == 1
    assert "an item cannot travel to the sender and is lost" in errors[0]
    assert "'page': 2" in errors[0]
    assert dumped_stats(finished)["vscrapy/items_not_sent"] == 1


def test_dont_filter_requests_are_done_each_time(cluster: Machine, site: Site, shop: Path) -> None:
    """Two equal requests with dont_filter are two requests, without it they are one."""
    finished = run(cluster, shop, site, "twice")
    assert pages(shop / "items.jsonl") == [2, 3, 3]
    assert dumped_stats(finished)["dupefilter/filtered"] == 1


def test_stats_class_of_the_spider_counts(cluster: Machine, site: Site, tmp_path: Path) -> None:
    """STATS_CLASS in custom_settings, as in the project's settings; what it adds to the stats is in the task's."""
    spiders = textwrap.dedent(SHOP) + textwrap.dedent(
        """
        class FewCounted(Few):
            name = "few-counted"
            custom_settings = {"STATS_CLASS": Counted}
        """
    )
    finished = run(cluster, write_project(tmp_path / "project", spiders), site, "few-counted")
    assert dumped_stats(finished)["counted"] == 50


def test_stats_class_that_raises_in_the_end_keeps_no_task_from_ending(
    cluster: Machine, site: Site, tmp_path: Path
) -> None:
    """What is wrong with the project's own class is logged."""
    spiders = textwrap.dedent(SHOP) + textwrap.dedent(
        """
        class Fixed(Counted):
            def set_stats(self, stats, spider=None):
                raise NotImplementedError("count, please")


        class FewFixed(Few):
            name = "few-fixed"
            custom_settings = {"STATS_CLASS": Fixed}
        """
    )
    finished = run(cluster, write_project(tmp_path / "project", spiders), site, "few-fixed")
    assert finished.exit_code == 0
    assert "NotImplementedError: count, please" in finished.stderr


@pytest.mark.parametrize(
    ("spider", "options"),
    [
        ("priorities", ()),
        ("priorities", ("-s", "DEPTH_PRIORITY=1", "-s", "SCHEDULER_MEMORY_QUEUE=scrapy.squeues.FifoMemoryQueue")),
        ("beginning", ()),
        ("beginning", ("-s", "SCHEDULER_START_MEMORY_QUEUE=scrapy.squeues.LifoMemoryQueue")),
    ],
    ids=["depth-first", "breadth-first", "start", "last-start-first"],
)
def test_order_is_scrapys_with_one_request_at_a_time(
    cluster: Machine, slow_site: Site, shop: Path, spider: str, options: tuple[str, ...]
) -> None:
    """By priority, then as the queues say: one process, one request at a time: the very order of Scrapy."""
    order = {}
    for program, alone in (("scrapy", ONE[2:]), ("vscrapy", ONE)):
        slow_site.reset()
        assert run(cluster, shop, slow_site, spider, *alone, *options, program=program).exit_code == 0
        order[program] = [int(entry["path"].rpartition("/")[2]) for entry in slow_site.log()]
    assert order["vscrapy"] == order["scrapy"]


# --- reactors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", "twisted.internet.asyncioreactor.AsyncioSelectorReactor"),
        (
            "TWISTED_REACTOR = 'twisted.internet.epollreactor.EPollReactor'",
            "twisted.internet.epollreactor.EPollReactor",
        ),
        (
            "TWISTED_REACTOR = 'twisted.internet.selectreactor.SelectReactor'",
            "twisted.internet.selectreactor.SelectReactor",
        ),
        ("TWISTED_REACTOR_ENABLED = False", None),
    ],
    ids=["asyncio", "epoll", "select", "none"],
)
def test_crawl_runs_under_the_project_s_reactor(
    cluster: Machine, site: Site, tmp_path: Path, settings: str, expected: str | None
) -> None:
    """The reactor that the settings name drives the crawl process, and home; also none at all."""
    project = write_project(tmp_path / "project", SHOP, settings=settings)
    finished = run(cluster, project, site, "few")
    assert finished.exit_code == 0, finished.output
    assert pages(project / "items.jsonl") == [1, 2, 3, 4, 5]
    assert re.findall(r"Using reactor: (\S+)", finished.stderr) == ([expected] if expected else [])
    assert dumped_stats(finished)["finish_reason"] == "finished"
