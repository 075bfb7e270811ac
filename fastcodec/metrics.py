"""How near a decoded signal is to its original, and how well a codec uses its codebooks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcodec.codes import Codes
from fastcodec.demo import log_mel_distance_db
from fastcodec.optional import require

RATE_HZ = 16_000  # of all comparisons: what wideband PESQ takes
_EXTRA = "evaluate"


class Undefined(ValueError):
    """A metric has no value for a pair of signals, such as silence; the message says why."""


@dataclass(frozen=True)
class Metric:
    """A measure of two signals.

    Args:
        name: as in reports
        label: as people call it
        of: (original [S], decoded [S]) float at 16 kHz -> value, or ``Undefined``
        package: what must be installed for it, or None
        higher_is_better: how to read it
    """

    name: str
    label: str
    of: Callable[[Tensor, Tensor], float]
    package: str | None = None
    higher_is_better: bool = True

    def missing(self) -> str | None:
        """Why it cannot be computed here, or None."""
        try:
            if self.package is not None:
                require(self.package, _EXTRA, self.label)
        except ImportError as error:
            return str(error)
        return None


def si_sdr_db(original: Tensor, decoded: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, of the signals less their means.

    Le Roux et al., "SDR - half-baked or well done?" (arXiv:1811.02508), eq. 5. Codecs that make a
    waveform of their own score low here however they sound.
    """
    s, x = (wav.double() - wav.double().mean() for wav in (original, decoded))
    if not s.any() or not x.any():
        raise Undefined("a silent signal has no SI-SDR")
    target = (x @ s) / (s @ s) * s
    error = x - target
    ratio = float(target @ target) / max(float(error @ error), 1e-300)
    return 10 * math.log10(max(ratio, 1e-30))


def stoi(original: Tensor, decoded: Tensor) -> float:
    """Short-time objective intelligibility, 0 to 1 (Taal et al. 2011), by the package pystoi."""
    pystoi = require("pystoi", _EXTRA, "STOI")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # "not enough frames", and a made-up value
        try:
            return float(pystoi.stoi(original.numpy(), decoded.numpy(), RATE_HZ))
        except RuntimeWarning as warning:
            raise Undefined(f"STOI: {str(warning).partition('.')[0]}") from warning


def pesq_wb(original: Tensor, decoded: Tensor) -> float:
    """Wideband PESQ, 1 to 4.64 (ITU-T P.862.2), by the package pesq."""
    pesq = require("pesq", _EXTRA, "PESQ-wb")
    if not original.any() or not decoded.any():
        raise Undefined("a silent signal has no PESQ")  # the package divides by its peak
    try:
        return float(pesq.pesq(RATE_HZ, original.numpy(), decoded.numpy(), "wb"))
    except pesq.PesqError as error:
        reason = error.args[0] if error.args else type(error).__name__
        text = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise Undefined(f"PESQ: {text}") from error


def _log_mel(original: Tensor, decoded: Tensor) -> float:
    return log_mel_distance_db(original[None], decoded[None], RATE_HZ)


METRICS = (
    Metric("log_mel_distance_db", "log-mel distance (dB)", _log_mel, higher_is_better=False),
    Metric("stoi", "STOI", stoi, "pystoi"),
    Metric("pesq_wb", "PESQ-wb", pesq_wb, "pesq"),
    Metric("si_sdr_db", "SI-SDR (dB)", si_sdr_db),
)


@dataclass(frozen=True)
class Usage:
    """How a codebook is used: as ``perplexity`` equally likely words would be; words ever used."""

    perplexity: float
    words_used: int
    size: int


def codebook_usage(codes: Sequence[Codes], codebook_size: int) -> list[Usage]:
    """The use of every codebook over several signals.

    Few frames cannot use many words: of T frames' words at most T differ.

    Args:
        codes: of one codec, of equally many codebooks
        codebook_size: N, words a codebook
    """
    levels = zip(*(part.ragged() for part in codes), strict=True)
    return [_usage(torch.cat([t.flatten() for t in level]), codebook_size) for level in levels]


def _usage(tokens: Tensor, size: int) -> Usage:
    counts = torch.bincount(tokens[tokens >= 0], minlength=size).double()
    share = counts / counts.sum()
    entropy = -torch.special.xlogy(share, share).sum()
    return Usage(math.exp(float(entropy)), int((counts > 0).sum()), size)
