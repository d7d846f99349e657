"""
One attached crawl, from the order to the exit code.

The main thread runs home's reactor; one thread follows the task, two keep the sign of life, one carries out
what the user's signals ask for.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from scrapy.utils.log import get_scrapy_root_handler
from twisted.internet.defer import Deferred

from vscrapy import internals
from vscrapy.errors import ConfigError, StoreRefused, StoreUnavailable, TaskGone, VscrapyError
from vscrapy.home import Home, silence
from vscrapy.sender.earlytask import told
from vscrapy.sender.files import FilesHome
from vscrapy.sender.follow import Follower
from vscrapy.sender.follow import Home as Taker
from vscrapy.sender.headstart import HeadStart
from vscrapy.sender.jobdir import JobDir
from vscrapy.sender.outputs import Outputs
from vscrapy.sender.presence import Presence
from vscrapy.sender.remembered import Display
from vscrapy.sender.shares import Shares
from vscrapy.sender.submit import Order, Submitted, counts_items_at_home, project_dir, submit
from vscrapy.sender.terminal import Terminal
from vscrapy.states import Reason, StopMode, TaskState
from vscrapy.stats import encode_values, merge
from vscrapy.store.base import Store
from vscrapy.store.connection import require_server
from vscrapy.store.files import Files
from vscrapy.store.streams import BEGINNING, Streams
from vscrapy.store.tasks import Tasks

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings, Settings

    from vscrapy.model import Endpoint
    from vscrapy.politeness import Politeness
    from vscrapy.store.entries import EndRecord

#: After a forced stop, or when the terminal is gone, the end record is waited for this long (seconds).
LAST_WORDS_S: Final = 10.0
#: Time between two tries to stop the task, when Redis is away (seconds).
STOP_AGAIN_S: Final = 0.2


def _display() -> Display | None:
    """How Scrapy's handler shows records; None: not on stderr, or in a way of its own."""
    handler = get_scrapy_root_handler()
    if type(handler) is not logging.StreamHandler or handler.stream is not sys.stderr or handler.filters:
        return None
    formatter = handler.formatter
    if type(formatter) is not logging.Formatter or formatter._fmt is None:
        return None
    return Display(formatter._fmt, formatter.datefmt, handler.level)


