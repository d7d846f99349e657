"""From a project on this machine to a task on Redis: bundle, job, submit."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy import bundle, config, httpcache, localmodules
from vscrapy.errors import ConfigError, ProtocolMismatch
from vscrapy.home import remote_feeds
from vscrapy.labels import ANY, Choice
from vscrapy.localmodules import OutsideRoot
from vscrapy.model import PROTOCOL
from vscrapy.politeness import is_of_task
from vscrapy.requirements import PythonNeeded, Requirements
from vscrapy.sealed import seal
from vscrapy.secret import new_nonce, payload_key, task_key
from vscrapy.sender.jobdir import JobDir, Ticket
from vscrapy.sender.requirementsfile import require_shipped
from vscrapy.states import TaskState
from vscrapy.store.blobs import Blobs
from vscrapy.store.streams import ITEMS_LIMIT_BYTES, LOG_KEEP
from vscrapy.store.submission import TaskOptions
from vscrapy.store.tasks import Tasks
from vscrapy.versions import versions_here
from vscrapy.wire import encode_job

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from vscrapy.sender.earlytask import EarlyTask
    from vscrapy.sender.headstart import HeadStart
    from vscrapy.sender.remembered import Display
    from vscrapy.store.base import Store

#: Silence after which an attached sender counts as lost (seconds; setting ``VSCRAPY_SENDER_TIMEOUT``).
SENDER_TIMEOUT_S: Final = 20
#: The least that it can be (seconds): two heartbeats, and what they may be late.
SENDER_TIMEOUT_LEAST_S: Final = 5
#: Largest bundle (bytes; setting ``VSCRAPY_BUNDLE_LIMIT``).
BUNDLE_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: Environment variables that Scrapy itself reads to find the project.
_SCRAPY_ENV: Final = ("SCRAPY_SETTINGS_MODULE", "SCRAPY_PROJECT")
#: Settings of the command line that concern the sender alone.
_STAYS_HERE: Final = frozenset({"FEEDS", "LOG_FILE", "LOG_ENABLED", "JOBDIR"})
#: What ``[vscrapy]`` of a scrapy.cfg holds for the sender alone: a password, and the key of all signatures.
_CFG_SECRETS: Final = frozenset({"redis", "secret"})
#: A section's head, as configparser has it.
_CFG_HEAD: Final = re.compile(r"\[(.+)\]")


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
    #: Home on a worker is to write feeds, when all is crawled.
    has_feeds: bool = False
    #: The file of ``runspider``.
    file: Path | None = None
    #: Where crawl processes leave their profiles, below the project, with ``/``; '': none is made.
    profile: str = ""
    #: What the project needs of third parties; None: nothing says so, and nothing is compared.
    requirements: Requirements | None = None
    #: Which Python it asks for; None: any.
    python: PythonNeeded | None = None
    #: Which workers it takes.
    choice: Choice = ANY
    #: Environment variables that travel, with their values.
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


def _forget() -> None:
    """Nothing is remembered of a task that does not begin anew each time."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that is on Redis now."""

    taskid: int
    #: The key that signs its payloads (:func:`vscrapy.secret.payload_key`).
    key: bytes
    n_files: int
    sent_bytes: int
    #: Where the bundle's roots beyond the project come from, in their order.
    outside: tuple[Path, ...]
    #: It went on with a suspended task, whose log ended here; None: the task is new.
    cursor: str | None = None
    #: The task was submitted before all this, and is confirmed now.
    early: EarlyTask | None = None
    #: Remembers it for the next time; for when nobody waits any more.
    remember: Callable[[], None] = _forget


