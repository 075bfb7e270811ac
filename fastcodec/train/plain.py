"""A net's forward pass for training: torch's own convolutions on contiguous [B, C, T] signals.

The layers keep channels adjacent in memory and pad frame by frame, which serves their kernels and
pushes of any size; torch's autograd on a CPU is two to three times as fast without. The result is
the layers' own within rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule, streaming
from fastcodec.ops.conv1d import ACTIVATIONS, activate


def forward(layer: StreamingModule, x: Tensor) -> Tensor:
    """``layer(x)`` of a whole signal [B, C, T]; what is not known here is called as it is."""
    if isinstance(layer, Sequential):
        for part in streaming(layer.layers):
            x = forward(part, x)
        return x
    if isinstance(layer, Residual):
        y = x
        for part in streaming(layer.body):
            y = forward(part, y)
        skip = layer.skip
        return y + (x if not isinstance(skip, StreamingModule) else forward(skip, x))
    if isinstance(layer, Conv1d) and layer.padding == "zero":
        return _conv(layer, x)
    if isinstance(layer, ConvTranspose1d) and layer.norm is None and layer.first == "zero":
        return _conv_transpose(layer, x)
    return layer(x)


def _conv(layer: Conv1d, x: Tensor) -> Tensor:
    right = layer.right
    if layer.fill_last:
        over = x.shape[2] + layer.left + right - layer.span
        right += -over % layer.stride if over > 0 else -over
    x = _activated(layer, x)
    if layer.left or right:
        x = F.pad(x, (layer.left, right))
    return F.conv1d(x, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def _conv_transpose(layer: ConvTranspose1d, x: Tensor) -> Tensor:
    x = _activated(layer, x)
    y = F.conv_transpose1d(x, layer.weight, layer.bias, layer.stride, groups=layer.groups)
    return y[..., layer.cut_left : y.shape[2] - layer.cut_right]


def _activated(layer: Conv1d | ConvTranspose1d, x: Tensor) -> Tensor:
    if layer.activation == ACTIVATIONS["gelu"]:
        return F.gelu(x)  # the op's own keeps the tail of large negative x, slowly
    return activate(x, layer.activation, layer.alpha, None, layer.slope)
