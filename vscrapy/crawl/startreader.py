"""Reads a spider's ``start()`` on the one crawl process that does it for the task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from scrapy import Request
from scrapy.exceptions import CloseSpider
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred

from vscrapy.internals import ORIGIN

if TYPE_CHECKING:
    from vscrapy.crawl.origin import StartOutputs


class StartReader:
    """
    Skips what is committed, marks where each output comes from, and does not run ahead.

    Args:
        outputs: Takes the outputs, in their order.
        is_wanted: Is there room for more of them?
        is_closing: Does the spider close?
        on_failed: Called when ``start()`` has raised an exception that is the spider's own.
    """

    def __init__(
        self,
        outputs: StartOutputs,
        *,
        is_wanted: Callable[[], bool],
        is_closing: Callable[[], bool],
        on_failed: Callable[[], None],
    ) -> None:
        self._outputs = outputs
        self._is_wanted = is_wanted
        self._is_closing = is_closing
        self._on_failed = on_failed
        self._gate: Deferred[None] | None = None

    async def read(self, outputs: AsyncIterator[Any], skip: int) -> AsyncIterator[Any]:
        """Pass the outputs on, without the first ones."""
        try:
            await self._wait()
            async for output in outputs:
                if skip:
                    skip -= 1
                    continue
                origin = self._outputs.new()
                ORIGIN.set(origin)
                yield output
                ORIGIN.set(None)
                if isinstance(output, Request):
                    origin.is_finished = True
                    self._outputs.settle()
                await self._wait()
        except Exception as error:
            # The engine tells of it; what was read before counts, and more does not come. A process that leaves is
            # not at the end: without asyncio its cancelled wait is an ordinary exception, and another reads on.
            if not self._is_closing():
                if not isinstance(error, CloseSpider):
                    self._on_failed()
                self._outputs.exhausted()
            raise
        self._outputs.exhausted()

    def turn(self) -> None:
        """Let it be read on, if it waits and is wanted."""
        if self._gate is not None and self._is_wanted():
            gate, self._gate = self._gate, None
            gate.callback(None)

    async def _wait(self) -> None:
        """Wait until it is wanted."""
        if not self._is_wanted():
            self._gate = Deferred()
            await maybe_deferred_to_future(self._gate)
