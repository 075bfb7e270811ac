"""The LSTMs of EnCodec-like nets, one-way and both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.packed import Packed
from fastcodec.layers.streaming import StreamingModule


@dataclass
class LstmState:
    """Hidden and cell state, [L, B, H] each; None before the first frame: zeros."""

    h: Tensor | None = None
    c: Tensor | None = None


class Lstm(StreamingModule):
    """lstm(x) + x over time, zero initial state.

    Args:
        channels: H, width of the input and of every layer
        layers: L
        skip: add x
    """

    precision = ops.PRECISIONS["highest"]  # of its products; may be changed at any time

    def __init__(self, channels: int, layers: int, skip: bool = True) -> None:
        super().__init__()
        self.skip = skip
        shape = (layers, 4 * channels, channels)
        bound = channels**-0.5
        self.weight_ih = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.zeros(shape[:2]))
        self.bias_hh = nn.Parameter(torch.zeros(shape[:2]))
        self._packed = Packed(ops.lstm_pack)

    def stacked_names(self, path: str, own: str) -> list[str] | None:
        """Upstream's entries that one of our parameters is the stack of."""
        return [f"{path}.{own}_l{i}" for i in range(len(self.weight_ih))]

    def init_state(self, batch_size: int) -> LstmState:
        return LstmState()

    def push(self, x: Tensor, state: LstmState, final: bool = False) -> Tensor:
        if x.shape[2] == 0:
            return x
        if state.h is None or state.c is None:
            state.h = x.new_zeros(len(self.weight_ih), x.shape[0], x.shape[1])
            state.c = torch.zeros_like(state.h)
        packed = self._packed.get(self.weight_ih, self.weight_hh, precision=self.precision)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        y: Tensor
        y, state.h, state.c = ops.lstm(
            x, state.h, state.c, *weights, packed, self.skip, self.precision
        )
        return y


class BiLstm(StreamingModule):
    """lstm(x) + (x, x) [B, 2 H, T], every layer in both directions over the whole signal.

    The parameters have torch's names; each is the stack of the forward and the reverse one. Frames
    that come in pieces are held back until the last one is there.

    The recurrent product of a step is a pointwise convolution: its channels are the two directions
    as groups, its frames the rows of the batch. So it rounds a row alike in every batch.

    Args:
        channels: H, width of the input and of each direction
        layers: L
    """

    not_streamable_because = "its bidirectional LSTM begins at the end of the signal, too"
    precision = ops.PRECISIONS["highest"]  # of its products; may be changed at any time
    _FRAMES = 64  # whose gates are computed ahead, so that memory does not grow with the signal

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.channels, self.layers = channels, layers
        bound = channels**-0.5
        for layer in range(layers):
            width = channels if layer == 0 else 2 * channels
            for name, shape in {
                "weight_ih": (2, 4 * channels, width),
                "weight_hh": (2, 4 * channels, channels),
                "bias_ih": (2, 4 * channels),
                "bias_hh": (2, 4 * channels),
            }.items():
                values = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(values))
        self._packed = [Packed(ops.conv1d_pack, 2) for _ in range(2 * layers)]

    def stacked_names(self, path: str, own: str) -> list[str]:
        """Upstream's entries that one of our parameters is the stack of."""
        return [f"{path}.{own}", f"{path}.{own}_reverse"]

    def init_state(self, batch_size: int) -> list[Tensor]:
        return []

    def push(self, x: Tensor, state: list[Tensor], final: bool = False) -> Tensor:
        state.append(x.transpose(1, 2))
        if not final or not any(part.shape[1] for part in state):
            return x.new_empty(len(x), 0, 2 * self.channels).transpose(1, 2)
        frames = y = torch.cat(state, dim=1)
        state.clear()
        for layer in range(self.layers):
            y = self._layer(y, layer)
        return (y + torch.cat([frames, frames], dim=2)).transpose(1, 2)

    def _layer(self, x: Tensor, layer: int) -> Tensor:
        """[B, T, 2 H] of x [B, T, H or 2 H]."""
        weight_ih, weight_hh = self._weight("ih", layer), self._weight("hh", layer)
        precision = self.precision
        packed = [
            self._packed[2 * layer].get(weight_ih, precision=precision),
            self._packed[2 * layer + 1].get(weight_hh, precision=precision),
        ]
        bias = getattr(self, f"bias_ih_l{layer}") + getattr(self, f"bias_hh_l{layer}")
        both = torch.cat([x, x.flip(1)], dim=2).transpose(1, 2)
        h = c = x.new_zeros(len(x), 2, self.channels)
        steps = []
        for begin in range(0, x.shape[1], self._FRAMES):
            inputs = both[..., begin : begin + self._FRAMES]
            gates = _product(inputs, weight_ih, bias.flatten(), None, packed[0], precision)
            for step in gates.unbind(2):
                rows = h.flatten(1).T[None]
                both_gates = _product(rows, weight_hh, None, step.T[None], packed[1], precision)
                h, c = _cell(both_gates, c)
                steps.append(h)
        y = torch.stack(steps, dim=1)
        return torch.cat([y[:, :, 0], y[:, :, 1].flip(1)], dim=2)

    def _weight(self, of: str, layer: int) -> Tensor:
        """[8 H, C, 1], the directions one after the other."""
        weight: Tensor = getattr(self, f"weight_{of}_l{layer}")
        return weight.flatten(0, 1)[..., None]


def _product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    packed: Tensor | None,
    precision: int,
) -> Tensor:
    """weight x + bias + residual, of both directions."""
    return ops.conv1d(x, weight, bias, residual, None, None, packed, 1, 1, 2, 0, 0.0, precision)


def _cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """(h, c) [B, 2, H] after a step with gates [1, 8 H, B], in torch's order i, f, g, o."""
    shape = (len(c), 2, 4, c.shape[2])
    i, f, _, o = ops.activation(gates, ops.ACTIVATIONS["sigmoid"])[0].T.reshape(shape).unbind(2)
    g = gates[0].T.reshape(shape)[:, :, 2]
    c = f * c + i * ops.activation(g, ops.ACTIVATIONS["tanh"])
    return o * ops.activation(c, ops.ACTIVATIONS["tanh"]), c
