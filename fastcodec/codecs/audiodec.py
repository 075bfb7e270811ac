"""AudioDec (Wu et al. 2023, arXiv:2305.16608): a causal autoencoder, or its encoder and a vocoder.

    wav -> conv k7 -> 4 x [3 residual units, strided conv] -> conv k3 -> residual quantizer
        -> conv k7 -> 4 x [transposed conv, 3 residual units] -> conv k7 -> wav
        -> or a vocoder, see audiodec_vocoder

    residual unit: x + conv1x1(ELU(conv k7, dilation 1, 3 or 9(ELU(x))))

No convolution but the strided and the transposed ones has a bias, and nothing stands between a unit
and those; the variant "activate_audiodec" puts an ELU there, and tanh at the end.

Frame t sees samples up to t * hop: every convolution, strided or not, is padded by all of its
kernel but one. What stands before the first frame of a transposed convolution is the ``flow``:

    offline  copies of the first frame, as in upstream's training and codecTest
    zero     zeros, as in upstream's streaming classes
    primed   zeros, and 8192 samples of silence have gone through encoder and decoder before the
             signal, as in upstream's demos: what users of AudioDec hear

Facts of AudioDec@e451e625 and of its published configurations.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import ceil

import torch
from torch import Tensor

from fastcodec.codecs import audiodec_vocoder, audiodec_weights
from fastcodec.codecs.audiodec_config import AudioDecConfig, from_upstream
from fastcodec.codecs.audiodec_vocoder import VOCODERS, VocoderConfig
from fastcodec.codecs.base import Codec, Weights
from fastcodec.codecs.keys import tag
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import ELU, NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.plan import ChainState
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.residual import ResidualUnit
from fastcodec.layers.streaming import Regroup, Sequential, StreamingModule

FLOWS = ("offline", "zero", "primed")
DILATIONS = (1, 3, 9)


CONFIG = AudioDecConfig

_LIBRITTS = AudioDecConfig(24000)
_VCTK = AudioDecConfig(48000)
_ACTIVATE = replace(_VCTK, codec="activate_audiodec")
_C16 = replace(_VCTK, codebook_num=16, enc_strides=(2, 4, 5, 8), dec_strides=(8, 5, 4, 2))


def _demo(config: AudioDecConfig, vocoder: VocoderConfig | None = None) -> AudioDecConfig:
    return replace(config, vocoder=vocoder, flow="primed")


PRESETS = {
    "audiodec_24khz_libritts": _LIBRITTS,
    "audiodec_48khz_vctk": _VCTK,
    "audiodec_48khz_univ": _VCTK,
    "audiodec_48khz_activate": _ACTIVATE,
    "audiodec_48khz_c16": _C16,
    "audiodec_48khz_denoise": _VCTK,
    # The models that upstream's demos name: two checkpoints each.
    "audiodec_libritts_v1": _demo(_LIBRITTS, VOCODERS["v1"]),
    "audiodec_libritts_sym": _demo(_LIBRITTS),
    "audiodec_vctk_v0": _demo(_VCTK, VOCODERS["v0"]),
    "audiodec_vctk_v1": _demo(_VCTK, VOCODERS["v1"]),
    "audiodec_vctk_v2": _demo(_VCTK, VOCODERS["v2"]),
    "audiodec_vctk_sym": _demo(_VCTK),
    "audiodec_vctk_denoise": _demo(_VCTK, VOCODERS["v1"]),
    "audiodec_vctk_univ": _demo(_VCTK, VOCODERS["v3"]),
    "audiodec_vctk_univ_sym": _demo(_VCTK),
    "audiodec_vctk_activate_sym": _demo(_ACTIVATE),
    "audiodec_vctk_c16h320_sym": _demo(_C16),
}


class AudioDec(Codec):
    """A model of the family; ``audiodec_weights`` says what its weights may be.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    encoder: Primed
    decoder: Primed
    # Streaming state that upstream saves, and the statistics of the codebooks' training.
    training_only = re.compile(r"(^|\.)(pad_buffer|cluster_size|embed_avg)$")

    def __init__(self, config: AudioDecConfig, name: str = "audiodec") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder = Primed(encoder(config))
        self.decoder = Primed(
            audiodec_vocoder.build(config.vocoder) if config.vocoder else decoder(config)
        )
        quantizer = ResidualQuantizer(config.codebook_num, config.codebook_size, config.code_dim)
        self.quantizer = tag(quantizer, "quantizer.codebook.layers.{}.embed")
        self.sample_rate_hz, self.hop = config.sample_rate_hz, config.hop
        self.bandwidths_kbps = (self.info.kbps,)
        self.licence = "CC-BY-NC 4.0"
        self.weights_at = "exp.zip of the releases of github.com/facebookresearch/AudioDec"
        self.flow = config.flow

    @property
    def flow(self) -> str:
        """What is before the signal, one of ``FLOWS``; may be set at any time between signals."""
        return self._flow

    @flow.setter
    def flow(self, flow: str) -> None:
        if flow not in FLOWS:
            raise ValueError(f"flow must be one of {', '.join(FLOWS)}, got {flow!r}")
        self._flow, self.config = flow, replace(self.config, flow=flow)
        for layer in self.decoder.modules():
            if isinstance(layer, ConvTranspose1d):
                layer.first = "replicate" if flow == "offline" else "zero"
        self.encoder.before = self._silence if flow == "primed" else None
        self.decoder.before = self._silent_frames if flow == "primed" else None

    def _silence(self) -> Tensor:
        """Whole frames, so that the signal's first sample is the first of a frame.

        Upstream primes with a piece of a frame less, and begins a new frame with the signal; by
        then every layer has nothing but equal frames in view (7209 samples are), so it is the same.
        """
        return torch.zeros(
            1, 1, ceil(self.config.priming / self.hop) * self.hop, device=self.device
        )

    def _silent_frames(self) -> Tensor:
        net = self.encoder.net
        latent = net.push(self._silence(), net.init_state(1))
        return self.quantizer.decode(self.quantizer.encode(latent))

    def read(self, source: Weights) -> State:
        return audiodec_weights.read(source, self.name, self.config.vocoder is not None)

    def _adapt(self, state: State) -> State:
        books = re.compile(r"^quantizer\.codebook\.layers\.\d+\.embed$")  # [D, N] upstream
        return {n: v.T if books.search(n) and v.ndim == 2 else v for n, v in state.items()}

    def _layout(self, state: State) -> Callable[[str], str]:
        return audiodec_vocoder.upstream_name


