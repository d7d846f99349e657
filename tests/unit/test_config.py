"""What names the Redis, what the secret is, and that no message holds a password."""

from __future__ import annotations

import argparse
import json
import stat
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscrapy import config
from vscrapy.commands import config as config_command
from vscrapy.errors import ConfigError, InsecureStore
from vscrapy.model import Endpoint


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty project, with a home of its own and nothing configured anywhere."""
    for name in ("VSCRAPY_REDIS_URL", "VSCRAPY_SECRET", "VSCRAPY_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("VSCRAPY_HOME", str(tmp_path / "home"))
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def write_scrapy_cfg(directory: Path, text: str) -> Path:
    """Write a scrapy.cfg with *text* as its ``[vscrapy]`` section."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "scrapy.cfg"
    path.write_text(f"[settings]\ndefault = bookshop.settings\n[vscrapy]\n{text}\n")
    return path


def resolved(**options: str) -> Endpoint:
    """Resolve, where something is configured."""
    endpoint = config.resolve(redis=options.get("redis"))
    assert endpoint is not None
    return endpoint


# --- which source wins --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_resolve_is_embedded_with_nothing_configured() -> None:
    """Nothing configured means the embedded server."""
    assert config.resolve() is None


def test_resolve_takes_the_strongest_source_of_all(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option beats the environment, which beats scrapy.cfg, which beats the user's configuration."""
    path = config.write_user_config(url="redis://user-config")
    assert (resolved().url, resolved().source) == ("redis://user-config", str(path))
    cfg = write_scrapy_cfg(project, "redis = redis://project")
    assert (resolved().url, resolved().source) == ("redis://project", str(cfg))
    monkeypatch.setenv("VSCRAPY_REDIS_URL", "redis://environment")
    assert (resolved().url, resolved().source) == ("redis://environment", "VSCRAPY_REDIS_URL")
    option = resolved(redis="redis://option")
    assert (option.url, option.source) == ("redis://option", "--redis")


def test_resolve_takes_the_closest_scrapy_cfg_from_a_subdirectory(project: Path) -> None:
    """As Scrapy does: upward from the working directory, and no further than the first."""
    write_scrapy_cfg(project.parent, "redis = redis://outer")
    write_scrapy_cfg(project, "redis = redis://inner")
    below = project / "bookshop" / "spiders"
    below.mkdir(parents=True)
    endpoint = config.resolve(cwd=below)
    assert endpoint is not None
    assert endpoint.url == "redis://inner"


@pytest.mark.parametrize("place", ["xdg/scrapy.cfg", "user/.scrapy.cfg"])
def test_resolve_takes_scrapys_own_places_without_a_project(project: Path, place: str) -> None:
    """Scrapy's configuration of the user counts too."""
    path = project.parent / place
    write_scrapy_cfg(path.parent, "redis = redis://mine").rename(path)
    assert resolved().source == str(path)


@pytest.mark.usefixtures("project")
def test_resolve_skips_a_variable_that_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is an absent one."""
    monkeypatch.setenv("VSCRAPY_REDIS_URL", "")
    assert config.resolve() is None


@pytest.mark.usefixtures("project")
def test_resolve_refuses_an_option_that_is_empty() -> None:
    """An empty option is a mistake, as in --redis "$UNSET"; the embedded server would be a surprise."""
    with pytest.raises(ConfigError, match="--redis"):
        config.resolve(redis="")


def test_resolve_leaves_a_percent_sign_alone_in_scrapy_cfg(project: Path) -> None:
    """A quoted password is not an interpolation."""
    write_scrapy_cfg(project, "redis = redis://:p%40w@host")
    assert resolved().secret == "p@w"


def test_resolve_builds_the_url_from_the_parts_of_the_user_config(project: Path) -> None:
    """Host, port, password and db, written by hand, make a URL."""
    home = config.ensure_home()
    (home / "config.ini").write_text("[redis]\nhost = ::1\nport = 6380\npassword = p/w\ndb = 2\n")
    assert resolved().url == "redis://:p%2Fw@[::1]:6380/2"


def test_resolve_names_the_file_that_is_not_an_ini_file(project: Path) -> None:
    """The message names the file, and quotes no line: there may be a password on it."""
    path = project / "scrapy.cfg"
    path.write_text("redis://:hunter2@host\n")
    with pytest.raises(ConfigError) as caught:
        config.resolve()
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_resolve_hands_the_options_of_the_parser_on(project: Path) -> None:
    """What ``add_redis_options`` parses is what ``resolve`` takes."""
    parser = argparse.ArgumentParser()
    config.add_redis_options(parser)
    options = parser.parse_args(["--redis", "redis://host", "--insecure"])
    endpoint = config.resolve(redis=options.redis, insecure=options.insecure)
    assert endpoint == Endpoint("redis://host", "--redis", "", is_insecure_allowed=True)


# --- the secret ---------------------------------------------------------------------------------------------------


def test_secret_comes_from_the_strongest_source_of_all(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment beats scrapy.cfg, which beats the user's configuration, which beats the password."""
    url = "redis://:password@host"
    assert resolved(redis="redis://host").secret == ""
    assert resolved(redis=url).secret == "password"
    config.write_user_config(secret="user-config")
    assert resolved(redis=url).secret == "user-config"
    write_scrapy_cfg(project, "secret = project")
    assert resolved(redis=url).secret == "project"
    monkeypatch.setenv("VSCRAPY_SECRET", "environment")
    assert resolved(redis=url).secret == "environment"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "url", ["redis://:p%40w@h", "redis://user:p%40w@h", "unix://:p%40w@/run/r.sock", "redis://h?password=p%40w"]
)
def test_secret_is_the_unquoted_password_of_any_form(url: str) -> None:
    """Two ways to write one password are one secret."""
    assert resolved(redis=url).secret == "p@w"


