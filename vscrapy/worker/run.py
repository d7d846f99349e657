"""Run an agent as this process: its reactor, its signals, its exit."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from vscrapy.worker.agent import Agent, AgentOptions

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from vscrapy.model import Endpoint

#: Signals that end a worker.
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)


def run(endpoint: Endpoint, options: AgentOptions) -> bool:
    """
    Run a worker until it ends; True when it ended because there was nothing to do.

    Raises:
        VscrapyError: It could not begin, or not go on.
    """
    from twisted.internet import reactor as installed

    reactor = cast("Any", installed)
    # What Twisted itself has to say (an error in a callback) belongs into the worker's log, too.
    is_loud: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    stderr: Any = textFileLogObserver(sys.stderr)
    observer: Any = FilteringLogObserver(stderr, [is_loud])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)

    agent = Agent(reactor, endpoint, options, say=say, ready=_announce)
    errors: list[BaseException] = []

    def end(outcome: Failure | None) -> None:
        if outcome is not None and outcome.value is not None:
            errors.append(outcome.value)
        reactor.stop()

    def begin() -> None:
        # After the reactor has set its own handlers, which would stop it at once.
        for number in _ENDING:
            signal.signal(number, lambda *_: reactor.callFromThread(agent.interrupt))
        agent.done.addBoth(end)
        agent.startService()

    reactor.callWhenRunning(begin)
    reactor.run()
    if errors:
        raise errors[0]
    return agent.is_idle_end


def say(words: str) -> None:
    """Print one line of the worker's own log."""
    _print(f"vscrapy worker: {words}", sys.stderr)


def _announce(words: str) -> None:
    _print(words, sys.stdout)


def _print(words: str, stream: Any) -> None:
    try:
        print(words, file=stream, flush=True)
    except OSError:
        return  # Nobody reads it any more, and that is no reason to end.
