"""The preflight at a user's terminal: as a crawl starts, and with ``--check``."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tests.integration.machine import Machine, Site, copy_project, write_project
from vscrapy import embedded

pytest_plugins = ["tests.integration.machine"]

SPIDERS = """
    from scrapy import Request, Spider


    class Counting(Spider):
        name = "counting"
        n = 0

        def __init__(self, base="http://127.0.0.1:1", **kwargs):
            super().__init__(**kwargs)
            self.base = base

        async def start(self):
            for number in range(1, 6):
                yield Request(f"{self.base}/trouble/fine/{number}")

        def parse(self, response):
            self.n += 1
            yield {"n": self.n}


    class Plain(Counting):
        name = "plain"

        def parse(self, response):
            yield {"url": response.url}
"""
OWN = """
    from scrapy.core.scheduler import Scheduler
    from scrapy.dupefilters import RFPDupeFilter


    class Queue(Scheduler):
        pass


    class Filter(RFPDupeFilter):
        def request_seen(self, request):
            return super().request_seen(request)


    print("own is imported")


    class AddOn:
        def update_settings(self, settings):
            print("the add-on speaks")
            settings.set("DUPEFILTER_CLASS", Filter, "addon")
            if settings.getbool("WITH_QUEUE"):
                settings.set("SCHEDULER", Queue, "addon")
"""
NAMED = "shop/spiders.py:18: state-on-self: Counting.parse() changes self.n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a spider that counts, and one that does not."""
    return write_project(tmp_path / "shop-project", SPIDERS)


@pytest.fixture
def own(shop: Path) -> Path:
    """The same project, with a scheduler and a filter of its own, and an add-on that may put them in."""
    (shop / "shop" / "own.py").write_text(textwrap.dedent(OWN))
    return shop


def add(project: Path, setting: str) -> None:
    """Put one more line into a project's settings."""
    with (project / "shop" / "settings.py").open("a") as settings:
        settings.write(f"{setting}\n")


def checks(stderr: str) -> list[str]:
    """The lines that the preflight has said."""
    return [line for line in stderr.splitlines() if line.startswith("vscrapy: check: ")]


def test_start_names_what_differs_and_crawls(machine: Machine, site: Site, shop: Path) -> None:
    """One line before the task is there; with one process, or with nothing to say, none."""
    machine.start_worker(1, "w1")
    base = ("-a", f"base={site.base}")
    found = machine.run(["vscrapy", "crawl", "counting", *base, "-O", "n.jsonl"], shop)
    assert found.exit_code == 0, found.output
    [line] = checks(found.stderr)
    assert line.startswith("vscrapy: check: shop/spiders.py:18: Counting.parse() changes self.n [state-on-self]: ")
    assert found.stderr.index(line) < found.stderr.index("vscrapy: task 1: ")
    assert sorted(json.loads(item)["n"] for item in (shop / "n.jsonl").read_text().splitlines()) == [1, 2, 3, 4, 5]
    for options in (["counting", *base, "--workers", "1"], ["plain", *base]):
        silent = machine.run(["vscrapy", "crawl", *options], shop)
        assert silent.exit_code == 0, silent.output
        assert checks(silent.stderr) == []
    detached = machine.run(["vscrapy", "crawl", "counting", *base, "--detach"], shop)
    assert detached.exit_code == 0, detached.output
    assert len(checks(detached.stderr)) == 1
    machine.end_tasks()


def test_check_says_all_and_crawls_nothing(machine: Machine, shop: Path) -> None:
    """What, why and what to do; no server is started, no task is made, and the exit code is 0."""
    found = machine.run(["vscrapy", "crawl", "--check", "counting"], shop)
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout.splitlines()[0] == NAMED
    assert [line.split(":")[0].strip() for line in found.stdout.splitlines()[1:]] == ["why", "do"]
    assert embedded.find(machine.home) is None


