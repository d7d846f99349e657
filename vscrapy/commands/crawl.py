"""``vscrapy crawl`` and ``vscrapy runspider``: Scrapy's own commands, with the crawl on the workers."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlparse
from urllib.request import url2pathname

from scrapy.addons import AddonManager
from scrapy.commands.crawl import Command as ScrapyCrawl
from scrapy.commands.runspider import Command as ScrapyRunSpider
from scrapy.exceptions import UsageError
from scrapy.utils.spider import iter_spider_classes

from vscrapy import __version__, config, embedded, internals
from vscrapy.commands._standin import CrawlerStandIn
from vscrapy.errors import ConfigError, EmbeddedError, StoreUnavailable
from vscrapy.home import remote_feeds
from vscrapy.labels import parse_choice
from vscrapy.model import PROTOCOL
from vscrapy.preflight.check import check
from vscrapy.preflight.finding import Finding, Severity
from vscrapy.preflight.report import all_lines, start_lines
from vscrapy.sealed import choose
from vscrapy.sender import requirementsfile
from vscrapy.sender.attached import AttachedCrawl
from vscrapy.sender.outputs import Outputs
from vscrapy.sender.submit import Order, project_dir, submit
from vscrapy.sender.waiting import why_waiting
from vscrapy.store.base import Store
from vscrapy.store.workers import Workers

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.commands import ScrapyCommand
    from scrapy.settings import BaseSettings

    from vscrapy.model import Endpoint
    from vscrapy.sender.garbage import Garbage
    from vscrapy.sender.headstart import HeadStart

#: The embedded server and its worker end after so long without a task (seconds).
IDLE_EXIT_S: Final = 600.0


class _OnWorkers:
    """Mixed into Scrapy's commands: the same options and a few more, and another way to run."""

    #: Scrapy makes no crawler process for this command; it is made in :meth:`_send`.
    requires_crawler_process = False
    kind: str
    settings: Any
    exitcode: int
    head_start: HeadStart
    garbage: Garbage

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)  # type: ignore[misc]
        group = parser.add_argument_group(title="Workers")
        group.add_argument("--detach", action="store_true", help="submit, print the taskid, and leave")
        group.add_argument(
            "--workers", type=int, default=0, metavar="N", help="crawl processes at most (default: as many as fit)"
        )
        group.add_argument(
            "--env",
            action="append",
            default=[],
            metavar="NAME",
            help="let this environment variable travel, encrypted; several: NAME,NAME or --env again",
        )
        group.add_argument(
            "--on",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="only on workers with this label; V1,V2: one of these; several --on: all of them; name=W: worker W",
        )
        group.add_argument(
            "--exclude",
            action="append",
            default=[],
            metavar="WORKER",
            help="not on this worker; or NAME=VALUE, as --on",
        )
        group.add_argument(
            "--check",
            action="store_true",
            help="name what would differ from one process, with what to do about it, and crawl nothing",
        )
        group.add_argument(
            "--requirements",
            metavar="FILE",
            # Scrapy's formatter takes a line that ends with a colon for a heading.
            help="the packages that the project needs (default is its requirements.txt, pyproject.toml or setup.cfg; "
            "with none it runs with what the workers have)",
        )
        config.add_redis_options(group)

    def _send(self, spider: type[Spider] | str, opts: argparse.Namespace, file: Path | None = None) -> None:
        internals.check()
        if opts.workers < 0:
            raise UsageError(f"--workers takes a number from 0 on, not {opts.workers}")
        AddonManager.load_pre_crawler_settings(self.settings)  # as Scrapy's crawler process does when it is made
        spider_class = self._load(spider) if isinstance(spider, str) else spider
        self.garbage.release()
        settings = internals.crawl_settings(self.settings, spider_class)
        order = Order(
            kind=self.kind,
            spider=spider_class.name,
            spider_args=opts.spargs,
            is_attached=not opts.detach,
            max_processes=opts.workers,
            pipelines=_pipelines(settings, is_attached=not opts.detach),
            has_feeds=opts.detach and bool(remote_feeds(settings)),
            file=file,
            profile=_profile(opts),
            requirements=requirementsfile.find(project_dir(), given=opts.requirements, script=file, tell=_tell),
            python=requirementsfile.find_python(project_dir(), given=opts.requirements, script=file, tell=_tell),
            choice=parse_choice(opts.on, opts.exclude),
            env=_env(opts),
        )
        if opts.check:
            self.exitcode = self._check(spider_class, settings, order)
            return
        internals.check_scheduler(settings)
        self._warn(spider_class, settings, order, file)
        outputs = Outputs(project_dir() or Path.cwd())
        words = [*map(str, opts.spargs.values()), *opts.set]
        exclude = [*_written_here(settings, opts), *outputs.earlier(but=words)]
        endpoint = _endpoint(opts)
        if opts.detach:
            self._detach(endpoint, order, settings, exclude)
        else:
            crawl = AttachedCrawl(endpoint, settings, self.settings, order, exclude, outputs, self.head_start)
            self.exitcode = crawl.run(spider_class)
            if order.profile:
                opts.profile = os.devnull  # for Scrapy, which now writes that of this process

    @staticmethod
    def _findings(spider_class: type[Spider], settings: BaseSettings, order: Order) -> list[Finding]:
        return check(
            spider_class,
            settings,
            pipelines=order.pipelines,
            max_processes=order.max_processes,
            is_attached=order.is_attached,
        )

    def _check(self, spider_class: type[Spider], settings: BaseSettings, order: Order) -> int:
        findings = self._findings(spider_class, settings, order)
        for line in all_lines(findings):
            print(line)
        if order.requirements is not None:
            print(f"requirements: {order.requirements.source}")
            for needed in order.requirements.requirements:
                print(f"    {needed}")
        if order.python is not None:
            print(f"Python: {order.python.versions} ({order.python.source})")
        return int(any(finding.severity is Severity.REFUSED for finding in findings))

    def _warn(self, spider_class: type[Spider], settings: BaseSettings, order: Order, file: Path | None) -> None:
        """Name what will differ; the crawl goes on, even if there is a defect in the preflight."""
        try:
            findings = self._findings(spider_class, settings, order)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not keep anybody from crawling
            print(f"vscrapy: check: this project could not be looked at: {error!r}", file=sys.stderr)
            return
        command = f"vscrapy {self.kind} --check {shlex.quote(str(file or order.spider))}"
        for line in start_lines(findings, command):
            print(f"vscrapy: {line}", file=sys.stderr)

    def _load(self, name: str) -> type[Spider]:
        try:
            return internals.spider_loader(self.settings).load(name)
        except KeyError:
            internals.crawler_process(self.settings)  # says what scrapy crawl says before it fails
            raise

    def _detach(self, endpoint: Endpoint, order: Order, settings: BaseSettings, exclude: list[Path]) -> None:
        store = Store(endpoint, name="vscrapy-sender")
        store.check()
        submitted = submit(store, endpoint.secret, order, settings, exclude)
        taskid = submitted.taskid
        does = "runs" if submitted.cursor is None else "goes on where it was left,"
        print(f"task {taskid}: {order.spider} {does} detached; follow it with: vscrapy -c {taskid}")
        remote = remote_feeds(settings)
        if remote:
            print(f"when all is crawled, a worker writes {', '.join(config.redact(uri) for uri in remote)}")
        if set(map(str, settings.getdict("FEEDS"))) - set(remote):
            print(f"its items stay on Redis; fetch them with: vscrapy items {taskid} -o FILE")
        why = why_waiting(Workers(store).list(), order.choice, has_begun=True)
        if why:
            print(f"vscrapy: task {taskid} waits: {why}", file=sys.stderr)


