"""Medium precision of ``lstm``: what is rounded, and that the bits depend on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastcodec import use_backend
from fastcodec.ops import lstm, lstm_pack

from ..backends import needs_native, threads
from ._lstm_arguments import MEDIUM, SHAPES, arguments, medium

pytestmark = [needs_native, pytest.mark.usefixtures("one_thread")]


def assert_same(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_rounded_reference_in_float64(shape: tuple[int, ...]) -> None:
    args = arguments(*shape)
    exact = lstm.reference(*(a.double() for a in args), None, True, MEDIUM)
    for mine, theirs in zip(medium(args), exact, strict=True):
        assert (mine.double() - theirs).abs().max() <= 3e-6 * theirs.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_near_to_highest(shape: tuple[int, ...]) -> None:
    args = arguments(*shape)
    exact = lstm.reference(*(a.double() for a in args), None, False)
    for mine, theirs in zip(medium(args, skip=False), exact, strict=True):
        assert (mine.double() - theirs).norm() <= 0.02 * theirs.norm()
    assert_same(lstm(*args, None, False, 1), lstm(*args, None, False, 0))


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_weights_and_opcheck(shape: tuple[int, ...]) -> None:
    args = arguments(*shape)
    packed = lstm_pack(args[3], args[4], MEDIUM)
    assert_same(lstm(*args, packed, True, MEDIUM), medium(args))
    with pytest.raises(RuntimeError, match="packed"):
        lstm(*args, packed[:-1], True, MEDIUM)
    quick = ("test_schema", "test_faketensor")
    torch.library.opcheck(lstm._native, (*args, packed, True, MEDIUM), test_utils=quick)
    torch.library.opcheck(torch.ops.fastcodec.lstm_pack.default, (args[3], args[4], MEDIUM))


def test_gradients_pass_through_the_rounding() -> None:
    args = [a.requires_grad_() for a in arguments(2, 2, 17, 4)]
    ours = torch.autograd.grad([y.sum() for y in medium(args)], args)
    exact = [a.detach().double().requires_grad_() for a in args]
    outputs = lstm.reference(*exact, None, True, MEDIUM)
    for mine, theirs in zip(
        ours, torch.autograd.grad([y.sum() for y in outputs], exact), strict=True
    ):
        assert (mine.double() - theirs).abs().max() <= 2e-5 * theirs.abs().max()


@pytest.mark.parametrize("precision", [0, MEDIUM])
def test_any_threads_batch_and_cut(precision: int) -> None:
    args = arguments(3, 2, 96, 300)
    whole = lstm(*args, None, True, precision)
    with threads(2):
        assert_same(lstm(*args, None, True, precision), whole)
    for row in range(3):
        alone = [args[0][row : row + 1], *(a[:, row : row + 1].contiguous() for a in args[1:3])]
        y, h, c = lstm(*alone, *args[3:], None, True, precision)
        assert_same((y[0], h[:, 0], c[:, 0]), (whole[0][row], whole[1][:, row], whole[2][:, row]))
    state, parts = args[1:3], []
    for begin, end in ((0, 1), (1, 8), (8, 131), (131, 300)):
        y, *state = lstm(args[0][..., begin:end], *state, *args[3:], None, True, precision)
        parts.append(y)
    assert_same((torch.cat(parts, dim=2), *state), whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_visible(value: float) -> None:
    args = arguments(3, 2, 17, 5)
    args[0][1, 4, 2] = value
    exact = lstm.reference(*(a.double() for a in args), None, True, MEDIUM)
    for mine, theirs in zip(medium(args), exact, strict=True):
        assert torch.equal(torch.isnan(mine), torch.isnan(theirs))
        assert torch.equal(torch.isfinite(mine), torch.isfinite(theirs))


def test_a_precision_that_is_none() -> None:
    args = arguments(1, 1, 4, 2)
    with pytest.raises(RuntimeError, match="precision must be 0, 1 or 2, got 3"):
        lstm(*args, None, True, 3)
    with use_backend("reference"), pytest.raises(ValueError, match="precision must be"):
        lstm(*args, None, True, 3)


HASHES = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
from _lstm_arguments import SHAPES, arguments, medium
torch.set_num_threads(1)
digest = hashlib.sha256()
for shape in SHAPES:
    for scale in (1, 1e-18, 1e-30, 1e-39, 1e4):  # subnormal products, weights and states, too
        for y in medium(arguments(*shape, scale)):
            digest.update(y.contiguous().numpy().tobytes())
from fastcodec import _native
print(digest.hexdigest() if _native.cpu.why_not is None else _native.cpu.why_not)
"""


def test_instruction_sets_agree_bit_for_bit() -> None:
    """Also where one has an instruction for products of bfloat16 pairs and the other has not."""
    results = {}
    for isa in ("avx2", "avx512", "avx512_bf16"):
        run = subprocess.run(
            [sys.executable, "-c", HASHES, str(Path(__file__).parent)],
            env=os.environ | {"FASTCODEC_ISA": isa, "FASTCODEC_BACKEND": ""},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        if "this processor has no" not in run.stdout:
            results[isa] = run.stdout
    assert len(set(results.values())) == 1, results
