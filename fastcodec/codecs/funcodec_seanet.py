"""FunCodec's SEANet: EnCodec's with more choices.

funcodec/models/encoder/seanet_encoder.py@3435d870, decoder/seanet_decoder.py; an activation is a
module of its own there, and counts.
"""

from __future__ import annotations

import math

from torch import Tensor

from fastcodec import ops
from fastcodec.codecs.funcodec_config import NetConfig
from fastcodec.codecs.funcodec_transformer import Transformer
from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.lstm import Lstm, LstmState
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule

SNAKE = Activation("snake")


def encoder(config: NetConfig, path: str = "encoder.model") -> Sequential:
    """wav [B, C, S] -> latents [B, D, T], S / T = product of the ratios."""
    net = Builder(config, path)
    width = config.n_filters
    net.conv(config.channels, width, config.kernel_size, activation=NONE)
    if config.add_snake_activation:
        net.conv(width, width, config.kernel_size, activation=SNAKE)
    for ratio in reversed(config.ratios):
        net.residual_units(width)
        wider = 2 * width if config.resize_filters else width
        net.conv(width, wider, 2 * ratio, stride=ratio)
        width = wider
    net.sequence_model(width)
    net.conv(width, config.dimension, config.last_kernel_size)
    return Sequential(*net.layers)


def decoder(config: NetConfig, path: str = "decoder.model") -> Sequential:
    """latents [B, D, T] -> wav [B, C, S]."""
    net = Builder(config, path)
    width = config.n_filters * (2 ** len(config.ratios) if config.resize_filters else 1)
    net.conv(config.dimension, width, config.kernel_size, activation=NONE)
    net.sequence_model(width)
    for ratio in config.ratios:
        narrower = width // 2 if config.resize_filters else width
        net.conv_transpose(width, narrower, ratio)
        width = narrower
        net.residual_units(width)
    last = SNAKE if config.add_snake_activation else net.activation
    net.conv(width, config.channels, config.last_kernel_size, activation=last)
    if config.final_tanh:
        net.layers.append(Pointwise("tanh"))
    return Sequential(*net.layers)


class PlainLstm(Lstm):
    """An LSTM without a skip path around it."""

    def push(self, x: Tensor, state: LstmState, final: bool = False) -> Tensor:
        if x.shape[2] == 0:
            return x
        if state.h is None or state.c is None:
            state.h = state.c = x.new_zeros(len(self.weight_ih), x.shape[0], x.shape[1])
        packed = self._packed.get(self.weight_ih, self.weight_hh)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        y: Tensor
        y, state.h, state.c = ops.lstm(x, state.h, state.c, *weights, packed, False)
        return y


class Builder:
    """Appends layers, each tagged with its path, and counts them as upstream does."""

    def __init__(self, config: NetConfig, path: str) -> None:
        self.config, self.path = config, path
        self.activation = Activation(config.activation, config.slope)
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
        right = math.ceil(ratio * config.trim_right_ratio) if config.causal else ratio // 2
        normed = config.norm == "time_group_norm"
        layer = ConvTranspose1d(
            c_in,
            c_out,
            2 * ratio,
            ratio,
            cut_left=ratio - right,
            cut_right=right,
            activation=self.activation,
            norm=tag(GroupNorm(c_out), f"{path}.convtr.norm") if normed else None,
        )
        self.layers.append(tag(layer, f"{path}.convtr.convtr"))

    def sequence_model(self, width: int) -> None:
        """What looks along time, if anything does."""
        config = self.config
        if config.seq_model == "lstm":
            lstm = (Lstm if config.res_seq else PlainLstm)(width, config.seq_layer_num)
            self.layers.append(tag(lstm, f"{self.next_path()}.lstm"))
        elif config.seq_model == "transformer":
            sizes = (width, config.seq_layer_num, config.causal, config.res_seq)
            self.layers.append(Transformer(*sizes, self.next_path()))

    def residual_units(self, width: int) -> None:
        """Units of a dilated and a pointwise convolution, with a skip path."""
        config, hidden = self.config, width // self.config.compress
        for j in range(config.n_residual_layers):
            path, dilation = self.next_path(), config.dilation_base**j
            kernel = config.residual_kernel_size
            body = self._conv(f"{path}.block.1", width, hidden, kernel, dilation=dilation)
            body += self._conv(f"{path}.block.3", hidden, width, 1)
            skip = self._conv(f"{path}.shortcut", width, width, 1, activation=NONE)
            self.layers.append(Residual(body, None if config.true_skip else Sequential(*skip)))

    def _conv(
        self, path: str, c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1,
        activation: Activation | None = None,
    ) -> list[StreamingModule]:  # fmt: skip
        config = self.config
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
            activation=self.activation if activation is None else activation,
        )
        layers: list[StreamingModule] = [tag(conv, f"{path}.conv.conv")]
        if config.norm == "time_group_norm":
            layers.append(tag(GroupNorm(c_out), f"{path}.conv.norm"))
        return layers
