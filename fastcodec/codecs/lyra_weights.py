"""Lyra v2 weights, read from the three ``.tflite`` graphs of a google/lyra model folder.

Source: google/lyra@47698dad ``lyra/model_coeffs`` (v1.3, partly int8) and @c2395ffa8d32
``model_coeffs`` (v1.2, float32); both hold the same layers. TFLite keeps a convolution as
[C_out, kernel, C_in / groups] and a transposed one likewise, one operator a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastcodec.errors import WeightsError
from fastcodec.io.tflite import Operator, Subgraph, read_tflite
from fastcodec.io.tflite import Tensor as StoredTensor

FILES = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")
N_CODEBOOKS, N_CODEWORDS, N_FEATURES = 46, 16, 64
DILATIONS = (1, 3, 9)
SLOPE = 0.3

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class LyraLayer:
    """One convolution of the net, in execution order.

    Args:
        name: state-dict prefix, ``encoder.blocks.0.down``
        kind: TFLite operator
        in_channels, out_channels, kernel, stride, dilation, groups: as in torch
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the torch weight."""
        if self.kind == "TRANSPOSE_CONV":
            return (self.in_channels, self.out_channels // self.groups, self.kernel)
        return (self.out_channels, self.in_channels // self.groups, self.kernel)

    @property
    def n_operators(self) -> int:
        """Operators that the layer is made of: a transposed one has one a group."""
        return self.groups if self.kind == "TRANSPOSE_CONV" else 1


def load_lyra_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """All parameters in float32 under fastcodec's names, int8 ones dequantised.

    Args:
        folder: holds soundstream_encoder.tflite, quantizer.tflite and lyragan.tflite

    Returns:
        ``{encoder,decoder}.<layer>.{weight,bias}`` in torch's layouts, for the layers of
        ``lyra_layers``, and ``quantizer.codebooks`` [46, 16, 64] in stage order

    Raises:
        FileNotFoundError: the folder lacks one of the three files
        FormatError: a file is no .tflite file, truncated or corrupted
        WeightsError: a file holds another network
    """
    encoder, quantizer, decoder = read_lyra_graphs(folder)
    state = {"quantizer.codebooks": codebooks(quantizer)}
    for half, graph in (("encoder", encoder), ("decoder", decoder)):
        for layer, operators in match_layers(half, graph[0]):
            weight, bias = _float_parameters(layer, operators, graph[0])
            state[f"{layer.name}.weight"] = weight
            state[f"{layer.name}.bias"] = bias
    return state


def lyra_is_int8(folder: str | Path) -> bool:
    """Whether the folder holds the mixed int8 graphs (v1.3) rather than the float32 ones."""
    encoder, _, _ = read_lyra_graphs(folder)
    return any(tensor.dtype == "INT8" for tensor in encoder[0].tensors)


def read_lyra_graphs(folder: str | Path) -> tuple[tuple[Subgraph, ...], ...]:
    """The subgraphs of the encoder, quantizer and decoder files in ``folder``."""
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"a Lyra folder must hold {', '.join(FILES)}; {folder} lacks {', '.join(missing)}"
        )
    graphs = tuple(read_tflite(folder / name) for name in FILES)
    for name, graph in zip(FILES, graphs, strict=True):
        if not graph:
            raise WeightsError(f"{folder / name}: expected a subgraph, got none")
    return graphs


def lyra_layers(half: str) -> Iterator[LyraLayer]:
    """The convolutions of ``"encoder"`` or ``"decoder"``, in execution order."""
    if half == "encoder":
        yield LyraLayer("encoder.conv0", "CONV_2D", 1, 64, kernel=64, stride=16)
        stages = ((64, 1, 10, 5, 1), (128, 2, 4, 2, 2), (256, 4, 4, 2, 4))
        for i, (channels, unit_groups, kernel, stride, groups) in enumerate(stages):
            yield from _units(f"encoder.blocks.{i}", channels, unit_groups)
            yield LyraLayer(
                f"encoder.blocks.{i}.down", "CONV_2D", channels, 2 * channels, kernel, stride,
                groups=groups,
            )  # fmt: skip
        yield LyraLayer("encoder.out", "CONV_2D", 512, N_FEATURES, kernel=3, groups=4)
    else:
        yield LyraLayer("decoder.conv0", "CONV_2D", N_FEATURES, 512, kernel=3, groups=4)
        stages = ((256, 4, 4, 2, 4), (128, 2, 4, 2, 2), (64, 1, 10, 5, 1))
        for i, (channels, unit_groups, kernel, stride, groups) in enumerate(stages):
            yield LyraLayer(
                f"decoder.blocks.{i}.up", "TRANSPOSE_CONV", 2 * channels, channels, kernel,
                stride, groups=groups,
            )  # fmt: skip
            yield from _units(f"decoder.blocks.{i}", channels, unit_groups)
        yield LyraLayer("decoder.out", "TRANSPOSE_CONV", 64, 1, kernel=64, stride=16)


def _units(prefix: str, channels: int, groups: int) -> Iterator[LyraLayer]:
    """The three residual units of a block: depthwise, pointwise, grouped pointwise."""
    for j, dilation in enumerate(DILATIONS):
        unit = f"{prefix}.units.{j}"
        yield LyraLayer(
            f"{unit}.depthwise", "DEPTHWISE_CONV_2D", channels, channels, kernel=3,
            dilation=dilation, groups=channels,
        )  # fmt: skip
        yield LyraLayer(f"{unit}.pointwise", "CONV_2D", channels, channels, kernel=1)
        yield LyraLayer(f"{unit}.grouped", "CONV_2D", channels, channels, kernel=1, groups=groups)


def match_layers(half: str, graph: Subgraph) -> list[tuple[LyraLayer, list[Operator]]]:
    """Each layer with its operators in ``graph``, every property checked.

    Raises:
        WeightsError: the graph holds other convolutions; all differences are listed
    """
    found = [operator for operator in graph.operators if operator.name in _CONVOLUTIONS]
    slopes = {op.options["Alpha"] for op in graph.operators if op.name == "LEAKY_RELU"}
    matched = []
    wrong = [f"unexpected slope {slope}" for slope in slopes if slope != np.float32(SLOPE)]
    for layer in lyra_layers(half):
        operators, found = found[: layer.n_operators], found[layer.n_operators :]
        matched.append((layer, operators))
        wrong += [f"{layer.name}: {reason}" for reason in _mismatches(layer, operators, graph)]
    wrong += [f"unexpected {operator.name}" for operator in found]
    if wrong:
        raise WeightsError(f"not a Lyra v2 {half}: " + "; ".join(wrong))
    return matched


def _mismatches(layer: LyraLayer, operators: list[Operator], graph: Subgraph) -> Iterator[str]:
    if len(operators) != layer.n_operators:
        yield f"expected {layer.n_operators} {layer.kind}, got {len(operators)}"
    for operator in operators:
        if operator.name != layer.kind or len(operator.inputs) < 3 or not operator.outputs:
            yield f"expected {layer.kind}, got {operator.name}"
            continue
        options = operator.options
        # One of the two spatial axes is time (W in v1.2, H in v1.3), the other has size 1.
        got = (
            options["StrideH"] * options["StrideW"],
            options.get("DilationHFactor", 1) * options.get("DilationWFactor", 1),
        )
        if got != (layer.stride, layer.dilation):
            yield f"expected stride, dilation {(layer.stride, layer.dilation)}, got {got}"
        if options["FusedActivationFunction"] != 0:
            yield "expected no fused activation"
        weight, bias = parameters(operator, graph)
        shape = stored_shape(layer)
        n_bias = layer.out_channels // layer.n_operators
        if weight.data is None or bias.data is None:
            yield "weight or bias is not a constant"
        elif _squeeze(weight.shape) != shape or bias.shape != (n_bias,):
            yield f"expected weight {list(shape)}, got {list(weight.shape)} + {list(bias.shape)}"


def stored_shape(layer: LyraLayer) -> tuple[int, int, int]:
    """[C_out, kernel, C_in / groups] of one operator; a depthwise one has [1, kernel, C]."""
    if layer.kind == "DEPTHWISE_CONV_2D":
        return (1, layer.kernel, layer.out_channels)
    groups = layer.groups if layer.kind == "TRANSPOSE_CONV" else 1
    return (layer.out_channels // groups, layer.kernel, layer.in_channels // layer.groups)


def parameters(operator: Operator, graph: Subgraph) -> tuple[StoredTensor, StoredTensor]:
    """Weight and bias of a convolution; a transposed one has its output's shape before them."""
    weight, bias = (1, 3) if operator.name == "TRANSPOSE_CONV" else (1, 2)
    if len(operator.inputs) <= bias or operator.inputs[bias] < 0:
        raise WeightsError(f"{operator.name} has no bias")
    return graph.tensors[operator.inputs[weight]], graph.tensors[operator.inputs[bias]]


