"""Codecs side by side on the same clips: quality at each bit rate, and codebook usage."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

import fastcodec
from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.files import kbps_of
from fastcodec.io import audio, opus
from fastcodec.metrics import METRICS, RATE_HZ, Undefined, Usage, codebook_usage
from fastcodec.optional import require

Progress = Callable[[float, float], None]  # seconds of audio done, seconds in all


@dataclass(frozen=True)
class Clip:
    """A recording to measure with."""

    path: Path
    duration_s: float


@dataclass(frozen=True)
class Coded:
    """A clip after a codec: [S] float at 16 kHz, what it took, and the codes where there are."""

    wav: Tensor
    kbps: float
    codes: Codes | None = None


class System(Protocol):
    """Anything that codes clips at some bit rates."""

    name: str
    rates_kbps: tuple[float, ...]
    codebook_size: int

    def code(self, clip: Clip, kbps: float) -> Coded:
        """The clip there and back at one of ``rates_kbps``."""


@dataclass(frozen=True)
class Row:
    """A system at a bit rate: means over the clips, each clip's own values, codebook usage.

    A mean is None where its metric cannot be computed; ``notes`` say why, and of which clips.
    """

    system: str
    rate_kbps: float
    kbps: float
    n_codebooks: int | None
    means: dict[str, float | None]
    clips: list[dict[str, float | str | None]]
    usage: list[Usage]
    notes: list[str]


class Neural:
    """A codec of this library.

    Args:
        codec: from ``fastcodec.load``
        rates_kbps: what to measure; None: all of ``info.bandwidths_kbps``, or all its codebooks
        name: in the report, where its own is not enough

    Raises:
        ValueError: a bit rate that no number of codebooks gives
    """

    def __init__(
        self,
        codec: fastcodec.Codec,
        rates_kbps: Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:
        info = codec.info
        self.codec, self.name, self.codebook_size = codec, name or info.name, info.codebook_size
        self.rates_kbps = tuple(rates_kbps or info.bandwidths_kbps or (info.kbps,))
        self.n_codebooks = {kbps: _n_codebooks(codec, kbps) for kbps in self.rates_kbps}

    def code(self, clip: Clip, kbps: float) -> Coded:
        """Resampled to the codec's rate and channels, and back to 16 kHz mono."""
        info = self.codec.info
        wav, _ = audio.read(clip.path, info.sample_rate_hz, info.channels)
        codes = self.codec.encode(wav, n_codebooks=self.n_codebooks[kbps])
        mono = self.codec.decode(codes)[0].mean(dim=0).cpu()
        return Coded(
            _at_16khz(mono, info.sample_rate_hz), kbps_of(codes, info.codebook_size), codes
        )


class Opus:
    """libopus at 16 kHz; ImportError where PyAV or its libopus is missing."""

    name = "opus"
    codebook_size = 0

    def __init__(self, rates_kbps: Sequence[float]) -> None:
        for kbps in rates_kbps:
            opus.check_kbps(kbps)
        opus.library()
        self.rates_kbps = tuple(rates_kbps)

    def code(self, clip: Clip, kbps: float) -> Coded:
        """The clip at 16 kHz mono, there and back."""
        wav, _ = audio.read(clip.path, RATE_HZ, 1)
        return Coded(*opus.round_trip(wav[0], RATE_HZ, kbps))


def find_clips(paths: Sequence[Path]) -> list[Clip]:
    """The recordings among files and folders, opened once to see that they are some.

    Raises:
        FileNotFoundError: no such file, or a folder without any
        FormatError: a file that is no audio
    """
    files: list[Path] = []
    for path in paths:
        inside = path.rglob("*") if path.is_dir() else [path]
        found = sorted(p for p in inside if p == path or p.suffix.lower() in audio.SUFFIXES)
        if not found:
            raise FileNotFoundError(f"{path}: no {', '.join(audio.SUFFIXES)} files in this folder")
        files += [p for p in found if p not in files]
    headers = [audio.probe(path) for path in files]
    return [
        Clip(path, header.n_samples / header.sample_rate_hz)
        for path, header in zip(files, headers, strict=True)
    ]