def submit(
    store: Store,
    secret: str,
    order: Order,
    settings: BaseSettings,
    exclude: Collection[Path],
    *,
    head_start: HeadStart | None = None,
    display: Display | None = None,
) -> Submitted:
    """
    Bundle the project, and make the task; or confirm the one that was submitted early, if it is the same.

    The project's modules must have been imported: local ones from outside its directory are found by that.

    Args:
        exclude: Files that this very run writes.
        head_start: Remembers the task for the next time; None: nobody does.
        display: How records look here; to be remembered, too.

    Raises:
        BundleError: The project is too large, or a file cannot be read.
        ConfigError: A setting of the command line cannot travel, there is no secret to encrypt variables with,
            VSCRAPY_SENDER_TIMEOUT is too short, VSCRAPY_POLITENESS has another word than it takes, the JOBDIR is that
            of another spider, or of a task that has not ended, or a requirement lies in a file that does not travel.
    """
    is_of_task(settings)
    if order.env and not secret:
        raise ConfigError(
            f"{', '.join(order.env)} cannot travel: there is no secret to encrypt with; give senders and workers one "
            "VSCRAPY_SECRET, or Redis a password"
        )
    options = _options(order, settings)
    job_dir = JobDir(Path(settings["JOBDIR"])) if settings.get("JOBDIR") else None
    tasks = Tasks(store)
    if head_start is not None and not (order.is_attached and job_dir is None and not order.env):
        head_start.withdraw()
        head_start = None
    with tempfile.TemporaryDirectory(prefix="vscrapy-") as scratch:
        made = _collect(order, settings, exclude, Path(scratch))
        job = _job(order, settings, made, has_job_dir=job_dir is not None)
        early = None if head_start is None else head_start.take(tasks, store.endpoint, job, options)
        sent_bytes = Blobs(store).put(made.bundle.paths) if early is None else 0
    n_files = sum(len(root.files) for root in made.bundle.manifest.roots)
    remember = _forget
    if head_start is not None and made.project is not None:
        roots = [made.project, *made.outside]
        remember = partial(head_start.keep, job, options, roots, display, made.project)
    if early is not None:
        return Submitted(early.taskid, early.key, n_files, 0, made.outside, early=early, remember=remember)
    if job_dir is not None and (ticket := job_dir.read()) is not None:
        key = task_key(secret, ticket.taskid)
        payloads_key = payload_key(key, ticket.token)  # what the task has on Redis is signed with it
        signed = _sign(job, order, ticket.taskid, ticket.token, key)
        cursor = _go_on(tasks, ticket, signed, order, job_dir, options)
        if cursor is not None:
            return Submitted(ticket.taskid, payloads_key, n_files, sent_bytes, made.outside, cursor)
    taskid, nonce = tasks.new_id(), new_nonce()
    key = task_key(secret, taskid)
    if job_dir is not None:
        job_dir.write(Ticket(taskid, nonce))
    tasks.submit(
        taskid,
        _sign(job, order, taskid, nonce, key),
        spider=order.spider,
        options=options,
        has_feeds=order.has_feeds,
        job_dir=nonce if job_dir is not None else "",
    )
    return Submitted(taskid, payload_key(key, nonce), n_files, sent_bytes, made.outside, remember=remember)


def _options(order: Order, settings: BaseSettings) -> TaskOptions:
    timeout_s = settings.getfloat("VSCRAPY_SENDER_TIMEOUT", SENDER_TIMEOUT_S) if order.is_attached else 0
    if order.is_attached and timeout_s < SENDER_TIMEOUT_LEAST_S:
        raise ConfigError(f"VSCRAPY_SENDER_TIMEOUT is {timeout_s:g}; the least is {SENDER_TIMEOUT_LEAST_S} seconds")
    return TaskOptions(
        max_processes=order.max_processes,
        sender_timeout_ms=int(timeout_s * 1000),
        log_keep=settings.getint("VSCRAPY_LOG_KEEP", LOG_KEEP),
        items_limit=settings.getint("VSCRAPY_ITEMS_LIMIT", ITEMS_LIMIT_BYTES),
        choice=order.choice,
    )


def _sign(job: dict[str, Any], order: Order, taskid: int, nonce: str, key: bytes) -> bytes:
    """Complete a job, with its variables, for one submission."""
    sealed_env = seal(order.env, key, taskid, nonce)
    return encode_job({**job, "taskid": taskid, "nonce": nonce, "sealed_env": sealed_env}, key)


def _go_on(
    tasks: Tasks, ticket: Ticket, job: bytes, order: Order, job_dir: JobDir, options: TaskOptions
) -> str | None:
    """Go on with the task of a job directory: where its log ended; None when the crawl begins anew."""
    record = tasks.records([ticket.taskid]).get(ticket.taskid)
    if record is not None and record.spider != order.spider:
        raise ConfigError(f"JOBDIR {job_dir.path} is that of spider {record.spider!r}; give each spider its own")
    if record is not None and record.state is TaskState.SUSPENDED and record.protocol != PROTOCOL:
        raise ProtocolMismatch(
            f"JOBDIR {job_dir.path} is that of task {ticket.taskid}, made by a vscrapy with protocol "
            f"{record.protocol}, this one has {PROTOCOL}; go on with it there, or give this crawl another JOBDIR"
        )
    reopened = tasks.reopen(ticket.taskid, job, token=ticket.token, options=options)
    if reopened.state is TaskState.SUSPENDED:
        return reopened.cursor
    if reopened.state in (None, TaskState.STORING, TaskState.FINISHED):
        return None
    raise ConfigError(
        f"JOBDIR {job_dir.path} is that of task {ticket.taskid}, which is {reopened.state}; follow it with "
        f"'vscrapy -c {ticket.taskid}', or end it with 'vscrapy stop {ticket.taskid}' and give the command again"
    )


