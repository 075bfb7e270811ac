"""The kernels' own exponentials: a few units in the last place everywhere, tails included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastcodec.ops import ACTIVATIONS, activation

from ..backends import needs_native

pytestmark = [needs_native, pytest.mark.usefixtures("one_thread")]


def normal_distribution(x: Tensor) -> Tensor:
    return 0.5 * torch.special.erfc(-x * 0.5**0.5)


EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": torch.nn.functional.elu,
    "gelu": lambda x: x * normal_distribution(x),
    "sigmoid": torch.sigmoid,
    "silu": lambda x: x * torch.sigmoid(x),
    "tanh": torch.tanh,
}
ALLOWED_ULP = {"elu": 2, "gelu": 6, "sigmoid": 3, "silu": 5, "tanh": 3}


def values() -> Tensor:
    """Every magnitude, and densely where the functions bend."""
    dense = torch.linspace(-20, 20, 200_001)
    powers = torch.logspace(-38, 2, 20_001)
    return torch.cat([dense, powers, -powers]).view(1, 1, -1)


@pytest.mark.parametrize("name", EXACT)
def test_units_in_the_last_place(name: str) -> None:
    x = values()
    exact = EXACT[name](x.double())
    smallest = torch.finfo(torch.float32).tiny
    unit = torch.frexp(exact.abs().clamp(min=smallest)).exponent.double().sub(24).exp2()
    # Results that are no normal numbers may be anything as small.
    error = (activation(x, ACTIVATIONS[name], 0.0).double() - exact).abs() - smallest
    assert (error / unit).max() <= ALLOWED_ULP[name]


@pytest.mark.parametrize("name", ["elu", "gelu", "sigmoid", "silu", "tanh"])
def test_far_out(name: str) -> None:
    x = torch.tensor([-3e38, -1e4, -200.0, 200.0, 1e4, 3e38]).view(1, 1, -1)
    exact = EXACT[name](x.double()).float()
    torch.testing.assert_close(activation(x, ACTIVATIONS[name], 0.0), exact, rtol=0, atol=1e-35)


@pytest.mark.parametrize("kind", [-1, ACTIVATIONS["snake"], len(ACTIVATIONS)])
def test_what_is_no_activation_is_refused(kind: int) -> None:
    x = torch.zeros(1, 2, 3)
    with pytest.raises(RuntimeError, match="activation|snake"):
        activation(x, kind, 0.0)
    with pytest.raises(ValueError, match="activation"):
        activation(x.double(), kind, 0.0)
