"""``activation`` in Triton, and the same functions as the prologue of the convolutions.

The formulas are those of csrc/cpu/vec.h: multiplications, sums and one division, each rounded once,
so a value comes out alike wherever it stands and whichever kernel it passes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import Offline, launcher
from fastcodec.kernels.snake import FLOATS, snaked

NONE, ELU, LEAKY_RELU, SNAKE, GELU, SILU, TANH, SIGMOID = (tl.constexpr(i) for i in range(8))
KINDS = ("none", "elu", "leaky_relu", "snake", "gelu", "silu", "tanh", "sigmoid")
ELEMENTS = 1024  # a program's


@triton.jit
def expm1_reduced(x):
    """(n, e^r - 1) for x = n ln 2 + r with integral n and |r| <= 0.347."""
    n = tl.floor(x * 1.44269504 + 0.5)
    r = tl.fma(n, -0.693145752, x)
    r = tl.fma(n, -1.42860682e-6, r)
    p = tl.fma(r, 1.9841270e-4, 1.3888889e-3)  # Taylor: the next term is below 2^-26 of r
    p = tl.fma(p, r, 8.3333333e-3)
    p = tl.fma(p, r, 4.1666668e-2)
    p = tl.fma(p, r, 1.6666667e-1)
    p = tl.fma(p, r, 0.5)
    return n, tl.fma(p * r, r, r)


@triton.jit
def power_of_two(n):
    """2^n for integral n in [-126, 127]; anything for NaN, which its factor keeps."""
    n = tl.where(n == n, n, 0.0)
    return ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def expm1(x):
    """e^x - 1 for x in [-87, 88] or NaN: (2^n - 1) apart keeps the small result of a small x."""
    n, p = expm1_reduced(x)
    scale = power_of_two(n)
    return tl.fma(scale, p, scale - 1.0)


@triton.jit
def exp_small(x):
    """e^x for x <= 88 or NaN; what is below -87 gives e^-87."""
    n, p = expm1_reduced(tl.where(x < -87.0, -87.0, x))
    scale = power_of_two(n)
    return tl.fma(scale, p, scale)


@triton.jit
def gelu(x):
    """x Phi(x): Phi(-|x|) = erfcx(z) exp(-x^2 / 2) / 2, z = |x| / sqrt 2; see csrc/cpu/vec.h."""
    a = tl.where(tl.abs(x) > 13.2, 13.2, tl.abs(x))
    z = a * 0.707106781
    q = (z - 2.0) / (z + 2.0)
    p = tl.fma(q, -4.09541886e-4, -1.24544522e-3)
    p = tl.fma(p, q, 1.3146546e-3)
    p = tl.fma(p, q, 8.64393299e-3)
    p = tl.fma(p, q, -8.05754034e-3)
    p = tl.fma(p, q, -5.42073822e-2)
    p = tl.fma(p, q, 1.64054714e-1)
    p = tl.fma(p, q, -1.66031167e-1)
    p = tl.fma(p, q, -9.27639488e-2)
    p = tl.fma(p, q, 1.27697839)
    square = a * a
    rest = tl.fma(a, a, -square)  # what the square loses in float32
    e = exp_small(square * -0.5)
    tail = 0.5 * (p * tl.fma(e * -0.5, rest, e)) / tl.fma(z, 2.0, 1.0)
    phi = tl.where(tl.abs(x) > 13.19, 0.0, tail)
    return x * tl.where(x > 0, 1.0 - phi, phi)


@triton.jit
def activated(x, KIND: tl.constexpr, alpha, inverse_beta, slope):
    """Of float32 values; alpha and inverse_beta, which only snake reads, are broadcast."""
    if KIND == ELU:
        below = tl.where(x > 0, 0.0, x)
        x = tl.where(x > 0, x, expm1(tl.where(below < -87.0, -87.0, below)))
    if KIND == LEAKY_RELU:
        x = tl.where(x > 0, x, x * slope)
    if KIND == SNAKE:
        x = snaked(x, alpha, inverse_beta)
    if KIND == GELU:
        x = gelu(x)
    if KIND == SILU:  # x / (1 + e^-x), or x e^x / (1 + e^x); the root of e^-|x| stays normal
        a = tl.abs(x)
        root = tl.where(a > 174.0, 0.0, exp_small(a * -0.5))
        x = tl.where(x > 0, x, x * root * root) / tl.fma(root, root, 1.0)
    if KIND == TANH:  # -e / (2 + e) with e = expm1(-2 |x|): no cancellation near zero
        twice = tl.abs(x) * -2.0
        e = expm1(tl.where(twice < -87.0, -87.0, twice))
        t = -e / (2.0 + e)
        x = tl.where(x < 0, -t, t)
    if KIND == SIGMOID:
        x = 1.0 / (1.0 + exp_small(tl.where(x < -88.0, 88.0, -x)))
    return x


@triton.jit
def activation_kernel(x, out, count, slope, KIND: tl.constexpr, ELEMENTS: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = at < count
    v = tl.load(x + at, mask=inside, other=0.0)
    y = activated(v.to(tl.float32), KIND, 1.0, 1.0, slope)
    tl.store(out + at, y.to(v.dtype), mask=inside)


def why_not(x: Tensor, kind: int, slope: float = 0.0) -> str | None:
    """Any of the three kinds of float."""
    return None if x.dtype in FLOATS else f"it takes {FLOATS}, got {x.dtype}"


def activation(x: Tensor, kind: int, slope: float = 0.0) -> Tensor:
    """See ``fastcodec.ops.activation``; the layout of x stays."""
    if not 0 <= kind < len(KINDS) or KINDS[kind] == "snake":
        raise ValueError(f"activation: expected a kind of ACTIVATIONS but snake, got {kind}")
    x = x if x.transpose(1, 2).is_contiguous() else x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        grid = (triton.cdiv(x.numel(), ELEMENTS),)
        launcher(activation_kernel)[grid](x, out, x.numel(), slope, kind, ELEMENTS)
    return out


def offline() -> list[Offline]:
    """Every kind in float32, one in bf16."""
    return [
        Offline(
            activation_kernel,
            {"x": f"*{dtype}", "out": f"*{dtype}", "count": "i32", "slope": "fp32"},
            {"KIND": kind, "ELEMENTS": ELEMENTS},
            aligned=("x", "out", "count"),
        )
        for kind, dtype in [(i, "fp32") for i, name in enumerate(KINDS) if name != "snake"]
        + [(1, "bf16")]
    ]
