"""What home's crawler is made of: what happens once, and nothing that it has no use for."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy.settings import Settings
from twisted.internet.defer import succeed

from vscrapy.home import Home

PIPELINE = "scrapy.pipelines.files.FilesPipeline"


def adapted(*, has_pipelines: bool, **own: Any) -> Settings:
    """The settings of a project, as home's crawler gets them."""
    settings = Settings(own)
    home = Home(settings, has_pipelines=has_pipelines, on_open=lambda: succeed(None), on_stop=lambda _: None)
    home.adapt(settings, counts_items=True)
    return settings


@pytest.mark.parametrize(("has_pipelines", "pipelines"), [(True, {}), (False, {PIPELINE: 1})])
def test_home_has_no_part_for_downloads_when_nothing_here_downloads(
    has_pipelines: bool, pipelines: dict[str, int]
) -> None:
    """Without pipelines here, no handler and no middleware is imported, neither Scrapy's nor the project's."""
    project = {"DOWNLOAD_HANDLERS": {"http": "project.Handler"}, "DOWNLOADER_MIDDLEWARES": {"project.Browser": 1}}
    settings = adapted(has_pipelines=has_pipelines, ITEM_PIPELINES=pipelines, **project)
    assert not settings.getwithbase("DOWNLOAD_HANDLERS")
    assert not settings.getwithbase("DOWNLOADER_MIDDLEWARES")


def test_home_downloads_as_the_project_does_when_it_has_pipelines() -> None:
    """A pipeline may download: with the handlers and middlewares that the project has."""
    project = {"DOWNLOAD_HANDLERS": {"http": "project.Handler"}, "DOWNLOADER_MIDDLEWARES": {"project.Browser": 1}}
    settings = adapted(has_pipelines=True, ITEM_PIPELINES={PIPELINE: 1}, **project)
    assert settings.getwithbase("DOWNLOAD_HANDLERS")["http"] == "project.Handler"
    assert "https" in settings.getwithbase("DOWNLOAD_HANDLERS")
    assert len(settings.getwithbase("DOWNLOADER_MIDDLEWARES")) > 1


def test_home_keeps_the_extensions_that_are_about_items() -> None:
    """Of Scrapy's extensions, feeds and the count of items are here; what a crawl process has, is not."""
    kept = set(adapted(has_pipelines=True).getwithbase("EXTENSIONS"))
    assert "scrapy.extensions.feedexport.FeedExporter" in kept
    assert "scrapy.extensions.closespider.CloseSpider" in kept
    assert not {path for path in kept if path.rpartition(".")[2] in ("TelnetConsole", "LogStats", "RemoteControl")}