class Crawl(_OnWorkers, ScrapyCrawl):
    """``vscrapy crawl NAME``."""

    kind = "crawl"

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) < 1:
            raise UsageError
        if len(args) > 1:
            raise UsageError("running 'scrapy crawl' with more than one spider is not supported")
        self._send(args[0], opts)


class _OwnCrawl(_OnWorkers):
    """Mixed into a project's own ``crawl``: what it gives its crawler process to do is done on the workers."""

    kind = "crawl"
    crawler_process: Any

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        def start(spider: type[Spider], spider_args: dict[str, Any]) -> None:
            opts.spargs = spider_args
            self._send(spider, opts)

        self.crawler_process = CrawlerStandIn(self.settings, start)
        super().run(args, opts)  # type: ignore[misc]


class RunSpider(_OnWorkers, ScrapyRunSpider):
    """``vscrapy runspider FILE``."""

    kind = "runspider"

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        if len(args) != 1:
            raise UsageError
        filename = Path(args[0])
        if not filename.exists():
            raise UsageError(f"File not found: {filename}\n")
        try:
            module = internals.import_file(filename)
        except (ImportError, ValueError) as error:
            raise UsageError(f"Unable to load {str(filename)!r}: {error}\n") from error
        classes = list(iter_spider_classes(module))
        if not classes:
            raise UsageError(f"No spider found in file: {filename}\n")
        self._send(classes.pop(), opts, filename)