# --- which URLs are refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host:6379/0",
        "redis://user:pw@host:6379/15",
        "rediss://host/0?ssl_cert_reqs=none",
        "redis://[::1]:6379",
        "redis://10.0.0.1?db=3",
        "redis://my_redis.internal",
        "unix:///run/redis.sock",
        "unix://:pw@/run/redis%20x.sock?db=1",
    ],
)
def test_check_accepts_a_url_that_redis_py_reads_as_meant(url: str) -> None:
    """These are fine."""
    config.check(url, "here")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "begin with"),
        ("host:6379", "begin with"),
        ("http://host", "begin with"),
        ("REDIS://host", "begin with"),
        ("redis://", "no host"),
        ("redis://:6379", "no host"),
        ("redis://:pw@", "no host"),
        ("redis://:12/3@host", "no host"),
        ("redis://ho st", "neither a name"),
        ("redis://host\n", "line break"),
        ("redis://host:port", "port"),
        ("redis://host:70000", "port"),
        ("redis://host:0", "port"),
        ("redis://::1:6379", "port"),
        ("redis://[::1", "port"),
        ("redis://:a#b@host", "port"),
        ("redis://host/0#b", "#"),
        ("redis://host/one", "database"),
        ("redis://host/-1", "database"),
        ("redis://host/1/2", "database"),
        ("redis://host?db=x", "database"),
        ("unix:///run/r.sock?db=x", "database"),
        ("unix://run/r.sock", "absolute path"),
        ("unix://", "absolute path"),
    ],
)
def test_check_says_what_to_write_for_a_url_that_is_wrong(url: str, hint: str) -> None:
    """One line: the source, the value, and what to do."""
    with pytest.raises(ConfigError, match="from here cannot be used") as caught:
        config.check(url, "here")
    assert hint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- passwords stay hidden ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:pw@h", "redis://:***@h"),
        ("redis://user:pw@h:1/2", "redis://user:***@h:1/2"),
        ("unix://:pw@/path?db=0", "unix://:***@/path?db=0"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("rediss://h?ssl_password=pw", "rediss://h?ssl_password=***"),
        ("redis://pw@h", "redis://***@h"),
        ("redis:/:pw@h", "redis:/:***@h"),
        ("user:pw@h:6379", "user:***@h:6379"),
    ],
)
def test_redact_keeps_all_but_the_password_in_any_form(url: str, expected: str) -> None:
    """What is left tells which Redis it is."""
    assert config.redact(url) == expected


@given(
    middle=st.text(),
    form=st.sampled_from(["redis://:{}@h", "redis://user:{}@h:1/0", "unix://:{}@/s", "redis:/:{}@h", "x:{}@h"]),
)
def test_redact_hides_all_of_a_password_that_is_not_quoted(middle: str, form: str) -> None:
    """A password with @, : or / in it, not quoted, makes a wrong URL, and is hidden all the same."""
    assert "SECRETS" not in config.redact(form.format(f"SECRETS{middle}SECRETS"))


@given(text=st.text())
def test_redact_hides_all_of_a_password_in_the_query(text: str) -> None:
    """So it is after the host."""
    shown = config.redact(f"redis://h?db=1&password=SECRETS{quote(text)}SECRETS&x=1")
    assert shown == "redis://h?db=1&password=***&x=1"


@given(middle=st.text())
def test_check_hides_the_password_of_a_url_that_is_wrong(middle: str) -> None:
    """No refusal shows what it refuses in full."""
    with pytest.raises(ConfigError) as caught:
        config.check(f"https://user:SECRETS{middle}SECRETS@host", "here")
    assert "SECRETS" not in str(caught.value)


