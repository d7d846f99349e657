"""Why a task that has no crawl process gets none: which workers there are, and which it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vscrapy import __version__
from vscrapy.labels import OWN_NAME, Choice, labels_to_text
from vscrapy.model import PROTOCOL
from vscrapy.store.workers import WorkerRecord

#: Workers that a message names.
MOST_NAMED: Final = 6


def why_waiting(workers: Sequence[WorkerRecord], choice: Choice, *, has_begun: bool) -> str:
    """
    Say in one line what has to happen before the task gets a crawl process.

    Args:
        workers: All that are on the list.
        has_begun: It had one already: that all slots are taken is nothing to tell.

    Returns:
        '': it is a matter of time.
    """
    online = [worker for worker in workers if worker.is_alive and not worker.is_draining]
    fitting = [worker for worker in online if choice.takes(worker.name, worker.labels)]
    others = [worker for worker in fitting if worker.protocol != PROTOCOL]
    if not online:
        ending = sum(worker.is_alive for worker in workers)
        return (
            "no worker is online"
            + (f" that does not end ({ending} do)" if ending else "")
            + f"; start one on any machine with: vscrapy worker --redis URL{_label_options(choice)}"
        )
    if not fitting:
        return (
            f"no worker is online that it may run on ({choice}); online: {_named(online)}; "
            f"start one with: vscrapy worker --redis URL{_label_options(choice)}"
        )
    if len(others) == len(fitting):
        versions = ", ".join(sorted({worker.version or "not known" for worker in others}))
        return f"all workers have another version of vscrapy ({versions}, here {__version__}); install one version"
    if not has_begun:
        ours = [worker for worker in fitting if worker.protocol == PROTOCOL]
        slots = sum(worker.slots for worker in ours)
        return f"all {slots} slots of {len(ours)} workers are taken"
    return ""


def _named(workers: Sequence[WorkerRecord]) -> str:
    named = [f"{worker.name} ({labels_to_text(worker.labels) or 'no label'})" for worker in workers[:MOST_NAMED]]
    more = len(workers) - MOST_NAMED
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _label_options(choice: Choice) -> str:
    """The options of a worker that the task would take, as far as they follow from it."""
    words = ""
    for demand in choice.on:
        name, _, values = demand.partition("=")
        value = values.partition(",")[0]
        words += f" --name {value}" if name == OWN_NAME else f" --label {name}={value}"
    return words
