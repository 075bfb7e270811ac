"""Mimi (Défossez et al. 2024, arXiv:2410.00037): 24 kHz speech at 12.5 frames a second.

    wav [B, 1, S]    zeros up to whole frames -> SEANet, causal, 25 steps a second
                     -> transformer over the last 10 s -> conv of 4, stride 2 -> latents [B, D, T]
    codes [B, K, T]  codebook 0, "semantic", and a residual quantizer of the others, both over the
                     same latents
    decoder          the sum of both -> depthwise transposed conv of 4, stride 2 -> transformer
                     -> SEANet

Everything is causal: it streams without look-ahead (moshi models/compression.py@e6a55d27).

A step attends to 250 steps, itself included. moshi's own streaming attends to one less in the first
of the two steps of a frame, because both are written into its ring of 250 before either looks; past
10 s its stream therefore differs a little from its whole-file result, which is what ours gives both
ways.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from fastcodec.codecs import seanet
from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import tag
from fastcodec.codecs.mimi_config import MimiConfig, from_upstream
from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.quantize import ProjectedQuantizer, SplitQuantizer
from fastcodec.layers.streaming import PadTo, Sequential
from fastcodec.layers.transformer import (
    Transformer,
    TransformerConfig,
    TransformerLayer,
    transformer,
)

CONFIG = MimiConfig
# moshi itself uses 8 of the codebooks: 1.1 kbps.
PRESETS = {
    "mimi_24khz": MimiConfig(
        bandwidths_kbps=(1.1, 2.2, 4.4), hub="kyutai/mimi", licence="CC-BY 4.0"
    )
}


class Mimi(Codec):
    """A Mimi.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    config: MimiConfig
    quantizer: SplitQuantizer
    training_only = re.compile(r"\.(_initialized|initialized|inited)$")

    def __init__(self, config: MimiConfig, name: str = "mimi") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.quantizer = quantizer(config)
        self.encoder, self.decoder = encoder(config), decoder(config)
        self.sample_rate_hz, self.channels = config.sample_rate_hz, config.seanet.channels
        self.hop = round(1 / self.encoder.rate)
        self.bandwidths_kbps = config.bandwidths_kbps
        self.licence, self.weights_at = config.licence, config.hub

    def _adapt(self, state: State) -> State:
        state = centroids(checkpoints.rename(state, _OLD_NAMES))
        if _is_transformers(state):
            state = fuse_attention(state, self.config.transformer)
        return state

    def _layout(self, state: State) -> Callable[[str], str]:
        return transformers_name if _is_transformers(state) else str

    def _from_hub(self) -> os.PathLike[str]:
        return checkpoints.from_hub(self.config.hub, "model.safetensors")


def encoder(config: MimiConfig) -> Sequential:
    """wav [B, C, S] -> latents [B, D, T]."""
    width, stride = config.seanet.dimension, config.stride
    net = seanet.encoder(config.seanet)
    down = Conv1d(width, width, 2 * stride, stride, bias=False, left=stride, padding="replicate")
    return Sequential(
        PadTo(round(stride / net.rate)),
        net,
        _transformer(config, "encoder_transformer"),
        tag(down, "downsample.conv.conv.conv"),
    )


