"""Arguments for every op, beyond its own examples: odd shapes, large ones, all memory layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Args = tuple[Any, ...]
MEDIUM = 2

PRECISION_AT = {"conv1d": 12, "conv_transpose1d": 10, "residual_unit": 12}
NO_CPU_KERNEL = ("residual_unit",)  # two of conv1d's there
# Position of the arguments that have a batch axis, and which axis that is.
BATCHED = {
    "activation": {0: 0},
    "attention": {0: 0, 1: 0, 2: 0},
    "conv1d": {0: 0, 3: 0},
    "conv_transpose1d": {0: 0},
    "group_norm": {0: 0},
    "layer_norm": {0: 0},
    "lstm": {0: 0, 1: 1, 2: 1},
    "rvq_decode": {0: 0},
    "rvq_encode": {0: 0},
    "rvq_encode_factorised": {0: 0},
    "rvq_decode_factorised": {0: 0},
    "snake": {0: 0},
    "residual_unit": {0: 0},
}


def _random(seed: int) -> Callable[..., Tensor]:
    g = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=g)


def _activation() -> Iterator[Args]:
    kinds = [0, 1, 2, 4, 5, 6, 7]
    for i, (batch, c, frames) in enumerate([(1, 1, 1), (3, 5, 2), (2, 33, 65), (1, 64, 7)]):
        for kind in kinds[i % 2 :: 2]:
            yield (5 * _random(i)(batch, c, frames), kind, 0.2)


def _attention() -> Iterator[Args]:
    """(heads, key heads, features of a head, frames, keys), spans of any kind, and batch."""
    shapes = [
        (1, 1, 1, 1, 1),
        (2, 1, 3, 5, 2),
        (3, 3, 17, 9, 33),
        (4, 2, 33, 20, 20),
        (1, 1, 130, 2, 70),
        (2, 2, 64, 3, 100),
        (1, 1, 20, 60, 50),
    ]
    for i, (heads, kv_heads, d, frames, keys) in enumerate(shapes):
        r, batch = _random(i), 1 + i % 3
        g = torch.Generator().manual_seed(i)
        first = torch.randint(0, keys, (frames,), generator=g)
        last = first + torch.randint(0, keys + 1, (frames,), generator=g)
        k, v = r(batch, kv_heads * d, keys), r(batch, kv_heads * d, keys)
        yield (r(batch, heads * d, frames), k, v, first, last, heads, 2 * d**-0.5)


def _conv1d() -> Iterator[Args]:
    """(channels in, out, kernel, stride, dilation, groups, activation, frames out) and batch."""
    shapes = [
        (1, 1, 1, 1, 1, 1, 0, 1),
        (1, 17, 3, 2, 1, 1, 1, 1),
        (3, 5, 2, 3, 2, 1, 2, 2),
        (17, 33, 7, 1, 1, 1, 3, 7),
        (33, 31, 5, 4, 1, 1, 1, 13),
        (48, 96, 3, 1, 9, 1, 1, 65),
        (8, 8, 3, 1, 1, 8, 2, 11),
        (12, 6, 4, 2, 1, 6, 1, 5),
        (64, 16, 1, 1, 1, 1, 4, 3),
        (16, 2, 16, 8, 1, 1, 0, 4),
        (32, 1, 7, 1, 1, 1, 3, 9),
        (1024, 40, 3, 1, 1, 1, 0, 13),  # windows 4 kB apart
        (512, 40, 4, 4, 1, 1, 1, 9),
    ]
    for i, (c, n, k, stride, dilation, groups, activation, frames) in enumerate(shapes):
        r, batch = _random(i), 1 + i % 3
        x = r(batch, c, (frames - 1) * stride + (k - 1) * dilation + 1 + i % stride)
        residual = r(batch, n, frames) if i % 2 else None
        alpha, beta = (r(c), r(c).abs() + 0.1) if activation == 3 else (None, None)
        weight, bias = r(n, c // groups, k), r(n) if i % 3 else None
        args = (x, weight, bias, residual, alpha, beta, None)
        args += (stride, dilation, groups, activation, 0.2)
        yield args
        yield (*args, MEDIUM)


def _conv_transpose1d() -> Iterator[Args]:
    shapes = [
        (1, 1, 1, 1, 1, 0, 1),
        (3, 5, 4, 2, 1, 1, 1),
        (17, 33, 7, 3, 1, 3, 2),
        (32, 16, 16, 8, 1, 1, 9),
        (8, 8, 4, 2, 8, 2, 7),
        (5, 3, 2, 5, 1, 5, 3),
        (24, 12, 10, 5, 2, 2, 1),
        (48, 1, 5, 4, 1, 0, 50),
    ]
    for i, (c, n, k, stride, groups, activation, frames) in enumerate(shapes):
        r, batch = _random(i), 1 + i % 3
        x = r(batch, c, frames + -(-k // stride) - 1)
        alpha, beta = (r(c), r(c).abs() + 0.1) if activation == 3 else (None, None)
        weight, bias = r(c, n // groups, k), r(n) if i % 3 else None
        args = (x, weight, bias, alpha, beta, None, stride, groups, activation, 0.2)
        yield args
        yield (*args, MEDIUM)


def _group_norm() -> Iterator[Args]:
    for i, (batch, c, frames) in enumerate([(1, 1, 2), (3, 2, 1), (2, 33, 257), (1, 16, 513)]):
        r = _random(i)
        yield (3 * r(batch, c, frames) + 1, r(c), r(c), 1e-5)


def _layer_norm() -> Iterator[Args]:
    for i, (batch, c, frames) in enumerate([(1, 3, 2), (3, 5, 1), (2, 33, 57), (1, 512, 5)]):
        r = _random(i)
        yield (3 * r(batch, c, frames) + 1, r(c), r(c), 1e-5)


def _lstm() -> Iterator[Args]:
    shapes = [(1, 1, 1, 1), (2, 1, 17, 3), (3, 2, 8, 1), (1, 3, 33, 20), (9, 2, 16, 2)]
    for i, (batch, layers, width, frames) in enumerate(shapes):
        r = _random(i)
        states = (r(layers, batch, width), r(layers, batch, width))
        weights = (0.3 * r(layers, 4 * width, width), 0.3 * r(layers, 4 * width, width))
        biases = (r(layers, 4 * width), r(layers, 4 * width))
        yield (r(batch, width, frames), *states, *weights, *biases, None, bool(i % 2))


def _rvq_encode() -> Iterator[Args]:
    for i, (batch, d, frames, k, n) in enumerate(
        [(1, 1, 1, 1, 2), (3, 7, 2, 2, 5), (2, 33, 25, 3, 65), (1, 128, 3, 2, 1024)]
    ):
        r = _random(i)
        yield (r(batch, d, frames), r(k, n, d), None)


def _rvq_decode() -> Iterator[Args]:
    for i, (batch, frames, k, used, n, d) in enumerate(
        [(1, 1, 1, 1, 2, 1), (3, 2, 5, 3, 7, 33), (2, 30, 8, 8, 64, 17)]
    ):
        g = torch.Generator().manual_seed(i)
        yield (torch.randint(-1, n, (batch, used, frames), generator=g), _random(i)(k, n, d))


def _snake() -> Iterator[Args]:
    for i, (batch, c, frames) in enumerate([(1, 1, 1), (3, 5, 2), (2, 33, 65), (1, 64, 7)]):
        r = _random(i)
        yield (5 * r(batch, c, frames), r(c), r(c).abs() + 0.1 if i % 2 else None)


def _rvq_encode_factorised() -> Iterator[Args]:
    for i, (batch, c, frames, k, n, d) in enumerate(
        [(1, 3, 1, 1, 2, 3), (3, 7, 2, 2, 5, 4), (2, 33, 25, 3, 65, 9), (1, 1024, 3, 2, 1024, 8)]
    ):
        r = _random(i)
        into, back = r(k, d, c) / c**0.5, r(k, c, d) / d**0.5
        yield (r(batch, c, frames), into, r(k, d), r(k, n, d), back, r(k, c), None)


def _rvq_decode_factorised() -> Iterator[Args]:
    for i, (batch, frames, k, used, n, d, c) in enumerate(
        [(1, 1, 1, 1, 2, 3, 3), (3, 2, 5, 3, 7, 4, 33), (2, 41, 8, 8, 64, 9, 70)]
    ):
        g, r = torch.Generator().manual_seed(i), _random(i)
        codes = torch.randint(-1, n, (batch, used, frames), generator=g)
        yield (codes, r(k, n, d), r(k, c, d), r(k, c))


def _residual_unit() -> Iterator[Args]:
    """(channels, hidden channels, kernel, dilation, groups, activation, frames out) and batch."""
    shapes = [
        (1, 1, 1, 1, 1, 0, 1),
        (3, 5, 3, 1, 1, 1, 2),
        (16, 16, 7, 9, 1, 3, 1),
        (33, 17, 2, 5, 1, 2, 13),
        (24, 24, 7, 3, 24, 3, 15),
        (48, 96, 3, 1, 1, 1, 7),
        (20, 2, 4, 1, 1, 3, 9),
    ]
    for i, (c, hidden, k, dilation, groups, activation, frames) in enumerate(shapes):
        r, batch = _random(i), 1 + i % 3
        x = r(batch, c, frames + (k - 1) * dilation)
        weight = r(hidden, c // groups, k) / (c * k // groups) ** 0.5
        point = r(c, hidden, 1) / hidden**0.5
        alphas = (r(c).abs() + 0.1, r(hidden).abs() + 0.1) if activation == 3 else (None, None)
        biases = (r(hidden), r(c)) if i % 3 else (None, None)
        args = (x, weight, biases[0], alphas[0], point, biases[1], alphas[1])
        args += (dilation, groups, (k - 1) * dilation // (1 + i % 2), activation, 0.2)
        yield args
        yield (*args, MEDIUM)


ODD: dict[str, Callable[[], Iterator[Args]]] = {
    "activation": _activation,
    "attention": _attention,
    "conv1d": _conv1d,
    "conv_transpose1d": _conv_transpose1d,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "lstm": _lstm,
    "rvq_decode": _rvq_decode,
    "rvq_encode": _rvq_encode,
    "rvq_encode_factorised": _rvq_encode_factorised,
    "rvq_decode_factorised": _rvq_decode_factorised,
    "snake": _snake,
    "residual_unit": _residual_unit,
}


def large(name: str) -> list[Args]:
    """Arguments big enough to be cut among threads, by time and by channels."""
    r = _random(99)
    none = (None,) * 4
    codes = torch.randint(0, 256, (3, 8, 900), generator=torch.Generator().manual_seed(0))
    books = r(8, 256, 64)
    lstm = (r(2, 3, 96), r(2, 3, 96), *(0.1 * r(2, 384, 96) for _ in range(2)), *r(2, 2, 384))
    last = torch.arange(1, 601)
    window = ((last - 200).clamp(min=0), last)
    made: dict[str, list[Args]] = {
        "activation": [(r(3, 64, 5000), 4, 0.0), (time_major(r(3, 64, 5000)), 5, 0.0)],
        "attention": [(r(2, 128, 600), r(2, 64, 600), r(2, 64, 600), *window, 4, 0.18)],
        "conv1d": [
            (r(3, 64, 3000), r(64, 64, 7), r(64), None, None, None, None, 1, 1, 1, 1, 0.0),
            (r(1, 512, 9), r(512, 512, 5), r(512), *none, 1, 1, 1, 1, 0.0),
            (r(3, 48, 2000), r(96, 16, 4), r(96), *none, 2, 1, 3, 2, 0.3),
            (r(3, 64, 3000), r(64, 64, 7), r(64), *none, 1, 3, 1, 1, 0.0, MEDIUM),
            (r(1, 512, 9), r(512, 512, 5), r(512), *none, 1, 1, 1, 1, 0.0, MEDIUM),
        ],
        "conv_transpose1d": [
            (r(3, 128, 700), r(128, 64, 10), r(64), None, None, None, 5, 1, 1, 0.0),
            (r(1, 512, 6), r(512, 256, 16), r(256), None, None, None, 8, 1, 1, 0.0),
            (r(3, 128, 700), r(128, 64, 10), r(64), None, None, None, 5, 1, 1, 0.0, MEDIUM),
        ],
        "group_norm": [(r(3, 64, 5000), r(64), r(64), 1e-5)],
        "layer_norm": [(r(3, 64, 9000), r(64), r(64), 1e-5)],
        "lstm": [(r(3, 96, 300), *lstm, None, True)],
        "rvq_decode": [(codes, books)],
        "rvq_encode": [(r(3, 64, 900), books, None)],
        "rvq_encode_factorised": [
            (r(3, 64, 900), 0.1 * r(8, 9, 64), r(8, 9), r(8, 256, 9), r(8, 64, 9), r(8, 64), None)
        ],
        "rvq_decode_factorised": [(codes, r(8, 256, 9), r(8, 64, 9), r(8, 64))],
        "snake": [(r(3, 64, 5000), r(64), None), (time_major(r(3, 64, 5000)), r(64), None)],
        "residual_unit": [
            (r(2, 96, 1054), r(96, 96, 7) / 26, r(96), r(96), r(96, 96, 1) / 10, r(96), r(96))
            + (9, 1, 27, 3, 0.0, *precision)
            for precision in ((), (MEDIUM,))
        ],
    }
    return made[name]


def time_major(x: Tensor) -> Tensor:
    """The same values with channels adjacent in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _spaced(x: Tensor) -> Tensor:
    """The same values, adjacent in no axis."""
    room = x.new_zeros(*(2 * size for size in x.shape))
    view = room[::2, ::2, ::2]
    view.copy_(x)
    return view


