"""What a crawl process sends of the files in its directory, and when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

#: An audit hook cannot be removed: each directory is watched in a process of its own.
RUN = """
import json, os, sys, time
from pathlib import Path

from vscrapy.crawl.opened import Opened
from vscrapy.crawl.written import Written
from vscrapy.errors import StoreUnavailable

os.chdir("checkout/project")
opened = Opened(Path.cwd(), Path.cwd().parent)
written = Written(Path.cwd(), opened, {{}})
opened.watch()
sent = []

def put(file):
    sent.append(file)
    return True

def contents(path):
    return [file.content for file in sent if file.path == path]

def wait_for(*expected, path):
    deadline = time.monotonic() + 20
    while contents(path) != list(expected):
        assert time.monotonic() < deadline, (contents(path), expected)
        time.sleep(0.01)

def begin(put=put, limit_bytes=1000, is_same_host=True):
    written.begin(put, number=1, worker="w1", is_same_host=is_same_host, limit_bytes=limit_bytes)

{body}
written.finish()
print(json.dumps([[f.path, f.content.decode(), f.position, f.is_added, f.is_renewed, f.is_executable] for f in sent]))
"""


def run(tmp_path: Path, body: str) -> tuple[list[list[Any]], str]:
    """What is sent, as path, content, position, is_added, is_renewed, is_executable; and what is said."""
    (tmp_path / "checkout" / "project").mkdir(parents=True, exist_ok=True)
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(body=textwrap.dedent(body))],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_written_files_go_while_the_process_runs_when_they_rest(tmp_path: Path) -> None:
    """A file goes without waiting for the end, and the same content never twice."""
    sent, _ = run(
        tmp_path,
        """
        begin()
        Path("a.txt").write_text("one")
        wait_for(b"one", path="a.txt")
        Path("a.txt").write_text("two")
        wait_for(b"one", b"two", path="a.txt")
        Path("a.txt").write_text("two")
        """,
    )
    assert [file[:2] for file in sent] == [["a.txt", "one"], ["a.txt", "two"]]


def test_written_files_that_came_with_the_project_go_only_when_they_change(tmp_path: Path) -> None:
    """What was there before is not sent; caches and history are not, either."""
    project = tmp_path / "checkout" / "project"
    (project / ".git").mkdir(parents=True)
    (project / "a.txt").write_text("a")
    (project / "b.sh").write_text("b")
    sent, _ = run(
        tmp_path,
        """
        begin()
        Path("b.sh").write_text("c")
        Path("b.sh").chmod(0o755)
        Path(".git/config").write_text("x")
        Path("__pycache__").mkdir()
        Path("__pycache__/x.txt").write_text("x")
        """,
    )
    assert sent == [["b.sh", "c", 0, False, False, True]]


def test_written_whole_lines_go_of_a_file_that_is_added_to(tmp_path: Path) -> None:
    """Only what is new goes, up to the last line's end; at the end the rest."""
    (tmp_path / "checkout" / "project").mkdir(parents=True)
    (tmp_path / "checkout" / "project" / "a.jl").write_text("0\n")
    sent, _ = run(
        tmp_path,
        r"""
        begin()
        file = open("a.jl", "a")
        file.write("1\n2\n3")
        file.flush()
        wait_for(b"1\n2\n", path="a.jl")
        file.write("\n4")
        file.flush()
        wait_for(b"1\n2\n", b"3\n", path="a.jl")
        """,
    )
    assert [file[:5] for file in sent] == [
        ["a.jl", "1\n2\n", 2, True, False],
        ["a.jl", "3\n", 6, True, False],
        ["a.jl", "4", 8, True, False],
    ]


def test_written_file_that_is_made_anew_and_then_added_to_goes_as_such(tmp_path: Path) -> None:
    """Home begins the file anew, too; once it was sent, only what was added goes."""
    sent, _ = run(
        tmp_path,
        r"""
        Path("a.jl").write_text("old\n")
        with open("a.jl", "a") as file:
            file.write("1\n")
        begin()
        wait_for(b"old\n1\n", path="a.jl")
        Path("b.jl").write_text("b\n")
        wait_for(b"b\n", path="b.jl")
        with open("b.jl", "a") as file:
            file.write("2\n")
        """,
    )
    assert [file[:5] for file in sent] == [
        ["a.jl", "old\n1\n", 0, True, True],
        ["b.jl", "b\n", 0, False, False],
        ["b.jl", "2\n", 2, True, False],
    ]


