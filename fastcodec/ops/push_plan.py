"""``push_plan``: one call for a run of streaming layers; what it means is what the layers say."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema

# The columns of ``steps``, in the order of the fields of Step in csrc/cpu/glue_plan.cpp.
FIELDS = (
    "kind", "offset", "capacity", "headroom", "held", "channels", "columns", "taps", "stride",
    "dilation", "groups", "margin", "activation", "slope", "precision", "weight", "bias", "alpha",
)  # fmt: skip
KINDS = (
    "input", "conv", "conv_transpose", "activate", "branch", "hold", "layer_norm", "attend", "add",
)  # fmt: skip


def push_plan(x: Tensor, steps: Tensor, carried: Tensor, counts: Tensor) -> Tensor:
    """The frames that x completes; made and called by ``fastcodec.layers.plan`` only.

    Args:
        x: [B, C, T] float32
        steps: [N, len(FIELDS)] int64; it holds addresses, whose memory the caller keeps
        carried: [B, n] float32, what the steps remember of the frames before; updated
        counts: [N, 3] int64, how much that is; updated
    """
    y: Tensor = torch.ops.fastcodec.push_plan.default(x, steps, carried, counts)
    return y


def _fake(x: Tensor, steps: Tensor, carried: Tensor, counts: Tensor) -> Tensor:
    context = torch.library.get_ctx()
    return x.new_empty(len(x), context.new_dynamic_size(), context.new_dynamic_size())


declare_schema(push_plan, _fake, mutates=("carried", "counts"))
