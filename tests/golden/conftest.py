"""The table of what the golden vectors measured, at the end of the report."""

from __future__ import annotations

import pytest

from .checks import HEAD, REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a case: how many codes were equal, how many excused, the largest errors."""
    if not REPORT:
        return
    rows = [HEAD, *REPORT]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    terminalreporter.section("golden vectors")
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        terminalreporter.line("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