# --- a Redis that is open to the network --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pw@example.com",
        "redis://example.com?password=pw",
        "unix:///run/redis.sock",
        "redis://localhost",
        "redis://127.0.0.1:6379",
        "redis://127.8.9.1",
        "redis://[::1]:6379",
    ],
)
def test_require_secure_accepts_a_redis_that_is_closed_to_others(url: str) -> None:
    """A password, a socket, or this machine."""
    config.require_secure(Endpoint(url, "here", ""))


@pytest.mark.parametrize(
    "url",
    ["redis://example.com", "rediss://example.com", "redis://10.0.0.1", "redis://0.0.0.0", "redis://localhost.evil"],
)
def test_require_secure_refuses_an_open_redis_unless_allowed(url: str) -> None:
    """The message says what to do; --insecure lets it pass."""
    with pytest.raises(InsecureStore, match=r"requirepass.*--insecure"):
        config.require_secure(Endpoint(url, "here", "secret"))
    config.require_secure(Endpoint(url, "here", "secret", is_insecure_allowed=True))


# --- the user's configuration -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_home_is_created_for_its_owner_only() -> None:
    """Mode 0700 for the directory, 0600 for the file, whatever the umask."""
    path = config.write_user_config(url="redis://host")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_home_is_the_platforms_directory_without_a_variable(project: Path) -> None:
    """No VSCRAPY_HOME: where this platform keeps such things, below the user's home."""
    assert config.home({}).is_relative_to(project.parent / "user")


def test_home_expands_a_tilde_in_the_variable(project: Path) -> None:
    """~ is the user's home, and the path is absolute."""
    assert config.home({"VSCRAPY_HOME": "~/x"}) == project.parent / "user" / "x"
    assert config.home({"VSCRAPY_HOME": "x"}) == project / "x"


def test_ensure_home_says_what_to_do_where_it_cannot_be_created(project: Path) -> None:
    """A file in the way is the user's to move."""
    (project / "file").write_text("")
    with pytest.raises(ConfigError, match="VSCRAPY_HOME"):
        config.ensure_home(project / "file" / "home")


def test_write_user_config_replaces_the_parts_and_keeps_the_rest(project: Path) -> None:
    """A URL replaces host and password; the secret and other sections stay."""
    path = config.ensure_home() / "config.ini"
    path.write_text("[redis]\nhost = h\npassword = p\nsecret = s\n[other]\nkey = 1\n")
    config.write_user_config(url="redis://new")
    assert path.read_text().split("\n\n") == ["[redis]\nsecret = s\nurl = redis://new", "[other]\nkey = 1", ""]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("secret", [" s", "s ", "a\nb"])
def test_write_user_config_refuses_a_secret_that_would_not_survive(secret: str) -> None:
    """A secret that is read back otherwise would make all signatures fail, later and elsewhere."""
    with pytest.raises(ConfigError):
        config.write_user_config(secret=secret)


