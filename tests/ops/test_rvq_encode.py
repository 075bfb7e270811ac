"""The quantizers' kernels give the codes of one search after another, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import torch
from torch import Tensor

from fastcodec import ops
from fastcodec.layers.quantize import FactorisedLevel, FactorisedQuantizer, MultiRateQuantizer
from fastcodec.ops.rvq_encode_factorised import unit

from ..backends import needs_native, threads

pytestmark = [needs_native, pytest.mark.usefixtures("one_thread")]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight [N, C] of x [B, C, T] by the convolution kernel: bias, then channel after channel."""
    rest = (None, None, None, None, 1, 1, 1, 0, 0.0)
    y: Tensor = ops.conv1d(x, weight[..., None].contiguous(), bias, *rest)
    return y


def searched(x: Tensor, codebooks: Tensor) -> Tensor:
    """``rvq_encode`` by full searches: float32 scores, the first of equal ones."""
    residual, codes = x, []
    for words in codebooks:
        norm = torch.zeros(len(words), dtype=torch.float64)
        for column in words.double().unbind(1):
            norm += column * column
        score = linear(residual, words, None) + (-0.5 * norm).float()[:, None]
        score = score.where(score.isnan().logical_not(), float("-inf"))
        first = score == score.amax(1, keepdim=True)
        codes.append(first.int().argmax(1))
        residual = residual - words[codes[-1]].mT
    return torch.stack(codes, dim=1)


def hard_cases() -> Iterator[tuple[str, Tensor, Tensor]]:
    """(what, x [B, D, T], codebooks [K, N, D]); N > 2."""
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    for d, n, frames in [(1, 3, 5), (3, 31, 13), (7, 33, 12), (17, 100, 25), (129, 65, 49)]:
        yield f"{d} features", r(2, d, frames), r(3, n, d)
    x, books = r(1, 128, 60), r(4, 1024, 128)
    yield "usual", x, 0.28 * books
    for power in (-140, -60, -21, -12, 12, 45, 62):
        yield f"rows of 2^{power}", x * 2.0**power, books
        yield f"words of 2^{power}", x, books * 2.0**power
        yield f"both of 2^{power}", x * 2.0**power, books * 2.0**power
    scales = 2.0 ** torch.arange(-30, 30)
    yield "rows of all sizes", x * scales, books
    yield "words of all sizes", x, books * 2.0 ** (torch.arange(1024) % 60 - 50)[:, None]
    few = r(1, 8, 128)
    yield "ties", x, few.repeat(1, 128, 1)
    near = few.repeat(4, 128, 1) * (1 + 1e-7 * r(4, 1024, 128))
    yield "words an ulp apart", x, near
    yield "fewer than the most candidates", x, torch.cat([near[:, :40], 4 + books[:, 40:]], dim=1)
    yield "rows between words", 0.5 * (books[0, :60] + books[0, 60:120]).T[None], books
    yield "rows that are words", books[0, :60].T[None].contiguous(), books
    spiky = books * (books.abs() > 2.5) + 1e-3 * r(4, 1024, 128)
    yield "spikes", spiky[1, :60].T[None] + 1e-3 * x, spiky
    yield "zero words", x, books * (torch.arange(1024) % 3 > 0)[:, None]
    yield "zeros", 0 * x, 0 * books
    yield "zero rows", x * (torch.arange(60) % 2), books
    yield "a mean far away", x + 30, 0.1 * books + 30
    yield "denormal parts", x * 1e-40 + x * (torch.arange(128) < 4)[:, None], books
    for value in (float("nan"), float("inf"), float("-inf")):
        broken = x.clone()
        broken[0, 5, ::7] = value
        yield f"rows with {value}", broken, books
        spoilt = books.clone()
        spoilt[1, 17, 3] = value
        yield f"a word with {value}", x, spoilt
    # To 8 bits, most of the first row of each pair is lost: what decides, and always one way.
    most, rest = torch.eye(128)[0], 1 - torch.eye(128)[0]
    lost = 127 * most + 0.49 * rest
    kept = torch.stack([most, 127 / 16 * most, (127 * most + 6 * rest) / 16])
    yield "rows that rounding empties", lost[None, :, None], kept[None]
    words = torch.stack([most, 127 * most, lost])
    yield "words that rounding empties", (127 * most + 6 * rest)[None, :, None], words[None]
    # Sums of equal terms in another order each, and one word longer by four ulps.
    whole = torch.randint(1, 128, (8, 16), generator=g).float()
    mixed = torch.stack([whole[:, torch.randperm(16, generator=g)] for _ in range(1024)])
    longer = 1 + 2.0**-21 * (torch.arange(1024) == 500)[:, None]
    level = (8.8 * torch.randint(100, 128, (60, 8), generator=g)).repeat_interleave(16, dim=1)
    yield (
        "sums that only float32's rounding tells apart",
        level.T[None],
        (mixed.flatten(1) * longer)[None],
    )
    yield "many features", r(1, 1024, 14), r(1, 200, 1024)
    yield "too many features", r(1, 1031, 14), r(1, 200, 1031)