def _inside(x: Tensor) -> Tensor:
    """The same values, time-major, in the middle of longer rows of a larger batch."""
    room = x.new_zeros(x.shape[0] + 1, x.shape[2] + 3, x.shape[1] + 5).transpose(1, 2)
    view = room[1:, 2:-3, 1:-2]
    view.copy_(x)
    return view


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channel-major": lambda x: x.contiguous(),
    "time-major": time_major,
    "spaced": _spaced,
    "inside": _inside,
}


def in_layout(name: str, args: Args, layout: str) -> Args:
    """The same arguments, the signals of [B, C, T] in another memory layout."""
    signals = {"conv1d": (0, 3), "attention": (0, 1, 2)}.get(name, (0,))
    change = LAYOUTS[layout]
    return tuple(
        change(a) if i in signals and isinstance(a, Tensor) else a for i, a in enumerate(args)
    )


def to_dtype(args: Args, dtype: torch.dtype) -> Args:
    """The same arguments with every float tensor in another dtype."""
    return tuple(
        a.to(dtype) if isinstance(a, Tensor) and a.dtype.is_floating_point else a for a in args
    )


def is_medium(name: str, args: Args) -> bool:
    """Whether these are arguments of a convolution whose operands are rounded."""
    return args[PRECISION_AT[name] :] == (MEDIUM,) if name in PRECISION_AT else False


def tensors(result: Any) -> tuple[Tensor, ...]:
    """An op's results as a tuple."""
    return result if isinstance(result, tuple) else (result,)
