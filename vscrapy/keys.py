"""
Every key and channel on Redis: its name, type, owner and life.

The keys of one task share a hash tag (``{vs:7}``), so each script touches one slot of a cluster. Keys of the
whole cluster share ``{vs}``. "Live" means: owned by the task as long as its id stands in ``TASKS``; when it
ends, its work keys are deleted by the same script, and the rest gets ``FINISHED_TTL_S``.
"""

from __future__ import annotations

from typing import Final

#: STRING, counter of taskids. Lives as long as the cluster.
TASKID: Final = "{vs}:taskid"
#: ZSET taskid -> submitted (ms). The registry of live tasks, and their keys' owner.
TASKS: Final = "{vs}:tasks"
#: ZSET taskid -> suspended (ms). The registry of suspended tasks, and their keys' owner; one that nobody goes on with
#: ends after ``SUSPENDED_TTL_S``.
SUSPENDED: Final = "{vs}:suspended"
#: ZSET taskid -> ended (ms). Entries are removed after ``FINISHED_TTL_S``.
FINISHED: Final = "{vs}:finished"
#: ZSET worker name -> deadline (ms, Redis time). The registry of workers, and their keys' owner.
WORKERS: Final = "{vs}:workers"
#: HASH ``last_ms`` (any worker's last heartbeat), ``grace_until_ms`` (nobody is reaped before). Lives as
#: long as the cluster.
PULSE: Final = "{vs}:pulse"
#: Channel: a task was submitted, turned in some way, or is followed; agents look at once instead of at their next
#: tick.
WAKE: Final = "{vs}:wake"

#: Life of what is kept of a finished task (seconds).
FINISHED_TTL_S: Final = 7 * 24 * 3600
#: A suspended task waits so long for the command that goes on with it (seconds).
SUSPENDED_TTL_S: Final = 30 * 24 * 3600
#: Life of a blob since it was last submitted or used (seconds).
BLOB_TTL_S: Final = 7 * 24 * 3600
#: Life of a worker's record after its last heartbeat (seconds).
WORKER_TTL_S: Final = 24 * 3600
#: Life of what workers say of a task that they cannot serve, after the last one said it (seconds).
REFUSAL_TTL_S: Final = 60


def trial(number: str) -> str:
    """STRING, and a channel: what ``vscrapy doctor`` tries a user's rights on. Life: ten seconds."""
    return f"{{vs}}:trial:{number}"


def worker(name: str) -> str:
    """HASH, what a worker says of itself. Life: ``WORKER_TTL_S`` after its last heartbeat."""
    return f"{{vs}}:worker:{name}"


def worker_processes(name: str) -> str:
    """SET of ``taskid:process``, the crawl processes that a worker runs. Life as :func:`worker`."""
    return f"{{vs}}:worker:{name}:processes"


def blob(sha256: str) -> str:
    """STRING, one file of a bundle, zlib-compressed. Life: ``BLOB_TTL_S``, renewed by submit and by use."""
    return f"{{vs}}:blob:{sha256}"


def prefix(taskid: int) -> str:
    """What all keys of a task begin with; scripts make the names of frontier keys from it."""
    return f"{{vs:{taskid}}}:"


def task(taskid: int) -> str:
    """HASH, the task's record: state, reason, counters. Live, then ``FINISHED_TTL_S``."""
    return prefix(taskid) + "task"


def job(taskid: int) -> str:
    """STRING, what to run: signed. Live, then ``FINISHED_TTL_S``."""
    return prefix(taskid) + "job"


def processes(taskid: int) -> str:
    """HASH crawl process -> JSON (worker, number, ...). Live."""
    return prefix(taskid) + "processes"


def leases(taskid: int, process: str) -> str:
    """HASH lease id -> slot LF queue LF payload. Live; emptied when the process leaves."""
    return f"{prefix(taskid)}leases:{process}"


def stats(taskid: int) -> str:
    """HASH Scrapy stat -> number, without what is in :func:`commits`. Live, then ``FINISHED_TTL_S``."""
    return prefix(taskid) + "stats"


def commits(taskid: int) -> str:
    """
    HASH crawl process -> its last commit: number and more, and what it has counted and is not in :func:`stats` and
    :func:`counts` yet (``_commits.lua``). Live.
    """
    return prefix(taskid) + "commits"


def stat_values(taskid: int) -> str:
    """HASH crawl process -> JSON of the stats that were set, not counted. As :func:`stats`."""
    return prefix(taskid) + "stat_values"


