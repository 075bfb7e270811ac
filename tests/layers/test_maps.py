"""Layers over frequency and time, and spectra, beside torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.layers.conv import ELU, NONE, Activation
from fastcodec.layers.conv2d import Conv2d, ConvTranspose2d, norm_map
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.spectral import fft, hann, istft, stft

from ..backends import needs_native, threads
from ..nets import generator, signal

pytestmark = pytest.mark.usefixtures("one_thread")
SNAKE = Activation("snake")


def to_map(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def from_map(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


@torch.no_grad()
def filled(layer: Conv2d | ConvTranspose2d, weight: Tensor) -> None:
    assert layer.kernel_form(weight).shape == layer.weight.shape
    layer.weight.copy_(layer.kernel_form(weight))
    layer.bias.copy_(signal(len(layer.bias), seed=1))
    if layer.alpha is not None:
        layer.alpha.uniform_(0.5, 2, generator=generator(2))


def activated(layer: Conv2d | ConvTranspose2d, x: Tensor, kind: Activation) -> Tensor:
    if layer.alpha is None:
        return F.elu(x) if kind == ELU else x
    alpha = layer.alpha.view(1, -1, 1, 1)
    return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)


CONVOLUTIONS = [
    # in, out, kernel, stride, dilation, groups, activation
    (3, 8, (7, 7), (1, 1), 1, 1, NONE),
    (8, 16, (8, 4), (4, 2), 1, 1, SNAKE),
    (8, 16, (8, 2), (4, 1), 1, 4, ELU),
    (8, 4, (3, 3), (1, 1), 3, 2, SNAKE),
    (8, 8, (1, 1), (1, 1), 1, 4, ELU),
    (4, 6, (4, 6), (2, 3), 1, 2, ELU),
]


@pytest.mark.parametrize("frames", [1, 2, 9, 24])
@pytest.mark.parametrize("c_in, c_out, kernel, stride, dilation, groups, kind", CONVOLUTIONS)
@torch.no_grad()
def test_conv2d(
    c_in: int, c_out: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: int,
    groups: int, kind: Activation, frames: int,
) -> None:  # fmt: skip
    """Zero padding, the last window filled up at the beginning."""
    rows, steps = kernel[0] - stride[0], (kernel[1] - 1) * dilation + 1 - stride[1]
    frequency, time = (rows - rows // 2, rows // 2), (steps - steps // 2, steps // 2)
    layer = Conv2d(
        c_in, c_out, kernel, stride, dilation, groups, frequency, time, False, "zero", kind
    )
    weight = signal(c_out, c_in // groups, *kernel, seed=3)
    filled(layer, weight)
    x = 5 * signal(2, c_in, 17, frames, seed=4)
    extra = -frames % stride[1]
    padded = F.pad(activated(layer, x, kind), (time[0] + extra, time[1], *frequency))
    want = F.conv2d(padded, weight, layer.bias, stride, 0, (1, dilation), groups)
    got = from_map(layer(to_map(x)))
    assert got.shape == want.shape and torch.allclose(got, want, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reflection_of_short_maps() -> None:
    """As FunCodec: zeros after what is shorter than its padding, and as much dropped afterwards."""
    layer = Conv2d(2, 2, (5, 7), frequency=(2, 2), time=(3, 3))
    filled(layer, signal(2, 2, 5, 7, seed=3))
    weight = signal(2, 2, 5, 7, seed=3)
    for rows, frames in ((6, 9), (2, 9), (6, 2), (1, 1)):
        x = signal(1, 2, rows, frames)
        more = (max(0, 4 - frames), max(0, 3 - rows))
        padded = F.pad(F.pad(x, (0, more[0], 0, more[1])), (3, 3, 2, 2), "reflect")
        padded = padded[..., : rows + 4, : frames + 6]
        want = F.conv2d(padded, weight, layer.bias)
        assert torch.allclose(from_map(layer(to_map(x))), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize(
    "c_in, c_out, stride, groups, kind",
    [
        (8, 4, (4, 1), 1, ELU),
        (8, 4, (4, 2), 2, SNAKE),
        (8, 4, (1, 3), 1, NONE),
        (16, 8, (2, 2), 4, ELU),
    ],
)
@torch.no_grad()
def test_conv_transpose2d(
    c_in: int, c_out: int, stride: tuple[int, int], groups: int, kind: Activation, frames: int
) -> None:
    """Normalised over the full result, and cut after that."""
    norm = GroupNorm(c_out)
    layer = ConvTranspose2d(c_in, c_out, stride, groups, (2, 1), (1, 0), kind, norm)
    weight = signal(c_in, c_out // groups, 2 * stride[0], 2 * stride[1], seed=3)
    filled(layer, weight)
    norm.weight.copy_(signal(c_out, seed=5)), norm.bias.copy_(signal(c_out, seed=6))
    x = 5 * signal(3, c_in, 6, frames, seed=4)
    full = F.conv_transpose2d(activated(layer, x, kind), weight, layer.bias, stride, 0, 0, groups)
    want = F.group_norm(full, 1, norm.weight, norm.bias)[:, :, 2:-1, 1:]
    got = from_map(layer(to_map(x)))
    assert got.shape == want.shape and torch.allclose(got, want, rtol=1e-4, atol=1e-5)


def test_maps_can_be_trained_through() -> None:
    conv = Conv2d(2, 4, (3, 3), frequency=(1, 1), time=(1, 1), activation=ELU)
    up = ConvTranspose2d(4, 2, (2, 1), norm=GroupNorm(2))
    x = to_map(signal(2, 2, 5, 6)).requires_grad_()
    up(conv(x)).square().sum().backward()
    parameters = [*conv.parameters(), *up.parameters(), x]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


@needs_native
@torch.no_grad()
def test_maps_on_any_threads_and_in_any_batch() -> None:
    """Large enough that the kernels do share the work."""
    first = Conv2d(3, 32, (7, 7), frequency=(3, 3), time=(3, 3))
    down = Conv2d(32, 64, (8, 4), (4, 2), frequency=(2, 2), time=(1, 1), activation=ELU)
    up = ConvTranspose2d(64, 32, (4, 2), frequency=(2, 1), time=(1, 1), activation=ELU)
    norm = GroupNorm(64)
    x = to_map(signal(3, 3, 129, 70))

    def through(x: Tensor) -> Tensor:
        return up(norm_map(norm, down(first(x))))

    want = through(x)
    for n_threads in (1, 2, 3):
        with threads(n_threads):
            assert torch.equal(through(x), want)
            assert torch.equal(through(x[[2, 0]]), want[[2, 0]])


def test_fft() -> None:
    re, im = signal(3, 64).double(), signal(3, 64, seed=1).double()
    want = torch.fft.fft(torch.complex(re, im))
    got = torch.complex(*fft(re, im))
    assert torch.allclose(got, want, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="power of two, got 48"):
        fft(re[:, :48], im[:, :48])


@pytest.mark.parametrize("size, hop, length", [(512, 160, 1377), (512, 160, 257), (32, 12, 17)])
def test_spectra(size: int, hop: int, length: int) -> None:
    x, window = signal(2, length), hann(size)
    want = torch.stft(x.double(), size, hop, window=window, return_complex=True)
    got = stft(x, window, hop)
    assert got.shape == (2, length // hop + 1, size // 2 + 1, 2)
    assert torch.allclose(torch.view_as_complex(got).transpose(1, 2), want, rtol=0, atol=1e-13)
    assert not torch.signbit(got[..., [0, -1], 1]).any()
    spectrum = signal(2, 7, size // 2 + 1, 2).double()
    back = torch.istft(torch.view_as_complex(spectrum).transpose(1, 2), size, hop, window=window)
    assert torch.allclose(istft(spectrum, window, hop), back, rtol=0, atol=1e-13)


def test_spectra_do_not_depend_on_their_neighbours() -> None:
    """Bit for bit, in whatever batch and beside however many frames."""
    x, window = signal(3, 40_000), hann(512)
    whole = stft(x, window, 160)
    for n_threads in (1, 2, 3):
        with threads(n_threads):
            assert torch.equal(stft(x[1:2, :9000], window, 160)[:, :50], whole[1:2, :50])
            assert torch.equal(stft(x[[2, 0]], window, 160), whole[[2, 0]])
            assert torch.equal(istft(whole[1:2], window, 160), istft(whole, window, 160)[1:2])
