"""Runs a case of DAC: the padded nets, or a file made in windows without padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcodec.codecs import dac, dac_chunks
from fastcodec.codecs.dac import Dac
from fastcodec.io.dac_file import DacFile, read_dac, write_dac

from .cases import Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes

EPSILON = 1e-4  # of the padded cases' margins


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    return "a part of training" if "encoder_rates" not in case.config else None


def build(case: Case) -> Dac:
    """The net of the configuration, with the case's weights."""
    kwargs = {name: value for name, value in case.config.items() if name != "win_duration"}
    codec = dac.build("golden", dac.from_upstream(kwargs))
    codec.load_weights(case.states()[0])
    codec.eval().requires_grad_(False)
    return codec


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    codec = build(case)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    checks.uses("input")
    (_file if "file" in case.entry else _nets)(case, codec, checks)
    checks.finish()


def _nets(case: Case, codec: Dac, checks: Checks) -> None:
    latents = record_latents(codec)
    codes = codec.encode(case.wav())
    checks.codes("codes", codes.tokens[0])
    checks.floats("latent", torch.cat(latents, dim=2)[0])
    checks.floats("projected", lambda: codec.latents(case.wav())[0])
    stored = stored_codes(case)[None]
    checks.floats("quantised", lambda: codec.quantizer.decode(stored)[0])
    heard = codec.decode(stored)
    checks.equal("decoded samples", heard.shape[2], case.entry["decoded_samples"])
    checks.floats("audio", codec.decode(replace(codes, tokens=stored))[0])


def _file(case: Case, codec: Dac, checks: Checks) -> None:
    stored = read_dac(case.arrays["dac_file"].full.tobytes())
    want = case.arrays["codes"].full.astype(np.int64)
    checks.equal("metadata", _metadata(stored), case.entry["file"])
    checks.equal("delay", dac_chunks.delay(codec), case.entry["delay"])
    with checks.of("dac_file"):
        assert np.array_equal(stored.codes, want), "the file read gives other codes"
        again = read_dac(write_dac(stored))
        assert np.array_equal(again.codes, want), "the file written gives other codes"
        assert _metadata(again) == _metadata(stored), "the file written has other metadata"
    latents = record_latents(codec)
    rate_hz = case.entry["arrays"]["input"]["sample_rate"]
    made = dac_chunks.compress(codec, case.wav()[0], rate_hz, case.config["win_duration"])
    with checks.of("codes"):
        margin = margins(codec, torch.cat(latents, dim=2), torch.from_numpy(want)).numpy()
        for row, expected, decisive in zip(made.codes, want, margin, strict=True):
            checks.levels(row, expected, decisive, EPSILON)
        assert np.allclose(made.input_db, stored.input_db, rtol=0, atol=1e-4)
        assert _metadata(replace(made, input_db=stored.input_db)) == _metadata(stored)
    checks.floats("audio", lambda: dac_chunks.decompress(codec, stored)[0][0])


def _metadata(file: DacFile) -> Mapping[str, Any]:
    """As the manifest gives it."""
    return {
        "chunk_length": file.chunk_length, "original_length": file.original_length,
        "channels": file.channels, "sample_rate": file.sample_rate_hz, "padding": file.padding,
        "input_db": file.input_db.tolist(), "dac_version": "1.0.0",
    }  # fmt: skip


def margins(codec: Dac, latents: Tensor, codes: Tensor) -> Tensor:
    """[B, K, T] how decisive each code was: the second smallest distance less the chosen one's.

    In float64, each level's residual being what the given codes of the levels before left over.
    """
    residual, found = latents.double(), []
    for level, row in zip(codec.quantizer.levels, codes.unbind(1), strict=False):
        words = level.codebook.double()
        projected = _linear(level.in_proj, residual)
        unit = torch.nn.functional.normalize(projected, dim=1)
        distance = 2 - 2 * torch.nn.functional.normalize(words, dim=1) @ unit  # [B, N, T]
        chosen = row[:, None]
        own = distance.gather(1, chosen)[:, 0]
        found.append(distance.scatter(1, chosen, float("inf")).amin(1) - own)
        residual = residual - _linear(level.out_proj, words[row].transpose(1, 2))
    return torch.stack(found, dim=1)


def _linear(conv: Any, x: Tensor) -> Tensor:
    y: Tensor = conv.weight[..., 0].double() @ x + conv.bias.double()[:, None]
    return y