def _job(order: Order, settings: BaseSettings, made: _Collected, *, has_job_dir: bool) -> dict[str, Any]:
    """What is to be run; the taskid and the nonce are yet missing."""
    timeout_s = settings.getfloat("VSCRAPY_REQUEST_TIMEOUT", -1)
    return {
        **({} if timeout_s < 0 else {"request_timeout_s": timeout_s}),
        "protocol": PROTOCOL,
        "kind": order.kind,
        "spider": order.spider,
        "file": made.file,
        "spider_args": _spider_args(order),
        "settings": _command_line(settings),
        "env": {name: os.environ[name] for name in _SCRAPY_ENV if name in os.environ},
        "argv": ["scrapy", order.kind, order.spider],
        "pipelines": order.pipelines,
        "counts_items_at_home": counts_items_at_home(order, settings),
        "feeds": _feeds(settings) if order.has_feeds else None,
        "max_processes": order.max_processes,
        "on": list(order.choice.on),
        "exclude": list(order.choice.exclude),
        "has_job_dir": has_job_dir,
        "is_attached": order.is_attached,
        "host": socket.gethostname(),
        "http_cache": _http_cache(settings),
        "profile": order.profile,
        "requirements": None if order.requirements is None else order.requirements.to_data(),
        "python": None if order.python is None else order.python.to_data(),
        "manifest": bundle.manifest_to_json(made.bundle.manifest),
        "working_directory": made.bundle.manifest.working_directory,
        "project_paths": made.project_paths,
        "import_roots": [root.name for root in made.bundle.manifest.roots if root.name != "project"],
        "versions": versions_here(),
    }


def counts_items_at_home(order: Order, settings: BaseSettings) -> bool:
    """Does only home know which items come through the pipelines?"""
    pipelines = settings.getwithbase("ITEM_PIPELINES")
    return order.pipelines == "home" and any(place is not None for place in pipelines.values())


@dataclass(frozen=True, slots=True)
class _Collected:
    bundle: bundle.Bundle
    #: Where the file of ``runspider`` is, below the unpacked bundle.
    file: str
    #: What lies on ``sys.path`` in the project, below it, with ``/``.
    project_paths: list[str]
    #: Where the bundle's roots beyond the project come from, in their order.
    outside: tuple[Path, ...]
    #: Where the project is; None: there is none.
    project: Path | None


def _collect(order: Order, settings: BaseSettings, exclude: Collection[Path], scratch: Path) -> _Collected:
    """
    Make the bundle.

    Args:
        scratch: An empty directory: the project, where there is none, and the place of stripped copies. It is
            to stay until the bundle's files have been sent.
    """
    configured = project = project_dir()
    working = Path.cwd()
    if project is None and order.kind == "crawl":
        project = working  # only SCRAPY_SETTINGS_MODULE tells of the project
    nothing, copies = scratch / "nothing", scratch / "copies"
    nothing.mkdir()
    copies.mkdir()
    root = project or nothing
    if not working.is_relative_to(root):
        working = root
    outside = localmodules.find_outside_roots(root, sys.modules)
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
        exclude=[*exclude, config.home()],  # it has passwords, and may lie in the project
        stand_in=lambda path: _without_secrets_at(path, copies),
    )
    shipped = [shipped.path for shipped in made.manifest.roots[0].files]
    if order.requirements is not None:
        require_shipped(order.requirements, set(shipped))
    paths = localmodules.find_project_paths(root, sys.path, shipped)
    if configured is None and any(os.path.realpath(entry) == os.path.realpath(root) for entry in sys.path):
        paths.append(".")  # with a scrapy.cfg, Scrapy puts it on the path
    return _Collected(
        made, file, paths, tuple(found.directory for found in outside), project and Path(os.path.realpath(project))
    )


