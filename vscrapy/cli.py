"""The command line: our own commands, else Scrapy's, with ``crawl`` and ``runspider`` replaced."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

from vscrapy.config import redact
from vscrapy.errors import VscrapyError

if TYPE_CHECKING:
    from vscrapy.sender.headstart import HeadStart

#: Command -> module in ``vscrapy.commands`` with ``run(argv) -> exit code``.
COMMANDS: Final = {
    "worker": "worker",
    "config": "config",
    "doctor": "doctor",
    "drain": "drain",
    "shutdown": "shutdown",
    "stop": "stop",
    "pause": "pause",
    "resume": "resume",
    "valve": "valve",
    "items": "items",
    "stats": "stats",
    "errors": "errors",
    "retry": "retry",
    "clean": "clean",
    "-l": "tasks",
    "--list": "tasks",
    "-c": "connect",
    "--connect": "connect",
}


#: Options that are followed by a secret.
_SECRET_OPTIONS: Final = frozenset({"-pa", "--password", "--secret"})


def main(argv: list[str] | None = None) -> int:
    """
    Run one command.

    Args:
        argv: What follows the program's name.

    Returns:
        The exit code; see the README.
    """
    args = sys.argv[1:] if argv is None else argv
    if argv is None:
        _hide_secrets(args)
    try:
        if args and args[0] in COMMANDS:
            run: Callable[[list[str]], int] = import_module(f"vscrapy.commands.{COMMANDS[args[0]]}").run
            code = run(args[1:])
            sys.stdout.flush()
            return code
        return _scrapy(args)
    except VscrapyError as error:
        print(f"vscrapy: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # as in "vscrapy stats 7 | head": whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _hide_secrets(args: list[str]) -> None:
    """Take passwords and the secret out of what a process list shows of this process, from now on."""
    visible = list(visible_args(args))
    if visible != args:
        from setproctitle import setproctitle

        setproctitle(" ".join(["vscrapy", *visible]))


def visible_args(args: list[str]) -> Iterator[str]:
    """The arguments as others may see them."""
    before = ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if before in _SECRET_OPTIONS:
            yield "***"
        elif name in _SECRET_OPTIONS and equals:
            yield f"{name}=***"
        elif arg.startswith("-pa") and before != "--":
            yield arg if arg == "-pa" else "-pa***"
        elif before == "--redis":
            yield redact(arg)
        elif name == "--redis" and equals:
            yield f"--redis={redact(value)}"
        else:
            yield arg
        before = arg


def _scrapy(args: list[str]) -> int:
    """Hand the command line to Scrapy."""
    names = [arg for arg in args if not arg.startswith("-")]
    if names[:1] in (["crawl"], ["runspider"]):
        from vscrapy.sender.headstart import HeadStart

        head_start = HeadStart(args)
        head_start.begin()
        try:
            _crawl(args, head_start)
        finally:
            head_start.withdraw()
    from vscrapy import internals

    if not args or args[0] in ("-h", "--help"):
        print(_OWN_HELP)
    internals.execute(["scrapy", *args], lambda commands: None, is_ours=False)
    return 0


def _crawl(args: list[str], head_start: HeadStart) -> NoReturn:
    """Hand it to Scrapy's own commands, with the crawl on the workers."""
    from vscrapy.sender.garbage import Garbage

    garbage = Garbage()
    garbage.hold()
    from vscrapy import internals
    from vscrapy.commands.crawl import replace
    from vscrapy.sender import warned

    warned.note()
    internals.execute(["scrapy", *args], partial(replace, head_start=head_start, garbage=garbage), is_ours=True)


_OWN_HELP: Final = """\
vscrapy: scrapy, with crawl and runspider on the workers

  vscrapy crawl SPIDER          as scrapy crawl, on every worker (--detach, --workers N, --redis URL)
  vscrapy -l                    workers and tasks (--json)
  vscrapy -c 7,8                follow the logs of tasks 7 and 8 (also: -c --connect 7,8)
  vscrapy stop 7                end task 7
  vscrapy pause 7               hold task 7 still; vscrapy resume 7 lets it go on
  vscrapy valve 7 --level INFO  keep what is INFO or worse of its log (also: off, auto)
  vscrapy items 7 -o FILE       fetch the items of task 7
  vscrapy stats 7               its stats, and what each worker has done (--json)
  vscrapy errors 7              its requests that failed for good (--json, --lines)
  vscrapy retry 7               put these back (--only 3,5)
  vscrapy clean                 remove tasks that have ended (clean 7: this one)
  vscrapy worker --redis URL    be a worker (--label region=eu, for crawl --on region=eu)
  vscrapy drain WORKER          let a worker finish and end
  vscrapy config                which Redis is used, and why
  vscrapy doctor                is all as it must be, and what to do if not
  vscrapy shutdown              end the embedded server and its local worker

Everything else is Scrapy's:
"""
