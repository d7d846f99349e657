"""What ``submit.lua`` gets, for who has redis-py and for who has not imported it yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vscrapy import __version__, keys
from vscrapy.labels import ANY, Choice
from vscrapy.model import PROTOCOL

if TYPE_CHECKING:
    from vscrapy.store.frontier import NewRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task is to be run, each time that it is submitted or goes on."""

    #: Crawl processes at most; 0: as many as fit.
    max_processes: int = 0
    #: Silence after which the sender counts as lost; 0 for a detached task.
    sender_timeout_ms: int = 0
    #: Log lines kept.
    log_keep: int
    #: Bytes of items that may wait to be fetched; 0: any number.
    items_limit: int = 0
    #: Which workers it takes.
    choice: Choice = ANY

    def fields(self) -> list[Any]:
        """As fields of the task's record, but for the timeout: the scripts put it there."""
        return [
            *("max_processes", self.max_processes, "protocol", PROTOCOL, "version", __version__),
            *("log_keep", self.log_keep, "items_limit", self.items_limit),
            *("on", " ".join(self.choice.on), "exclude", " ".join(self.choice.exclude)),
        ]

    def to_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "choice": {"on": list(self.choice.on), "exclude": list(self.choice.exclude)}}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> TaskOptions:
        """
        Read what :meth:`to_data` gave.

        Raises:
            LookupError, TypeError: Not such an object.
        """
        choice = Choice(*(tuple(data["choice"][name]) for name in ("on", "exclude")))
        return cls(**{**data, "choice": choice})


def submission(
    taskid: int,
    job: bytes,
    *,
    spider: str,
    options: TaskOptions,
    has_feeds: bool = False,
    job_dir: str = "",
    requests: Sequence[NewRequest] = (),
    is_provisional: bool = False,
) -> tuple[list[str], list[Any]]:
    """
    Make the keys and the arguments of ``submit.lua``; see :meth:`vscrapy.store.tasks.Tasks.submit`.

    Args:
        is_provisional: No spider of it opens before ``confirm.lua``.
    """
    return [keys.task(taskid), keys.job(taskid)], [
        job,
        options.sender_timeout_ms,
        keys.prefix(taskid),
        len(requests),
        *(part for new in requests for part in (new.slot, new.queue, new.payload)),
        *("spider", spider, *options.fields(), "feeds", "wanted" if has_feeds else "", "job_dir", job_dir),
        *(("provisional", 1) if is_provisional else ()),
    ]
