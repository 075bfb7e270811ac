"""The kept rows of codecs as Markdown, the machine named: for people, and for the README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import Row

PRECISIONS = ("highest", "high", "medium")


def latest(path: Path) -> list[Row]:
    """The newest row of each kind of a file of rows, in the order of their first."""
    found: dict[tuple[object, ...], Row] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            config = json.dumps(row["config"], sort_keys=True)
            key = (row["name"], config, row["threads"], row.get("precision"), row.get("peer"))
            found[key] = row
    return list(found.values())


def contests(rows: Sequence[Row]) -> dict[tuple[str, str, int], dict[str, Row]]:
    """(case, config, threads) -> precision -> its row, of codecs that were timed."""
    found: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        if "precision" in row and "peers" in row and "ours_ms" in row:
            key = (row["name"], _bandwidth(row), row["threads"])
            found.setdefault(key, {})[row["precision"]] = row
    return found


def markdown(rows: Sequence[Row]) -> str:
    """A table for each number of threads, or a line that there is nothing."""
    cases = contests(rows)
    if not cases:
        return "No rows of codecs are kept here: run `python -m benchmarks codecs` first."
    parts = [_heading(next(iter(next(iter(cases.values())).values())))]
    for threads in sorted({threads for _, _, threads in cases}):
        mine = {key: value for key, value in cases.items() if key[2] == threads}
        parts.append(f"{threads} thread{'s' if threads > 1 else ''}:\n\n" + _table(mine))
    if pushes := [row for row in rows if row["name"].startswith("stream.") and "ours_ms" in row]:
        parts.append("One push, median (99th percentile):\n\n" + _pushes(pushes))
    return "\n\n".join(parts)


def _heading(row: Row) -> str:
    machine, floors = row["machine"], row["floors"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['isa']}, torch {row['torch']}, "
        f"fastcodec {row['fastcodec']}, {row['time'][:10]}. Real-time factor (seconds of work a "
        f"second of sound), and how many times as fast as the best peer in float32 / at any "
        f"setting; % of floor: of the time that the codec's arithmetic takes at the rate of "
        f"torch's matrix product ({floors['gemm_f32_gflops']:.0f} GFLOP/s in float32 and "
        f"{floors['gemm_bf16_gflops']:.0f} in bfloat16 at {row['threads']} thread)."
    )


def _table(cases: dict[tuple[str, str, int], dict[str, Row]]) -> str:
    there = [p for p in PRECISIONS if any(p in found for found in cases.values())]
    titles = [
        "codec",
        *there,
        "% of floor",
        "best float32 peer",
        "best peer",
        "accuracy",
    ]
    lines = [titles, ["---"] * len(titles)]
    for (name, bandwidth, _), found in cases.items():
        any_row = next(iter(found.values()))
        floor = " / ".join(f"{found[p]['percent_of_floor']:.0f}" for p in there if p in found)
        lines.append(
            [
                f"{name}{bandwidth}",
                *(_ours(found[p]) if p in found else "" for p in there),
                floor,
                _peer(any_row, "float32"),
                _peer(any_row, "any"),
                _accuracy(list(found.values())[-1]),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ours(row: Row) -> str:
    ratios = [
        f"{row[f'ratio_{kind}']:.2g}" for kind in ("float32", "any") if f"ratio_{kind}" in row
    ]
    same = " (as highest)" if "same_bits_as" in row else ""
    return f"{row['real_time_factor']:.3g}: {' / '.join(ratios)} ×{same}"


def _peer(row: Row, kind: str) -> str:
    if f"best_{kind}" not in row:
        return ""
    factor = row[f"best_{kind}_ms"]["median"] / row["seconds"] / 1e3
    return f"{row[f'best_{kind}']} {factor:.3g}"


def _accuracy(row: Row) -> str:
    figures = row.get("accuracy", {})
    parts = []
    if (error := figures.get("latents_relative_l2")) is not None:
        parts.append(f"latents {error:.1e}")
    if (equal := figures.get("codes_equal_to_highest_percent")) is not None:
        parts.append(f"{equal:.4g} % of codes")
    if (snr := figures.get("snr_db_to_highest")) is not None:
        parts.append(f"{snr:.3g} dB")
    return ", ".join(parts)


def _pushes(rows: Sequence[Row]) -> str:
    titles = ["push", "threads", "ms of sound", "ours, ms", "floor, ms", "peer, ms", "ratio"]
    lines = [titles, ["---"] * len(titles)]
    for row in rows:
        ours, peer = row["ours_ms"], row.get("peer_ms")
        beside = f"{row['peer']} {peer['median']:.3g} ({peer['p99']:.3g})" if peer else ""
        lines.append(
            [
                f"{row['name']} {row.get('precision', '')}",
                str(row["threads"]),
                f"{row['push_ms']:.0f}",
                f"{ours['median']:.3g} ({ours['p99']:.3g})",
                f"{row['floor_ms']:.3g}",
                beside,
                f"{row['ratio']:.2g}" if "ratio" in row else "",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bandwidth(row: Row) -> str:
    kbps = row["config"].get("kbps")
    return "" if kbps is None else f", {kbps:g} kbps"
