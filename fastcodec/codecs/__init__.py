"""The codecs, one file a family; ``load`` makes one ready to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from fastcodec import ops
from fastcodec.codecs import (
    academicodec,
    audiodec,
    dac,
    embedded,
    encodec,
    funcodec,
    hificodec,
    lyra,
    mimi,
    snac,
    soundstream,
    speechtokenizer,
)
from fastcodec.codecs.base import Codec, CodecInfo
from fastcodec.codecs.keys import tagged_state
from fastcodec.codecs.recognise import build_checked, recognise, spec_of
from fastcodec.codecs.stream import Stream
from fastcodec.io import model_file

FAMILIES = (
    embedded,
    soundstream,
    lyra,
    encodec,
    audiodec,
    academicodec,
    hificodec,
    speechtokenizer,
    dac,
    funcodec,
    mimi,
    snac,
)


def load(
    name: str | None = None,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    precision: str = "highest",
) -> Codec:
    """A codec with its weights, in evaluation mode.

    Args:
        name: a preset, see ``fastcodec.models()``, or None where the weights say themselves what
            they are: a file of ``fastcodec convert``, a folder of transformers, SNAC,
            SpeechTokenizer, HiFi-Codec or FunCodec with its config, a checkpoint of DAC
        weights: path of upstream's checkpoint (.th, .pt, .pth, .pkl, .ckpt, .bin, .safetensors; for
            Lyra a folder of .tflite files), a mapping of upstream's names to tensors, or None:
            downloaded from the Hugging Face hub, once
        device: where to run
        precision: the least accuracy you accept, in torch's words: "highest" is float32, "high"
            about 1e-5, "medium" bfloat16 operands in the convolutions of encoder and decoder, whose
            sums are float32 as all of the quantizer is. What has no faster form runs in float32;
            so does all of "high": it takes AMX to make bfloat16 faster at that accuracy.

    Raises:
        ValueError: no such preset or precision
        WeightsError: the checkpoint is unreadable, unsafe or does not fit; all keys are listed
    """
    if precision not in ops.PRECISIONS:
        raise ValueError(
            f"load: precision must be one of {', '.join(ops.PRECISIONS)}, got {precision!r}"
        )
    if name is not None:
        codec = _family(name).build(name)
    elif isinstance(weights, str | os.PathLike):
        codec = _recognised(weights)
    else:
        raise ValueError("load: give the name of a preset, or the path of weights that say theirs")
    codec.load_weights(weights)
    codec.set_precision(precision)
    ready: Codec = codec.eval().requires_grad_(False).to(device)
    return ready


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], name: str | None = None
) -> CodecInfo:
    """Write a checkpoint as safetensors with the spec inside, which ``load`` needs no name for.

    Args:
        source: as ``weights`` of ``load``
        target: path of the .safetensors file, written whole or not at all
        name: preset, where the source does not say what it is

    Raises:
        ValueError: target has another suffix, or codec without parameters to write (Lyra's int8)
        WeightsError: as ``load``
    """
    if not os.fspath(target).lower().endswith(".safetensors"):
        raise ValueError(f"convert: the target must be a .safetensors file, got {target}")
    codec = load(name, source)
    model_file.write(target, spec_of(codec, FAMILIES), tagged_state(codec))
    return codec.info


def models(*names: str) -> list[CodecInfo]:
    """The facts of these presets, of all where none is named; their nets take no memory."""
    with torch.device("meta"):
        return [_family(name).build(name).info for name in names or preset_names()]


def preset_names() -> list[str]:
    """What ``load`` knows."""
    return [name for family in FAMILIES for name in family.PRESETS]


def _family(name: str) -> Any:
    for family in FAMILIES:
        if name in family.PRESETS:
            return family
    raise ValueError(f"load: there is no codec {name!r}; known: {', '.join(preset_names())}")


def _recognised(weights: str | os.PathLike[str]) -> Codec:
    """The net that a checkpoint says it is of."""
    family, name, config = recognise(weights, FAMILIES)
    if config == family.PRESETS.get(name):
        preset: Codec = family.build(name)
        return preset
    return build_checked(family, name, config, weights)


__all__ = ["Codec", "CodecInfo", "Stream", "convert", "load", "models", "preset_names"]
