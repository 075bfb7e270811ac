"""The picture of an evaluation: every metric over the bit rate, and the use of the codebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcodec.evaluate import Row, highest_rates
from fastcodec.io.atomic import replacing
from fastcodec.metrics import METRICS, Metric
from fastcodec.optional import require

_SIZE_INCHES, _DPI = (13.0, 7.5), 150
_INK, _MUTED, _GRID = "#1c1c28", "#5a5a6e", "#e4e4ea"
# Okabe and Ito's colours, which stay apart for the colour-blind; the shapes do so in print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SHAPES = "osD^vPX"


def save(path: Path, rows: Sequence[Row], title: str) -> None:
    """Writes a PNG: a panel for each metric, one for perplexity, one for words used.

    Args:
        path: the picture's path
        rows: of ``evaluate.measure``
        title: one line above all
    """
    figures = require("matplotlib.figure", "cli", "drawing the evaluation")
    figure = figures.Figure(_SIZE_INCHES, _DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=_INK)
    panels = figure.subplots(2, 3).flatten()
    styles = _styles([row.system for row in rows])
    for panel, metric in zip(panels, METRICS, strict=False):
        _quality(panel, rows, metric, styles)
    best = highest_rates(rows)
    _usage(panels[4], best, styles, "perplexity of the codebooks (% of the words)", "perplexity")
    _usage(panels[5], best, styles, "words used at all (%)", "words_used")
    for panel in panels:
        panel.tick_params(colors=_MUTED, labelsize=9)
        panel.grid(color=_GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[:].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """One look for each system in all panels."""
    return {
        name: {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _SHAPES[i % len(_SHAPES)],
            "markersize": 6,
            "linewidth": 1.8,
        }
        for i, name in enumerate(dict.fromkeys(names))
    }


def _quality(
    panel: Any, rows: Sequence[Row], metric: Metric, styles: dict[str, dict[str, Any]]
) -> None:
    better = "higher" if metric.higher_is_better else "lower"
    panel.set_title(f"{metric.label}, {better} is better", loc="left", fontsize=10, color=_INK)
    panel.set_xlabel("kbps", color=_MUTED)
    ticks = sorted({row.rate_kbps for row in rows})
    panel.set_xscale("log")
    panel.set_xticks(ticks, [f"{kbps:g}" for kbps in ticks])
    panel.minorticks_off()
    for name, style in styles.items():
        points = sorted((r.kbps, r.means[metric.name]) for r in rows if r.system == name)
        there = [(kbps, value) for kbps, value in points if value is not None]
        panel.plot([p[0] for p in there], [p[1] for p in there], label=name, **style)
    if (missing := metric.missing()) is not None:
        text = missing.partition(";")[0]
        panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", wrap=True, color=_MUTED)


def _usage(
    panel: Any, rows: Sequence[Row], styles: dict[str, dict[str, Any]], title: str, what: str
) -> None:
    panel.set_title(title, loc="left", fontsize=10, color=_INK)
    panel.set_xlabel("codebook", color=_MUTED)
    panel.set_ylim(0, 105)
    panel.set_xlim(0.5, max([len(row.usage) for row in rows], default=1) + 0.5)
    panel.xaxis.get_major_locator().set_params(integer=True)
    for row in rows:
        shares = [100 * getattr(usage, what) / usage.size for usage in row.usage]
        panel.plot(range(1, len(shares) + 1), shares, **styles[row.system])
    if not rows:
        panel.text(0.5, 0.5, "no codebooks", transform=panel.transAxes, ha="center", color=_MUTED)
