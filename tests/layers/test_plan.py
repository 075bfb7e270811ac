"""Native runs: the same bits as the layers' own pushes, and taken only where they may be."""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastcodec import ops, use_backend
from fastcodec.codecs.base import Codec
from fastcodec.layers import plan
from fastcodec.layers.conv import Activation, Conv1d, ConvTranspose1d, set_precision
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.norm import LayerNorm
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.streaming import Held, Residual, Sequential, StreamingModule
from fastcodec.layers.transformer import (
    LayerScale,
    Transformer,
    TransformerConfig,
    TransformerLayer,
    transformer,
)

from .. import nets
from ..backends import needs_native, threads
from ._streaming import with_random_weights
from .test_push import chains

pytestmark = [needs_native, pytest.mark.usefixtures("one_thread")]

# Of the pushes of a signal; the last is final, and long enough for any padding.
SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=9).map(lambda sizes: [*sizes, 30])


@contextmanager
def native_pushes() -> Iterator[list[int]]:
    """How many steps each native call had."""
    steps: list[int] = []

    def counted(x: Tensor, rows: Tensor, *state: Tensor) -> Tensor:
        steps.append(len(rows))
        return push(x, rows, *state)

    push = ops.push_plan
    with mock.patch.object(ops, "push_plan", counted):
        yield steps


@contextmanager
def without_plans() -> Iterator[None]:
    with mock.patch.object(plan, "serves", lambda x: False):
        yield


@torch.no_grad()
def pushed(layer: StreamingModule, pieces: list[Tensor], final: bool = True) -> list[Tensor]:
    """What every push gives."""
    state = layer.init_state(len(pieces[0]))
    last = len(pieces) - 1
    return [layer.push(x, state, final and i == last) for i, x in enumerate(pieces)]


def assert_native_is_the_same(layer: StreamingModule, pieces: list[Tensor]) -> None:
    with without_plans():
        want = pushed(layer, pieces)
    before = [x.clone() for x in pieces]
    got = pushed(layer, pieces)
    assert all(map(torch.equal, pieces, before)), "a push has changed its input"
    assert [y.shape for y in got] == [y.shape for y in want]
    assert all(map(torch.equal, got, want))


def pieces_of(channels: int, sizes: list[int], batch: int) -> list[Tensor]:
    x = nets.signal(batch, channels, sum(sizes)) * 10
    return list(x.split(sizes, dim=2))


def unit(channels: int, dilation: int, lookahead: int = 0, skip: bool = False) -> Residual:
    span = 2 * dilation
    body = [
        Conv1d(
            channels, 4, 3, dilation=dilation, left=span - lookahead, right=lookahead,
            activation=Activation("snake"),
        ),
        Conv1d(4, channels, 1, activation=Activation("elu")),
    ]  # fmt: skip
    return Residual(body, Sequential(Conv1d(channels, channels, 1)) if skip else None)


def small(lookahead: int = 0) -> Sequential:
    """Every kind of step: 2 channels in, 3 out."""
    net = Sequential(
        Conv1d(2, 6, 5, 2, left=3, padding="reflect", activation=Activation("leaky_relu", 0.3)),
        unit(6, 1, lookahead),
        Sequential(unit(6, 3, lookahead, skip=True)),
        Conv1d(6, 6, 3, groups=6, left=2, padding="replicate"),
        ConvTranspose1d(6, 4, 6, 3, groups=2, cut_right=3, activation=Activation("elu")),
        ConvTranspose1d(4, 3, 2, 2),
        Pointwise("tanh"),
    )
    return with_random_weights(net)  # type: ignore[return-value]


@settings(max_examples=200)
@given(chains(), SIZES, st.integers(1, 3), st.integers(1, 3))
def test_random_chains(layer: Sequential, sizes: list[int], batch: int, n_threads: int) -> None:
    with threads(n_threads):
        assert_native_is_the_same(layer, pieces_of(2, sizes, batch))


