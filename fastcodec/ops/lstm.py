"""``lstm``: a stack of LSTM layers over time with carried state."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema, op, packed_vector, time_major
from fastcodec.ops.conv1d import PRECISIONS, rounded


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
    precision: int = 0,
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
    precision: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y [B, H, T] time-major, h, c after the last frame) of L layers as wide as their input.

    Args:
        x: [B, H, T] float
        h, c: [L, B, H] float, state before the first frame
        weight_ih, weight_hh: [L, 4 H, H] float, gates in torch's order i, f, g, o
        bias_ih, bias_hh: [L, 4 H] float
        packed: what ``lstm_pack(weight_ih, weight_hh, precision)`` gave
        skip: return y + x instead of y
        precision: a value of ``PRECISIONS``. Medium rounds what is multiplied (weights, x, and h of
            the frame before) to bfloat16, ties to even; sums and the state stay float32. Subnormal
            numbers may count as zero.
    """
    if precision not in PRECISIONS.values():
        raise ValueError(f"lstm: precision must be a value of {PRECISIONS}, got {precision}")
    if precision == PRECISIONS["medium"]:
        return _rounded_lstm(x, h, c, weight_ih, weight_hh, bias_ih + bias_hh, skip)
    weights = [
        w[layer]
        for layer in range(len(weight_ih))
        for w in (weight_ih, weight_hh, bias_ih, bias_hh)
    ]
    frames = x.permute(2, 0, 1)
    y, h, c = torch.lstm(frames, (h, c), weights, True, len(weight_ih), 0.0, False, False, False)
    return (y + frames if skip else y).permute(1, 2, 0), h, c


def _rounded_lstm(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, skip: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """``lstm`` of medium precision, frame by frame."""
    frames, states = x.permute(2, 0, 1), []
    for layer in range(len(weight_ih)):
        w_ih, w_hh = rounded(weight_ih[layer]), rounded(weight_hh[layer])
        h_now, c_now, steps = h[layer], c[layer], []
        for gates in (rounded(frames) @ w_ih.T + bias[layer]).unbind(0):
            i, f, g, o = (gates + rounded(h_now) @ w_hh.T).chunk(4, dim=1)
            c_now = torch.sigmoid(f) * c_now + torch.sigmoid(i) * torch.tanh(g)
            h_now = torch.sigmoid(o) * torch.tanh(c_now)
            steps.append(h_now)
        frames = torch.stack(steps)
        states.append((h_now, c_now))
    y = frames.permute(1, 2, 0)
    last_h, last_c = (torch.stack(of_layers) for of_layers in zip(*states, strict=True))
    return (y + x if skip else y), last_h, last_c


def lstm_pack(weight_ih: Tensor, weight_hh: Tensor, precision: int = 0) -> Tensor:
    """The CPU kernels' own copy of the weights: an opaque vector for ``lstm(packed=)``."""
    packed: Tensor = torch.ops.fastcodec.lstm_pack(weight_ih, weight_hh, precision)
    return packed


declare_schema(lstm_pack, lambda weight_ih, weight_hh, precision=0: packed_vector(weight_ih))


def _cuda_why_not(*args: object) -> str | None:
    """Of the arguments of ``lstm``."""
    packed = args[7] if len(args) > 7 else None
    return None if packed is None else "packed weights are for the CPU"


lstm.cuda_why_not = _cuda_why_not


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def case(
        batch: int, layers: int, hidden: int, frames: int, skip: bool, *precision: int
    ) -> tuple[object, ...]:
        def r(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g) * 0.3

        state = (r(layers, batch, hidden), r(layers, batch, hidden))
        weights = (r(layers, 4 * hidden, hidden), r(layers, 4 * hidden, hidden))
        biases = (r(layers, 4 * hidden), r(layers, 4 * hidden))
        return (r(batch, hidden, frames), *state, *weights, *biases, None, skip, *precision)

    return [
        case(1, 2, 32, 9, True),
        case(7, 1, 13, 4, False),
        case(3, 3, 48, 1, True),
        case(1, 2, 40, 30, True, 1),
    ]


lstm.examples = _examples
