"""``python -m benchmarks.gpu [ops pushes codecs]``: rows of this GPU, benchmarks/results/<gpu>/.

The exit code is 1 where a row was refused, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parents[1] / "results"
SUITES = ("ops", "pushes", "codecs")
LIMIT_S = 350.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and append."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__)
    parser.add_argument("suites", nargs="*", default=SUITES, help=f"of {', '.join(SUITES)}")
    parser.add_argument("--small", action="store_true", help="run every kernel once, time nothing")
    parser.add_argument(
        "--sanitize", action="store_true", help="the same under compute-sanitizer, where it runs"
    )
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="for all rows together")
    parser.add_argument("--json", type=Path, help="file to append to; default: results/<gpu>/")
    options = parser.parse_args(argv)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if not torch.cuda.is_available():
        why = "torch is a CPU build" if torch.version.cuda is None else "torch sees no NVIDIA GPU"
        print(
            f"benchmarks.gpu: {why}; nothing was measured. On a machine with one: make gpu "
            f"PYTHON=<a python with a CUDA build of torch>",
            file=sys.stderr,
        )
        return 2
    if options.small:
        return int(import_module("benchmarks.gpu.small").main())
    if options.sanitize:
        return int(import_module("benchmarks.gpu.small").sanitized())
    return _measure(options.suites, options.json, begin + options.limit_s)


def _measure(suites: Sequence[str], path: Path | None, until: float) -> int:
    from benchmarks.gpu import clock
    from benchmarks.gpu.contest import Bench

    bench = Bench(clock.floors(), clock.gpu(), until)
    print(f"{bench.gpu}\nfloors: {bench.floors}", flush=True)
    path = path or FOLDER / clock.slug() / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    refused = 0
    for suite in suites:
        try:
            for row in import_module(f"benchmarks.gpu.{suite}").rows(bench):
                refused += "error" in row
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | {"clocks_now": clock.gpu()}) + "\n")
                print(_brief(row), flush=True)
        except Exception:
            refused += 1
            traceback.print_exc()
    print(f"wrote {path}")
    return int(refused > 0)


def _brief(row: dict[str, Any]) -> str:
    shown = ("best", "best_us", "times_floor", "best_peer", "ratio", "must", "reached", "error")
    return "  ".join([row["name"], *(f"{key}={row[key]}" for key in shown if key in row)])


if __name__ == "__main__":
    sys.exit(main())
