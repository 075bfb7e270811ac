"""Lyra v2's int8 nets (google/lyra@47698dad, v1.3), bit for bit as LiteRT runs them.

The graphs are float at the outside (encoder: up to the first unit of width 256; decoder: from
the units of width 128 on) and int8 inside. The transposed convolutions of the decoder work on one
20 ms frame at a time, which shows in the bits, so they do here (``OverlapAdd``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec.codecs.lyra_weights import (
    DILATIONS,
    SLOPE,
    LyraLayer,
    codebooks,
    dequantised,
    match_layers,
    parameters,
    read_lyra_graphs,
    torch_weight,
)
from fastcodec.errors import WeightsError
from fastcodec.io.tflite import Operator, Subgraph
from fastcodec.layers.conv import NONE, Activation
from fastcodec.layers.int8 import (
    Add,
    Dequantize,
    Int8Conv1d,
    Int8OverlapAdd,
    LeakyRelu,
    Pointwise,
    Quantize,
    Scale,
)
from fastcodec.layers.ordered import OrderedConv1d, OrderedOverlapAdd
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule

LEAKY = Activation("leaky_relu", SLOPE)


class LyraInt8(NamedTuple):
    """The nets of an int8 folder; encoder and decoder stream like any layer.

    Args:
        encoder: wav [B, 1, S] -> latents [B, 64, S // 320], float32
        codebooks: [46, 16, 64]
        decoder: latents [B, 64, T] -> wav [B, 1, 320 T]
    """

    encoder: Sequential
    codebooks: Tensor
    decoder: Sequential


def load_lyra_int8(folder: str | Path) -> LyraInt8:
    """The nets of a folder for which ``lyra_is_int8`` holds.

    Raises:
        FileNotFoundError, FormatError: as ``load_lyra_weights``
        WeightsError: other networks, or not quantised where Lyra v1.3 is
    """
    encoder, quantizer, decoder = read_lyra_graphs(folder)
    return LyraInt8(
        _encoder(_Half("encoder", encoder[0])),
        codebooks(quantizer),
        _decoder(_Half("decoder", decoder[0])),
    )


def _encoder(half: _Half) -> Sequential:
    layers: list[StreamingModule] = [half.conv("encoder.conv0", NONE)]
    for i in range(2):
        layers += [half.unit(f"encoder.blocks.{i}.units.{j}") for j in range(len(DILATIONS))]
        layers.append(half.conv(f"encoder.blocks.{i}.down"))
    first = "encoder.blocks.2.units.0"
    between, source = half.rectify()
    grouped, to = half.int8_conv(f"{first}.grouped", source)
    float_part = [half.conv(f"{first}.depthwise"), half.conv(f"{first}.pointwise", NONE)]
    body = [*float_part, Quantize(between.source), between, grouped, Dequantize(to)]
    layers.append(Sum(body))
    layers += half.int8_units("encoder.blocks.2")
    for name in ("encoder.blocks.2.down", "encoder.out"):
        rectifier, source = half.rectify()
        layer, to = half.int8_conv(name, source)
        layers += [rectifier, layer]
    return Sequential(*layers, Dequantize(to))


def _decoder(half: _Half) -> Sequential:
    layers: list[StreamingModule] = [half.conv("decoder.conv0", NONE), FloatLeakyRelu()]
    up, source = half.int8_up("decoder.blocks.0.up", frame=1)
    layers += [Quantize(source), up]
    first = "decoder.blocks.0.units.0"
    depthwise, to = half.int8_conv(f"{first}.depthwise")
    pointwise, to = half.int8_conv(f"{first}.pointwise", to)
    between, source = half.rectify(to)
    grouped, to = half.int8_conv(f"{first}.grouped", source)
    quantize = Quantize(half.input_scale(f"{first}.depthwise"))
    body = [FloatLeakyRelu(), quantize, depthwise, pointwise, between, grouped, Dequantize(to)]
    layers.append(Sum(body))
    layers += half.int8_units("decoder.blocks.0")
    rectifier, source = half.rectify()
    up, _ = half.int8_up("decoder.blocks.1.up", frame=2, source=source)
    layers += [rectifier, up]
    layers += [half.unit(f"decoder.blocks.1.units.{j}") for j in range(len(DILATIONS))]
    layers.append(half.up("decoder.blocks.2.up", frame=4))
    layers += [half.unit(f"decoder.blocks.2.units.{j}") for j in range(len(DILATIONS))]
    return Sequential(*layers, half.up("decoder.out", frame=20))


class Sum(StreamingModule):
    """x + body(x), the body giving as many frames as it gets.

    Args:
        body: causal layers of rate 1
        add: what adds centred integers; None: real numbers
    """

    def __init__(self, body: Sequence[StreamingModule], add: Add | None = None) -> None:
        super().__init__()
        self.body = Sequential(*body)
        self.add = add

    def init_state(self, batch_size: int) -> list[Any]:
        return self.body.init_state(batch_size)

    def push(self, x: Tensor, state: list[Any], final: bool = False) -> Tensor:
        y = self.body.push(x, state, final)
        return y + x if self.add is None else self.add(y, x)


class FloatLeakyRelu(Pointwise):
    """Leaky ReLU of real numbers."""

    def apply_to(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, SLOPE)


class _Half:
    """The encoder's or the decoder's graph, taken apart in execution order."""

    def __init__(self, name: str, graph: Subgraph) -> None:
        self._graph = graph
        self._layers = {layer.name: (layer, found) for layer, found in match_layers(name, graph)}
        self._rectifiers = self._int8_rectifiers()
        self._carried = (op for op in graph.operators if op.name == "SUB")

    def conv(self, name: str, activation: Activation = LEAKY) -> OrderedConv1d:
        """A float convolution."""
        layer, operators = self._layers[name]
        weight, bias = self._real(layer, operators)
        return OrderedConv1d(
            weight, bias, layer.stride, layer.dilation, layer.groups, activation
        )

    def unit(self, prefix: str) -> Residual:
        """A float residual unit."""
        inner = [self.conv(f"{prefix}.depthwise"), self.conv(f"{prefix}.pointwise", NONE)]
        return Residual([*inner, self.conv(f"{prefix}.grouped")])

    def up(self, name: str, frame: int) -> OrderedOverlapAdd:
        """A float transposed convolution."""
        layer, operators = self._layers[name]
        weight, bias = self._real(layer, operators)
        self._carried_bias(1)
        return OrderedOverlapAdd(weight, bias, layer.stride, frame, LEAKY)

    def int8_units(self, block: str) -> Iterator[StreamingModule]:
        """The step from real numbers to integers and the second and third unit of a block."""
        rectifier, source = self.rectify()
        yield Quantize(rectifier.source)
        for j in (1, 2):
            depthwise, to = self.int8_conv(f"{block}.units.{j}.depthwise", source)
            pointwise, to = self.int8_conv(f"{block}.units.{j}.pointwise", to)
            between, source = self.rectify(to)
            grouped, to = self.int8_conv(f"{block}.units.{j}.grouped", source)
            following, source = self.peek()
            add = Add(to, rectifier.source, following)
            yield Sum([rectifier, depthwise, pointwise, between, grouped], add)
            if j == 1:
                rectifier, source = self.rectify(following)
