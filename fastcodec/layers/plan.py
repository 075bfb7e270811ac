"""Runs of layers as one native call: pushes without Python between the layers.

    push:   first ones                 │ push ─ push ─ push ─ …                │ final
    works:  each layer's own ``push``  │ ``ops.push_plan``, a call a run       │ each layer's own
    state:  each layer's own           │ ``Carried``: all of them in 2 tensors │ each layer's own

Where a signal begins and ends a push has padding to put in and something to cut off; in between
every one is alike, and what a layer does in it is told in a line of numbers, its step. A layer that
can be told so says how in ``lower``, and in ``leaves`` which parts of its state hold frames. Both
ways give the same bits, so that a stream may change from one to the other at any push.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, getitem
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fastcodec import _native, ops
from fastcodec.ops.push_plan import FIELDS, KINDS

if TYPE_CHECKING:
    from fastcodec.layers.conv import Conv1d, ConvTranspose1d
    from fastcodec.layers.norm import LayerNorm
    from fastcodec.layers.streaming import StreamingModule

# Floats that the widest signal inside a run may have (4 MB); longer pushes go through in parts. It
# bounds the memory that is kept for the next push; the weights are read once a part.
WIDEST = 1 << 20


@dataclass
class Leaf:
    """A part of a layer's state: frames [B, T, C], and numbers that a subclass adds."""

    frames: Tensor | None = None
    counts: ClassVar[tuple[str, ...]] = ()  # the names of those that a plan carries on, two at most

    @property
    def steady(self) -> bool:
        """The beginning is over: every push up to the final one is like the next."""
        return True


