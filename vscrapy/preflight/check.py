"""One project's preflight: from a spider and its settings to findings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from vscrapy.preflight.components import check_component, check_pipeline, spider_attributes
from vscrapy.preflight.finding import Finding, Severity
from vscrapy.preflight.settings import check_settings
from vscrapy.preflight.source import Module, Sources
from vscrapy.preflight.spiders import check_spider
from vscrapy.preflight.state import find_state
from vscrapy.preflight.subject import Subject

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.settings import BaseSettings

_COMPONENTS: Final = ("SPIDER_MIDDLEWARES", "DOWNLOADER_MIDDLEWARES", "EXTENSIONS")


def check(
    spider_class: type[Spider],
    settings: BaseSettings,
    *,
    pipelines: str,
    max_processes: int,
    is_attached: bool,
) -> list[Finding]:
    """
    Name what behaves otherwise, the worst first.

    Args:
        settings: Those of the crawl: the project's, the spider's and the command line's.
        pipelines: ``home`` or ``worker``.
        max_processes: As ``--workers`` has it; 1 makes void what comes of there being several.
    """
    sources = Sources()
    found = list(_check(sources, spider_class, settings, is_at_home=pipelines == "home", is_attached=is_attached))
    if max_processes == 1:
        found = [finding for finding in found if not finding.is_void_alone]
    return sorted(
        dict.fromkeys(found),
        key=lambda finding: (finding.severity is not Severity.REFUSED, str(finding.where.path), finding.where.line),
    )


def _check(
    sources: Sources, spider_class: type[Spider], settings: BaseSettings, *, is_at_home: bool, is_attached: bool
) -> Iterator[Finding]:
    spider = Subject(sources.parts(spider_class), spider_class)
    pipelines = list(_classes(sources, settings, "ITEM_PIPELINES"))
    components = [subject for name in _COMPONENTS for subject in _classes(sources, settings, name)]
    yield from check_settings(settings, list(_settings_modules(sources, spider, settings)))
    # A pipeline at home has another spider than the callbacks; what it reads of it is named there.
    beside = components if is_at_home else [*components, *pipelines]
    yield from check_spider(spider, read_outside=spider_attributes(beside), is_attached=is_attached)
    at_home = spider_attributes(pipelines)
    changed = {state.name.name for state in find_state(spider, read_outside=at_home) if not state.name.is_global}
    for pipeline in pipelines:
        yield from check_pipeline(pipeline, is_at_home=is_at_home, spider_state=frozenset(changed))
    for component in components:
        yield from check_component(component, is_attached=is_attached)


def _classes(sources: Sources, settings: BaseSettings, name: str) -> Iterator[Subject]:
    """The project's own classes among those that a setting names."""
    for path, order in settings.getwithbase(name).items():
        if order is not None:
            parts = sources.parts(path) if isinstance(path, type) else sources.parts_of(str(path))
            if parts:
                yield Subject(parts, path if isinstance(path, type) else None)


def _settings_modules(sources: Sources, spider: Subject, settings: BaseSettings) -> Iterator[Module]:
    """Where settings stand: the spider's file, for it wins, and the settings module."""
    for part in spider.parts:
        yield part.module
    from scrapy.utils.project import ENVVAR

    module = sources.module(os.environ.get(ENVVAR, ""))
    if module is not None:
        yield module
