"""Rows for people: a table by rich where it is installed, else plain columns."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.runner import Row

COLUMNS = ("case", "thr", "ours ms", "peer", "peer ms", "ratio", "% of floor", "gate")


def show(rows: Sequence[Row]) -> None:
    """Print all rows."""
    cells = [_cells(row) for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return _plain(cells)
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row, line in zip(rows, cells, strict=True):
        table.add_row(*line, style="red" if "error" in row else None)
    console = Console()
    if not console.is_terminal:
        return _plain(cells)  # a file or a pipe has no width to fit
    console.print(table, markup=False)


def brief(row: Row) -> str:
    """One line about a row."""
    return "  ".join(cell for cell in _cells(row) if cell)


def _cells(row: Row) -> list[str]:
    config = " ".join(f"{key}={value}" for key, value in row["config"].items())
    precision = f" {row['precision']}" if "precision" in row else ""
    case = [f"{row['name']}{precision} {config}", str(row["threads"])]
    if "error" in row:
        return [*case, "", row.get("peer", ""), "", "", "", f"REFUSED: {row['error']}"]
    if "absent" in row:
        return [*case, "", "", "", "", "", f"not measured: {row['absent']}"]
    ours, peer_ms = row.get("ours_ms"), row.get("peer_ms")
    peer, variant = row.get("peer", ""), row.get("peer_variant", "")
    ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
    if "ratio_float32" in row:
        peer, variant = f"{row['best_float32']} / {row['best_any']}", ""
        peer_ms = None
        ratio = f"{row['ratio_float32']:.2f} / {row['ratio_any']:.2f}"
    floor = f"{row['percent_of_floor']:.0f} ({row['floor']})" if "floor" in row else ""
    return [
        *case,
        row.get("result") or (_ms(ours) if ours else ""),
        f"{peer} [{variant}]" if variant else peer,
        _ms(peer_ms) if peer_ms else _two(row) or row.get("peer_absent", ""),
        ratio,
        floor,
        f"{row['gate']['value']:.1e}" if "gate" in row else "",
    ]


def _two(row: Row) -> str:
    """Times of the best peer in float32 and of the best at any setting."""
    found = [
        row[f"best_{kind}_ms"]["median"] for kind in ("float32", "any") if f"best_{kind}" in row
    ]
    return " / ".join(f"{ms:.4g}" for ms in found)


def _ms(times: dict[str, float]) -> str:
    if "p99" in times:
        return f"{times['median']:.3g} (p99 {times['p99']:.3g})"
    return f"{times['median']:.4g} ({times['min']:.4g}..{times['max']:.4g})"


def _plain(cells: Sequence[Sequence[str]]) -> None:
    lines = [COLUMNS, *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())