def measure(
    system: System, kbps: float, clips: Sequence[Clip], progress: Progress | None = None
) -> Row:
    """The row of a system at one of its bit rates, over all clips.

    Args:
        system: what to measure
        kbps: one of its ``rates_kbps``
        clips: at least one; every clip counts as much as any other
        progress: called after each clip
    """
    results: list[dict[str, float | str | None]] = []
    coded_clips, undefined, done_s = [], Counter[tuple[str, str]](), 0.0
    total_s = sum(clip.duration_s for clip in clips)
    usable = [metric for metric in METRICS if metric.missing() is None]
    for clip in clips:
        coded = system.code(clip, kbps)
        pair = _pair(clip, coded.wav)
        result: dict[str, float | str | None] = {"clip": str(clip.path), "kbps": coded.kbps}
        for metric in usable:
            try:
                result[metric.name] = metric.of(*pair)
            except Undefined as reason:
                result[metric.name] = None
                undefined[metric.label, str(reason)] += 1
        results.append(result)
        coded_clips.append(coded)
        done_s += clip.duration_s
        if progress:
            progress(done_s, total_s)
    codes = [coded.codes for coded in coded_clips if coded.codes is not None]
    bits = sum(c.kbps * clip.duration_s for c, clip in zip(coded_clips, clips, strict=True))
    return Row(
        system.name,
        kbps,
        bits / total_s,
        codes[0].n_codebooks if codes else None,
        {metric.name: _mean(results, metric.name) for metric in METRICS},
        results,
        codebook_usage(codes, system.codebook_size) if codes else [],
        [f"{label}: left out {n} of {len(clips)} clips: {why}" for (label, why), n in
         undefined.items()],
    )  # fmt: skip


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader of the rows must know: metrics that are missing, clips that are left out."""
    absent = [reason for metric in METRICS if (reason := metric.missing())]
    return absent + [f"{r.system} at {r.rate_kbps:g} kbps: {n}" for r in rows for n in r.notes]


def as_dict(rows: Sequence[Row], clips: Sequence[Clip]) -> dict[str, Any]:
    """The whole report, ready for JSON."""
    packages = [m.package for m in METRICS if m.package and not m.missing()]
    packages += ["av"] if any(row.system == Opus.name for row in rows) else []
    return {
        "fastcodec": fastcodec.__version__,
        "packages": {name: version(name) for name in packages},
        "sample_rate_hz": RATE_HZ,
        "duration_s": sum(clip.duration_s for clip in clips),
        "clips": [{"path": str(c.path), "duration_s": c.duration_s} for c in clips],
        "rows": [asdict(row) for row in rows],
        "notes": notes(rows),
    }


def highest_rates(rows: Sequence[Row]) -> list[Row]:
    """Of every system with codebooks the row with most of them: it shows the use of all."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.usage and len(row.usage) > len(best[row.system].usage if row.system in best else []):
            best[row.system] = row
    return list(best.values())


def _n_codebooks(codec: fastcodec.Codec, kbps: float) -> int:
    """How many codebooks make this bit rate."""
    info = codec.info
    hold = codec.quantizer.hold or (1,) * info.n_codebooks
    bits = math.log2(info.codebook_size)
    total, made = 0.0, []
    for every in hold:
        total += bits * info.frame_rate_hz / every / 1000
        made.append(round(total, 4))
    for count, rate in enumerate(made, 1):
        if math.isclose(rate, kbps, rel_tol=1e-3):
            return count
    known = ", ".join(f"{rate:g}" for rate in info.bandwidths_kbps or made)
    raise ValueError(f"{info.name} has no {kbps:g} kbps; its bit rates: {known}")


def _pair(clip: Clip, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """The original and the decoded clip at 16 kHz, of equal length."""
    wav, _ = audio.read(clip.path, RATE_HZ, 1)
    length = min(wav.shape[1], len(decoded))  # some codecs drop the last part of a frame
    if not length:
        raise FormatError(f"{clip.path}: too short for a frame of this codec")
    return wav[0, :length], decoded[:length]


def _at_16khz(wav: Tensor, sample_rate_hz: int) -> Tensor:
    if sample_rate_hz == RATE_HZ:
        return wav
    soxr = require("soxr", "audio", f"resampling {sample_rate_hz} Hz to {RATE_HZ} Hz")
    return torch.from_numpy(soxr.resample(wav.numpy(), sample_rate_hz, RATE_HZ, "HQ"))


def _mean(results: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [r[name] for r in results if r.get(name) is not None]
    return statistics.fmean(values) if values else None
