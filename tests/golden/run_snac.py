"""Runs a case of SNAC: latents, codes of every rate, audio without noise and with given noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcodec.codecs import snac
from fastcodec.codecs.snac import Snac

from . import cases
from .cases import Case
from .checks import Checks
from .run_encodec import record_latents


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    return None if "encoder_rates" in case.config else "a part of training"


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    (state,) = case.states()
    codec = snac.build(case.name, snac.from_upstream(case.config))
    codec.load_weights(state)
    codec.eval().requires_grad_(False)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    checks.equal("preset", vars(snac.PRESETS[case.name]) | {"hub": "", "licence": ""},
                 vars(codec.config))  # fmt: skip
    _encode(case, codec, checks)
    _decode(case, codec, checks)
    checks.finish()


def _encode(case: Case, codec: Snac, checks: Checks) -> None:
    checks.uses("input")
    latents = record_latents(codec)
    codes = codec.encode(case.wav())
    checks.floats("latent", torch.cat(latents, dim=2)[0])
    checks.equal("frames", codes.tokens.shape[2] * codec.hop, case.entry["padded_samples"])
    levels = codec.info.n_codebooks
    names = [(f"codes_{i}", f"codes_{i}_margin") for i in range(levels)]
    with checks.of(*(name for pair in names for name in pair)):
        want, margins = zip(*((case.arrays[a], case.arrays[b]) for a, b in names), strict=True)
        epsilon = margins[0].entry["epsilon"]
        checks.levels(
            [row[0] for row in codes.ragged()],
            [level.full[0] for level in want],
            [level.full[0] for level in margins],
            epsilon,
        )


def _decode(case: Case, codec: Snac, checks: Checks) -> None:
    """Decode the stored codes, without noise and with the case's."""
    rows = [case.arrays[f"codes_{i}"].full for i in range(codec.info.n_codebooks)]
    tokens = codec.from_ragged([torch.from_numpy(row).long() for row in rows])
    size = case.wav().shape[2]
    audio = codec.decode(tokens)
    checks.equal("decoded samples", audio.shape[2], case.entry["decoded_samples"])
    checks.floats("audio", audio[0, :, :size])
    blocks = snac.noise_blocks(codec)
    checks.equal("noise blocks", len(blocks), case.entry["noise_blocks"])
    length = tokens.shape[2]
    for i, (block, rate) in enumerate(zip(blocks, codec.config.decoder_rates, strict=True)):
        length *= rate
        values = _noise(case, i, length)
        block.noise = lambda begin, count, values=values: values[begin : begin + count]
    checks.floats("audio_noise", lambda: codec.decode(tokens)[0, :, :size])


def _noise(case: Case, block: int, length: int) -> Tensor:
    """[length], the noise of a block (README.md of the vectors: Randomness)."""
    arguments = {**case.entry["fill"], "gain": math.sqrt(length)}
    filler = case.folder.parent / "fill.py"
    values = cases._filled(
        filler, f"noise.{block}", (1, 1, length), "float32", tuple(arguments.items())
    )
    return torch.from_numpy(values[0, 0])
