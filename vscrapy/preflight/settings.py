"""What the project's settings name that several crawl processes do otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from vscrapy import internals
from vscrapy.errors import ConfigError
from vscrapy.preflight.finding import Finding, Severity, Where
from vscrapy.preflight.source import Module

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

#: Scrapy's own storages, which keep the cache in files below HTTPCACHE_DIR.
_FILE_CACHES: Final = frozenset({"FilesystemCacheStorage", "DbmCacheStorage"})


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
    if not settings.getbool("HTTPCACHE_ENABLED"):
        return
    where, is_suppressed = _find("HTTPCACHE_ENABLED", settings, modules)
    directory = str(settings.get("HTTPCACHE_DIR") or "")
    if is_suppressed or os.path.isabs(directory) or _class_name(settings["HTTPCACHE_STORAGE"]) not in _FILE_CACHES:
        return
    yield Finding(
        "http-cache",
        where,
        f"HTTPCACHE_ENABLED, with HTTPCACHE_DIR {directory!r}",
        "each crawl process has a cache of its own in its directory, which is removed at its end",
        "give HTTPCACHE_DIR an absolute path, which stays on each worker",
        is_void_alone=False,
    )


def _class_name(value: Any) -> str:
    return value.rpartition(".")[2] if isinstance(value, str) else str(getattr(value, "__name__", ""))


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