def final_stats(taskid: int) -> str:
    """STRING, JSON of the stats that home has dumped. Life: ``FINISHED_TTL_S``."""
    return prefix(taskid) + "final_stats"


def counts(taskid: int) -> str:
    """HASH "what worker" -> number: requests done, errors logged and items, by worker. As :func:`stats`."""
    return prefix(taskid) + "counts"


def failures(taskid: int) -> str:
    """STREAM of requests that failed for good: signed, and slot, queue and payload. As :func:`stats`."""
    return prefix(taskid) + "failures"


def limits(taskid: int) -> str:
    """HASH downloader slot -> "most:delay_ms", of slots with limits of their own. Live."""
    return prefix(taskid) + "limits"


def refusals(taskid: int) -> str:
    """HASH worker -> when it last said that it cannot serve the task (ms). Life: ``REFUSAL_TTL_S`` after the last."""
    return prefix(taskid) + "refusals"


def starved(taskid: int) -> str:
    """SET of crawl processes that find nothing to lease although requests wait. Live."""
    return prefix(taskid) + "starved"


def locals_(taskid: int) -> str:
    """HASH claim -> process: requests that cannot be serialised and stay on a process. Live."""
    return prefix(taskid) + "locals"


def facts(taskid: int) -> str:
    """
    HASH id -> value: cookies, robots.txt and the like, known to all crawl processes of the task. Live.

    Of an id that begins with ``first:``, the first value stands: who met a domain, who fetches a robots.txt.
    """
    return prefix(taskid) + "facts"


def fact_versions(taskid: int) -> str:
    """ZSET fact id -> version, for the process that asks what is new. Live."""
    return prefix(taskid) + "fact_versions"


def log(taskid: int) -> str:
    """STREAM of log lines, capped by lines, and the end record. Live, then ``FINISHED_TTL_S``."""
    return prefix(taskid) + "log"


def items(taskid: int) -> str:
    """STREAM of batches of items, signed. Live, then ``FINISHED_TTL_S``; home trims what it has taken."""
    return prefix(taskid) + "items"


def files(taskid: int) -> str:
    """STREAM of files that crawl processes have written, signed. Live, then ``FINISHED_TTL_S``; home takes them."""
    return prefix(taskid) + "files"


def sender(taskid: int) -> str:
    """Channel that the attached sender is subscribed to: its subscriber count is the sign of life."""
    return prefix(taskid) + "sender"


def followers(taskid: int) -> str:
    """Channel that ``vscrapy -c`` is subscribed to: agents count who follows the task."""
    return prefix(taskid) + "followers"


# Made inside the scripts, from prefix(taskid), all live and deleted when the task ends:
#   <prefix>ready             ZSET downloader slot -> its leased requests; slots with waiting requests only
#   <prefix>active            HASH downloader slot -> its leased requests
#   <prefix>queues:SLOT       ZSET queue name -> -priority; queue name: priority, and "s" for start requests
#   <prefix>queue:SLOT:QUEUE  LIST of payloads; pushed right, popped right (LIFO) or left (FIFO)
#   <prefix>slots             SET of all downloader slots that ever had a queue or a need, for the deletion
#   <prefix>holders:SLOT      HASH process -> its share of the slot's concurrency, and since when it has one (ms)
#   <prefix>held:SLOT         HASH process -> its leases of the slot
#   <prefix>needs:PROCESS     HASH slot -> the process's downloads there, perhaps without a lease; emptied when the
#                             process leaves; PROCESS may be "home"
#   <prefix>waiters:SLOT      HASH process -> since when it waits for a share, and when it last asked (ms)
#   <prefix>contended         SET of slots with waiters
#   <prefix>released          HASH slot with a delay -> when its last holder left it (ms), and who that was
#   <prefix>closing           HASH name -> number: what the task counts, not as a stat (for CLOSESPIDER_*)
#   <prefix>suspects          LIST of "SLOT LF QUEUE LF payload": in hand when their process died; they run alone
#   <prefix>deaths            HASH SHA-1 of such a payload -> how many processes have died with it in hand
#   <prefix>first             SET of the fingerprints seen, while they are few: place, and 64 bits
#   <prefix>seen:PLACE        SET of integers: 64 bits of each fingerprint seen, once they are many; PLACE: 000 to fff
#   <prefix>wide:PLACE        SET of integers: the same, of those that came when the first sets were nearly full;
#                             PLACE: 0000 to ffff
