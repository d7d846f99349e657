"""What the project's settings name that several crawl processes do otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vscrapy import internals
from vscrapy.errors import ConfigError
from vscrapy.preflight.finding import Finding, Severity, Where
from vscrapy.preflight.source import Module

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings


def check_settings(settings: BaseSettings, modules: Sequence[Module]) -> Iterator[Finding]:
    """
    Look at the scheduler, the dupefilter and the cache.

    Args:
        modules: Where settings may stand: the settings module, and the spider's.
    """
    yield from _scheduler(settings, modules)
    yield from _dupefilter(settings, modules)
    yield from _cache(settings, modules)


def _scheduler(settings: BaseSettings, modules: Sequence[Module]) -> Iterator[Finding]:
    try:
        internals.check_scheduler(settings)
    except ConfigError as error:
        what, _, rest = str(error).partition(": ")
        why, _, do = rest.partition("; ")
        where, _ = _find("SCHEDULER", settings, modules)
        yield Finding("scheduler", where, what, why, do, Severity.REFUSED, is_void_alone=False)


def _dupefilter(settings: BaseSettings, modules: Sequence[Module]) -> Iterator[Finding]:
    where, is_suppressed = _find("DUPEFILTER_CLASS", settings, modules)
    if internals.decides_alone(settings) and not is_suppressed:
        yield Finding(
            "dupefilter",
            where,
            f"DUPEFILTER_CLASS is {settings['DUPEFILTER_CLASS']!r}, which decides by itself",
            "each crawl process has its own filter, which knows what this process has made only",
            "change the fingerprint (REQUEST_FINGERPRINTER_CLASS) and not request_seen(); or --workers 1",
        )


def _cache(settings: BaseSettings, modules: Sequence[Module]) -> Iterator[Finding]:
    where, is_suppressed = _find("HTTPCACHE_STORAGE", settings, modules)
    if settings.getbool("HTTPCACHE_ENABLED") and internals.has_own_cache(settings) and not is_suppressed:
        yield Finding(
            "http-cache",
            where,
            f"HTTPCACHE_STORAGE is {settings['HTTPCACHE_STORAGE']!r}, a storage of the project's own",
            "several crawl processes use it at once, and on another machine it begins empty",
            "see that it stands that; or use Scrapy's FilesystemCacheStorage; or --workers 1",
        )


def _find(name: str, settings: BaseSettings, modules: Sequence[Module]) -> tuple[Where, bool]:
    """The line that gives a setting its value, and whether it is suppressed."""
    from scrapy.settings import SETTINGS_PRIORITIES

    if (settings.getpriority(name) or 0) >= SETTINGS_PRIORITIES["cmdline"]:
        return Where(setting=f"-s {name}"), False
    pattern = re.compile(rf"""^\s*{name}\s*[:=]|["']{name}["']\s*:""")
    for module in modules:
        for number, line in enumerate(module.lines, 1):
            if pattern.search(line):
                return Where(module.path, number), module.is_suppressed(number)
    return Where(setting=name), False
