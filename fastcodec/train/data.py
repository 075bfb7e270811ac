"""Training data: a folder of recordings in memory, and crops of it that only the step decides.

A recording is held out of training by the hash of its path within the folder, so the split stays
the same when files are added. A batch is a function of (seed, step, rank): a run that resumes at
any step sees what it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastcodec.io import audio

FULL_SCALE = 32768.0


@dataclass(frozen=True)
class Recording:
    """Samples ``begin`` to ``end`` of a tape; ``name``: path in the folder, with ``/``."""

    name: str
    begin: int
    end: int


class Tape:
    """Recordings one after the other, [C, S] int16: an hour of mono at 16 kHz takes 115 MB."""

    def __init__(self, names: list[str], signals: list[Tensor]) -> None:
        self.samples = torch.cat(signals, dim=1)
        self.recordings, begin = [], 0
        for name, signal in zip(names, signals, strict=True):
            self.recordings.append(Recording(name, begin, begin + signal.shape[1]))
            begin += signal.shape[1]

    def wav(self, begin: int, end: int) -> Tensor:
        """Samples [C, end - begin] float32, full scale ±1."""
        return self.samples[:, begin:end].float() / FULL_SCALE


def is_held_out(name: str, percent: float) -> bool:
    """Whether a recording is for the test: by 32 bits of SHA-256 of its name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < percent / 100 * 2**32


def read_folder(
    folder: Path,
    sample_rate_hz: int,
    channels: int,
    held_out_percent: float,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tape, Tape]:
    """The recordings under a folder, for training and held out.

    Raises:
        ValueError: no audio in the folder, or none left for one of the two
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in audio.SUFFIXES)
    parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for i, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        wav, _ = audio.read(path, sample_rate_hz, channels)
        samples = (wav * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).short()
        parts[is_held_out(name, held_out_percent)][name] = samples
        if progress:
            progress(i + 1, len(paths))
    for part, what in zip(parts, ("training", "the held-out test"), strict=True):
        if not part:
            raise ValueError(
                f"train: {folder} has {len(paths)} recordings ({', '.join(audio.SUFFIXES)}) and "
                f"none for {what} at held_out_percent = {held_out_percent}"
            )
    train, test = (Tape(list(part), list(part.values())) for part in parts)
    return train, test


@dataclass(frozen=True)
class Augmentation:
    """What is done to a crop: ``speed``, a factor that also moves the pitch, log-uniform; ``gain``
    in dB; ``tilt``, of the spectrum, in dB from its lower to its upper end. All (least, most).
    """

    speed: tuple[float, float] = (1.0, 1.0)
    gain_db: tuple[float, float] = (0.0, 0.0)
    tilt_db: tuple[float, float] = (0.0, 0.0)


def batch(
    tape: Tape, size: int, n_samples: int, generator: torch.Generator, how: Augmentation
) -> Tensor:
    """Crops [size, C, n_samples] of uniformly random places of the tape, at ±1."""
    return torch.stack([_crop(tape, n_samples, generator, how) for _ in range(size)])


def _crop(tape: Tape, n_samples: int, generator: torch.Generator, how: Augmentation) -> Tensor:
    where, speed, gain, tilt = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    factor = how.speed[0] * (how.speed[1] / how.speed[0]) ** speed
    taken = min(round(n_samples * factor), tape.samples.shape[1])
    begin = int(where * (tape.samples.shape[1] - taken + 1))
    wav = tape.wav(begin, begin + taken)
    slope_db = _between(how.tilt_db, tilt)
    if taken != n_samples or slope_db:
        wav = _respeed(wav, n_samples, slope_db)
    wav = wav * 10 ** (_between(how.gain_db, gain) / 20)
    return wav / wav.abs().max().clamp(min=1.0)


def _between(bounds: tuple[float, float], where: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * where


def _respeed(wav: Tensor, n_samples: int, slope_db: float) -> Tensor:
    """wav [C, S] as [C, n_samples], resampled and tilted over its spectrum (as if periodic)."""
    spectrum, bins = torch.fft.rfft(wav), n_samples // 2 + 1
    gain = 10 ** (slope_db / 20 * torch.linspace(-0.5, 0.5, spectrum.shape[1]))
    # irfft drops the bins above, or adds empty ones, and divides by the new length.
    resized: Tensor = torch.fft.irfft((spectrum * gain)[:, :bins], n_samples)
    return resized * (n_samples / wav.shape[1])
