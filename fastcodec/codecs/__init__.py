"""The codecs, one file a family; ``load`` makes one ready to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from fastcodec.codecs import encodec, lyra
from fastcodec.codecs.base import Codec, CodecInfo
from fastcodec.codecs.stream import Stream

FAMILIES = (encodec, lyra)
PRECISIONS = ("highest", "high", "medium")


def load(
    name: str,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    precision: str = "highest",
) -> Codec:
    """A codec with its weights, in evaluation mode.

    Args:
        name: a preset, see ``fastcodec.models()``
        weights: path of upstream's checkpoint (.th, .pt, .bin, .safetensors; for Lyra a folder of
            .tflite files), a mapping of upstream's names to tensors, or None: downloaded from the
            Hugging Face hub, once
        device: where to run
        precision: the least accuracy you accept, in torch's words: "highest" is float32, "high"
            about 1e-5, "medium" bfloat16 operands. What has no faster form yet runs in float32.

    Raises:
        ValueError: no such preset or precision
        WeightsError: the checkpoint is unreadable, unsafe or does not fit; all keys are listed
    """
    family = next((f for f in FAMILIES if name in f.PRESETS), None)
    if family is None:
        names = ", ".join(preset for f in FAMILIES for preset in f.PRESETS)
        raise ValueError(f"load: there is no codec {name!r}; known: {names}")
    if precision not in PRECISIONS:
        raise ValueError(
            f"load: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    codec = family.build(name)
    codec.load_weights(weights)
    return codec.eval().requires_grad_(False).to(device)


def models() -> list[CodecInfo]:
    """The facts of every preset, without weights."""
    with torch.device("meta"):
        return [family.build(name).info for family in FAMILIES for name in family.PRESETS]


__all__ = ["Codec", "CodecInfo", "Stream", "load", "models"]
