"""The same codes and the same samples, bit for bit, whatever the batch, the cutting or the threads.

With the native CPU kernels only: torch's own convolutions choose their algorithm by shape, and
``codec.info.invariant`` says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastcodec
from fastcodec import Codec, Codes, _native, use_backend
from fastcodec.codecs import audiodec, dac, encodec, lyra, mimi

from .. import nets
from ..backends import needs_native, threads
from ..conftest import SHARED

pytestmark = [needs_native, pytest.mark.usefixtures("one_thread")]


def lyra_v2() -> Codec:
    """With the published weights where they are, else with random ones."""
    folder = SHARED / "data" / "lyra_v2" / "float32"
    if folder.is_dir():
        return fastcodec.load("lyra_v2", folder)
    return random(lyra.build("lyra_v2"))


def random(net: Codec) -> Codec:
    """A full-size net without a checkpoint."""
    return nets.lively(net.eval().requires_grad_(False))


def medium(name: str) -> Callable[[], Codec]:
    return lambda: at_medium(nets.STREAMING[name]())


def at_medium(net: Codec) -> Codec:
    net.set_precision("medium")
    return net


MEDIUM = {f"{name}, medium": medium(name) for name in ("encodec", "dac", "mimi")}
MAKERS = {**nets.STREAMING, **MEDIUM, "lyra_v2": lyra_v2}
ALL = {**MAKERS, **nets.WHOLE}
LONGEST = 40  # frames of the longest signal that a property is tried with


@functools.cache
def codec(name: str) -> Codec:
    return ALL[name]()


each_streaming = pytest.mark.parametrize("name", MAKERS)
each = pytest.mark.parametrize("name", ALL)
few = settings(max_examples=40)  # of each net
PLACES = st.lists(st.floats(0, 1), max_size=6)
LENGTHS = st.lists(st.floats(0, 1), min_size=1, max_size=4)


def length(name: str, part: float) -> int:
    """A number of samples: a hop or so at least, ``part`` of the longest at most."""
    return 1 + round((1 + part * LONGEST) * codec(name).hop)


def signals(net: Codec, lengths: list[int]) -> list[Tensor]:
    """A signal [C, S] of each length, every one another."""
    return [nets.signal(net.channels, n, seed=i) for i, n in enumerate(lengths)]


def pieces(size: int, places: list[float]) -> list[slice]:
    """A range cut at fractions of its length; some pieces are empty."""
    edges = sorted(round(place * size) for place in places)
    return [slice(a, b) for a, b in zip([0, *edges], [*edges, size], strict=True)]


def assert_codes_equal(got: Codes, want: Codes) -> None:
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.n_samples, want.n_samples)
    assert (got.scale is None) == (want.scale is None)
    assert got.scale is None or torch.equal(got.scale, want.scale)


@each
def test_the_nets_of_these_tests_use_many_codes(name: str) -> None:
    """Otherwise equal codes would say little: here hardly a frame is as another."""
    net = codec(name)
    tokens = net.encode(nets.signal(1, net.channels, LONGEST * net.hop)).tokens[0]
    assert tokens.unique(dim=1).shape[1] >= 0.8 * tokens.shape[1]
    assert net.info.invariant


@each_streaming
@few
@given(st.floats(0, 1), st.integers(1, 3), PLACES, st.booleans(), st.integers(1, 3))
def test_encode_in_any_pieces(
    name: str, part: float, batch: int, places: list[float], empty_end: bool, n_threads: int
) -> None:
    net = codec(name)
    wav = nets.signal(batch, net.channels, length(name, part))
    whole = net.encode(wav)
    stream = net.stream(batch)
    cut = [wav[..., piece] for piece in pieces(wav.shape[2], places)]
    cut += [wav[..., :0]] if empty_end else []
    with threads(n_threads):
        parts = [stream.encode(x, final=i == len(cut) - 1) for i, x in enumerate(cut)]
    assert torch.equal(torch.cat([p.tokens for p in parts], dim=2), whole.tokens)
    assert torch.equal(torch.stack([p.n_samples for p in parts]).sum(0), whole.n_samples)


@pytest.mark.parametrize("name", [*MAKERS, "hificodec", "speechtokenizer"])
@few
@given(st.floats(0, 1), st.integers(1, 3), PLACES, st.booleans(), st.integers(1, 3))
def test_decode_in_any_pieces(
    name: str, part: float, batch: int, places: list[float], empty_end: bool, n_threads: int
) -> None:
    net = codec(name)
    tokens = net.encode(nets.signal(batch, net.channels, length(name, part))).tokens
    whole = net.decode(tokens)
    stream = net.stream(batch)
    cut = [tokens[..., piece] for piece in pieces(tokens.shape[2], places)]
    cut += [tokens[..., :0]] if empty_end else []
    with threads(n_threads):
        parts = [stream.decode(x, final=i == len(cut) - 1) for i, x in enumerate(cut)]
    assert torch.equal(torch.cat(parts, dim=2), whole)


@each_streaming
@few
@given(st.floats(0, 1), PLACES)
def test_a_live_round_trip(name: str, part: float, places: list[float]) -> None:
    """Codes handed on as they come give the whole signal's samples, of its length."""
    net = codec(name)
    wav = nets.signal(1, net.channels, length(name, part))
    stream, heard = net.stream(), []
    cut = pieces(wav.shape[2], places)
    for i, piece in enumerate(cut):
        final = i == len(cut) - 1
        heard.append(stream.decode(stream.encode(wav[..., piece], final), final))
        assert sum(y.shape[2] for y in heard) <= piece.stop
    assert torch.equal(torch.cat(heard, dim=2), net.decode(net.encode(wav)))