class Primed(StreamingModule):
    """A net that may have been pushed something before the signal; what came of it is dropped."""

    def __init__(self, net: Sequential) -> None:
        super().__init__()
        self.net: Sequential = net
        self.before: Callable[[], Tensor] | None = None  # gives [1, C, T]
        self.lookahead, self.rate = net.lookahead, net.rate

    def init_state(self, batch_size: int) -> ChainState:
        state = self.net.init_state(batch_size)
        if self.before is not None:
            with torch.no_grad():
                self.net.push(self.before().expand(batch_size, -1, -1), state)
        return state

    def push(self, x: Tensor, state: ChainState, final: bool = False) -> Tensor:
        return self.net.push(x, state, final)


def encoder(config: AudioDecConfig) -> Sequential:
    """wav [B, 1, S] -> latents [B, D, ceil(S / hop)], upstream's encoder and projector.

    Frames come when all of their samples have, as from the other codecs, although their last
    window ends at the first of them.
    """
    between = ELU if config.codec == "activate_audiodec" else NONE
    width = config.encode_channels
    layers: list[StreamingModule] = [Regroup(config.hop), _conv("encoder.conv.conv", 1, width, 7)]
    for i, (stride, ratio) in enumerate(zip(config.enc_strides, config.enc_ratios, strict=True)):
        path, c_in, width = f"encoder.conv_blocks.{i}", width, config.encode_channels * ratio
        layers += _units(f"{path}.res_units", c_in)
        down = Conv1d(c_in, width, 2 * stride, stride, left=2 * stride - 1)
        layers.append(tag(down, f"{path}.conv.conv"))
    layers.append(_conv("projector.project.conv", width, config.code_dim, 3, activation=between))
    return Sequential(*layers)


def decoder(config: AudioDecConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, T * hop]."""
    activate = config.codec == "activate_audiodec"
    between, place = (ELU, ".1") if activate else (NONE, "")
    widths = [config.decode_channels * ratio for ratio in (*config.dec_ratios, 1)]
    layers: list[StreamingModule] = [_conv("decoder.conv1.conv", config.code_dim, widths[0], 7)]
    for i, stride in enumerate(config.dec_strides):
        path = f"decoder.conv_blocks.{i}{place}"
        up = ConvTranspose1d(
            widths[i], widths[i + 1], 2 * stride, stride, cut_right=stride, activation=between
        )
        layers += [tag(up, f"{path}.conv.deconv"), *_units(f"{path}.res_units", widths[i + 1])]
    layers.append(_conv("decoder.conv2.conv", widths[-1], 1, 7, activation=between))
    return Sequential(*layers, *([Pointwise("tanh")] if activate else []))


def _units(path: str, width: int) -> list[ResidualUnit]:
    return [
        ResidualUnit(
            _conv(f"{path}.{i}.conv1.conv", width, width, 7, dilation, ELU),
            _conv(f"{path}.{i}.conv2", width, width, 1, activation=ELU),
        )
        for i, dilation in enumerate(DILATIONS)
    ]


def _conv(
    path: str, c_in: int, c_out: int, kernel: int, dilation: int = 1, activation: Activation = NONE
) -> Conv1d:
    left = (kernel - 1) * dilation
    conv = Conv1d(
        c_in, c_out, kernel, dilation=dilation, bias=False, left=left, activation=activation
    )
    return tag(conv, path)


def build(name: str, config: AudioDecConfig | None = None) -> AudioDec:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return AudioDec(config or PRESETS[name], name)


__all__ = ["CONFIG", "PRESETS", "AudioDec", "AudioDecConfig", "build", "from_upstream"]
