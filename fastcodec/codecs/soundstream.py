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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import tag
from fastcodec.codecs.settings import checked
from fastcodec.errors import FormatError, WeightsError
from fastcodec.io import inert_pickle
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import ELU, NONE, Activation, Conv1d, ConvTranspose1d, Padding
from fastcodec.layers.local_attention import GegluFeedForward, LookBackAttention
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule, Sum


@dataclass(frozen=True)
class SoundstreamConfig:
    """audiolm-pytorch's constructor arguments under its names, and which form it is.

    ``elu_first``: ELU before the convolutions, as in the paper, not after a unit's.
    ``film``: can be told to denoise.
    """

    target_sample_hz: int = 16000
    strides: tuple[int, ...] = (2, 4, 5, 8)
    channels: int = 32
    channel_mults: tuple[int, ...] = (2, 4, 8, 16)
    codebook_dim: int = 512
    codebook_size: int = 1024
    rq_num_quantizers: int = 12
    enc_cycle_dilations: tuple[int, ...] = (1, 3, 9)
    dec_cycle_dilations: tuple[int, ...] = (1, 3, 9)
    use_local_attn: bool = True
    attn_window_size: int = 128
    attn_dim_head: int = 64
    attn_heads: int = 8
    attn_depth: int = 1
    attn_xpos_scale_base: int | None = None
    padding: Padding = "reflect"
    elu_first: bool = False
    film: bool = True
    bandwidths_kbps: tuple[float, ...] = ()
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.strides or len(self.strides) != len(self.channel_mults):
            raise ValueError(
                f"SoundstreamConfig: strides and channel_mults must be equally many, got "
                f"{self.strides} and {self.channel_mults}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before, between and after the encoder's blocks."""
        return tuple(self.channels * factor for factor in (1, *self.channel_mults))


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
        """Upstream's codebooks have a leading axis of heads, its linear layers weights [C', C]."""
        linear = re.compile(r"^(en|de)coder_attn\..*\.weight$")
        return {
            name: value.squeeze(0)
            if name.endswith("_codebook.embed") and value.ndim == 3
            else value[..., None]
            if linear.search(name) and value.ndim == 2
            else value
            for name, value in state.items()
        }


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
                self.layers.append(Residual([conv7, conv1]))
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


# audiolm-pytorch's defaults of what decides about the net.
_DEFAULTS = {
    "channels": 32, "strides": (2, 4, 5, 8), "channel_mults": (2, 4, 8, 16), "codebook_dim": 512,
    "codebook_size": None, "rq_num_quantizers": 8, "enc_cycle_dilations": (1, 3, 9),
    "dec_cycle_dilations": (1, 3, 9), "target_sample_hz": 16000, "use_local_attn": True,
    "attn_window_size": 128, "attn_dim_head": 64, "attn_heads": 8, "attn_depth": 1,
    "attn_xpos_scale_base": None, "pad_mode": "reflect",
}  # fmt: skip
# What is not built, but under these values changes nothing.
_NEUTRAL: dict[str, Any] = {
    "finite_scalar_quantizer_levels": None, "rq_groups": 1, "rq_kwargs": {},
    "use_lookup_free_quantizer": False, "use_finite_scalar_quantizer": False, "input_channels": 1,
    "attn_dynamic_pos_bias": False, "use_gate_loop_layers": False, "squeeze_excite": False,
}  # fmt: skip
_TRAINING = {
    "rq_commitment_weight", "rq_ema_decay", "rq_quantize_dropout_multiple_of",
    "rq_stochastic_sample_codes", "rq_rotation_trick", "discr_multi_scales", "stft_normalized",
    "multi_spectral_window_powers_of_two", "multi_spectral_n_ffts", "multi_spectral_n_mels",
    "recon_loss_weight", "multi_spectral_recon_loss_weight", "adversarial_loss_weight",
    "feature_loss_weight", "quantize_dropout_cutoff_index", "complex_stft_discr_logits_abs",
    "stft_discriminator", "complex_stft_discr_kwargs",
}  # fmt: skip
_PADDING: dict[str, Padding] = {
    "reflect": "reflect", "constant": "zero", "replicate": "replicate",
}  # fmt: skip


def from_upstream(config: Mapping[str, Any] | bytes) -> SoundstreamConfig:
    """The configuration of a checkpoint of audiolm-pytorch.

    Args:
        config: the constructor's arguments, or their pickle, the checkpoint's entry ``config``; it
            is read, not run

    Raises:
        WeightsError: no plain pickle, an argument that is not known or not built
    """
    if isinstance(config, bytes):
        config = _unpickled(config)
    given = {name: value for name, value in config.items() if name not in _TRAINING}
    for name, value in _NEUTRAL.items():
        if (got := given.pop(name, value)) != value:
            raise WeightsError(f"SoundStream: {name} must be {value!r}, got {got!r}")
    settings = checked("SoundStream", given, _DEFAULTS)
    if settings["codebook_size"] is None:
        raise WeightsError("SoundStream: codebook_size must be given, got None")
    pad_mode = settings.pop("pad_mode")
    if pad_mode not in _PADDING:
        raise WeightsError(f"SoundStream: pad_mode must be in {list(_PADDING)}, got {pad_mode!r}")
    try:
        return SoundstreamConfig(**settings, padding=_PADDING[pad_mode])
    except ValueError as error:
        raise WeightsError(str(error)) from error


def _unpickled(config: bytes) -> Mapping[str, Any]:
    try:
        tree = inert_pickle.read(config)
    except FormatError as error:
        raise WeightsError(f"SoundStream: the checkpoint's config: {error}") from error
    if not isinstance(tree, Mapping):
        raise WeightsError(f"SoundStream: the checkpoint's config is a {type(tree).__name__}")
    return tree


def build(name: str, config: SoundstreamConfig | None = None) -> Soundstream:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Soundstream(config or PRESETS[name], name)
