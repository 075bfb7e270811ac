"""Lyra's weights: the names and shapes read from the graphs, and that they give LiteRT's results.

The nets here are torch's own convolutions in float64 over the whole clip, padded with zeros on the
left: a second opinion on the layer table, independent of the streaming layers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.codecs.lyra_weights import (
    FILES,
    load_lyra_weights,
    lyra_is_int8,
    lyra_layers,
)
from fastcodec.errors import FormatError, WeightsError

LYRA = Path("data") / "lyra_v2"
RATES = {64: 16, 120: 30, 184: 46}  # bits of a packet -> codebooks


@pytest.fixture(scope="module")
def float32(shared: Path) -> dict[str, Tensor]:
    return load_lyra_weights(shared / LYRA / "float32")


@pytest.fixture(scope="module")
def int8(shared: Path) -> dict[str, Tensor]:
    return load_lyra_weights(shared / LYRA / "int8")


def test_all_layers_have_their_shapes(float32: dict[str, Tensor], int8: dict[str, Tensor]) -> None:
    layers = [layer for half in ("encoder", "decoder") for layer in lyra_layers(half)]
    shapes = {f"{layer.name}.weight": layer.shape for layer in layers}
    shapes |= {f"{layer.name}.bias": (layer.out_channels,) for layer in layers}
    shapes["quantizer.codebooks"] = (46, 16, 64)
    for state in (float32, int8):
        assert {name: tuple(value.shape) for name, value in state.items()} == shapes
        assert {value.dtype for value in state.values()} == {torch.float32}
    assert not any(int8[name].equal(float32[name]) for name in shapes if "depthwise.b" not in name)


def test_tells_int8_from_float32(shared: Path) -> None:
    assert lyra_is_int8(shared / LYRA / "int8")
    assert not lyra_is_int8(shared / LYRA / "float32")


@pytest.mark.parametrize("bits", RATES)
def test_float32_weights_give_the_reference(
    shared: Path, float32: dict[str, Tensor], bits: int
) -> None:
    reference = np.load(shared / LYRA / "float32" / f"reference_{bits}bits.npz")
    count = RATES[bits]
    latents = _encode(float32, torch.from_numpy(reference["x"]).double() / 32768)
    assert _distance(latents, reference["latent"]) < 1e-5
    codes, dequantised = _quantize(float32["quantizer.codebooks"][:count], latents)
    np.testing.assert_array_equal(codes, reference["codes"][:, :count])
    assert (reference["codes"][:, count:] == -1).all()
    np.testing.assert_array_equal(dequantised, reference["dequant"])
    audio = _decode(float32, torch.from_numpy(reference["dequant"]))
    assert _distance(audio, reference["y"]) < 1e-5


def test_dequantised_weights_come_near_the_int8_reference(
    shared: Path, int8: dict[str, Tensor]
) -> None:
    reference = np.load(shared / LYRA / "int8" / "reference_184bits.npz")
    latents = _encode(int8, torch.from_numpy(reference["x"]).double() / 32768)
    assert _distance(latents, reference["latent"]) < 0.08
    audio = _decode(int8, torch.from_numpy(reference["dequant"]))
    assert _distance(audio, reference["y"]) < 0.1


def test_names_the_missing_files(tmp_path: Path) -> None:
    (tmp_path / FILES[0]).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="lacks quantizer.tflite, lyragan.tflite"):
        load_lyra_weights(tmp_path)


def test_lists_what_another_graph_lacks(shared: Path, tmp_path: Path) -> None:
    source = shared / LYRA / "float32"
    for name, other in zip(FILES, reversed(FILES), strict=True):
        shutil.copyfile(source / other, tmp_path / name)
    with pytest.raises(WeightsError, match=r"not a Lyra v2 encoder.*encoder\.conv0.*encoder\.out"):
        load_lyra_weights(tmp_path)


def test_refuses_a_quantizer_without_codebooks(shared: Path, tmp_path: Path) -> None:
    source = shared / LYRA / "float32"
    for name, other in zip(FILES, (FILES[0], FILES[0], FILES[2]), strict=True):
        shutil.copyfile(source / other, tmp_path / name)
    with pytest.raises(WeightsError, match="expected 46 codebooks, got 0"):
        load_lyra_weights(tmp_path)


def test_a_cut_file_is_a_format_error(shared: Path, tmp_path: Path) -> None:
    source = shared / LYRA / "float32"
    for name in FILES:
        (tmp_path / name).write_bytes((source / name).read_bytes()[:-100_000])
    with pytest.raises(FormatError, match=FILES[0]):
        load_lyra_weights(tmp_path)


def _encode(state: dict[str, Tensor], wav: Tensor) -> Tensor:
    """Latents [T, 64] of wav [S]."""
    x = _conv(state, "encoder.conv0", wav[None, None], stride=16)
    for i, (groups, stride, down_groups) in enumerate(((1, 5, 1), (2, 2, 2), (4, 2, 4))):
        x = _units(state, f"encoder.blocks.{i}", x, groups)
        x = _conv(state, f"encoder.blocks.{i}.down", _leaky(x), stride, groups=down_groups)
    return _conv(state, "encoder.out", _leaky(x), groups=4)[0].T


def _decode(state: dict[str, Tensor], latents: Tensor) -> Tensor:
    """Wav [S] of latents [T, 64]."""
    x = _conv(state, "decoder.conv0", latents.double().T[None], groups=4)
    for i, (groups, stride, up_groups) in enumerate(((4, 2, 4), (2, 2, 2), (1, 5, 1))):
        x = _conv_transpose(state, f"decoder.blocks.{i}.up", _leaky(x), stride, up_groups)
        x = _units(state, f"decoder.blocks.{i}", x, groups)
    return _conv_transpose(state, "decoder.out", _leaky(x), 16, 1)[0, 0]


def _units(state: dict[str, Tensor], prefix: str, x: Tensor, groups: int) -> Tensor:
    for j, dilation in enumerate((1, 3, 9)):
        unit = f"{prefix}.units.{j}"
        y = _conv(state, f"{unit}.depthwise", _leaky(x), dilation=dilation, groups=x.shape[1])
        y = _leaky(_conv(state, f"{unit}.pointwise", y))
        x = x + _conv(state, f"{unit}.grouped", y, groups=groups)
    return x


def _conv(
    state: dict[str, Tensor],
    name: str,
    x: Tensor,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
    left = (weight.shape[2] - 1) * dilation + 1 - stride
    return F.conv1d(F.pad(x, (left, 0)), weight, bias, stride, 0, dilation, groups)


def _conv_transpose(
    state: dict[str, Tensor], name: str, x: Tensor, stride: int, groups: int
) -> Tensor:
    weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
    y = F.conv_transpose1d(x, weight, bias, stride, groups=groups)
    return y[..., : x.shape[2] * stride]


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.3)


def _quantize(codebooks: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [T, K] and the sum of their words [T, 64], as quantizer.tflite computes them."""
    residual, total, codes = latents.float(), torch.zeros(latents.shape), []
    for book in codebooks:
        index = ((residual[:, None] - book) ** 2).sum(dim=2).argmin(dim=1)
        codes.append(index)
        total = total + book[index]
        residual = residual - (residual + (book[index] - residual))
    return torch.stack(codes, dim=1), total


def _distance(ours: Tensor, reference: np.ndarray) -> float:
    difference = np.linalg.norm(ours.double().numpy() - reference)
    return float(difference / np.linalg.norm(reference))
