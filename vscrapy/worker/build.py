"""
One build: a project's requirements to a virtual environment with this worker's vscrapy in it, by uv.

It runs in a thread, and blocks. First uv resolves: versions as they are in the worker's own environment are taken
where they will do. The environment is known by what came of that; where it is there already, nothing is installed.
uv reads what it is to do from files of the owner's: nothing that may hold a password is on its command line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name
from packaging.version import Version

from vscrapy.errors import EnvironmentFailed
from vscrapy.requirements import Requirements, redact, secrets_in
from vscrapy.worker import bound
from vscrapy.worker.pipconfig import Indexes
from vscrapy.worker.wheels import installed_wheels, own_wheel

#: Time for a whole build (s).
BUILD_S: Final = 1800.0
#: What uv's processes are nicer by than the agent.
NICENESS: Final = 5
#: What the words of uv have in them when an index could not be reached.
_NETWORK: Final = re.compile(
    r"error sending request|dns error|connect error|connection (?:refused|reset)|timed? ?out|network is unreachable"
    r"|failed to fetch|could not connect|operation was attempted offline",
    re.IGNORECASE,
)
#: What an environment must be able to do.
_CHECK: Final = (
    "import scrapy.core.downloader.contextfactory, scrapy.core.downloader.handlers.http11\n"
    "import vscrapy.worker.template, vscrapy.crawl.main, vscrapy.store.tasks, vscrapy.internals as internals\n"
    "internals.check()"
)
_DISK_FULL: Final = os.strerror(errno.ENOSPC)
#: How uv begins to say why it failed, in its versions; and what it says when it was no accident.
_ERROR: Final = re.compile(r"\s*(error:|×)", re.IGNORECASE)
_UNSOLVED: Final = "No solution found"
#: Scrapy's releases before the first do not say that they run with no Twisted beyond the second.
_TWISTED: Final = (Version("2.13.4"), Version("25.5.0"))
_HASH: Final = re.compile(r"--hash[= ](\S+)")
_STAGING: Final = ".new-"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built, from what, and where."""

    requirements: Requirements
    #: The project as it was sent: what is local is copied from it.
    project: Path
    #: Path of a file in the project -> its SHA-256.
    sums: Mapping[str, str]
    indexes: Indexes
    #: The directory of all environments, and uv's cache.
    root: Path
    cache: Path

    def key(self) -> str:
        """Say what it is before it is resolved: the same plan on the same machine has the same key."""
        local = {path: self.sums_below(path) for path in self.requirements.paths}
        data = self.requirements.to_data()
        del data["source"]
        indexes = [str(self.indexes), os.environ.get("UV_INDEX_URL"), os.environ.get("UV_DEFAULT_INDEX")]
        return _digest(data, local, indexes, own_wheel(self.root / "wheels").parent.name, *machine())

    def sums_below(self, path: str) -> list[tuple[str, str]]:
        """The files at or below a path of the project, with their sums."""
        return sorted(
            (name, sha256)
            for name, sha256 in self.sums.items()
            if name == path or path == "." or name.startswith(f"{path}/")
        )


def machine() -> tuple[str, ...]:
    """What an environment is tied to, besides what is in it."""
    base = os.path.realpath(sys.executable)
    return (platform.python_version(), str(sys.implementation.cache_tag), sysconfig.get_platform(), base)


def uv_binary() -> str:
    """
    Find uv.

    Raises:
        FileNotFoundError: It is not installed.
    """
    try:
        import uv
    except ImportError as error:
        raise FileNotFoundError("uv is not installed") from error
    return str(uv.find_uv_bin())


class _Unreachable(EnvironmentFailed):
    """The package index cannot be reached."""


