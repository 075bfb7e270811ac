"""The convolutions in Triton: forms and tiles by shape, refusals, every form's invariance."""

from __future__ import annotations

import gc
import weakref
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcodec import ops, use_backend
from fastcodec.ops import conv1d as reference
from fastcodec.ops.snake import snake

pytest.importorskip("triton")
from fastcodec.kernels import _conv, conv1d, conv_transpose1d, snake_backward
from fastcodec.kernels._conv import KINDS, TILES, Shape

pytestmark = [pytest.mark.usefixtures("one_thread")]
GPU = torch.cuda.is_available()
if GPU:
    pytestmark.append(pytest.mark.gpu)

MEDIUM, ELU, SNAKE = ops.PRECISIONS["medium"], ops.ACTIVATIONS["elu"], ops.ACTIVATIONS["snake"]


def shape(channels: int, width: int, kernel: int, **changes: Any) -> Shape:
    given = {"rows": 1000, "groups": 1, "phases": 1, "step": 1, "activation": 0, "rounded": False}
    return Shape(channels=channels, width=width, kernel=kernel, **given | changes)


def normal(seed: int, *size: int) -> Tensor:
    made = torch.randn(*size, generator=torch.Generator().manual_seed(seed))
    return made.cuda() if GPU else made


def by_triton(op: Any, *args: Any) -> Tensor:
    with use_backend("triton"):
        return op(*args)


@pytest.mark.parametrize(
    "given, form, shape_class",
    [
        (shape(1, 32, 7), "few", "first"),
        (shape(1, 1, 7, groups=768), "few", "depthwise"),
        (shape(15, 40, 3), "few", "first"),
        (shape(96, 1, 7), "last", "last"),
        (shape(32, 2, 7), "last", "last"),
        (shape(16, 3, 1), "dense", "narrow"),
        (shape(64, 65, 1), "dense", "wide"),
        (shape(64, 65, 1, rows=8), "dense", "wide, short"),
    ],
)
def test_forms(given: Shape, form: str, shape_class: str) -> None:
    assert (given.form, given.shape_class) == (form, shape_class)


def test_the_order_of_a_sum_does_not_depend_on_the_rows() -> None:
    """Nor the kind of MMA: on sm_90 one of 64 rows and 4 warps, or several."""
    for channels, width, rounded in product((16, 24, 96, 1024), (1, 3, 64, 500), (False, True)):
        variants = [
            shape(channels, width, 7, rows=rows, rounded=rounded, activation=kind)
            for rows in (1, 512, 513, 10**6)
            for kind in (0, SNAKE)
        ]
        assert len({(one.form, one.block_k) for one in variants}) == 1
        for one in variants:
            if one.form == "dense":
                assert one.tile.m % 64 == 0 and one.tile.warps % 4 == 0


@pytest.mark.parametrize("rounded, channels, block", [(0, 32, 32), (0, 16, 16), (0, 2048, 32)] + [
    (1, 64, 64), (1, 96, 32), (1, 33, 16), (1, 48, 16), (0, 48, 16), (1, 1024, 64)
])  # fmt: skip
def test_blocks_of_channels_have_little_padding(rounded: int, channels: int, block: int) -> None:
    assert shape(channels, 64, 3, rounded=bool(rounded)).block_k == block


def test_what_is_used_often_is_activated_once() -> None:
    assert shape(96, 96, 7, activation=SNAKE).staged
    assert not shape(96, 96, 1, activation=SNAKE).staged
    assert shape(768, 768, 1, activation=SNAKE).staged  # by twelve column tiles
    assert not shape(32, 64, 4, step=2, activation=ELU).staged
    assert not shape(96, 96, 7).staged and shape(96, 96, 7, rounded=True).staged
    assert not shape(1, 32, 7, activation=SNAKE).staged
    assert shape(96, 1, 7, activation=SNAKE).staged
    assert shape(32, 32, 1, activation=KINDS.index("gelu")).staged


