"""Which pushes are captured, which graph serves whom, and what is forgotten.

On the CPU: in the place of a CUDA graph stands the function that it would hold, with the same
fixed input, output and state.
"""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from fastcodec.layers import graph
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.graph import Capture, Graphs, Live, Recorded, form, places
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.streaming import PadTo, Residual, Sequential

from .. import nets

pytestmark = pytest.mark.usefixtures("one_thread", "own_pushes")


@pytest.fixture
def own_pushes() -> Iterator[None]:
    """Each layer's push, as on a GPU: no native plan of several."""
    with mock.patch("fastcodec.layers.plan.serves", lambda x: False):
        yield


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def net() -> Sequential:
    torch.manual_seed(0)
    unit = Residual([Conv1d(6, 4, 3, left=2), Conv1d(4, 6, 1)])
    return Sequential(PadTo(2), Conv1d(2, 6, 4, stride=2, left=2), unit, Lstm(6, 2)).eval()


class Counted(Capture):
    """Counts captures and replays."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def record(self, run: graph.Run) -> Any:
        self.captures += 1
        replay, y = super().record(run)

        def counted() -> None:
            self.replays += 1
            replay()

        return counted, y


def test_replays_are_the_pushes() -> None:
    layers, capture = net(), Counted()
    graphs, live, eager = Graphs(capture), Live(layers.init_state(1)), layers.init_state(1)
    for i in range(12):
        x = nets.signal(1, 2, 8, seed=i)
        got = graphs.push("net", layers.push, x, live)
        assert torch.equal(got, layers.push(x, eager))
    assert capture.captures == len(graphs) == 1 and capture.replays >= 9
    assert live.at is not None
    x = nets.signal(1, 2, 5, seed=99)
    assert torch.equal(layers.push(x, live.settle(), True), layers.push(x, eager, True))


def test_streams_share_a_graph_and_change_places_in_it() -> None:
    layers, capture = net(), Counted()
    graphs = Graphs(capture)
    lives = [Live(layers.init_state(1)) for _ in range(3)]
    eager = [layers.init_state(1) for _ in range(3)]
    order = [0] * 5 + [1] * 5 + [2] * 4 + [0, 1, 2, 2, 1, 0, 0, 1, 2]
    for i, which in enumerate(order):
        x = nets.signal(1, 2, 8, seed=i)
        want = layers.push(x, eager[which])
        assert torch.equal(graphs.push("net", layers.push, x, lives[which]), want)
    assert capture.captures == 1
    states = zip(lives, eager, strict=True)
    for live, state in states:
        mine, theirs = live.settle(), state
        assert form(mine) == form(theirs)
        for a, b in zip(places(mine), places(theirs), strict=True):
            same = torch.equal if isinstance(a.get(), Tensor) else lambda p, q: p == q
            assert same(a.get(), b.get()), a.key


def test_sizes_take_turns() -> None:
    layers, capture = net(), Counted()
    graphs, live, eager = Graphs(capture), Live(layers.init_state(2)), layers.init_state(2)
    for i, size in enumerate([8] * 5 + [4] * 3 + [8, 4, 4, 8, 8, 2, 2, 2, 8]):
        x = nets.signal(2, 2, size, seed=i)
        assert torch.equal(graphs.push("net", layers.push, x, live), layers.push(x, eager))
    assert capture.captures == len(graphs) == 3


def test_at_most_so_many_are_kept_and_the_stream_inside_goes_on() -> None:
    layers, capture = net(), Counted()
    graphs, live, eager = Graphs(capture, most=2), Live(layers.init_state(1)), layers.init_state(1)
    for i, size in enumerate([8] * 5 + [6] * 3 + [4] * 3 + [8] * 3):
        x = nets.signal(1, 2, size, seed=i)
        assert torch.equal(graphs.push("net", layers.push, x, live), layers.push(x, eager))
        assert len(graphs) <= 2
    assert capture.captures == 4  # the first had to give way


def test_a_result_is_not_overwritten_by_the_next() -> None:
    layers = net()
    graphs, live = Graphs(Counted()), Live(layers.init_state(1))
    results, kept = [], []
    for i in range(8):
        results.append(graphs.push("net", layers.push, nets.signal(1, 2, 8, seed=i), live))
        kept.append(results[-1].clone())
    assert all(torch.equal(a, b) for a, b in zip(results, kept, strict=True))


def test_a_stream_that_is_gone_leaves_its_place() -> None:
    layers = net()
    graphs = Graphs(Counted())
    for run in range(2):
        live, eager = Live(layers.init_state(1)), layers.init_state(1)
        for i in range(6):
            x = nets.signal(1, 2, 8, seed=10 * run + i)
            assert torch.equal(graphs.push("net", layers.push, x, live), layers.push(x, eager))
        del live
        gc.collect()
    assert len(graphs) == 1


def test_a_state_that_never_keeps_its_form_is_an_error() -> None:
    def push(x: Tensor, state: list[int]) -> Tensor:
        state[0] += 1  # not one of ``counters``
        return x

    graphs, live = Graphs(Counted()), Live([0])
    with pytest.raises(RuntimeError, match="graph=False"):
        for _ in range(graph.PATIENCE + 2):
            graphs.push("net", push, torch.ones(1, 1, 4), live)


def test_states_of_unknown_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot hold a object"):
        form([object()])


def test_a_view_of_the_state_is_copied_before_the_state_changes() -> None:
    """The new state is the old one's halves, changed over."""

    def push(x: Tensor, state: list[Tensor]) -> Tensor:
        state[0], state[1] = state[1], state[0]
        return x + state[0]

    start = [torch.zeros(1, 1, 2), torch.ones(1, 1, 2)]
    graphs, live, eager = Graphs(Counted()), Live(list(start)), list(start)
    for _ in range(5):
        x = torch.zeros(1, 1, 2)
        assert torch.equal(graphs.push("swap", push, x, live), push(x, eager))


def test_a_copy_or_a_pickle_has_no_graphs() -> None:
    graphs = Graphs(Counted())
    assert copy.deepcopy(graphs) is None and pickle.loads(pickle.dumps(graphs)) is None


def test_another_device_is_an_error() -> None:
    state = [torch.zeros(1)]
    recorded = Recorded(lambda x, s: x, torch.ones(1, 1, 2), state, Counted())
    with pytest.raises(RuntimeError, match="make a new stream"):
        recorded.push(torch.ones(1, 1, 2, device="meta"), Live(state))