@pytest.mark.parametrize("spider", ["account", "books", "quotes", "reviews", "sitemap", "trouble"])
def test_check_is_silent_where_there_is_nothing(machine: Machine, tmp_path: Path, spider: str) -> None:
    """The example project does the same on any number of processes."""
    found = machine.run(["vscrapy", "crawl", "--check", spider], copy_project(tmp_path / "project"))
    assert (found.exit_code, found.output) == (0, "")


def test_check_of_a_file_looks_at_its_spider(machine: Machine, shop: Path, tmp_path: Path) -> None:
    """``runspider --check`` needs no project."""
    file = tmp_path / "single.py"
    file.write_text((shop / "shop" / "spiders.py").read_text().partition("\n\nclass Plain")[0])
    found = machine.run(["vscrapy", "runspider", "--check", file.name], tmp_path)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[0] == NAMED.replace("shop/spiders.py", "single.py")


def test_check_ends_with_1_where_the_crawl_would_be_refused(machine: Machine, own: Path) -> None:
    """A scheduler of the project: the words are those of the crawl's own refusal."""
    add(own, 'SCHEDULER = "shop.own.Queue"')
    found = machine.run(["vscrapy", "crawl", "--check", "plain"], own)
    assert found.exit_code == 1, found.output
    first, why, do = found.stdout.splitlines()[-3:]
    assert first == "shop/settings.py:4: scheduler: refused: SCHEDULER is 'shop.own.Queue'"
    refused = machine.run(["vscrapy", "crawl", "plain"], own)
    assert refused.exit_code == 2
    for words in (why, do):
        assert words.partition(":")[2].strip() in refused.stderr


def test_add_ons_are_heard_before_anything_is_sent(machine: Machine, own: Path) -> None:
    """What an add-on sets is looked at like all settings; its scheduler is refused in one line, by the sender."""
    add(own, 'ADDONS = {"shop.own.AddOn": 1}')
    found = machine.run(["vscrapy", "crawl", "--check", "plain"], own)
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout.splitlines()[:2] == [
        "own is imported",
        "DUPEFILTER_CLASS: dupefilter: DUPEFILTER_CLASS is <class 'shop.own.Filter'>, which decides by itself",
    ]
    add(own, "WITH_QUEUE = True")
    assert machine.run(["vscrapy", "crawl", "--check", "plain"], own).exit_code == 1
    for options in ((), ("--detach",)):
        refused = machine.run(["vscrapy", "crawl", "plain", *options], own)
        assert refused.exit_code == 2
        [line] = refused.stderr.splitlines()
        assert line.startswith("vscrapy: SCHEDULER is <class 'shop.own.Queue'>: ")
    assert embedded.find(machine.home) is None


def test_scheduler_that_the_spider_sets_as_it_is_made_is_refused_by_the_sender(machine: Machine, own: Path) -> None:
    """One line, and no task."""
    with (own / "shop" / "spiders.py").open("a") as spiders:
        spiders.write(
            textwrap.dedent(
                """
                class Late(Plain):
                    name = "late"

                    @classmethod
                    def from_crawler(cls, crawler, *args, **kwargs):
                        crawler.settings.set("SCHEDULER", "shop.own.Queue", "spider")
                        return super().from_crawler(crawler, *args, **kwargs)
                """
            )
        )
    machine.start_worker(1, "w1")
    refused = machine.run(["vscrapy", "crawl", "late"], own)
    assert refused.exit_code == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith("vscrapy: SCHEDULER is 'shop.own.Queue': ")
    assert machine.last_taskid() == 0


def test_filter_of_the_project_is_named_unless_there_is_one_process(machine: Machine, own: Path, site: Site) -> None:
    """At the sender and in the crawl processes; with ``--workers 1`` it sees all requests, and nobody says a word."""
    add(own, 'DUPEFILTER_CLASS = "shop.own.Filter"')
    machine.start_worker(1, "w1")
    for options, n_named in (((), 2), (("--workers", "1"), 0)):
        found = machine.run(["vscrapy", "crawl", "plain", "-a", f"base={site.base}", *options], own)
        assert found.exit_code == 0, found.output
        assert sum("by itself" in line for line in found.stderr.splitlines()) == n_named
