"""Codecs on a GPU against the CPU: the same codes but for ties, and the five promises there.

Each test is also run with the CPU in the GPU's place: without a GPU that tries the test itself.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor

import fastcodec
from fastcodec import Codec, use_backend
from fastcodec.layers.graph import Capture
from fastcodec.layers.quantize import FactorisedQuantizer, ResidualQuantizer

from .. import nets

pytestmark = pytest.mark.usefixtures("one_thread")

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
ALL = {**nets.STREAMING, **nets.WHOLE}
NO_GRAPH = {"soundstream, audiolm", "soundstream, deeper"}
TIE = 1e-4  # of the squared residual: far above rounding, far below a wrong word
AUDIO = 1e-5


def _device(name: str, least: int = 1) -> object:
    reason = f"there are {GPUS} NVIDIA GPUs, this needs {least}"
    marks = [pytest.mark.gpu, pytest.mark.skipif(GPUS < least, reason=reason)]
    return pytest.param(name, marks=marks)


on_each = pytest.mark.parametrize("device", ["cpu", _device("cuda:0")])
each = pytest.mark.parametrize("name", ALL)
each_streaming = pytest.mark.parametrize("name", nets.STREAMING)


@functools.cache
def on_cpu(name: str) -> Codec:
    return ALL[name]()


@functools.cache
def codec(name: str, device: str) -> Codec:
    return copy.deepcopy(on_cpu(name)).to(device)


def signals(net: Codec, rows: int, frames: int = 30) -> Tensor:
    return nets.signal(rows, net.channels, frames * net.hop + 3)


def assert_codes(net: Codec, wav: Tensor, got: Tensor, want: Tensor) -> None:
    """Equal, or where a frame first differs both words are as near as rounding can tell."""
    assert got.shape == want.shape
    rows, frames = (got != want).any(dim=1).nonzero(as_tuple=True)
    if not len(rows):
        return
    q = net.quantizer
    assert isinstance(q, ResidualQuantizer | FactorisedQuantizer) and q.hold is None, (
        f"{len(rows)} frames differ"
    )
    latents = net.encoder(wav).double()
    for row, frame in zip(rows.tolist(), frames.tolist(), strict=True):
        at = int((got[row, :, frame] != want[row, :, frame]).int().argmax())
        before = want[row : row + 1, :at, frame : frame + 1]
        left = latents[row, :, frame]
        if at:
            left = left - q.decode(before)[0, :, 0].double()
        if isinstance(q, ResidualQuantizer):
            seen, words = left, q.codebooks[at].double()
        else:
            level = q._first(None)[at]
            seen = level.project(left.float()[None, :, None])[0, :, 0].double()
            seen, words = seen / seen.norm(), level.codebook.double()
            words = words / words.norm(dim=1, keepdim=True)
        mine, theirs = (words[codes[row, at, frame]] for codes in (got, want))
        gap = (seen - mine).square().sum() - (seen - theirs).square().sum()
        assert gap.abs() <= TIE * seen.square().sum()


@each
@on_each
def test_codes_and_samples_are_those_of_the_cpu(name: str, device: str) -> None:
    cpu, net = on_cpu(name), codec(name, device)
    wav = signals(cpu, 2)
    want = cpu.encode(wav)
    got = net.encode(wav.to(device))
    assert got.tokens.device == torch.device(device)
    assert_codes(cpu, wav, got.tokens.cpu(), want.tokens)
    heard, y = cpu.decode(want), net.decode(want)
    assert y.device == torch.device(device)
    assert (y.cpu() - heard).norm() <= AUDIO * heard.norm()


@each
@on_each
def test_any_batch_and_any_padding(name: str, device: str) -> None:
    """Bit for bit: a row alone, in any batch, in a list beside longer ones."""
    net = codec(name, device)
    wav = signals(net, 5).to(device)
    whole = net.encode(wav)
    heard = net.decode(whole)
    for rows in ([2], [4, 0], [1, 1, 3], [0, 1, 2, 3, 4, 0, 1, 2]):
        some = net.encode(wav[rows])
        assert torch.equal(some.tokens, whole.tokens[rows])
        assert torch.equal(net.decode(some), heard[rows])
    short = wav[1, :, : 11 * net.hop]
    together = net.encode([wav[0], short])
    alone = net.encode(short)
    frames, samples = alone.tokens.shape[2], int(alone.n_samples[0])
    assert torch.equal(together.tokens[1, :, :frames], alone.tokens[0])
    assert torch.equal(together.tokens[:1], whole.tokens[:1])
    assert torch.equal(net.decode(together)[1, :, :samples], net.decode(alone)[0])


@each_streaming
@on_each
def test_any_pieces(name: str, device: str) -> None:
    net = codec(name, device)
    wav = signals(net, 2).to(device)
    whole = net.encode(wav)
    heard = net.decode(whole)
    edges = [0, 1, 5, 5, 9 * net.hop + 2, 20 * net.hop, wav.shape[2]]
    stream, codes, samples = net.stream(2), [], []
    for begin, end in zip(edges, edges[1:], strict=False):
        final = end == wav.shape[2]
        codes.append(stream.encode(wav[..., begin:end], final))
        samples.append(stream.decode(codes[-1], final))
    assert torch.equal(torch.cat([part.tokens for part in codes], dim=2), whole.tokens)
    assert torch.equal(torch.cat(samples, dim=2), heard)


@each
@on_each
def test_the_number_of_host_threads_changes_nothing(name: str, device: str) -> None:
    net = codec(name, device)
    wav = signals(net, 2).to(device)
    whole = net.encode(wav)
    torch.set_num_threads(2)
    try:
        assert torch.equal(net.encode(wav).tokens, whole.tokens)
    finally:
        torch.set_num_threads(1)


@pytest.fixture
def captures(device: str) -> Iterator[None]:
    """On the CPU a stand-in captures, and each layer pushes for itself, as on a GPU."""
    if device != "cpu":
        yield
        return
    with (
        mock.patch("fastcodec.codecs.base.CudaCapture", lambda device: Capture()),
        mock.patch("fastcodec.layers.plan.serves", lambda x: False),
        mock.patch.object(Codec, "_graphs_device", "cpu"),
    ):
        yield


@pytest.mark.parametrize("name", [name for name in nets.STREAMING if name not in NO_GRAPH])
@on_each
def test_a_graph_gives_what_pushes_give(name: str, device: str, captures: None) -> None:
    """Bit for bit, two streams in turns, and both ends."""
    net = codec(name, device)
    unit = net.frame_multiple
    size, count = 2 * unit * net.hop, max(8, 16 // unit)
    wavs = [nets.signal(1, net.channels, count * size + 3, seed=i).to(device) for i in (0, 1)]
    graphs, plain = ([net.stream(graph=graph) for _ in wavs] for graph in (True, False))
    for begin in range(0, wavs[0].shape[2], size):
        for wav, by_graph, by_push in zip(wavs, graphs, plain, strict=True):
            piece = wav[..., begin : begin + size]
            final = begin + size >= wav.shape[2]
            got, want = by_graph.encode(piece, final), by_push.encode(piece, final)
            assert torch.equal(got.tokens, want.tokens)
            # The decoder's pushes must be of whole frames too.
            whole = want.tokens.shape[2] % unit == 0
            if final or (whole and want.tokens.shape[2]):
                y, heard = by_graph.decode(want, final), by_push.decode(want, final)
                assert torch.equal(y, heard)
            else:
                assert not want.tokens.shape[2] or not whole
    assert net._graphs is not None and len(net._graphs) >= 1


@pytest.mark.gpu
@pytest.mark.skipif(not GPUS, reason="there is no NVIDIA GPU")
@pytest.mark.parametrize("graph", [False, True])
def test_two_streams_of_the_gpu(graph: bool) -> None:
    """Codecs on CUDA streams of their own, at the same time; each is right."""
    net = codec("encodec", "cuda:0")
    wavs = [nets.signal(1, 1, 64 * net.hop, seed=i).cuda() for i in (0, 1)]
    want = [net.encode(wav) for wav in wavs]
    lanes = [torch.cuda.Stream() for _ in wavs]
    torch.cuda.synchronize()
    live = [net.stream(graph=graph) for _ in wavs]
    found: list[list[Tensor]] = [[], []]
    for begin in range(0, 64 * net.hop, 4 * net.hop):
        for i, (wav, lane) in enumerate(zip(wavs, lanes, strict=True)):
            final = begin + 4 * net.hop == wav.shape[2]
            with torch.cuda.stream(lane):
                piece = wav[..., begin : begin + 4 * net.hop]
                found[i].append(live[i].encode(piece, final).tokens)
    torch.cuda.synchronize()
    for tokens, codes in zip(found, want, strict=True):
        assert torch.equal(torch.cat(tokens, dim=2), codes.tokens)


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2, reason=f"there are {GPUS} NVIDIA GPUs, this needs 2")
def test_the_second_gpu_while_the_first_is_current() -> None:
    first, second = codec("dac", "cuda:0"), codec("dac", "cuda:1")
    wav = signals(first, 2)
    a, b = first.encode(wav), second.encode(wav)
    assert b.tokens.device == torch.device("cuda:1") and torch.cuda.current_device() == 0
    assert torch.equal(a.tokens.cpu(), b.tokens.cpu())
    assert torch.equal(first.decode(a).cpu(), second.decode(b).cpu())


@on_each
def test_autocast_and_tf32_do_not_reach_the_codes(device: str) -> None:
    net = codec("dac", device)
    wav = signals(net, 1).to(device)
    want, kind = net.encode(wav), torch.device(device).type
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    try:
        setting.fp32_precision = "tf32"
        with torch.autocast(kind, torch.bfloat16):
            got = net.encode(wav)
            assert torch.equal(net.decode(got), net.decode(want))
    finally:
        setting.fp32_precision = before
    assert torch.equal(got.tokens, want.tokens)
    with use_backend("reference"):
        plain = net.encode(wav)
        with torch.autocast(kind, torch.bfloat16):
            assert torch.equal(net.encode(wav).tokens, plain.tokens)


@on_each
def test_a_bundled_codec_by_its_name(device: str) -> None:
    net = fastcodec.load("fastcodec_16khz", device=device)
    y = net.decode(net.encode(nets.signal(1, 1, 8000)))
    assert y.device == torch.device(device) and torch.isfinite(y).all()
