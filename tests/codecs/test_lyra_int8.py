"""Lyra v1.3's int8 nets give LiteRT's bits, whatever the pushes, the batch or the threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastcodec import ops
from fastcodec.codecs.lyra_int8 import LyraInt8, load_lyra_int8

LYRA = Path("data") / "lyra_v2"
RATES = {64: 16, 120: 30, 184: 46}
GOLDEN = ("lyra_v2_int8_sample1", "lyra_v2_int8_sample2")


@pytest.fixture(scope="module")
def nets(shared: Path) -> LyraInt8:
    return load_lyra_int8(shared / LYRA / "int8")


@pytest.fixture(autouse=True)
def no_grad() -> object:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("bits", RATES)
def test_equals_the_reference(shared: Path, nets: LyraInt8, bits: int) -> None:
    reference = np.load(shared / LYRA / "int8" / f"reference_{bits}bits.npz")
    latents = nets.encoder(_wav(reference["x"]))
    np.testing.assert_array_equal(latents[0].T, reference["latent"])
    codes = ops.rvq_encode(latents, nets.codebooks[: RATES[bits]], None)
    np.testing.assert_array_equal(codes[0].T, reference["codes"][:, : RATES[bits]])
    dequantised = ops.rvq_decode(codes, nets.codebooks)
    np.testing.assert_array_equal(dequantised[0].T, reference["dequant"])
    _assert_same_audio(nets.decoder(dequantised)[0, 0], reference["y"])
