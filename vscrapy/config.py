"""
Where the store is and what the secret is: read once at the edge, handed on as a frozen ``Endpoint``.

The first source that names a Redis wins: ``--redis``, ``VSCRAPY_REDIS_URL``, ``redis`` in ``[vscrapy]`` of a
scrapy.cfg, ``[redis]`` of the user's ``config.ini``. None of them means the embedded server. Only the winner
is checked, an empty value counts as absent, and no message ever holds a password.

Each command begins here, so that modules which only some need are imported where they are.
"""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from vscrapy.errors import ConfigError, InsecureStore
from vscrapy.model import Endpoint

if TYPE_CHECKING:
    import argparse
    from ipaddress import IPv4Address, IPv6Address

#: The scheme decides the transport: TCP, TLS, unix socket. redis-py knows no others, and only in lower case.
SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORT = 6379
#: The user's own configuration, in the home directory.
USER_CONFIG = "config.ini"
#: What a URL's password is called where the source of the secret is shown.
URL_PASSWORD = "the URL's password"

#: What may stand behind the ? of any URL, and of one with TLS; redis-py's names.
OPTIONS = frozenset({"db", "username", "password"})
_TLS_FILES = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})
TLS_OPTIONS = _TLS_FILES | {"ssl_check_hostname", "ssl_cert_reqs", "ssl_password"}
#: What turns VSCRAPY_INSECURE on.
_YES = frozenset({"1", "yes", "true", "on"})

_QUOTING = "in a password, write @ : / ? # % as %40 %3A %2F %3F %23 %25"
_HOST = re.compile(r"[\w.-]+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_QUERY_PASSWORD = re.compile(r"([?&]\w*password=)[^&]*", re.IGNORECASE)
_SCHEME = re.compile(r"[^:/@]*:/+")


@dataclass(frozen=True, slots=True)
class Origin:
    """One place that names a Redis, or a secret."""

    #: For messages: ``--redis``, an environment variable, a file.
    source: str
    value: str = field(repr=False)


def home(environ: Mapping[str, str] | None = None) -> Path:
    """
    Name the directory of everything vscrapy keeps for this user; it may not exist yet.

    Raises:
        ConfigError: ``VSCRAPY_HOME`` begins with a ``~user`` that does not exist.
    """
    value = (os.environ if environ is None else environ).get("VSCRAPY_HOME")
    if not value:
        import platformdirs

        return platformdirs.user_data_path("vscrapy")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"VSCRAPY_HOME is {value!r}, and there is no such user; give a path.") from error


def ensure_home(path: Path | None = None) -> Path:
    """
    Create the home directory, for its owner only, unless it is there; the default is ``home()``.

    Raises:
        ConfigError: It cannot be created.
    """
    path = home() if path is None else path
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The home directory {path} cannot be created ({error.strerror}); set VSCRAPY_HOME to another."
        ) from error
    return path