@each
@few
@given(LENGTHS, st.randoms(use_true_random=False), st.integers(1, 3))
def test_any_list_in_any_order(name: str, parts: list[float], rng: object, n_threads: int) -> None:
    """A ragged list's rows are the codes and samples of each signal alone."""
    net = codec(name)
    wavs = signals(net, [length(name, part) for part in parts])
    order = list(range(len(wavs)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    with threads(n_threads):
        together = net.encode([wavs[i] for i in order])
        heard = net.decode(together)
    for row, i in enumerate(order):
        alone = net.encode(wavs[i])
        frames = alone.tokens.shape[2]
        assert torch.equal(together.tokens[row, :, :frames], alone.tokens[0])
        assert (together.tokens[row, :, frames:] == -1).all()
        assert together.n_samples[row] == alone.n_samples[0]
        if alone.scale is not None and together.scale is not None:
            segments = alone.scale.shape[1]
            assert torch.equal(together.scale[row, :segments], alone.scale[0])
        samples = int(alone.n_samples[0])
        assert torch.equal(heard[row, :, :samples], net.decode(alone)[0])
        assert not heard[row, :, samples:].any()


@each
def test_any_batch(name: str) -> None:
    net = codec(name)
    wav = nets.signal(5, net.channels, 30 * net.hop + 3)
    whole = net.encode(wav)
    heard = net.decode(whole)
    for rows in ([2], [4, 0], [1, 1, 3], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 0, 1, 2]):
        for n_threads in (1, 2):
            with threads(n_threads):
                some = net.encode(wav[rows])
                assert_codes_equal(some, whole[rows])
                assert torch.equal(net.decode(some), heard[rows])


@each
def test_fewer_codebooks_are_the_first_ones(name: str) -> None:
    net = codec(name)
    wav = nets.signal(2, net.channels, 20 * net.hop + 1)
    whole = net.encode(wav)
    for count in range(1, whole.n_codebooks + 1, max(1, whole.n_codebooks // 5)):
        assert torch.equal(net.encode(wav, n_codebooks=count).tokens, whole.tokens[:, :count])
    for kbps in net.info.bandwidths_kbps:
        some = net.encode(wav, bandwidth_kbps=kbps)
        bits = (net.info.codebook_size - 1).bit_length()
        assert some.n_codebooks == max(1, int(kbps * 1000 / bits / net.info.frame_rate_hz + 1e-6))
        assert torch.equal(some.tokens, whole.tokens[:, : some.n_codebooks])


@each
def test_the_form_of_the_input_changes_nothing(name: str) -> None:
    """Arrays, double precision, views of larger tensors, with a batch axis or without."""
    net = codec(name)
    wav = nets.signal(1, net.channels, 25 * net.hop + 5)
    whole = net.encode(wav)
    room = torch.zeros(3, net.channels, 2 * wav.shape[2])
    room[1, :, ::2] = wav[0]
    time_major = wav.transpose(1, 2).contiguous().transpose(1, 2)
    for same in (wav[0], wav.double(), wav.numpy(), room[1:2, :, ::2], time_major):
        assert_codes_equal(net.encode(same), whole)
    assert_codes_equal(net.encode(np.asfortranarray(wav.numpy())), whole)
    assert_codes_equal(net.encode([wav[0]]), whole)
    if net.channels == 1:
        assert_codes_equal(net.encode(wav[0, 0]), whole)


@each_streaming
def test_latency_is_what_info_says(name: str) -> None:
    """Fed little by little, the stream is never later than one frame and ``latency`` samples.

    But for the beginning, where padding by reflection must have seen what it reflects.
    """
    net = codec(name)
    hop, latency = net.hop, net.info.latency
    start = 40 * hop
    wav = nets.signal(1, net.channels, start + 6 * hop + latency + 5)
    stream = net.stream()
    ready = stream.decode(stream.encode(wav[..., :start])).shape[2]
    step, worst = max(1, hop // 10), start - ready
    for begin in range(start, wav.shape[2], step):
        ready += stream.decode(stream.encode(wav[..., begin : begin + step])).shape[2]
        worst = max(worst, min(begin + step, wav.shape[2]) - ready)
    assert latency < worst <= latency + hop


def test_the_reference_makes_no_promise() -> None:
    with use_backend("reference"):
        assert not codec("encodec").info.invariant
        assert not nets.encodec().info.invariant
    assert codec("encodec").info.invariant == (_native.cpu.why_not is None)


FULL_SIZE: dict[str, Callable[[], Codec]] = {
    "encodec_24khz": lambda: random(encodec.build("encodec_24khz")),
    "encodec_32khz": lambda: random(encodec.build("encodec_32khz")),
    "encodec_48khz": lambda: random(encodec.build("encodec_48khz")),
    "lyra_v2": lyra_v2,
    "dac_16khz": lambda: nets.made(dac, dac.PRESETS["dac_16khz"]),
    "mimi_24khz": lambda: nets.made(mimi, mimi.PRESETS["mimi_24khz"]),
    "dac_16khz, medium": lambda: at_medium(nets.made(dac, dac.PRESETS["dac_16khz"])),
    "audiodec_vctk_v1": lambda: nets.made(audiodec, audiodec.PRESETS["audiodec_vctk_v1"]),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name: str) -> None:
    """Once with the published sizes: pieces, batch, list and threads together."""
    net = FULL_SIZE[name]()
    size = net.sample_rate_hz * (21 if name == "encodec_48khz" else 13) // 20
    wav = nets.signal(2, net.channels, size)
    with threads(1):
        whole = net.encode(wav)
        heard = net.decode(whole)
    with threads(2):
        pair = net.encode([wav[1], wav[0, :, : size // 3], wav[0]])
        assert torch.equal(pair.tokens[[2, 0]], whole.tokens)
        assert torch.equal(net.decode(whole), heard)
    assert whole.tokens[0].unique(dim=1).shape[1] >= 0.8 * whole.tokens.shape[2]
    if not net.info.streamable:
        return
    stream, edges, got, samples = net.stream(2), [0, 1, 700, 701, size // 2, size], [], []
    for begin, end in zip(edges, edges[1:], strict=False):
        codes = stream.encode(wav[..., begin:end], final=end == size)
        got.append(codes.tokens)
        samples.append(stream.decode(codes, final=end == size))
    assert torch.equal(torch.cat(got, dim=2), whole.tokens)
    assert torch.equal(torch.cat(samples, dim=2), heard)