# --- vscrapy config -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_config_command_sets_the_default_by_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, without the password; the next command uses it."""
    assert config_command.run(["-ho", "example.com", "-po", "6380", "-pa", "p@w", "-db", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "redis://:***@example.com:6380/2" in lines[0]
    assert resolved().url == "redis://:p%40w@example.com:6380/2"


@pytest.mark.usefixtures("project")
def test_config_command_refuses_parts_without_a_host() -> None:
    """A password alone belongs to no Redis."""
    with pytest.raises(ConfigError, match="--host"):
        config_command.run(["-pa", "pw"])


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("argv", [["--redis", "http://h"], ["-ho", "redis://h"], ["-ho", "h", "-po", "x"]])
def test_config_command_writes_nothing_when_the_value_is_wrong(argv: list[str]) -> None:
    """A refusal leaves the old default in place."""
    config.write_user_config(url="redis://old")
    with pytest.raises(ConfigError, match="cannot be used"):
        config_command.run(argv)
    assert resolved().url == "redis://old"


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "argv", [["--redis", "redis://h", "-ho", "h"], ["--unset", "--secret", "s"], ["--unset", "-po", "1"]]
)
def test_config_command_refuses_options_that_contradict(argv: list[str]) -> None:
    """Argparse's own exit, code 2."""
    with pytest.raises(SystemExit) as caught:
        config_command.run(argv)
    assert caught.value.code == 2


@pytest.mark.usefixtures("project")
def test_config_command_says_when_another_source_overrides_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user who sets a default is told when it will not be used here."""
    monkeypatch.setenv("VSCRAPY_REDIS_URL", "redis://environment")
    config_command.run(["--redis", "redis://mine"])
    assert "VSCRAPY_REDIS_URL overrides it" in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_config_command_repairs_a_default_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad default must not stop the command that replaces it."""
    config.write_user_config(url="http://wrong")
    assert config_command.run(["--redis", "redis://right"]) == 0
    assert "redis://right" in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_config_command_unsets_the_default_and_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Afterwards it is the embedded server again; a second time is no error."""
    config_command.run(["--redis", "redis://:pw@host", "--secret", "s"])
    assert config_command.run(["--unset"]) == 0
    assert config.resolve() is None
    assert not (config.home() / "config.ini").exists()
    assert config_command.run(["--unset"]) == 0
    assert "no default" in capsys.readouterr().out


def test_config_command_shows_who_won_and_who_was_overridden(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON: every source in order, the home, and where the secret is from; no password."""
    path = config.write_user_config(url="redis://:hunter2@mine", secret="hunter2")
    cfg = write_scrapy_cfg(project, "redis = redis://:hunter2@project")
    monkeypatch.setenv("VSCRAPY_REDIS_URL", "redis://:hunter2@environment")
    assert config_command.run(["--json"]) == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert json.loads(out) == {
        "redis": "redis://:***@environment",
        "source": "VSCRAPY_REDIS_URL",
        "overridden": [
            {"source": str(cfg), "redis": "redis://:***@project"},
            {"source": str(path), "redis": "redis://:***@mine"},
        ],
        "secret_source": str(path),
        "home": str(path.parent),
    }


@pytest.mark.usefixtures("project")
def test_config_command_shows_the_embedded_server_with_nothing_configured(capsys: pytest.CaptureFixture[str]) -> None:
    """The text for people."""
    assert config_command.run([]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "redis       the embedded server (from: nothing is configured)"


@pytest.mark.parametrize(
    ("value", "is_allowed"), [("1", True), ("Yes", True), ("0", False), ("", False), ("no", False)]
)
def test_insecure_is_a_variable_too(
    project: Path, monkeypatch: pytest.MonkeyPatch, value: str, is_allowed: bool
) -> None:
    """For who cannot give an option: a service, a container."""
    monkeypatch.setenv("VSCRAPY_INSECURE", value)
    assert resolved(redis="redis://h").is_insecure_allowed is is_allowed
    by_option = config.resolve(redis="redis://h", insecure=True)
    assert by_option is not None
    assert by_option.is_insecure_allowed


def test_tls_options_are_taken_by_rediss_alone(tmp_path: Path) -> None:
    """With files that are there; redis-py would fail at the first connection, with a traceback."""
    file = tmp_path / "ca.pem"
    file.touch()
    options = (
        f"ssl_ca_certs={file}&ssl_certfile={file}&ssl_keyfile={file}&ssl_check_hostname=false&ssl_cert_reqs=none"
    )
    config.check(f"rediss://h/0?{options}", "--redis")
    with pytest.raises(ConfigError, match=r"the option 'ssl_ca_certs'.*; TLS is rediss://"):
        config.check(f"redis://h/0?{options}", "--redis")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("decode_responses=true", "the option 'decode_responses', which is none of db, password"),
        ("ssl_ca_certs=ca.pem", "its ssl_ca_certs is 'ca.pem', which is not there, or no absolute path"),
        ("ssl_certfile=/no/such/file", "its ssl_certfile is '/no/such/file', which is not there"),
        ("ssl_cert_reqs=optional", "its ssl_cert_reqs is 'optional'; it takes required or none"),
        ("db", "what stands behind its \\? cannot be read"),
        ("x=hunter2@host", "it has a \\? and an @ behind it"),
    ],
)
def test_options_of_a_url_are_checked(query: str, words: str) -> None:
    """One line, before anything is connected; nothing that may be half of a password is in it."""
    with pytest.raises(ConfigError, match=words) as caught:
        config.check(f"rediss://host/0?{query}", "--redis")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://hun$ter2/x@host/0", "redis://:hunter2/x@host/0", "redis://u?hunter2@host"])
def test_half_a_password_is_not_shown_as_a_host(url: str) -> None:
    """A / that was not written as %2F ends what is read as the host."""
    with pytest.raises(ConfigError) as caught:
        config.check(url, "--redis")
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("redis://:pw@h:1/2", "redis://h:1/2"),
        ("rediss://u:p%40w@[::1]:1/0?ssl_cert_reqs=none&password=x", "rediss://[::1]:1/0?ssl_cert_reqs=none"),
        ("redis://h/0?username=u&password=p", "redis://h/0"),
    ],
)
def test_without_password_is_the_same_server_for_a_stranger(url: str, bare: str) -> None:
    """All that says who one is, is gone; how to get there stays."""
    assert config.without_password(url) == bare
