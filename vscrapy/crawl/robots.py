"""
One robots.txt of a site for the whole task: one crawl process fetches it, and the others wait for what it says.

Who needs it first claims it. Of such claims the first one stands (a fact of the kind ``first``), so each process
knows with the next reply whether the turn is its own. A claim does not bind for ever: its process may be dead, and
the pages of that site must not wait for that. So after a while the others claim it anew, in a second round.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from vscrapy.internals import call_later, hook_robots, know_robots

#: Largest robots.txt that is passed on (bytes); larger ones are fetched by each process.
ROBOTS_BYTES: Final = 512 * 1024
#: How long the others wait for what a site's robots.txt says, before the next round (seconds).
ROBOTS_MOST_S: Final = 10.0
#: What is passed on of a larger one. Not base64.
_TOO_LARGE: Final = "!"


class SharedRobots:
    """
    The robots.txt of each site, fetched once by all processes of the task.

    Args:
        middleware: The crawler's RobotsTxtMiddleware.
        name: What this process is called in claims.
        claim: Says, for a site and a round, that this process would fetch; ``learn_claim`` is called with who may.
        tell: Passes on what a site's robots.txt says; ``learn`` is called with it in the other processes.
    """

    def __init__(
        self, middleware: Any, name: str, *, claim: Callable[[str, int], None], tell: Callable[[str, str], None]
    ) -> None:
        self._middleware = middleware
        self._name = name
        self._claim = claim
        self._tell = tell
        #: Sites that this process may fetch from, whoever else does.
        self._own: set[str] = set()
        #: Site -> the last round in which another process has the turn; and in which this one has asked for it.
        self._rounds: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        #: Site -> requests that wait for what its robots.txt says, or for the turn to fetch it.
        self._waiting: defaultdict[str, list[Deferred[None]]] = defaultdict(list)
        #: Site -> what takes back the end of that wait.
        self._timers: dict[str, Callable[[], object]] = {}
        hook_robots(middleware, wait=self._wait, on_known=self._on_known)

    def learn_claim(self, site: str, number: int, name: str) -> None:
        """Take in which process fetches in this round."""
        if name == self._name:
            self._own.add(site)
            self._go_on(site)
        elif number > self._rounds.get(site, 0):
            self._rounds[site] = number
            if site in self._timers:
                self._timers.pop(site)()
                self._set_timer(site)

    def learn(self, site: str, value: str) -> None:
        """
        Take in what another process has found.

        Raises:
            ValueError: That is not what a process says.
        """
        if value == _TOO_LARGE:
            self._own.add(site)
        else:
            try:
                know_robots(self._middleware, site, base64.b64decode(value, validate=True) if value else None)
            except binascii.Error as error:
                raise ValueError(f"the robots.txt of {site} is not base64") from error
        self._go_on(site)

    def _wait(self, site: str) -> Deferred[None] | None:
        """Of a site whose robots.txt is not known here: what to wait for before it is fetched; None: for nothing."""
        if site in self._own:
            return None
        waits: Deferred[None] = Deferred()
        self._waiting[site].append(waits)
        if site not in self._timers:
            self._set_timer(site)
            if site not in self._rounds:
                self._ask(site, 1)
        return waits

    def _ask(self, site: str, number: int) -> None:
        self._asked[site] = number
        self._claim(site, number)

    def _set_timer(self, site: str) -> None:
        self._timers[site] = call_later(ROBOTS_MOST_S, partial(self._give_up, site))

    def _give_up(self, site: str) -> None:
        """Nothing was heard of the process whose turn it is, or of Redis."""
        del self._timers[site]
        number = self._rounds.get(site, 0)
        if self._asked.get(site, 0) > number:  # nobody has said whose turn it is
            self._own.add(site)
            self._go_on(site)
        else:
            self._set_timer(site)
            self._ask(site, number + 1)

    def _go_on(self, site: str) -> None:
        cancel = self._timers.pop(site, None)
        if cancel is not None:
            cancel()
        for waits in self._waiting.pop(site, ()):
            waits.callback(None)

    def _on_known(self, site: str, body: bytes | None) -> None:
        """This process has fetched it."""
        if body is not None and len(body) > ROBOTS_BYTES:
            self._tell(site, _TOO_LARGE)
        else:
            self._tell(site, base64.b64encode(body).decode() if body else "")
