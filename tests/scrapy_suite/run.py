"""
Run Scrapy's own tests with vscrapy's scheduler and stats: ``make scrapy-tests``.

The tests come from the source distribution of the wanted Scrapy, and run in an environment of their own. What they
say of Scrapy must hold; the exceptions stand in ``different.toml``, each with its reason.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Final

from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[2]

#: What is run, of ``tests``, as far as the version has it: all that crawls, and all that crawls lean on.
FILES: Final = (
    "addons",
    "closespider",
    "core_downloader",
    "core_scraper",
    "crawl",
    "crawler",
    "crawler_runners",
    "downloadermiddleware_cookies",
    "downloadermiddleware_httpcache",
    "downloadermiddleware_offsite",
    "downloadermiddleware_redirect",
    "downloadermiddleware_retry",
    "downloadermiddleware_robotstxt",
    "downloadermiddleware_stats",
    "downloaderslotssettings",
    "dupefilters",
    "engine*",
    "extension_debug",
    "extension_mem*",
    "extension_periodic_log",
    "extension_telnet",
    "extension_throttle",
    "feedexport*",
    "logformatter",
    "logstats",
    "pipeline_crawl",
    "pipeline_media",
    "pipelines",
    "request_attribute_binding",
    "request_cb_kwargs",
    "request_left",
    "scheduler_base",
    "signal*",
    "spider_crawl",
    "spider_sitemap",
    "spider_start",
    "spidermiddleware*",
    "spiderstate",
    "stats",
)


def main(args: list[str]) -> int:
    """Prepare and run; the exit code is pytest's, or 0 when what failed fails without vscrapy as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrapy", default=version("scrapy"), help="which version; the installed one by default")
    parser.add_argument("--directory", type=Path, default=ROOT / ".scrapy-tests", help="what is downloaded is kept")
    parser.add_argument("--processes", default="2", help="processes that run tests")
    parser.add_argument("--reactor", default="asyncio", help="asyncio, default or none, as the version has them")
    parser.add_argument("tests", nargs="*", help="these alone, as pytest takes them; and options for it after --")
    chosen = parser.parse_args(args)
    directory = chosen.directory.resolve() / chosen.scrapy
    source = _source(directory, chosen.scrapy)
    python = _environment(directory, source, chosen.scrapy)
    tests = chosen.tests or [
        str(path.relative_to(source)) for name in FILES for path in sorted(source.glob(f"tests/test_{name}.py"))
    ]
    options = ["-n", chosen.processes, "--dist", "loadfile", "--reactor", chosen.reactor]
    if chosen.reactor == "none":
        options += ["-p", "no:twisted", "-o", "asyncio_default_fixture_loop_scope=function"]
    else:
        options += ["-p", "no:asyncio"]
    exit_code, failed = _pytest(directory, source, python, [*options, "-p", "with_vscrapy", *tests])
    if not failed:
        return exit_code
    print(f"\n{len(failed)} failed; those again without vscrapy:")
    _, failed_without = _pytest(directory, source, python, [*options, *sorted(failed)])
    print("\nwith vscrapy alone:", *sorted(failed - failed_without) or ["none"], sep="\n  ")
    return int(bool(failed - failed_without))


def _pytest(directory: Path, source: Path, python: str, args: list[str]) -> tuple[int, set[str]]:
    """Run tests; pytest's exit code, and what failed."""
    cache = directory / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    done = subprocess.run(
        [python, "-m", "pytest", "-o", f"cache_dir={cache}", "-q", "--timeout", "120", *args],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    failed = cache / "v" / "cache" / "lastfailed"
    return done.returncode, set(json.loads(failed.read_text())) if failed.exists() else set()


def _source(directory: Path, scrapy: str) -> Path:
    """Scrapy's source without its package: the installed one is tested."""
    source = directory / "source"
    if not source.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _pip(
            sys.executable,
            "download",
            "--no-deps",
            "--no-binary",
            "scrapy",
            "-d",
            str(directory),
            f"scrapy=={scrapy}",
        )
        with tarfile.open(next(directory.glob("*.tar.gz"))) as archive:
            archive.extractall(directory, filter="data")
        unpacked = next(path for path in directory.iterdir() if (path / "tests").is_dir())
        shutil.rmtree(unpacked / "scrapy")
        unpacked.rename(source)
    return source


def _environment(directory: Path, source: Path, scrapy: str) -> str:
    """The Python of an environment with this vscrapy, that Scrapy and what its tests need."""
    environment, mark = directory / "environment", directory / "installed"
    python = str(environment / "bin" / "python")
    if not mark.exists():
        venv.create(environment, with_pip=True, clear=True)
        ours = ["--editable", str(ROOT), "pytest-asyncio", "pytest-timeout"]
        _pip(python, "install", *ours, f"scrapy=={scrapy}", *_older(scrapy), *_needs(source))
        mark.touch()
    return python


def _needs(source: Path) -> list[str]:
    """What Scrapy's tests need, as its tox.ini says; no proxy for a few of them."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(source / "tox.ini")
    lines = [*tox["test-requirements"]["deps"].splitlines(), *tox["testenv"]["deps"].splitlines()]
    needs = [line.partition("#")[0].strip() for line in lines if line and not line.startswith(("{", "mitmproxy"))]
    constraints = source / "tests" / "upper-constraints.txt"
    return [*needs, "--constraint", str(constraints)] if constraints.exists() else needs


def _older(scrapy: str) -> list[str]:
    """What a Scrapy accepts only in an older version, and does not say so itself."""
    return ["twisted<=25.5.0"] if Version(scrapy) < Version("2.13.4") else []


def _pip(python: str, *args: str) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *args], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
