"""What goes wrong is said in one line, without a traceback, with the documented exit code; or it heals by itself."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.machine import (
    Finished,
    Machine,
    Server,
    Site,
    copy_project,
    free_port,
    wait_for,
    write_project,
)

pytest_plugins = ["tests.integration.machine"]

#: Spiders over the site's pages /trouble/fine/N.
SHOP: Final = """
    from scrapy import Request, Spider

    class Pages(Spider):
        name = "pages"

        def __init__(self, base, first="1", last="5", **kwargs):
            super().__init__(**kwargs)
            self.start_urls = [f"{base}/trouble/fine/{n}" for n in range(int(first), int(last) + 1)]

        def parse(self, response):
            yield {"page": int(response.url.rpartition("/")[2])}
"""
#: What Scrapy says as it starts.
BANNER: Final = re.compile(
    r"\S+ \S+ \[(?:scrapy\.utils\.log|scrapy\.crawler|asyncio)\] \w+: .*\n(?:[ {].*\n)*", re.MULTILINE
)
FRAMES: Final = re.compile(r"^  File .*\n(?:    .*\n)*", re.MULTILINE)
PROGRAM: Final = re.compile(r"^v?scrapy: error: ", re.MULTILINE)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with the spider ``pages``."""
    return write_project(tmp_path / "shop-project", SHOP)


@pytest.fixture(scope="module")
def server(shared_machine: Machine) -> Server:
    """A server for the module's tests that write nothing to it; without workers."""
    return shared_machine.start_server(password="pass@word")


def crawl(site: Site, *options: str) -> list[str]:
    """The command that runs ``pages``."""
    return ["vscrapy", "crawl", "pages", "-a", f"base={site.base}", "-O", "items.jsonl", *options]


def pages(project: Path) -> list[int]:
    """The pages in the feed, sorted."""
    return sorted(json.loads(line)["page"] for line in (project / "items.jsonl").read_text().splitlines())


def is_one_line(finished: Finished, exit_code: int, *words: str) -> None:
    """See that a command ended with one line on stderr, which has these words in it."""
    assert finished.exit_code == exit_code, finished.output
    assert finished.stdout == ""
    assert re.fullmatch(r"vscrapy: [^\n]+\n", finished.stderr), finished.stderr
    for word in words:
        assert word in finished.stderr


# --- Redis cannot be used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["option", "environment", "scrapy.cfg", "user"])
def test_unreachable_redis_is_told_with_its_address_and_origin(
    shared_machine: Machine, site: Site, shop: Path, tmp_path: Path, origin: str
) -> None:
    """The line names the URL without its password, where it was configured, and what to look at."""
    port = free_port()
    url = f"redis://:hush@127.0.0.1:{port}/0"
    home = tmp_path / "configured-home"
    home.mkdir(mode=0o700)
    machine = Machine(home)
    command, env = crawl(site), {}
    if origin == "option":
        command, source = crawl(site, "--redis", url), "--redis"
    elif origin == "environment":
        env, source = {"VSCRAPY_REDIS_URL": url}, "VSCRAPY_REDIS_URL"
    elif origin == "scrapy.cfg":
        path = shop / "scrapy.cfg"
        path.write_text(path.read_text() + f"[vscrapy]\nredis = {url}\n")
        source = str(path)
    else:
        assert machine.run(["vscrapy", "config", "--redis", url]).exit_code == 0
        source = str(home / "config.ini")
    finished = machine.run(command, shop, env=env)
    is_one_line(finished, 4, f"redis://:***@127.0.0.1:{port}/0 (from {source}) cannot be reached", "vscrapy config")
    assert "hush" not in finished.output
    assert site.log() == []


def test_wrong_password_is_told(shared_machine: Machine, site: Site, shop: Path, server: Server) -> None:
    """It is another exit code than an address where nobody is."""
    finished = shared_machine.run(crawl(site, "--redis", f"redis://:wrong@127.0.0.1:{server.port}/0"), shop)
    is_one_line(finished, 5, f"redis://:***@127.0.0.1:{server.port}/0 (from --redis) refuses the password")


