"""What a worker's own environment lacks of what a project needs, and where pip is told to look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vscrapy.requirements import Requirement, Requirements
from vscrapy.worker.pipconfig import Indexes, read
from vscrapy.worker.satisfied import lacking


def install(site: Path, name: str, version: str, *, needs: str = "", direct: object = None) -> None:
    """Put a distribution's metadata into a directory on ``sys.path``."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    if direct is not None:
        (info / "direct_url.json").write_text(json.dumps(direct))


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    extra = "Provides-Extra: wings\nRequires-Dist: feather>=2; extra == 'wings'\nRequires-Dist: bone\n"
    install(site, "Big_Bird", "3.1", needs=extra)
    install(site, "bone", "1.0")
    install(site, "egg", "2.0rc1")
    install(
        site,
        "nest",
        "1.0",
        direct={"url": "https://zoo.example/nest.whl", "archive_info": {"hashes": {"sha256": "aa"}}},
    )
    git = {"url": "https://zoo.example/twig.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    install(site, "twig", "1.0", direct=git)
    monkeypatch.syspath_prepend(str(site))


def lacks(*lines: str, constraints: tuple[str, ...] = (), path: str = ".", sha256: str = "") -> str:
    """Say what is lacking of some lines."""
    needed = (*map(Requirement, lines), *([Requirement("", path)] if path != "." else []))
    return lacking(Requirements("requirements.txt", needed, constraints), {path: sha256})


@pytest.mark.parametrize(
    "line",
    [
        "big-bird",
        "big.bird >= 3, < 4",
        "egg>=1",
        "dodo; python_version < '3'",
        "nest @ https://keeper:secret@zoo.example/nest.whl",
        "git+https://zoo.example/twig.git@c0ffee#egg=twig",
        "twig @ git+https://zoo.example/twig.git@c0ffee",
    ],
)
def test_what_is_installed_is_not_lacking(line: str) -> None:
    """By its normal name, its version, its marker or the very URL."""
    assert lacks(line) == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dodo", "dodo is not installed"),
        ("big-bird<3", "big-bird is 3.1, not <3"),
        ("big-bird[wings]", "feather is not installed"),
        ("bone @ https://zoo.example/bone.whl", "bone is not that of https://zoo.example/bone.whl"),
        (
            "nest @ https://keeper:secret@other.example/nest.whl",
            "nest is not that of https://***@other.example/nest.whl",
        ),
        ("https://zoo.example/dodo.whl", "https://zoo.example/dodo.whl is not installed"),
        ("twig @ git+https://zoo.example/twig.git@main", "twig is not that of git+https://zoo.example/twig.git@main"),
    ],
)
def test_what_is_lacking_is_named(line: str, words: str) -> None:
    """With the version that is there, and without passwords."""
    assert lacks(line) == words


def test_archive_in_the_project_is_there_only_with_the_same_content() -> None:
    """Its sum is that of what was installed."""
    assert lacks(path="wheels/nest.whl", sha256="aa") == ""
    assert lacks(path="wheels/nest.whl", sha256="bb") == "wheels/nest.whl is not installed"


def test_constraints_bind_what_is_needed_and_no_more() -> None:
    """Also what a needed package needs; a package that nobody asks for may be as it likes."""
    assert lacks("big-bird", constraints=("bone<1",)) == "bone is 1.0, not <1"
    assert lacks("big-bird", constraints=("egg<1", "dodo==5")) == ""


def test_pip_s_configuration_is_read_and_uv_s_own_comes_first(tmp_path: Path) -> None:
    """Files, then variables; what uv is told itself is left to uv."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.example/simple\nextra-index-url =\n    https://two.example/simple\n"
        "    https://three.example/simple\n[install]\nfind-links = /wheels\nno_index = false\n"
    )
    environ = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_DIRS": str(tmp_path),
        "PIP_CONFIG_FILE": str(config),
        "PIP_CERT": "/c",
    }
    found = read(environ)
    assert found.index_url == "https://one.example/simple"
    assert found.extra_index_urls == ("https://two.example/simple", "https://three.example/simple")
    assert found.find_links == ("/wheels",)
    assert found.certificates == "/c"
    assert not found.is_without_index
    other = read(
        {**environ, "PIP_INDEX_URL": "https://four.example/simple", "UV_EXTRA_INDEX_URL": "x", "PIP_NO_INDEX": "1"}
    )
    assert (other.index_url, other.extra_index_urls, other.is_without_index) == (
        "https://four.example/simple",
        (),
        True,
    )
    assert read({**environ, "PIP_CONFIG_FILE": "/dev/null"}) == Indexes(certificates="/c")
