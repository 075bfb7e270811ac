"""The residual blocks of HiFi-GAN (Kong et al. 2020, arXiv:2010.05646, appendix A)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from fastcodec.layers.conv import Activation, Conv1d
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule

LEAKY = Activation("leaky_relu", 0.1)


class ResBlock(Sequential):
    """For each dilation d in turn: x + conv(activation(dilated conv(activation(x)))).

    Args:
        channels: of input and output
        kernel: of all convolutions, an odd number
        dilations: of the first convolution of each pair
        causal: zeros only before the signal; otherwise half of them after it
        groups: of all convolutions
        second: each pair has its second convolution, of dilation 1 (HiFi-GAN's block 1, not 2)
        activation: before each convolution
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        dilations: Sequence[int],
        causal: bool,
        groups: int = 1,
        second: bool = True,
        activation: Activation = LEAKY,
    ) -> None:
        def conv(dilation: int) -> Conv1d:
            total = (kernel - 1) * dilation
            right = 0 if causal else total // 2
            return Conv1d(
                channels,
                channels,
                kernel,
                dilation=dilation,
                groups=groups,
                left=total - right,
                right=right,
                activation=activation,
            )

        pairs = [[conv(d), conv(1)] if second else [conv(d)] for d in dilations]
        super().__init__(*(Residual(pair) for pair in pairs))

    def convolutions(self) -> Iterator[tuple[str, StreamingModule]]:
        """Each convolution under HiFi-GAN's name: ``convs1.0``, ``convs2.0`` … or ``convs.0`` …"""
        for i, unit in enumerate(cast(list[Residual], list(self.layers))):
            for j, layer in enumerate(cast(list[StreamingModule], list(unit.body))):
                yield f"convs{j + 1}.{i}" if len(unit.body) > 1 else f"convs.{i}", layer
