"""What the commands print: lines, JSON, tables of facts, and a progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)


def say(line: str, style: str = "") -> None:
    """One line on standard output, as it is: no markup, no wrapping."""
    OUT.print(Text(line, style=style), soft_wrap=True)


def warn(line: str) -> None:
    """One line on standard error."""
    ERR.print(Text(line), soft_wrap=True)


def say_json(data: Any) -> None:
    """The machine's view: one JSON document on standard output."""
    OUT.file.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def say_facts(facts: Mapping[str, str]) -> None:
    """Names and values in two columns."""
    width = max(map(len, facts))
    for name, value in facts.items():
        OUT.print(Text(f"{name:<{width}}  ", style="dim") + Text(value), soft_wrap=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table with light lines; the columns named in ``right`` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    return made


def say_table(filled: Table) -> None:
    """The table at its natural width: cut-off names would be worse than a wrapped line."""
    wide = Console(file=OUT.file, width=max(OUT.width, 160), force_terminal=OUT.is_terminal)
    wide.print(filled, crop=False, highlight=False)


class Meter:
    """How far one file is; made by ``metered``."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar, self._started = bar, time.perf_counter()
        self._task = bar.add_task(name, total=None, rtf="")

    def reached(self, done_s: float, total_s: float) -> None:
        """``done_s`` of ``total_s`` seconds of audio are done."""
        rtf = done_s / max(time.perf_counter() - self._started, 1e-9)
        self._bar.update(
            self._task, completed=min(done_s, total_s), total=total_s, rtf=f"{rtf:.1f}× real time"
        )


@contextmanager
def metered(name: str, quiet: bool) -> Iterator[Meter]:
    """A progress bar on standard error; nothing where that is no terminal, or if ``quiet``.

    One a file, gone before the file's line is printed: a bar that stays would have to take over
    standard output.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rtf]}"),
        TimeRemainingColumn(),
    )
    off = quiet or not ERR.is_terminal
    with Progress(
        *columns,
        console=ERR,
        transient=True,
        disable=off,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        yield Meter(bar, name)
