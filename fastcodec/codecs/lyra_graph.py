"""Layers made from Lyra's TFLite graphs, each with the scales that int8 ones have there.

Source: google/lyra@47698dad ``lyra/model_coeffs``; what is checked is what Lyra v1.3 has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec.codecs.lyra_weights import SLOPE, LyraLayer, match_layers, parameters, torch_weight
from fastcodec.errors import WeightsError
from fastcodec.io.tflite import Operator, Subgraph
from fastcodec.layers.conv import NONE, Activation, Conv1d
from fastcodec.layers.int8 import Int8Conv1d, Int8OverlapAdd, LeakyRelu, Scale
from fastcodec.layers.overlap import FloatOverlapAdd
from fastcodec.layers.streaming import Residual

LEAKY = Activation("leaky_relu", SLOPE)


class LyraGraph:
    """The encoder's or the decoder's graph, taken apart in execution order.

    Args:
        half: ``"encoder"`` or ``"decoder"``
        graph: the main subgraph of its file

    Raises:
        WeightsError: from here and from every method: the graph is not as Lyra v1.3 has it
    """

    def __init__(self, half: str, graph: Subgraph) -> None:
        self._graph = graph
        self._layers = {layer.name: (layer, found) for layer, found in match_layers(half, graph)}
        operators = graph.operators
        self._sums = {index: op for op in operators if op.name == "ADD" for index in op.inputs}
        self._carried = iter([op for op in operators if op.name == "SUB"])
        self._rectifiers = iter(
            [
                op
                for op in operators
                if op.name == "LEAKY_RELU" and graph.tensors[op.outputs[0]].dtype == "INT8"
            ]
        )

    def conv(self, name: str, activation: Activation = LEAKY) -> Conv1d:
        """A causal float convolution."""
        layer, operators = self._layers[name]
        weight, bias = self._parameters(layer, operators, "FLOAT32")
        conv = Conv1d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            layer.stride,
            layer.dilation,
            layer.groups,
            left=(layer.kernel - 1) * layer.dilation + 1 - layer.stride,
            activation=activation,
        )
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(bias, requires_grad=False)
        return conv

    def unit(self, prefix: str) -> Residual:
        """A float residual unit."""
        inner = [self.conv(f"{prefix}.depthwise"), self.conv(f"{prefix}.pointwise", NONE)]
        return Residual([*inner, self.conv(f"{prefix}.grouped")])

    def up(self, name: str, frame: int) -> FloatOverlapAdd:
        """A float transposed convolution, ``frame`` steps of its input at a time."""
        layer, operators = self._layers[name]
        weight, bias = self._parameters(layer, operators, "FLOAT32")
        if not torch.equal(self._carried_bias(1), bias):
            raise WeightsError(f"{name}: what is carried over lacks another bias than its own")
        return FloatOverlapAdd(weight, bias, layer.stride, frame, LEAKY)

    def rectifier(self, source: Scale | None = None) -> LeakyRelu:
        """The next int8 leaky ReLU; its input must have the scale ``source``, if given."""
        operator = next(self._rectifiers, None)
        if operator is None:
            raise WeightsError("not Lyra v1.3: expected more LEAKY_RELU on int8")
        found, to = self._scale(operator.inputs[0]), self._scale(operator.outputs[0])
        _check_same("LEAKY_RELU", source or found, found)
        return LeakyRelu(found, to, SLOPE)

    def int8_conv(self, name: str, source: Scale) -> Int8Conv1d:
        """An int8 convolution; its input must have the scale ``source``."""
        layer, operators = self._layers[name]
        weight, bias = self._parameters(layer, operators, "INT8")
        _check_same(name, source, self.input_scale(name))
        to = self._scale(operators[0].outputs[0])
        scales = self._weight_scales(layer, operators)
        return Int8Conv1d(
            weight, bias, scales, source, to, layer.stride, layer.dilation, layer.groups
        )

    def int8_up(self, name: str, source: Scale, frame: int) -> Int8OverlapAdd:
        """An int8 transposed convolution, ``frame`` steps of its input at a time."""
        layer, operators = self._layers[name]
        weight, bias = self._parameters(layer, operators, "INT8")
        to = [self._scale(operator.outputs[0]) for operator in operators]
        for operator in operators:
            _check_same(name, source, self._scale(operator.inputs[2]))
        scales, carried = self._weight_scales(layer, operators), self._carried_bias(len(operators))
        return Int8OverlapAdd(weight, bias, scales, source, to, carried, layer.stride, frame)

    def input_scale(self, name: str) -> Scale:
        """The scale of a layer's input."""
        operator = self._layers[name][1][0]
        return self._scale(operator.inputs[2 if operator.name == "TRANSPOSE_CONV" else 0])

    def sum_scale(self, name: str) -> Scale:
        """The scale of the sum that a layer's output goes into."""
        operator = self._sums.get(self._layers[name][1][0].outputs[0])
        if operator is None:
            raise WeightsError(f"{name}: expected ADD after it")
        return self._scale(operator.outputs[0])

    def _carried_bias(self, count: int) -> Tensor:
        """What the next ``count`` overlap-adds take off their tails: the real biases."""
        found = []
        for operator in islice(self._carried, count):
            bias = self._graph.constant(operator.inputs[1]) if len(operator.inputs) == 2 else None
            found += [np.ravel(bias)] if bias is not None and bias.dtype == np.float32 else []
        if len(found) != count:
            raise WeightsError("not Lyra v1.3: expected SUB of a constant after each upsampling")
        return torch.from_numpy(np.concatenate(found))

    def _parameters(
        self, layer: LyraLayer, operators: Sequence[Operator], dtype: str
    ) -> tuple[Tensor, Tensor]:
        """Weight in torch's layout and bias, as stored (integers, too, in float32)."""
        pairs = [parameters(operator, self._graph) for operator in operators]
        found = sorted({weight.dtype for weight, _ in pairs})
        if found != [dtype]:
            raise WeightsError(f"{layer.name}: expected {dtype} weights, got {', '.join(found)}")
        weight = torch_weight(layer, [np.asarray(weight.data) for weight, _ in pairs])
        bias = np.concatenate([np.asarray(bias.data) for _, bias in pairs])
        return weight, torch.from_numpy(bias.astype(np.float32))

    def _weight_scales(self, layer: LyraLayer, operators: Sequence[Operator]) -> Tensor:
        """[C_out] float32, where a tensor may have one scale for all its channels."""
        parts = []
        for operator in operators:
            stored = parameters(operator, self._graph)[0].quantization
            if stored is None or stored.zero_point.any():
                raise WeightsError(f"{layer.name}: expected weights with scales and no zero point")
            parts.append(np.broadcast_to(stored.scale, layer.out_channels // layer.n_operators))
        return torch.from_numpy(np.concatenate(parts))

    def _scale(self, index: int) -> Scale:
        """The scale of an activation."""
        stored = self._graph.tensors[index].quantization
        if stored is None or stored.scale.size != 1 or not -128 <= stored.zero_point[0] <= 127:
            raise WeightsError(f"expected one int8 scale for {self._graph.tensors[index].name}")
        return Scale(float(stored.scale[0]), int(stored.zero_point[0]))


def _check_same(where: str, expected: Scale, found: Scale) -> None:
    if expected != found:
        raise WeightsError(f"{where}: expected an input with {expected}, got {found}")
