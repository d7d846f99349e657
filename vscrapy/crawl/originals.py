"""
Requests as they were made, kept beside their payloads: what is in their ``meta`` stays the very object.

Only where the task has one crawl process: of two requests that share an object, both are run there, and see what
the other has done to it, as with Scrapy's queues in memory. A process that takes the place of one that died has
only the payloads, as Scrapy has with a JOBDIR.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scrapy import Request

#: What nobody can change: a copy does as well.
_PLAIN: Final = (str, bytes, int, float, bool, type(None))


class Originals:
    """Requests that wait, of those whose ``meta`` or ``cb_kwargs`` hold more than plain values."""

    def __init__(self) -> None:
        self._kept: dict[bytes, list[Request]] = {}

    def keep(self, payload: bytes, request: Request) -> None:
        """Keep a request that is about to be committed."""
        if _has_objects(request.meta) or _has_objects(request.cb_kwargs):
            self._kept.setdefault(payload, []).append(request)

    def take(self, payload: bytes) -> Request | None:
        """The request that became this payload, if it was kept; each once."""
        requests = self._kept.get(payload)
        if requests is None:
            return None
        request = requests.pop(0)
        if not requests:
            del self._kept[payload]
        return request

    def forget(self, payload: bytes, request: Request) -> None:
        """The request was filtered."""
        requests = self._kept.get(payload, [])
        if request in requests:
            requests.remove(request)
            if not requests:
                del self._kept[payload]

    def __len__(self) -> int:
        return sum(len(requests) for requests in self._kept.values())


def _has_objects(values: Mapping[str, Any]) -> bool:
    return any(not isinstance(value, _PLAIN) for value in values.values())
