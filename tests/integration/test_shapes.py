"""Projects of unusual shape, where there is more to see than that two crawls are equal (``tests/parity``)."""

from __future__ import annotations

import pstats
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import Machine, Site, write_project

pytest_plugins = ["tests.integration.machine"]

PAGES: Final = """
    from scrapy import Spider


    class Pages(Spider):
        name = "pages"

        def __init__(self, base, last=5, **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{number}" for number in range(1, int(last) + 1)]

        def parse(self, response):
            yield {"page": int(response.url.rpartition("/")[2])}


    class More(Pages):
        name = "more"
"""

#: A crawl command that starts its spiders by itself.
OWN_CRAWL: Final = """
from scrapy.commands import BaseRunSpiderCommand


class Command(BaseRunSpiderCommand):
    requires_project = True

    def short_desc(self):
        return "own"

    def run(self, args, opts):
        for name in args:
            self.crawler_process.crawl(name, last=2, **opts.spargs)
        self.crawler_process.start()
        print("that was all")
"""


@pytest.fixture(scope="module")
def _cluster(shared_machine: Machine) -> Machine:
    shared_machine.start_worker(2, "w1")
    return shared_machine


@pytest.fixture
def cluster(_cluster: Machine) -> Iterator[Machine]:
    """The module's machine with one worker with two slots; the tasks of a test end with it."""
    yield _cluster
    _cluster.end_tasks()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two spiders."""
    return write_project(tmp_path / "project", PAGES, settings='COMMANDS_MODULE = "shop.commands"\n')


def own_crawl(project: Path) -> None:
    """Give the project a crawl command of its own."""
    (project / "shop" / "commands").mkdir()
    (project / "shop" / "commands" / "__init__.py").write_text("")
    (project / "shop" / "commands" / "crawl.py").write_text(OWN_CRAWL)


def test_paths_in_a_traceback_are_the_senders_when_a_file_is_run(cluster: Machine, tmp_path: Path) -> None:
    """A spider without a project is shown where the user has it, not where the worker put it."""
    file = tmp_path / "one.py"
    file.write_text(
        "import scrapy\n\n\nclass One(scrapy.Spider):\n    name = 'one'\n    start_urls = ['data:,x']\n\n"
        "    def parse(self, response):\n        raise RuntimeError('here')\n"
    )
    done = cluster.run(["vscrapy", "runspider", "one.py"], tmp_path)
    assert f'File "{file}", line 9, in parse' in done.stderr
    assert "/run/" not in done.stderr


def test_own_crawl_command_runs_on_the_workers(cluster: Machine, project: Path, site: Site) -> None:
    """What the project's command does before and after the crawl, and what it gives the spider, stays."""
    own_crawl(project)
    done = cluster.run(["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-O", "items.jl"], project)
    assert done.exit_code == 0, done.stderr
    assert "task " in done.stderr
    assert done.stdout == "that was all\n"
    assert sorted((project / "items.jl").read_text().split("\n")) == ["", '{"page": 1}', '{"page": 2}']


def test_own_crawl_command_with_several_spiders_is_refused(cluster: Machine, project: Path, site: Site) -> None:
    """One task has one spider; that is said before anything is sent."""
    own_crawl(project)
    before = cluster.last_taskid()
    done = cluster.run(["vscrapy", "crawl", "pages", "more", "-a", f"base={site.base}"], project)
    assert done.exit_code == 2
    assert "starts several spiders" in done.stderr
    assert cluster.last_taskid() == before


def test_profile_is_that_of_the_crawl(cluster: Machine, project: Path, site: Site) -> None:
    """``--profile`` shows the spider's callbacks, which run on the worker."""
    (project / "shop" / "commands").mkdir()
    (project / "shop" / "commands" / "__init__.py").write_text("")
    done = cluster.run(
        ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "--workers", "1", "--profile", "out/p.prof"], project
    )
    assert done.exit_code == 0, done.stderr
    functions = {(Path(file).name, name) for file, _, name in pstats.Stats(str(project / "out/p.prof")).stats}  # type: ignore[attr-defined]
    assert ("spiders.py", "parse") in functions


def test_http_cache_is_forgotten_with_the_senders_directory(cluster: Machine, project: Path, site: Site) -> None:
    """A second crawl asks the site for nothing, until ``.scrapy/httpcache`` is removed."""
    (project / "shop" / "commands").mkdir()
    (project / "shop" / "commands" / "__init__.py").write_text("")
    command = ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-s", "HTTPCACHE_ENABLED=1"]
    asked = []
    for turn in range(3):
        if turn == 2:
            for path in sorted((project / ".scrapy" / "httpcache").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            (project / ".scrapy" / "httpcache").rmdir()
        site.reset()
        done = cluster.run(command, project)
        assert re.search(r"'item_scraped_count': 5\b", done.stderr), done.stderr
        asked.append(len([entry for entry in site.log() if entry["path"].startswith("/trouble/fine/")]))
    assert asked == [5, 0, 5]
