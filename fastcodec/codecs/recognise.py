"""Which codec a checkpoint is, from what it says itself: no preset needs to be named.

A converted file holds its spec; a folder of transformers, SNAC, SpeechTokenizer, HiFi-Codec or
FunCodec a config beside the weights; a file of DAC or audiolm-pytorch its constructor's arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fastcodec.codecs import (
    audiodec,
    configs,
    dac,
    dac_config,
    encodec,
    funcodec,
    hificodec,
    lyra,
    mimi,
    snac,
    soundstream,
    speechtokenizer,
)
from fastcodec.codecs.base import Codec, Weights
from fastcodec.errors import WeightsError, shown
from fastcodec.io import config_file, model_file, torchfile

Found = tuple[ModuleType, str, Any]  # family, name, config

_PARAMETERS = 4_000  # no codec has a tenth of them
_COMPUTED = 1 << 22  # values of tables that are no part of a checkpoint
_ABOUT = ("hub", "url", "licence", "bandwidths_kbps")  # fields that say nothing of the net
# What is in a config.json or config.yaml -> whose it is.
_BESIDE: tuple[tuple[Callable[[Mapping[str, Any]], bool], ModuleType, Callable[..., Any]], ...] = (
    (lambda c: c.get("model_type") == "encodec", encodec, encodec.from_transformers),
    (lambda c: c.get("model_type") == "dac", dac, dac_config.from_transformers),
    (lambda c: c.get("model_type") == "mimi", mimi, mimi.from_upstream),
    (lambda c: "vq_strides" in c, snac, snac.from_upstream),
    (lambda c: "semantic_dimension" in c, speechtokenizer, speechtokenizer.from_upstream),
    (lambda c: "n_code_groups" in c, hificodec, hificodec.from_upstream),
    (lambda c: "quantizer_conf" in c, funcodec, funcodec.from_upstream),
    (
        lambda c: isinstance(g := c.get("generator_params"), Mapping) and "enc_strides" in g,
        audiodec,
        audiodec.from_upstream,
    ),
)


def recognise(path: str | os.PathLike[str], families: tuple[ModuleType, ...]) -> Found:
    """The family, name and config of a checkpoint or of a folder with one.

    Raises:
        WeightsError: it does not say what it is, or says something that we do not have
        FileNotFoundError: no such file or folder
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if (converted := model_file.read(path)) is not None:
        return _of_spec(converted[0], path, families)
    if path.is_dir() and any(path.glob("*.tflite")):
        return lyra, "lyra_v2", lyra.PRESETS["lyra_v2"]
    for config in _configs_beside(path):
        for is_it, family, read in _BESIDE:
            if is_it(config):
                return _named(family, read(config))
    if path.is_file() and path.suffix.lower() != ".safetensors":
        tree = torchfile.read(path)
        tree = tree if isinstance(tree, Mapping) else {}
        metadata = tree.get("metadata")
        if isinstance(metadata, Mapping) and isinstance(metadata.get("kwargs"), Mapping):
            return _named(dac, dac_config.from_upstream(metadata["kwargs"]))
        if "config" in tree and "model" in tree:  # audiolm-pytorch's: a pickle as bytes
            return _named(soundstream, soundstream.from_upstream(tree["config"]))
    raise WeightsError(
        f"{path}: does not say which codec it is (no spec of `fastcodec convert`, no config beside "
        f"it that we know); name its preset, see fastcodec.models()"
    )


def build_checked(family: ModuleType, name: str, config: Any, path: Weights) -> Codec:
    """The net of a config from a file, unless it asks for much more than the checkpoint holds.

    Raises:
        WeightsError: it does, or the sizes are impossible
    """
    count = 0

    def counted(module: nn.Module, parameter: str, value: object) -> None:
        nonlocal count
        count += 1
        if count > _PARAMETERS:
            raise WeightsError(f"{name}: its config asks for more layers than any codec has")

    handle = register_module_parameter_registration_hook(counted)
    try:
        with torch.device("meta"):
            net: Codec = family.build(name, config)
    except WeightsError:
        raise
    except Exception as error:  # sizes that make no sense may fail in any way
        raise WeightsError(
            f"{name}: no net can be built from its config: {str(error):.300}"
        ) from error
    finally:
        handle.remove()
    converted = None if isinstance(path, Mapping) else model_file.read(path)
    state = net.read(path) if converted is None else converted[1]
    asked, stored = (sum(v.numel() for v in s.values()) for s in (net.state_dict(), state))
    if asked > 2 * stored + 1024:
        raise WeightsError(
            f"{name} does not fit the model: its config asks for {asked} values, there are {stored}"
        )
    held = sum(v.numel() for v in (*net.parameters(), *net.buffers()))
    if held - asked > _COMPUTED:
        raise WeightsError(f"{name}: its config asks for tables of {held - asked} values")
    built: Codec = family.build(name, config)
    return built


def spec_of(codec: Codec, families: tuple[ModuleType, ...]) -> model_file.Spec:
    """What ``recognise`` needs to build this codec again."""
    family = next(f for f in families if f.__name__ == type(codec).__module__)
    name = family.__name__.rpartition(".")[2]
    return model_file.Spec(name, codec.name, configs.to_json(codec.config))


def _of_spec(spec: model_file.Spec, path: Path, families: tuple[ModuleType, ...]) -> Found:
    by_name = {family.__name__.rpartition(".")[2]: family for family in families}
    if spec.family not in by_name:
        raise WeightsError(
            f"{path}: is of the family {shown(spec.family)}; known: {', '.join(by_name)}"
        )
    family = by_name[spec.family]
    return family, spec.name, configs.from_json(family.CONFIG, spec.config, f"{path}: config")


def _named(family: ModuleType, config: Any) -> Found:
    """The preset of this config, with the facts that go with it; else the family's own name."""

    def net_only(config: Any) -> Any:
        about = {f.name: f.default for f in fields(config) if f.name in _ABOUT}
        return replace(config, **about)

    for name, preset in family.PRESETS.items():
        if type(preset) is type(config) and net_only(preset) == net_only(config):
            return family, name, preset
    return family, family.__name__.rpartition(".")[2], config


def _configs_beside(path: Path) -> list[dict[str, Any]]:
    """The configs in a folder, or in that of a file."""
    folder = path if path.is_dir() else path.parent
    found = sorted(folder.glob("config*.json")) + sorted(folder.glob("config*.y*ml"))
    return [config for file in found if isinstance(config := config_file.read(file), dict)]
