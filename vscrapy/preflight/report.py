"""How findings look: a line each when a crawl starts, all that is known with ``--check``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vscrapy.preflight.finding import Finding, Severity

#: Findings that are named when a crawl starts.
MOST_AT_START: Final = 5


def start_lines(findings: Sequence[Finding], command: str) -> Iterator[str]:
    """
    Yield what is said when a crawl starts.

    Args:
        command: What shows all of it.
    """
    for finding in findings[:MOST_AT_START]:
        yield f"check: {finding.where}: {finding.what} [{finding.code}]: {finding.why}. To do: {finding.do}"
    if len(findings) > MOST_AT_START:
        yield f"check: and {len(findings) - MOST_AT_START} more; {command} shows all"


def all_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what ``--check`` says."""
    for finding in findings:
        refused = "refused: " if finding.severity is Severity.REFUSED else ""
        yield f"{finding.where}: {finding.code}: {refused}{finding.what}"
        yield f"    why: {finding.why}"
        yield f"    do:  {finding.do}"
