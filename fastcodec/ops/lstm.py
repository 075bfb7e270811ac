"""``lstm``: a stack of LSTM layers over time with carried state."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema, op, packed_vector, time_major


def _fake(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    packed: Tensor | None = None,
    skip: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    return time_major(x, *x.shape), torch.empty_like(h), torch.empty_like(c)


@op(fake=_fake, trainable=True)
def lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    packed: Tensor | None = None,
    skip: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y [B, H, T] time-major, h, c after the last frame) of L layers as wide as their input.

    Args:
        x: [B, H, T] float
        h, c: [L, B, H] float, state before the first frame
        weight_ih, weight_hh: [L, 4 H, H] float, gates in torch's order i, f, g, o
        bias_ih, bias_hh: [L, 4 H] float
        packed: what ``lstm_pack(weight_ih, weight_hh)`` gave
        skip: return y + x instead of y
    """
    weights = [
        w[layer]
        for layer in range(len(weight_ih))
        for w in (weight_ih, weight_hh, bias_ih, bias_hh)
    ]
    frames = x.permute(2, 0, 1)
    y, h, c = torch.lstm(frames, (h, c), weights, True, len(weight_ih), 0.0, False, False, False)
    return (y + frames if skip else y).permute(1, 2, 0), h, c


def lstm_pack(weight_ih: Tensor, weight_hh: Tensor) -> Tensor:
    """The CPU kernels' own copy of the weights: an opaque vector for ``lstm(packed=)``."""
    packed: Tensor = torch.ops.fastcodec.lstm_pack(weight_ih, weight_hh)
    return packed


declare_schema(lstm_pack, lambda weight_ih, weight_hh: packed_vector(weight_ih))


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def case(batch: int, layers: int, hidden: int, frames: int, skip: bool) -> tuple[object, ...]:
        def r(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g) * 0.3

        state = (r(layers, batch, hidden), r(layers, batch, hidden))
        weights = (r(layers, 4 * hidden, hidden), r(layers, 4 * hidden, hidden))
        biases = (r(layers, 4 * hidden), r(layers, 4 * hidden))
        return (r(batch, hidden, frames), *state, *weights, *biases, None, skip)

    return [case(1, 2, 32, 9, True), case(7, 1, 13, 4, False), case(3, 3, 48, 1, True)]


lstm.examples = _examples