class AttachedCrawl:
    """
    One task and its sender, tied to each other.

    Args:
        settings: What the crawl is to have: the project's settings, the spider's and the command line's.
        home_settings: Settings for this process's crawler.
        exclude: Files that do not travel.
        outputs: Notes what this process writes.
        head_start: Has submitted the task early, perhaps.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: BaseSettings,
        home_settings: Settings,
        order: Order,
        exclude: Collection[Path],
        outputs: Outputs,
        head_start: HeadStart,
    ) -> None:
        self._endpoint = endpoint
        self._order = order
        self._exclude = exclude
        self._outputs = outputs
        self._store = Store(endpoint, name="vscrapy-sender")
        self._tasks = Tasks(self._store)
        self._head_start = head_start
        self._terminal = head_start.terminal or Terminal(
            get_scrapy_root_handler, is_home=True, project=project_dir() or Path.cwd()
        )
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._taskid = 0
        self._presence: Presence | None = None
        self._follower: Follower | None = None
        self._files: FilesHome | None = None
        self._exit_code = 1
        self._has_ended = threading.Event()
        self._open_home: Callable[[], None] | None = None
        self._home = Home(
            home_settings,
            has_pipelines=order.pipelines == "home",
            on_open=self._submit,
            on_stop=self._stop_for_home,
            channel=self._share,
        )
        self._settings = settings
        self._home_settings = home_settings

    def run(self, spider_class: type[Spider]) -> int:
        """
        Run to the end.

        Returns:
            The crawl's exit code.

        Raises:
            StoreUnavailable, StoreRefused: Redis does not answer. What else keeps the task from being submitted
                ends the process with the error's line and exit code.
        """
        if self._head_start.terminal is None:
            require_server(self._store.client, self._endpoint)
        silence(has_pipelines=self._order.pipelines == "home", hold=self._terminal.hold)
        process: Any = internals.crawler_process(self._home_settings)
        crawler = process.create_crawler(spider_class)
        internals.after_addons(crawler, self._adapt)
        # It sees no page: whatever it does by itself, its like in the crawl processes do.
        internals.around_spider(crawler, lambda: internals.deaf(crawler))
        process.crawl(crawler, **self._order.spider_args)
        self._take_signals()
        self._outputs.watch()
        process.start(install_signal_handlers=False)
        self._settle(crawler)
        if self._taskid and not self._has_ended.is_set():
            # Home broke down before the task's end, for instance in a pipeline's open_spider.
            self._stop(Reason.FAILED, StopMode.GRACEFUL)
        return 1 if process.bootstrap_failed else self._exit_code

    def _settle(self, crawler: Crawler | None) -> None:
        """After the end: keep what another run, or another command, will ask for."""
        if self._presence is None:
            return
        self._presence.stop()
        self._outputs.keep()
        if crawler is not None:
            self._keep_stats(crawler)
        self._drop_items()
        if self._settings.get("JOBDIR"):
            self._settle_job_dir(JobDir(Path(self._settings["JOBDIR"])))

    def _settle_job_dir(self, job_dir: JobDir) -> None:
        """After the end: say that the task is kept, or forget it."""
        try:
            record = self._tasks.record(self._taskid)
        except (StoreUnavailable, StoreRefused, TaskGone) as error:
            self._terminal.tell(f"{error}; what becomes of JOBDIR {job_dir.path} is seen when it is used again")
            return
        if record.state is TaskState.SUSPENDED:
            self._terminal.tell(
                f"task {self._taskid} is kept: the same command goes on with it, vscrapy stop {self._taskid} ends it"
            )
        else:
            job_dir.forget()

    # In home's thread.

    def _adapt(self, settings: BaseSettings) -> None:
        """The settings are as the spider and add-ons have them: they are the task's, and then home's."""
        try:
            internals.check_scheduler(settings)
        except ConfigError as error:
            self._refuse(error)
        self._settings = settings.copy()
        self._home.adapt(settings, counts_items=counts_items_at_home(self._order, self._settings))

    def _submit(self) -> Deferred[None]:
        """The spider is there and about to open: submit, and let it open when one of the crawl processes does."""
        opened: Deferred[None] = Deferred()
        call = internals.thread_caller()
        threading.Thread(target=self._submit_in_thread, args=(opened, call), daemon=True).start()
        return opened

    def _stop_for_home(self, reason: str) -> None:
        threading.Thread(target=self._stop, args=(reason, StopMode.GRACEFUL), daemon=True).start()

    def _share(self, politeness: Politeness, call: Callable[..., Any]) -> Shares:
        shares = Shares(self._endpoint, self._taskid, politeness, call)
        shares.start()
        return shares

    # In threads.

    def _submit_in_thread(self, opened: Deferred[None], call: Any) -> None:
        has_head_start = self._head_start.terminal is not None
        submitted = self._submitted()
        self._taskid = submitted.taskid
        self._open_home = partial(call, opened.callback, None)
        self._take_up(submitted)
        threading.Thread(target=self._obey, name="vscrapy-signals", daemon=True).start()
        threading.Thread(target=self._follow, name="vscrapy-follow", daemon=True).start()
        if has_head_start:
            self._check_server()
        submitted.remember()

    def _submitted(self) -> Submitted:
        try:
            return submit(
                self._store,
                self._endpoint.secret,
                self._order,
                self._settings,
                self._exclude,
                head_start=self._head_start,
                display=_display(),
            )
        except VscrapyError as error:
            self._refuse(error)
        except Exception:  # noqa: BLE001 - a defect; shown whole, and nothing has been submitted
            traceback.print_exc()
            self._exit_before_anything(1)

    def _take_up(self, submitted: Submitted) -> None:
        """Be the task's sender: hear what it says, take what it gives, and be seen."""
        taskid, early = submitted.taskid, submitted.early
        if early is not None:
            early.end()
        self._terminal.use_handler(get_scrapy_root_handler)
        self._terminal.name_outside(submitted.outside)
        self._home.use_key(submitted.key)
        self._files = FilesHome(
            Files(self._store),
            taskid,
            submitted.key,
            project_dir() or Path.cwd(),
            tell=self._terminal.tell,
            came=self._outputs.came,
        )
        self._files.begin()
        self._follower = Follower(
            self._endpoint,
            taskid,
            self._terminal,
            home=Taker(self._open, self._home.take, self._home.done, self._home.flush),
            start=early.cursor if early is not None else submitted.cursor or BEGINNING,
            n_shown=early.n_shown if early is not None else 0,
        )
        self._presence = Presence(
            self._endpoint,
            taskid,
            choice=self._order.choice,
            tell=self._terminal.tell,
            on_gone=self._follower.gone,
        )
        self._presence.start()
        if early is not None:
            early.release()  # presence is seen in its place
        else:
            goes_on = submitted.cursor is not None
            n_files, sent_bytes = submitted.n_files, submitted.sent_bytes
            self._terminal.tell(told(taskid, self._order.spider, n_files, sent_bytes, goes_on=goes_on))

    def _check_server(self) -> None:
        """What :meth:`run` does before anything else, unless it would keep a task waiting that is there already."""
        try:
            require_server(self._store.client, self._endpoint)
        except VscrapyError as error:
            self._terminal.tell(str(error))

    def _refuse(self, error: VscrapyError) -> NoReturn:
        """Nothing was submitted: say why."""
        print(f"vscrapy: {error}", file=sys.stderr)
        self._exit_before_anything(error.exit_code)

    def _exit_before_anything(self, code: int) -> NoReturn:
        """End at once: the spider has not opened, so no feed is touched and no pipeline has begun."""
        self._head_start.withdraw()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _follow(self) -> None:
        try:
            end = self._follow_to_end()
        except Exception:  # noqa: BLE001 - a defect; shown whole, and nobody waits for an end that is not seen
            traceback.print_exc()
            self._stop(Reason.FAILED, StopMode.GRACEFUL)
            end = None
        if end is not None and end.reason != Reason.SENDER_LOST:  # what was lost is not done: that is no success
            self._exit_code = end.exit_code
        reason = end.reason if end is not None else Reason.FAILED
        try:
            self._take_files()
        except Exception:  # noqa: BLE001 - a defect; shown whole, and home still closes
            traceback.print_exc()
        if self._open_home is not None and reason in (Reason.FAILED, Reason.CRASHED):
            self._end_unopened()
        self._open()
        self._has_ended.set()
        self._home.end(reason, self._stats(reason))

    def _open(self) -> None:
        """Let home's spider open, if it did not."""
        open_home, self._open_home = self._open_home, None
        if open_home is not None:
            open_home()

    def _end_unopened(self) -> NoReturn:
        """No crawl process came so far as to open its spider: as with Scrapy, no feed is touched, no stats dumped."""
        self._has_ended.set()
        self._settle(None)
        self._exit_before_anything(self._exit_code)

    def _follow_to_end(self) -> EndRecord | None:
        assert self._follower is not None
        try:
            return self._follower.run()
        except OSError as error:  # the terminal, or the pipe that this process writes to, is gone
            self._leave_terminal(error)
            return self._follower.run()

    def _leave_terminal(self, error: OSError) -> None:
        silence = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(silence, descriptor)
        self._asked.put(signal.SIGHUP)

    def _take_files(self) -> None:
        assert self._files is not None
        try:
            n_files = self._files.finish()
        except (StoreUnavailable, StoreRefused) as error:
            self._terminal.tell(f"{error}; files of the crawl processes stay there")
        else:
            if n_files:
                noun = "file" if n_files == 1 else "files"
                verb = "is" if n_files == 1 else "are"
                self._terminal.tell(f"{n_files} {noun} that the crawl wrote {verb} in {project_dir() or Path.cwd()}")

    def _stats(self, reason: str) -> dict[str, Any]:
        try:
            counted, values = self._tasks.stats(self._taskid)
        except (StoreUnavailable, StoreRefused) as error:
            self._terminal.tell(f"{error}; the stats are not complete")
            counted, values = {}, []
        merged = merge(counted, values, reason=reason)
        for what, refuser in (("files", self._files), ("log_entries", self._follower)):
            if refuser is not None and refuser.n_refused:
                merged[f"vscrapy/{what}_refused"] = refuser.n_refused
        return merged

    def _keep_stats(self, crawler: Crawler) -> None:
        """Leave on Redis what was dumped here: home's own stats are in it."""
        if not self._has_ended.is_set() or crawler.stats is None:
            return
        try:
            self._tasks.keep_stats(self._taskid, encode_values(crawler.stats.get_stats()))
        except (StoreUnavailable, StoreRefused) as error:
            self._terminal.tell(f"{error}; 'vscrapy stats {self._taskid}' will lack what feeds and pipelines counted")

    def _drop_items(self) -> None:
        """What is in the feeds is not needed on Redis; a task that is kept must not give the same items again."""
        done = self._home.done()
        try:
            if done:
                Streams(self._store).fetched_items(self._taskid, done, is_drop=True)
        except (StoreUnavailable, StoreRefused) as error:
            self._terminal.tell(f"{error}; items that are in the feeds stay on Redis until they expire")

    def _obey(self) -> None:
        """Carry out what the user's signals ask for; when Redis is away, as soon as it is back."""
        n_asked = 0
        wanted: tuple[Reason, StopMode] | None = None
        while True:
            try:
                number = self._asked.get(timeout=STOP_AGAIN_S if wanted else None)
            except queue.Empty:
                if wanted and self._stop(*wanted):
                    wanted = None
                continue
            n_asked += 1
            if self._has_ended.is_set():
                # Home closes its feeds and pipelines; whoever asks twice does not want to wait for them.
                if n_asked > 1:
                    os._exit(128 + number)
                self._terminal.tell("closing feeds and pipelines; again to force")
                continue
            name = signal.Signals(number).name
            mode = StopMode.GRACEFUL if number == signal.SIGHUP or n_asked == 1 else StopMode.FORCED
            wanted = (Reason.SENDER_LOST if number == signal.SIGHUP else Reason.SHUTDOWN, mode)
            if number == signal.SIGHUP or mode is StopMode.FORCED:
                self._give_up_after(LAST_WORDS_S)
            # The words come after the deed: the terminal may be slow, or gone.
            if self._stop(*wanted):
                wanted = None
            if mode is StopMode.FORCED:
                self._terminal.tell(f"received {name} again, task {self._taskid} is ended by force")
            elif number != signal.SIGHUP:
                self._terminal.tell(f"received {name}, closing task {self._taskid} gracefully; again to force")

    def _stop(self, reason: str, mode: StopMode) -> bool:
        """Stop the task; False: Redis did not answer."""
        try:
            self._tasks.stop(self._taskid, reason=reason, mode=mode)
        except TaskGone:
            return True  # it has ended by itself
        except (StoreUnavailable, StoreRefused):
            return False  # the follower tells that Redis is away; without a sender the task ends by itself
        return True

    def _give_up_after(self, seconds: float) -> None:
        def give_up() -> None:
            if not self._has_ended.is_set():
                os._exit(128 + signal.SIGHUP)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()

    def _take_signals(self) -> None:
        def ask(number: int, _frame: object) -> None:
            if not self._taskid:
                sys.exit(128 + number)  # nothing has been submitted
            self._asked.put(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, ask)
