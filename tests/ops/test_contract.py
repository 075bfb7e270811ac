"""Every op by one contract: its reference, in every backend, dtype, shape and memory layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcodec import BackendError, _native, ops, use_backend
from fastcodec.ops import Op, registry
from fastcodec.ops._op import BACKENDS, _schemas

from ..backends import needs_native, threads
from ._examples import (
    BATCHED,
    LAYOUTS,
    NO_CPU_KERNEL,
    ODD,
    PRECISION_AT,
    Args,
    in_layout,
    is_medium,
    large,
    tensors,
    to_dtype,
)

pytestmark = pytest.mark.usefixtures("one_thread")

OPS = {op.name: op for op in registry()}


def cases(kind: str, arguments: Callable[[Op], Iterable[Args]]) -> list[Any]:
    """(op, arguments) of all ops, each with a name of its own."""
    return [
        pytest.param(op, args, id=f"{op.name}-{kind}{i}")
        for op in OPS.values()
        for i, args in enumerate(arguments(op))
    ]


EXAMPLES = cases("", lambda op: op.examples())
CASES = EXAMPLES + cases("odd", lambda op: ODD[op.name]())
LARGE = cases("large", lambda op: large(op.name))
# Those with a kernel on the CPU.
NATIVE = [case for case in CASES if case.values[0].name not in NO_CPU_KERNEL]
NATIVE_LARGE = [case for case in LARGE if case.values[0].name not in NO_CPU_KERNEL]
NATIVE_EXAMPLES = [case for case in EXAMPLES if case.values[0].name not in NO_CPU_KERNEL]
# Its statistics are over the whole signal: it cannot be cut in time.
CUT_IN_TIME = [case for case in CASES + LARGE if case.values[0].name != "group_norm"]
# Triton's kernels run on the GPU, or interpreted on the CPU (tests/conftest.py).
GPU = torch.cuda.is_available()
UNTRAINABLE = ("rvq_encode", "rvq_encode_factorised")  # codes have no gradient
# Largest difference from the reference in float64, relative to the largest value.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 0.05}
# The same where a value between two convolutions may fall to either side of a tie when it is
# rounded to bfloat16: 2^-8 of that value (tests/ops/test_residual_unit.py has sums without ties).
TIES = 2**-8


def served(given: list[Any]) -> list[Any]:
    """(op, arguments, backend) for each backend that has the op."""
    return [
        pytest.param(
            *case.values,
            backend,
            id=f"{case.id}-{backend}",
            marks=[pytest.mark.gpu] if on_gpu(backend) else [],
        )
        for case in given
        for backend in BACKENDS
        if case.values[0].why_not(backend) is None
    ]


def kernels(given: list[Any]) -> list[Any]:
    """Those without the reference, whose bits depend on shapes; interpreted ones where small."""
    slow = {id(case.values[1]) for case in LARGE} if not GPU else set()
    return [
        case
        for case in quick(served(given))
        if case.values[2] != "reference"
        and not (case.values[2] == "triton" and id(case.values[1]) in slow)
    ]


def quick(given: list[Any]) -> list[Any]:
    """Without the interpreted convolutions of many weights: a step of a loop takes milliseconds.

    Their values are compared; tests/kernels/test_conv_launch.py has small ones of every form.
    """
    return [c for c in given if not (steps_slowly(*c.values) and c.values[1][1].numel() > 600)]


def steps_slowly(op: Op, args: Args, backend: str) -> bool:
    return backend == "triton" and not GPU and op.name in ("conv1d", "conv_transpose1d")


def backends(*names: str) -> list[tuple[str, str]]:
    """(name of the op, backend) for each backend that has it."""
    return [(name, b) for name in names for b in BACKENDS if OPS[name].why_not(b) is None]


def on_gpu(backend: str) -> bool:
    return GPU and backend in ("cuda", "triton")


def placed(args: Args, backend: str) -> Args:
    """The arguments where a backend takes them."""
    if not on_gpu(backend):
        return args
    return tuple(a.cuda() if isinstance(a, Tensor) else a for a in args)


def run(op: Op, args: Args, backend: str) -> Any:
    """By a backend; on the CPU again."""
    with use_backend(backend):
        got = op(*placed(args, backend))
    return tuple(y.cpu() for y in got) if isinstance(got, tuple) else got.cpu()


def test_the_native_kernels_run() -> None:
    """Without them most of this file is skipped; only these reasons are good ones."""
    reason = _native.cpu.why_not
    assert reason is None or reason.startswith(("FASTCODEC_ISA=", "this processor has no")), reason


def test_every_op_has_examples() -> None:
    assert set(OPS) == set(ODD) == set(BATCHED)
    assert all(len(op.examples()) for op in OPS.values())


def assert_close(op: Op, got: Any, args: Args, dtype: torch.dtype) -> None:
    if op.name == "rvq_encode":
        return assert_nearest(got, args, TOLERANCE[dtype])
    if op.name == "rvq_encode_factorised":
        return assert_nearest_in_angle(got, args, TOLERANCE[dtype])
    tolerance = TOLERANCE[dtype]
    if op.name == "residual_unit" and is_medium(op.name, args):
        tolerance = max(tolerance, TIES)
    elif is_medium(op.name, args):
        args = activated(op, args)
    want = tensors(op.reference(*to_dtype(args, torch.float64)))
    for mine, exact in zip(tensors(got), want, strict=True):
        assert mine.dtype is dtype and mine.shape == exact.shape
        error = (mine.double() - exact).abs().max() / exact.abs().max()
        assert error <= tolerance, f"{error:.2g} of the largest value"


def activated(op: Op, args: Args) -> Args:
    """The same convolution of an input that has been through the activation.

    Done in float64, it would fall on the other side of a tie here and there when it is rounded.
    """
    alpha, kind = (4, 10) if op.name == "conv1d" else (3, 8)
    x, done = args[0], list(args)
    if args[kind] == ops.ACTIVATIONS["snake"]:
        done[0] = ops.snake(x, args[alpha], args[alpha + 1])
    else:
        done[0] = ops.activation(x, args[kind], args[kind + 1])
    done[kind] = ops.ACTIVATIONS["none"]
    return tuple(done)


def assert_nearest(codes: Tensor, args: Args, tolerance: float) -> None:
    """Each code's word is, in float64, as near as any to what the codes before left over."""
    x, codebooks = (a.double() for a in args[:2])
    assert codes.dtype is torch.int64 and codes.shape == (len(x), len(codebooks), x.shape[2])
    residual = x.transpose(1, 2)
    for words, chosen in zip(codebooks, codes.unbind(1), strict=True):
        score = residual @ words.T - 0.5 * words.square().sum(1)
        lost = score.max(dim=2).values - score.gather(2, chosen[..., None])[..., 0]
        assert lost.max() <= tolerance * score.abs().max()
        residual = residual - words[chosen]


