"""The configuration of an EnCodec, and transformers' ``config.json`` of one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codecs.settings import LARGEST, LONGEST, PADDING, TRANSFORMERS_UNUSED, checked, made
from fastcodec.errors import WeightsError, shown


@dataclass(frozen=True)
class EncodecConfig:
    """A model of the family.

    ``segment`` and ``segment_stride``: samples a segment and from one's start to the next's; None
    for models that take the signal whole. ``hub``: repository of transformers-format weights.
    """

    sample_rate_hz: int
    seanet: SeanetConfig
    n_codebooks: int
    codebook_size: int
    bandwidths_kbps: tuple[float, ...]
    hub: str = ""
    licence: str = ""
    segment: int | None = None
    segment_stride: int | None = None


_DEFAULTS: dict[str, Any] = {
    "target_bandwidths": None, "sampling_rate": 24000, "audio_channels": 1, "normalize": False,
    "chunk_length_s": 0.0, "overlap": 0.0, "hidden_size": 128, "num_filters": 32,
    "num_residual_layers": 1, "upsampling_ratios": (8, 5, 4, 2), "norm_type": "weight_norm",
    "kernel_size": 7, "last_kernel_size": 7, "residual_kernel_size": 3, "dilation_growth_rate": 2,
    "use_causal_conv": True, "pad_mode": "reflect", "compress": 2, "num_lstm_layers": 2,
    "trim_right_ratio": 1.0, "codebook_size": 1024, "codebook_dim": None, "use_conv_shortcut": True,
}  # fmt: skip
_SEANET = {
    "audio_channels": "channels", "hidden_size": "dimension", "num_filters": "n_filters",
    "num_residual_layers": "n_residual_layers", "upsampling_ratios": "ratios",
    "kernel_size": "kernel_size", "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size", "dilation_growth_rate": "dilation_base",
    "compress": "compress", "num_lstm_layers": "lstm", "use_causal_conv": "causal",
    "norm_type": "norm",
}  # fmt: skip


def from_transformers(config: Mapping[str, Any]) -> EncodecConfig:
    """The configuration that transformers' ``config.json`` of an EncodecModel describes.

    Raises:
        WeightsError: an unknown setting, or a value that no model here has
    """
    given = {name: value for name, value in config.items() if name not in TRANSFORMERS_UNUSED}
    kbps = given.pop("target_bandwidths", [1.5, 3.0, 6.0, 12.0, 24.0])
    listed = kbps if isinstance(kbps, list) and len(kbps) <= LONGEST else []
    if not listed or not all(type(v) in (int, float) and 0 < v <= LARGEST for v in listed):
        raise WeightsError(
            f"EnCodec: target_bandwidths must be positive numbers, got {shown(kbps)}"
        )
    c = checked("EnCodec", given, _DEFAULTS, ("chunk_length_s", "overlap"))
    if c["pad_mode"] not in PADDING or c["trim_right_ratio"] != 1.0:
        raise WeightsError(
            f"EnCodec: pad_mode must be one of {', '.join(PADDING)} and trim_right_ratio 1.0, got "
            f"{c['pad_mode']!r} and {c['trim_right_ratio']}"
        )
    if (c["chunk_length_s"] or 0.0) < 0.0 or not 0.0 <= (c["overlap"] or 0.0) < 1.0:
        raise WeightsError(
            f"EnCodec: chunk_length_s must be positive and overlap 0 to 1, got "
            f"{c['chunk_length_s']} and {c['overlap']}"
        )
    segment = c["chunk_length_s"] and int(c["chunk_length_s"] * c["sampling_rate"])
    if bool(segment) != c["normalize"]:
        raise WeightsError("EnCodec: normalize goes with chunk_length_s, one without the other")
    net = made(
        SeanetConfig,
        padding=PADDING[c["pad_mode"]],
        true_skip=not c["use_conv_shortcut"],
        **{ours: c[theirs] for theirs, ours in _SEANET.items()},
    )
    hop = math.prod(net.ratios)
    # As transformers counts: with the frames a second rounded up.
    frame_rate_hz, bits = -(-c["sampling_rate"] // hop), (c["codebook_size"] - 1).bit_length()
    return EncodecConfig(
        c["sampling_rate"],
        net,
        max(1, int(1000 * kbps[-1] // (frame_rate_hz * max(1, bits)))),
        c["codebook_size"],
        tuple(float(v) for v in kbps),
        segment=segment or None,
        segment_stride=max(1, int((1.0 - (c["overlap"] or 0.0)) * segment)) if segment else None,
    )
