"""SEANet encoder and decoder: strided residual convolutions around an LSTM.

As EnCodec and audiocraft build them (encodec/modules/seanet.py@0e2d0aed,
audiocraft/modules/seanet.py@896ec7c), and SpeechTokenizer (speechtokenizer/modules/seanet.py
@30c96fb3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE, Activation, Conv1d, ConvTranspose1d, Padding
from fastcodec.layers.lstm import BiLstm, Lstm
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.residual import ResidualUnit
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule


@dataclass(frozen=True)
class SeanetSizes:
    """Constructor arguments that all forms have, under upstream's names where the value has one."""

    channels: int = 1
    dimension: int = 128
    n_filters: int = 32
    n_residual_layers: int = 1
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    causal: bool = True
    padding: Padding = "reflect"
    true_skip: bool = False
    norm: str = "weight_norm"
    activation: str = "elu"


@dataclass(frozen=True)
class SeanetConfig(SeanetSizes):
    """EnCodec's net. ``lstm``: layers; ``bidirectional``: the encoder's, the decoder's never is."""

    lstm: int = 2
    bidirectional: bool = False

    def __post_init__(self) -> None:
        if self.norm not in ("none", "weight_norm", "time_group_norm"):
            raise ValueError(
                f"SeanetConfig: norm must be none, weight_norm or time_group_norm, got "
                f"{self.norm!r}"
            )
        if self.activation not in ("elu", "snake"):
            raise ValueError(
                f"SeanetConfig: activation must be elu or snake, got {self.activation!r}"
            )
        if self.bidirectional and not self.lstm:
            raise ValueError("SeanetConfig: bidirectional needs an LSTM, got lstm=0")


def encoder(config: SeanetConfig, path: str = "encoder.model") -> Sequential:
    """wav [B, C, S] -> latents [B, D, T], S / T = product of the ratios."""
    net = Builder(config, path)
    width = config.n_filters
    net.conv(config.channels, width, config.kernel_size, activation=NONE)
    for ratio in reversed(config.ratios):
        net.residual_units(width)
        net.conv(width, 2 * width, 2 * ratio, stride=ratio)
        width *= 2
    if config.lstm:
        lstm = (BiLstm if config.bidirectional else Lstm)(width, config.lstm)
        net.layers.append(tag(lstm, f"{net.next_path()}.lstm"))
        width *= 2 if config.bidirectional else 1
    net.conv(width, config.dimension, config.last_kernel_size)
    return Sequential(*net.layers)


def decoder(config: SeanetConfig, path: str = "decoder.model") -> Sequential:
    """latents [B, D, T] -> wav [B, C, S]."""
    net = Builder(config, path)
    width = config.n_filters * 2 ** len(config.ratios)
    net.conv(config.dimension, width, config.kernel_size, activation=NONE)
    if config.lstm:
        net.layers.append(tag(Lstm(width, config.lstm), f"{net.next_path()}.lstm"))
    for ratio in config.ratios:
        net.conv_transpose(width, width // 2, ratio)
        width //= 2
        net.residual_units(width)
    net.conv(width, config.channels, config.last_kernel_size)
    return Sequential(*net.layers)


class Builder:
    """Appends layers, and counts as upstream does, where an activation is a layer of its own."""

    trim_right_ratio = 1.0  # of what a causal transposed convolution gives too much, on the right

    def __init__(self, config: SeanetSizes, path: str, slope: float = 0.0) -> None:
        self.config, self.path = config, path
        self.activation = Activation(config.activation, slope)
        self.layers: list[StreamingModule] = []
        self.index = 0

    def next_path(self, activated: bool = False) -> str:
        """The path of the next layer, after an activation or not."""
        self.index += 2 if activated else 1
        return f"{self.path}.{self.index - 1}"

    def conv(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1,
        activation: Activation | None = None,
    ) -> None:  # fmt: skip
        """A convolution of the activated input, and its normalisation."""
        activation = self.activation if activation is None else activation
        path = self.next_path(activation != NONE)
        self.layers += self._conv(path, c_in, c_out, kernel, stride, activation=activation)

    def conv_transpose(self, c_in: int, c_out: int, ratio: int) -> None:
        """A transposed convolution, normalised before it is cut."""
        path, config = self.next_path(True), self.config
        right = math.ceil(ratio * self.trim_right_ratio) if config.causal else ratio // 2
        layer = ConvTranspose1d(
            c_in,
            c_out,
            2 * ratio,
            ratio,
            cut_left=ratio - right,
            cut_right=right,
            activation=self.activation,
            norm=self.group_norm(c_out, f"{path}.convtr.norm"),
        )
        self.layers.append(tag(layer, f"{path}.convtr.convtr"))

    def residual_units(self, width: int) -> None:
        """Units of a dilated and a pointwise convolution, with a skip path."""
        config, hidden = self.config, width // self.config.compress
        for j in range(config.n_residual_layers):
            path, dilation = self.next_path(), config.dilation_base**j
            kernel = config.residual_kernel_size
            body = self._conv(f"{path}.block.1", width, hidden, kernel, dilation=dilation)
            body += self._conv(f"{path}.block.3", hidden, width, 1)
            first, last = body[0], body[-1]
            if config.true_skip and len(body) == 2:  # without normalisation
                assert isinstance(first, Conv1d) and isinstance(last, Conv1d)
                self.layers.append(ResidualUnit(first, last))
                continue
            skip = None
            if not config.true_skip:
                skip = Sequential(*self._conv(f"{path}.shortcut", width, width, activation=NONE))
            self.layers.append(Residual(body, skip))

    def group_norm(self, channels: int, path: str) -> GroupNorm | None:
        """The normalisation of a convolution's result, if there is one."""
        normed = self.config.norm == "time_group_norm"
        return tag(GroupNorm(channels), path) if normed else None

    def _conv(
        self, path: str, c_in: int, c_out: int, kernel: int = 1, stride: int = 1,
        dilation: int = 1, activation: Activation | None = None,
    ) -> list[StreamingModule]:  # fmt: skip
        """A convolution whose last window is always filled, and its normalisation."""
        total = (kernel - 1) * dilation + 1 - stride
        right = 0 if self.config.causal else total // 2
        conv = Conv1d(
            c_in,
            c_out,
            kernel,
            stride,
            dilation,
            left=total - right,
            right=right,
            padding=self.config.padding,
            fill_last=True,
            activation=self.activation if activation is None else activation,
        )
        norm = self.group_norm(c_out, f"{path}.conv.norm")
        return [tag(conv, f"{path}.conv.conv"), *([norm] if norm else [])]