def add_redis_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--redis`` and ``--insecure``, in the form that ``resolve`` takes."""
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="redis://, rediss:// or unix:// URL of the store; VSCRAPY_REDIS_URL keeps it out of the process list",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="accept a Redis without a password beyond this machine"
    )


def resolve(
    *,
    redis: str | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Endpoint | None:
    """
    Find the Redis to use, and the cluster's secret; None means the embedded server.

    Raises:
        ConfigError: The winning URL cannot be used, or a configuration file cannot be read.
    """
    origins = () if redis is not None else redis_origins(environ=environ, cwd=cwd)
    if redis is None and not origins:
        return None
    winner = Origin("--redis", redis.strip()) if redis is not None else origins[0]
    check(winner.value, winner.source)
    secrets = secret_origins(winner.value, environ=environ, cwd=cwd)
    environ = os.environ if environ is None else environ
    return Endpoint(
        url=winner.value,
        source=winner.source,
        secret=secrets[0].value if secrets else "",
        is_insecure_allowed=insecure or environ.get("VSCRAPY_INSECURE", "").strip().lower() in _YES,
    )


def redis_origins(*, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[Origin, ...]:
    """
    List what names a Redis where no ``--redis`` does, the winner first; nothing is checked yet.

    Raises:
        ConfigError: A configuration file cannot be read.
    """
    environ = os.environ if environ is None else environ
    user_config = home(environ) / USER_CONFIG
    candidates = [
        Origin("VSCRAPY_REDIS_URL", environ.get("VSCRAPY_REDIS_URL", "")),
        *_scrapy_cfg_origins("redis", environ, cwd),
        Origin(str(user_config), _user_url(user_config)),
    ]
    return _present(candidates)


def secret_origins(
    url: str | None, *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[Origin, ...]:
    """
    List every source of the cluster's secret, the winner first; *url*'s password is the last resort.

    Raises:
        ConfigError: A configuration file cannot be read.
    """
    environ = os.environ if environ is None else environ
    user_config = home(environ) / USER_CONFIG
    candidates = [
        Origin("VSCRAPY_SECRET", environ.get("VSCRAPY_SECRET", "")),
        *_scrapy_cfg_origins("secret", environ, cwd),
        Origin(str(user_config), _read_ini(user_config).get("redis", "secret", fallback="")),
        Origin(URL_PASSWORD, _password(urlsplit(url)) if url else ""),
    ]
    return _present(candidates)


def requirements_origin(scrapy_cfg: Path) -> str:
    """
    Give ``requirements`` in ``[vscrapy]`` of a project's scrapy.cfg; '': it is not there.

    Raises:
        ConfigError: The file cannot be read.
    """
    return _read_ini(scrapy_cfg).get("vscrapy", "requirements", fallback="").strip()


def env_names(*, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[list[str], str]:
    """
    Name the environment variables that travel with each task, by ``env`` in ``[vscrapy]`` of a scrapy.cfg.

    Returns:
        They, and the file; nothing and '' when no file has any.

    Raises:
        ConfigError: A configuration file cannot be read.
    """
    origins = _present(_scrapy_cfg_origins("env", os.environ if environ is None else environ, cwd))
    return (re.split(r"[,\s]+", origins[0].value), origins[0].source) if origins else ([], "")


def check(url: str, source: str) -> None:
    """
    Refuse a URL that redis-py would reject, or worse, read otherwise than it was meant.

    Raises:
        ConfigError: One line with the URL (its password hidden), the source, and what to write instead.
    """
    problem = _problem(url)
    if problem is not None:
        raise ConfigError(f"The Redis URL {redact(url)!r} from {source} cannot be used: {problem}.")


def redact(url: str) -> str:
    """
    Replace the password in *url* by ``***``; also where the URL is wrong, because messages show wrong URLs.

    It hides too much rather than too little: all before the last ``@`` counts as user and password, and a
    user alone is hidden as well, since it is often a password that lacks its colon.
    """
    matched = _SCHEME.match(url)
    scheme = matched.group() if matched else ""
    credentials, at, rest = url[len(scheme) :].rpartition("@")
    user, colon, _ = credentials.partition(":")
    hidden = f"{user}:***" if colon else "***" if at else ""
    return scheme + hidden + at + _QUERY_PASSWORD.sub(r"\1***", rest)


def require_secure(endpoint: Endpoint) -> None:
    """
    Refuse a Redis that anyone on the network can write to, for what is written there is run by workers.

    Raises:
        InsecureStore: No password, beyond this machine, and ``--insecure`` was not given.
    """
    if not (is_local(endpoint.url) or _password(urlsplit(endpoint.url)) or endpoint.is_insecure_allowed):
        raise insecure(endpoint, "has no password")


def insecure(endpoint: Endpoint, what: str) -> InsecureStore:
    """Make the refusal of a Redis beyond this machine that lets everybody in."""
    return InsecureStore(
        f"The Redis {redact(endpoint.url)!r} from {endpoint.source} {what}, and is not on this machine: "
        "anyone who reaches it could run code on the workers. Set requirepass on the server and put the password "
        "in the URL (redis://:PASSWORD@HOST), or accept the risk with --insecure (VSCRAPY_INSECURE=1)."
    )


def is_local(url: str) -> bool:
    """Can this Redis only be reached from this machine?"""
    parts = urlsplit(url)
    return parts.scheme == "unix" or _is_loopback(parts.hostname or "")


def without_password(url: str) -> str:
    """The same Redis, for who has neither user nor password."""
    parts = urlsplit(url)
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("username", "password")]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(options)))


def url_from_parts(host: str, port: str = "", password: str = "", db: str = "") -> str:
    """Build a ``redis://`` URL; whatever is wrong with a part is still there for ``check`` to find."""
    credentials = f":{quote(password, safe='')}@" if password else ""
    is_ipv6 = ":" in host and not host.startswith("[")
    address = f"[{host}]" if is_ipv6 else quote(host, safe="[]:%")
    return f"redis://{credentials}{address}:{quote(port or str(DEFAULT_PORT), safe='')}/{quote(db or '0', safe='')}"


