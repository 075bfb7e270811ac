"""Bit packing: upstream's bytes, the same with and without the compiled module."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcodec import _host
from fastcodec.errors import BackendError, FormatError
from fastcodec.io import bits


@pytest.fixture(params=["compiled", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def absent() -> None:
        raise BackendError("not built")

    if request.param == "numpy":
        monkeypatch.setattr(bits, "host", absent)
    return str(request.param)


def test_four_values_of_ten_bits(backend: str) -> None:
    values = np.array([1, 2, 1023, 512])
    packed = bits.pack_bits(values, 10)
    assert packed.hex() == "0108f03f80"
    np.testing.assert_array_equal(bits.unpack_bits(packed, 10, 4), values)


@settings(deadline=None)
@given(st.integers(1, 16), st.data())
def test_both_ways_agree_and_return(width: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.integers(0, (1 << width) - 1), max_size=70)), np.int64)
    packed = bits.pack_bits(values, width)
    assert len(packed) == bits.packed_bytes(len(values), width)
    assert packed == bits._pack(values, width)
    for unpack in (bits.unpack_bits, bits._unpack):
        np.testing.assert_array_equal(unpack(packed, width, len(values)), values)


def test_more_values_than_one_chunk(backend: str) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 5, 3 * bits._CHUNK // 2)
    packed = bits.pack_bits(values, 5)
    np.testing.assert_array_equal(bits.unpack_bits(packed, 5, len(values)), values)


def test_too_few_bytes(backend: str) -> None:
    for count in (5, 1 << 40):
        with pytest.raises(FormatError, match="do not fit"):
            bits.unpack_bits(b"12345", 10, count)
    with pytest.raises(FormatError):
        _host.unpack_bits(b"12345", 10, 1 << 62)


@pytest.mark.parametrize("value", [-1, 1024, 1 << 40])
def test_values_that_need_more_bits(backend: str, value: int) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1023\]"):
        bits.pack_bits(np.array([0, value]), 10)


@pytest.mark.parametrize("width", [0, 17, -3])
def test_impossible_widths(width: int) -> None:
    with pytest.raises(ValueError, match="width"):
        _host.pack_bits(np.array([0]), width)
    with pytest.raises(ValueError, match="width"):
        _host.unpack_bits(b"0", width, 1)
