"""
The JOBDIR of a crawl: it knows the task that the same command goes on with.

What Scrapy keeps in this directory (the queue, what was seen, the spider's state) is on Redis; here stands one file
that says which task has it. The token in it is the nonce of the task's job: another Redis's task 7 is not taken for
ours, and what the task has on Redis is signed with a key that is made of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vscrapy.errors import ConfigError

#: The file in it.
NAME: Final = "vscrapy.json"
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a job directory knows of its task."""

    taskid: int
    token: str


class JobDir:
    """One directory; it need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._file = self.path / NAME

    def read(self) -> Ticket | None:
        """
        Read which task the last crawl was; None: there was none, or it came to its end.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            found = json.loads(self._file.read_text())
            if not _TOKEN.fullmatch(str(found["token"])):
                raise ValueError("its token is none")
            return Ticket(int(found["taskid"]), str(found["token"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._file} cannot be read ({error}); remove it, and the crawl begins anew"
            ) from error

    def write(self, ticket: Ticket) -> None:
        """
        Keep which task this crawl is.

        Raises:
            ConfigError: The directory cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_suffix(".new")
            beside.write_text(json.dumps({"taskid": ticket.taskid, "token": ticket.token}) + "\n")
            beside.replace(self._file)
        except OSError as error:
            raise ConfigError(f"JOBDIR {self.path} cannot be written to: {error}") from error

    def forget(self) -> None:
        """The crawl came to its end; the next one begins anew."""
        self._file.unlink(missing_ok=True)
