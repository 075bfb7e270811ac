"""Sizes of the FunCodec family's models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastcodec.codecs.seanet import SeanetSizes
from fastcodec.errors import shown

# Channels that each of FreqCodec's domains has: of the spectrum's features and of the net's output.
DOMAINS_IN = {"mag_phase": 3, "mag_angle": 2, "stft": 2, "mag": 1, "mag_oracle_phase": 1}
DOMAINS_OUT = {"mag_phase": 3, "mag_angle": 2, "stft": 2, "mag_oracle_phase": 1}
TIME = "time"
_MOST_LAYERS = 256  # a file may claim any number


@dataclass(frozen=True)
class NetConfig(SeanetSizes):
    """Constructor arguments of SEANetEncoder, SEANetDecoder and of their 2-D forms.

    Under upstream's names where the value has one. ``ratios`` are over time, in the decoder's
    order; ``frequency_ratios`` beside them make the net 2-D. ``slope``: of leaky ReLU.
    ``resize_filters``: double_filters, half_filters. ``conv_group_ratio``, ``tr_conv_group_ratio``:
    half the channels of a group of the 2-D convolutions, None for a single group.
    ``last_out_padding``: rows and frames that the last transposed convolution keeps on each side.
    """

    causal: bool = False
    norm: str = "time_group_norm"
    frequency_ratios: tuple[int, ...] = ()
    slope: float = 0.0
    final_tanh: bool = False
    seq_model: str = "lstm"
    seq_layer_num: int = 2
    res_seq: bool = True
    resize_filters: bool = True
    add_snake_activation: bool = False
    trim_right_ratio: float = 1.0
    conv_group_ratio: int | None = None
    tr_conv_group_ratio: int | None = None
    last_out_padding: tuple[int, int, int, int] = (0, 1, 0, 0)

    def __post_init__(self) -> None:
        if self.norm not in ("none", "weight_norm", "time_group_norm"):
            raise ValueError(f"FunCodec: norm {self.norm!r} is not supported")
        if self.causal and self.norm == "time_group_norm":
            raise ValueError("FunCodec: norm time_group_norm cannot be causal")
        if self.seq_model not in ("lstm", "transformer", "none"):
            raise ValueError(f"FunCodec: seq_model {shown(self.seq_model)} is not supported")
        if max(len(self.ratios) * self.n_residual_layers, self.seq_layer_num) > _MOST_LAYERS:
            raise ValueError(f"FunCodec: no net has more than {_MOST_LAYERS} layers of a kind")
        if self.frequency_ratios and (self.final_tanh or self.add_snake_activation):
            raise ValueError("FunCodec: final_activation of a 2-D net is not supported")
        if self.frequency_ratios and len(self.frequency_ratios) != len(self.ratios):
            raise ValueError("FunCodec: ratios: as many over frequency as over time expected")


@dataclass(frozen=True)
class PpgConfig:
    """Semantic augmentation with phone classes (FunCodec, arXiv:2309.07405, section 2.4).

    Args:
        classes: phone classes
        rate: of their frames to the codes'
        usage: "residual" (taken off the latents before quantising, and added again), "addition"
            (added behind the quantizer), "concat" (put beside its output), "supervision" (in
            training only)
        convolution: brings the classes to the codes' rate by a convolution, else takes every n-th
    """

    classes: int = 86
    rate: int = 2
    usage: str = "residual"
    convolution: bool = True


@dataclass(frozen=True)
class FuncodecConfig:
    """A model of the family.

    ``normalize``: each signal is brought to one level first. ``domain``: what the nets take and
    give, "time" or spectra of ``n_fft`` samples every ``fft_hop``. ``codec_dim``: features of the
    code words where they are not the latents', ``codec_range``: of the tanh before the quantizer.
    ``q0_ds_ratio``: above 1 the first codebook works at half the rate. ``hub``: repository of
    config.yaml and model.pth.
    """

    sample_rate_hz: int
    encoder: NetConfig
    decoder: NetConfig
    n_codebooks: int = 32
    codebook_size: int = 1024
    bandwidths_kbps: tuple[float, ...] = ()
    normalize: bool = True
    domain: tuple[str, str] = (TIME, TIME)
    n_fft: int = 512
    fft_hop: int = 160
    codec_dim: int | None = None
    codec_range: float | None = None
    q0_ds_ratio: int = 1
    ppg: PpgConfig | None = None
    hub: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        nets = (self.encoder, self.decoder)
        if nets[0].dimension != nets[1].dimension:
            raise ValueError("FunCodec: encoder and decoder must have one dimension")
        if math.prod(nets[0].ratios) != math.prod(nets[1].ratios):
            raise ValueError(
                f"FunCodec: ratios of encoder and decoder must have one product, got "
                f"{nets[0].ratios} and {nets[1].ratios}"
            )
        if self.domain != (TIME, TIME):
            self._check_spectral()
        elif any(net.frequency_ratios for net in nets) or nets[0].channels != nets[1].channels:
            raise ValueError("FunCodec: codec_domain 'time' needs 1-D nets of the same channels")

    def _check_spectral(self) -> None:
        if self.n_fft & (self.n_fft - 1) or self.n_fft < 4 or not 0 < self.fft_hop < self.n_fft:
            raise ValueError(
                f"FunCodec: domain_conf: n_fft must be a power of two above hop_length, got "
                f"{self.n_fft} and {self.fft_hop}"
            )
        for net, domain, known in (
            (self.encoder, self.domain[0], DOMAINS_IN),
            (self.decoder, self.domain[1], DOMAINS_OUT),
        ):
            if domain not in known:
                raise ValueError(f"FunCodec: codec_domain {domain!r} is not supported")
            if not net.frequency_ratios or net.channels != known[domain]:
                raise ValueError(
                    f"FunCodec: codec_domain {domain!r} needs 2-D nets of {known[domain]} channels"
                )
        rows = self.n_fft // 2 + 1
        for ratio in reversed(self.encoder.frequency_ratios):
            rows //= ratio
        if rows != 1:
            raise ValueError(
                f"FunCodec: ratios {self.encoder.frequency_ratios} leave {rows} of "
                f"{self.n_fft // 2 + 1} rows of frequency, not one"
            )

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.encoder.ratios) * (1 if self.domain[0] == TIME else self.fft_hop)