def replace(commands: dict[str, ScrapyCommand], *, head_start: HeadStart, garbage: Garbage) -> None:
    """
    Put ours in the place of Scrapy's own, where those are available; a project's own ``crawl`` is kept in it.

    Args:
        head_start: Of the command that is given.
        garbage: Is held, until the project is imported.
    """
    if "crawl" in commands:
        theirs = type(commands["crawl"])
        own = None if theirs is ScrapyCrawl else type("Command", (_OwnCrawl, theirs), {"__doc__": theirs.__doc__})
        crawl: Any = own() if own else Crawl()
        crawl.head_start, crawl.garbage = head_start, garbage
        commands["crawl"] = crawl
    if "runspider" in commands:
        run_spider = RunSpider()
        run_spider.head_start, run_spider.garbage = head_start, garbage
        commands["runspider"] = run_spider


def _endpoint(opts: argparse.Namespace) -> Endpoint:
    """The Redis to use; with nothing configured, the embedded one with its local worker, started if need be."""
    found = config.resolve(redis=opts.redis, insecure=opts.insecure)
    if found is not None:
        return found
    try:
        return _embedded()
    except StoreUnavailable:  # the idle worker has ended the server between two steps
        return _embedded()


def _idle_exit_s() -> float:
    value = os.environ.get("VSCRAPY_IDLE_EXIT")
    try:
        return float(value) if value else IDLE_EXIT_S
    except ValueError as error:
        raise ConfigError(f"VSCRAPY_IDLE_EXIT is {value!r}; give a number of seconds") from error


def _embedded() -> Endpoint:
    """The embedded server, with a live worker."""
    home = config.ensure_home()
    idle_exit_s = _idle_exit_s()
    endpoint = embedded.ensure(home)
    store = Store(endpoint, name="vscrapy-start")
    workers = Workers(store)
    embedded.ensure_worker(
        home,
        endpoint,
        slots=os.cpu_count() or 1,
        idle_exit_s=idle_exit_s,
        is_live=lambda: _is_worker_live(workers, home),
    )
    store.close()
    return endpoint


def _is_worker_live(workers: Workers, home: Path) -> bool:
    """
    Is there a worker that can serve a task from here?

    Raises:
        EmbeddedError: All that there are were started by another version of vscrapy, before an upgrade.
    """
    live = [worker for worker in workers.list() if worker.is_alive]
    if live and all(worker.protocol != PROTOCOL for worker in live):
        name, version, protocol = live[0].name, live[0].version, live[0].protocol
        raise EmbeddedError(
            f"the local worker {name} of {home} is vscrapy {version} (protocol {protocol}), and this is vscrapy "
            f"{__version__} (protocol {PROTOCOL}); when its tasks are done ('vscrapy -l'), let it end with 'vscrapy "
            f"drain {name}', then give this command again"
        )
    return bool(live)


def _env(opts: argparse.Namespace) -> dict[str, str]:
    """The environment variables that travel."""
    named = [name for words in opts.env for name in words.split(",")]
    listed, source = config.env_names()
    return choose(named, listed, source, os.environ)


def _pipelines(settings: BaseSettings, *, is_attached: bool) -> str:
    """
    Where the project's pipelines run.

    Raises:
        ConfigError: VSCRAPY_PIPELINES is neither "home" nor "worker", or "home" without a sender.
    """
    placed = str(settings.get("VSCRAPY_PIPELINES") or ("home" if is_attached else "worker"))
    if placed not in ("home", "worker"):
        raise ConfigError(f'VSCRAPY_PIPELINES is {placed!r}; it takes "home" or "worker"')
    if placed == "home" and not is_attached:
        raise ConfigError('VSCRAPY_PIPELINES is "home", but with --detach there is no sender; use "worker"')
    return placed


def _written_here(settings: BaseSettings, opts: argparse.Namespace) -> list[Path]:
    """The files that this very run writes: feeds, log, pid."""
    feeds = [str(uri) for uri in settings.getdict("FEEDS")]
    files = [url2pathname(urlparse(uri).path) for uri in feeds if urlparse(uri).scheme in ("", "file")]
    names = (*files, settings.get("LOG_FILE"), opts.pidfile, opts.profile, settings.get("JOBDIR"))
    return [Path(name).absolute() for name in names if name]


def _tell(words: str) -> None:
    print(f"vscrapy: {words}", file=sys.stderr)


def _profile(opts: argparse.Namespace) -> str:
    """Where the crawl's profile goes (``--profile``), below the project; '': this process's is all there is."""
    path = Path(opts.profile or os.devnull).absolute()
    project = project_dir() or Path.cwd()
    if not opts.profile or opts.detach or not path.is_relative_to(project):
        return ""
    return path.relative_to(project).as_posix()
