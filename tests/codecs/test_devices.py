"""All of the public API on a pretended GPU: nothing of a codec, and no result, is elsewhere.

Values are those of the CPU's reference: the device must not matter, only the rounding of sums.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from fastcodec import Codec, Codes, use_backend
from fastcodec.codecs import lyra
from fastcodec.layers import graph
from fastcodec.layers.graph import Capture

from .. import nets
from ..pretend_gpu import OnGpu, PretendGpu

pytestmark = pytest.mark.usefixtures("one_thread")

GPU = "cuda:0"
ALL = {**nets.STREAMING, **nets.WHOLE}
each = pytest.mark.parametrize("name", ALL)
each_streaming = pytest.mark.parametrize("name", nets.STREAMING)
NO_GRAPH = {"soundstream, audiolm", "soundstream, deeper"}


@functools.cache
def on_cpu(name: str) -> Codec:
    return ALL[name]()


def on_gpu(name: str, device: str = GPU) -> Codec:
    return copy.deepcopy(on_cpu(name)).to(device)


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with PretendGpu() as mode:
        yield mode


@contextmanager
def reference() -> Iterator[None]:
    with use_backend("reference"):
        yield


def close(got: Tensor, want: Tensor) -> None:
    assert isinstance(got, OnGpu)
    got = got.cpu()
    assert got.shape == want.shape
    assert (got.double() - want.double()).norm() <= 1e-5 * want.double().norm()


def same(got: Codes, want: Codes) -> None:
    assert isinstance(got.tokens, OnGpu)
    assert torch.equal(got.tokens.cpu(), want.tokens)
    assert torch.equal(got.n_samples, want.n_samples)
    if want.scale is not None:
        assert got.scale is not None
        close(got.scale, want.scale)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(gpu: PretendGpu) -> None:
    here, there = torch.ones(3), torch.ones(3, device=GPU)
    with pytest.raises(RuntimeError, match="on one device"):
        here + there
    with pytest.raises(RuntimeError, match="on one device"):
        there + torch.ones(3, device="cuda:1")
    with pytest.raises(TypeError):
        there.numpy()
    assert (there + 1).sum().item() == 6 and (there * here.sum()).device == torch.device(GPU)
    with gpu.capturing():
        assert isinstance(there + torch.zeros((), device=GPU), OnGpu)
        for wait in (
            lambda: there.sum().item(),
            lambda: bool((there > 0).any()),
            lambda: there[there > 0],
            lambda: there.cpu(),
            lambda: here.to(GPU),
        ):
            with pytest.raises(RuntimeError, match="would wait"):
                wait()


@each
def test_encode_and_decode(name: str, gpu: PretendGpu) -> None:
    cpu, net = on_cpu(name), on_gpu(name)
    assert net.device == torch.device(GPU)
    wav = nets.signal(2, net.channels, 30 * net.hop + 3)
    with reference():
        want = cpu.encode(wav)
        heard = cpu.decode(want)
    codes = net.encode(wav.to(GPU))
    same(codes, want)
    same(net.encode(wav), want)  # it goes where the codec is
    same(net.encode(wav.numpy()), want)
    close(net.decode(codes), heard)
    close(net.decode(want), heard)
    fewer = net.encode(wav, n_codebooks=1)
    assert torch.equal(fewer.tokens.cpu(), want.tokens[:, :1])


@each
def test_lists_of_unequal_lengths(name: str, gpu: PretendGpu) -> None:
    cpu, net = on_cpu(name), on_gpu(name)
    wavs = [nets.signal(net.channels, n, seed=n) for n in (30 * net.hop, 11 * net.hop + 2)]
    with reference():
        want = cpu.encode(wavs)
        heard = cpu.decode(want)
    codes = net.encode([wavs[0].to(GPU), wavs[1]])
    same(codes, want)
    close(net.decode(codes), heard)
    assert isinstance(codes[[1, 0]].truncate(1).tokens, OnGpu)
    assert all(isinstance(row, OnGpu) for row in codes.ragged())


@each_streaming
def test_streams(name: str, gpu: PretendGpu) -> None:
    cpu, net = on_cpu(name), on_gpu(name)
    wav = nets.signal(2, net.channels, 31 * net.hop + 3)
    with reference():
        want = cpu.encode(wav)
        heard = cpu.decode(want)
    stream, codes, samples = net.stream(2), [], []
    for begin in range(0, wav.shape[2], 7 * net.hop):
        piece = wav[..., begin : begin + 7 * net.hop]
        final = begin + piece.shape[2] == wav.shape[2]
        codes.append(stream.encode(piece, final))
        samples.append(stream.decode(codes[-1], final))
    got = torch.cat([part.tokens for part in codes], dim=2)
    assert torch.equal(got.cpu(), want.tokens)
    close(torch.cat(samples, dim=2), heard)


@each
def test_the_second_of_two(name: str, gpu: PretendGpu) -> None:
    """Launches go to the current GPU: inside a call that is the codec's."""
    net, seen = on_gpu(name, "cuda:1"), set()
    push = type(net.encoder).push

    def watched(self: Any, x: Tensor, state: Any, final: bool = False) -> Tensor:
        seen.add(torch.cuda.current_device())
        return push(self, x, state, final)

    wav = nets.signal(1, net.channels, 12 * net.hop)
    with mock.patch.object(type(net.encoder), "push", watched):
        codes = net.encode(wav.to(GPU))
        y = net.decode(codes)
    assert seen == {1} and torch.cuda.current_device() == 0
    assert codes.tokens.device == y.device == torch.device("cuda:1")