def decoder(config: MimiConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, C, S]."""
    width, stride = config.seanet.dimension, config.stride
    up = ConvTranspose1d(
        width,
        width,
        2 * stride,
        stride,
        groups=config.upsample_groups,
        bias=False,
        cut_right=stride,
    )
    return Sequential(
        tag(up, "upsample.convtr.convtr.convtr"),
        _transformer(config, "decoder_transformer"),
        seanet.decoder(config.seanet),
    )


def quantizer(config: MimiConfig) -> SplitQuantizer:
    """The quantizer of a configuration, tagged."""
    net = SplitQuantizer(
        config.n_semantic,
        config.n_codebooks,
        config.codebook_size,
        config.codebook_dimension,
        config.seanet.dimension,
    )
    parts: dict[str, ProjectedQuantizer] = {"rvq_first": net.first, "rvq_rest": net.rest}
    for name, part in parts.items():
        path = f"quantizer.{name}"
        tag(part.in_proj, f"{path}.input_proj")
        tag(part.residual, f"{path}.vq.layers.{{}}._codebook.embedding_sum")
        tag(part.out_proj, f"{path}.output_proj")
    return net


def _transformer(config: MimiConfig, path: str) -> Transformer:
    net = transformer(config.seanet.dimension, config.transformer)
    for i, part in enumerate(net.layers):
        layer, at = cast(TransformerLayer, part), f"{path}.transformer.layers.{i}"
        tag(layer.norm1, f"{at}.norm1")
        tag(layer.norm2, f"{at}.norm2")
        tag(layer.attention.in_proj, f"{at}.self_attn.in_projs.0")
        tag(layer.attention.out_proj, f"{at}.self_attn.out_projs.0")
        tag(layer.feed_forward.linear1, f"{at}.linear1")  # type: ignore[type-var]
        tag(layer.feed_forward.linear2, f"{at}.linear2")  # type: ignore[type-var]
        if layer.scale1 is not None and layer.scale2 is not None:
            tag(layer.scale1, f"{at}.layer_scale_1")
            tag(layer.scale2, f"{at}.layer_scale_2")
    return net


# moshi's older names (its modules rename them when they load), and transformers' nested ones.
_OLD_NAMES = (
    (r"\.self_attn\.in_proj[._]weight$", ".self_attn.in_projs.0.weight"),
    (r"\.self_attn\.out_proj\.weight$", ".self_attn.out_projs.0.weight"),
    (r"\._codebook\.cluster_size$", "._codebook.cluster_usage"),
    (r"\._codebook\.embed_(avg|sum)$", "._codebook.embedding_sum"),
    (r"^(encoder|decoder)\.\1_seanet\.", r"\1."),
    (r"^(encoder|decoder)\.(\1_transformer|downsample|upsample)\.", r"\2."),
)
_QKV = re.compile(r"(.*\.self_attn\.)q_proj\.weight")


def _is_transformers(state: State) -> bool:
    return any(name.startswith(("encoder.layers.", "decoder.layers.")) for name in state)


def centroids(state: State) -> State:
    """The state with the sum of each word's vectors divided by their number, not below 1e-5."""
    out = dict(state)
    for name in state:
        stem, _, leaf = name.rpartition(".")
        if leaf not in ("embedding_sum", "embed_sum"):
            continue
        if f"{stem}.cluster_usage" not in state:
            raise WeightsError(f"{name} needs {stem}.cluster_usage beside it, which is missing")
        usage = out.pop(f"{stem}.cluster_usage")
        if usage.ndim != 1 or out[name].ndim != 2 or len(usage) != len(out[name]):
            raise WeightsError(
                f"{name} {list(out[name].shape)} needs a usage for each row, got "
                f"{list(usage.shape)}"
            )
        out[name] = out[name].float() / usage.float().clamp(min=1e-5)[:, None]
    return out


def fuse_attention(state: State, config: TransformerConfig) -> State:
    """transformers' three projections as one, and its rotary pairs side by side.

    Its rotation turns features i and i + D / 2 of a head together, moshi's 2 i and 2 i + 1.
    """
    out, heads, kv_heads = dict(state), config.heads, config.kv_heads or config.heads
    for name in state:
        if not (found := _QKV.fullmatch(name)):
            continue
        names = [f"{found[1]}{letter}_proj.weight" for letter in "qkv"]
        parts = [state[n] for n in names if n in state and state[n].ndim == 2]
        if len(parts) < 3 or len({part.shape[1] for part in parts}) > 1:
            continue  # loading will say what is missing or of another shape
        q, k, v = parts
        if len(q) % (2 * heads) or len(k) % (2 * kv_heads):
            continue
        for n in names:
            del out[n]
        rows = [interleaved(q, heads), interleaved(k, kv_heads), v]
        out[f"{found[1]}{{q,k,v}}_proj.weight"] = torch.cat(rows)
    return out


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows [H * D, C], those of each head's second half put between those of its first."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


_TRANSFORMERS_NAMES = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"_transformer\.transformer\.", "_transformer."),
    (r"\.norm1\.", ".input_layernorm."),
    (r"\.norm2\.", ".post_attention_layernorm."),
    (r"\.in_projs\.0\.", ".{q,k,v}_proj."),
    (r"\.out_projs\.0\.", ".o_proj."),
    (r"\.linear(\d)\.", r".mlp.fc\1."),
    (r"\.layer_scale_1\.", ".self_attn_layer_scale."),
    (r"\.layer_scale_2\.", ".mlp_layer_scale."),
    (r"(\.(conv|convtr))+\.(?=\w+$)", ".conv."),
    (r"\.rvq_first\.", ".semantic_residual_vector_quantizer."),
    (r"\.rvq_rest\.", ".acoustic_residual_vector_quantizer."),
    (r"\.vq\.layers\.(\d+)\._codebook\.embedding_sum$", r".layers.\1.codebook.embed_sum"),
)


def transformers_name(name: str) -> str:
    """The name that transformers' MimiModel gives to an entry of moshi's checkpoint."""
    for pattern, replacement in _TRANSFORMERS_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def build(name: str, config: MimiConfig | None = None) -> Mimi:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Mimi(config or PRESETS[name], name)


__all__ = ["CONFIG", "PRESETS", "Mimi", "MimiConfig", "build", "from_upstream"]