HARD = [pytest.param(x, books, id=what) for what, x, books in hard_cases()]


@pytest.mark.parametrize("x, books", HARD)
def test_the_prefilter_changes_no_code(x: Tensor, books: Tensor) -> None:
    got = ops.rvq_encode(x, books, None)
    if not x.isfinite().all() or not books.isfinite().all():  # what is left over may be NaN
        assert 0 <= got.min() and got.max() < books.shape[1]
        rows = x.isfinite().all(dim=1)[0]
        got, x, books = got[:, :1, rows], x[..., rows], books[:1]
    assert torch.equal(got, searched(x, books))


def test_the_prefilter_without_denormals() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor does not flush denormals")
    try:
        for _, x, books in hard_cases():
            if x.isfinite().all() and books.isfinite().all():
                assert torch.equal(ops.rvq_encode(x, books, None), searched(x, books))
    finally:
        torch.set_flush_denormal(False)


def factorised(
    k: int, n: int, d: int, c: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Parameters of ``rvq_encode_factorised`` after x."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((k, d, c), (k, d), (k, n, d), (k, c, d), (k, c))
    into, into_bias, books, back, back_bias = (torch.randn(s, generator=g) for s in shapes)
    return into / c**0.5, 0.1 * into_bias, books, 0.3 * back, 0.1 * back_bias


def level_by_level(x: Tensor, *parts: Tensor) -> Tensor:
    """``rvq_encode_factorised`` by the ops that it is made of."""
    residual, codes = x, []
    for into, into_bias, words, back, back_bias in zip(*parts, strict=True):
        units = unit(words[..., None])[..., 0]
        projected = unit(linear(residual, into, into_bias))
        codes.append(ops.rvq_encode(projected, units[None], None)[:, 0])
        residual = residual - linear(words[codes[-1]].mT, back, back_bias)
    return torch.stack(codes, dim=1)


FACTORISED = [
    (1, 1024, 70, 9, 1024, 8),
    (2, 64, 30, 3, 64, 8),
    (3, 33, 41, 4, 17, 5),
    (1, 7, 1, 2, 5, 3),
    (2, 100, 17, 3, 33, 13),
    (1, 65, 33, 3, 1000, 9),
    (1, 3, 9, 2, 3, 3),
]


@pytest.mark.parametrize("batch, c, frames, k, n, d", FACTORISED)
def test_factorised_is_its_ops_one_after_the_other(
    batch: int, c: int, frames: int, k: int, n: int, d: int
) -> None:
    x, parts = torch.randn(batch, c, frames, generator=torch.manual_seed(1)), factorised(k, n, d, c)
    want = level_by_level(x, *parts)
    for same in (x, x.mT.contiguous().mT):
        assert torch.equal(ops.rvq_encode_factorised(same, *parts, None), want)
    codes = want.where(torch.rand(want.shape, generator=torch.manual_seed(2)) > 0.2, -1)
    total = torch.zeros(batch, c, frames)
    for row, words, weight, bias in zip(codes.unbind(1), *parts[2:], strict=True):
        total = total + linear(words[row.clamp(min=0)].mT, weight, bias) * (row >= 0)[:, None]
    assert torch.equal(ops.rvq_decode_factorised(codes, *parts[2:]), total)


def test_factorised_edges() -> None:
    """Zero words and rows, equal words, and what is not finite spoils its own frame only."""
    parts = factorised(3, 40, 8, 20)
    parts[2][0, 20:] = parts[2][0, :20]
    parts[2][1, ::3] = 0
    x = torch.randn(1, 20, 40, generator=torch.manual_seed(1))
    x[..., 3] = 0
    whole = ops.rvq_encode_factorised(x, *parts, None)
    assert torch.equal(whole, level_by_level(x, *parts)) and whole[:, 0].max() < 20
    for value in (float("nan"), float("inf"), float("-inf")):
        broken = x.clone()
        broken[0, 4, 7] = value
        got = ops.rvq_encode_factorised(broken, *parts, None)
        assert 0 <= got.min() and got.max() < 40
        got[..., 7] = whole[..., 7]
        assert torch.equal(got, whole)


@pytest.mark.parametrize("code", [-2, 40, 1 << 40])
def test_factorised_codes_out_of_range_are_refused(code: int) -> None:
    parts = factorised(2, 40, 8, 20)
    codes = torch.zeros(1, 2, 3, dtype=torch.int64)
    codes[0, 1, 2] = code
    with pytest.raises(RuntimeError, match=r"outside -1\.\.39"):
        ops.rvq_decode_factorised(codes, *parts[2:])


def test_factorised_shapes_are_checked() -> None:
    into, into_bias, books, back, back_bias = factorised(2, 40, 8, 20)
    x = torch.zeros(1, 20, 3)
    with pytest.raises(RuntimeError, match="in must be"):
        ops.rvq_encode_factorised(x, into.mT, into_bias, books, back, back_bias, None)
    with pytest.raises(RuntimeError, match="out must be"):
        ops.rvq_encode_factorised(x, into, into_bias, books, back, back_bias[:1], None)


@pytest.mark.parametrize(
    "quantizer", [FactorisedQuantizer(3, 40, 8, 20), MultiRateQuantizer((4, 2, 1), 40, 8, 20)]
)
def test_layers_follow_their_parameters(quantizer: FactorisedQuantizer) -> None:
    """Also where one is changed in place or replaced, and with other numbers of codebooks."""
    x = torch.randn(2, 20, 24, generator=torch.manual_seed(1))
    levels = cast(list[FactorisedLevel], list(quantizer.levels))
    for change in range(4):
        with torch.no_grad():
            if change == 1:
                levels[1].in_proj.weight.mul_(-1)
            if change == 2:
                levels[0].codebook.data = torch.randn(40, 8)
            if change == 3:
                levels[2].out_proj.weight.add_(1)
            codes = quantizer.encode(x)
            for count in (1, 2, 3):
                with threads(count):
                    assert torch.equal(quantizer.encode(x, count), codes[:, :count])
            latents = quantizer.decode(codes)
        with_gradient = quantizer.decode(codes)
        assert torch.equal(with_gradient, latents) and with_gradient.requires_grad
        want = torch.zeros_like(latents)
        for level, row in zip(levels, codes.unbind(1), strict=True):
            want = want + level.decode(row)
        assert torch.equal(latents, want)
        residual = x.mT
        for level, row, hold in zip(
            levels, codes.unbind(1), quantizer.hold or (1, 1, 1), strict=True
        ):
            groups = residual.unflatten(1, (-1, hold))
            seen = groups[:, :, 0]
            for i in range(1, hold):
                seen = seen + groups[:, :, i]
            own = level.encode(level.project((seen / hold).mT))
            assert torch.equal(own.repeat_interleave(hold, dim=1), row)
            residual = residual - level.decode(row).mT
