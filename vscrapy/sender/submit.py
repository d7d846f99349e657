"""From a project on this machine to a task on Redis: bundle, job, submit."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy import bundle, config
from vscrapy.errors import ConfigError
from vscrapy.model import PROTOCOL
from vscrapy.store.blobs import Blobs
from vscrapy.store.streams import LOG_KEEP
from vscrapy.store.tasks import Tasks
from vscrapy.wire import encode_job, task_key

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from vscrapy.store.base import Store

#: Silence after which an attached sender counts as lost (seconds; setting ``VSCRAPY_SENDER_TIMEOUT``).
SENDER_TIMEOUT_S: Final = 20
#: Largest bundle (bytes; setting ``VSCRAPY_BUNDLE_LIMIT``).
BUNDLE_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Environment variables that Scrapy itself reads to find the project.
_SCRAPY_ENV: Final = ("SCRAPY_SETTINGS_MODULE", "SCRAPY_PROJECT")
#: Settings of the command line that concern the sender alone.
_STAYS_HERE: Final = frozenset({"FEEDS", "LOG_FILE", "LOG_ENABLED", "JOBDIR"})


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for: one crawl."""

    #: ``crawl`` or ``runspider``.
    kind: str
    #: The spider's name.
    spider: str
    spider_args: Mapping[str, Any]
    is_attached: bool
    #: Crawl processes at most; 0: as many as there is room for.
    max_processes: int
    #: ``home`` or ``worker``.
    pipelines: str
    #: The file of ``runspider``.
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that is on Redis now."""

    taskid: int
    #: The key that signs its payloads.
    key: bytes
    n_files: int
    sent_bytes: int


def submit(store: Store, secret: str, order: Order, settings: BaseSettings, exclude: Collection[Path]) -> Submitted:
    """
    Bundle the project, and make the task.

    The project's modules must have been imported: local ones from outside its directory are found by that.

    Args:
        exclude: Files that this very run writes.

    Raises:
        BundleError: The project is too large, or a file cannot be read.
        ConfigError: A setting of the command line cannot travel.
    """
    with tempfile.TemporaryDirectory(prefix="vscrapy-") as nothing:
        made = _collect(order, settings, exclude, Path(nothing))
        sent_bytes = Blobs(store).put(made.bundle.paths)
    tasks = Tasks(store)
    taskid = tasks.new_id()
    key = task_key(secret, taskid)
    job = {
        "protocol": PROTOCOL,
        "taskid": taskid,
        "kind": order.kind,
        "spider": order.spider,
        "file": made.file,
        "spider_args": dict(order.spider_args),
        "settings": _command_line(settings),
        "env": {name: os.environ[name] for name in _SCRAPY_ENV if name in os.environ},
        "argv": ["scrapy", order.kind, order.spider],
        "pipelines": order.pipelines,
        "manifest": bundle.manifest_to_json(made.bundle.manifest),
        "working_directory": made.bundle.manifest.working_directory,
        "import_roots": [root.name for root in made.bundle.manifest.roots if root.name != "project"],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("scrapy", "twisted", "vscrapy")},
        },
    }
    timeout_s = settings.getfloat("VSCRAPY_SENDER_TIMEOUT", SENDER_TIMEOUT_S) if order.is_attached else 0
    tasks.submit(
        taskid,
        encode_job(job, key),
        spider=order.spider,
        max_processes=order.max_processes,
        sender_timeout_ms=int(timeout_s * 1000),
        log_keep=settings.getint("VSCRAPY_LOG_KEEP", LOG_KEEP),
    )
    n_files = sum(len(root.files) for root in made.bundle.manifest.roots)
    return Submitted(taskid, key, n_files, sent_bytes)


@dataclass(frozen=True, slots=True)
class _Collected:
    bundle: bundle.Bundle
    #: Where the file of ``runspider`` is, below the unpacked bundle.
    file: str


def _collect(order: Order, settings: BaseSettings, exclude: Collection[Path], nothing: Path) -> _Collected:
    project = project_dir()
    working = Path.cwd()
    if project is None and order.kind == "crawl":
        project = working  # only SCRAPY_SETTINGS_MODULE tells of the project
    root = project or nothing
    if not working.is_relative_to(root):
        working = root
    outside = bundle.find_outside_roots(root, sys.modules)
    file = ""
    if order.file is not None:
        path = order.file.resolve()
        outside = _with_module(outside, path)
        place = next(index for index, found in enumerate(outside) if found.directory == path.parent)
        file = f"outside-{place}/{path.name}"
    made = bundle.collect(
        root,
        working_directory=working,
        outside_roots=outside,
        cache_dir=config.ensure_home() / "cache",
        limit_bytes=settings.getint("VSCRAPY_BUNDLE_LIMIT", BUNDLE_LIMIT_BYTES),
        exclude=exclude,
    )
    return _Collected(made, file)


def _with_module(roots: list[bundle.OutsideRoot], path: Path) -> list[bundle.OutsideRoot]:
    """See that the module *path* is among the roots."""
    for index, root in enumerate(roots):
        if root.directory == path.parent:
            names = tuple(sorted({*root.names, path.stem}))
            return [*roots[:index], bundle.OutsideRoot(root.directory, names), *roots[index + 1 :]]
    return [*roots, bundle.OutsideRoot(path.parent, (path.stem,))]


def project_dir() -> Path | None:
    """The directory of the closest scrapy.cfg; None outside a project."""
    from scrapy.utils.conf import closest_scrapy_cfg

    found = closest_scrapy_cfg()
    return Path(found).parent if found else None


def _command_line(settings: BaseSettings) -> dict[str, Any]:
    """The settings that were given on the command line, and are for the crawl processes."""
    from scrapy.settings import SETTINGS_PRIORITIES

    found = {
        name: settings[name]
        for name in settings
        if isinstance(name, str)
        and settings.getpriority(name) == SETTINGS_PRIORITIES["cmdline"]
        and name not in _STAYS_HERE
    }
    for name, value in found.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ConfigError(f"the setting {name} of the command line cannot travel: {error}") from error
    return found
