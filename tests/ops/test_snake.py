"""``snake``: accuracy over all of its range, memory that is given, its native gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastcodec import use_backend
from fastcodec.ops import snake, snake_out
from fastcodec.ops.snake import snake_backward

from ..backends import needs_native, threads
from ._examples import LAYOUTS

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(1, 1, 1), (3, 5, 2), (2, 33, 65), (1, 64, 7), (2, 3, 1500), (1, 16, 129)]


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(shape[1])
    alpha, beta = (torch.rand(shape[1], generator=g) + 0.2 for _ in range(2))
    return 4 * torch.randn(*shape, generator=g), alpha, beta


@needs_native
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("alpha", [1e-4, 0.5, 1.0, 30.0])
def test_sine_of_any_argument(alpha: float, size: float) -> None:
    """No further from the truth than torch's, whose argument is rounded."""
    x = size * torch.linspace(-3, 3, 30_000).view(1, 3, -1)
    a = torch.full((3,), alpha)
    exact = snake.reference(x.double(), a.double())
    ours = (snake(x, a).double() - exact).abs().max()
    theirs = (snake.reference(x, a).double() - exact).abs().max()
    assert ours <= 1.1 * theirs + 1e-7 * exact.abs().max() / (1 + size)


@needs_native
@pytest.mark.parametrize("alpha", [1e-4, 1.0, 30.0])
def test_far_beyond_the_reducible(alpha: float) -> None:
    x = torch.tensor([[[1e8, -1e8, 3e9, 0.5, -0.25, 1e30, 3e38, -3e38] * 3]])
    one, tiny = torch.tensor([alpha]), torch.tensor([1e-3])
    y = snake(x, one, tiny)
    exact = snake.reference(x.double(), one.double(), tiny.double())
    near = x.abs() < 1
    assert torch.isfinite(y).all()
    torch.testing.assert_close(y[near].double(), exact[near], rtol=1e-6, atol=1e-6)
    assert ((y - x)[x.abs() < 1e9].abs() <= 1001).all()


@needs_native
def test_a_channel_of_zero() -> None:
    x = torch.tensor([[[-1.0, 0.0, 2.0, float("inf")]]])
    for beta in (None, torch.tensor([0.5])):
        exact = snake.reference(x, torch.zeros(1), beta)
        torch.testing.assert_close(snake(x, torch.zeros(1), beta), exact, equal_nan=True)


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("layout", ["channel-major", "time-major"])
@pytest.mark.parametrize("shape", SHAPES)
def test_into_given_memory(shape: tuple[int, ...], layout: str, backend: str | None) -> None:
    x, alpha, beta = inputs(shape)
    x = LAYOUTS[layout](x)
    with use_backend(backend):
        want = snake(x, alpha, beta)
        out = torch.full_like(x, float("nan"))
        snake_out(x, alpha, beta, out)
        assert torch.equal(out, want)
        snake_out(x, alpha, beta, x)
        assert torch.equal(x, want)


@needs_native
def test_large_enough_to_pass_the_caches_by() -> None:
    """Rows that begin anywhere in a vector, so with parts of vectors at both ends."""
    x, alpha, _ = inputs((1, 5, 900_001))
    whole = snake(x, alpha)
    assert torch.equal(whole[..., 1000:3001], snake(x[..., 1000:3001].contiguous(), alpha))
    rows = LAYOUTS["time-major"](x)
    with threads(2):
        assert torch.equal(snake(rows, alpha), whole)
        assert torch.equal(snake(x, alpha), whole)


@needs_native
def test_memory_that_does_not_fit() -> None:
    x, alpha, _ = inputs((2, 4, 9))
    room = torch.zeros(200)
    room[:72] = x.flatten()
    for wrong in (
        x.new_empty(2, 4, 8),
        LAYOUTS["time-major"](x),
        x.new_empty(2, 4, 18)[..., ::2],
        x.double(),
    ):
        with pytest.raises(RuntimeError, match="snake_out"):
            snake_out(x, alpha, None, wrong)
    with pytest.raises(RuntimeError, match="memory of its own"):
        snake_out(room[:72].view(2, 4, 9), alpha, None, room[3:75].view(2, 4, 9))
    with pytest.raises(ValueError, match="requires grad"):
        snake_out(x, alpha.requires_grad_(), None, torch.empty_like(x))


@needs_native
@pytest.mark.parametrize("shape", SHAPES)
def test_opcheck(shape: tuple[int, ...]) -> None:
    x, alpha, beta = inputs(shape)
    for layout in ("channel-major", "time-major"):
        laid = LAYOUTS[layout](x)
        args = (laid, alpha, beta, torch.empty_like(laid))
        torch.library.opcheck(torch.ops.fastcodec.snake_out.default, args)
        backward = torch.ops.fastcodec.snake_backward.default
        torch.library.opcheck(backward, (torch.ones_like(laid), laid, alpha, None))


@needs_native
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("own_beta", [False, True])
def test_gradients(shape: tuple[int, ...], layout: str, own_beta: bool) -> None:
    x, alpha, beta = inputs(shape)
    given = [x, alpha, *([beta] if own_beta else [])]
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    exact = [t.double().requires_grad_() for t in given]
    truth = torch.autograd.grad(snake.reference(*exact), exact, weight.double())
    ours = [LAYOUTS[layout](x).requires_grad_(), *(t.requires_grad_() for t in given[1:])]
    got = torch.autograd.grad(snake(*ours), ours, weight)
    for mine, theirs in zip(got, truth, strict=True):
        assert (mine.double() - theirs).abs().max() <= 3e-6 * theirs.abs().max()


@needs_native
def test_only_some_gradients() -> None:
    x, alpha, beta = inputs((2, 5, 30))
    all_of = [t.clone().requires_grad_() for t in (x, alpha, beta)]
    want = torch.autograd.grad(snake(*all_of).sum(), all_of)
    for chosen in range(3):
        some = [t.clone().requires_grad_(i == chosen) for i, t in enumerate((x, alpha, beta))]
        (got,) = torch.autograd.grad(snake(*some).sum(), [some[chosen]])
        assert torch.equal(got, want[chosen])


@needs_native
@pytest.mark.parametrize("layout", ["channel-major", "time-major"])
def test_gradients_on_any_number_of_threads(layout: str) -> None:
    x, alpha, beta = inputs((3, 48, 3000))
    x, grad = LAYOUTS[layout](x), LAYOUTS[layout](x.cos())
    alone = snake_backward(grad, x, alpha, beta)
    for count in (2, 3):
        with threads(count):
            again = snake_backward(grad, x, alpha, beta)
        assert all(torch.equal(a, b) for a, b in zip(again, alone, strict=True))