@dataclass(frozen=True)
class Place:
    """Where a step's frames lie in what a plan carries.

    ``heads``: of a ring, whose head after head is an array of its own; its row of counts says in
    the third number where its oldest frame is. 0: frames one after the other.
    """

    step: int
    offset: int
    capacity: int
    channels: int
    heads: int = 0

    def write(self, carried: Tensor, frames: Tensor) -> None:
        """frames [B, T, C] into the memory [B, n]; a ring begins at its front."""
        self._rows(carried)[:, :, : frames.shape[1]] = self._by_head(frames)

    def read(self, carried: Tensor, length: int, oldest: int) -> Tensor:
        """A copy of the frames [B, T, C] there."""
        rows = self._rows(carried)
        if self.heads and oldest:
            rows = rows.roll(-oldest, dims=2)
        return rows[:, :, :length].transpose(1, 2).flatten(2).clone()

    def _rows(self, carried: Tensor) -> Tensor:
        end = self.offset + self.capacity * self.channels
        heads = max(1, self.heads)
        shape = (heads, self.capacity, self.channels // heads)
        return carried[:, self.offset : end].unflatten(1, shape)

    def _by_head(self, frames: Tensor) -> Tensor:
        return frames.unflatten(2, (max(1, self.heads), -1)).transpose(1, 2)


def serves(x: Tensor) -> bool:
    """Whether a push of x may be native: as ``ops`` decide, and never under autograd."""
    return (
        x.dtype is torch.float32
        and not torch.is_grad_enabled()
        and type(x) is Tensor
        and x.device.type == "cpu"
        and ops.forced_backend() in (None, "cpu")
        and _native.cpu.why_not is None
        and not torch.compiler.is_compiling()
    )


class Plan:
    """The steps of a run of layers; ``lower`` of each appends its own.

    The native side is a machine with a stack of signals. A step takes the one on top and puts its
    result there; "branch" doubles the top, "hold" takes it away for a later step to add.
    """

    def __init__(self, layers: Sequence[StreamingModule] = ()) -> None:
        self.places: list[Place] = []
        self.size = 0  # floats to carry, of one item of the batch
        self.parameters: list[tuple[dict[str, Any], str]] = []
        self.layers: list[Conv1d | ConvTranspose1d] = []
        self._rows: list[dict[str, int]] = []
        self._kept: list[Tensor] = []  # whose addresses are in the rows
        self._widest = 1.0  # floats of a signal for each frame of the input
        self._stack = [(0, 1.0)]  # of each signal: the step that makes it, frames a frame of input
        self._step("input")
        self.served = all([layer.lower(self) for layer in layers])
        self._rows[0]["capacity"] = self.size
        self._steps = torch.tensor([list(row.values()) for row in self._rows])
        self._longest = int(WIDEST / self._widest)

    def conv(self, layer: Conv1d, capacity: int, held: int) -> bool:
        """A convolution that carries up to ``capacity`` frames, and adds those of step ``held``."""
        sizes = {"taps": layer.weight.shape[2], "dilation": layer.dilation, "margin": layer.margin}
        if not self._convolution("conv", layer, 1 / layer.stride, capacity, held=held, **sizes):
            return False
        if held:
            self._carry(held, layer.channels_out, self._rows[held]["capacity"])
        return True

    def conv_transpose(self, layer: ConvTranspose1d) -> bool:
        """A transposed convolution."""
        taps = layer.context + 1
        return self._convolution("conv_transpose", layer, layer.stride, layer.context, taps=taps)

    def activate(self, kind: int) -> bool:
        """An activation of every value."""
        _, rate = self._stack.pop()
        self._stack.append((self._step("activate", activation=kind), rate))
        return True

    def layer_norm(self, layer: LayerNorm) -> bool:
        """A normalisation of every frame."""
        if not self._watch(layer, ("weight", "bias")):
            return False
        source, rate = self._stack.pop()
        addresses = {name: self._address(getattr(layer, name)) for name in ("weight", "bias")}
        channels = len(layer.weight)
        slope = _as_field(layer.epsilon)
        step = self._step("layer_norm", channels=channels, slope=slope, **addresses)
        self._stack.append((step, rate))
        return True

    def attend(
        self, heads: int, kv_heads: int, features: int, context: int, frequency: Tensor
    ) -> bool:
        """Attention among rows of queries, keys and values, over the last ``context`` frames.

        Args:
            features: D of a head
            frequency: [D / 2] float32, of the rotary positions
        """
        _, rate = self._stack.pop()
        width = 2 * kv_heads * features
        step = self._step(
            "attend",
            channels=heads * features + width,
            columns=heads * features,
            groups=heads,
            taps=kv_heads,
            slope=_as_field(features**-0.5),
            weight=self._address(frequency),
        )
        self._carry(step, width, context - 1, 2 * kv_heads)
        self._stack.append((step, rate))
        return True

    def add(self, held: int, scale: tuple[nn.Module, str] | None) -> bool:
        """The frames of step ``held`` plus the signal on top, times a parameter if there is one."""
        address = 0
        if scale is not None:
            if not self._watch(scale[0], scale[1:]):
                return False
            address = self._address(getattr(*scale))
        source, rate = self._stack.pop()
        self._stack.append((self._step("add", held=held, weight=address), rate))
        return True

    def branch(self) -> None:
        """The signal on top twice: for two paths."""
        self._step("branch")
        self._stack.append(self._stack[-1])

    def hold(self, capacity: int) -> int:
        """The signal on top taken away; a convolution adds it, given this number.

        Args:
            capacity: the most frames that wait for the convolution between pushes
        """
        self._stack.pop()
        return self._step("hold", capacity=capacity)

    def _convolution(
        self, kind: str, layer: Conv1d | ConvTranspose1d, rate: float, capacity: int, **sizes: int
    ) -> bool:
        packed = layer._packed.get(layer.weight, precision=layer.precision)
        if packed is None or not self._watch(layer, _PARAMETERS):
            return False
        source, frames = self._stack.pop()
        above = self._rows[source]
        above["headroom"] = max(above["headroom"], capacity)
        step = self._step(
            kind,
            channels=layer.channels_in,
            columns=layer.channels_out,
            stride=layer.stride,
            groups=layer.groups,
            activation=layer.activation,
            precision=layer.precision,
            slope=_as_field(layer.slope),
            weight=self._address(packed),
            bias=self._address(layer.bias),
            alpha=self._address(layer.alpha),
            **sizes,
        )
        self.layers.append(layer)
        if capacity or kind == "conv_transpose":
            self._carry(step, layer.channels_in, capacity)
        self._stack.append((step, frames * rate))
        self._widest = max(self._widest, frames * rate * layer.channels_out)
        return True

    def _watch(self, layer: nn.Module, names: Sequence[str]) -> bool:
        """Whether its parameters of these names can be relied on; a change of one is noticed."""
        own = layer._parameters
        watched = {name: value for name, value in own.items() if value is not None}
        if any(watched.get(name) is not getattr(layer, name) for name in names):
            return False  # one that is computed from others (weight norm) changes unseen
        if any(not _is_plain(value) for value in watched.values()):
            return False
        self.parameters += [(own, name) for name in watched]
        return True

    def _step(self, kind: str, **fields: int) -> int:
        self._rows.append({**dict.fromkeys(FIELDS, 0), "kind": KINDS.index(kind), **fields})
        return len(self._rows) - 1

    def _carry(self, step: int, channels: int, capacity: int, heads: int = 0) -> None:
        self._rows[step] |= {"offset": self.size, "capacity": capacity}
        self.places.append(Place(step, self.size, capacity, channels, heads))
        self.size += capacity * channels

    def _address(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        self._kept.append(tensor.detach())  # the memory, whatever becomes of the parameter
        return tensor.data_ptr()

    def begin(self, leaves: list[Leaf], batch_size: int) -> Carried | None:
        """The layers' states in one; None as long as the beginning of the signal is not over."""
        if not all(leaf.steady for leaf in leaves):
            return None
        frames, counts = torch.zeros(batch_size, self.size), torch.zeros(len(self._rows), 3).long()
        for leaf, place in zip(leaves, self.places, strict=True):
            length = 0 if leaf.frames is None else leaf.frames.shape[1]
            assert length <= place.capacity
            if leaf.frames is not None and length:
                place.write(frames, leaf.frames)
            numbers = [int(getattr(leaf, name)) for name in leaf.counts]
            counts[place.step, : 1 + len(numbers)] = torch.tensor([length, *numbers])
        return Carried(leaves, self.places, frames, counts)

    def push(self, x: Tensor, carried: Carried) -> Tensor:
        """As every layer's."""
        longest = max(1, self._longest // max(1, x.shape[0]))
        if x.shape[2] <= longest:
            return ops.push_plan(x, self._steps, carried.frames, carried.counts)
        parts = [self.push(part, carried).mT for part in x.split(longest, dim=2)]
        return torch.cat(parts, dim=1).mT


@dataclass
class Carried:
    """The state of a run of layers while its pushes are native."""

    leaves: list[Leaf]  # of the layers' own states, which are out of date
    places: list[Place]
    frames: Tensor
    counts: Tensor

    def give_back(self) -> None:
        """Bring the layers' own states up to date."""
        counts = self.counts.tolist()
        for leaf, place in zip(self.leaves, self.places, strict=True):
            length, *numbers = counts[place.step]
            leaf.frames = place.read(self.frames, length, oldest=numbers[1])
            for name, number in zip(leaf.counts, numbers, strict=False):
                setattr(leaf, name, type(getattr(leaf, name))(number))


class ChainState(list[Any]):
    """The states of layers one after the other, and of the runs among them that are native."""

    def __init__(self, states: Sequence[Any] = ()) -> None:
        super().__init__(states)
        self.runs: Runs | None = None
        self.native: dict[int, Carried] = {}  # by the number of the run's first layer

    def give_back(self) -> None:
        """Bring all layers' own states up to date, and go on with them."""
        for carried in self.native.values():
            carried.give_back()
        self.native = {}


class Runs:
    """Layers one after the other, cut into runs with a plan and runs without.

    A change of a parameter, or of a layer's precision, makes it out of date.
    """

    def __init__(self, layers: Sequence[StreamingModule]) -> None:
        self.parts: list[tuple[int, list[StreamingModule], Plan | None]] = []
        begin = 0
        for served, group in groupby(layers, lambda layer: Plan([layer]).served):
            part = list(group)
            self.parts.append((begin, part, Plan(part) if served else None))
            begin += len(part)
        watched = [place for *_, plan in self.parts if plan for place in plan.parameters]
        self._owners = [owner for owner, _ in watched]
        self._names = [name for _, name in watched]
        self._layers = [layer for *_, plan in self.parts if plan for layer in plan.layers]
        self._key = self._versions()

    def __reduce__(self) -> tuple[Any, ...]:  # a copy or a pickle of the layers makes its own
        return type(None), ()

    def up_to_date(self) -> bool:
        """Nothing has changed since, and no parameter was taken away."""
        try:
            return self._versions() == self._key
        except (KeyError, TypeError):
            return False

    def _versions(self) -> list[int]:
        parameters = list(map(getitem, self._owners, self._names))
        versions = map(attrgetter("_version"), parameters)
        precisions = map(attrgetter("precision"), self._layers)
        return [*map(Tensor.data_ptr, parameters), *versions, *precisions]

    def push(self, x: Tensor, state: ChainState) -> Tensor:
        """As every layer's, but for the final one."""
        if state.runs is not self:  # the plans of the last push were others
            state.give_back()
            state.runs = self
        for begin, layers, plan in self.parts:
            carried = state.native.get(begin)
            if carried is None and plan is not None:
                carried = self._begin(begin, layers, plan, x, state)
            if carried is not None and plan is not None:
                x = plan.push(x, carried)
            else:
                for i, layer in enumerate(layers, begin):
                    x = layer.push(x, state[i])
        return x

    def _begin(
        self, begin: int, layers: list[StreamingModule], plan: Plan, x: Tensor, state: ChainState
    ) -> Carried | None:
        leaves = [leaf for i, layer in enumerate(layers, begin) for leaf in layer.leaves(state[i])]
        if (carried := plan.begin(leaves, len(x))) is not None:
            state.native[begin] = carried
        return carried


_PARAMETERS = ("weight", "bias", "alpha")


def _as_field(number: float) -> int:
    """A float32 in the lower half of a step's field."""
    field: int = struct.unpack("<q", struct.pack("<fi", number, 0))[0]
    return field


def _is_plain(parameter: Tensor) -> bool:
    kind = (parameter.dtype, parameter.device.type, parameter.is_contiguous())
    return kind == (torch.float32, "cpu", True) and not parameter.is_inference()
