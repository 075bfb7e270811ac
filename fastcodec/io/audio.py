"""Audio files in and out: wav, flac, ogg and mp3 by libsndfile, resampling by soxr.

Reading is block-wise throughout, so a file of any length needs constant memory; ``read`` is the
blocks put together. One rule maps channels: to mono by the mean of all channels, from mono to
stereo by copying it to both; any other change is refused, because its right mix is not known.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcodec.errors import FormatError
from fastcodec.io.atomic import replacing
from fastcodec.optional import require

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

_BLOCK = 1 << 16  # samples; 0.25 MB a channel, and far above the resampler's filter length
_MAX_VALUES = 1 << 22  # samples x channels held at once, whatever a header claims: 16 MB
_RATES_HZ = (1_000, 768_000)  # outside of it a header is wrong, and resampling would explode
_FORMATS = {
    ".wav": ("WAV", {"pcm16": "PCM_16", "pcm24": "PCM_24", "float32": "FLOAT"}),
    ".flac": ("FLAC", {"pcm16": "PCM_16", "pcm24": "PCM_24"}),
    ".ogg": ("OGG", {"vorbis": "VORBIS"}),
    ".mp3": ("MP3", {"mp3": "MPEG_LAYER_III"}),
}


@dataclass(frozen=True)
class AudioInfo:
    """What an audio file's header says: rate, channels, length in samples (at that rate)."""

    sample_rate_hz: int
    channels: int
    n_samples: int


