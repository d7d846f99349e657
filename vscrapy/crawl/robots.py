"""
One robots.txt of a site for the whole task: one crawl process fetches it, and the others wait for what it says.

Who needs it first claims it. Of such claims the first one stands (a fact of the kind ``first``), so each process
knows with the next reply whether the turn is its own. A claim does not bind for ever: its process may be dead, and
the pages of that site must not wait for that.
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
#: How long the others wait for what a site's robots.txt says, before they fetch it themselves (seconds).
ROBOTS_MOST_S: Final = 10.0
#: What is passed on of a larger one. Not base64.
_TOO_LARGE: Final = "!"


class SharedRobots:
    """
    The robots.txt of each site, fetched once by all processes of the task.

    Args:
        middleware: The crawler's RobotsTxtMiddleware.
        name: What this process is called in claims.
        claim: Says, for a site, that this process would fetch; ``learn_claim`` is called with who may.
        tell: Passes on what a site's robots.txt says; ``learn`` is called with it in the other processes.
    """

    def __init__(
        self, middleware: Any, name: str, *, claim: Callable[[str], None], tell: Callable[[str, str], None]
    ) -> None:
        self._middleware = middleware
        self._name = name
        self._claim = claim
        self._tell = tell
        #: Site -> which process fetches it; '': this one may, whoever else does.
        self._fetchers: dict[str, str] = {}
        #: Site -> requests that wait for what its robots.txt says, or for the turn to fetch it.
        self._waiting: defaultdict[str, list[Deferred[None]]] = defaultdict(list)
        #: Site -> what takes back the end of that wait.
        self._timers: dict[str, Callable[[], object]] = {}
        hook_robots(middleware, wait=self._wait, on_known=self._on_known)

    def learn_claim(self, site: str, name: str) -> None:
        """Take in which process fetches."""
        if self._fetchers.setdefault(site, name) == self._name:
            self._go_on(site)

    def learn(self, site: str, value: str) -> None:
        """
        Take in what another process has found.

        Raises:
            ValueError: That is not what a process says.
        """
        if value == _TOO_LARGE:
            self._fetchers[site] = ""
        else:
            try:
                know_robots(self._middleware, site, base64.b64decode(value, validate=True) if value else None)
            except binascii.Error as error:
                raise ValueError(f"the robots.txt of {site} is not base64") from error
        self._go_on(site)

    def _wait(self, site: str) -> Deferred[None] | None:
        """Of a site whose robots.txt is not known here: what to wait for before it is fetched; None: for nothing."""
        if self._fetchers.get(site) in ("", self._name):
            return None
        waits: Deferred[None] = Deferred()
        self._waiting[site].append(waits)
        if site not in self._timers:
            self._timers[site] = call_later(ROBOTS_MOST_S, partial(self._give_up, site))
            if site not in self._fetchers:
                self._claim(site)
        return waits

    def _give_up(self, site: str) -> None:
        """Nothing was heard, of Redis or of the one whose turn it was."""
        del self._timers[site]
        self._fetchers[site] = ""
        self._go_on(site)

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
