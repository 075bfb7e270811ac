"""What a discriminator says, and several that look at the same signal side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

Rules = Sequence[tuple[str, str | None]]  # of ``io.checkpoints.rename``: upstream's name -> ours

# How upstreams wrap the convolutions of a stack: EnCodec and AudioDec keep each in a module of its
# own (``.conv.``), DAC and AudioDec with its activation (``.0.``); windows are constants. AudioDec
# calls the stack ``layers``, of which the last has no activation.
STACKED: Rules = (
    (r"(^|\.)window$", None),
    (r"\.conv\.", "."),
    (r"\.(?:convs|layers)\.(\d+)\.0\.", r".convs.\1."),
    (r"\.band_convs\.(\d+)\.(\d+)\.0\.", r".bands.\1.\2."),
    (r"\.(?:output_conv|layers\.\d+)\.", ".conv_post."),
)


class Judgement(NamedTuple):
    """What one discriminator says of a batch.

    Args:
        score: high where it takes the signal for real; [B, ...], a value a stretch of the signal
        features: its feature maps from the first layer on, [B, ...]; which ones count is upstream's
            choice, and with some upstreams the last one is the score itself
    """

    score: Tensor
    features: list[Tensor]


class Judges(nn.Module):
    """Discriminators that each take a view of the same signal.

    Args:
        discriminators: each takes its view and returns a ``Judgement``
        channels: C of the signals
        rules: from upstream's names of the entries to ours
    """

    def __init__(
        self, discriminators: Iterable[nn.Module], channels: int = 1, rules: Rules = STACKED
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        self.channels, self.rules = channels, rules

    def forward(self, x: Tensor) -> list[Judgement]:
        """The judgements of ``x`` [B, C, S], in the order of the discriminators."""
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(
                f"discriminator: x must be [B, {self.channels}, S], got {list(x.shape)}; the "
                f"option channels says how many it is built for"
            )
        views = self.views(x)
        return [judge(view) for judge, view in zip(self.discriminators, views, strict=True)]

    def views(self, x: Tensor) -> Sequence[Tensor]:
        """What each discriminator gets to see; here all the same."""
        return [x] * len(self.discriminators)


class Panel(nn.Module):
    """Several ``Judges``, whose judgements are listed one after another.

    Args:
        members: by the names that upstream gives them in its checkpoint
    """

    def __init__(self, **members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleDict(members)

    def forward(self, x: Tensor) -> list[Judgement]:
        """The judgements of ``x`` [B, C, S] of all members."""
        return [judgement for member in self.members.values() for judgement in member(x)]


def activated(x: Tensor, convs: Iterable[nn.Module], slope: float) -> list[Tensor]:
    """What each convolution in turn makes of ``x``, after a leaky ReLU.

    Args:
        x: [B, C, ...] signal, or map of two dimensions
        convs: applied one after another
        slope: of the leaky ReLU below zero
    """
    maps: list[Tensor] = []
    for conv in convs:
        x = F.leaky_relu(conv(x), slope)
        maps.append(x)
    return maps


def scaled(channels: int, width: float) -> int:
    """That many channels times ``width``, one at least."""
    return max(1, round(channels * width))