@dataclass
class WriteReport:
    """What was written: samples a channel, the largest magnitude, values that had to be clipped."""

    n_samples: int = 0
    peak: float = 0.0
    clipped: int = 0


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Rate, channels and length of an audio file, from its header.

    Raises:
        FormatError: not an audio file that libsndfile reads
    """
    with _opened(Path(path)) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


def read(
    path: str | os.PathLike[str], sample_rate_hz: int | None = None, channels: int | None = None
) -> tuple[Tensor, int]:
    """The whole of an audio file and its rate; arguments and errors as in ``blocks``.

    Returns:
        wav: [C, S] float32, full scale ±1
        sample_rate_hz: its rate (the one asked for, or the file's own)
    """
    rate_hz = sample_rate_hz or probe(path).sample_rate_hz
    return torch.cat(list(blocks(path, rate_hz, channels)), dim=1), rate_hz


def blocks(
    path: str | os.PathLike[str],
    sample_rate_hz: int | None = None,
    channels: int | None = None,
    block: int = _BLOCK,
) -> Iterator[Tensor]:
    """The file piece by piece, resampled and mixed; the pieces' sum does not depend on ``block``.

    Args:
        path: wav, flac, ogg or mp3
        sample_rate_hz: rate wanted; None keeps the file's
        channels: 1 (mean of the file's), 2 (of a stereo file, or mono twice), None keeps the file's
        block: samples read at a time, at the file's rate

    Yields:
        [C, n] float32, full scale ±1, n ≥ 1

    Raises:
        FormatError: unreadable, empty, or an implausible rate; it names the file. A flac that was
            cut off is unreadable; a cut wav, ogg or mp3 is, for libsndfile, a shorter one
        ValueError: the channels cannot be mapped to those wanted; it names the file
        FileNotFoundError: no such file
    """
    path = Path(path)
    with _opened(path) as file:
        _check_channels(path, file.channels, channels)
        convert = _resampler(file.samplerate, sample_rate_hz, channels or file.channels)
        total = 0
        for piece, last in _pieces(file, max(1, min(block, _MAX_VALUES // file.channels))):
            ready = convert(_mix(piece, channels), last)
            total += len(ready)
            if len(ready):
                yield torch.from_numpy(np.ascontiguousarray(ready.T))
        if not total:
            raise FormatError(f"{path}: holds no samples, or too few for one at the rate wanted")


def write(
    path: str | os.PathLike[str],
    wav: Tensor | np.ndarray,
    sample_rate_hz: int,
    encoding: str | None = None,
) -> WriteReport:
    """Writes a whole signal; arguments and errors as in ``Writer`` and ``Writer.write``."""
    with Writer.open(path, sample_rate_hz, 1 if wav.ndim == 1 else wav.shape[0], encoding) as out:
        out.write(wav)
        return out.report


class Writer:
    """Writes an audio file block by block; ``with Writer.open(…) as out: out.write(block)``."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        self.report = WriteReport()

    @classmethod
    @contextmanager
    def open(
        cls,
        path: str | os.PathLike[str],
        sample_rate_hz: int,
        channels: int,
        encoding: str | None = None,
    ) -> Iterator[Writer]:
        """A writer whose file takes its place only when the ``with`` block ends well.

        Args:
            path: its suffix chooses the format: .wav, .flac, .ogg or .mp3
            sample_rate_hz: rate of what will be written
            channels: channels of what will be written
            encoding: wav: pcm16 (default), pcm24, float32; flac: pcm16 (default), pcm24

        Raises:
            ValueError: a suffix, encoding, rate or number of channels that cannot be written
        """
        path = Path(path)
        kind, encodings = _FORMATS.get(path.suffix.lower(), ("", {}))
        encoding = encoding or next(iter(encodings), None)
        if encoding not in encodings:
            raise ValueError(
                f"{path}: cannot write {encoding or 'audio'} to {path.suffix or 'no suffix'!r}; "
                f"expected " + (" or ".join(encodings) if encodings else ", ".join(SUFFIXES))
            )
        sf = require("soundfile", "audio", "writing audio files")
        with replacing(path) as temporary:
            try:
                file = sf.SoundFile(
                    temporary, "w", sample_rate_hz, channels, encodings[encoding], format=kind
                )
            except (sf.SoundFileError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}: {kind} cannot hold {channels} channels at {sample_rate_hz} Hz: "
                    f"{_reason(error)}"
                ) from error
            with _without_seeks(file):
                yield cls(path, file)

    def write(self, wav: Tensor | np.ndarray) -> None:
        """Appends ``wav``: [C, S] or [S] float, full scale ±1; louder values are clipped.

        A float32 wav keeps them as they are. 16 bits hold ``round(32768 x)``, so that a 16-bit
        file read by this module and written again has the same samples.

        Raises:
            ValueError: wrong shape, or NaN or infinite values
        """
        values = torch.as_tensor(wav).detach().cpu().numpy()
        values = values[None] if values.ndim == 1 else values
        if values.ndim != 2 or values.shape[0] != self._file.channels:
            raise ValueError(
                f"{self._path}: expected [{self._file.channels}, S], got {list(wav.shape)}; "
                f"write one signal of a batch at a time"
            )
        # libsndfile's Vorbis encoder keeps a whole call on its stack: big calls overflow it.
        for start in range(0, values.shape[1], _BLOCK):
            self._write_block(values[:, start : start + _BLOCK].T.astype(np.float32))

    def _write_block(self, values: np.ndarray) -> None:
        peak = float(np.abs(values).max())
        if not math.isfinite(peak):
            raise ValueError(f"{self._path}: the signal holds NaN or infinite values")
        report = self.report
        report.n_samples += len(values)
        report.peak = max(report.peak, peak)
        if self._file.subtype == "PCM_16":
            scaled = np.rint(values * 32768.0)
            values = np.clip(scaled, -32768, 32767).astype(np.int16)
            # +1.0 is full scale, not an overload: it lies one step above the largest integer.
            report.clipped += int(((scaled < -32768) | (scaled > 32768)).sum())
        elif self._file.subtype != "FLOAT":
            report.clipped += int((np.abs(values) > 1.0).sum())
            values = np.clip(values, -1.0, 1.0)
        self._file.write(values)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open ``soundfile.SoundFile``; every error of libsndfile becomes a ``FormatError``."""
    sf = require("soundfile", "audio", "reading audio files")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file")
    if path.suffix.lower() == ".raw":  # soundfile would ask for a rate with a TypeError
        raise FormatError(f"{path}: raw samples do not say their rate; make it a wav file first")
    try:
        with _without_seeks(sf.SoundFile(path)) as file:
            low, high = _RATES_HZ
            if not low <= file.samplerate <= high:
                raise FormatError(
                    f"{path}: its header says {file.samplerate} Hz; expected {low} to {high} Hz"
                )
            yield file
    except sf.SoundFileError as error:
        raise FormatError(
            f"{path}: cannot be read as audio ({_reason(error)}); expected an intact file of the "
            f"kinds {', '.join(SUFFIXES)}"
        ) from error


def _without_seeks(file: Any) -> Any:
    """The same ``SoundFile``, read or written straight on.

    soundfile seeks to where it already is after every call on a seekable file. libsndfile's mp3
    decoder loses its bit reservoir by that: an audible click at every block [measured, 1.2.2].
    """
    file.seekable = lambda: False
    return file


def _pieces(file: Any, block: int) -> Iterator[tuple[np.ndarray, bool]]:
    """[n, C] float32 pieces, each with whether it is the last."""
    piece = file.read(block, dtype="float32", always_2d=True)
    while len(piece):
        following = file.read(block, dtype="float32", always_2d=True)
        yield piece, not len(following)
        piece = following


def _check_channels(path: Path, have: int, wanted: int | None) -> None:
    if wanted not in (None, have, 1) and not (wanted == 2 and have == 1):
        raise ValueError(
            f"{path}: has {have} channels and {wanted} are wanted; only a mean to mono and mono "
            f"to stereo are done here, mix it down first"
        )


def _mix(piece: np.ndarray, channels: int | None) -> np.ndarray:
    """[n, C] to the channels wanted, by the module's rule."""
    if channels is None or channels == piece.shape[1]:
        return piece
    if channels == 1:
        return np.asarray(piece.mean(axis=1, keepdims=True, dtype=np.float32))
    return np.repeat(piece, channels, axis=1)


def _resampler(have_hz: int, wanted_hz: int | None, channels: int) -> Any:
    """A function (piece [n, C], last) → [m, C]; soxr's pieces add up to its one-shot result."""
    if wanted_hz is None or wanted_hz == have_hz:
        return lambda piece, last: piece
    if wanted_hz <= 0:
        raise ValueError(f"sample_rate_hz must be positive, got {wanted_hz}")
    soxr = require("soxr", "audio", f"resampling {have_hz} Hz to {wanted_hz} Hz")
    stream = soxr.ResampleStream(have_hz, wanted_hz, channels, dtype="float32", quality="HQ")
    return stream.resample_chunk


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the path that soundfile puts before them."""
    return str(getattr(error, "error_string", error)).rstrip(".")
