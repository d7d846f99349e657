"""
The template: a process that has imported Scrapy, and forks once for each crawl process.

It has one thread, no reactor (each project chooses its own), and no state but the children's ids. It is run as
``python -m vscrapy.worker.template FD``; FD is a unix stream socket to the agent.

From the agent, a JSON line, and with it three file descriptors (stdout, stderr, the channel)::

    {"id": 3, "title": "vscrapy-crawl task 7 books", "spec_bytes": 5120}

To the agent, JSON lines: ``{"ready": true, "versions": {"scrapy": ...}}`` once, ``{"started": 3, "pid": 4711}``,
``{"failed": 3, "error": "..."}`` (no fork), ``{"exited": 3, "status": 9}`` (as waitpid gives it). The spec itself,
which may be large, is the first thing on the child's channel: the template reads nothing that comes from a task.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from setproctitle import setproctitle

from vscrapy.versions import versions_here

#: What a crawl needs beyond the modules that Scrapy's default settings name.
PRELOADED: Final = (
    "asyncio",
    "lxml.html",
    "parsel",
    "redis",
    "scrapy",
    "scrapy.cmdline",
    "scrapy.commands.crawl",
    "scrapy.commands.runspider",
    "scrapy.core.downloader.handlers.http11",
    "scrapy.core.downloader.tls",
    "scrapy.core.engine",
    "scrapy.core.scheduler",
    "scrapy.core.scraper",
    "scrapy.core.spidermw",
    "scrapy.crawler",
    "scrapy.exporters",
    "scrapy.linkextractors",
    "scrapy.loader",
    "scrapy.pipelines.files",
    "scrapy.pqueues",
    "scrapy.selector",
    "scrapy.spiders",
    "scrapy.squeues",
    "scrapy.utils.asyncio",
    "scrapy.utils.defer",
    "scrapy.utils.ossignal",
    "scrapy.utils.reactor",
    "twisted.web.client",
    "vscrapy.bundle",
    "vscrapy.home",
    "vscrapy.store.blobs",
    "vscrapy.store.files",
    "vscrapy.store.frontier",
    "vscrapy.store.streams",
    "vscrapy.store.tasks",
    "vscrapy.wire",
)
#: Descriptors that come with a request: stdout, stderr, channel.
N_DESCRIPTORS: Final = 3
#: Signals that are for the agent, which tells us by closing its end; a terminal sends them to the whole group.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REACTOR: Final = "twisted.internet.reactor"
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # macOS has none.


def preload() -> None:
    """
    Import what a crawl needs, as far as it can be imported without a reactor.

    Raises:
        RuntimeError: A reactor was installed, or a thread started: nothing could be forked from here.
    """
    # Blocks its import. Which modules ask for it as they are imported changes from one Scrapy to the next (in
    # 2.13, the FTP handler); a crawl process imports those by itself.
    blocked: dict[str, Any] = sys.modules
    blocked[_REACTOR] = None
    settings = importlib.import_module("scrapy.settings.default_settings")
    named = {path.rpartition(".")[0] for path in _paths(vars(settings))}
    # All of ours: a later upgrade on disk must not mix with the code that runs.
    crawl = importlib.import_module("vscrapy.crawl")
    ours = {f"{crawl.__name__}.{found.name}" for found in pkgutil.iter_modules(crawl.__path__)}
    for name in sorted({*PRELOADED, *named, *ours}):
        # Also what is missing in this Scrapy, or needs a package that is not installed.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("vscrapy.store.scripts").preload()
    if sys.modules.pop(_REACTOR, None) is not None:
        raise RuntimeError("a module that the template preloads has installed a reactor")
    _check_single_threaded()


def _paths(value: Any) -> Iterator[str]:
    """Find the import paths of Scrapy's own classes in settings."""
    if isinstance(value, str):
        if value.startswith("scrapy.") and value.replace(".", "").isidentifier():
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(key)
            yield from _paths(inner)


def _check_single_threaded() -> None:
    count = threading.active_count()
    if count != 1:
        raise RuntimeError(f"the template has {count} threads: a fork would copy their locks, held or not")


