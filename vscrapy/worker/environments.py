"""
The environments of a home: found, built once, kept warm while they are used, and removed when they are old.

``HOME/cache/environments/NAME`` is complete, and never changed; NAME is a sum of all that is in it. Agents of one
home share it: who builds one has a lock, who uses one has a share of another lock, and what is in use is not removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vscrapy.errors import EnvironmentFailed, EnvironmentRefused
from vscrapy.requirements import Requirements
from vscrapy.worker import pipconfig
from vscrapy.worker.build import Build, Plan, sweep, uv_binary
from vscrapy.worker.satisfied import lacking
from vscrapy.worker.spawner import Spawner

if TYPE_CHECKING:
    from vscrapy.worker.contact import Contact
    from vscrapy.worker.reactor import Reactor

#: Bytes of all environments; beyond it, what was used longest ago is removed.
MOST_BYTES: Final = 10 * 1024**3
#: Bytes of uv's cache; beyond it, it is emptied.
MOST_CACHE_BYTES: Final = 10 * 1024**3
#: Time without a use after which an environment is removed (s).
UNUSED_S: Final = 30 * 24 * 3600.0
#: Time for which what was resolved counts; then there may be newer versions (s).
RESOLVED_S: Final = 24 * 3600.0
#: Time without a crawl process after which a template ends (s), and how many of these there may be.
WARM_S: Final = 300.0
MOST_IDLE: Final = 4
#: How often an environment that does not work, or was removed just now, is built anew for one crawl process.
MOST_TRIES: Final = 3
#: Time between two looks whether a build is done, or a lock is free (s).
POLL_S: Final = 0.05
#: Time between two words on a build that takes long (s).
PROGRESS_S: Final = 10.0

#: Beside what uv has put into an environment: how large it is; its time is that of the last use.
_MARK: Final = "vscrapy.json"


@dataclass(slots=True)
class _Obtaining:
    """An environment that is being found or built, for all who want it."""

    build: Build
    #: Who is told what happens, by task.
    listeners: dict[int, Callable[[str], None]] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)
    is_building: bool = False
    #: The environment, or why there is none.
    outcome: Path | EnvironmentFailed | OSError | None = None


@dataclass(slots=True)
class _Warm:
    """An environment in use."""

    spawner: Spawner
    #: Holds the share of its lock.
    lock: int
    used_s: float


class Environments:
    """
    All environments that one agent uses.

    Args:
        may_build: Else those that are there already are used, and no other.
    """

    def __init__(
        self,
        reactor: Reactor,
        contact: Contact,
        home: Path,
        base: Spawner,
        *,
        may_build: bool,
        say: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._contact = contact
        self._root = home / "cache" / "environments"
        self._cache = home / "cache" / "uv"
        self._base = base
        self._may_build = may_build
        self._say = say
        self._obtaining: dict[str, _Obtaining] = {}
        self._warm: dict[str, _Warm] = {}

    # --- one task's

    async def spawner(
        self,
        requirements: Requirements,
        project: Path,
        sums: Mapping[str, str],
        *,
        taskid: int,
        is_wanted: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> Spawner | None:
        """
        Give what starts crawl processes that have what a project needs; None: it is not wanted any more.

        Args:
            project: The project's directory here, for what is local in it.
            sums: Path of a file in the project -> its SHA-256.
            tell: Gets a line for the task's log.

        Raises:
            EnvironmentFailed: What it needs cannot be had; why was told.
            EnvironmentRefused: This worker does not build.
            OSError: The disk refuses.
        """
        if not requirements.requirements:
            return self._base
        words = await self._contact.in_thread(lacking, requirements, sums)
        if not words:
            return self._base
        indexes = await self._contact.in_thread(pipconfig.read)
        plan = Plan(requirements, project, sums, indexes, self._root, self._cache)
        await self._contact.in_thread(self.prepare)
        key = await self._contact.in_thread(plan.key)
        fresh_s = RESOLVED_S if self._may_build else None
        for _ in range(MOST_TRIES):
            name = await self._contact.in_thread(self._known, key, fresh_s=fresh_s)
            if name is None:
                self._require_builder(words)
                if not is_wanted():
                    return None
                name = await self._obtain(key, plan, words, taskid, is_wanted, tell)
                if name is None:
                    return None
            found = await self._warmed(name)
            if found is not None:
                return found
        raise EnvironmentFailed("the environment is built, and does not work; the worker's own log says more")

    async def _obtain(
        self,
        key: str,
        plan: Plan,
        words: str,
        taskid: int,
        is_wanted: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> str | None:
        """Build, or wait for who does."""
        obtaining = self._obtaining.get(key)
        if obtaining is None:
            obtaining = self._obtaining[key] = _Obtaining(Build(plan, lambda line: self._told(key, line)))
            self._begin(key, obtaining)
        elif taskid not in obtaining.listeners:
            tell(f"building… for {time.monotonic() - obtaining.began_s:.1f} s already ({words})")
        if taskid not in obtaining.listeners:
            obtaining.listeners[taskid] = tell
            if len(obtaining.listeners) == 1:
                tell(f"building… ({plan.requirements.source}: {words})")
        said_s = time.monotonic()
        while obtaining.outcome is None:
            if not is_wanted():
                return None
            await self._contact.sleep(POLL_S)
            if time.monotonic() - said_s > PROGRESS_S:
                said_s = time.monotonic()
                tell(f"building… {said_s - obtaining.began_s:.0f} s")
        if isinstance(obtaining.outcome, Path):
            return obtaining.outcome.name
        raise obtaining.outcome

    def _require_builder(self, words: str) -> None:
        if not self._may_build:
            raise EnvironmentRefused(f"{words}, and this worker builds no environments (--no-build)")
        try:
            uv_binary()
        except FileNotFoundError as error:
            raise EnvironmentRefused(f"{words}, and no environment can be built here: {error}") from error

    def _begin(self, key: str, obtaining: _Obtaining) -> None:
        def done(outcome: Any) -> None:
            self._obtaining.pop(key, None)
            obtaining.outcome = outcome

        def failed(failure: Any) -> None:
            error = failure.value
            done(error if isinstance(error, EnvironmentFailed | OSError) else EnvironmentFailed(repr(error)))
            if not isinstance(error, EnvironmentFailed | OSError):
                self._say(failure.getTraceback())

        self._contact.at_length(self._make, key, obtaining).addCallbacks(done, failed)

    def _told(self, key: str, line: str) -> None:
        """Tell all who wait; from the build's thread."""

        def tell() -> None:
            obtaining = self._obtaining.get(key)
            for listener in obtaining.listeners.values() if obtaining is not None else ():
                listener(line)

        self._reactor.callFromThread(tell)

    # --- in a thread

    def _make(self, key: str, obtaining: _Obtaining) -> Path:
        """Find or build an environment; one agent of the home at a time."""
        build = obtaining.build
        began_s = time.monotonic()
        with self._locked(f"plan-{key}", build):
            name = self._known(key, fresh_s=RESOLVED_S)
            if name is not None:
                self._told(key, f"built by another worker of this home, after {time.monotonic() - began_s:.1f} s")
                return self._root / name
            try:
                with build.begun():
                    name = build.resolve()
                    with self._locked(f"build-{name}", build):
                        is_there = self._is_complete(name)
                        if not is_there:
                            self._put(build.install(), name)
            except EnvironmentFailed as error:
                old = self._known(key, fresh_s=None)
                if old is None or build.is_killed:
                    raise
                self._told(key, f"{error}; what was built before is used")
                return self._root / old
            self._write_known(key, name)
            words = f"{'found' if is_there else 'built'} in {time.monotonic() - began_s:.1f} s"
            self._reactor.callFromThread(self._say, f"environment {name}: {words}")
            self._told(key, words)
            return self._root / name

    def _put(self, made: Path, name: str) -> None:
        size_bytes = _size(made)
        (made / _MARK).write_text(json.dumps({"bytes": size_bytes, "made": time.time()}), encoding="utf-8")
        target = self._root / name
        if target.exists():  # and not complete
            shutil.rmtree(target)
        os.rename(made, target)

    def prepare(self) -> None:
        """
        Make the directories.

        Raises:
            OSError: The home cannot be used.
        """
        for directory in (self._root, self._root / "plans", self._root / "locks", self._cache):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _is_complete(self, name: str) -> bool:
        return (self._root / name / _MARK).is_file() and (self._root / name / "bin" / "python").exists()

    def _known(self, key: str, *, fresh_s: float | None) -> str | None:
        """The environment that a plan has come to, if it is there; *fresh_s*: not longer ago than that."""
        path = self._root / "plans" / key
        try:
            age_s = time.time() - path.stat().st_mtime
            name = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        is_fresh = fresh_s is None or age_s < fresh_s
        return name if is_fresh and name.isalnum() and self._is_complete(name) else None

    def _write_known(self, key: str, name: str) -> None:
        path = self._root / "plans" / key
        scratch = path.with_name(f".{key}-{os.getpid()}-{threading.get_ident()}")
        scratch.write_text(name, encoding="ascii")
        os.replace(scratch, path)

    @contextlib.contextmanager
    def _locked(self, name: str, build: Build) -> Iterator[None]:
        """Have a lock alone, among all agents of the home; who waits for it says so once."""
        is_said = False
        while True:
            descriptor = self._lock(name, fcntl.LOCK_EX)
            if descriptor is not None:
                break
            if build.is_killed:
                raise EnvironmentFailed(build.is_killed)
            if not is_said:
                is_said = True
                build.tell("another worker of this home builds it; waiting")
            time.sleep(POLL_S)
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self, name: str, kind: int) -> int | None:
        """Take a lock now, or not at all; the descriptor holds it."""
        path = self._root / "locks" / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    # --- templates

    async def _warmed(self, name: str) -> Spawner | None:
        """Give the template of an environment, started if need be; None: the environment is not there after all."""
        warm = self._warm.get(name)
        if warm is not None and warm.spawner.is_broken:
            self._cool(name)
            await self._contact.in_thread(self._discard, name)
            return None
        if warm is None:
            lock = await self._contact.in_thread(self._share, name)
            if lock is None:
                return None
            warm = self._warm.get(name)
            if warm is None:
                warm = self._warm[name] = _Warm(
                    Spawner(
                        self._reactor,
                        self._say,
                        self._root / name,
                        nice=self._base.nice,
                        replaced=self._base.replaced,
                    ),
                    lock,
                    time.monotonic(),
                )
                warm.spawner.start()
            else:  # somebody was faster
                os.close(lock)
        warm.used_s = time.monotonic()
        await self._contact.in_thread(self._touch, name)
        return warm.spawner

    def _share(self, name: str) -> int | None:
        """Keep an environment from being removed; None: it was."""
        deadline_s = time.monotonic() + PROGRESS_S
        while True:
            descriptor = self._lock(f"use-{name}", fcntl.LOCK_SH)
            if descriptor is not None and self._is_complete(name):
                return descriptor
            if descriptor is not None:
                os.close(descriptor)
            if descriptor is not None or time.monotonic() > deadline_s:
                return None
            time.sleep(POLL_S)

    def _touch(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.utime(self._root / name / _MARK)

    def _discard(self, name: str) -> None:
        """Let an environment count as not there; it is removed when nobody uses it."""
        (self._root / name / _MARK).unlink(missing_ok=True)

    def _cool(self, name: str) -> None:
        warm = self._warm.pop(name)
        warm.spawner.stop()
        os.close(warm.lock)

    # --- from time to time

    def look(self, live: Collection[int]) -> None:
        """
        End builds whose tasks have all ended, and templates that nobody uses.

        Args:
            live: Tasks that go on.
        """
        for obtaining in self._obtaining.values():
            if obtaining.listeners and not any(taskid in live for taskid in obtaining.listeners):
                obtaining.build.kill("the task has ended")
        now_s = time.monotonic()
        for warm in self._warm.values():
            if warm.spawner.n_children:
                warm.used_s = now_s
        idle = sorted((warm.used_s, name) for name, warm in self._warm.items() if not warm.spawner.n_children)
        for number, (used_s, name) in enumerate(reversed(idle)):
            if now_s - used_s > WARM_S or number >= MOST_IDLE:
                self._cool(name)

    def trim(self, *, most_bytes: int = MOST_BYTES, unused_s: float = UNUSED_S) -> None:
        """Remove what was not used for long, and what is too much; not what is in use. Blocks on the disk."""
        if not self._root.is_dir():
            return
        sweep(self._root)
        found = []
        for path in self._root.iterdir():
            if not path.name.isalnum() or path.name in ("plans", "locks", "wheels"):
                continue
            try:
                mark = path / _MARK
                found.append((mark.stat().st_mtime, int(json.loads(mark.read_text())["bytes"]), path))
            except (OSError, ValueError, KeyError, TypeError):
                found.append((0.0, 0, path))  # not complete
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            is_old = time.time() - used > unused_s
            if (is_old or total > most_bytes) and self._remove(path):
                total -= size
        for path in [*(self._root / "plans").iterdir(), *(self._root / "locks").iterdir()]:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > 2 * unused_s:
                    path.unlink()
        self._trim_wheels(unused_s)
        if _size(self._cache) > MOST_CACHE_BYTES:
            shutil.rmtree(self._cache, ignore_errors=True)

    def _trim_wheels(self, unused_s: float) -> None:
        for path in (self._root / "wheels").rglob("*.whl"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > unused_s:
                    path.unlink()

    def _remove(self, path: Path) -> bool:
        """Remove an environment, unless somebody uses it."""
        lock = self._lock(f"use-{path.name}", fcntl.LOCK_EX)
        if lock is None:
            return False
        try:
            doomed = path.with_name(f".new-gone-{path.name}")  # swept, should this process end now
            os.rename(path, doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            self._say(f"{path} cannot be removed: {error.strerror or error}")
            return False
        finally:
            os.close(lock)
        self._say(f"environment {path.name} is removed")
        return True

    def stop(self) -> None:
        """End all builds and templates."""
        for obtaining in self._obtaining.values():
            obtaining.build.kill("its worker ends")
        for name in list(self._warm):
            self._cool(name)


def _size(directory: Path) -> int:
    """The bytes of all files in a directory."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
