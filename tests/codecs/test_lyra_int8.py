"""Lyra v1.3's int8 nets give LiteRT's bits, whatever the pushes, the batch or the threads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcodec import _native, ops
from fastcodec.codecs.lyra_graph import LyraGraph
from fastcodec.codecs.lyra_int8 import LyraInt8, load_lyra_int8
from fastcodec.codecs.lyra_weights import FILES, read_lyra_graphs
from fastcodec.errors import WeightsError
from fastcodec.io.tflite import Subgraph
from fastcodec.layers.streaming import StreamingModule

from ..backends import needs_native, threads

LYRA = Path("data") / "lyra_v2"
RATES = {64: 16, 120: 30, 184: 46}  # bits of a packet -> codebooks
PLACES = st.lists(st.floats(0, 1), max_size=6)


@pytest.fixture(scope="module")
def nets(shared: Path) -> LyraInt8:
    return load_lyra_int8(shared / LYRA / "int8")


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("bits", RATES)
def test_equals_the_reference(shared: Path, nets: LyraInt8, bits: int) -> None:
    reference = np.load(shared / LYRA / "int8" / f"reference_{bits}bits.npz")
    latents = nets.encoder(_wav(reference["x"]))
    np.testing.assert_array_equal(latents[0].T, reference["latent"])
    codes = ops.rvq_encode(latents, nets.codebooks[: RATES[bits]], None)
    np.testing.assert_array_equal(codes[0].T, reference["codes"][:, : RATES[bits]])
    dequantised = torch.from_numpy(reference["dequant"].T.copy())[None]
    _assert_same_audio(nets.decoder(dequantised)[0, 0].numpy(), reference["y"])


@pytest.mark.golden
@pytest.mark.parametrize("name", ["lyra_v2_int8_sample1", "lyra_v2_int8_sample2"])
def test_equals_the_golden_vectors(shared: Path, nets: LyraInt8, name: str) -> None:
    arrays = np.load(shared / "golden" / "codecs" / f"{name}.npz")
    manifest = json.loads((shared / "golden" / "codecs" / "manifest.json").read_text())
    latents = nets.encoder(_wav(arrays["input"][0]))
    np.testing.assert_array_equal(latents[0].T, arrays["latent"])
    codes = ops.rvq_encode(latents, nets.codebooks, None)
    np.testing.assert_array_equal(codes[0], arrays["codes"])
    for rate, count in (("3_2", 16), ("6_0", 30), ("9_2", 46)):
        audio = nets.decoder(ops.rvq_decode(codes[:, :count], nets.codebooks))[0, 0].numpy()
        stored = manifest["cases"][name]["arrays"][f"audio_{rate}kbps"]
        head, every = audio[: stored["head"]], audio[:: stored["step"]]
        _assert_same_audio(head, arrays[f"audio_{rate}kbps__head"])
        _assert_same_audio(every, arrays[f"audio_{rate}kbps__every"])


@needs_native
@settings(max_examples=15)
@given(frames=st.integers(1, 8), tail=st.integers(0, 319), batch=st.integers(1, 3), places=PLACES)
def test_pushes_equal_the_whole(
    nets: LyraInt8, frames: int, tail: int, batch: int, places: list[float]
) -> None:
    wav = _noise(batch, 1, 320 * frames + tail)
    with torch.no_grad():
        latents = nets.encoder(wav)
        assert latents.shape == (batch, 64, frames)
        assert torch.equal(_pushed(nets.encoder, wav, places), latents)
        audio = nets.decoder(latents)
        assert audio.shape == (batch, 1, 320 * frames)
        assert torch.equal(_pushed(nets.decoder, latents, places), audio)


@needs_native
def test_batch_and_threads_do_not_matter(nets: LyraInt8) -> None:
    wav = _noise(3, 1, 3200)
    latents, audio = nets.encoder(wav), nets.decoder(nets.encoder(wav))
    with threads(1):
        for row in range(3):
            alone = nets.encoder(wav[row : row + 1])
            assert torch.equal(alone, latents[row : row + 1])
            assert torch.equal(nets.decoder(alone), audio[row : row + 1])


def test_the_codecs_input_is_left_alone(nets: LyraInt8) -> None:
    wav, latents = _noise(1, 1, 640), _noise(1, 64, 3) * 20
    for net, x in ((nets.encoder, wav), (nets.decoder, latents)):
        before = x.clone()
        net(x)
        assert torch.equal(x, before)


def test_refuses_the_float32_weights(shared: Path) -> None:
    with pytest.raises(WeightsError, match="not Lyra v1.3|expected INT8"):
        load_lyra_int8(shared / LYRA / "float32")


def test_refuses_another_net(shared: Path, tmp_path: Path) -> None:
    for name, other in zip(FILES, reversed(FILES), strict=True):
        shutil.copyfile(shared / LYRA / "int8" / other, tmp_path / name)
    with pytest.raises(WeightsError, match="not a Lyra v2 encoder"):
        load_lyra_int8(tmp_path)


def test_refuses_a_scale_that_does_not_fit_its_neighbour(shared: Path) -> None:
    graph = read_lyra_graphs(shared / LYRA / "int8")[0][0]
    last = [op for op in graph.operators if op.name == "CONV_2D"][-1]
    half = LyraGraph("encoder", _with_doubled_scale(graph, last.inputs[0]))
    right = LyraGraph("encoder", graph).input_scale("encoder.out")
    with pytest.raises(WeightsError, match=r"encoder\.out: expected an input with Scale"):
        half.int8_conv("encoder.out", right)


def _with_doubled_scale(graph: Subgraph, index: int) -> Subgraph:
    tensors = list(graph.tensors)
    old = tensors[index].quantization
    assert old is not None
    quantization = dataclasses.replace(old, scale=old.scale * 2)
    tensors[index] = dataclasses.replace(tensors[index], quantization=quantization)
    return dataclasses.replace(graph, tensors=tuple(tensors))


def _pushed(net: StreamingModule, x: Tensor, places: list[float]) -> Tensor:
    edges = [0, *sorted(round(place * x.shape[2]) for place in places), x.shape[2]]
    state, pieces = net.init_state(len(x)), []
    for i, begin in enumerate(edges[:-1]):
        pieces.append(net.push(x[..., begin : edges[i + 1]], state, final=i == len(edges) - 2))
    return torch.cat(pieces, dim=2)


def _noise(batch: int, channels: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, channels, frames, generator=generator) / 10


def _wav(pcm: np.ndarray) -> Tensor:
    return torch.from_numpy(pcm.astype(np.float32) / 32768)[None, None]


def _assert_same_audio(ours: np.ndarray, reference: np.ndarray) -> None:
    """Every bit with the native kernels; the float layers at the end otherwise round as torch's."""
    if _native.cpu.why_not is None and ops.forced_backend() in (None, "cpu"):
        np.testing.assert_array_equal(ours, reference)
    else:
        np.testing.assert_allclose(ours, reference, atol=1e-5 * np.abs(reference).max())
