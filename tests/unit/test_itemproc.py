"""Items at home: past Scrapy's pipelines where that is the same, and through them where it might not be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import signals
from scrapy.extensions.closespider import CloseSpider
from scrapy.extensions.feedexport import FeedExporter
from scrapy.pipelines import ItemPipelineManager
from scrapy.signalmanager import SignalManager
from scrapy.utils.test import get_crawler

from vscrapy.internals import item_receivers, start_itemproc, tell_of_item

#: What Scrapy's own way gives here.
SCRAPYS_WAY = object()


class Counting(CloseSpider):
    """Scrapy's extension; it counts as that does."""

    def __init__(self) -> None:
        self.counter = defaultdict(int)
        self.close_on = {"itemcount": 100}


class Slow(FeedExporter):
    """A project's own exporter, which waits for something."""

    def __init__(self) -> None:
        pass

    async def item_scraped(self, item: Any, spider: Any) -> None:  # type: ignore[override]
        """Wait."""


class Nothing:
    """A pipeline."""

    def process_item(self, item: Any) -> Any:
        """Let the item through."""
        return item


def crawler(*pipelines: type) -> Any:
    """A crawler as far as items need one; Scrapy's own way is only seen to be gone."""
    made = SimpleNamespace(spider=SimpleNamespace(name="books"))
    settings = {"ITEM_PIPELINES": {pipeline: order for order, pipeline in enumerate(pipelines)}}
    scraper = SimpleNamespace(itemproc=ItemPipelineManager.from_crawler(get_crawler(settings_dict=settings)))
    scraper.start_itemproc_async = lambda item, response: SCRAPYS_WAY
    made.engine = SimpleNamespace(scraper=scraper)
    made.signals = SignalManager(made)
    return made


def test_item_is_told_of_at_once_when_only_scrapys_extensions_hear_of_it() -> None:
    """Without pipelines, the extension has had the item when the call returns, once."""
    made, extension = crawler(), Counting()
    made.signals.connect(extension.item_scraped, signals.item_scraped)
    receivers = item_receivers(made)
    assert receivers is not None
    tell_of_item(made, {"title": "A Light in the Attic"}, receivers)
    assert extension.counter["itemcount"] == 1


def test_receiver_that_fails_is_logged_as_scrapy_does_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    """The same record, but for the line it is written at."""
    records = []
    for is_ours in (False, True):
        made, failing, counting = crawler(), Counting(), Counting()
        del failing.close_on["itemcount"]
        del failing.counter
        for extension in (failing, counting):
            made.signals.connect(extension.item_scraped, signals.item_scraped)
        caplog.clear()
        receivers = item_receivers(made)
        assert receivers is not None
        if is_ours:
            tell_of_item(made, {}, receivers)
        else:
            made.signals.send_catch_log(signals.item_scraped, item={}, response=None, spider=made.spider)
        assert counting.counter["itemcount"] == 1
        [record] = caplog.records
        assert record.exc_info is not None
        found = (record.name, record.levelno, record.msg, record.exc_info[0], vars(record)["spider"].name)
        assert repr(failing) in record.getMessage()
        records.append(found)
    assert records[0] == records[1]


@pytest.mark.parametrize("hears", [Slow().item_scraped, Nothing().process_item, lambda item: None])
def test_item_goes_scrapys_way_when_others_hear_of_it(hears: Callable[..., Any]) -> None:
    """A handler of the project's may wait, which only Scrapy's own way allows; so may one made from Scrapy's."""
    made = crawler()
    made.signals.connect(hears, signals.item_scraped)
    assert item_receivers(made) is None


def test_item_goes_scrapys_way_when_there_are_pipelines() -> None:
    """A pipeline may wait, drop the item, or change it."""
    made = crawler(Nothing)
    assert item_receivers(made) is None
    assert start_itemproc(made, {}) is SCRAPYS_WAY