def test_errors_name_what_is_wrong_with_the_tokens(gpu: PretendGpu) -> None:
    net = on_gpu("encodec")
    with pytest.raises(ValueError, match=r"0\.\.31 for small, got 0\.\.40"):
        net.decode(torch.tensor([[[0, 40]]]).to(GPU))
    with pytest.raises(ValueError, match="finite"):
        net.encode(torch.full((1, 1, 80), float("nan")).to(GPU))
    with pytest.raises(ValueError, match="finite"):
        net.stream().encode(torch.full((1, 1, 80), float("nan")).to(GPU))


def test_lyra(gpu: PretendGpu) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = lyra.build("lyra_v2").eval().requires_grad_(False)
    wav = nets.signal(1, 1, 10 * net.hop)
    with reference():
        want = net.encode(wav)
        heard = net.decode(want)
    net = copy.deepcopy(net).to(GPU)
    codes = net.encode(wav)
    same(codes, want)
    close(net.decode(codes), heard)


class Pretended(Capture):
    """A capture that fails where CUDA's would: the host waits, or hands over memory."""

    def __init__(self, mode: PretendGpu) -> None:
        self.mode, self.replays = mode, 0

    def record(self, run: graph.Run) -> Any:
        with self.mode.capturing():
            replay, y = super().record(run)

        def counted() -> None:
            self.replays += 1
            replay()

        return counted, y


@pytest.mark.parametrize("name", [name for name in nets.STREAMING if name not in NO_GRAPH])
def test_graphs_of_every_streaming_codec(name: str, gpu: PretendGpu) -> None:
    """Nothing in a push waits for the host, and replays give what pushes give."""
    cpu, net, capture = on_cpu(name), on_gpu(name), Pretended(gpu)
    unit = net.frame_multiple
    size, count = 2 * unit * net.hop, max(8, 16 // unit)
    wav = nets.signal(2, net.channels, count * size + 3)
    with reference():
        want = cpu.encode(wav)
        heard = cpu.decode(want)
    with mock.patch("fastcodec.codecs.base.CudaCapture", lambda device: capture):
        stream = net.stream(2, graph=True)
    codes = [stream.encode(x) for x in wav[..., : count * size].split(size, dim=2)]
    codes.append(stream.encode(wav[..., count * size :], final=True))
    tokens = torch.cat([part.tokens for part in codes], dim=2)
    assert torch.equal(tokens.cpu(), want.tokens)
    assert capture.replays >= 2
    encoded, frames = capture.replays, 2 * unit
    whole = tokens.shape[2] // frames * frames
    heads = tokens[..., : whole - frames].split(frames, dim=2)
    samples = [stream.decode(part) for part in heads]
    samples.append(stream.decode(tokens[..., whole - frames :], final=True))
    y = torch.cat(samples, dim=2)
    assert capture.replays > encoded
    close(y[..., : heard.shape[2]], heard)


def test_why_there_is_no_graph(gpu: PretendGpu) -> None:
    with pytest.raises(ValueError, match="for a codec on a GPU, small is on cpu"):
        on_cpu("encodec").stream(graph=True)
    for name in NO_GRAPH:
        with pytest.raises(ValueError, match="not the same at every push"):
            on_gpu(name).stream(graph=True)
    net = on_gpu("encodec")
    with mock.patch("fastcodec.codecs.base.CudaCapture", lambda device: Pretended(gpu)):
        stream = net.stream(graph=True)
        assert net.stream(graph=True)._graphs is stream._graphs
        with pytest.raises(ValueError, match="a multiple of 8 samples, got 12"):
            stream.encode(nets.signal(1, 1, 12))
        net.set_precision("medium")
        assert net.stream(graph=True)._graphs is not stream._graphs
