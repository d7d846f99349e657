"""The parity suite's option and its table at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parity.case import all_cases
from tests.parity.table import PROPERTY, Row, printed, update


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--parity-table FILE``: where the rows go."""
    parser.addoption("--parity-table", type=Path, help="document whose table gets the rows of the cases that ran")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it where it is wanted."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [
        Row.from_data(json.loads(value))
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if not rows:
        return
    order = [case.name for case in all_cases()]
    rows.sort(key=lambda row: order.index(row.case))
    terminalreporter.section("parity")
    for line in printed(rows):
        terminalreporter.write_line(line)
    document = config.getoption("parity_table", None)
    if document is not None:
        update(document, rows)