def test_written_data_that_is_added_to_goes_in_one_piece(tmp_path: Path) -> None:
    """What is no text is not cut at what looks like a line's end."""
    sent, _ = run(
        tmp_path,
        r"""
        with open("a.bin", "ab") as file:
            file.write(b"\0\n\1")
        begin()
        Path("b.txt").write_text("b")
        wait_for(b"b", path="b.txt")
        assert contents("a.bin") == []
        """,
    )
    assert [file[:2] for file in sent] == [["b.txt", "b"], ["a.bin", "\0\n\1"]]


def test_written_file_that_is_added_to_and_then_replaced_goes_whole(tmp_path: Path) -> None:
    """After a rotation, or when it is written anew, the file is no continuation of what was sent."""
    sent, _ = run(
        tmp_path,
        r"""
        begin()
        for name in ("a.log", "b.log"):
            with open(name, "a") as file:
                file.write("1\n")
            wait_for(b"1\n", path=name)
        os.rename("a.log", "a.log.1")
        with open("a.log", "a") as file:
            file.write("2\n3\n")
        Path("b.log").write_text("4\n5\n")
        """,
    )
    assert sorted(file[:4] for file in sent) == [
        ["a.log", "1\n", 0, True],
        ["a.log", "2\n3\n", 0, False],
        ["a.log.1", "1\n", 0, False],
        ["b.log", "1\n", 0, True],
        ["b.log", "4\n5\n", 0, False],
    ]


def test_written_files_over_the_limit_are_named_once(tmp_path: Path) -> None:
    """What was sent counts; what does not fit any more is named, once."""
    sent, said = run(
        tmp_path,
        """
        begin(limit_bytes=10)
        Path("a.txt").write_text("12345678")
        wait_for(b"12345678", path="a.txt")
        Path("b.txt").write_text("12345")
        Path("c.txt").write_text("1")
        wait_for(b"1", path="c.txt")
        """,
    )
    assert [file[0] for file in sent] == ["a.txt", "c.txt"]
    assert said.count("b.txt (5 bytes) stays on the worker") == 1


def test_written_files_that_keep_changing_leave_room_for_their_last_version(tmp_path: Path) -> None:
    """Versions that are not the last use no more than half of the limit."""
    sent, said = run(
        tmp_path,
        """
        begin(limit_bytes=12)
        Path("a.txt").write_text("aaaa")
        wait_for(b"aaaa", path="a.txt")
        Path("a.txt").write_text("bbbb")
        Path("b.txt").write_text("b")
        wait_for(b"b", path="b.txt")
        Path("b.txt").write_text("c")
        wait_for(b"b", b"c", path="b.txt")  # so late, a.txt could have been sent again
        assert contents("a.txt") == [b"aaaa"]
        Path("a.txt").write_text("cccc")
        """,
    )
    assert [file[1] for file in sent if file[0] == "a.txt"] == ["aaaa", "cccc"]
    assert said == ""


def test_written_files_are_sent_when_redis_is_back(tmp_path: Path) -> None:
    """A file that was not taken is sent again."""
    sent, said = run(
        tmp_path,
        """
        tries = []

        def refuse(file):
            tries.append(file)
            if len(tries) < 3:
                raise StoreUnavailable("away")
            return put(file)

        begin(refuse)
        Path("a.txt").write_text("one")
        """,
    )
    assert [file[:2] for file in sent] == [["a.txt", "one"]]
    assert said == ""


def test_written_files_beyond_the_project_are_named(tmp_path: Path) -> None:
    """What is written where the sender does not find it is named; the first is enough."""
    sent, said = run(
        tmp_path,
        """
        Path("../outside.txt").write_text("x")
        Path("../further.txt").write_text("x")
        begin()
        """,
    )
    assert sent == []
    assert said.count("outside.txt is written on worker w1 and is lost") == 1
    assert "further" not in said


def test_written_files_in_an_absolute_store_are_named_where_the_sender_is_elsewhere(tmp_path: Path) -> None:
    """On the sender's own machine they are where it looks for them; temporary files are nobody's business."""
    body = """
        import tempfile

        tempfile.NamedTemporaryFile("w").write("x")
        Path("../../store.txt").write_text("x")
        begin(is_same_host={})
        """
    _, said = run(tmp_path, body.format(False))
    assert said.count("store.txt is written on worker w1 and stays there") == 1
    (tmp_path / "temporary").rmdir()
    _, said = run(tmp_path, body.format(True))
    assert said == ""
