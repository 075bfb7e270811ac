"""Sizes of a SoundStream, and the constructor's arguments in audiolm-pytorch's checkpoints.

audiolm_pytorch/soundstream.py@d65fd15
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcodec.codecs.settings import PADDING, checked, made
from fastcodec.errors import FormatError, WeightsError, shown
from fastcodec.io import inert_pickle
from fastcodec.layers.conv import Padding


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
    if not isinstance(config, Mapping):
        raise WeightsError(f"SoundStream: the checkpoint's config is a {type(config).__name__}")
    given = {name: value for name, value in config.items() if name not in _TRAINING}
    for name, value in _NEUTRAL.items():
        got = given.pop(name, value)
        if type(got) is not type(value) or got != value:
            raise WeightsError(f"SoundStream: {name} must be {value!r}, got {shown(got)}")
    settings = checked("SoundStream", given, _DEFAULTS)
    if settings["codebook_size"] is None:
        raise WeightsError("SoundStream: codebook_size must be given, got None")
    pad_mode = settings.pop("pad_mode")
    if pad_mode not in PADDING:
        raise WeightsError(f"SoundStream: pad_mode must be in {list(PADDING)}, got {pad_mode!r}")
    return made(SoundstreamConfig, **settings, padding=PADDING[pad_mode])


def _unpickled(config: bytes) -> Any:
    try:
        return inert_pickle.read(config)
    except FormatError as error:
        raise WeightsError(f"SoundStream: the checkpoint's config: {error}") from error
