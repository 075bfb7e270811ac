"""``conv_transpose1d`` at the shapes of EnCodec 24 kHz's decoder, ELU included."""

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

# name, C_in, C_out, stride, samples of wav an input frame; kernel = 2 stride
SHAPES = (("up8", 512, 256, 8, 320), ("up4", 128, 64, 4, 8), ("up2", 64, 32, 2, 2))


def rows(bench: Bench) -> Iterator[Row]:
    """One case a shape."""
    for name, c_in, c_out, stride, hop in SHAPES:
        if bench.wanted(f"conv_transpose1d.{name}"):
            frames = round(24000 * bench.seconds) // hop
            yield from bench.measure(_case(name, c_in, c_out, stride, frames))


def _case(name: str, c_in: int, c_out: int, stride: int, frames: int) -> Case:
    draw = generator()
    x = draw(1, c_in, 1 + frames)  # the frame before, and those that are wanted
    weight, bias = draw(c_in, c_out, 2 * stride) * (2 * c_in) ** -0.5, draw(c_out)
    elu = ops.ACTIVATIONS["elu"]
    packed, ours_x = ops.conv_transpose1d_pack(weight, stride), time_major(x)
    image, image_weight = (
        t[:, :, None].contiguous(memory_format=torch.channels_last) for t in (x, weight)
    )
    wanted = slice(stride, (1 + frames) * stride)

    def channels_last() -> Tensor:
        y = F.conv_transpose2d(F.elu(image), image_weight, bias, (1, stride))
        return y[:, :, 0, wanted]

    return Case(
        f"conv_transpose1d.{name}",
        {"B": 1, "C_in": c_in, "C_out": c_out, "k": 2 * stride, "stride": stride, "T": frames},
        lambda: ops.conv_transpose1d(ours_x, weight, bias, None, None, packed, stride, 1, elu, 0.0),
        eager(
            {
                "contiguous": lambda: F.conv_transpose1d(F.elu(x), weight, bias, stride)[
                    ..., wanted
                ],
                "channels_last": channels_last,
            }
        ),
        relative_l2,
        Work(2 * weight.numel() * frames, n_bytes(x, weight) + 4 * c_out * frames * stride),
        lambda: ops.conv_transpose1d.reference(
            *doubled((x, weight, bias, None, None, None, stride, 1, elu, 0.0))
        ),
    )
