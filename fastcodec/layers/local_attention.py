"""Self-attention that reaches a window of frames, and the feed-forward layer that goes with it.

``WindowAttention`` as in SNAC (snac/attention.py@f49016a4), ``LookBackAttention`` and
``GegluFeedForward`` as in audiolm-pytorch (local_attention/transformer.py, local-attention 1.11).
Positions turn pairs of features half a head apart (Su et al. 2021, arXiv:2104.09864).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers import attention
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.norm import LayerNorm
from fastcodec.layers.streaming import Regroup, StreamingModule, Waiting


class WindowAttention(Regroup):
    """x + attention(x) within windows: every frame sees all of its window, the last may be short.

    Args:
        channels: C
        window: frames
        head_features: D; there are C / D heads
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, channels: int, window: int, head_features: int) -> None:
        super().__init__(window)
        self.heads = channels // head_features
        self.scale = head_features**-0.5
        self.norm = LayerNorm(channels)
        self.to_qkv = Conv1d(channels, 3 * channels, 1, bias=False)
        self.to_out = Conv1d(channels, channels, 1, bias=False)
        angle = angles(window, head_features)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def push(self, x: Tensor, state: Waiting, final: bool = False) -> Tensor:
        windows = super().push(x, state, final)
        return windows + self._attend(windows) if windows.shape[2] else windows

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).mT.chunk(3, dim=2)
        position = torch.arange(x.shape[2], device=x.device)
        within = position % self.multiple
        q, k = (turned(rows, self.cos[within], self.sin[within], self.heads) for rows in (q, k))
        first = position - within
        last = (first + self.multiple).clamp(max=x.shape[2])
        return self.to_out(ops.attention(q.mT, k.mT, v.mT, first, last, self.heads, self.scale))


@dataclass
class LookBackState:
    """Frames so far, and keys and values [B, n, C] from the start of the window before the current.

    Keys are held twice: turned as the window before (``early``) and as the current one (``late``).
    """

    position: int
    early: Tensor | None = None
    late: Tensor | None = None
    values: Tensor | None = None