def test_missing_password_is_told(shared_machine: Machine, site: Site, shop: Path, server: Server) -> None:
    """The server wants one, the URL has none."""
    finished = shared_machine.run(crawl(site, "--redis", f"redis://127.0.0.1:{server.port}/0"), shop)
    is_one_line(finished, 5, f"redis://127.0.0.1:{server.port}/0 (from --redis) wants a password")


@contextlib.contextmanager
def old_redis(version: str) -> Iterator[str]:
    """A stand-in for an old server, which cannot be installed here; it knows HELLO and INFO. Gives its URL."""
    info = f"# Server\r\nredis_version:{version}\r\n".encode()
    # Redis 6 knows the third protocol.
    hello = b"%1\r\n+proto\r\n:3\r\n" if version > "6" else b"-ERR unknown command 'HELLO'\r\n"

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as words:
            while head := words.readline():
                parts = []
                for _ in range(int(head[1:])):
                    words.readline()
                    parts.append(words.readline().strip().upper())
                if parts[0] == b"INFO":
                    connection.sendall(b"$%d\r\n%s\r\n" % (len(info), info))
                elif parts[0] == b"HELLO":
                    connection.sendall(hello)
                else:
                    connection.sendall(b"+OK\r\n")

    def accept() -> None:
        with contextlib.suppress(OSError):  # It was closed: the end.
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(("version", "told"), [("6.2.14", "Redis 6.2.14"), ("5.0.14", "older than Redis 6")])
def test_too_old_redis_is_told_with_both_versions(
    shared_machine: Machine, site: Site, shop: Path, version: str, told: str
) -> None:
    """The version that is there, and the one that is needed."""
    with old_redis(version) as url:
        finished = shared_machine.run(crawl(site, "--redis", url), shop)
    is_one_line(finished, 5, f"{url} (from --redis) is {told}", "needs Redis 7.0 or newer")


# --- Redis refuses writes -----------------------------------------------------------------------------------------


def test_full_redis_is_told_at_submit(machine: Machine, site: Site, shop: Path) -> None:
    """Nothing was submitted, nothing is left, and the next try works."""
    endpoint = machine.start_embedded()
    machine.store.client.config_set("maxmemory", 1)
    finished = machine.run(crawl(site, "--redis", endpoint.url), shop)
    machine.store.client.config_set("maxmemory", 0)
    assert finished.exit_code == 5
    assert "is out of memory and refuses writes" in finished.stderr
    assert "Traceback" not in finished.output
    assert [line for line in finished.stderr.splitlines() if line.startswith("vscrapy: ")] == [
        finished.stderr.splitlines()[-1]
    ]
    assert machine.tasks.live_ids() == []
    assert not (shop / "items.jsonl").exists() or pages(shop) == []


def test_redis_that_cannot_write_its_disk_is_told_at_submit(machine: Machine, site: Site, shop: Path) -> None:
    """MISCONF: its last snapshot failed."""
    server = machine.start_server(options=("--appendonly", "no", "--save", "3600", "1"))
    shutil.rmtree(server.directory)
    with server.client() as client:
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot fails")
    finished = machine.run(crawl(site, "--redis", server.url), shop)
    server.kill()  # It would not end while it cannot save.
    assert finished.exit_code == 5
    assert "cannot write to its disk and refuses writes" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.output