def write_user_config(
    *, url: str | None = None, secret: str | None = None, environ: Mapping[str, str] | None = None
) -> Path:
    """
    Set the user's default Redis, the secret, or both, and return the file; None leaves what is there.

    The URL replaces host, port, password and db too. An empty secret removes it. Other sections stay;
    comments do not.

    Raises:
        ConfigError: The secret would not survive the file, or the file or its directory cannot be written.
    """
    if secret is not None and (secret != secret.strip() or not secret.isprintable()):
        raise ConfigError("The secret begins or ends with a space, or has a line break; choose another.")
    path = ensure_home(home(environ)) / USER_CONFIG
    parser = _read_ini(path)
    if not parser.has_section("redis"):
        parser.add_section("redis")
    if url is not None:
        for option in ("host", "port", "password", "db"):
            parser.remove_option("redis", option)
        parser.set("redis", "url", url)
    if secret:
        parser.set("redis", "secret", secret)
    elif secret is not None:
        parser.remove_option("redis", "secret")
    _write_ini(path, parser)
    return path


def unset_user_config(environ: Mapping[str, str] | None = None) -> bool:
    """
    Remove the user's default Redis and secret; tell whether there was anything to remove.

    Raises:
        ConfigError: The file cannot be read or written.
    """
    path = home(environ) / USER_CONFIG
    parser = _read_ini(path)
    if not parser.remove_section("redis"):
        return False
    if parser.sections():
        _write_ini(path, parser)
    else:
        path.unlink()
    return True


def write_private(path: Path, text: str) -> None:
    """
    Replace the file at *path* at once, readable by its owner only, whatever the umask.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    import tempfile

    # mkstemp makes the file with mode 0600: it is never open to others, not even for a moment.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _present(candidates: list[Origin]) -> tuple[Origin, ...]:
    """Keep the candidates with a value, without the blanks around it."""
    stripped = (Origin(origin.source, origin.value.strip()) for origin in candidates)
    return tuple(origin for origin in stripped if origin.value)


def _problem(url: str) -> str | None:
    """Say what is wrong with *url* and what to write instead; None if nothing is."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        return "it must begin with redis://, rediss:// or unix://"
    if not url.isprintable():
        return "it has a line break or a control character"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"its host or port cannot be read; a port is 1 to 65535, an IPv6 host stands in [], and {_QUOTING}"
    if parts.fragment:
        return f"it has a #; {_QUOTING}"
    problem = _unix_problem(parts) if scheme == "unix" else _network_problem(parts, port)
    if problem is not None:
        return problem
    databases = parse_qs(parts.query).get("db", [])
    if scheme != "unix":
        databases.append(parts.path.strip("/") or "0")
    if not all(_NUMBER.fullmatch(database) for database in databases):
        return "its database is not a number; write /0 after the port, or ?db=0 after a socket"
    return _options_problem(parts)


def _options_problem(parts: SplitResult) -> str | None:
    """Say what is wrong with what stands behind the ``?``."""
    if "@" in parts.query:  # before the host, perhaps: nothing of it is shown
        return f"it has a ? and an @ behind it; {_QUOTING}"
    try:
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return f"what stands behind its ? cannot be read; write ?NAME=VALUE&NAME=VALUE, and {_QUOTING}"
    known = OPTIONS | (TLS_OPTIONS if parts.scheme == "rediss" else frozenset())
    for name, values in options.items():
        if name not in known:
            where = "; TLS is rediss://" if name in TLS_OPTIONS else ""
            return f"it has the option {name!r}, which is none of {', '.join(sorted(known))}{where}"
        if name in _TLS_FILES and not (os.path.isabs(values[0]) and os.path.exists(values[0])):
            return f"its {name} is {values[0]!r}, which is not there, or no absolute path"
        if name == "ssl_cert_reqs" and values[0] not in ("required", "none"):
            return f"its ssl_cert_reqs is {values[0]!r}; it takes required or none"
    return None


