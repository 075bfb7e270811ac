"""SEANet encoder and decoder: strided residual convolutions around an LSTM.

As EnCodec and audiocraft build them (encodec/modules/seanet.py@0e2d0aed,
audiocraft/modules/seanet.py@896ec7c), and SpeechTokenizer (speechtokenizer/modules/seanet.py
@30c96fb3).
"""

from __future__ import annotations

from dataclasses import dataclass

from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE, Activation, Conv1d, ConvTranspose1d, Padding
from fastcodec.layers.lstm import BiLstm, Lstm
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule


@dataclass(frozen=True)
class SeanetConfig:
    """Upstream's constructor arguments, under upstream's names where the value has one.

    ``bidirectional``: the encoder's LSTM; the decoder's never is.
    """

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
    lstm: int = 2
    causal: bool = True
    padding: Padding = "reflect"
    true_skip: bool = False
    norm: str = "weight_norm"
    activation: str = "elu"
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
    build = _Builder(config, path)
    width = config.n_filters
    build.conv(config.channels, width, config.kernel_size, activated=False)
    for ratio in reversed(config.ratios):
        build.residual_units(width)
        build.conv(width, 2 * width, 2 * ratio, stride=ratio)
        width *= 2
    width = build.lstm(width, config.bidirectional)
    build.conv(width, config.dimension, config.last_kernel_size)
    return Sequential(*build.layers)


def decoder(config: SeanetConfig, path: str = "decoder.model") -> Sequential:
    """latents [B, D, T] -> wav [B, C, S]."""
    build = _Builder(config, path)
    width = config.n_filters * 2 ** len(config.ratios)
    build.conv(config.dimension, width, config.kernel_size, activated=False)
    build.lstm(width)
    for ratio in config.ratios:
        build.conv_transpose(width, width // 2, 2 * ratio, ratio)
        width //= 2
        build.residual_units(width)
    build.conv(width, config.channels, config.last_kernel_size)
    return Sequential(*build.layers)


class _Builder:
    """Appends layers, and counts as upstream does, where an activation is a layer of its own."""

    def __init__(self, config: SeanetConfig, path: str) -> None:
        self.config, self.path = config, path
        self.layers: list[StreamingModule] = []
        self.index = 0

    def _next(self, activated: bool) -> str:
        self.index += 2 if activated else 1
        return f"{self.path}.{self.index - 1}"

    def conv(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, activated: bool = True
    ) -> None:
        path = self._next(activated)
        self.layers += _conv(self.config, path, c_in, c_out, kernel, stride, activated=activated)

    def conv_transpose(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        path, total = self._next(True), kernel - stride
        right = total if self.config.causal else total // 2
        norm = self.config.norm == "time_group_norm"
        layer = ConvTranspose1d(
            c_in,
            c_out,
            kernel,
            stride,
            cut_left=total - right,
            cut_right=right,
            activation=Activation(self.config.activation),
            norm=tag(GroupNorm(c_out), f"{path}.convtr.norm") if norm else None,
        )
        self.layers.append(tag(layer, f"{path}.convtr.convtr"))

    def lstm(self, width: int, bidirectional: bool = False) -> int:
        """Adds the LSTM, if there is one, and returns the width after it."""
        if self.config.lstm:
            layer = (BiLstm if bidirectional else Lstm)(width, self.config.lstm)
            self.layers.append(tag(layer, f"{self._next(False)}.lstm"))
        return 2 * width if bidirectional else width

    def residual_units(self, width: int) -> None:
        config = self.config
        hidden = width // config.compress
        for j in range(config.n_residual_layers):
            path = self._next(False)
            dilation = config.dilation_base**j
            body = _conv(
                config, f"{path}.block.1", width, hidden, config.residual_kernel_size,
                dilation=dilation,
            )  # fmt: skip
            body += _conv(config, f"{path}.block.3", hidden, width, 1)
            skip = None
            if not config.true_skip:
                skip = Sequential(
                    *_conv(config, f"{path}.shortcut", width, width, 1, activated=False)
                )
            self.layers.append(Residual(body, skip))


def _conv(
    config: SeanetConfig,
    path: str,
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    activated: bool = True,
) -> list[StreamingModule]:
    """A convolution whose last window is always filled, and its normalisation."""
    total = (kernel - 1) * dilation + 1 - stride
    right = 0 if config.causal else total // 2
    conv = Conv1d(
        c_in,
        c_out,
        kernel,
        stride,
        dilation,
        left=total - right,
        right=right,
        padding=config.padding,
        fill_last=True,
        activation=Activation(config.activation) if activated else NONE,
    )
    layers: list[StreamingModule] = [tag(conv, f"{path}.conv.conv")]
    if config.norm == "time_group_norm":
        layers.append(tag(GroupNorm(c_out), f"{path}.conv.norm"))
    return layers