class Template:
    """The loop: requests in, forks and their ends out."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ids: dict[int, int] = {}
        self._received = b""
        self._descriptors: list[int] = []
        self._woken, self._waker = socket.socketpair()

    def serve(self) -> None:
        """Work until the agent's end closes; the children see that on their own channels."""
        for ignored in _IGNORED:
            signal.signal(ignored, signal.SIG_IGN)
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        # The wake-up descriptor is written to only for signals that have a handler.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        poll = select.poll()  # No selector: an epoll descriptor would be shared with the children.
        poll.register(self._connection, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        try:
            self._send({"ready": True, "versions": versions_here()})
            while True:
                ready = dict(poll.poll())
                if self._woken.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._reap()
                if self._connection.fileno() in ready and not self._receive():
                    return
        except (BrokenPipeError, ConnectionResetError):  # The agent is gone.
            return

    def _send(self, message: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> bool:
        """Read what is there and fork for each whole request; False at the end."""
        data, descriptors, _, _ = socket.recv_fds(self._connection, 65536, 64, flags=_CLOEXEC)
        self._descriptors += descriptors
        if not data:
            return False
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            own, self._descriptors = self._descriptors[:N_DESCRIPTORS], self._descriptors[N_DESCRIPTORS:]
            self._fork(json.loads(line), own)
        return True

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> None:
        try:
            _check_single_threaded()
            pid = os.fork()
        except (OSError, RuntimeError) as error:
            pid = -1
            self._send({"failed": request["id"], "error": f"cannot fork: {error}"})
        if pid == 0:
            self._be_child(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._ids[pid] = request["id"]
            self._send({"started": request["id"], "pid": pid})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if status != 0:
                # It cannot have cleaned up: its own children (a browser, say) go with it. One that ended well
                # leaves them running, as a local crawl would.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            if pid in self._ids:
                self._send({"exited": self._ids.pop(pid), "status": status})

    def _be_child(self, request: dict[str, Any], descriptors: list[int]) -> NoReturn:
        """Become a crawl process; never comes back into the template's loop."""
        code = 1
        try:
            stdout, stderr, channel = descriptors
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for ignored in _IGNORED:
                signal.signal(ignored, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for source, target in ((null, 0), (stdout, 1), (stderr, 2)):
                os.dup2(source, target)
                os.close(source)
            for inherited in (self._connection, self._woken, self._waker):
                inherited.close()
            for other in self._descriptors:  # Of the requests behind this one.
                os.close(other)
            os.set_inheritable(channel, False)
            setproctitle(request["title"])
            code = _run(channel, request["spec_bytes"])
        # BaseException, so that nothing ever runs on in the template's loop with the template's state.
        except BaseException:  # noqa: BLE001
            _print_traceback()
        finally:
            _end(code)


def _run(channel: int, spec_bytes: int) -> int:
    """Read the spec off the channel, not a byte more, and call its entry; as Python itself would run a script."""
    # As on a terminal. New ones, for the template's own may have been files, which know their position.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    received = bytearray()
    while len(received) < spec_bytes:
        part = os.read(channel, spec_bytes - len(received))
        if not part:
            raise EOFError("the agent is gone: its end of the channel is closed")
        received += part
    spec = json.loads(received)
    module, function = spec["entry"]
    try:
        return int(getattr(importlib.import_module(module), function)(spec, channel))
    except SystemExit as error:
        if isinstance(error.code, int):
            return error.code
        if error.code is not None:
            print(error.code, file=sys.stderr)
            return 1
        return 0


def _print_traceback() -> None:
    # stderr may be closed, or replaced by the project with something that fails.
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exc()


def _end(code: int) -> NoReturn:
    """Do what the interpreter does at its end, without unwinding into the template."""
    try:
        # A project's own threads and atexit functions, as after "scrapy crawl"; multiprocessing's children wait
        # for their threads with the same call.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        _flush_c()
    except BaseException:  # noqa: BLE001 - the process ends here, whatever a project's exit function raises.
        _print_traceback()
    finally:
        os._exit(code & 0xFF)


def _flush_c() -> None:
    """Write out what C code has printed: ``os._exit`` forgets it."""
    # A Python built without ctypes has no C library at hand; nor is there always one to be found.
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        ctypes = importlib.import_module("ctypes")
        ctypes.CDLL(None).fflush(None)


def main(argv: list[str]) -> int:
    """Run a template on the descriptor that *argv* names."""
    if not sys.flags.safe_path:
        # "python -m" puts the agent's working directory first: a project must not import from there.
        del sys.path[0]
    connection = socket.socket(fileno=int(argv[1]))
    connection.set_inheritable(False)
    preload()
    gc.collect()
    gc.freeze()
    setproctitle("vscrapy-template")
    Template(connection).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