@given(
    st.integers(0, 2),
    SIZES,
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(sorted(ops.PRECISIONS)),
)
def test_every_kind_of_step(
    lookahead: int, sizes: list[int], batch: int, n_threads: int, precision: str
) -> None:
    net = small(lookahead)
    set_precision(net, precision, but=nn.Identity())
    with threads(n_threads):
        assert_native_is_the_same(net, pieces_of(2, sizes, batch))


TRANSFORMERS = {
    "window": TransformerConfig(layers=2, heads=2, feed_forward=31, context=5),
    "itself alone": TransformerConfig(layers=1, heads=1, feed_forward=8, context=1),
    "longer than a block": TransformerConfig(layers=1, heads=2, feed_forward=8, context=75),
    "shared keys": TransformerConfig(
        layers=2, heads=4, kv_heads=2, head_features=10, feed_forward=16, activation="silu",
        context=12, layer_scale=False, max_period=500.0,
    ),
}  # fmt: skip


def with_transformer(name: str) -> Sequential:
    """Between layers of other rates, two steps a frame."""
    net = Sequential(
        ConvTranspose1d(2, 8, 4, 2, cut_right=2),
        transformer(8, TRANSFORMERS[name]),
        LayerNorm(8),
        Conv1d(8, 3, 3, left=2),
    )
    return with_random_weights(net)  # type: ignore[return-value]


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(TRANSFORMERS)),
    SIZES,
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(sorted(ops.PRECISIONS)),
)
def test_transformers(
    name: str, sizes: list[int], batch: int, n_threads: int, precision: str
) -> None:
    net, pieces = with_transformer(name), pieces_of(2, sizes, batch)
    set_precision(net, precision, but=nn.Identity())
    with threads(n_threads):
        assert_native_is_the_same(net, pieces)
        with torch.no_grad():
            assert torch.equal(torch.cat(pushed(net, pieces), dim=2), net(torch.cat(pieces, dim=2)))


def test_a_push_through_a_transformer_is_one_call() -> None:
    net, pieces = with_transformer("window"), pieces_of(2, [3] * 9, 1)
    with native_pushes() as steps:
        pushed(net, pieces)
    assert steps == [30] * 7  # all but the first and the final one


def test_a_transformer_goes_back_to_its_own_caches() -> None:
    """After the ring has gone round, in the middle of it, and on again."""
    net, pieces = with_transformer("shared keys"), pieces_of(2, [5] * 20, 2)
    want = pushed(net, pieces)
    with torch.no_grad():
        state = net.init_state(2)
        for i, x in enumerate(pieces):
            if i % 5 == 4:
                state.give_back()
                _, transformer_state, *_ = state
                assert all(len(cache) == 11 for cache in transformer_state.caches)
            assert torch.equal(net.push(x, state, i == 19), want[i])


class Louder(LayerScale):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_transformer_of_other_parts_has_no_plan() -> None:
    pieces = pieces_of(2, [10] * 4, 1)
    for change in ("scale", "all before"):
        net = with_transformer("window")
        part = cast(Transformer, net.layers[1])
        if change == "scale":
            layer = cast(TransformerLayer, part.layers[1])
            layer.scale2 = Louder(8)
        else:
            part.context = None
        assert_native_is_the_same(net, pieces)
        with native_pushes() as steps:
            pushed(net, pieces)
        assert max(steps) == 3  # the layers after it


@functools.cache
def codec(name: str) -> Codec:
    return nets.STREAMING[name]()


