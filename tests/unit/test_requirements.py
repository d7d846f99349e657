"""What a project says of its requirements: which file counts, what it says, and what of it is an error here."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from vscrapy.errors import ConfigError
from vscrapy.requirements import PythonNeeded, Requirement, Requirements, redact, secrets_in
from vscrapy.sender.requirementsfile import find, find_python, require_shipped


def write(root: Path, **files: str) -> Path:
    """Write files into a project; ``__`` stands for a dot in their names."""
    (root / "scrapy.cfg").write_text("[settings]\ndefault = shop.settings\n")
    for name, text in files.items():
        path = root / name.replace("__", ".")
        path.write_text(text)
    return root


def read(root: Path, given: str | None = None) -> Requirements:
    """Read what a project needs; nothing may be told on the way."""
    told: list[str] = []
    found = find(root, given=given, tell=told.append)
    assert found is not None
    assert told == []
    return found


def texts(found: Requirements) -> list[str]:
    """The lines that are no paths."""
    return [needed.text for needed in found.requirements if not needed.is_local]


PYPROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["from-pyproject"]\n'
SETUP_CFG = "[options]\ninstall_requires =\n    from-setup>=1; python_version > '3'\n    # not this\n    second\n"


def test_first_file_of_the_order_counts(tmp_path: Path) -> None:
    """--requirements, scrapy.cfg, requirements.txt, pyproject.toml, setup.cfg."""
    assert find(tmp_path, tell=print) is None
    write(tmp_path, setup__cfg=SETUP_CFG)
    assert texts(read(tmp_path)) == ["from-setup>=1; python_version > '3'", "second"]
    write(tmp_path, pyproject__toml="[tool.ruff]\nline-length = 88\n")
    assert texts(read(tmp_path))[1:] == ["second"]
    write(tmp_path, pyproject__toml=PYPROJECT)
    assert texts(read(tmp_path)) == ["from-pyproject"]
    write(tmp_path, requirements__txt="from-requirements\n", other__txt="other\n")
    assert texts(read(tmp_path)) == ["from-requirements"]
    (tmp_path / "scrapy.cfg").write_text("[vscrapy]\nrequirements = other.txt\n")
    assert texts(read(tmp_path)) == ["other"]
    assert read(tmp_path).source == "other.txt"
    assert texts(read(tmp_path, str(tmp_path / "setup.cfg")))[1:] == ["second"]
    assert find(tmp_path, given="none", tell=print) is None
    (tmp_path / "scrapy.cfg").write_text("[vscrapy]\nrequirements = none\n")
    assert find(tmp_path, tell=print) is None


def test_lines_are_read_as_pip_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, continuations, markers, options, hashes and variables."""
    monkeypatch.setenv("ZOO_TOKEN", "s3same")
    monkeypatch.delenv("ZOO_UNSET", raising=False)
    write(
        tmp_path,
        requirements__txt=(
            "# a comment\n"
            "-i https://${ZOO_TOKEN}@zoo.example/simple --extra-index-url=https://${ZOO_UNSET}.example\n"
            "--pre\n"
            "--no-binary lxml,cffi\n"
            "-fhttps://links.example/\n"
            "--trusted-host zoo.example\n"
            "aardvark[big] >= 2, < 3 ; python_version >= '3.8'   # and why\n"
            "bison==1.0 \\\n"
            "    --hash=sha256:abcdef \\\n"
            "    --hash=sha256:012345\n"
            "cow @ https://example.org/cow-1.0.zip#sha256=00\n"
            "git+https://example.org/dog.git@main#egg=dog\n"
            "-r more.txt\n"
        ),
        more__txt="-c bounds.txt\n-r requirements.txt\nelk\n",
        bounds__txt="elk<5\nfox==1\n",
    )
    found = read(tmp_path)
    assert texts(found) == [
        "aardvark[big] >= 2, < 3 ; python_version >= '3.8'",
        "bison==1.0",
        "cow @ https://example.org/cow-1.0.zip#sha256=00",
        "git+https://example.org/dog.git@main#egg=dog",
        "elk",
    ]
    assert found.requirements[1].hashes == ("sha256:abcdef", "sha256:012345")
    assert found.constraints == ("elk<5", "fox==1")
    assert found.index_url == "https://s3same@zoo.example/simple"
    assert found.extra_index_urls == ("https://${ZOO_UNSET}.example",)
    assert found.find_links == ("https://links.example/",)
    assert found.no_binary == ("lxml", "cffi")
    assert found.trusted_hosts == ("zoo.example",)
    assert found.takes_prereleases
    assert Requirements.from_data(found.to_data()) == found


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_file_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    """As some editors and shells write them."""
    text = "aardvark\nbison\n"
    content = text.encode(encoding) if encoding != "utf-16-le" else b"\xff\xfe" + text.encode(encoding)
    write(tmp_path)
    (tmp_path / "requirements.txt").write_bytes(content)
    assert texts(read(tmp_path)) == ["aardvark", "bison"]


