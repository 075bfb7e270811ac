"""Arithmetic coder and quantised distributions: upstream's numbers, bit for bit."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcodec import _host
from fastcodec.errors import FormatError

FOUR = np.array([0.5, 0.25, 0.125, 0.125], np.float32)


def _encode(symbols: np.ndarray, cdf: np.ndarray) -> bytes:
    encoder = _host.ArithmeticEncoder()
    encoder.push(symbols, cdf)
    return encoder.finish()


def _reference_encode(symbols: list[int], rows: np.ndarray) -> bytes:
    """The bounds as upstream computes them: in float64, on unbounded integers."""
    low, high, max_bit, bits = 0, 0, -1, []
    for symbol, row in zip(symbols, rows.tolist(), strict=True):
        while high - low + 1 < 1 << 24:
            low, high, max_bit = 2 * low, 2 * high + 1, max_bit + 1
        ratio = (high - low + 1) / (1 << 24)
        begin = row[symbol - 1] if symbol else 0
        high = low + math.floor((row[symbol] - 1) * ratio)
        low = low + math.ceil(begin * ratio)
        while max_bit >= 0 and low >> max_bit == high >> max_bit:
            bits.append(low >> max_bit)
            low, high = low - (bits[-1] << max_bit), high - (bits[-1] << max_bit)
            max_bit -= 1
    bits += [(low >> bit) & 1 for bit in range(max_bit, -1, -1)]
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def _torch_cdf(pdf: np.ndarray) -> np.ndarray:
    """Upstream's operations, in torch, with scalars that torch rounds to float32."""
    p = torch.from_numpy(pdf)
    p = (p / 1e-8).floor() * 1e-8
    alpha = 2 * len(pdf) / 2**24
    return (((1 - alpha) * 2**24 * p).floor().long() + 2).cumsum(0).numpy()


def test_upstreams_bytes() -> None:
    cdf = _host.quantized_cdf(FOUR)
    assert cdf.tolist() == [8388606, 12582910, 14680063, 16777216]
    symbols = np.array([0, 1, 2, 3, 3, 0, 0, 1])
    rows = np.repeat(cdf[None], len(symbols), 0)
    data = _encode(symbols, rows)
    assert data.hex() == "da8fbf7468"
    decoder = _host.ArithmeticDecoder(data)
    np.testing.assert_array_equal(decoder.pull(rows), symbols)
    assert decoder.bytes_read == len(data)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(0, 80), st.floats(0.1, 12))
def test_any_sequence_returns(seed: int, size: int, count: int, peak: float) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, peak, (count, size))).float()
    cdf = _host.quantized_cdf(torch.softmax(logits, 1).numpy(), fit_total=True)
    symbols = rng.integers(0, size, count)
    data = _encode(symbols, cdf)
    assert data == _reference_encode(symbols.tolist(), cdf)
    decoder = _host.ArithmeticDecoder(data + b"\x55\xaa")
    np.testing.assert_array_equal(decoder.pull(cdf), symbols)
    assert decoder.bytes_read == len(data)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2048), st.floats(0.01, 40))
def test_counts_are_torchs(seed: int, size: int, peak: float) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, peak, size)).float()
    pdf = torch.softmax(logits, 0).numpy()
    np.testing.assert_array_equal(_host.quantized_cdf(pdf), _torch_cdf(pdf))
    fitted = _host.quantized_cdf(pdf, fit_total=True)
    assert fitted[-1] <= 1 << 24
    assert min(b - a for a, b in pairwise([0, *fitted.tolist()])) >= 2


def test_a_total_above_the_range_is_taken_from_the_widest() -> None:
    pdf = np.full(5, 6e-8, np.float32)
    pdf[2] = 1
    plain, fitted = _host.quantized_cdf(pdf), _host.quantized_cdf(pdf, fit_total=True)
    excess = plain[-1] - (1 << 24)
    assert excess > 0
    assert (plain - fitted).tolist() == [0, 0, excess, excess, excess]
    with pytest.raises(ValueError, match="counts"):
        _encode(np.array([4]), plain[None])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.5])
def test_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match="probabilities must be"):
        _host.quantized_cdf(np.array([0.5, bad], np.float32))
    with pytest.raises(ValueError, match="more than 1"):
        _host.quantized_cdf(np.ones(1024, np.float32))


def test_golden_rows(golden: Any) -> None:
    for case in golden.with_array("cdf"):
        arrays = golden.arrays(case)
        pdf = arrays["pdf"][[0, -1]].transpose(0, 2, 1)
        rows = _host.quantized_cdf(pdf).reshape(-1, pdf.shape[-1])
        np.testing.assert_array_equal(rows, arrays["cdf"], err_msg=case)


def test_truncated_and_impossible_streams() -> None:
    rows = np.repeat(_host.quantized_cdf(FOUR)[None], 8, 0)
    data = _encode(np.array([0, 1, 2, 3, 3, 0, 0, 1]), rows)
    for size in range(len(data)):
        with pytest.raises(FormatError, match="too early"):
            _host.ArithmeticDecoder(data[:size]).pull(rows)
    gap = np.array([[10, 20]])
    with pytest.raises(FormatError, match="no symbol"):
        _host.ArithmeticDecoder(b"\xff" * 8).pull(gap)


def test_bad_arguments() -> None:
    row = _host.quantized_cdf(FOUR)[None]
    for symbol in (-1, 4):
        with pytest.raises(ValueError, match="symbols must be"):
            _encode(np.array([symbol]), row)
    with pytest.raises(ValueError, match="one for each row"):
        _encode(np.array([0, 0]), row)
    with pytest.raises(ValueError, match="cdf must be"):
        _host.ArithmeticDecoder(b"").pull(row[0])


def test_cpu_report_names_the_processor() -> None:
    report = _host.cpu_report()
    assert isinstance(report.pop("brand"), str)
    assert all(isinstance(usable, bool) for usable in report.values())
    assert not report or {"avx2", "fma", "avx512f", "avx512_bf16", "amx_tile"} <= report.keys()
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert report["avx2"] and report["fma"]
