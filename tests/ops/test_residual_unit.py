"""``residual_unit``: what it means, what it rounds, and what its CUDA kernel refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastcodec import use_backend
from fastcodec.ops import ACTIVATIONS, residual_unit
from fastcodec.ops._op import BACKENDS

MEDIUM = 2
TRITON = pytest.mark.skipif(residual_unit.why_not("triton") is not None, reason="no triton")


def integers(seed: int, most: int, *shape: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=g).float()


def exact_arguments(c: int, hidden: int, groups: int = 1) -> tuple[Any, ...]:
    """Of whole numbers, with a slope of one half: nothing but the operands is rounded."""
    first = (integers(1, 2, hidden, c // groups, 3), integers(2, 9, hidden), None)
    second = (integers(3, 2, c, hidden, 1), integers(4, 9, c), None)
    last = (2, groups, 1, ACTIVATIONS["leaky_relu"], 0.5, MEDIUM)
    return (integers(5, 700, 2, c, 13), *first, *second, *last)


def test_it_is_two_convolutions_and_a_sum() -> None:
    x, weight, bias, _, point, point_bias, _, *rest = exact_arguments(6, 4)
    args = (x, weight, bias, None, point, point_bias, None, *rest[:-1], 0)
    half = torch.nn.functional.leaky_relu(x, 0.5)
    hidden = torch.nn.functional.conv1d(half, weight, bias, dilation=2)
    hidden = torch.nn.functional.leaky_relu(hidden, 0.5)
    y = torch.nn.functional.conv1d(hidden, point, point_bias) + x[..., 1:10]
    assert torch.equal(residual_unit(*args), y)


@TRITON
@pytest.mark.parametrize("c, hidden, groups", [(32, 16, 1), (6, 10, 1), (7, 5, 1), (8, 8, 8)])
def test_what_triton_rounds_at_medium(c: int, hidden: int, groups: int) -> None:
    args = exact_arguments(c, hidden, groups)
    want = residual_unit.reference(*args)
    assert not torch.equal(want, residual_unit.reference(*args[:-1], 0)) or hidden % 2
    with use_backend("triton"):
        assert torch.equal(residual_unit(*on_device(args)).cpu(), want)


def on_device(args: tuple[Any, ...]) -> tuple[Any, ...]:
    gpu = torch.cuda.is_available()
    return tuple(a.cuda() if isinstance(a, Tensor) and gpu else a for a in args)


@TRITON
def test_the_skip_path_must_lie_in_the_window() -> None:
    args = list(exact_arguments(4, 4))
    args[9] = 5
    with use_backend("triton"), pytest.raises(ValueError, match="left must be 0 to 4, got 5"):
        residual_unit(*on_device(tuple(args)))


def test_the_cpu_has_the_reference_only() -> None:
    report = dict(residual_unit.report())
    assert list(report) == list(BACKENDS)
    assert report["cpu"] is not None and report["reference"] is None


def cuda_reason(c: int = 96, hidden: int = 96, k: int = 7, *rest: Any) -> str | None:
    x, weight = torch.empty(1, c, 90), torch.empty(hidden, c, k)
    why_not = residual_unit.cuda_why_not
    assert why_not is not None
    return why_not(x, weight, None, None, torch.empty(c, hidden, 1), None, None, *rest)


def test_what_the_cuda_kernel_refuses() -> None:
    snake = ACTIVATIONS["snake"]
    assert cuda_reason(96, 96, 7, 9, 1, 27, snake) is None
    assert cuda_reason(64, 32, 3, 1, 1, 2, ACTIVATIONS["elu"]) is None
    for reason, args in {
        "96 groups": (96, 96, 7, 9, 96, 27, snake),
        "multiples of 16 channels up to 256, got 40": (40, 96),
        "got 512": (512, 96),
        "hidden channels, got 40": (96, 40),
        "got 11 dilated by 9": (96, 96, 11, 9),
        "number 4": (96, 96, 7, 1, 1, 3, ACTIVATIONS["gelu"]),
    }.items():
        assert reason in str(cuda_reason(*args))


def test_the_fake_has_the_shape_and_layout() -> None:
    x, *rest = residual_unit.examples()[0]
    meta = [a.to("meta") if isinstance(a, Tensor) else a for a in (x, *rest)]
    fake = torch.ops.fastcodec.residual_unit(*meta)
    assert fake.shape == residual_unit.reference(x, *rest).shape
    assert fake.transpose(1, 2).is_contiguous()
