"""Runs a case of the AcademiCodec toolkit: HiFi-Codec, or its EnCodec."""

from __future__ import annotations

import numpy as np
import torch

from fastcodec.codecs import academicodec, hificodec
from fastcodec.codecs.base import Codec

from .cases import Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes

START = 3  # the level that "codes_start" begins with


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    if "n_code_groups" in case.config or str(case.config.get("class")).endswith("SoundStream"):
        return None
    return "a part of training"


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    grouped = "n_code_groups" in case.config
    codec = (_hificodec if grouped else _encodec)(case).eval().requires_grad_(False)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    latents = record_latents(codec)
    tokens = codec.encode(case.wav(), bandwidth_kbps=case.config.get("bandwidth_kbps")).tokens
    checks.uses("input")
    checks.floats("latent", torch.cat(latents, dim=2)[0])
    if grouped:
        _grouped_codes(tokens[0].numpy(), codec, checks)
    else:
        checks.codes("codes", tokens[0])
        rest = codec.from_codebook(START)  # type: ignore[operator]
        count = tokens.shape[1] - START
        checks.exact("codes_start", rest.encode(case.wav(), n_codebooks=count).tokens[0])
    stored = stored_codes(case)[None]
    checks.floats("audio", lambda: codec.decode(stored)[0])
    checks.equal("samples", codec.decode(stored).shape[2], case.entry["decoded_samples"])
    checks.finish()


def _hificodec(case: Case) -> Codec:
    codec = hificodec.build("golden", hificodec.from_upstream(case.config))
    nets = [part["prefix"].removesuffix(":") for part in case.entry["states"]]
    codec.load_weights(dict(zip(nets, case.states(), strict=True)))
    return codec


def _encodec(case: Case) -> Codec:
    """One of the presets: upstream keeps its settings in scripts, beside no checkpoint."""
    config = case.config
    found = [
        name
        for name, preset in academicodec.PRESETS.items()
        if preset.seanet.ratios == tuple(config["ratios"])
        and preset.sample_rate_hz == config["sample_rate"]
        and preset.bandwidths_kbps == tuple(config["target_bandwidths"])
    ]
    assert len(found) == 1, f"{case.name}: of no preset"
    codec = academicodec.build(found[0])
    codec.load_weights(case.states()[0])
    return codec


def _grouped_codes(got: np.ndarray, codec: Codec, checks: Checks) -> None:
    """By rule 3: an excused code excuses the later ones of its group."""
    want, margins = (checks.case.arrays[name] for name in ("codes", "codes_margin"))
    chains = [i % codec.config.n_code_groups for i in range(len(got))]
    with checks.of(want.name, margins.name):
        checks.levels(got, want.full, margins.full, margins.entry["epsilon"], chains)
