"""``conv1d`` at the shapes of EnCodec 24 kHz; its ELU and residual sum belong to the op."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import doubled, relative_l2
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Row
from fastcodec import ops

# name, C_in, C_out, k, stride, samples of wav a frame of input, ELU before, residual after
SHAPES = (
    ("first", 1, 32, 7, 1, 1, False, False),
    ("k7", 32, 32, 7, 1, 1, True, False),
    ("residual_k3", 32, 16, 3, 1, 1, True, False),
    ("residual_k1", 16, 32, 1, 1, 1, True, True),
    ("stride2", 32, 64, 4, 2, 1, True, False),
    ("stride8", 256, 512, 16, 8, 40, True, False),
    ("wide", 512, 128, 7, 1, 320, True, False),
    ("wide_one_frame", 512, 128, 7, 1, 0, True, False),
    ("last", 32, 1, 7, 1, 1, True, False),
)


def rows(bench: Bench) -> Iterator[Row]:
    """One case a shape."""
    for name, c_in, c_out, kernel, stride, hop, elu, residual in SHAPES:
        if bench.wanted(f"conv1d.{name}"):
            frames = round(24000 * bench.seconds) // hop if hop else stride
            shape = (c_in, c_out, kernel, stride)
            yield from bench.measure(_case(f"conv1d.{name}", shape, frames, elu, residual))


def _case(
    name: str, shape: tuple[int, int, int, int], frames: int, elu: bool, residual: bool
) -> Case:
    c_in, c_out, kernel, stride = shape
    draw = generator()
    x = draw(1, c_in, frames + kernel - stride)
    weight, bias = draw(c_out, c_in, kernel) * (c_in * kernel) ** -0.5, draw(c_out)
    added = draw(1, c_out, frames // stride) if residual else None
    activation = ops.ACTIVATIONS["elu" if elu else "none"]

    def arguments(x: Tensor, added: Tensor | None, packed: Tensor | None) -> tuple[object, ...]:
        numbers = (stride, 1, 1, activation, 0.0)
        return (x, weight, bias, added, None, None, packed, *numbers)

    ours = arguments(
        time_major(x), None if added is None else time_major(added), ops.conv1d_pack(weight)
    )
    image, image_weight = (
        t[:, :, None].contiguous(memory_format=torch.channels_last) for t in (x, weight)
    )
    image_added = None if added is None else time_major(added)

    def plain() -> Tensor:
        y = F.conv1d(F.elu(x) if elu else x, weight, bias, stride)
        return y if added is None else y.add_(added)

    def channels_last() -> Tensor:
        y = F.conv2d(F.elu(image) if elu else image, image_weight, bias, (1, stride))[:, :, 0]
        return y if image_added is None else y.add_(image_added)

    t_out = frames // stride
    moved = n_bytes(x, weight) + 4 * c_out * t_out * (2 if residual else 1)
    return Case(
        name,
        {"B": 1, "C_in": c_in, "C_out": c_out, "k": kernel, "stride": stride, "T": t_out},
        lambda: ops.conv1d(*ours),
        eager({"contiguous": plain, "channels_last": channels_last}),
        relative_l2,
        Work(2 * weight.numel() * t_out, moved),
        lambda: ops.conv1d.reference(*doubled(arguments(x, added, None))),
    )
