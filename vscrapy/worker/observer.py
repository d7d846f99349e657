"""The agent's looks at Redis: one round trip each, as long as nothing comes that was not there before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vscrapy.store.looks import Looks
from vscrapy.store.tasks import Tasks
from vscrapy.worker.watch import Look, with_counted_followers, with_watched_sender

if TYPE_CHECKING:
    from vscrapy.store.base import Store


class Observer:
    """Looks for one agent; must be used by one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._looks = Looks(store)
        self._tasks = Tasks(store)
        #: What the last look showed, which is what the next one asks for: live tasks; those whose senders are
        #: watched, and whose followers are counted.
        self._live: Sequence[int] = ()
        self._watched: Sequence[int] = ()
        self._counted: Sequence[int] = ()

    def look(self, here: frozenset[int]) -> Look:
        """
        Ask for all that a look shows.

        Args:
            here: Tasks whose crawl processes run here.

        Raises:
            StoreUnavailable, StoreRefused: Redis does not answer; nothing was seen.
        """
        asked = sorted({*self._live, *here})
        seen = self._looks.see(asked, self._watched, self._counted)
        wanted = sorted({*seen.live, *here})
        found = {**seen.records, **self._tasks.records([taskid for taskid in wanted if taskid not in asked])}
        records = {taskid: found[taskid] for taskid in wanted if taskid in found}
        watched = with_watched_sender(records.values(), here)
        counted = with_counted_followers(records.values(), here)
        audience = seen.audience
        if not (audience.senders.keys() >= set(watched) and audience.followers.keys() >= set(counted)):
            audience = self._looks.audience(watched, counted)
        self._live, self._watched, self._counted = seen.live, watched, counted
        return Look(
            audience.now_ms,
            seen.server_id,
            tuple(seen.live),
            records,
            {taskid: audience.senders[taskid] for taskid in watched},
            {taskid: audience.followers[taskid] for taskid in counted},
        )
