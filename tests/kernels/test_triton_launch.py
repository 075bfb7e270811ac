"""What the Triton kernels refuse, how they are cut, and the values no other test reaches."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcodec import ops, use_backend
from fastcodec.ops import registry

pytest.importorskip("triton")
pytestmark = [pytest.mark.usefixtures("one_thread")]
GPU = torch.cuda.is_available()
if GPU:
    pytestmark.append(pytest.mark.gpu)

Args = tuple[Any, ...]
OPS = {op.name: op for op in registry()}
MEDIUM = ops.PRECISIONS["medium"]


def module(name: str) -> Any:
    return import_module(f"fastcodec.kernels.{name}")


def example(name: str) -> list[Any]:
    return list(OPS[name].examples()[0])


def by_triton(op: Any, *args: Any) -> Any:
    with use_backend("triton"):
        got = op(*(a.cuda() if GPU and isinstance(a, Tensor) else a for a in args))
    return tuple(y.cpu() for y in got) if isinstance(got, tuple) else got.cpu()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# (op, argument, what it is replaced by, words of the reason)
REFUSED: list[tuple[str, int, Any, str]] = [
    ("rvq_encode", 0, lambda x: x.double(), "float32"),
    ("rvq_encode", 0, lambda x: x[:, 1:], "does not fit"),
    ("rvq_encode", 1, lambda books: books[:, :0], "from one word"),
    ("rvq_decode", 0, lambda codes: codes.int(), "int64"),
    ("rvq_decode", 1, lambda books: books[:1], "do not fit"),
    ("rvq_decode_factorised", 0, lambda codes: codes.int(), "int64"),
    ("rvq_decode_factorised", 2, lambda weight: weight.mT, "out_weight"),
    ("rvq_decode_factorised", 3, lambda bias: bias[:, 1:], "out_bias"),
    ("rvq_encode_factorised", 1, lambda weight: weight.mT, "do not fit"),
    ("rvq_encode_factorised", 5, lambda bias: bias.bfloat16(), "float32"),
    ("group_norm", 1, lambda weight: weight[1:], "does not fit"),
    ("attention", 1, lambda k: k[:, 1:], "do not fit"),
    ("attention", 3, lambda first: first.int(), "int64"),
    ("attention", 5, lambda heads: 3, "heads do not divide"),
    ("lstm", 1, lambda h: h[:, :, 1:], "do not fit"),
    ("lstm", 3, lambda weight: weight[0], "3 dimensions"),
]


@pytest.mark.parametrize("name, at, change, reason", REFUSED)
def test_what_does_not_fit_is_refused(name: str, at: int, change: Any, reason: str) -> None:
    args = example(name)
    assert module(name).why_not(*args) is None
    args[at] = change(args[at])
    assert reason in module(name).why_not(*args)


def test_what_registers_do_not_hold_is_refused() -> None:
    x, books = torch.zeros(1, 1025, 1), torch.zeros(1, 2, 1025)
    assert "up to 1024 features" in module("rvq_encode").why_not(x, books)
    shapes = ((1, 9, 1), (1, 65, 9), (1, 65), (1, 2, 65), (1, 9, 65), (1, 9))
    wide = [torch.zeros(shape) for shape in shapes]
    assert "1 to 64 features" in module("rvq_encode_factorised").why_not(*wide)
    q, span = torch.zeros(1, 257, 1), torch.zeros(1, dtype=torch.int64)
    assert "up to 256 features" in module("attention").why_not(q, q, q, span, span, 1, 1.0)


@pytest.mark.parametrize("words", [1, 16, 17, 1000, 1024, 5000])
@pytest.mark.parametrize("features", [1, 16, 17, 128, 200, 1024])
def test_blocks_of_the_search_cover_a_word(words: int, features: int) -> None:
    tile = module("rvq_encode").blocks(words, features)
    assert all(size & (size - 1) == 0 for size in tile.values())
    assert tile["CHUNKS"] * tile["CHUNK"] >= features and tile["CHUNK"] >= 16
    assert tile["WORDS"] >= min(words, 256) and tile["WORDS"] * tile["CHUNK"] <= 8192


@pytest.mark.parametrize("features, queries", [(1, 16), (64, 4), (65, 2), (256, 1)])
def test_blocks_of_attention(features: int, queries: int) -> None:
    tile = module("attention").blocks(features)
    assert tile["QUERIES"] == queries and tile["FEATURES"] >= features


@pytest.mark.parametrize("name", ["rvq_encode", "rvq_encode_factorised", "lstm", "attention"])
def test_what_is_compiled_is_what_runs(name: str) -> None:
    """Each listed kernel has every argument either typed or constant."""
    for one in module(name).offline():
        names = set(one.kernel.arg_names)
        assert names <= set(one.types) | set(one.constants)
        assert not set(one.types) & set(one.constants)


@pytest.mark.parametrize("features", [150, 1024])
def test_frames_of_many_features(features: int) -> None:
    x, books = normal(0, 2, features, 5), normal(1, 2, 40, features)
    codes = by_triton(ops.rvq_encode, x, books, None)
    assert torch.equal(codes, ops.rvq_encode.reference(x.double(), books.double()))


def test_more_words_than_a_block_and_equal_ones() -> None:
    books = normal(0, 1, 600, 8).repeat(1, 2, 1)
    codes = by_triton(ops.rvq_encode, books[0, :600:7].T[None].contiguous(), books, None)
    assert torch.equal(codes[0, 0], torch.arange(0, 600, 7))


@pytest.mark.parametrize("name", ["rvq_decode", "rvq_decode_factorised"])
@pytest.mark.parametrize("code", [-2, 64, 1 << 40])
def test_a_code_out_of_range_makes_its_frame_nan(name: str, code: int) -> None:
    codes, *rest = example(name)
    clean = by_triton(OPS[name], codes, *rest)
    broken = codes.clone()
    broken[1, 1, 3] = code
    got = by_triton(OPS[name], broken, *rest)
    assert got[1, :, 3].isnan().all()
    got[1, :, 3] = clean[1, :, 3]
    assert torch.equal(got, clean)


def test_equal_words_of_a_factorised_quantizer_give_the_lowest() -> None:
    x, *parts, _ = example("rvq_encode_factorised")
    parts[2] = parts[2][:, :20].repeat(1, 3, 1)
    parts[2][0, 5::20] = 0
    assert by_triton(ops.rvq_encode_factorised, x, *parts, None).max() < 20


def test_attention_depends_on_its_span_only() -> None:
    q, k, v = normal(0, 1, 32, 3), normal(1, 1, 32, 50), normal(2, 1, 32, 50)
    first, last = torch.tensor([0, 7, 20]), torch.tensor([40, 41, 43])
    whole = by_triton(ops.attention, q, k, v, first, last, 2, 0.2)
    moved = (torch.cat([torch.full((1, 32, 3), float("nan")), t[..., :45]], dim=2) for t in (k, v))
    assert torch.equal(by_triton(ops.attention, q, *moved, first + 3, last + 3, 2, 0.2), whole)


def test_attention_of_keys_that_are_minus_infinity() -> None:
    """Those before any other, in a block of their own, have no weight."""
    q, k, v = torch.ones(1, 4, 1), normal(1, 1, 4, 40), normal(2, 1, 4, 40)
    k[..., :20] = float("-inf")
    span = torch.tensor([0]), torch.tensor([40])
    got = by_triton(ops.attention, q, k, v, *span, 1, 0.5)
    want = by_triton(ops.attention, q, k, v, span[0] + 20, span[1], 1, 0.5)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("hidden", [17, 130])
def test_lstm_of_medium_precision(hidden: int) -> None:
    """Also where a layer is not narrow."""
    state = (normal(0, 1, 2, hidden), normal(1, 1, 2, hidden))
    weights = (hidden**-0.5 * normal(seed, 1, 4 * hidden, hidden) for seed in (2, 3))
    biases = (normal(4, 1, 4 * hidden), normal(5, 1, 4 * hidden))
    args = (normal(6, 2, hidden, 3), *state, *weights, *biases)
    for precision in (0, MEDIUM):
        exact = ops.lstm.reference(*(a.double() for a in args), None, True, precision)
        ours = by_triton(ops.lstm, *args, None, True, precision)
        for mine, theirs in zip(ours, exact, strict=True):
            assert (mine.double() - theirs).abs().max() <= 3e-6 * theirs.abs().max()


@pytest.mark.parametrize(
    "name, args",
    [
        ("rvq_encode", (torch.zeros(2, 4, 0), torch.zeros(3, 5, 4))),
        ("rvq_decode", (torch.zeros(2, 3, 0, dtype=torch.int64), torch.zeros(3, 5, 4))),
        ("group_norm", (torch.zeros(2, 4, 0), torch.zeros(4), torch.zeros(4))),
    ],
)
def test_no_frames(name: str, args: Args) -> None:
    got, want = by_triton(OPS[name], *args), OPS[name].reference(*args)
    assert got.shape == want.shape and got.dtype is want.dtype


def test_lstm_without_frames_keeps_its_state() -> None:
    x, *rest = example("lstm")
    y, h, c = by_triton(ops.lstm, x[..., :0], *rest)
    assert y.shape == x[..., :0].shape
    assert torch.equal(h, rest[0]) and torch.equal(c, rest[1])