def test_paths_are_relative_to_their_file_and_below_the_project(tmp_path: Path) -> None:
    """Archives, directories and --find-links; the project itself is left out, with what it depends on taken in."""
    root = write(tmp_path, requirements__txt="-r deep/more.txt\n-e .\nsub.whl\n", pyproject__toml=PYPROJECT)
    (root / "deep" / "wheels").mkdir(parents=True)
    (root / "deep" / "lib").mkdir()
    (root / "deep" / "wheels" / "x-1-py3-none-any.whl").write_bytes(b"")
    (root / "sub.whl").write_bytes(b"")
    (root / "deep" / "more.txt").write_text(
        "./wheels/x-1-py3-none-any.whl[all] ; python_version > '3'\n--find-links wheels/\n--editable ./lib\n"
        f"y @ {(root / 'sub.whl').as_uri()}\n"
    )
    found = read(root)
    assert [needed.path for needed in found.requirements] == [
        "deep/wheels/x-1-py3-none-any.whl",
        "deep/lib",
        "sub.whl",
        ".",
    ]
    assert found.requirements[0].text == "[all] ; python_version > '3'"
    assert found.find_paths == ("deep/wheels",)
    assert texts(found) == ["from-pyproject"]
    require_shipped(found, {"sub.whl", "deep/lib/setup.py", "deep/wheels/x-1-py3-none-any.whl"})
    with pytest.raises(ConfigError, match=r"requirements\.txt names sub\.whl, which does not travel"):
        require_shipped(found, {"deep/lib/setup.py", "deep/wheels/x-1-py3-none-any.whl"})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("aardvark=>1", "'aardvark=>1' is no requirement"),
        ("--install-option x", "--install-option is no option that is known here"),
        ("aardvark --hash=x", "'x' is no hash"),
        ("-r missing.txt", "there is no file missing.txt"),
        ("-r https://example.org/r.txt", "is a URL"),
        ("./missing.whl", "there is no ./missing.whl"),
        ("/usr/lib/x.whl", "/usr/lib/x.whl is not in the project"),
        ("--find-links ../wheels", "../wheels is not in the project"),
        ("-i", "-i has no value"),
        ("aardvark[ @ https://keeper:open-sesame@zoo.example/", "is no requirement"),
    ],
)
def test_line_that_is_wrong_is_named_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    """One line: file, number, what is wrong, without passwords."""
    write(tmp_path, requirements__txt=f"# first\n\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        find(tmp_path, tell=print)
    assert str(caught.value).startswith("requirements.txt, line 3: ")
    assert words in str(caught.value)
    assert "open-sesame" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dependencies_that_stand_in_other_files_are_read(tmp_path: Path) -> None:
    """``dynamic`` of a pyproject.toml, and ``file:`` of a setup.cfg."""
    dynamic = (
        '[project]\nname = "shop"\ndynamic = ["dependencies"]\n'
        '[tool.setuptools.dynamic]\ndependencies = {file = ["base.txt"]}\n'
    )
    write(tmp_path, pyproject__toml=dynamic, base__txt="aardvark\n")
    assert texts(read(tmp_path)) == ["aardvark"]
    (tmp_path / "pyproject.toml").unlink()
    write(tmp_path, setup__cfg="[options]\ninstall_requires = file: base.txt\n")
    assert texts(read(tmp_path)) == ["aardvark"]


def test_extras_of_the_project_itself_count(tmp_path: Path) -> None:
    """``.[crawl]`` is the project's dependencies and those of its extra."""
    extra = '[project.optional-dependencies]\ncrawl = ["bison"]\nother = ["cow"]\n'
    write(tmp_path, requirements__txt=".[crawl]\n", pyproject__toml=PYPROJECT + extra)
    assert texts(read(tmp_path)) == ["from-pyproject", "bison"]


def test_project_without_readable_metadata_is_told(tmp_path: Path) -> None:
    """What a setup.py says is not known before it is run, and it is not run."""
    write(tmp_path, requirements__txt="-e .\naardvark\n", setup__py="")
    told: list[str] = []
    found = find(tmp_path, tell=told.append)
    assert found is not None
    assert texts(found) == ["aardvark"]
    assert len(told) == 1
    assert told[0].startswith("requirements.txt, line 1: ")


def test_script_says_what_it_needs(tmp_path: Path) -> None:
    """A file of ``runspider`` can name its dependencies in itself."""
    script = tmp_path / "spider.py"
    script.write_text('# /// script\n# dependencies = [\n#   "aardvark>=2",\n# ]\n# ///\nimport scrapy\n')
    found = find(None, script=script, tell=print)
    assert found is not None
    assert texts(found) == ["aardvark>=2"]
    script.write_text("import scrapy\n")
    assert find(None, script=script, tell=print) is None


def test_passwords_are_not_shown() -> None:
    """Of URLs in any text; a user that says nothing stays."""
    text = "git+ssh://git@host/x and https://keeper:open-sesame@host/y?api_token=abcdef&z=1"
    assert redact(text) == "git+ssh://git@host/x and https://***@host/y?api_token=***&z=1"
    assert str(Requirement("x @ https://t0ken@host/x.whl")) == "x @ https://***@host/x.whl"
    assert secrets_in([text, "https://t%40ken@host"]) == {"open-sesame", "abcdef", "t%40ken", "t@ken"}


@pytest.mark.parametrize(
    "changed",
    [
        {"requirements": [{"text": "x\n--index-url http://evil", "path": ".", "hashes": []}]},
        {"requirements": [{"text": "", "path": "../x", "hashes": []}]},
        {"requirements": [{"text": "", "path": "/etc", "hashes": []}]},
        {"requirements": [{}]},
        {"find_paths": ["a/../../b"]},
        {"constraints": 5},
        {"more": 1},
        {"source": None},
    ],
)
def test_data_that_is_malformed_is_refused(changed: dict[str, object]) -> None:
    """Also signed data may come from another version, or from somebody who means harm."""
    data = Requirements("requirements.txt").to_data()
    with pytest.raises(ValueError, match="requirements cannot be read"):
        Requirements.from_data({**data, **changed})


@pytest.mark.parametrize("pin", ["scrapy==1.5.0", "Scrapy<2", "twisted~=18.9", "redis==2.10.*", "scrapy>=1.4,<2.13"])
def test_pin_that_nothing_here_can_keep_does_not_count(tmp_path: Path, pin: str) -> None:
    """A file that nobody has looked at for years: "scrapy crawl" never reads it. It is told, and the rest counts."""
    told: list[str] = []
    found = find(write(tmp_path, requirements__txt=f"one\n{pin}\n"), tell=told.append)
    assert found is not None
    assert texts(found) == ["one"]
    assert len(told) == 1
    assert told[0].startswith(f"requirements.txt, line 2: {pin} does not count, for vscrapy runs with ")


@pytest.mark.parametrize(
    "pin",
    [
        "scrapy",
        "scrapy==2.13.4",
        "scrapy>2.13.0,<2.14",
        "scrapy>=1.4",
        "Scrapy==2.14.*",
        "scrapy===2.19.0",
        "twisted<25",
    ],
)
def test_pin_that_can_be_kept_counts(tmp_path: Path, pin: str) -> None:
    """Of a package that vscrapy itself runs with, too."""
    assert texts(read(write(tmp_path, requirements__txt=f"{pin}\n"))) == [pin]


POETRY = '[tool.poetry.dependencies]\npython = "^3.11"\nrequests = "^2"\n'


@pytest.mark.parametrize("head", ["", '[project]\nname = "shop"\ndynamic = ["dependencies"]\n'])
def test_dependencies_for_poetry_are_told_once(tmp_path: Path, head: str) -> None:
    """They are not read, which a person learns with what to do; a file that counts before is all that is read."""
    told: list[str] = []
    write(tmp_path, pyproject__toml=head + POETRY)
    assert find(tmp_path, tell=told.append) is None
    assert told == [
        "pyproject.toml: [tool.poetry.dependencies] is not read; name what workers need in dependencies of [project],"
        " or in a requirements.txt ('poetry export -o requirements.txt' writes one)"
    ]
    write(tmp_path, requirements__txt="one\n")
    assert texts(read(tmp_path)) == ["one"]


@pytest.mark.parametrize(
    "text", [PYPROJECT + POETRY, '[tool.poetry.dependencies]\npython = "^3.11"\n', "[tool]\npoetry = 1\n"]
)
def test_dependencies_for_poetry_that_are_no_matter_are_not_told(tmp_path: Path, text: str) -> None:
    """Those of [project] count, or there are none."""
    told: list[str] = []
    find(write(tmp_path, pyproject__toml=text), tell=told.append)
    assert told == []


def test_python_that_a_project_asks_for_is_read(tmp_path: Path) -> None:
    """Of its pyproject.toml, whichever file names packages, or of the file that runs alone; unless none counts."""
    assert find_python(tmp_path, tell=print) is None
    write(tmp_path, pyproject__toml='[project]\nrequires-python = ">=3.9, <4"\n', requirements__txt="one\n")
    assert find_python(tmp_path, tell=print) == PythonNeeded("pyproject.toml", "<4,>=3.9")
    assert find_python(tmp_path, given="requirements.txt", tell=print) is not None
    assert find_python(tmp_path, given="none", tell=print) is None
    script = tmp_path / "one.py"
    script.write_text('# /// script\n# requires-python = ">=3.8"\n# ///\n')
    assert find_python(None, script=script, tell=print) == PythonNeeded("one.py", ">=3.8")
    (tmp_path / "scrapy.cfg").write_text("[vscrapy]\nrequirements = none\n")
    assert find_python(tmp_path, tell=print) is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ('">=99"', f"requires-python >=99 does not count, for this is Python {platform.python_version()} itself"),
        ('"^3.11"', "requires-python '^3.11' does not count, for it is no set of versions, as in '>=3.11'"),
        ("3.11", "requires-python 3.11 does not count, for it is no set of versions, as in '>=3.11'"),
    ],
)
def test_python_that_means_nothing_here_does_not_count(tmp_path: Path, asked: str, words: str) -> None:
    """A project that runs here with another one, or with what is no version, runs so on workers, too; it is told."""
    told: list[str] = []
    write(tmp_path, pyproject__toml=f"[project]\nrequires-python = {asked}\n")
    assert find_python(tmp_path, tell=told.append) is None
    assert told == [f"pyproject.toml: {words}"]


def test_pyproject_that_is_broken_asks_for_no_python(tmp_path: Path) -> None:
    """Scrapy never reads it."""
    assert find_python(write(tmp_path, pyproject__toml="[project"), tell=print) is None


@pytest.mark.parametrize("data", [None, {}, {"source": "a", "versions": "^3"}, {"source": "a\n", "versions": ">=3"}])
def test_python_in_a_job_that_is_malformed_is_refused(data: object) -> None:
    """It is said what cannot be read."""
    with pytest.raises(ValueError, match="the Python that the task needs cannot be read"):
        PythonNeeded.from_data(data)
