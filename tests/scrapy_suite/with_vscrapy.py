"""
A pytest plugin for Scrapy's own tests: each crawler that they make works on a task of its own.

Loaded by name into a pytest that runs in Scrapy's source, where ``tests`` is Scrapy's.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from scrapy.crawler import Crawler
from scrapy.settings.default_settings import SCHEDULER
from scrapy.utils.misc import load_object

from vscrapy import testing

if TYPE_CHECKING:
    from vscrapy.model import Endpoint

#: Tests that cannot hold, each with its reason.
DIFFERENT: Final = Path(__file__).with_name("different.toml")


class _Tasks:
    """The tasks of the test that runs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._begun: list[testing.Task] = []

    def begin(self, settings: Any) -> None:
        """Let a crawler work on a task of its own; one with its own scheduler stays as it is."""
        if settings.frozen or settings["SCHEDULER"] not in (SCHEDULER, load_object(SCHEDULER)):
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
    """Give each crawler its task as it reads its settings."""
    tasks = _Tasks(_vscrapy_server)
    apply = Crawler._apply_settings

    def hooked(crawler: Crawler) -> None:
        tasks.begin(crawler.settings)
        apply(crawler)

    monkeypatch.setattr(Crawler, "_apply_settings", hooked)
    yield
    tasks.end()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect the tests to fail that look at what is different on purpose; a list entry that fits none is an error."""
    reasons: dict[str, str] = {}
    if not os.environ.get("VSCRAPY_SUITE_ALL"):
        for entry in tomllib.loads(DIFFERENT.read_text(encoding="utf-8"))["different"]:
            reasons.update(dict.fromkeys(entry["tests"], entry["reason"]))
    for item in items:
        name = item.nodeid.partition("[")[0]
        reason = reasons.get(item.nodeid) or reasons.get(name)
        if reason:
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