def test_crawl_waits_while_redis_cannot_save_and_loses_nothing(machine: Machine, slow_site: Site, shop: Path) -> None:
    """In the middle of a crawl Redis answers MISCONF for a while; then it goes on, and each page is there once."""
    server = machine.start_server(options=("--appendonly", "no", "--save", "3600", "1"))
    machine.start_worker(2, redis=server.url)
    options = ("-a", "last=120", "-s", "CONCURRENT_REQUESTS=4", "--redis", server.url)
    running = machine.start(crawl(slow_site, *options), shop)
    wait_for(lambda: len(slow_site.log()) > 30, what="30 pages are there")
    shutil.rmtree(server.directory)
    with server.client() as client:
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot fails")
        wait_for(
            lambda: client.info("errorstats").get("errorstat_MISCONF", {}).get("count", 0) >= 10, what="refusals"
        )
        assert running.is_running
        client.config_set("stop-writes-on-bgsave-error", "no")
    finished = running.wait()
    server.kill()  # It would not end while it cannot save.
    assert finished.exit_code == 0
    assert "cannot write to its disk and refuses writes" in finished.stderr
    assert pages(shop) == list(range(1, 121))
    assert len(slow_site.log()) == 120


def test_crawl_waits_while_redis_is_full_and_loses_nothing(machine: Machine, slow_site: Site, shop: Path) -> None:
    """In the middle of a crawl writes are refused for a while; then it goes on, and each page is there once."""
    machine.start_worker(2)
    client = machine.store.client
    running = machine.start(crawl(slow_site, "-a", "last=120", "-s", "CONCURRENT_REQUESTS=4"), shop)
    wait_for(lambda: len(slow_site.log()) > 30, what="30 pages are there")
    client.config_set("maxmemory", 1)
    wait_for(lambda: client.info("errorstats").get("errorstat_OOM", {}).get("count", 0) >= 10, what="refusals")
    assert running.is_running
    client.config_set("maxmemory", 0)
    finished = running.wait()
    assert finished.exit_code == 0, finished.output
    assert pages(shop) == list(range(1, 121))
    assert len(slow_site.log()) == 120
    assert "'finish_reason': 'finished'" in finished.stderr


# --- nobody is there to work --------------------------------------------------------------------------------------


def test_missing_worker_is_told_and_the_first_one_takes_the_task(machine: Machine, site: Site, shop: Path) -> None:
    """The sender says what it waits for and how to help it; once, and then it runs."""
    endpoint = machine.start_embedded()
    running = machine.start(crawl(site, "--redis", endpoint.url), shop)
    running.wait_for_output(
        r"^vscrapy: task 1 waits: no worker is online; start one on any machine with: vscrapy worker --redis URL$"
    )
    machine.start_worker(1)
    finished = running.wait()
    assert finished.exit_code == 0
    assert finished.stderr.count("no worker is online") == 1
    assert pages(shop) == [1, 2, 3, 4, 5]


# --- the project cannot be sent, or does not work there -----------------------------------------------------------


def test_bundle_over_its_limit_is_told_with_the_largest_files(machine: Machine, site: Site, shop: Path) -> None:
    """Ten of them, the largest first, and the size of each; nothing was sent."""
    machine.start_worker(1)
    for number in range(1, 13):
        (shop / f"data-{number:02}.bin").write_bytes(bytes([number]) * 10_000 * number)
    finished = machine.run(crawl(site, "-s", "VSCRAPY_BUNDLE_LIMIT=500000"), shop)
    assert finished.exit_code == 3
    assert "Traceback" not in finished.output
    assert "the limit VSCRAPY_BUNDLE_LIMIT is 500000 bytes" in finished.stderr
    assert ".vscrapyignore" in finished.stderr
    assert re.findall(r"data-(\d\d)\.bin", finished.stderr.partition("largest files:")[2]) == [
        f"{number:02}" for number in range(12, 2, -1)
    ]
    assert machine.last_taskid() == 0


