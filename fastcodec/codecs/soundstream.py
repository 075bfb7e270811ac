"""SoundStream (Zeghidour et al. 2021, arXiv:2107.03312), and audiolm-pytorch's form of it.

    wav [B, 1, S]    conv7 -> per stride s: 3 residual units, conv of 2 s, stride s, another width
                     -> conv3 (-> attention) (-> FiLM) -> latents [B, D, T]
    codes [B, K, T]  residual quantizer
    decoder          (FiLM) (-> attention) -> conv7 -> per stride s: transposed conv of 2 s,
                     3 residual units -> conv7

All convolutions are causal; a residual unit is x + conv1(conv7(x)), the conv7s dilated by 1, 3, 9.

* The paper: padding with zeros, ELU before every convolution but the first of each net (the order
  that the authors' later Lyra v2 has; the paper leaves it open, and D too: 64 as Lyra's).
* audiolm-pytorch (audiolm_pytorch/soundstream.py@d65fd15): padding by reflection on the left; ELU
  after both convolutions of a unit and nowhere else; attention of each frame to the last 128; a
  FiLM that says whether to denoise, left out unless asked for. A tail of the signal that fills no
  frame is dropped. A signal shorter than upstream's padding (7 frames), which upstream refuses, is
  reflected as EnCodec does it.

Neither has published weights: Google kept its own, audiolm-pytorch's users train theirs. A
checkpoint is read by audiolm-pytorch's names, for the paper's form too.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import tag
from fastcodec.codecs.soundstream_config import SoundstreamConfig, from_upstream
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import ELU, NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.local_attention import GegluFeedForward, LookBackAttention
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.residual import ResidualUnit
from fastcodec.layers.streaming import Sequential, StreamingModule, Sum

CONFIG = SoundstreamConfig

PRESETS = {
    "soundstream_24khz": SoundstreamConfig(
        24000, codebook_dim=64, rq_num_quantizers=24, use_local_attn=False, padding="zero",
        elu_first=True, film=False, bandwidths_kbps=(3.0, 6.0, 9.0, 12.0, 18.0),
    ),
    "soundstream_audiolm_16khz": SoundstreamConfig(licence="code: MIT"),
    "soundstream_musiclm_24khz": SoundstreamConfig(
        24000, strides=(3, 4, 5, 8), licence="code: MIT"
    ),
}  # fmt: skip


class Soundstream(Codec):
    """A SoundStream.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    drops_tail = True
    training_only = re.compile(
        r"^(discriminators|stft_discriminator|mel_spec_transforms)\."
        r"|_codebook\.(initted|cluster_size|embed_avg)$|\.rel_pos\.inv_freq$"
    )

    def __init__(self, config: SoundstreamConfig, name: str = "soundstream") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder: Sequential = encoder(config)
        self.decoder: Sequential = decoder(config)
        quantizer = ResidualQuantizer(
            config.rq_num_quantizers, config.codebook_size, config.codebook_dim
        )
        self.quantizer = tag(quantizer, "rq.rvqs.0.layers.{}._codebook.embed")
        self.sample_rate_hz, self.hop = config.target_sample_hz, math.prod(config.strides)
        self.bandwidths_kbps, self.licence = config.bandwidths_kbps, config.licence

    @property
    def denoise(self) -> bool | None:
        """What the FiLMs are told: to denoise, not to, or, as at first, None: they are left out."""
        return next((film.denoise for film in self._films()), None)

    @denoise.setter
    def denoise(self, denoise: bool | None) -> None:
        films = list(self._films())
        if denoise is not None and not films:
            raise ValueError(f"denoise: {self.name} has no FiLM to be told")
        for film in films:
            film.denoise = denoise

    def _films(self) -> Iterator[Film]:
        return (m for m in self.modules() if isinstance(m, Film))

    def _adapt(self, state: State) -> State:
        """Upstream's codebooks have a leading axis of heads."""
        return {n: v.squeeze(0) if n.endswith("_codebook.embed") else v for n, v in state.items()}


class Film(StreamingModule):
    """x * gamma + beta, both learned for each answer to: shall the noise be taken away?"""

    denoise: bool | None = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2 * channels, 2))
        self.bias = nn.Parameter(torch.zeros(2 * channels))

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        if self.denoise is None:
            return x
        gamma, beta = (self.weight[:, 0 if self.denoise else 1] + self.bias).chunk(2)
        return x * gamma[:, None] + beta[:, None]