def codebooks(quantizer: tuple[Subgraph, ...]) -> torch.Tensor:
    """[46, 16, 64]: each codebook where the ``decode`` graph slices its index from.

    Raises:
        WeightsError: the graph is not Lyra's, or a stage is missing
    """
    graph = next((g for g in quantizer if g.name == "decode"), quantizer[0])
    producer = {output: operator for operator in graph.operators for output in operator.outputs}
    books: dict[int, np.ndarray] = {}
    for gather in graph.operators:
        if gather.name != "GATHER":
            continue
        book = graph.tensors[gather.inputs[0]]
        index = producer.get(gather.inputs[1])
        if index is None or index.name != "STRIDED_SLICE":
            continue
        begin = graph.constant(index.inputs[1])
        if book.data is None or book.shape != (N_CODEWORDS, N_FEATURES) or begin is None:
            continue
        books[int(np.ravel(begin)[0])] = dequantised(book)
    if sorted(books) != list(range(N_CODEBOOKS)):
        raise WeightsError(
            f"not a Lyra v2 quantizer: expected {N_CODEBOOKS} codebooks, got {len(books)}"
        )
    return torch.from_numpy(np.stack([books[stage] for stage in range(N_CODEBOOKS)]))


def dequantised(tensor: StoredTensor) -> np.ndarray:
    """A constant as float32: (value - zero point) * scale, per tensor or along one axis."""
    assert tensor.data is not None
    values = np.asarray(tensor.data).reshape(tensor.shape)
    if tensor.quantization is None:
        return values.astype(np.float32)
    scale, zero = tensor.quantization.scale, tensor.quantization.zero_point
    if scale.size > 1:
        shape = [1] * values.ndim
        shape[tensor.quantization.axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    real: np.ndarray = ((values.astype(np.float64) - zero) * scale).astype(np.float32)
    return real


def _float_parameters(
    layer: LyraLayer, operators: list[Operator], graph: Subgraph
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias in torch's layout."""
    pairs = [parameters(operator, graph) for operator in operators]
    weight = torch_weight(layer, [dequantised(weight) for weight, _ in pairs])
    return weight, torch.from_numpy(np.concatenate([dequantised(bias) for _, bias in pairs]))


def torch_weight(layer: LyraLayer, stored: Sequence[np.ndarray]) -> torch.Tensor:
    """The weight of a layer in torch's layout, float32, from what its operators store."""
    weights = [weight.reshape(stored_shape(layer)) for weight in stored]
    if layer.kind == "CONV_2D":  # [C_out, kernel, C_in / groups]
        weight = weights[0].transpose(0, 2, 1)
    else:  # depthwise [1, kernel, C]; a group of a transposed one [C_out / groups, kernel, C_in]
        weight = np.concatenate([weight.transpose(2, 0, 1) for weight in weights])
    return torch.from_numpy(np.array(weight, dtype=np.float32, order="C"))


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[first, kernel, last] of a stored weight, whose other spatial axis has size 1."""
    return (shape[0], shape[1] * shape[2], shape[3]) if len(shape) == 4 else shape