def test_module_that_only_the_worker_lacks_is_told_with_its_traceback(
    machine: Machine, site: Site, shop: Path
) -> None:
    """Which module, on which worker; the task has failed at once, and is not tried again and again."""
    machine.start_worker(2, "w1")
    (shop / "shop" / "hidden.py").write_text("WORD = 'hidden'\n")
    (shop / ".vscrapyignore").write_text("hidden.py\n")
    with (shop / "shop" / "spiders.py").open("a") as file:
        file.write("\nfrom shop.hidden import WORD\n")
    (shop / "items.jsonl").write_text("of an earlier crawl\n")
    finished = machine.run([*crawl(site), "-O", "items.jsonl"], shop)
    assert finished.exit_code == 1
    assert (shop / "items.jsonl").read_text() == "of an earlier crawl\n"
    assert finished.stderr.count("Traceback (most recent call last):") == 1
    assert "shop/spiders.py" in finished.stderr
    assert "ModuleNotFoundError: No module named 'shop.hidden'\n" in finished.stderr
    assert "vscrapy: worker w1 has no module 'shop.hidden', which the project needs" in finished.stderr
    assert "Dumping Scrapy stats" not in finished.stderr
    record = machine.tasks.record(machine.last_taskid())
    assert (record.reason, record.exit_code) == ("failed", 1)
    assert site.log() == []


# --- mistakes on the command line: Scrapy's own words -------------------------------------------------------------


def normalized(text: str) -> str:
    """Without what must differ: Scrapy's banner, the frames of a traceback, the program's name and its options."""
    text = PROGRAM.sub("error: ", FRAMES.sub("", BANNER.sub("", text)))
    return re.sub(r"\nWorkers\n=======\n(?:  .*\n)*", "", text)


def both(machine: Machine, args: list[str], cwd: Path) -> tuple[Finished, Finished]:
    """Run ``scrapy`` and ``vscrapy`` with the same arguments."""
    running = [machine.start([program, *args], cwd) for program in ("scrapy", "vscrapy")]
    return running[0].wait(), running[1].wait()


@pytest.mark.parametrize(
    "args",
    [
        "crawl nosuch",
        "crawl",
        "crawl books quotes",
        "crawl books --nosuch",
        "crawl --nosuch",
        "crawl books -a bad",
        "crawl books -s bad",
        "crawl books -o x.nosuch",
        "crawl books -o a.json -O b.json",
        "crawl books -a nosuch=1 -a base=1 --logfile",
        "crawl -h",
        "runspider nosuch.py",
        "runspider scrapy.cfg",
        "runspider bookshop/items.py",
        "nosuch",
    ],
)
def test_mistake_has_the_words_and_the_exit_code_of_scrapy(shared_machine: Machine, project: Path, args: str) -> None:
    """What Scrapy refuses, vscrapy refuses alike, before it starts or sends anything."""
    expected, found = both(shared_machine, args.split(), project)
    assert normalized(found.stdout) == normalized(expected.stdout)
    assert normalized(found.stderr) == normalized(expected.stderr)
    assert found.exit_code == expected.exit_code


def test_crawl_outside_a_project_has_the_words_of_scrapy(shared_machine: Machine, tmp_path: Path) -> None:
    """There is nothing to crawl, and Scrapy says which commands need a project."""
    expected, found = both(shared_machine, ["crawl", "books"], tmp_path)
    assert found == expected
    assert found.exit_code != 0


@pytest.mark.parametrize("fault", ["import", "argument"])
def test_project_that_does_not_work_here_has_the_words_of_scrapy(
    shared_machine: Machine, tmp_path: Path, fault: str
) -> None:
    """A module that cannot be imported, an argument that the spider does not take: seen before anything is sent."""
    project = copy_project(tmp_path / "project")
    args = ["crawl", "books"]
    if fault == "import":
        (project / "bookshop" / "spiders" / "books.py").write_text("import no_such_module\n")
    else:
        path = project / "bookshop" / "spiders" / "base.py"
        path.write_text(
            path.read_text().replace("super().__init__(*args, **kwargs)", "raise TypeError('no, thanks')")
        )
    expected, found = both(shared_machine, args, project)
    assert found.exit_code == expected.exit_code == 1
    last = expected.stderr.rstrip().splitlines()[-1]
    assert last in found.stderr
    assert "vscrapy: task" not in found.stderr
    assert found.stdout == expected.stdout
