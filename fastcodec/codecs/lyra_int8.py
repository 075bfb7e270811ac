"""Lyra v2's int8 nets (google/lyra@47698dad, v1.3), bit for bit as LiteRT runs them.

The graphs are float at the outside (encoder: up to the first unit of width 256; decoder: from
the units of width 128 on) and int8 inside. The transposed convolutions of the decoder work on one
20 ms frame at a time, which shows in the bits, so they do here (``OverlapAdd``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from fastcodec.codecs.lyra_graph import LyraGraph
from fastcodec.codecs.lyra_weights import DILATIONS, SLOPE, codebooks, read_lyra_graphs
from fastcodec.layers.conv import NONE
from fastcodec.layers.int8 import Add, Dequantize, Pointwise, Quantize, Scale
from fastcodec.layers.plan import ChainState
from fastcodec.layers.streaming import Sequential, StreamingModule


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
        _encoder(LyraGraph("encoder", encoder[0])),
        codebooks(quantizer),
        _decoder(LyraGraph("decoder", decoder[0])),
    )


def _encoder(graph: LyraGraph) -> Sequential:
    layers: list[StreamingModule] = [graph.conv("encoder.conv0", NONE)]
    for i in range(2):
        layers += [graph.unit(f"encoder.blocks.{i}.units.{j}") for j in range(len(DILATIONS))]
        layers.append(graph.conv(f"encoder.blocks.{i}.down"))
    first = "encoder.blocks.2.units.0"
    between = graph.rectifier()
    grouped = graph.int8_conv(f"{first}.grouped", between.output_scale)
    real = [graph.conv(f"{first}.depthwise"), graph.conv(f"{first}.pointwise", NONE)]
    integer = [Quantize(between.source_scale), between, grouped, Dequantize(grouped.output_scale)]
    layers.append(Sum([*real, *integer]))
    units, scale = _int8_units(graph, "encoder.blocks.2")
    layers += units
    for name in ("encoder.blocks.2.down", "encoder.out"):
        rectifier = graph.rectifier(scale)
        layer = graph.int8_conv(name, rectifier.output_scale)
        layers += [rectifier, layer]
        scale = layer.output_scale
    return Sequential(*layers, Dequantize(scale))


def _decoder(graph: LyraGraph) -> Sequential:
    layers: list[StreamingModule] = [graph.conv("decoder.conv0", NONE), FloatLeakyRelu()]
    scale = graph.input_scale("decoder.blocks.0.up")
    layers += [Quantize(scale), graph.int8_up("decoder.blocks.0.up", scale, frame=1)]
    scale = graph.input_scale("decoder.blocks.0.units.0.depthwise")
    body, to = _int8_body(graph, "decoder.blocks.0.units.0", scale)
    layers.append(Sum([FloatLeakyRelu(), Quantize(scale), *body, Dequantize(to)]))
    units, scale = _int8_units(graph, "decoder.blocks.0")
    rectifier = graph.rectifier(scale)
    layers += [*units, rectifier]
    layers.append(graph.int8_up("decoder.blocks.1.up", rectifier.output_scale, frame=2))
    layers += [graph.unit(f"decoder.blocks.1.units.{j}") for j in range(len(DILATIONS))]
    layers.append(graph.up("decoder.blocks.2.up", frame=4))
    layers += [graph.unit(f"decoder.blocks.2.units.{j}") for j in range(len(DILATIONS))]
    return Sequential(*layers, graph.up("decoder.out", frame=20))


def _int8_units(graph: LyraGraph, block: str) -> tuple[list[StreamingModule], Scale]:
    """From real numbers to integers and through the second and third unit; their scale."""
    rectifier = graph.rectifier()
    layers: list[StreamingModule] = [Quantize(rectifier.source_scale)]
    for j in (1, 2):
        prefix, source = f"{block}.units.{j}", rectifier.source_scale
        body, to = _int8_body(graph, prefix, rectifier.output_scale)
        add = Add(to, source, graph.sum_scale(f"{prefix}.grouped"))
        layers.append(Sum([rectifier, *body], add))
        if j == 1:
            rectifier = graph.rectifier(add.output_scale)
    return layers, add.output_scale


def _int8_body(graph: LyraGraph, prefix: str, source: Scale) -> tuple[list[StreamingModule], Scale]:
    """The convolutions of an int8 unit and the scale of their result."""
    depthwise = graph.int8_conv(f"{prefix}.depthwise", source)
    pointwise = graph.int8_conv(f"{prefix}.pointwise", depthwise.output_scale)
    between = graph.rectifier(pointwise.output_scale)
    grouped = graph.int8_conv(f"{prefix}.grouped", between.output_scale)
    return [depthwise, pointwise, between, grouped], grouped.output_scale


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

    def init_state(self, batch_size: int) -> ChainState:
        return self.body.init_state(batch_size)

    def push(self, x: Tensor, state: ChainState, final: bool = False) -> Tensor:
        y = self.body.push(x, state, final)
        if self.add is None:
            return y + x
        total: Tensor = self.add(y, x)
        return total


class FloatLeakyRelu(Pointwise):
    """Leaky ReLU of real numbers."""

    def apply_to(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, SLOPE)
