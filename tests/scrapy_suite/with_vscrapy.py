"""
A pytest plugin for Scrapy's own tests: each crawler that they make works on a task of its own.

Loaded by name into a pytest that runs in Scrapy's source, where ``tests`` is Scrapy's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import scrapy
from packaging.specifiers import SpecifierSet
from scrapy.crawler import Crawler
from scrapy.settings.default_settings import SCHEDULER
from scrapy.utils.misc import load_object

from vscrapy import testing
from vscrapy.internals import after_addons

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from vscrapy.model import Endpoint

#: Tests that cannot hold, and that are not ours, with the reasons.
LISTED: Final = Path(__file__).with_name("different.toml")


class _Tasks:
    """The tasks of the test that runs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._begun: list[testing.Task] = []

    def begin(self, settings: BaseSettings) -> None:
        """Let a crawler work on a task of its own; one that has its own scheduler stays as it is."""
        if settings["SCHEDULER"] not in (SCHEDULER, load_object(SCHEDULER)):
            return
        task = testing.begin(self._endpoint)
        self._begun.append(task)
        task.install(settings)

    def end(self) -> None:
        """End all of them."""
        while self._begun:
            self._begun.pop().end()


@pytest.fixture(scope="session")
def _vscrapy_server() -> Iterator[Endpoint]:
    with testing.server() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def _vscrapy_tasks(_vscrapy_server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each crawler its task as it reads its settings, as a crawl process does."""
    tasks = _Tasks(_vscrapy_server)
    apply = Crawler._apply_settings

    def hooked(crawler: Crawler) -> None:
        after_addons(crawler, tasks.begin)
        apply(crawler)

    monkeypatch.setattr(Crawler, "_apply_settings", hooked)
    yield
    tasks.end()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect to fail what is different on purpose, and leave out what no vscrapy has a part in."""
    different, elsewhere = _listed("different"), _listed("elsewhere")
    left_out = [item for item in items if _name(item) in elsewhere]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if _name(item) in different:
            item.add_marker(pytest.mark.xfail(strict=True, reason=different[_name(item)]))


def _listed(table: str) -> dict[str, str]:
    """The tests of a table that are meant for this Scrapy, and why."""
    entries = tomllib.loads(LISTED.read_text(encoding="utf-8"))[table]
    return {
        test: entry["reason"]
        for entry in entries
        if scrapy.__version__ in SpecifierSet(entry["scrapy"])
        for test in entry["tests"]
    }


def _name(item: pytest.Item) -> str:
    """A test without its parameters."""
    return item.nodeid.partition("[")[0]
