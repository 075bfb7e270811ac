"""Reconstruction losses: mel filters and DAC's mel loss against others' code, known values."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcodec.train import losses
from fastcodec.train.losses import MelScale, MultiResolutionStft, MultiScaleMel, Waveform
from fastcodec.train.spectra import Spectrogram, from_mel, mel_filters, to_mel

from .. import oracles
from ..nets import generator, signal
from .peers import speechtokenizer_losses

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = "encodec", "dac", "audiodec", "hificodec", "speechtokenizer", "funcodec", "soundstream"
# librosa's documentation of mel_frequencies(n_mels=40), every fifth of them.
LIBROSA_40_HZ = [0.0, 426.586, 853.173, 1334.436, 2071.84, 3216.731, 4994.285, 7754.107, 11025.0]


def test_slaney_scale_as_librosa_documents_it() -> None:
    top = to_mel(torch.tensor([11025.0], dtype=torch.float64), "slaney").item()
    hz = from_mel(torch.linspace(0, top, 40, dtype=torch.float64), "slaney")
    documented = torch.tensor(LIBROSA_40_HZ, dtype=torch.float64)
    torch.testing.assert_close(hz[[*range(0, 40, 5), 39]], documented, rtol=0, atol=6e-4)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("equal_area", [True, False])
@pytest.mark.parametrize("sizes", [(24000, 1024, 80, 0.0, None), (16000, 256, 20, 64.0, 7000.0)])
def test_filters_as_transformers_makes_them(
    scale: str, equal_area: bool, sizes: tuple[int, int, int, float, float | None]
) -> None:
    oracles.transformers()
    from transformers.audio_utils import mel_filter_bank

    rate, n_fft, n_mels, low, high = sizes
    want = mel_filter_bank(
        n_fft // 2 + 1, n_mels, low, high or rate / 2, rate,
        norm="slaney" if equal_area else None, mel_scale=scale,
    )  # fmt: skip
    got = mel_filters(rate, n_fft, n_mels, low, high, scale, equal_area)  # type: ignore[arg-type]
    np.testing.assert_allclose(got.numpy(), want.T, rtol=1e-5, atol=1e-7)


def test_dac_mel_loss_as_its_own_code_has_it() -> None:
    """Its filters are librosa's, which is not there: ours stand in."""
    oracles.descript()
    from audiotools import AudioSignal
    from audiotools.metrics.spectral import MelSpectrogramLoss

    def filters(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> object:
        return mel_filters(sr, n_fft, n_mels, fmin, fmax).numpy()

    theirs = MelSpectrogramLoss(
        n_mels=[5, 10, 20, 40, 80, 160, 320], window_lengths=[32, 64, 128, 256, 512, 1024, 2048],
        mel_fmin=[0.0] * 7, mel_fmax=[None] * 7, pow=1.0, clamp_eps=1e-5, mag_weight=0.0,
    )  # fmt: skip
    x, y = signal(2, 1, 5000), signal(2, 1, 5000, seed=1)
    with mock.patch.object(AudioSignal, "get_mel_filters", staticmethod(filters)):
        want = theirs(AudioSignal(x, 44100), AudioSignal(y, 44100))
    torch.testing.assert_close(losses.mel("dac", 44100)(x, y), want, rtol=1e-5, atol=0)


def test_speechtokenizer_mel_loss_as_its_own_code_has_it() -> None:
    """Its filters are torchaudio's, which is not there: ours, checked above, stand in."""
    theirs = speechtokenizer_losses()

    def filters(n_mels: int, sample_rate: int, n_stft: int, **options: Any) -> Any:
        assert options == {"f_min": 0, "f_max": None, "norm": "slaney", "mel_scale": "htk"}
        bank = mel_filters(sample_rate, 2 * (n_stft - 1), n_mels, scale="htk")
        return mock.Mock(fb=bank.T)

    theirs.torchaudio.transforms.MelScale = filters
    x, y = signal(2, 1, 5000), signal(2, 1, 5000, seed=1)
    want = 0.0
    for i, weight in enumerate((1, 1 / 45, 1 / 45, 1 / 45)):
        sizes = {"n_fft": 1024 >> i, "win_size": 1024 >> i, "hop_size": 240 >> i}
        rest = {"num_mels": 80, "sample_rate": 16000, "fmin": 0, "fmax": None}
        want = want + weight * theirs.mel_loss(x, y, **sizes, **rest)
    torch.testing.assert_close(losses.mel("speechtokenizer", 16000)(y, x), want)


@pytest.mark.parametrize("name", NAMES)
def test_mel_losses(name: str) -> None:
    """Nothing for equal signals, positive otherwise, finite gradients even at silence."""
    loss = losses.mel(name, 16000)
    x, y = signal(2, 2, 4000), signal(2, 2, 4000, seed=1)
    assert loss(x, x).item() == pytest.approx(0, abs=1e-3)
    assert loss(x, y).item() > 0
    for decoded in (torch.zeros_like(x), x.clone()):
        decoded.requires_grad_()
        loss(decoded, x).backward()
        assert decoded.grad is not None and decoded.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_mel_losses_gradcheck(name: str) -> None:
    """Along a few directions: a full Jacobian of windows of 2048 samples would take minutes."""
    loss = losses.mel(name, 16000).double()
    g = generator(0)
    x, y = (0.1 * torch.randn(1, 1, 2400, generator=g, dtype=torch.float64) for _ in range(2))
    directions = torch.randn(3, 1, 1, 2400, generator=g, dtype=torch.float64)

    def along(a: Tensor) -> Tensor:
        return loss(x + torch.einsum("i,ibcs->bcs", a, directions), y)

    at = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    # Mean absolute values have kinks: few of thousands lie within so small a step.
    assert torch.autograd.gradcheck(along, at, eps=1e-8, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("module", [Waveform(1), Waveform(2), MultiResolutionStft([(64, 16, 32)])])
def test_other_losses_gradcheck(module: torch.nn.Module) -> None:
    g = generator(0)
    x, y = (torch.randn(1, 2, 80, generator=g, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(module, (x.requires_grad_(), y))


def test_known_values() -> None:
    x, y = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0, 4.0]]])
    assert Waveform(1)(x, y) == 1.5
    assert Waveform(2)(x, y) == 2.5
    x = signal(1, 1, 4000)
    # Twice the signal: the convergence is 1, the log magnitudes are log 2 apart.
    assert MultiResolutionStft()(2 * x, x).item() == pytest.approx(1 + math.log(2), rel=1e-4)
    # Logs of powers are 2 log10(2) apart everywhere, and their floor is far below.
    scales = [MelScale(256, 64, 20, log_l1=1.0, log_l2=10.0, log_norm=100.0)]
    apart = 2 * math.log10(2)
    got = MultiScaleMel(16000, scales, log_floor=1e-12, power=2)(2 * x, x).item()
    assert got == pytest.approx(apart + 10 * apart**2 + 100 * apart * math.sqrt(20), rel=1e-4)