def encoder(config: SoundstreamConfig) -> Sequential:
    """wav [B, 1, S] -> latents [B, D, S // hop]."""
    net, widths = _Builder(config, "encoder"), config.widths
    net.conv(1, widths[0], 7, "0")
    for i, stride in enumerate(config.strides):
        net.units(widths[i], f"{i + 1}", 0, config.enc_cycle_dilations)
        net.conv(widths[i], widths[i + 1], 2 * stride, f"{i + 1}.3", stride)
    net.conv(widths[-1], config.codebook_dim, 3, f"{len(config.strides) + 1}")
    return Sequential(*net.layers, *_attention(config, "encoder"), *_film(config, "encoder"))


def decoder(config: SoundstreamConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, hop T]."""
    net, widths = _Builder(config, "decoder"), config.widths[::-1]
    net.conv(config.codebook_dim, widths[0], 7, "0")
    for i, stride in enumerate(reversed(config.strides)):
        net.conv_transpose(widths[i], widths[i + 1], stride, f"{i + 1}.0")
        net.units(widths[i + 1], f"{i + 1}", 1, config.dec_cycle_dilations)
    net.conv(widths[-1], 1, 7, f"{len(config.strides) + 1}")
    return Sequential(*_film(config, "decoder"), *_attention(config, "decoder"), *net.layers)


class _Builder:
    """Appends causal layers to a net whose entries in a checkpoint begin with ``path``."""

    def __init__(self, config: SoundstreamConfig, path: str) -> None:
        self.config, self.path = config, path
        self.layers: list[StreamingModule] = []

    def conv(self, c_in: int, c_out: int, kernel: int, path: str, stride: int = 1) -> None:
        layer = self._conv(c_in, c_out, kernel, stride)
        self.layers.append(tag(layer, f"{self.path}.{path}.conv"))

    def conv_transpose(self, c_in: int, c_out: int, stride: int, path: str) -> None:
        before = self._activation()
        layer = ConvTranspose1d(
            c_in, c_out, 2 * stride, stride, cut_right=stride, activation=before
        )
        self.layers.append(tag(layer, f"{self.path}.{path}.conv"))

    def units(self, width: int, path: str, first: int, dilations: tuple[int, ...]) -> None:
        """Three residual units, the first of which upstream numbers ``first``."""
        cycle = itertools.islice(itertools.cycle(dilations), 3)
        for i, dilation in enumerate(cycle, first):
            conv7 = self._conv(width, width, 7, dilation=dilation)
            conv1 = Conv1d(width, width, 1, activation=ELU)
            tag(conv7, f"{self.path}.{path}.{i}.fn.0.conv")
            tag(conv1, f"{self.path}.{path}.{i}.fn.2.conv")
            if self.config.elu_first:
                self.layers.append(ResidualUnit(conv7, conv1))
            else:
                body = Sequential(conv7, conv1, Pointwise("elu"))
                self.layers.append(Sum([body, Sequential()]))

    def _activation(self) -> Activation:
        return ELU if self.config.elu_first and self.layers else NONE

    def _conv(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> Conv1d:
        padding = self.config.padding
        if stride > 1 and not self.config.elu_first:
            padding = "reflect"  # in audiolm-pytorch, whatever its pad_mode
        return Conv1d(
            c_in,
            c_out,
            kernel,
            stride,
            dilation,
            left=dilation * (kernel - 1) + 1 - stride,
            padding=padding,
            activation=self._activation(),
        )


def _attention(config: SoundstreamConfig, side: str) -> Iterator[StreamingModule]:
    width = config.codebook_dim
    for i in range(config.attn_depth if config.use_local_attn else 0):
        path = f"{side}_attn.layers.{i}"
        attention = LookBackAttention(
            width,
            config.attn_window_size,
            config.attn_heads,
            config.attn_dim_head,
            config.attn_xpos_scale_base,
        )
        tag(attention, f"{path}.0")
        for name in ("norm", "to_qkv", "to_out"):
            tag(attention.get_submodule(name), f"{path}.0.{name}")
        tag(attention.to_v_gate, f"{path}.0.to_v_gate.0")
        feed_forward = GegluFeedForward(width, width * 4 * 2 // 3)
        for name, number in (("norm", 0), ("up", 1), ("down", 4)):
            tag(feed_forward.get_submodule(name), f"{path}.1.{number}")
        yield from (attention, feed_forward)


def _film(config: SoundstreamConfig, side: str) -> Iterator[StreamingModule]:
    if config.film:
        yield tag(Film(config.codebook_dim), f"{side}_film.to_cond")


def build(name: str, config: SoundstreamConfig | None = None) -> Soundstream:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Soundstream(config or PRESETS[name], name)


__all__ = ["CONFIG", "PRESETS", "Soundstream", "SoundstreamConfig", "build", "from_upstream"]
