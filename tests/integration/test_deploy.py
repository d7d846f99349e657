"""What is in ``deploy``: read by the programs that it is for, as far as these run here, and used for a crawl."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.integration.machine import BIN, ROOT, Machine, write_project
from tests.security.terminator import Pair, Terminator
from vscrapy.commands.worker import _parser

pytest_plugins = ["tests.integration.machine"]

DEPLOY: Final = ROOT / "deploy"
#: What the server here cannot do, or where it finds its files.
_NOT_HERE: Final = re.compile(r"^(tls-|port|dir)\b")
SPIDERS: Final = """
    from scrapy import Spider

    class Short(Spider):
        name = "short"
        start_urls = ["data:,1"]

        def parse(self, response):
            yield {"n": 1}
"""


def compose() -> dict[str, Any]:
    """The compose file."""
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return read


def unit() -> configparser.ConfigParser:
    """The systemd unit."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / "vscrapy-worker.service").read_text())
    return parser


def test_unit_is_one_for_systemd(tmp_path: Path) -> None:
    """systemd finds nothing to say of it, where it is installed; the worker's options are all there are."""
    service = unit()["Service"]
    program, verb, *options = shlex.split(service["ExecStart"])
    assert (Path(program).name, verb) == ("vscrapy", "worker")
    assert _parser().parse_args(options).max_tasks > 0
    assert service["Restart"] == "always"  # a worker that ends after --max-tasks ends with 0
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    copy = tmp_path / "vscrapy-worker.service"
    copy.write_text((DEPLOY / "vscrapy-worker.service").read_text().replace(program, str(BIN / "vscrapy")))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if copy.name in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_compose_file_says_what_it_needs() -> None:
    """Workers reach the server by the name and port that it has, over TLS, and secrets come from outside."""
    services = compose()["services"]
    assert set(services) == {"valkey", "worker"}
    valkey, worker = services["valkey"], services["worker"]
    conf = dict(line.split(" ", 1) for line in config_lines())
    url = worker["environment"]["VSCRAPY_REDIS_URL"]
    assert url.startswith("rediss://:${VALKEY_PASSWORD:?")
    assert f"@valkey:{conf['tls-port']}/0?ssl_ca_certs=/tls/ca.pem" in url
    shell, dash_c, script = valkey["command"]
    assert (shell, dash_c) == ("sh", "-c")
    checked = subprocess.run(["sh", "-n"], input=script.replace("$$", "$"), text=True, timeout=60, check=False)
    assert checked.returncode == 0
    assert valkey["ports"] == [f"{conf['tls-port']}:{conf['tls-port']}"]
    assert worker["environment"]["VSCRAPY_SECRET"].startswith("${VSCRAPY_SECRET:?")
    assert _parser().parse_args(worker["command"]).slots == 2
    assert worker["depends_on"]["valkey"]["condition"] == "service_healthy"
    mounted = {volume.split(":")[1] for volume in valkey["volumes"]}
    assert {conf["dir"], "/tls", "/etc/valkey/valkey.conf"} == mounted
    assert set(compose()["volumes"]) == {"valkey-data"}
    for name in ("build", "environment", "deploy", "init", "stop_grace_period", "restart"):
        assert name in worker
    assert (ROOT / worker["build"]["dockerfile"]).is_file()


def test_image_is_built_from_files_that_are_there() -> None:
    """What is copied exists, and the worker does not run as root."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    assert lines.index("USER vscrapy") < next(n for n, line in enumerate(lines) if line.startswith("ENTRYPOINT"))


def config_lines() -> list[str]:
    """What the server is configured with."""
    lines = (DEPLOY / "valkey.conf").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def certificates(directory: Path) -> Pair:
    """Those that the script makes."""
    subprocess.run(
        [str(DEPLOY / "certificates.sh"), str(directory), "valkey", "IP:127.0.0.1"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert {path.name for path in directory.iterdir()} >= {"ca.pem", "ca.key", "server.pem", "server.key"}
    assert (directory / "server.key").stat().st_mode & 0o077 == 0
    return Pair(directory / "server.pem", directory / "server.key")


def test_deployed_server_and_worker_run_a_crawl(machine: Machine, tmp_path: Path) -> None:
    """The server's configuration without TLS, which this build lacks, TLS in front of it, and the unit's worker."""
    pair = certificates(tmp_path / "tls")
    options = [word for line in config_lines() if not _NOT_HERE.match(line) for word in shlex.split("--" + line)]
    assert "noeviction" in options
    server = machine.start_server(options=options)
    front = Terminator(server.port, pair)
    try:
        url = f"rediss://:{server.password}@127.0.0.1:{front.port}/0?ssl_ca_certs={tmp_path / 'tls' / 'ca.pem'}"
        env = {"VSCRAPY_REDIS_URL": url, "VSCRAPY_SECRET": "a secret of their own"}
        words = shlex.split(unit()["Service"]["ExecStart"])[2:]
        machine.start_worker(redis=url, env=env, options=words)
        checked = machine.run(["vscrapy", "doctor"], env=env)
        assert checked.exit_code == 0, checked.output
        assert {line.split()[0] for line in checked.stdout.splitlines()} == {"ok"}, checked.stdout
        project = write_project(tmp_path / "project", SPIDERS)
        done = machine.run(["vscrapy", "crawl", "short", "-O", "items.jsonl"], project, env=env)
        assert done.exit_code == 0, done.output
        assert (project / "items.jsonl").read_text() == '{"n": 1}\n'
    finally:
        front.close()


@pytest.mark.parametrize("name", ["VSCRAPY_SECRET", "VALKEY_PASSWORD"])
def test_secrets_are_in_no_file(name: str) -> None:
    """They are named, never given; and what holds them is not for git."""
    for path in DEPLOY.iterdir():
        for value in re.findall(rf"^\s*{name}[:=]\s*(\S+)", path.read_text(), re.MULTILINE) if path.is_file() else ():
            assert value.startswith("${"), (path, value)
    assert {".env", "tls/"} <= set((DEPLOY / ".gitignore").read_text().split())
    assert os.access(DEPLOY / "certificates.sh", os.X_OK)
