"""
A network between a client and its Redis that can fall silent, break, refuse, and be slow.

It listens on loopback or on a unix socket, and passes bytes on to a TCP or a unix socket; all in one thread of its
own. A silent network keeps the bytes, as TCP would send them again: they arrive when it passes on again.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlsplit

from vscrapy.model import Endpoint

#: Time for an order to be carried out (seconds).
ORDER_S: Final = 10.0
#: What may be on its way in a direction, in chunks of 64 KiB at most.
_CHUNKS: Final = 256
#: SO_LINGER: close with a reset, at once.
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Proxy:
    """
    One way to a Redis; to be used in a ``with`` statement.

    Args:
        target: Where the Redis is.
        path: The unix socket to listen on; None: a free TCP port.
    """

    def __init__(self, target: Endpoint, path: Path | None = None) -> None:
        self._target = urlsplit(target.url)
        self._path = path
        self._port = 0
        self._delay_s = 0.0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._is_passing = asyncio.Event()
        self._is_passing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._order(self._refuse(is_reset=True))
        self._order(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ORDER_S)
        self._loop.close()

    @property
    def url(self) -> str:
        """What a client gives as ``--redis``."""
        password = self._target.password or ""
        if self._path is not None:
            return f"unix://:{password}@{quote(str(self._path))}?db=0"
        return f"redis://:{password}@127.0.0.1:{self._port}/0"

    @property
    def n_connections(self) -> int:
        """Clients that are connected now."""
        return len(self._writers) // 2

    def fall_silent(self) -> None:
        """Let nothing through, in either direction; nobody is told. New connections come about, and are silent."""
        self._loop.call_soon_threadsafe(self._is_passing.clear)

    def pass_on(self) -> None:
        """Let everything through again, also what was held."""
        self._loop.call_soon_threadsafe(self._is_passing.set)

    def delay(self, seconds: float) -> None:
        """Let all bytes from now on arrive so much later, in each direction."""
        self._delay_s = seconds

    def reset(self) -> None:
        """Break all connections with a reset; new ones come about."""
        self._order(self._break_all(is_reset=True))

    def refuse(self) -> None:
        """Close all connections, and refuse new ones."""
        self._order(self._refuse(is_reset=False))

    def accept(self) -> None:
        """Take connections, at the same address as before."""
        self._order(self._accept())

    def _order(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(ORDER_S)

    # In the thread.

    async def _accept(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._connected, self._path)
            return
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self, *, is_reset: bool) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._break_all(is_reset=is_reset)

    async def _break_all(self, *, is_reset: bool) -> None:
        for writer in list(self._writers):
            if is_reset and self._path is None:
                made: socket.socket = writer.get_extra_info("socket")
                if made.fileno() >= 0:  # else it has closed by itself
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()
        self._writers.clear()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there_reader, there_writer = await self._reach()
        both = {writer, there_writer}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        except asyncio.CancelledError:
            pass  # The proxy ends; asyncio's streams would print it as an error.
        finally:
            self._writers -= both
            for end in both:
                end.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(self._target.path))
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS)
        fetching = asyncio.ensure_future(self._fetch(reader, on_the_way))
        try:
            while True:
                due_s, data = await on_the_way.get()
                await asyncio.sleep(due_s - self._loop.time())
                await self._is_passing.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # One end is gone: so is the other, below.
        finally:
            fetching.cancel()
            writer.close()

    async def _fetch(self, reader: asyncio.StreamReader, on_the_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Put what comes on its way, until the end, which is empty: latency holds nothing up that comes after."""
        data = b"-"
        while data:
            try:
                data = await reader.read(65536)
            except OSError:
                data = b""
            await on_the_way.put((self._loop.time() + self._delay_s, data))
