"""What a task takes from the sender's project: the secrets of its scrapy.cfg not, its import path yes."""

from __future__ import annotations

import configparser
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scrapy.settings import Settings

from vscrapy import localmodules
from vscrapy.model import BundleFile
from vscrapy.sender import submit
from vscrapy.sender.submit import Order, without_secrets

CFG = """\
# redis = in a comment
[settings]
default = books.settings

[vscrapy]
; ours
redis = redis://:pass@host/0
other = 1
Secret: first
    second

  # third
    fourth
last = 2

[deploy]
secret = somebody else's
"""

STRIPPED = """\
# redis = in a comment
[settings]
default = books.settings

[vscrapy]
; ours
other = 1

  # third
last = 2

[deploy]
secret = somebody else's
"""

ORDER = Order(kind="crawl", spider="one", spider_args={}, is_attached=True, max_processes=0, pipelines="home")


# --- without_secrets ----------------------------------------------------------------------------------------------


def test_without_secrets_takes_the_two_options_of_our_section_only() -> None:
    """Continuation lines go with their option; comments, blanks, other options and sections stay."""
    assert without_secrets(CFG.encode()).decode() == STRIPPED


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_without_secrets_keeps_the_line_ends(newline: str) -> None:
    """A file from another system keeps its ways."""
    text = CFG.replace("\n", newline).encode()
    assert without_secrets(text).decode() == STRIPPED.replace("\n", newline)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[settings]\ndefault = books.settings",
        b"[vscrapy]\nother = 1\n   redis = a continuation of other\nredis_db = 2\n",
        b"[Vscrapy]\nredis = x\n[ vscrapy ]\nsecret = y\n",
        b"[vscrapy]\nname = \xff\xfe latin\n",
        b"redis = before any section\n",
    ],
)
def test_without_secrets_leaves_all_else_byte_for_byte(text: bytes) -> None:
    """What only looks like a secret, or cannot be read, is none of ours."""
    assert without_secrets(text) == text


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Read a scrapy.cfg as vscrapy does; a later section of the same name adds to the first."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


LINES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", " ", "  ", "\t", "\u00a0 "]),
    st.sampled_from(
        [
            *("", "[vscrapy]", "[vscrapy] x", "[other]", "[[vscrapy]]", "# redis = d", ";e", "word", "secret"),
            *("redis = a", "REDIS:b", "secret=", "secret = = c", "redis = [vscrapy]"),
            *("x = 1", "redisx = 2", "a = redis = f"),
        ]
    ),
    st.sampled_from(["", " ", "\t"]),
)


@given(st.lists(LINES, max_size=12))
@example(["[vscrapy]", "  redis = a", " x = 1", "  y"])
def test_without_secrets_leaves_what_configparser_reads_but_for_the_secrets(lines: list[str]) -> None:
    """Whatever the indentation: parsing before and after differ by the two options."""
    text = "\n".join(lines)
    try:
        before = parsed(text)
    except configparser.Error:
        assume(False)
    for name in ("redis", "secret"):
        before.get("vscrapy", {}).pop(name, None)
    after = without_secrets(text.encode()).decode()
    assert parsed(after) == before
    assert without_secrets(after.encode()).decode() == after


# --- the bundle and the job ---------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with secrets in its scrapy.cfg, as the working directory."""
    monkeypatch.setenv("VSCRAPY_HOME", str(tmp_path / "home"))
    path = tmp_path / "project"
    (path / "src").mkdir(parents=True)
    (path / "scrapy.cfg").write_text(CFG)
    (path / "src" / "one.py").write_text("ONE = 1")
    monkeypatch.chdir(path)
    # The modules of the tests are loaded, too, and are no part of the project.
    monkeypatch.setattr(localmodules, "find_outside_roots", lambda root, modules: [])
    return path


def collected(scratch: Path) -> submit._Collected:
    """Bundle the project of the working directory."""
    scratch.mkdir(exist_ok=True)
    return submit._collect(ORDER, Settings(), (), scratch)


def described(name: str, content: bytes, *, is_executable: bool = False) -> BundleFile:
    return BundleFile(name, hashlib.sha256(content).hexdigest(), len(content), is_executable)


def test_collect_ships_scrapy_cfg_without_its_secrets(project: Path, tmp_path: Path) -> None:
    """The manifest has the hash of the stripped file, whose content is there to be sent; the project's own stays."""
    made = collected(tmp_path / "scratch").bundle
    expected = described("scrapy.cfg", STRIPPED.encode())
    assert expected in made.manifest.roots[0].files
    assert made.paths[expected.sha256].read_text() == STRIPPED
    assert b"pass@host" not in b"".join(path.read_bytes() for path in made.paths.values())
    assert (project / "scrapy.cfg").read_text() == CFG


def test_collect_ships_a_scrapy_cfg_without_secrets_as_it_is(project: Path, tmp_path: Path) -> None:
    """No copy where none is needed."""
    (project / "scrapy.cfg").write_text(STRIPPED)
    made = collected(tmp_path / "scratch").bundle
    assert made.paths[hashlib.sha256(STRIPPED.encode()).hexdigest()] == project / "scrapy.cfg"


def test_collect_strips_every_scrapy_cfg_and_every_link_to_one(project: Path, tmp_path: Path) -> None:
    """Projects within the project, and a link under another name, hold the same secrets."""
    (project / "inner").mkdir()
    (project / "inner" / "scrapy.cfg").write_text("[vscrapy]\nsecret = pass@host\n")
    (project / "inner" / "scrapy.cfg").chmod(0o755)
    (project / "linked.ini").symlink_to("scrapy.cfg")
    made = collected(tmp_path / "scratch").bundle
    files = made.manifest.roots[0].files
    assert described("inner/scrapy.cfg", b"[vscrapy]\n", is_executable=True) in files
    assert described("linked.ini", STRIPPED.encode()) in files
    assert b"pass@host" not in b"".join(path.read_bytes() for path in made.paths.values())


def test_collect_names_the_paths_in_the_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``src`` layout is found on the worker as it is here."""
    monkeypatch.setattr("sys.path", [str(project), str(project / "src"), os.sep])
    assert collected(tmp_path / "scratch").project_paths == ["src"]


def test_collect_names_a_project_without_scrapy_cfg_where_python_imports_from_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ``PYTHONPATH`` tells of it, here as on the worker; a scrapy.cfg makes Scrapy add it by itself."""
    (project / "scrapy.cfg").unlink()
    monkeypatch.setattr("sys.path", [str(project / "src"), str(project), os.sep])
    assert collected(tmp_path / "scratch").project_paths == ["src", "."]
    monkeypatch.setattr("sys.path", [str(project / "src"), os.sep])
    assert collected(tmp_path / "other").project_paths == ["src"]