def _unix_problem(parts: SplitResult) -> str | None:
    """Say what is wrong with the place of a ``unix://`` URL."""
    # redis-py would take unix://tmp/x.sock for /x.sock, without a word.
    if parts.hostname is not None or not parts.path.strip("/"):
        return f"it needs the absolute path of a socket, as in unix:///run/redis.sock; {_QUOTING}"
    return None


def _network_problem(parts: SplitResult, port: int | None) -> str | None:
    """Say what is wrong with the place of a ``redis://`` or ``rediss://`` URL."""
    host = parts.hostname
    if not host:
        return f"it has no host; write {parts.scheme}://HOST:{DEFAULT_PORT}/0, and {_QUOTING}"
    if port == 0:  # redis-py would take the default instead.
        return "its port is 0; a port is 1 to 65535"
    if not (_HOST.fullmatch(host) or _is_address(host)):
        # Behind a / that was not written as %2F, what is read as the host may be half of a password.
        named = "" if "@" in parts.path else f" {host!r}"
        return f"its host{named} is neither a name nor an address; {_QUOTING}"
    return None


def _is_address(host: str) -> bool:
    """Tell whether *host* is an IP address."""
    return _address(host) is not None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    from ipaddress import ip_address

    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    """Tell whether *host* can only be reached from this machine; no name but localhost is trusted to be."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _password(parts: SplitResult) -> str:
    """Take the password of a URL as redis-py does: the one before the host wins over ``?password=``."""
    if parts.password:
        return unquote(parts.password)
    return parse_qs(parts.query).get("password", [""])[0]


def _scrapy_cfg_origins(option: str, environ: Mapping[str, str], cwd: Path | None) -> list[Origin]:
    """Look *option* up in ``[vscrapy]`` of each scrapy.cfg, the closest first."""
    return [
        Origin(str(path), _read_ini(path).get("vscrapy", option, fallback=""))
        for path in _scrapy_cfgs(environ, Path.cwd() if cwd is None else cwd)
    ]


def _scrapy_cfgs(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """
    List the places where Scrapy looks for its configuration, the strongest first.

    Source: ``scrapy.utils.conf.get_sources``; not called, because importing it costs 0.2 s, and it knows no
    directory but the current one.
    """
    directory = cwd.resolve()
    closest = (place / "scrapy.cfg" for place in (directory, *directory.parents))
    config_home = environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return [
        *[path for path in closest if path.exists()][:1],
        Path("~/.scrapy.cfg").expanduser(),
        Path(config_home) / "scrapy.cfg",
        Path("/etc/scrapy.cfg"),
    ]


def _user_url(path: Path) -> str:
    """Take the URL of the user's default Redis, or build it from its parts; empty if there is none."""
    parser = _read_ini(path)
    values = dict(parser["redis"]) if parser.has_section("redis") else {}
    url, host = values.get("url", ""), values.get("host", "")
    if url and host:
        raise ConfigError(f"{path} has both url and host in [redis]; remove one.")
    if url or not host:
        return url
    return url_from_parts(host, values.get("port", ""), values.get("password", ""), values.get("db", ""))


def _read_ini(path: Path) -> configparser.ConfigParser:
    """Read one configuration file; one that does not exist is empty."""
    # A % in a URL is not an interpolation.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return parser
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); repair or remove it.") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        # Neither the parser's message nor a chained traceback: they quote the line, with the password in it.
        raise ConfigError(f"{path} is not an INI file ({type(error).__name__}); repair or remove it.") from None
    return parser


def _write_ini(path: Path, parser: configparser.ConfigParser) -> None:
    """Replace a configuration file, readable by its owner only."""
    text = io.StringIO()
    parser.write(text)
    try:
        write_private(path, text.getvalue())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}).") from error