class LookBackAttention(StreamingModule):
    """x + attention(x), where a frame sees itself and the ``window`` frames before it.

    Queries and keys have unit length times a learned scale; a gate of each head scales its result.
    Positions are xpos (Sun et al. 2022, arXiv:2212.10554): besides being turned, a query shrinks
    and a key grows with its position. They are counted within the current window and the one
    before, so that neither does without bounds.

    Args:
        channels: C
        window: frames
        heads, head_features: H and D
        xpos_base: frames over which a query shrinks by the xpos factor; half a window where None
    """

    tables: Tensor
    not_capturable_because = "where its windows end is not the same at every push"

    def __init__(
        self,
        channels: int,
        window: int,
        heads: int,
        head_features: int,
        xpos_base: int | None = None,
    ) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.norm = LayerNorm(channels)
        self.to_qkv = Conv1d(channels, 3 * heads * head_features, 1, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_features))
        self.k_scale = nn.Parameter(torch.ones(head_features))
        self.to_v_gate = Conv1d(channels, heads, 1)
        self.to_out = Conv1d(heads * head_features, channels, 1, bias=False)
        tables = _xpos_tables(window, head_features, xpos_base or window // 2)
        self.register_buffer("tables", tables, persistent=False)

    def init_state(self, batch_size: int) -> LookBackState:
        return LookBackState(0)

    def push(self, x: Tensor, state: LookBackState, final: bool = False) -> Tensor:
        if x.shape[2] == 0:
            return x
        normal = self.norm(x)
        q, k, v = self.to_qkv(normal).mT.chunk(3, dim=2)
        q, k = self._scaled(q, self.q_scale), self._scaled(k, self.k_scale)
        position = state.position + torch.arange(x.shape[2], device=x.device)
        y = self._attend(q, k, v, position, state)
        gate = ops.activation(self.to_v_gate(normal), ops.ACTIVATIONS["sigmoid"], 0.0)
        y = (y.mT.unflatten(2, (self.heads, -1)) * gate.mT[..., None]).flatten(2)
        return x + self.to_out(y.mT)

    def _scaled(self, rows: Tensor, scale: Tensor) -> Tensor:
        """rows [B, T, H * D] with unit length in each head, times scale [D]."""
        heads = rows.unflatten(2, (self.heads, -1))
        square = heads.double().square().cumsum(dim=3)[..., -1:]  # a plain sum: by shape
        return (heads / square.sqrt().float().clamp(min=1e-12) * scale).flatten(2)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, position: Tensor, state: LookBackState
    ) -> Tensor:
        """[B, C, T] of q, k, v [B, T, C]: what each query finds in its window."""
        w = self.window
        blocks = (state.position + q.shape[1] - 1) // w - state.position // w
        within, block = position % w, position // w - state.position // w
        q_cos, q_sin, early_cos, early_sin, late_cos, late_sin = self.tables[:, within]
        q = turned(q, q_cos, q_sin, self.heads)
        nothing = v.new_zeros(v.shape[0], w, v.shape[2])  # before the first window
        early, late, values = (
            torch.cat([nothing if before is None else before, now], dim=1)
            for before, now in (
                (state.early, turned(k, early_cos, early_sin, self.heads)),
                (state.late, turned(k, late_cos, late_sin, self.heads)),
                (state.values, v),
            )
        )
        # A window's keys lie behind those of the window before it: each query's are one span.
        starts = range(0, (blocks + 1) * w, w)
        parts = [(early[:, at : at + w], late[:, at + w : at + 2 * w]) for at in starts]
        keys = torch.cat([part for pair in parts for part in pair], dim=1)
        doubled = torch.cat([values[:, at : at + 2 * w] for at in starts], dim=1)
        first = 2 * w * block + torch.where(position < w, w, within)
        last = 2 * w * block + w + within + 1
        y: Tensor = ops.attention(q.mT, keys.mT, doubled.mT, first, last, self.heads, 8.0)
        state.position += q.shape[1]
        over = (state.position // w - (state.position - q.shape[1]) // w) * w
        state.early, state.late, state.values = early[:, over:], late[:, over:], values[:, over:]
        return y


class GegluFeedForward(StreamingModule):
    """x + down(a * gelu(b)), where (a, b) = up(norm(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.up = Conv1d(channels, 2 * inner, 1, bias=False)
        self.down = Conv1d(inner, channels, 1, bias=False)

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        if x.shape[2] == 0:
            return x
        value, gate = self.up(self.norm(x)).chunk(2, dim=1)
        return x + self.down(value * ops.activation(gate, ops.ACTIVATIONS["gelu"], 0.0))


def angles(positions: int, features: int) -> Tensor:
    """[positions, features] float64: the angle of each feature; both halves have the same."""
    half = attention.angles(torch.arange(positions), features, 10000.0)
    return torch.cat([half, half], dim=1)


def turned(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """x [B, T, H * D], each head turned by the angles whose cos and sin [T, D] are given."""
    heads_of = x.unflatten(2, (heads, -1))
    a, b = heads_of.chunk(2, dim=3)
    crossed = torch.cat([-b, a], dim=3)
    return (heads_of * cos[:, None] + crossed * sin[:, None]).flatten(2)


def _xpos_tables(window: int, features: int, base: int) -> Tensor:
    """[6, window, features]: cos and sin of queries, of keys seen from the next window, of keys
    seen from their own; times the xpos factors.
    """
    angle = angles(2 * window, features)
    root = (torch.arange(0, features, 2) + 0.4 * features) / (1.4 * features)
    power = (torch.arange(2 * window)[:, None] - window) / base
    growth = torch.cat([root, root]).double() ** power.double()
    queries = torch.stack([angle.cos() * growth, angle.sin() * growth])
    keys = torch.stack([angle.cos() / growth, angle.sin() / growth])
    tables = [queries[:, window:], keys[:, :window], keys[:, window:]]
    return torch.cat(tables).float()
