"""Runs a case of Lyra v2, float32 or int8, with the published weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastcodec
from fastcodec.codecs.base import Codec
from fastcodec.codecs.lyra_weights import lyra_is_int8
from fastcodec.io.lyra_packets import pack_lyra, unpack_lyra

from . import compare
from .cases import SHARED, Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes

ROUGH_TOLERANCE = 0.1  # of the rms: rule 6, where the integer arithmetic is not reproduced
RATE = re.compile(r"_(\d+)_(\d+)kbps$")


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    return None if "weight_files" in case.config else "weights that are not files"


def run(case: Case) -> None:
    """Compare every array of the case."""
    folder = _weights(case.config["weight_files"])
    codec = fastcodec.load("lyra_v2", folder)
    # torch's own convolutions round otherwise than LiteRT's, and a step of int8 makes much of it.
    roughly = lyra_is_int8(folder) and not codec.info.invariant
    checks = Checks(case, unit="max_abs")
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    (_encode_roughly if roughly else _encode)(case, codec, checks)
    for suffix, kbps in _rates(case).items():
        _one_rate(case, codec, suffix, kbps, roughly, checks)
    checks.finish()


def _rates(case: Case) -> dict[str, float]:
    """Ending of the arrays of a bit rate -> kbps."""
    found = [match for name in case.arrays if (match := RATE.search(name))]
    return {match[0]: float(f"{match[1]}.{match[2]}") for match in found}


def _weights(files: Mapping[str, Mapping[str, Any]]) -> Path:
    """The folder whose files have these sizes and checksums."""
    store = SHARED / "data" / "lyra_v2"
    if not SHARED.is_dir():
        pytest.skip(f"no published weights at {SHARED}; FASTCODEC_SHARED says where they are")
    for folder in sorted(path for path in store.iterdir() if path.is_dir()):
        found = {name: _facts(folder / name) for name in files}
        if found == {name: dict(facts) for name, facts in files.items()}:
            return folder
    raise AssertionError(f"no folder of {store} holds the files of the case: {files}")


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes() if path.is_file() else b""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _encode(case: Case, codec: Codec, checks: Checks) -> None:
    checks.uses("input")
    latents = record_latents(codec)
    codes = codec.encode(case.wav())
    checks.floats("latent", np.concatenate([x[0].numpy() for x in latents], axis=1).T)
    checks.codes("codes", codes.tokens[0])
    checks.equal("frames", codes.tokens.shape[2], case.entry["frames"])


def _encode_roughly(case: Case, codec: Codec, checks: Checks) -> None:
    """The quantizer from the stored latents, by all rules; our own latents by the looser one."""
    checks.uses("input")
    stored = torch.from_numpy(case.arrays["latent"].full.T.copy())[None]
    checks.codes("codes", codec.quantizer.encode(stored)[0])
    latents = record_latents(codec)
    codes = codec.encode(case.wav())
    with checks.of("latent"):
        ours = torch.cat(latents, dim=2)[0].T
        reference = case.arrays["latent"]
        checks.measured["latent"] = compare.relative_rms(ours, reference, ROUGH_TOLERANCE)
    same = codes.tokens[0] == stored_codes(case)
    checks.measured |= {"codes_equal": float(same.float().mean())}
    checks.measured |= {"first_codes_equal": float(same[0].float().mean())}
    checks.equal("frames", codes.tokens.shape[2], case.entry["frames"])


def _one_rate(
    case: Case, codec: Codec, suffix: str, kbps: float, roughly: bool, checks: Checks
) -> None:
    """Dequantised latents, audio and packets of the stored codes at one bit rate."""
    bits = (codec.info.codebook_size - 1).bit_length()
    levels = round(kbps * 1000 / (bits * codec.info.frame_rate_hz))
    tokens = stored_codes(case)[None, :levels]
    own = codec.encode(case.wav(), bandwidth_kbps=kbps).tokens
    checks.equal(f"codes at {kbps} kbps", list(own.shape), list(tokens.shape))
    if not roughly:
        checks.codes("codes", own[0], levels)
    checks.floats(f"dequantised{suffix}", codec.quantizer.decode(tokens)[0].T)
    name = f"audio{suffix}"
    if roughly:
        with checks.of(name):
            audio = codec.decode(tokens)[0]
            checks.measured[name] = compare.relative_rms(audio, case.arrays[name], ROUGH_TOLERANCE)
    else:
        checks.floats(name, lambda: codec.decode(tokens)[0])
    packets = case.arrays[f"packets{suffix}"].full.tobytes()
    checks.exact(f"packets{suffix}", np.frombuffer(pack_lyra(tokens[0].numpy()), np.uint8))
    with checks.of(f"packets{suffix}"):
        np.testing.assert_array_equal(unpack_lyra(packets, levels)[:levels], tokens[0])
