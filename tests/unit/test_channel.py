"""The crawl process's end of its channel: what it says, and what it hears."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator

import pytest

from vscrapy.crawl.log import Channel, ChannelHandler


class Ends:
    """A channel, and the agent's end of it."""

    def __init__(self) -> None:
        self.agent, child = socket.socketpair()
        self.channel = Channel(child.detach())

    def said(self) -> list[str]:
        """The texts that have come to the agent."""
        self.agent.setblocking(False)
        return [json.loads(line)["x"] for line in self.agent.recv(65536).splitlines()]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of a channel."""
    made = Ends()
    yield made
    made.agent.close()


def test_words_that_come_together_are_all_heard(ends: Ends) -> None:
    """One does not hide the other."""
    words = [{"do": "leave"}, {"do": "valve", "level": 30}]
    ends.agent.sendall(b"".join(json.dumps(word).encode() + b"\n" for word in words))
    assert ends.channel.listen() == words


def test_channel_whose_agent_is_gone_gives_no_words(ends: Ends) -> None:
    """So its process knows that it has to end."""
    ends.agent.shutdown(socket.SHUT_RDWR)
    assert ends.channel.listen() == []


def test_records_that_nobody_wants_are_not_sent(ends: Ends) -> None:
    """Neither formatted nor sent; what is wanted comes as before."""
    handler = ChannelHandler(ends.channel)
    ends.channel.least = logging.WARNING
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        handler.handle(logging.LogRecord("x", level, "", 0, str(level), None, None))
    ends.channel.least = logging.NOTSET
    handler.handle(logging.LogRecord("x", logging.DEBUG, "", 0, "again", None, None))
    assert ends.said() == ["30", "40", "again"]
