"""Medium precision: where it applies, that it is asked for, and how near to float32 it stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fastcodec
from fastcodec import Codec, ops
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.packed import Packed

from .. import nets
from ..backends import needs_native

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = {**nets.STREAMING, **nets.WHOLE}
# Measured 40 dB to 87 dB; a net with much attention amplifies what its convolutions round.
LEAST_DB = 38.0


def snr_db(got: Tensor, want: Tensor) -> float:
    """Of a signal, what it should have been over what it is wrong by."""
    error = (got.double() - want.double()).square().sum()
    return float(10 * torch.log10(want.double().square().sum() / error))


def convolutions(net: torch.nn.Module) -> list[Conv1d | ConvTranspose1d]:
    return [layer for layer in net.modules() if isinstance(layer, Conv1d | ConvTranspose1d)]


@pytest.mark.parametrize("name", ALL)
def test_medium_is_near_highest(name: str) -> None:
    net = ALL[name]()
    wav = nets.signal(1, net.channels, 60 * net.frame_multiple * net.hop)
    codes = net.encode(wav)
    heard, latent = net.decode(codes), net.encoder(wav)
    net.set_precision("medium")
    assert LEAST_DB <= snr_db(net.decode(codes), heard) < 120  # and not the same
    assert LEAST_DB <= snr_db(net.encoder(wav), latent) < 120
    net.set_precision("highest")
    assert torch.equal(net.decode(codes), heard)
    assert torch.equal(net.encode(wav).tokens, codes.tokens)


def test_the_codec_in_the_package_at_medium() -> None:
    codecs = {p: fastcodec.load("fastcodec_16khz", precision=p) for p in ops.PRECISIONS}
    wav = nets.signal(1, 1, 16_000)
    codes = codecs["highest"].encode(wav)
    heard = {p: codec.decode(codes) for p, codec in codecs.items()}
    assert torch.equal(heard["high"], heard["highest"])
    assert snr_db(heard["medium"], heard["highest"]) >= 40


@pytest.mark.parametrize("precision", ops.PRECISIONS)
def test_the_quantizer_stays_float32(precision: str) -> None:
    net: Codec = nets.STREAMING["dac"]()
    net.set_precision(precision)
    assert net.info.precision == net.precision == precision
    for part in (net.encoder, net.decoder):
        assert {layer.precision for layer in convolutions(part)} == {ops.PRECISIONS[precision]}
    assert {layer.precision for layer in convolutions(net.quantizer)} == {0}


@needs_native
def test_packed_copies_follow_the_precision_and_the_parameter() -> None:
    weight = torch.nn.Parameter(torch.randn(40, 8, 3, generator=nets.generator(0)))
    packed = Packed(ops.conv1d_pack, 1)
    with torch.no_grad():
        highest, medium = (packed.get(weight, precision=p) for p in (0, 2))
        assert highest is not None and medium is not None
        assert not torch.equal(highest[: len(medium)], medium)
        assert packed.get(weight, precision=2) is medium
        weight.mul_(2)
        changed = packed.get(weight, precision=2)
    assert changed is not None and not torch.equal(changed, medium)
    assert torch.equal(changed, ops.conv1d_pack(weight.detach(), 1, 2))


@pytest.mark.parametrize("shape, groups", [((8, 1, 7), 1), ((2, 8, 3), 1), ((8, 1, 3), 8)])
def test_the_ends_and_depthwise_convolutions_stay_float32(
    shape: tuple[int, int, int], groups: int
) -> None:
    g = nets.generator(0)
    weight = torch.randn(shape, generator=g)
    x = torch.randn(1, shape[1] * groups, 20, generator=g)
    at = [ops.conv1d(x, weight, *(None,) * 5, 1, 1, groups, 0, 0.0, p) for p in (0, 2)]
    assert torch.equal(*at)


def test_a_precision_there_is_not() -> None:
    x, weight = torch.zeros(1, 4, 9), torch.zeros(8, 4, 3)
    for function in (ops.conv1d, ops.conv1d.reference):
        with pytest.raises((ValueError, RuntimeError), match="precision must be"):
            function(x, weight, *(None,) * 5, 1, 1, 1, 0, 0.0, 3)


def test_small_integers_are_exact_at_any_precision() -> None:
    """So the int8 layers of a net give the same bits at medium precision."""
    g = nets.generator(0)
    x = torch.randint(-255, 256, (2, 64, 30), generator=g).float()
    weight = torch.randint(-127, 128, (40, 64, 3), generator=g).float()
    at = [ops.conv1d(x, weight, *(None,) * 5, 1, 1, 1, 0, 0.0, p) for p in (0, 2)]
    assert torch.equal(*at)