def test_spectrogram_of_a_sinusoid() -> None:
    """Half its amplitude times the window's sum; its square over the sum of squares."""
    t = torch.arange(4096) / 16000
    x = 0.5 * torch.cos(2 * math.pi * 1000 * t)[None, None]
    frame = Spectrogram(256, 64)(x)[0, :, 20]
    assert frame.argmax() == 16
    assert frame[16].item() == pytest.approx(0.25 * 128, rel=1e-4)
    power = Spectrogram(256, 64, power=2, normalised=True)(x)[0, 16, 20].item()
    assert power == pytest.approx((0.25 * 128) ** 2 / 96, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "frames"),
    [({}, 16), ({"centred": False}, 15), ({"centred": False, "fill_last": True}, 16)],
)
def test_frames(options: dict[str, bool], frames: int) -> None:
    spectrum = Spectrogram(256, 64, **options)(signal(3, 2, 1021))  # type: ignore[arg-type]
    assert spectrum.shape == (6, 129, frames)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="expected one of encodec, dac.*got 'opus'"):
        losses.mel("opus", 16000)
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3"):
        Waveform(3)  # type: ignore[arg-type]


def test_hificodec_has_other_windows_at_16_khz() -> None:
    hops = [[s.hop for s in losses.mel("hificodec", rate).scales] for rate in (16000, 24000)]
    assert hops == [[200, 120, 60], [240, 120, 60]]
