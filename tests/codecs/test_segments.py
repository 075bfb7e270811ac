"""Codecs that need whole signals: coded in segments, each on its own, in constant memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcodec import Codes
from fastcodec.codecs.encodec import Encodec
from fastcodec.io.codes_file import load_codes, save_codes

from .. import nets

pytestmark = pytest.mark.usefixtures("one_thread")

NET = nets.encodec(causal=False, norm="time_group_norm", lstm=1)  # 8 samples a frame, 800 Hz
SCALED = nets.encodec(causal=False, norm="time_group_norm", lstm=1, segment=32, stride=24)
SEGMENT_S = 0.1  # 80 samples


def parts(n_samples: int) -> list[tuple[int, int]]:
    """Whole segments; what is left is one more, or if it is short, part of the last."""
    ends = list(range(80, n_samples - 40, 80))
    return list(zip([0, *ends], [*ends, n_samples], strict=True))


@pytest.mark.parametrize("net", [NET, SCALED])
@given(st.integers(1, 400), st.integers(1, 2))
def test_each_segment_is_coded_alone(net: Encodec, n_samples: int, batch: int) -> None:
    wav = nets.signal(batch, 1, n_samples)
    codes = net.encode(wav, segment_s=SEGMENT_S)
    alone = [net.encode(wav[..., a:b]) for a, b in parts(n_samples)]
    assert torch.equal(codes.tokens, torch.cat([c.tokens for c in alone], dim=2))
    assert codes.n_samples.tolist() == [n_samples] * batch and codes.segment == 80
    heard = torch.cat([net.decode(c) for c in alone], dim=2)
    assert torch.equal(net.decode(codes), heard)
    assert torch.equal(net.decode(load_codes(save_codes(codes))), heard)


def test_a_list_of_segmented_signals() -> None:
    wavs = [nets.signal(1, n, seed=n) for n in (300, 50, 119, 121)]
    together = NET.encode(wavs, segment_s=SEGMENT_S)
    heard = NET.decode(together)
    for row, wav in enumerate(wavs):
        alone = NET.encode(wav, segment_s=SEGMENT_S)
        frames = alone.tokens.shape[2]
        assert torch.equal(together.tokens[row, :, :frames], alone.tokens[0])
        assert torch.equal(heard[row, :, : wav.shape[1]], NET.decode(alone)[0])


def test_progress_counts_samples() -> None:
    seen: list[tuple[int, int]] = []
    NET.encode(nets.signal(1, 300), progress=lambda *x: seen.append(x), segment_s=SEGMENT_S)
    assert seen == [(80, 300), (160, 300), (240, 300), (300, 300)][: len(seen)] and len(seen) == 4


def test_what_streams_needs_no_segments() -> None:
    with pytest.raises(ValueError, match="constant memory; leave segment_s out"):
        nets.encodec().encode(nets.signal(1, 300), segment_s=SEGMENT_S)
    with pytest.raises(ValueError, match="at least a frame"):
        NET.encode(nets.signal(1, 300), segment_s=0.001)


@pytest.mark.parametrize("n_samples, segment", [(10**9, 80), (301, 80), (300, 8)])
def test_lengths_that_do_not_go_with_the_segments(n_samples: int, segment: int) -> None:
    tokens = NET.encode(nets.signal(1, 300), segment_s=SEGMENT_S).tokens
    codes = Codes(tokens, 100.0, torch.tensor([n_samples]), NET.name, segment=segment)
    if NET.n_frames(n_samples) > tokens.shape[2]:
        with pytest.raises(ValueError, match="n_samples must be"):
            NET.decode(codes)
    else:
        assert NET.decode(codes).shape == (1, 1, n_samples)


def test_a_codec_that_decodes_streams_all_the_same() -> None:
    """Only the encoder needs whole signals: decoding takes pieces, encoding says why not."""
    net = nets.encodec(causal=False, norm="time_group_norm")
    streaming = nets.encodec(causal=False)
    net.decoder = streaming.decoder
    assert (net.info.streamable, net.info.decode_streamable) == (False, True)
    assert isinstance(net, Encodec)
    tokens = net.encode(nets.signal(1, 200)).tokens
    stream = net.stream()
    heard = [stream.decode(tokens[..., i : i + 5], final=i == 20) for i in range(0, 25, 5)]
    assert torch.equal(torch.cat(heard, dim=2), net.decode(tokens))
    with pytest.raises(ValueError, match="encodes whole signals only: group norm"):
        stream.encode(nets.signal(1, 8))
