"""One fault: what it does to a stage, how long that lasts, and how it is undone."""

from __future__ import annotations

import random
from typing import ClassVar

from tests.chaos.stage import Stage, Worker


class Fault:
    """
    Something that breaks, and is mended again.

    Args:
        chance: Decides all that is random in it.
    """

    name: ClassVar[str]
    #: Needs ways to the server that can break; a worker with a small disk; workers whose clocks are wrong.
    needs_proxies: ClassVar[bool] = False
    needs_small_disk: ClassVar[bool] = False
    needs_clocks: ClassVar[bool] = False
    #: Needs a sender that stays.
    needs_sender: ClassVar[bool] = False

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.stage = stage
        self.chance = chance

    def strike(self) -> bool:
        """Inject it, hold it, heal it; False: there was nothing that it could have been done to."""
        words = self.inject()
        if words is None:
            return False
        self.stage.tell(f"{self.name}: {words}")
        try:
            self.hold()
        finally:
            self.heal()
            self.stage.tell(f"{self.name}: over")
        return True

    def inject(self) -> str | None:
        """Do it, and say to whom; None: to nobody."""
        raise NotImplementedError

    def hold(self) -> None:
        """Let it last."""

    def heal(self) -> None:
        """Undo it."""


class WorkerFault(Fault):
    """One that is done to one worker, which no other fault touches meanwhile."""

    worker: Worker

    def inject(self) -> str | None:
        """Choose a worker, and do it."""
        with self.stage.choosing:
            found = [worker for worker in self.stage.live_workers() if self.is_suitable(worker)]
            if not found or (self.leaves_gap() and len(self.stage.live_workers()) < 2):
                return None
            self.worker = self.chance.choice(found)
            self.worker.is_busy = True
        words = self.do()
        if words is None:
            self.worker.is_busy = False
            return None
        return f"{self.worker.name}: {words}"

    def is_suitable(self, worker: Worker) -> bool:
        """Can it be done to this one?"""
        return True

    def leaves_gap(self) -> bool:
        """Is it to be done only while another worker is there?"""
        return False

    def do(self) -> str | None:
        """Do it to ``self.worker``; say what."""
        raise NotImplementedError

    def heal(self) -> None:
        """Undo it."""
        self.undo()
        self.worker.is_busy = False

    def undo(self) -> None:
        """Undo it, as far as there is something to undo."""


class ServerFault(Fault):
    """One that is done to the server, one at a time."""

    def inject(self) -> str | None:
        """Take the server in hand, and do it."""
        self.stage.server_in_hand.acquire()
        if self.stage.is_over:
            self.stage.server_in_hand.release()
            return None
        return self.do()

    def do(self) -> str:
        """Do it; say what."""
        raise NotImplementedError

    def heal(self) -> None:
        """Undo it."""
        try:
            self.undo()
        finally:
            self.stage.server_in_hand.release()

    def undo(self) -> None:
        """Undo it."""