@pytest.mark.parametrize("name", nets.STREAMING)
@settings(max_examples=15)
@given(SIZES, st.integers(1, 3), st.integers(1, 3))
def test_codecs(name: str, sizes: list[int], batch: int, n_threads: int) -> None:
    net = codec(name)
    tokens = net.encode(nets.signal(batch, net.channels, sum(sizes) * net.hop + 1)).tokens
    with torch.no_grad():
        frames = [min(n, tokens.shape[2] - 1) for n in sizes]
        latent = net.quantizer.decode(tokens)
    with threads(n_threads):
        assert_native_is_the_same(
            net.encoder, pieces_of(net.channels, [n * net.hop // 3 for n in sizes] + [1], batch)
        )
        assert_native_is_the_same(net.decoder, [latent[..., :n] for n in [*frames, 1]])


def test_a_steady_push_is_one_call() -> None:
    net, pieces = small(), pieces_of(2, [40] * 6, 1)
    with native_pushes() as steps:
        pushed(net, pieces)
    assert len(steps) == 4 and set(steps) == {15}  # all but the first and the final one


def test_a_layer_without_a_plan_parts_the_run() -> None:
    net = Sequential(Conv1d(2, 4, 3, left=2), Lstm(4, 1), small().layers[6], Conv1d(4, 2, 1))
    pieces = pieces_of(2, [10] * 4, 2)
    with native_pushes() as steps:
        assert_native_is_the_same(net, pieces)
    assert steps.count(2) == 2 and steps.count(3) == 3  # the last two begin at once


class Doubled(Conv1d):
    """A layer that differs from its parent somewhere inside."""

    def _convolve(self, x: Tensor, held: Held | None) -> Tensor:
        return 2 * super()._convolve(x, held)


def test_a_layer_is_not_taken_for_its_parent() -> None:
    net = Sequential(
        Doubled(2, 3, 3, left=2), Conv1d(3, 3, 1), Residual([Conv1d(3, 3, 1), Doubled(3, 3, 1)])
    )
    pieces = pieces_of(2, [10] * 4, 1)
    assert_native_is_the_same(with_random_weights(net), pieces)
    with native_pushes() as steps:
        pushed(net, pieces)
    assert steps == [2, 2, 2]


def test_a_long_push_goes_through_in_parts() -> None:
    net, pieces = small(1), pieces_of(2, [50, 3001, 500, 7], 2)
    with mock.patch.object(plan, "WIDEST", 1000), native_pushes() as steps:
        assert_native_is_the_same(net, pieces)
    assert len(steps) > 20


def pickled(state: object) -> object:
    return pickle.loads(pickle.dumps(state))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_states_can_be_copied(copied: Callable[[object], object]) -> None:
    """At any push, and the copy goes its own way."""
    net, pieces = small(1), pieces_of(2, [30] * 6, 2)
    want = pushed(net, pieces)
    with torch.no_grad():
        state = net.init_state(2)
        for i, x in enumerate(pieces):
            other, final = copied(state), i == len(pieces) - 1
            net.push(torch.randn(2, 2, 7), state)  # not for the copy to see
            state = other
            assert torch.equal(net.push(x, state, final), want[i])


def change_in_place(net: Sequential) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)


def change_data(net: Sequential) -> None:
    for parameter in net.parameters():
        parameter.data = parameter.data + 0.1


def change_parameters(net: Sequential) -> None:
    for layer in net.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(parameter.detach() + 0.1))


def change_kind(net: Sequential) -> None:
    """From parameters to what is computed of others: only the pointwise layer keeps a plan."""
    change_in_place(net)
    for layer in net.modules():
        if isinstance(layer, Conv1d | ConvTranspose1d):
            nn.utils.parametrizations.weight_norm(layer)


def change_precision(net: Sequential) -> None:
    set_precision(net, "medium", but=nn.Identity())


CHANGES = [change_precision, change_in_place, change_data, change_parameters, change_kind]


@pytest.mark.parametrize("make", [lambda: small(1), lambda: with_transformer("window")])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_parameters_count_from_the_next_push(
    change: Callable[[Sequential], None], make: Callable[[], Sequential]
) -> None:
    results = []
    for plans in (True, False):
        net, pieces = make(), pieces_of(2, [30] * 6, 1)
        state, parts = net.init_state(1), []
        with torch.no_grad(), native_pushes() as steps:
            for i, x in enumerate(pieces):
                if i == 3:
                    change(net)
                if plans:
                    parts.append(net.push(x, state, i == 5))
                else:
                    with without_plans():
                        parts.append(net.push(x, state, i == 5))
        assert len(steps) == (4 if plans else 0)
        results.append(torch.cat(parts, dim=2))
    assert torch.equal(*results)


