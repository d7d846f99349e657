"""``vscrapy config``: show which Redis would be used and why, or set the user's default."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from vscrapy import config
from vscrapy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class _Shown:
    """What ``vscrapy config`` shows; no field holds a password."""

    #: None for the embedded server.
    redis: str | None
    source: str
    #: Pairs of source and URL that would have won otherwise.
    overridden: tuple[tuple[str, str], ...]
    #: Where the secret comes from; None if there is none.
    secret_source: str | None
    home: str


def run(argv: list[str]) -> int:
    """
    Show the effective configuration, or change the user's default and say so in one line.

    Raises:
        ConfigError: A value cannot be used, or a file cannot be read or written.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    parts = (options.host, options.port, options.password, options.db)
    is_set = options.redis is not None or options.secret is not None or any(part is not None for part in parts)
    if options.redis is not None and any(part is not None for part in parts):
        parser.error("give --redis, or --host with --port, --password and --db, not both")
    if options.unset and is_set:
        parser.error("--unset goes alone")

    sentence = None
    if options.unset:
        sentence = _unset()
    elif is_set:
        sentence = _set(options)
    if options.json:
        print(json.dumps(_as_json(_look())))
    else:
        print(_as_text(_look()) if sentence is None else sentence)
    return 0


def _parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="vscrapy config",
        description="Show which Redis is used and why, or set your default.",
        allow_abbrev=False,
    )
    parser.add_argument("--redis", metavar="URL", help="set the default: redis://, rediss:// or unix:// URL")
    parser.add_argument("-ho", "--host", metavar="HOST", help="set the default by its parts")
    parser.add_argument("-po", "--port", metavar="PORT", help=f"default: {config.DEFAULT_PORT}")
    parser.add_argument("-pa", "--password", metavar="PASSWORD", help="default: none")
    parser.add_argument("-db", "--db", metavar="N", help="default: 0")
    parser.add_argument("--secret", metavar="SECRET", help="set the cluster's secret; '' removes it")
    parser.add_argument("--unset", action="store_true", help="remove your default and your secret")
    parser.add_argument("--json", action="store_true", help="show the configuration (afterwards) as JSON")
    return parser


def _set(options: argparse.Namespace) -> str:
    """Write what the options say, and tell it in one line."""
    url = _url(options)
    path = config.write_user_config(url=url, secret=options.secret)
    done = []
    if url is not None:
        done.append(f"your default Redis is now {config.redact(url)}")
    if options.secret is not None:
        done.append("the secret is set" if options.secret else "the secret is removed")
    origins = config.redis_origins()
    is_overridden = url is not None and origins[0].source != str(path)
    note = f"; here, {origins[0].source} overrides it" if is_overridden else ""
    sentence = " and ".join(done)
    return f"{sentence[0].upper()}{sentence[1:]} ({path}){note}."


def _url(options: argparse.Namespace) -> str | None:
    """Take the URL as given, or build it from its parts; None if only the secret is set."""
    if options.redis is not None:
        url = str(options.redis).strip()
        config.check(url, "--redis")
        return url
    parts = (options.host, options.port, options.password, options.db)
    if all(part is None for part in parts):
        return None
    # Each call replaces the whole default: half of an old one and half of a new one is nobody's Redis.
    if not options.host:
        raise ConfigError("A port, password or database needs its host: give --host HOST too.")
    host, port, password, db = (part or "" for part in parts)
    url = config.url_from_parts(host, port, password, db)
    config.check(url, "--host, --port, --password and --db")
    return url


def _unset() -> str:
    """Remove the user's default, and tell it in one line."""
    if config.unset_user_config():
        return "Your default Redis and your secret are removed."
    return "There is no default Redis and no secret to remove."


def _look() -> _Shown:
    """Collect what is shown."""
    endpoint = config.resolve()
    origins = config.redis_origins()
    secrets = config.secret_origins(endpoint.url) if endpoint else ()
    embedded_secret = None if endpoint else "the embedded server's password"
    return _Shown(
        redis=config.redact(endpoint.url) if endpoint else None,
        source=endpoint.source if endpoint else "nothing is configured",
        overridden=tuple((origin.source, config.redact(origin.value)) for origin in origins[1:]),
        secret_source=secrets[0].source if secrets else embedded_secret,
        home=str(config.home()),
    )


def _as_json(shown: _Shown) -> dict[str, object]:
    """Make the form for programs; its keys are documented in the README."""
    return {
        "redis": shown.redis,
        "source": shown.source,
        "overridden": [{"source": source, "redis": url} for source, url in shown.overridden],
        "secret_source": shown.secret_source,
        "home": shown.home,
    }


def _as_text(shown: _Shown) -> str:
    """Make the form for people."""
    rows = [("redis", f"{shown.redis or 'the embedded server'} (from: {shown.source})")]
    rows += [("overridden", f"{url} (from: {source})") for source, url in shown.overridden]
    rows += [("secret", f"set (from: {shown.secret_source})" if shown.secret_source else "not set")]
    rows += [("home", shown.home)]
    return "\n".join(f"{name:<10}  {value}" for name, value in rows)
