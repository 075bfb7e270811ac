"""A picture for each codec: real-time factors by precision beside the peers', the floor a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.runner import Row
from benchmarks.summary import PRECISIONS, contests
from fastcodec.io.atomic import replacing

_WIDTH_INCHES, _ROW_INCHES, _DPI = 11.0, 0.24, 130
_INK, _MUTED, _GRID = "#1c1c28", "#5a5a6e", "#e4e4ea"
_OURS, _FLOAT32, _REDUCED, _FLOOR = "#0072b2", "#9a9aa8", "#cfcfd8", "#d55e00"


def save(folder: Path, rows: Sequence[Row]) -> Iterator[Path]:
    """Write ``<codec>.png`` of every codec among the rows; nothing without matplotlib."""
    if not find_spec("matplotlib"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    codecs: dict[str, dict[tuple[str, int], Mapping[str, Row]]] = {}
    for (name, bandwidth, threads), found in contests(rows).items():
        codec, _, what = name.rpartition(".")
        codecs.setdefault(codec, {})[what + bandwidth, threads] = found
    for codec, cases in codecs.items():
        path = folder / f"{codec}.png"
        _save(path, codec, cases)
        yield path


def _save(path: Path, codec: str, cases: Mapping[tuple[str, int], Mapping[str, Row]]) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for name, _ in cases))
    threads = list(dict.fromkeys(count for _, count in cases))
    bars = {key: _bars(found) for key, found in cases.items()}
    most = max(len(found) for found in bars.values())
    size = (_WIDTH_INCHES, 1.2 + len(names) * (0.9 + _ROW_INCHES * most))
    figure = Figure(size, _DPI, layout="constrained", facecolor="white")
    row = next(iter(next(iter(cases.values())).values()))
    title = f"{codec}: seconds of work for a second of sound, {row['machine']['cpu']}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=_INK)
    panels = figure.subplots(len(names), len(threads), squeeze=False)
    for y, name in enumerate(names):
        for x, count in enumerate(threads):
            panel = panels[y][x]
            if (name, count) not in cases:
                panel.set_axis_off()
                continue
            found = cases[name, count]
            cores = f"{count} thread{'s' if count > 1 else ''}"
            panel.set_title(f"{name}, {cores}", loc="left", fontsize=10, color=_INK)
            _draw(panel, bars[name, count], _floors(found))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _bars(found: Mapping[str, Row]) -> list[tuple[str, float, str]]:
    """(label, real-time factor, colour), the fastest first."""
    ours = [
        (f"fastcodec {p}", found[p]["real_time_factor"], _OURS)
        for p in PRECISIONS
        if p in found and "same_bits_as" not in found[p]
    ]
    peers = [
        (
            f"{entry['name']}, {entry['setting']}",
            entry["real_time_factor"],
            _FLOAT32 if entry["float32"] else _REDUCED,
        )
        for entry in next(iter(found.values()))["peers"]
        if "real_time_factor" in entry
    ]
    return sorted([*ours, *peers], key=lambda bar: bar[1])


def _floors(found: Mapping[str, Row]) -> dict[str, float]:
    """Rate -> the factor that the arithmetic takes at it."""
    return {
        row["floor"]: row["floor_ms"] / row["seconds"] / 1e3
        for row in found.values()
        if row["floor"] != "copy"
    }


def _draw(panel: Any, bars: Sequence[tuple[str, float, str]], floors: Mapping[str, float]) -> None:
    labels, values, colours = zip(*bars, strict=True)
    places = range(len(bars))
    panel.barh(places, values, color=colours, height=0.72)
    panel.set_yticks(places, labels, fontsize=8)
    panel.invert_yaxis()
    for place, value in zip(places, values, strict=True):
        panel.text(value, place, f" {value:.3g}", va="center", fontsize=7, color=_MUTED)
    for name, value in floors.items():
        panel.axvline(value, color=_FLOOR, linewidth=1.4, linestyle="--")
        panel.text(value, -0.7, name, color=_FLOOR, fontsize=7, ha="center", va="bottom")
    panel.set_xlim(0, max(values) * 1.08)
    panel.tick_params(colors=_MUTED, labelsize=8)
    panel.grid(color=_GRID, linewidth=0.8, axis="x")
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