def _without_secrets_at(path: Path, copies: Path) -> Path:
    """Name the file that travels for *path*: for a scrapy.cfg with secrets, a copy without them in *copies*."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if "scrapy.cfg" not in (path.name, target.name):
        return path
    content = path.read_bytes()
    stripped = without_secrets(content)
    if stripped == content:
        return path
    copy = copies / f"{len(os.listdir(copies))}.cfg"
    copy.write_bytes(stripped)
    shutil.copymode(path, copy)
    return copy


def without_secrets(content: bytes) -> bytes:
    """
    Take ``redis`` and ``secret`` out of the ``[vscrapy]`` of a scrapy.cfg, with their continuation lines.

    All other lines stay byte for byte, comments among them. Not configparser itself: it would drop comments and
    write the rest anew; but lines are told apart by its rules, since it reads what vscrapy reads.
    """
    kept: list[bytes] = []
    section, is_in_option, is_dropped, indent = "", False, False, 0
    for line in content.splitlines(keepends=True):
        text = line.decode("utf-8", "surrogateescape")
        value = text.strip()
        if not value or value.startswith(("#", ";")):
            kept.append(line)
            continue
        depth = len(text) - len(text.lstrip())
        if not is_in_option or depth <= indent:  # else it continues the option before it
            head = _CFG_HEAD.match(value)
            section = head[1] if head else section
            name = re.split("[=:]", value, maxsplit=1)[0].strip().lower()
            is_in_option, indent = head is None, depth
            is_dropped = is_in_option and section == "vscrapy" and name in _CFG_SECRETS
        if not is_dropped:
            kept.append(line)
    return b"".join(kept)


def _with_module(roots: list[OutsideRoot], path: Path) -> list[OutsideRoot]:
    """See that the module *path* is among the roots."""
    for index, root in enumerate(roots):
        if root.directory == path.parent:
            names = tuple(sorted({*root.names, path.stem}))
            return [*roots[:index], OutsideRoot(root.directory, names), *roots[index + 1 :]]
    return [*roots, OutsideRoot(path.parent, (path.stem,))]


def project_dir() -> Path | None:
    """The directory of the closest scrapy.cfg; None outside a project."""
    from scrapy.utils.conf import closest_scrapy_cfg

    found = closest_scrapy_cfg()
    return Path(found).parent if found else None


def _spider_args(order: Order) -> dict[str, Any]:
    """The spider's arguments; those of the command line are text, a project's own command may give others."""
    for name, value in order.spider_args.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ConfigError(f"the spider argument {name} cannot travel: {error}") from error
    return dict(order.spider_args)


def _http_cache(settings: BaseSettings) -> dict[str, str] | None:
    """The project's HTTP cache here; None: it has none."""
    from scrapy.exceptions import NotConfigured
    from scrapy.utils.project import data_path

    if not settings.getbool("HTTPCACHE_ENABLED"):
        return None
    try:
        directory = Path(data_path(settings["HTTPCACHE_DIR"])).absolute()
        return {"directory": str(directory), "identity": httpcache.identify(directory)}
    except (NotConfigured, OSError) as error:
        print(f"vscrapy: warning: nothing is kept of the HTTP cache: {error}", file=sys.stderr)
        return None


def _command_line(settings: BaseSettings) -> dict[str, Any]:
    """The settings that were given on the command line, and are for the crawl processes."""
    from scrapy.settings import SETTINGS_PRIORITIES, BaseSettings

    found: dict[str, Any] = {}
    for name in settings:
        if settings.getpriority(name) != SETTINGS_PRIORITIES["cmdline"] or name in _STAYS_HERE:
            continue
        value = settings[name]
        found[str(name)] = value.copy_to_dict() if isinstance(value, BaseSettings) else value
        try:
            json.dumps(found[str(name)])
        except TypeError as error:
            raise ConfigError(f"the setting {name} of the command line cannot travel: {error}") from error
    return found


def _feeds(settings: BaseSettings) -> dict[str, Any] | None:
    """
    The feeds for home on a worker, if the command line gives any; None: the project's own settings have them.

    Scrapy adds the project's feeds to those of the command line. What does not travel, such as the class of a filter,
    is the project's (the value is None then).
    """
    from scrapy.settings import SETTINGS_PRIORITIES

    if settings.getpriority("FEEDS") != SETTINGS_PRIORITIES["cmdline"]:
        return None
    feeds: dict[str, Any] = {}
    for uri, options in remote_feeds(settings).items():
        try:
            feeds[uri] = json.loads(json.dumps(options))
        except TypeError:
            feeds[uri] = None
    return feeds