def assert_nearest_in_angle(codes: Tensor, args: Args, tolerance: float) -> None:
    """The same of the factorised quantizer, whose levels search in projections of the residual."""
    x, into, into_bias, codebooks, back, back_bias = (a.double() for a in args[:6])
    assert codes.dtype is torch.int64 and codes.shape == (len(x), len(codebooks), x.shape[2])
    residual = x.transpose(1, 2)
    for k, chosen in enumerate(codes.unbind(1)):
        projected = residual @ into[k].T + into_bias[k]
        # An error of a projection, relative to the values that went into it, turns short ones more.
        room = tolerance * (residual.abs() @ into[k].abs().T + into_bias[k].abs()).amax(2)
        length = projected.norm(dim=2)
        score = projected @ torch.nn.functional.normalize(codebooks[k]).T
        lost = score.max(dim=2).values - score.gather(2, chosen[..., None])[..., 0]
        assert (lost <= 4 * room + 4 * tolerance * length).all()
        residual = residual - codebooks[k][chosen] @ back[k].T - back_bias[k]


@pytest.mark.parametrize("op, args, backend", served(CASES))
def test_float32_against_the_reference_in_float64(op: Op, args: Args, backend: str) -> None:
    assert_close(op, run(op, args, backend), args, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("op, args", CASES)
def test_the_reference_takes_other_dtypes(op: Op, args: Args, dtype: torch.dtype) -> None:
    rounded = to_dtype(args, dtype)
    assert_close(op, op(*rounded), rounded, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op, args, backend", quick(served(CASES)))
def test_memory_layouts(op: Op, args: Args, layout: str, backend: str) -> None:
    laid_out = in_layout(op.name, args, layout)
    got = run(op, laid_out, backend)
    assert_close(op, got, args, torch.float32)
    if backend != "reference":
        assert_same(got, run(op, args, backend))
    assert all(torch.equal(a, b) for a, b in zip(laid_out, args, strict=True) if is_tensor(a))


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def assert_same(got: Any, want: Any) -> None:
    """Bit-identical; also NaN where the other is NaN."""
    for mine, theirs in zip(tensors(got), tensors(want), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@needs_native
@pytest.mark.parametrize("op, args", NATIVE)
def test_time_major_in_time_major_out(op: Op, args: Args) -> None:
    got = tensors(op(*in_layout(op.name, args, "time-major")))[0]
    if op.name not in UNTRAINABLE:
        assert got.transpose(1, 2).is_contiguous()


PACKERS = {
    "conv1d": lambda a: (a[1], a[9], *a[12:]),
    "conv_transpose1d": lambda a: (a[1], a[6], a[7], *a[10:]),
    "lstm": lambda a: (a[3], a[4], *a[9:]),
    "rvq_encode": lambda a: (a[1],),
    "rvq_encode_factorised": lambda a: (a[3],),
}
PACKED_AT = {"conv1d": 6, "conv_transpose1d": 5, "lstm": 7, "rvq_encode": 2} | {
    "rvq_encode_factorised": 6
}


def packer(name: str) -> Any:
    return getattr(torch.ops.fastcodec, f"{name}_pack").default


@needs_native
@pytest.mark.parametrize("op, args", [c for c in CASES if c.values[0].name in PACKERS])
def test_packed_weights_change_nothing(op: Op, args: Args) -> None:
    packed = packer(op.name)(*PACKERS[op.name](args))
    at = PACKED_AT[op.name]
    assert_same(op(*args[:at], packed, *args[at + 1 :]), op(*args))
    with pytest.raises(RuntimeError, match="packed"):
        op(*args[:at], packed[:-1], *args[at + 1 :])


@needs_native
@pytest.mark.parametrize("op, args", NATIVE_EXAMPLES)
def test_opcheck(op: Op, args: Args) -> None:
    """Schema, fake, autograd registration, and tracing by AOTAutograd with dynamic shapes."""
    torch.library.opcheck(op._native, leaves(args, requires_grad=op.name not in UNTRAINABLE))


@needs_native
@pytest.mark.parametrize("op, args", NATIVE)
def test_opcheck_of_odd_shapes(op: Op, args: Args) -> None:
    quick = ("test_schema", "test_faketensor")
    torch.library.opcheck(op._native, leaves(args, requires_grad=False), test_utils=quick)


@needs_native
@pytest.mark.parametrize("name", PACKERS)
def test_opcheck_of_packing(name: str) -> None:
    args = OPS[name].examples()[0]
    torch.library.opcheck(packer(name), PACKERS[name](args))


def is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype.is_floating_point


def leaves(args: Args, requires_grad: bool) -> Args:
    """The arguments, the float tensors as leaves of a new graph."""
    return tuple(a.detach().requires_grad_(requires_grad) if is_float(a) else a for a in args)


TRAINABLE = [case for case in NATIVE if case.values[0].name not in UNTRAINABLE]
DIFFERENTIABLE = [case for case in CASES if case.values[0].name not in UNTRAINABLE]
SMOOTH = [case for case in DIFFERENTIABLE if not is_medium(case.values[0].name, case.values[1])]
SMALL = [case for case in SMOOTH if case.values[1][0].numel() < 700]


@pytest.mark.parametrize("op, args", SMALL)
def test_gradcheck_in_float64(op: Op, args: Args) -> None:
    exact = leaves(to_dtype(args, torch.float64), requires_grad=True)
    assert torch.autograd.gradcheck(op, exact, fast_mode=True)


@needs_native
@pytest.mark.parametrize("op, args", TRAINABLE)
def test_gradients_of_the_native_op(op: Op, args: Args) -> None:
    """float32 through the native forward, against float64 through the reference."""
    with use_backend("cpu"):
        ours = gradients(op, args)
    exact = gradients(op.reference, to_dtype(args, torch.float64))
    assert len(ours) == len(exact) > 0
    for mine, theirs in zip(ours, exact, strict=True):
        scale = theirs.abs().max()
        assert (mine.double() - theirs).abs().max() <= 2e-5 * scale + 1e-6


def gradients(function: Any, args: Args) -> list[Tensor]:
    """Of a fixed weighted sum of all outputs, for every float argument."""
    inputs = leaves(args, requires_grad=True)
    total = sum(
        (y * torch.arange(y.numel()).mul(0.5).cos().add(0.3).to(y.dtype).view(y.shape)).sum()
        for y in tensors(function(*inputs))
    )
    wanted = [value for value in inputs if is_float(value)]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [g for g in found if g is not None]


@needs_native
@pytest.mark.parametrize("op, args", NATIVE_LARGE)
def test_any_number_of_threads(op: Op, args: Args) -> None:
    with threads(1):
        alone = op(*args)
    for count in (2, 3):
        with threads(count):
            assert_same(op(*args), alone)


@pytest.mark.parametrize("op, args, backend", kernels(CASES + LARGE))
def test_any_place_in_a_batch(op: Op, args: Args, backend: str) -> None:
    whole = tensors(run(op, args, backend))
    axes = [0, 1, 1] if op.name == "lstm" else [0]
    for row in range(args[0].shape[0]):
        alone = tensors(run(op, rows(op, args, [row]), backend))
        for part, all_rows, axis in zip(alone, whole, axes, strict=True):
            assert torch.equal(part, all_rows.narrow(axis, row, 1))
    order = [*range(args[0].shape[0])][::-1] * 2
    shuffled = tensors(run(op, rows(op, args, order), backend))
    for part, all_rows, axis in zip(shuffled, whole, axes, strict=True):
        assert torch.equal(part, all_rows.index_select(axis, torch.tensor(order)))


def rows(op: Op, args: Args, chosen: list[int]) -> Args:
    """The arguments of these rows of the batch."""
    index = torch.tensor(chosen)
    return tuple(
        a.index_select(BATCHED[op.name][i], index) if i in BATCHED[op.name] and is_tensor(a) else a
        for i, a in enumerate(args)
    )


def cuts(frames: int) -> Iterator[list[int]]:
    """Some ways to cut so many frames: in the middle, off both ends, in uneven pieces, in ones."""
    ways = [{frames // 2}, {1, frames - 1}, set(range(frames % 7, frames, max(7, frames // 40)))]
    if frames < 80:
        ways.append(set(range(frames)))
    for way in ways:
        yield sorted({0, frames} | {edge for edge in way if 0 < edge < frames})


def tile(op: Op, args: Args, begin: int, end: int) -> Args:
    """The arguments that give the frames [begin, end) of the result."""
    x, rest = args[0], list(args[1:])
    if op.name == "conv1d":
        stride, dilation, taps = args[7], args[8], args[1].shape[2]
        first, last = begin * stride, (end - 1) * stride + (taps - 1) * dilation + 1
        rest[2] = None if args[3] is None else args[3][..., begin:end]
        return (x[..., first:last], *rest)
    if op.name == "conv_transpose1d":
        context = -(-args[1].shape[2] // args[6]) - 1
        return (x[..., begin : end + context], *rest)
    if op.name == "residual_unit":
        return (x[..., begin : end + (args[1].shape[2] - 1) * args[7]], *rest)
    if op.name == "attention":
        rest[2:4] = args[3][begin:end], args[4][begin:end]
    return (x[..., begin:end], *rest)


@pytest.mark.parametrize("op, args, backend", kernels(CUT_IN_TIME))
def test_any_tiling_of_time(op: Op, args: Args, backend: str) -> None:
    whole = tensors(run(op, args, backend))
    rate = args[6] if op.name == "conv_transpose1d" else 1
    ways = list(cuts(whole[0].shape[2] // rate))
    for edges in ways[1:3] if steps_slowly(op, args, backend) else ways:
        states, parts = args[1:3], []
        for begin, end in zip(edges, edges[1:], strict=False):
            piece = tile(op, args, begin, end)
            if op.name == "lstm":
                y, *states = run(op, (piece[0], *states, *piece[3:]), backend)
            else:
                y = run(op, piece, backend)
            parts.append(y)
        assert torch.equal(torch.cat(parts, dim=2), whole[0])
        if op.name == "lstm":
            assert_same(tuple(states), whole[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "op, args, backend", quick(served([c for c in CASES if c.values[0].name[:3] != "rvq"]))
)
def test_what_is_not_finite_stays_visible(op: Op, args: Args, value: float, backend: str) -> None:
    """A NaN or infinity in the input spoils the same outputs as in the reference, and no others.

    But for a transposed convolution whose kernel is no multiple of its stride: the native one fills
    it up with zeros, and zero times NaN is NaN.
    """
    broken = args[0].clone()
    broken[-1, -1, broken.shape[2] // 2] = value
    got = tensors(run(op, (broken, *args[1:]), backend))
    want = tensors(op.reference(*to_dtype((broken, *args[1:]), torch.float64)))
    filled_up = op.name == "conv_transpose1d" and args[1].shape[2] % args[6] > 0
    for mine, exact in zip(got, want, strict=True):
        if filled_up and backend == "cpu":
            assert not torch.isfinite(mine[~torch.isfinite(exact)]).any()
            continue
        assert torch.equal(torch.isfinite(mine), torch.isfinite(exact))
        assert torch.equal(torch.isnan(mine), torch.isnan(exact))


@pytest.mark.parametrize("name, backend", backends("conv1d", "conv_transpose1d"))
def test_subnormal_numbers_of_medium_convolutions_are_kept_or_zero(name: str, backend: str) -> None:
    """Nothing else comes of them, and nothing of theirs reaches other outputs."""
    x = torch.full((1, 64, 20), 2.0**-130)
    weight, bias = torch.full((64, 64, 4), 0.5), torch.zeros(64)
    bias[::2] = 1.0
    rest = (None,) * 4 + (2, 1) if name == "conv1d" else (None,) * 3 + (2,)
    y = run(OPS[name], (x, weight, bias, *rest, 1, 0, 0.0, 2), backend)
    assert torch.equal(y[:, ::2], torch.ones_like(y[:, ::2]))
    assert ((y[:, 1::2] == 0) | (y[:, 1::2] == 2.0**-130 * 32 * taps(name))).all()


def taps(name: str) -> int:
    return 4 if name == "conv1d" else 2


@pytest.mark.parametrize("name, backend", backends("rvq_encode"))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_codes_of_what_is_not_finite_are_still_codes(value: float, name: str, backend: str) -> None:
    x, codebooks, _ = OPS[name].examples()[0]
    broken = x.clone()
    broken[0, 3, 4] = value
    got, clean = (run(OPS[name], (v, codebooks), backend) for v in (broken, x))
    assert 0 <= got.min() and got.max() < codebooks.shape[1]
    got[0, :, 4] = clean[0, :, 4]
    assert torch.equal(got, clean)


@pytest.mark.parametrize("name, backend", backends("rvq_encode"))
def test_equal_distances_give_the_lowest_code(name: str, backend: str) -> None:
    words = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    books = torch.cat([words, words, words])[None]
    codes = run(OPS[name], (words.T[None].contiguous(), books), backend)
    assert torch.equal(codes[0, 0], torch.arange(40))


@needs_native
@pytest.mark.parametrize("code", [-2, 64, 1 << 40])
def test_codes_out_of_range_are_refused(code: int) -> None:
    codes, books = OPS["rvq_decode"].examples()[0]
    codes = codes.clone()
    codes[1, 2, 3] = code
    with pytest.raises(RuntimeError, match="outside -1..63"):
        OPS["rvq_decode"](codes, books)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_forced_backend_never_falls_back(op: Op) -> None:
    args = op.examples()[0]
    exact = to_dtype(args, torch.float64)
    for backend, refused in (("cuda", args), ("triton", exact), ("cpu", exact)):
        reason = op.why_not(backend, refused)
        assert reason
        message = f"{op.name}: backend '{backend}' was asked for, but {reason}"
        with use_backend(backend), pytest.raises(BackendError, match=re.escape(message)):
            op(*refused)
    op(*exact)  # not forced: the reference serves


def test_a_forced_backend_ends_with_its_block() -> None:
    with use_backend("reference"):
        with pytest.raises(
            ValueError, match="expected one of cpu, cuda, triton, reference or None"
        ):
            use_backend("avx512")
        with use_backend(None):
            assert OPS["snake"].why_not("reference") is None
    x, *rest = OPS["snake"].examples()[0]
    assert OPS["snake"](x, *rest).shape == x.shape


def test_the_report_names_every_backend() -> None:
    for op in OPS.values():
        report = dict(op.report())
        assert list(report) == list(BACKENDS) and report["reference"] is None
        assert all(report[backend] == op.why_not(backend) for backend in BACKENDS)
        absent = f"there is no cpu kernel of {op.name} yet" if op.name in NO_CPU_KERNEL else None
        assert report["cpu"] == (_native.cpu.why_not or absent)


def test_schema_drift_is_noticed() -> None:
    """The library exports what it was written for; any difference would be undefined behaviour."""
    same = "\n".join(_schemas.values())
    assert _native.schema_drift(same, _schemas) is None
    for name, schema in _schemas.items():
        assert "Tensor" in schema
        for changed in (
            schema.replace("Tensor ", "Tensor? ", 1),
            schema.replace(") ->", ", int extra=0) ->", 1),
            schema.replace(name, name + "2", 1),
            schema[: schema.index("->")] + "-> Tensor[]",
        ):
            why = _native.schema_drift(same.replace(schema, changed), _schemas)
            assert why is not None and "is not of this version" in why and "Build it again" in why
    missing = {name: schema for name, schema in _schemas.items() if name != "snake"}
    assert _native.schema_drift(same, missing) is not None


HASHES = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
import _examples
from fastcodec import _native
from fastcodec.ops import registry

torch.set_num_threads(int(sys.argv[2]))
for op in registry():
    if op.name in _examples.NO_CPU_KERNEL:
        continue
    digests = {False: hashlib.sha256(), True: hashlib.sha256()}
    for args in [*op.examples(), *_examples.ODD[op.name](), *_examples.large(op.name)]:
        for y in _examples.tensors(op(*args)):
            digest = digests[_examples.is_medium(op.name, args)]
            digest.update(y.contiguous().numpy().tobytes())
    print(op.name, digests[False].hexdigest())
    if op.name in _examples.PRECISION_AT:
        print(op.name, "medium", digests[True].hexdigest())
print(_native.cpu_isa, "|", _native.cpu.why_not, file=sys.stderr)
"""


def run_with_isa(isa: str | None, n_threads: int = 1) -> tuple[str, str]:
    """(a hash of every op's results, "instruction set | why not") of a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FASTCODEC_")}
    run = subprocess.run(
        [sys.executable, "-c", HASHES, str(Path(__file__).parent), str(n_threads)],
        env=environment | ({} if isa is None else {"FASTCODEC_ISA": isa}),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr.strip().splitlines()[-1]


@needs_native
def test_instruction_sets_agree_bit_for_bit() -> None:
    results = {}
    for isa, n_threads in (("avx2", 1), ("avx512", 2), ("avx512_bf16", 2)):
        results[isa], note = run_with_isa(isa, n_threads)
        if "this processor has no" in note:
            pytest.skip(note)
        assert note == f"{isa} | None"
        if isa == "avx512_bf16":  # multiplies pairs at medium precision
            for key in ("avx2", isa):
                lines = results[key].splitlines()
                results[key] = "\n".join(line for line in lines if "medium" not in line)
        assert results["avx2"] == results[isa]


def test_the_reference_can_be_asked_for() -> None:
    hashes, note = run_with_isa("reference")
    assert note == "None | FASTCODEC_ISA=reference"
    ops_there = OPS.keys() - NO_CPU_KERNEL
    assert len(hashes.splitlines()) == len(ops_there) + len(PRECISION_AT.keys() & ops_there)


def test_an_unknown_instruction_set_is_said() -> None:
    _, note = run_with_isa("sse9")
    assert note == "None | FASTCODEC_ISA is none of avx512_bf16, avx512, avx2, reference"


def test_the_backend_can_be_forced_from_outside() -> None:
    code = "import fastcodec.ops as ops; print(ops.forced_backend())"
    for value, wanted in (("reference", "reference"), ("", "None")):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"FASTCODEC_BACKEND": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == wanted
