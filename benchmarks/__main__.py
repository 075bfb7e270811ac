"""``python -m benchmarks [names]``: measure, print a table, append the rows to a file.

A name is the start of a case's name or a file's: ``lstm``, ``encodec_24khz``, ``stream``, ``ops``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import floors, machine, plots, summary, table
from benchmarks.runner import Absent, Bench, Row

FOLDER = Path(__file__).parent


def suites() -> list[str]:
    """Every file with a ``rows`` function, as ``ops.conv1d``: the ops, the codecs, the others."""
    folders = {"ops": FOLDER / "ops", "codecs": FOLDER / "codecs"}
    found = [f"{name}.{p.stem}" for name, f in folders.items() for p in sorted(f.glob("[!_]*.py"))]
    return [*found, "stream", "long", "memory", "training"]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 1 where a row was refused."""
    options = parse(argv)
    path = options.json or FOLDER / "results" / f"{machine.slug()}.jsonl"
    if options.summary:
        print(summary.markdown(summary.latest(path)))
        return 0
    chosen = list(selected(options.names))
    if not chosen:
        note(f"no case is called {' or '.join(options.names)}; files: {', '.join(suites())}")
        return 1
    note(f"{machine.slug()}, fastcodec {machine.fastcodec_version()}")
    if (load := os.getloadavg()[0]) > 1:
        note(f"load average {load:.1f}: this machine is busy, its numbers are not worth keeping")
    cores = machine.machine()["cores"]
    threads = sorted({min(int(n), cores) for n in options.threads.split(",")})
    measured = [floors.measure(n) for n in threads]
    for one in measured:
        note(f"floors at {one.threads} threads: {one.as_row()}")
    rows: list[Row] = []
    for suite, wanted in chosen:
        bench = Bench(
            measured,
            options.seconds,
            options.repeats,
            options.long_seconds,
            wanted,
            tuple(options.precisions.split(",")),
            tuple(float(s) for s in options.memory_seconds.split(",")),
        )
        for row in rows_of(suite, bench):
            note(table.brief(row))
            rows.append(row)
            if not options.no_json:
                append(path, row)
    table.show(rows)
    if not options.no_json:
        for picture in plots.save(path.parent / "plots", summary.latest(path)):
            note(f"wrote {picture}")
    return int(not rows or any("error" in row for row in rows))


def selected(names: Sequence[str]) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """The files to run, each with the choice of its cases."""
    for suite in suites():
        folder, _, stem = suite.rpartition(".")
        if not names or {suite, folder, stem} & set(names):
            yield suite, lambda case: True
        elif any(name.startswith(stem) for name in names):
            yield suite, lambda case: any(case.startswith(name) for name in names)


def rows_of(suite: str, bench: Bench) -> Iterator[Row]:
    """The rows of a file; what it raises becomes a refused row, and the others go on."""
    try:
        yield from import_module(f"benchmarks.{suite}").rows(bench)
    except Absent as reason:
        yield bench.row(suite, {}, bench.floors[0]) | {"absent": str(reason)}
    except Exception as error:
        traceback.print_exc()
        yield bench.row(suite, {}, bench.floors[0]) | {"error": f"{type(error).__name__}: {error}"}


def note(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


def append(path: Path, row: Row) -> None:
    """Add a line to a file of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="files or starts of case names; all where none")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: 1,2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the signals")
    parser.add_argument("--repeats", type=int, default=5, help="least number of rounds")
    parser.add_argument(
        "--long-seconds", type=float, default=3600.0, help="length of the input of `long`"
    )
    parser.add_argument(
        "--memory-seconds", default="10,600", help="the two lengths of `memory` (default: 10,600)"
    )
    parser.add_argument(
        "--precisions",
        default="highest,high,medium",
        help="of the codecs, the first is what the others are compared with (default: all)",
    )
    parser.add_argument(
        "--summary", action="store_true", help="measure nothing: the kept rows as Markdown"
    )
    parser.add_argument("--json", type=Path, help="file to append to; default: results/<machine>")
    parser.add_argument("--no-json", action="store_true", help="do not keep the rows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
