"""Opus there and back: in step with what went in, at about the bit rate asked for."""

from __future__ import annotations

import sys

import pytest
import torch

from fastcodec import demo
from fastcodec.io import audio, opus

pytest.importorskip("av", reason="PyAV is of the extra evaluate")


def lag(original: torch.Tensor, other: torch.Tensor) -> int:
    """Samples by which ``other`` comes late, from the peak of their correlation."""
    size = 2 * len(original)
    spectra = [torch.fft.rfft(wav.double(), size) for wav in (original, other)]
    peak = int(torch.fft.irfft(spectra[0].conj() * spectra[1], size).argmax())
    return peak if peak < size // 2 else peak - size


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_no_delay_is_left(rate_hz: int) -> None:
    wav, _ = audio.read(demo.clip_path(), rate_hz)
    wav = wav[0, : 2 * rate_hz + 7]  # no whole number of frames
    back, kbps = opus.round_trip(wav, rate_hz, 64)
    assert back.shape == wav.shape and lag(wav, back) == 0
    assert 40 < kbps < 80
    assert (back - wav).norm() < 0.25 * wav.norm()


def test_the_bit_rate_is_that_of_the_packets() -> None:
    wav, rate_hz = audio.read(demo.clip_path())
    rates = [opus.round_trip(wav[0, :48_000], rate_hz, kbps)[1] for kbps in (6, 12, 24)]
    assert rates == sorted(rates)
    assert all(0.7 * k < got < 1.2 * k for k, got in zip((6, 12, 24), rates, strict=True))


@pytest.mark.parametrize("samples", [1, 319, 320, 321])
def test_short_signals_keep_their_length(samples: int) -> None:
    assert opus.round_trip(torch.zeros(samples), 16_000, 6)[0].shape == (samples,)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    for wav, rate_hz, kbps, message in [
        (torch.zeros(1, 9), 16_000, 6.0, r"must be \[S\]"),
        (torch.zeros(0), 16_000, 6.0, r"S > 0"),
        (torch.zeros(9), 22_050, 6.0, "resample first"),
        (torch.zeros(9), 16_000, 3.2, "6 to 510 kbps, got 3.2"),
    ]:
        with pytest.raises(ValueError, match=message):
            opus.round_trip(wav, rate_hz, kbps)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"fastcodec\[evaluate\]"):
        opus.round_trip(torch.zeros(9), 16_000, 6)
