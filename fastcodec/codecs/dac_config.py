"""Sizes of a DAC, read from what upstream and transformers keep beside their weights.

``metadata["kwargs"]`` of a checkpoint of descript-audio-codec holds the constructor's arguments
(dac/model/dac.py@c7cfc5d2); transformers keeps a ``config.json`` (DacConfig, 5.23.0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fastcodec.codecs.settings import TRANSFORMERS_UNUSED, checked, made
from fastcodec.errors import WeightsError, shown


@dataclass(frozen=True)
class DacConfig:
    """Upstream's constructor arguments, and where the weights are.

    ``latent_dim``: D; None is the encoder's last width. ``hub``: repository of transformers-format
    weights; ``url``: of upstream's own, where there is no such repository.
    """

    sample_rate: int = 44100
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    latent_dim: int | None = None
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 4, 2)
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    hub: str = ""
    url: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        check_rates("DacConfig", self.encoder_rates, self.decoder_rates)

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.encoder_rates)

    @property
    def dimension(self) -> int:
        """D."""
        return self.latent_dim or self.encoder_dim * 2 ** len(self.encoder_rates)


def check_rates(what: str, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
    """ValueError where the strides of a net like DAC's are not its decoder's, too."""
    if min(encoder + decoder, default=0) < 2 or math.prod(encoder) != math.prod(decoder):
        raise ValueError(
            f"{what}: the rates must be 2 or more and have one product, got {encoder} and {decoder}"
        )


_DEFAULTS = {
    f.name: f.default for f in fields(DacConfig) if f.name not in ("hub", "url", "licence")
}
_TRAINING = {"quantizer_dropout"}


def from_upstream(kwargs: Mapping[str, Any]) -> DacConfig:
    """The configuration of upstream's constructor arguments, ``metadata["kwargs"]``.

    Raises:
        WeightsError: an argument that is not known, or a value that no model can have
    """
    given = {name: value for name, value in kwargs.items() if name not in _TRAINING}
    widths = given.get("codebook_dim")
    if isinstance(widths, list | tuple) and all(type(w) is int for w in widths):
        given["codebook_dim"] = widths[0] if len(set(widths)) == 1 else widths
    config = made(DacConfig, **checked("DAC", given, _DEFAULTS))
    usual = replace(config, latent_dim=None)  # upstream writes the number that follows, too
    return usual if usual.dimension == config.dimension else config


# transformers' names of upstream's arguments; what follows from them, or only training uses.
_TRANSFORMERS = {
    "encoder_hidden_size": "encoder_dim",
    "downsampling_ratios": "encoder_rates",
    "decoder_hidden_size": "decoder_dim",
    "upsampling_ratios": "decoder_rates",
    "hidden_size": "latent_dim",
    "sampling_rate": "sample_rate",
    "n_codebooks": "n_codebooks",
    "codebook_size": "codebook_size",
    "codebook_dim": "codebook_dim",
}
_UNUSED = TRANSFORMERS_UNUSED | {
    "hop_length", "quantizer_dropout", "commitment_loss_weight", "codebook_loss_weight",
}  # fmt: skip


def from_transformers(config: Mapping[str, Any]) -> DacConfig:
    """The configuration of transformers' ``config.json`` of a DacModel.

    Raises:
        WeightsError: as ``from_upstream``, or another model's file
    """
    if config.get("model_type", "dac") != "dac":
        raise WeightsError(
            f"DAC: config.json is of a {shown(config['model_type'])}, not of a 'dac'"
        )
    kwargs = {_TRANSFORMERS.get(k, k): v for k, v in config.items() if k not in _UNUSED}
    kwargs.setdefault("sample_rate", 16000)
    return from_upstream(kwargs)
