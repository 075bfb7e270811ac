"""FunCodec's SEANet: EnCodec's with more choices.

funcodec/models/encoder/seanet_encoder.py@3435d870, decoder/seanet_decoder.py; an activation is a
module of its own there, and counts.
"""

from __future__ import annotations

from fastcodec.codecs import seanet
from fastcodec.codecs.funcodec_config import NetConfig
from fastcodec.codecs.funcodec_transformer import Transformer
from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE, Activation
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.streaming import Sequential

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


class Builder(seanet.Builder):
    """EnCodec's, and what else may look along time."""

    config: NetConfig

    def __init__(self, config: NetConfig, path: str) -> None:
        super().__init__(config, path, config.slope)
        self.trim_right_ratio = config.trim_right_ratio

    def sequence_model(self, width: int) -> None:
        """What looks along time, if anything does."""
        config = self.config
        if config.seq_model == "lstm":
            lstm = Lstm(width, config.seq_layer_num, config.res_seq)
            self.layers.append(tag(lstm, f"{self.next_path()}.lstm"))
        elif config.seq_model == "transformer":
            sizes = (width, config.seq_layer_num, config.causal, config.res_seq)
            self.layers.append(Transformer(*sizes, self.next_path()))
