"""Sizes of a Mimi, and how transformers' ``config.json`` says them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codecs.settings import TRANSFORMERS_UNUSED, checked, made
from fastcodec.errors import WeightsError, shown
from fastcodec.layers.transformer import TransformerConfig

SEANET = SeanetConfig(
    dimension=512, n_filters=64, ratios=(8, 6, 5, 4), last_kernel_size=3, lstm=0, padding="zero",
    true_skip=True, norm="none",
)  # fmt: skip


@dataclass(frozen=True)
class MimiConfig:
    """A model of the family.

    ``stride``: steps of the transformers a frame; ``upsample_groups``: of the decoder's first
    layer; ``n_semantic`` of the ``n_codebooks`` are quantised apart. ``hub``: repository of
    transformers-format weights.
    """

    sample_rate_hz: int = 24000
    seanet: SeanetConfig = SEANET
    transformer: TransformerConfig = TransformerConfig()
    stride: int = 2
    upsample_groups: int = 512
    n_codebooks: int = 32
    n_semantic: int = 1
    codebook_size: int = 2048
    codebook_dimension: int = 256
    bandwidths_kbps: tuple[float, ...] = ()
    hub: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.n_semantic < self.n_codebooks:
            raise ValueError(
                f"MimiConfig: n_semantic must be 1 to n_codebooks - 1, got {self.n_semantic} of "
                f"{self.n_codebooks}"
            )
        width, heads = self.seanet.dimension, self.transformer.heads
        if width % self.upsample_groups or (
            width % heads and self.transformer.head_features is None
        ):
            raise ValueError(
                f"MimiConfig: upsample_groups and heads must divide {width}, got "
                f"{self.upsample_groups} and {heads}"
            )


# The settings of transformers' config.json with its defaults (configuration_mimi.py, 5.23.0).
_DEFAULTS: dict[str, Any] = {
    "sampling_rate": 24000, "audio_channels": 1, "hidden_size": 512, "num_filters": 64,
    "num_residual_layers": 1, "upsampling_ratios": (8, 6, 5, 4), "kernel_size": 7,
    "last_kernel_size": 3, "residual_kernel_size": 3, "dilation_growth_rate": 2, "compress": 2,
    "codebook_size": 2048, "codebook_dim": 256, "num_quantizers": 32, "use_conv_shortcut": False,
    "vector_quantization_hidden_dimension": 256, "num_semantic_quantizers": 1,
    "upsample_groups": 512, "num_hidden_layers": 8, "intermediate_size": 2048,
    "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "gelu",
    "norm_eps": 1e-5, "sliding_window": 250, "rope_theta": 10000.0, "frame_rate": 0.0,
    "use_causal_conv": True, "pad_mode": "constant", "trim_right_ratio": 1.0,
    "attention_bias": False, "normalize": False,
}  # fmt: skip
_ONLY = {
    "use_causal_conv": True, "pad_mode": "constant", "trim_right_ratio": 1.0,
    "attention_bias": False, "normalize": False,
}  # fmt: skip
# Their names -> ours.
_SEANET = {
    "num_filters": "n_filters", "num_residual_layers": "n_residual_layers",
    "kernel_size": "kernel_size", "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size", "dilation_growth_rate": "dilation_base",
    "compress": "compress",
}  # fmt: skip
_TRANSFORMER = {
    "num_hidden_layers": "layers", "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads", "head_dim": "head_features",
    "intermediate_size": "feed_forward", "hidden_act": "activation", "sliding_window": "context",
    "rope_theta": "max_period", "norm_eps": "epsilon",
}  # fmt: skip
_OWN = {
    "upsample_groups": "upsample_groups", "num_quantizers": "n_codebooks",
    "num_semantic_quantizers": "n_semantic", "codebook_size": "codebook_size",
    "vector_quantization_hidden_dimension": "codebook_dimension",
}  # fmt: skip
_UNUSED = TRANSFORMERS_UNUSED | {
    "max_position_embeddings", "initializer_range", "use_cache", "use_streaming",
    "attention_dropout", "layer_scale_initial_scale", "tie_word_embeddings", "rope_parameters",
}  # fmt: skip


def from_upstream(config: Mapping[str, Any]) -> MimiConfig:
    """The configuration that transformers' ``config.json`` of a MimiModel describes.

    Raises:
        WeightsError: another model's, an unknown setting, or a value that no model here has
    """
    if config.get("model_type", "mimi") != "mimi":
        raise WeightsError(
            f"Mimi: config.json is of a {shown(config['model_type'])}, not of a 'mimi'"
        )
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default":
        raise WeightsError(f"Mimi: rope_type must be 'default', got rope_parameters {shown(rope)}")
    c = {name: value for name, value in config.items() if name not in _UNUSED}
    if "_frame_rate" in c:  # as its property writes it
        c["frame_rate"] = c.pop("_frame_rate")
    c.update({name: value for name, value in rope.items() if name == "rope_theta"})
    c = checked("Mimi", c, _DEFAULTS, ("upsampling_ratios", "codebook_dim", "frame_rate"))
    for name, value in _ONLY.items():
        if c[name] != value:
            raise WeightsError(f"Mimi: {name} must be {value!r}, got {c[name]!r}")
    if c["hidden_act"] not in ("gelu", "silu"):
        raise WeightsError(f"Mimi: hidden_act must be gelu or silu, got {c['hidden_act']!r}")
    if c["codebook_dim"] not in (c["vector_quantization_hidden_dimension"], None):
        raise WeightsError("Mimi: codebook_dim must be vector_quantization_hidden_dimension")
    net = SeanetConfig(
        channels=c["audio_channels"],
        dimension=c["hidden_size"],
        ratios=c["upsampling_ratios"] or SEANET.ratios,
        true_skip=not c["use_conv_shortcut"],
        lstm=0,
        padding="zero",
        norm="none",
        **{ours: c[theirs] for theirs, ours in _SEANET.items()},
    )
    if c["num_key_value_heads"] == (heads := c["num_attention_heads"]):
        c["num_key_value_heads"] = None
    if c["head_dim"] == c["hidden_size"] / heads:
        c["head_dim"] = None
    layers = TransformerConfig(**{ours: c[theirs] for theirs, ours in _TRANSFORMER.items()})
    own = {ours: c[theirs] for theirs, ours in _OWN.items()}
    return made(MimiConfig, c["sampling_rate"], net, layers, _stride(c, net), **own)


def _stride(c: Mapping[str, Any], net: SeanetConfig) -> int:
    """Steps a frame."""
    if not c["frame_rate"]:
        return 2
    stride = c["sampling_rate"] / math.prod(net.ratios) / c["frame_rate"]
    if stride != round(stride) or stride < 2:
        raise WeightsError(f"Mimi: frame_rate makes {stride:g} steps a frame, expected 2 or more")
    return round(stride)
