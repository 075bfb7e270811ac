"""The demo's picture: spectrograms before and after, and the codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcodec.codes import Codes
from fastcodec.io.atomic import replacing
from fastcodec.optional import require

_SIZE_INCHES, _DPI = (11.0, 8.0), 150
_WINDOW_S, _HOP_S = 0.032, 0.008  # resolves pitch of speech (31 Hz) and onsets
_RANGE_DB = 80.0
_INK, _MUTED = "#1c1c28", "#5a5a6e"


def save(
    path: Path,
    original: Tensor,
    decoded: Tensor,
    sample_rate_hz: int,
    codes: Codes,
    codebook_size: int,
    title: str,
) -> None:
    """Writes a PNG with three panels over one time axis.

    Args:
        path: the picture's path
        original: [C, S] float, before; the mean of its channels is shown
        decoded: [C, S] float, after
        sample_rate_hz: rate of both
        codes: of one signal
        codebook_size: number of code words, the range of the colours
        title: one line above all
    """
    figures = require("matplotlib.figure", "cli", "drawing the demo's picture")
    figure = figures.Figure(_SIZE_INCHES, _DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(hspace=0.04)
    figure.suptitle(title, x=0.045, ha="left", fontsize=12, fontweight="bold", color=_INK)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 1))
    before, after = (_spectrogram_db(wav, sample_rate_hz) for wav in (original, decoded))
    top_db = float(before.max())
    duration_s = original.shape[1] / sample_rate_hz
    for panel, image, name in zip(panels, (before, after), ("original", "decoded"), strict=False):
        drawn = _spectrogram(panel, image - top_db, duration_s, sample_rate_hz, name)
    _colourbar(figure, drawn, list(panels[:2]), "dB relative to the original's peak")
    grid = _tokens(panels[2], codes, codebook_size)
    _colourbar(figure, grid, [panels[2]], "code word")
    panels[2].set_xlabel("time (s)", color=_MUTED)
    panels[2].set_xlim(0, duration_s)
    for panel in panels:
        panel.tick_params(colors=_MUTED, labelsize=9)
        panel.spines[:].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _spectrogram_db(wav: Tensor, sample_rate_hz: int) -> Tensor:
    """[bins, frames] level of the mean over channels, in dB."""
    window, hop = round(_WINDOW_S * sample_rate_hz), round(_HOP_S * sample_rate_hz)
    shape = torch.hann_window(window)
    mono = wav.detach().float().cpu().mean(0)
    spectrum = torch.stft(mono, window, hop, window=shape, pad_mode="constant", return_complex=True)
    return 20 * torch.log10(spectrum.abs().clamp_min(1e-9))


def _spectrogram(
    panel: Any, image: Tensor, duration_s: float, sample_rate_hz: int, name: str
) -> Any:
    panel.set_title(name, loc="left", fontsize=10, color=_INK)
    panel.set_ylabel("frequency (kHz)", color=_MUTED)
    return panel.imshow(
        image.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="antialiased",
        cmap="magma",
        vmin=-_RANGE_DB,
        vmax=0,
        extent=(0, duration_s, 0, sample_rate_hz / 2000),
    )


def _tokens(panel: Any, codes: Codes, codebook_size: int) -> Any:
    tokens = codes.tokens[0].cpu()
    n_codebooks, n_frames = tokens.shape
    panel.set_title(
        f"codes: {n_codebooks} × {n_frames} tokens, first codebook on top",
        loc="left",
        fontsize=10,
        color=_INK,
    )
    panel.set_ylabel("codebook", color=_MUTED)
    panel.yaxis.get_major_locator().set_params(integer=True)
    return panel.imshow(
        tokens.masked_fill(tokens < 0, 0).numpy(),
        origin="upper",
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0,
        vmax=codebook_size - 1,
        extent=(0, n_frames / codes.frame_rate_hz, n_codebooks + 0.5, 0.5),
    )


def _colourbar(figure: Any, drawn: Any, panels: list[Any], label: str) -> None:
    bar = figure.colorbar(drawn, ax=panels, pad=0.01, fraction=0.03, aspect=30)
    bar.set_label(label, color=_MUTED, fontsize=9)
    bar.ax.tick_params(colors=_MUTED, labelsize=8)
    bar.outline.set_visible(False)
