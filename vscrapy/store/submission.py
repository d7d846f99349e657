"""What ``submit.lua`` gets, for who has redis-py and for who has not imported it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vscrapy import __version__, keys
from vscrapy.labels import ANY, Choice
from vscrapy.model import PROTOCOL

if TYPE_CHECKING:
    from vscrapy.store.frontier import NewRequest


def choice_fields(choice: Choice) -> tuple[str, str, str, str]:
    """Which workers a task takes, as fields of its record."""
    return "on", " ".join(choice.on), "exclude", " ".join(choice.exclude)


def submission(
    taskid: int,
    job: bytes,
    *,
    spider: str,
    max_processes: int,
    sender_timeout_ms: int,
    log_keep: int,
    items_limit: int = 0,
    has_feeds: bool = False,
    job_dir: str = "",
    choice: Choice = ANY,
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
        sender_timeout_ms,
        keys.prefix(taskid),
        len(requests),
        *(part for new in requests for part in (new.slot, new.queue, new.payload)),
        *("spider", spider, "max_processes", max_processes),
        *("protocol", PROTOCOL, "version", __version__, "log_keep", log_keep, "items_limit", items_limit),
        *("feeds", "wanted" if has_feeds else "", "job_dir", job_dir, *choice_fields(choice)),
        *(("provisional", 1) if is_provisional else ()),
    ]