class Build:
    """
    A build in its thread.

    Args:
        tell: Gets what is said on the way, a line at a time; called in the build's thread.
    """

    def __init__(self, plan: Plan, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self.tell = tell
        requirements, indexes = plan.requirements, plan.indexes
        urls = (
            *(requirements.index_url, *requirements.extra_index_urls, *requirements.find_links),
            *(found.text for found in requirements.requirements),
            *(indexes.index_url, *indexes.extra_index_urls, *indexes.find_links),
            *(value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_"))),
            *(value for name, value in os.environ.items() if name.lower().endswith("_proxy")),
        )
        self._secrets = sorted(secrets_in(urls), key=len, reverse=True)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = ""
        self._staging: Path | None = None
        #: No index is asked.
        self._is_offline = requirements.is_without_index or indexes.is_without_index
        #: What is installed here may be taken, too.
        self._offers_installed = self._is_offline
        #: What uv said last, when it may still be tried in another way.
        self._held: list[str] = []
        #: Further constraints.
        self._bounds: list[str] = []
        #: Where what lies in the project is copied to, by its path there.
        self._copies: dict[str, Path] = {}
        #: Directories with archives.
        self._links: list[Path] = []

    @property
    def is_killed(self) -> str:
        """Why it was ended from outside; '': it was not."""
        return self._killed

    @property
    def staging(self) -> Path:
        """Where it works."""
        assert self._staging is not None
        return self._staging

    def kill(self, why: str) -> None:
        """End it, from any thread."""
        with self._lock:
            self._killed = self._killed or why
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """
        Have a directory to work in, and a limit of time.

        Raises:
            OSError: The disk refuses.
        """
        self._staging = Path(tempfile.mkdtemp(dir=self._plan.root, prefix=_STAGING))
        timer = threading.Timer(BUILD_S, self.kill, [f"it took longer than {BUILD_S / 60:g} minutes"])
        timer.daemon = True
        timer.start()
        try:
            paths = dict.fromkeys(self._plan.requirements.paths)
            self._copies = {path: self._copied(path, number) for number, path in enumerate(paths)}
            yield
        finally:
            timer.cancel()
            shutil.rmtree(self._staging, ignore_errors=True)

    def resolve(self) -> str:
        """
        Find out which packages it will be; gives the name of the environment.

        Where the index is not reached, or has not all of it (one of a company's own packages, say), what is installed
        here is offered, too.

        Raises:
            EnvironmentFailed: They cannot be had; why was told.
            OSError: uv cannot be run.
        """
        try:
            self._compile(holds_errors=not self._offers_installed)
        except EnvironmentFailed as error:
            self._compile_again(error)
        lines = self._resolved()
        if self._is_twisted_too_new(lines):
            self._bounds = [f"twisted<={_TWISTED[1]}"]
            self._compile()
            lines = self._resolved()
        (self.staging / "install.txt").write_text("\n".join([*self._sources(), *lines, ""]), encoding="utf-8")
        # What was found in the project is known by its sum, not by where it lies now.
        plain = [re.sub(r"file://\S*/", "", line) for line in lines]
        needed = self._plan.requirements.requirements
        local = [self._plan.sums_below(found.path) for found in needed if found.is_local]
        return _digest(sorted(plain), local, *machine())

    @staticmethod
    def _is_twisted_too_new(lines: list[str]) -> bool:
        chosen = {name: version for name, _, version in (line.split()[0].partition("==") for line in lines)}
        scrapy, twisted = chosen.get("scrapy"), chosen.get("twisted")
        if not scrapy or not twisted:  # from a URL: whoever gives one knows
            return False
        return Version(scrapy) < _TWISTED[0] and Version(twisted) > _TWISTED[1]

    def _compile_again(self, error: EnvironmentFailed) -> None:
        """Try with what is installed here, if that may help; else tell what uv said."""
        held, self._held = self._held, []
        is_unsolved = any(_UNSOLVED in line for line in held)
        if self._offers_installed or self.is_killed or not (is_unsolved or isinstance(error, _Unreachable)):
            for line in held:
                self.tell(line)
            raise error
        self._offers_installed = True
        if not isinstance(error, _Unreachable):
            self._compile()
            return
        for line in (*held, "no package index is reached; looking at what is here"):
            self.tell(line)
        self._is_offline = True
        try:
            self._compile()
        except EnvironmentFailed:
            raise error from None

    def _compile(self, *, holds_errors: bool = False) -> None:
        self._write_input()
        flags = ["--prerelease", "allow"] if self._plan.requirements.takes_prereleases else []
        self._run(
            *("pip", "compile", "--generate-hashes", "--no-annotate", "--no-header"),
            *("--python", sys.executable, "--output-file", "resolved.txt", *flags, "requirements.in"),
            holds_errors=holds_errors,
        )

    def install(self) -> Path:
        """
        Make the environment, in the directory that the build works in.

        Raises:
            EnvironmentFailed: A package cannot be had or built, or the environment does not work; why was told.
            OSError: uv cannot be run.
        """
        venv = self.staging / "environment"
        self._run("venv", "--quiet", "--relocatable", "--no-project", "--python", sys.executable, str(venv))
        python = str(venv / "bin" / "python")
        self._run("pip", "install", "--python", python, "--no-deps", "-r", "install.txt")
        self._execute([python, "-I", "-W", "ignore", "-c", _CHECK], self.staging)
        return venv

    # --- what uv reads

    def _write_input(self) -> None:
        plan, requirements, copies = self._plan, self._plan.requirements, self._copies
        self._links = [copies[path] for path in requirements.find_paths]
        if self._offers_installed:
            # What the project leaves out is there, for vscrapy runs with it.
            wheels = plan.root / "wheels" / "installed"
            installed_wheels(wheels)
            self._links.append(wheels)
        lines = [
            *self._sources(),
            f"vscrapy @ {own_wheel(plan.root / 'wheels').as_uri()}",
            *(
                f"{copies[found.path].as_uri()}{found.text}" if found.is_local else found.text
                for found in requirements.requirements
                if not _is_own(found.text)
            ),
        ]
        constraints = [*requirements.constraints, *self._bounds]
        if constraints:
            text = "\n".join([*constraints, ""])
            (self.staging / "constraints.txt").write_text(text, encoding="utf-8")
            lines.insert(0, "-c constraints.txt")
        (self.staging / "requirements.in").write_text("\n".join([*lines, ""]), encoding="utf-8")
        known = {canonicalize_name(found.metadata["Name"]): found.version for found in distributions()}
        pins = [f"{name}=={version}" for name, version in sorted(known.items()) if name != "vscrapy"]
        (self.staging / "resolved.txt").write_text("\n".join([*pins, ""]), encoding="utf-8")

    def _copied(self, path: str, number: int) -> Path:
        """Copy a part of the project: uv remembers files by their paths, and may write beside a source."""
        source = self._plan.project / path
        target = self.staging / "local" / str(number) / source.name
        target.parent.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return target

    def _sources(self) -> list[str]:
        """Where packages come from, as options of a requirements file."""
        requirements, indexes = self._plan.requirements, self._plan.indexes
        index_url = requirements.index_url or indexes.index_url
        links = [*(path.as_uri() for path in self._links), *requirements.find_links, *indexes.find_links]
        extra = [*requirements.extra_index_urls, *indexes.extra_index_urls]
        return [
            *([f"--index-url {index_url}"] if index_url and not self._is_offline else []),
            *(f"--extra-index-url {url}" for url in extra if not self._is_offline),
            *(f"--find-links {link}" for link in links),
            *(["--no-index"] if self._is_offline else []),
            *(f"--no-binary {name}" for name in requirements.no_binary),
            *(f"--only-binary {name}" for name in requirements.only_binary),
        ]

    def _resolved(self) -> list[str]:
        """What uv has chosen: a line each, with the hashes that the project gives where it gives some."""
        given = {
            canonicalize_name(re.split(r"[^\w.-]", found.text, maxsplit=1)[0]): found.hashes
            for found in self._plan.requirements.requirements
            if found.hashes and not found.is_local
        }
        text = (self.staging / "resolved.txt").read_text(encoding="utf-8").replace("\\\n", " ")
        lines = []
        for line in text.splitlines():
            chosen = _HASH.sub("", line).strip()
            if not chosen or chosen.startswith(("#", "-")):
                continue
            name = canonicalize_name(re.split(r"[^\w.-]", chosen, maxsplit=1)[0])
            hashes = given.get(name) or _HASH.findall(line)
            lines.append(" ".join([chosen, *(f"--hash={value}" for value in sorted(hashes))]))
        return lines

    # --- processes

    def _run(self, *args: str, holds_errors: bool = False) -> None:
        self._execute([uv_binary(), *args], self.staging, holds_errors=holds_errors)

    def _execute(self, command: list[str], directory: Path, *, holds_errors: bool = False) -> None:
        """
        Run a command to its end, and tell what it says on stderr.

        Args:
            holds_errors: From the first error on, it is kept instead of told.
        """
        with self._lock:
            if self._killed:
                raise EnvironmentFailed(self._killed)
            process = self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", bound.__file__, str(NICENESS), *command],
                cwd=directory,
                env=self._environ(),
                stdin=subprocess.PIPE,  # nothing is written to it; it closes when this process is dead
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        said, installed = [], []
        assert process.stdin is not None
        assert process.stderr is not None
        with process.stdin, process.stderr:
            for line in process.stderr:
                words = self._shown(line.decode(errors="replace").rstrip())
                if words.startswith(" + "):  # one a package
                    installed.append(words.removeprefix(" + ").partition(" ")[0])
                elif words:
                    said.append(words)
                    if holds_errors and (self._held or _ERROR.match(words)):
                        self._held.append(words.strip())
                    else:
                        self.tell(words.strip())
        if installed:
            self.tell(f"installed {', '.join(installed)}")
        code = process.wait()
        with self._lock:
            self._process = None
            killed = self._killed
        if killed:
            raise EnvironmentFailed(killed)
        if code:
            if any(_DISK_FULL in line for line in said):
                raise OSError(errno.ENOSPC, "the disk is full")
            is_network = any(_NETWORK.search(line) for line in said)
            if is_network:
                raise _Unreachable("it may be the network: does this worker reach the package index?")
            raise EnvironmentFailed("what is needed cannot be had or built, as said above")

    def _shown(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return redact(line.replace(f"file://{self.staging}/", "").replace(f"{self.staging}/", ""))

    def _environ(self) -> dict[str, str]:
        """Neither the cluster's secrets, nor what would lead uv or a package's build astray."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("VSCRAPY_", "SCRAPY_", "PYTHON", "CONDA_")) and name != "VIRTUAL_ENV"
        }
        indexes, requirements = self._plan.indexes, self._plan.requirements
        trusted = [*requirements.trusted_hosts, *indexes.trusted_hosts]
        hosts = " ".join([*kept.get("UV_INSECURE_HOST", "").split(), *trusted])
        ours = {
            "NO_COLOR": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            **({"UV_INSECURE_HOST": hosts} if hosts else {}),
            **({"SSL_CERT_FILE": indexes.certificates} if indexes.certificates else {}),
        }
        defaults = {
            "UV_CACHE_DIR": str(self._plan.cache),
            # As with pip, all indexes are equal.
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            **_uv_config(kept),
        }
        return {**defaults, **kept, **ours}


def _is_own(text: str) -> bool:
    """Does a requirement name vscrapy from somewhere else? Then it is this worker's all the same."""
    return bool(re.match(r"vscrapy\s*(\[[^\]]*\])?\s*@", text, re.IGNORECASE))


def _uv_config(environ: Mapping[str, str]) -> dict[str, str]:
    """Let uv read its user's or its machine's configuration, and none that lies above the directory it works in."""
    if environ.get("UV_CONFIG_FILE") or environ.get("UV_NO_CONFIG"):
        return {}
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home(), ".config"))
    for path in (user / "uv" / "uv.toml", Path("/etc/uv/uv.toml")):
        if path.is_file():
            return {"UV_CONFIG_FILE": str(path)}
    return {"UV_NO_CONFIG": "1"}


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def sweep(root: Path) -> None:
    """Remove what builds have left that were killed."""
    for path in root.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 2 * BUILD_S:
                shutil.rmtree(path, ignore_errors=True)
