"""Lyra packets: upstream's bytes both ways."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcodec.errors import FormatError
from fastcodec.io.lyra_packets import PACKET_BYTES, pack_lyra, read_lyra, unpack_lyra, write_lyra


def test_the_first_quantizer_is_in_the_high_half() -> None:
    codes = np.zeros((16, 2), np.int64)
    codes[0], codes[1], codes[15] = 6, 4, 15
    data = pack_lyra(codes)
    assert data.hex() == "640000000000000f" * 2


@settings(deadline=None)
@given(st.sampled_from(sorted(PACKET_BYTES)), st.integers(1, 300), st.booleans())
def test_any_codes_return(n_sent: int, frames: int, with_absent: bool) -> None:
    codes = np.full((46, frames), -1)
    codes[:n_sent] = np.random.default_rng(frames).integers(0, 16, (n_sent, frames))
    data = pack_lyra(codes if with_absent else codes[:n_sent])
    assert len(data) == frames * PACKET_BYTES[n_sent]
    np.testing.assert_array_equal(unpack_lyra(data, n_sent), codes)
    for cut in (1, 7):
        with pytest.raises(FormatError):
            unpack_lyra(data[:-cut], n_sent)


def test_golden_packets(golden: Any) -> None:
    for name in ("packets_3_2kbps", "packets_6_0kbps", "packets_9_2kbps"):
        for case in golden.with_array(name):
            arrays = golden.arrays(case)
            data = arrays[name].tobytes()
            codes = unpack_lyra(data, n_sent := _codebooks(data, arrays["codes"].shape[1]))
            np.testing.assert_array_equal(codes[:n_sent], arrays["codes"][:n_sent], err_msg=case)
            assert (codes[n_sent:] == -1).all() and pack_lyra(codes) == data


def _codebooks(data: bytes, frames: int) -> int:
    return next(n for n, size in PACKET_BYTES.items() if size * frames == len(data))


@pytest.mark.parametrize("bits", [64, 120, 184])
def test_codes_of_the_reference_runs(shared: Path, bits: int) -> None:
    for generation in ("float32", "int8"):
        path = shared / f"data/lyra_v2/{generation}/reference_{bits}bits.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        codes = np.load(path)["codes"].T.astype(np.int64)
        data = pack_lyra(codes)
        assert len(data) * 8 == bits * codes.shape[1]
        np.testing.assert_array_equal(unpack_lyra(data, bits // 4), codes)


@pytest.mark.parametrize("name", ["one_encoded_packet_16khz", "two_encoded_packets_16khz"])
def test_upstreams_own_files(shared: Path, name: str, tmp_path: Path) -> None:
    path = shared / f"data/lyra_v2/{name}.lyra"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    # Their sizes fit 3.2 kbps only.
    codes = read_lyra(path)
    assert codes.shape == (46, path.stat().st_size // 8)
    assert codes[:3, 0].tolist() == [6, 4, 0]
    copy = tmp_path / "copy.lyra"
    write_lyra(codes, copy)
    assert copy.read_bytes() == path.read_bytes()
    assert list(tmp_path.iterdir()) == [copy]


def test_the_rate_is_inferred_where_only_one_fits() -> None:
    for n_sent, size in PACKET_BYTES.items():
        codes = unpack_lyra(bytes(7 * size))
        assert (codes[:n_sent] == 0).all() and (codes[n_sent:] == -1).all()
    for n_bytes, reason in ((120, "16 or 30"), (8 * 15 * 23, "16 or 30 or 46"), (7, "no rate")):
        with pytest.raises(FormatError, match=reason):
            unpack_lyra(bytes(n_bytes))
    assert unpack_lyra(bytes(120), 30).shape == (46, 8)


def test_empty_files() -> None:
    for n_sent in (None, 16):
        with pytest.raises(FormatError):
            read_lyra(io.BytesIO(b""), n_sent)


def test_codes_that_no_packet_holds() -> None:
    good = np.zeros((16, 3), np.int64)
    for bad in (good[:15], np.zeros((47, 3), np.int64), good[0], good + 16, good - 2):
        with pytest.raises(ValueError, match="pack_lyra"):
            pack_lyra(bad)
    holed = good.copy()
    holed[3, 1] = -1
    with pytest.raises(ValueError, match="pack_lyra"):
        pack_lyra(holed)
    with pytest.raises(ValueError, match="one of"):
        unpack_lyra(bytes(8), 17)