@pytest.mark.parametrize("name", dict(with_transformer("window").layers[1].named_parameters()))
def test_each_parameter_of_a_transformer_is_watched(name: str) -> None:
    """One that is replaced alone, with the others as they were."""
    results = []
    for ways in (contextlib.nullcontext, without_plans):
        net, pieces = with_transformer("window"), pieces_of(2, [5] * 5, 1)
        part = net.layers[1].get_submodule(name.rpartition(".")[0])
        leaf, state = name.rpartition(".")[2], net.init_state(1)
        with torch.no_grad(), ways():
            parts = [net.push(x, state) for x in pieces[:3]]
            setattr(part, leaf, nn.Parameter(getattr(part, leaf).detach() + 0.1))
            parts += [net.push(x, state) for x in pieces[3:]]
        results.append(torch.cat(parts, dim=2))
    assert torch.equal(*results)


def test_a_copied_net_has_a_plan_of_its_own() -> None:
    net, pieces = small(), pieces_of(2, [30] * 4, 1)
    want = torch.cat(pushed(net, pieces), dim=2)
    for twin in (copy.deepcopy(net), pickled(net)):
        assert twin._runs is None
        change_in_place(net)
        assert torch.equal(torch.cat(pushed(twin, pieces), dim=2), want)


def test_a_stream_may_change_its_way_at_any_push() -> None:
    net, pieces = small(1), pieces_of(2, [20] * 9, 2)
    want = pushed(net, pieces)
    with torch.no_grad(), native_pushes() as steps:
        state = net.init_state(2)
        for i, x in enumerate(pieces):
            if i % 3 == 2:
                with without_plans():
                    got = net.push(x, state, i == 8)
            else:
                got = net.push(x, state, i == 8)
            assert torch.equal(got, want[i])
    assert len(steps) == 5


def test_two_streams_of_a_net_do_not_meet() -> None:
    net, a, b = small(1), pieces_of(2, [20] * 5, 1), pieces_of(2, [33] * 5, 3)
    want = pushed(net, a), pushed(net, b)
    with torch.no_grad():
        first, second = net.init_state(1), net.init_state(3)
        for i in range(5):
            assert torch.equal(net.push(a[i], first, i == 4), want[0][i])
            assert torch.equal(net.push(b[i], second, i == 4), want[1][i])


def test_who_never_takes_a_plan() -> None:
    """Autograd, another backend, dtype or device, inference tensors as weights."""
    pieces = pieces_of(2, [20] * 4, 1)
    with native_pushes() as steps:
        net = small()
        state = net.init_state(1)
        for x in pieces:
            y = net.push(x, state)
        assert y.requires_grad
        with use_backend("reference"):
            pushed(net, pieces)
        pushed(copy.deepcopy(net).double(), [x.double() for x in pieces])
        pushed(copy.deepcopy(net).to("meta"), [x.to("meta") for x in pieces])
        with torch.inference_mode():
            inference = Sequential(Conv1d(2, 3, 3, left=2))
        pushed(inference, pieces)
        net(torch.cat(pieces, dim=2))
        assert not steps
        with use_backend("cpu"):
            pushed(net, pieces)
        with torch.inference_mode():
            pushed(net, pieces)
        assert len(steps) == 4


def test_a_native_stream_goes_on_in_another_dtype_or_backend() -> None:
    """Its frames are handed over, as from layer to layer."""
    net, pieces = small(1), pieces_of(2, [20] * 4, 1)
    with torch.no_grad():
        want = pushed(net, pieces)
        for backend in ("reference", "cpu"):
            state = net.init_state(1)
            got = [net.push(x, state) for x in pieces[:2]]
            assert state.native
            with use_backend(backend):
                got += [net.push(pieces[2], state), net.push(pieces[3], state, True)]
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