def test_programs_cover_the_output() -> None:
    for given in (shape(96, 96, 7), shape(33, 200, 16, phases=8, groups=3), shape(3, 5, 2)):
        tile = given.tile
        columns = given.width * (1 if given.form == "dense" else given.groups)
        across = -(-columns // tile.n) * (given.groups if given.form == "dense" else 1)
        assert given.programs == -(-given.rows // tile.m) * across * given.phases
    assert shape(96, 2, 7, groups=4, rows=65).programs == 2 * 8


def test_every_class_has_tiles() -> None:
    for channels, width, groups, rows, rounded, kind in product(
        (1, 2, 64), (1, 2, 8, 64, 512), (1, 2), (1, 10**5), (False, True), range(len(KINDS))
    ):
        one = shape(
            channels, width, 3, groups=groups, rows=rows, activation=kind,
            rounded=rounded and channels % 2 == 0 and width > 2,
        )  # fmt: skip
        assert all(size & (size - 1) == 0 for size in one.tile[:2])
    assert all(m * n <= 128 * 128 for m, n, _, _ in TILES.values())


def test_what_is_refused() -> None:
    x, weight = torch.zeros(1, 32, 9), torch.zeros(16, 32, 3)
    assert conv1d.why_not(x, weight) is None
    assert conv1d.why_not(x.bfloat16(), weight.bfloat16()) is None
    assert "float64" in str(conv1d.why_not(x.double(), weight.double()))
    assert "bfloat16" in str(conv1d.why_not(x, weight.bfloat16()))
    assert "one device" in str(conv1d.why_not(x, weight.to("meta")))
    long = torch.zeros(1, device="meta").expand(1, 1, 2**42)
    assert "2147483647" in str(conv1d.why_not(long, torch.zeros(1, 1, 3, device="meta")))
    transposed = torch.zeros(32, 16, 4)
    assert conv_transpose1d.why_not(x, transposed, stride=2) is None
    assert "float64" in str(conv_transpose1d.why_not(x.double(), transposed.double()))


def test_bad_arguments() -> None:
    x, weight, none = normal(0, 2, 32, 9), normal(1, 16, 32, 3), (None,) * 4
    bad = [
        ("expected x", (x[:, 1:], weight)),
        ("too few", (x[..., :2], weight)),
        ("expected bias", (x, weight, normal(2, 15))),
        ("expected residual", (x, weight, None, normal(2, 2, 16, 6))),
        ("needs alpha", (x, weight, *none, None, 1, 1, 1, SNAKE)),
        ("expected alpha", (x, weight, None, None, normal(2, 31), None, None, 1, 1, 1, SNAKE)),
        ("expected an activation", (x, weight, *none, None, 1, 1, 1, 8)),
    ]
    for message, args in bad:
        with pytest.raises(ValueError, match=message):
            by_triton(ops.conv1d, *args)


def test_nothing_to_do() -> None:
    x, weight = normal(0, 0, 32, 9), normal(1, 16, 32, 3)
    assert by_triton(ops.conv1d, x, weight).shape == (0, 16, 7)


# One of each form, in the kernel's own activation and staged, with float32 and bfloat16 products.
SMALL = [
    (32, 16, 1, 1, 1), (32, 16, 1, 1, MEDIUM), (32, 3, 4, 1, 0), (32, 3, 4, 1, MEDIUM),
    (2, 5, 2, 1, MEDIUM), (1, 1, 4, 6, 0), (1, 1, 2, 6, 0), (32, 1, 2, 1, 0), (16, 2, 4, 1, MEDIUM),
]  # fmt: skip


@pytest.mark.parametrize("channels, width, kernel, groups, precision", SMALL)
@pytest.mark.parametrize("activation", [ELU, SNAKE])
def test_any_cut_and_batch_of_every_form(
    channels: int, width: int, kernel: int, groups: int, precision: int, activation: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    c, n = channels * groups, width * groups
    x, weight, bias = normal(0, 2, c, 70 + kernel - 1), normal(1, n, channels, kernel), normal(2, n)
    alpha = normal(3, c).abs() + 0.2 if activation == SNAKE else None
    rest = (alpha, None, None, 1, 1, groups, activation, 0.0, precision)

    def run(part: Tensor) -> Tensor:
        return by_triton(ops.conv1d, part, weight, bias, None, *rest)

    whole = run(x)
    exact = reference.reference(x, weight, bias, None, *rest)
    assert (whole - exact).abs().max() <= (2e-3 if precision else 1e-5) * exact.abs().max()
    assert torch.equal(run(x[1:]), whole[1:])
    parts = [run(x[..., a : b + kernel - 1]) for a, b in ((0, 3), (3, 67), (67, 70))]
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert torch.equal(run(x.transpose(1, 2).contiguous().transpose(1, 2)), whole)
    monkeypatch.setattr(_conv, "SHORT", 0)  # the tiles of a long input
    assert torch.equal(run(x), whole)


def test_bfloat16_tensors() -> None:
    for channels, kernel in ((32, 1), (32, 7), (1, 3)):
        args = (normal(0, 2, channels, 20), normal(1, 16, channels, kernel), normal(2, 16))
        half = [a.bfloat16() for a in args]
        rest = (None, None, None, None, 1, 1, 1, ELU)
        got = by_triton(ops.conv1d, *half, *rest)
        want = reference.reference(*(a.double() for a in half), *rest)
        assert got.dtype is torch.bfloat16
        assert (got.double() - want).abs().max() <= 0.01 * want.abs().max()


def test_weights_are_kept_from_the_second_call_on() -> None:
    weight, made = normal(0, 4, 4, 3), []

    def make(w: Tensor) -> Tensor:
        made.append(w.clone())
        return made[-1]

    kept = [_conv.kept(weight, "a", make) for _ in range(4)]
    assert len(made) == 2 and kept[1] is kept[2] is kept[3]
    weight.add_(1)
    assert torch.equal(_conv.kept(weight, "a", make), weight)
    assert torch.equal(_conv.kept(weight, "b", make), weight) and len(made) == 4
    weight.data = weight.data.clone()
    _conv.kept(weight, "b", make)
    assert len(made) == 5
    with torch.inference_mode():
        uncounted = normal(0, 3)
    assert _conv.kept(uncounted, "a", make) is not _conv.kept(uncounted, "a", make)


def test_kept_weights_go_with_theirs() -> None:
    for kernel in (3, 1):  # repacked, and used as it is
        weight = torch.nn.Parameter(normal(0, 20, 16, kernel))
        for _ in range(3):
            _conv.repacked(weight, shape(16, 20, kernel), transposed=False)
        gone = weakref.ref(weight)
        before = len(_conv._kept)
        del weight
        gc.collect()
        assert gone() is None and len(_conv._kept) <= before


def test_changed_weights_are_seen() -> None:
    x, weight = normal(0, 1, 32, 9), normal(1, 16, 32, 3)
    before = [by_triton(ops.conv1d, x, weight) for _ in range(3)][-1]
    weight.mul_(2)
    torch.testing.assert_close(by_triton(ops.conv1d, x, weight), 2 * before)


@pytest.mark.parametrize("rows, parts, tiles", [(1, 1, 1), (64, 1, 1), (65, 2, 1)] + [
    (64 * 256, 256, 1), (64 * 256 + 1, 129, 2), (10**7, 256, 611)
])  # fmt: skip
def test_partial_sums_of_snake(rows: int, parts: int, tiles: int) -> None:
    assert snake_backward.grid_of(rows) == (parts, tiles)
    assert parts <= snake_backward.PARTS and parts * tiles * snake_backward.BLOCK_T >= rows


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("own_beta", [False, True])
@pytest.mark.parametrize("size", [(3, 5, 2), (2, 33, 65), (2, 3, 200)])
def test_gradients_of_snake(
    size: tuple[int, ...], own_beta: bool, time_major: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel, several tiles a program: the reference is not called."""
    given = [4 * normal(0, *size), normal(1, size[1]).abs() + 0.2, normal(2, size[1]).abs() + 0.2]
    given, weight = given[: 2 + own_beta], normal(3, *size)
    exact = [t.double().requires_grad_() for t in given]
    truth = torch.autograd.grad(snake.reference(*exact), exact, weight.double())
    if time_major:
        given[0] = given[0].transpose(1, 2).contiguous().transpose(1, 2)
    monkeypatch.setattr(snake_backward, "PARTS", 2)
    calls = []
    kernel = snake_backward.snake_backward_kernel
    monkeypatch.setattr(snake_backward, "launcher", lambda k: calls.append(k) or k)
    runs = []
    for _ in range(2):
        leaves = [t.detach().requires_grad_() for t in given]
        with use_backend("triton"):
            runs.append(torch.autograd.grad(snake(*leaves), leaves, weight))
    assert calls[0] is kernel and len(calls) == 4
    for mine, again, theirs in zip(*runs, truth, strict=True):
        assert torch.equal(mine, again)
        assert (mine.double() - theirs).abs().max() <= 5e-6 * theirs.abs().max()
