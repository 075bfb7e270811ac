"""fastcodec's codes file: what is read is what was written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy as numpy_io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open as safe_open

from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.io.codes_file import load_codes, save_codes

METADATA = {
    "format": "fastcodec.codes",
    "version": "1",
    "codec": "dac_44khz",
    "frame_rate_hz": "86.1328125",
}


def _codes(b: int, k: int, t: int, codewords: int = 1024, segments: int | None = None) -> Codes:
    generator = torch.Generator().manual_seed(b + 10 * k + 100 * t)
    return Codes(
        torch.randint(-1, codewords, (b, k, t), generator=generator),
        86.1328125,
        torch.randint(0, 1 << 40, (b,), generator=generator),
        "dac_44khz",
        None if segments is None else torch.rand(b, segments, generator=generator),
    )


def _same(a: Codes, b: Codes) -> None:
    assert (a.codec, a.frame_rate_hz) == (b.codec, b.frame_rate_hz)
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.n_samples, b.n_samples)
    assert (a.scale is None) == (b.scale is None)
    assert a.scale is None or torch.equal(a.scale, b.scale)


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 60),
    st.sampled_from([2, 1024, 32768, 65536, 2**20]),
    st.sampled_from([None, 0, 1, 3]),
)
def test_any_codes_return(b: int, k: int, t: int, codewords: int, segments: int | None) -> None:
    codes = _codes(b, k, t, codewords, segments)
    _same(load_codes(save_codes(codes)), codes)


def test_path_bytes_and_open_file(tmp_path: Path) -> None:
    codes, path, stream = _codes(2, 9, 30), tmp_path / "speech.safetensors", io.BytesIO()
    data = save_codes(codes, path)
    save_codes(codes, stream)
    assert path.read_bytes() == data == stream.getvalue()
    assert list(tmp_path.iterdir()) == [path]
    stream.seek(0)
    for source in (path, str(path), data, memoryview(data), stream):
        _same(load_codes(source), codes)


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    codes, path = _codes(2, 9, 30, segments=2), tmp_path / "speech.safetensors"
    data = save_codes(codes, path)
    with safe_open(path, "np") as opened:
        assert opened.metadata() == METADATA
        assert sorted(opened.keys()) == ["n_samples", "scale", "tokens"]
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    assert arrays["tokens"].dtype == np.int16  # 2 bytes a code
    np.testing.assert_array_equal(arrays["tokens"], codes.tokens)
    _same(load_codes(numpy_io.save(arrays, METADATA)), codes)
    assert save_codes(codes) == data


def _arrays(**changes: object) -> dict[str, np.ndarray]:
    arrays = {"tokens": np.zeros((1, 2, 3), np.int16), "n_samples": np.zeros(1, np.int64)}
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


def _raw(shape: list[int], data: bytes = b"") -> bytes:
    """A file whose token shape promises more than its data."""
    entries = {
        "__metadata__": METADATA,
        "tokens": {"dtype": "I16", "shape": shape, "data_offsets": [0, len(data)]},
        "n_samples": {"dtype": "I64", "shape": [0], "data_offsets": [len(data), len(data)]},
    }
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x02" + bytes(7) + b"{}",
        b"\x05" + bytes(7) + b"[[[[[",
        (1 << 62).to_bytes(8, "little") + b"{}",
        (50_000).to_bytes(8, "little") + b"[" * 50_000,
        numpy_io.save(_arrays()),
        numpy_io.save(_arrays(), METADATA | {"format": "another"}),
        numpy_io.save(_arrays(), METADATA | {"version": "2"}),
        numpy_io.save(_arrays(), METADATA | {"frame_rate_hz": "nan"}),
        numpy_io.save(_arrays(), METADATA | {"frame_rate_hz": "-75"}),
        numpy_io.save(_arrays(), METADATA | {"frame_rate_hz": "fast"}),
        numpy_io.save(_arrays(tokens=None), METADATA),
        numpy_io.save(_arrays(n_samples=None), METADATA),
        numpy_io.save(_arrays(surprise=np.zeros(3)), METADATA),
        numpy_io.save(_arrays(tokens=np.zeros((2, 3), np.int16)), METADATA),
        numpy_io.save(_arrays(tokens=np.zeros((1, 2, 3), np.float32)), METADATA),
        numpy_io.save(_arrays(tokens=np.full((1, 2, 3), -2, np.int16)), METADATA),
        numpy_io.save(_arrays(n_samples=np.zeros(2, np.int64)), METADATA),
        numpy_io.save(_arrays(n_samples=np.full(1, -1)), METADATA),
        numpy_io.save(_arrays(scale=np.zeros((2, 1), np.float32)), METADATA),
        numpy_io.save(_arrays(scale=np.full((1, 1), np.nan, np.float32)), METADATA),
        numpy_io.save(_arrays(), METADATA)[:-1],
        numpy_io.save(_arrays(), METADATA) + b"0",
        _raw([1 << 40, 0, 1 << 40]),
        _raw([1 << 30, 0, 1 << 30]),
        _raw([1, 2, 1 << 60], b"12"),
        _raw([1, -1, -1], b"12"),
        _raw([1, True, True], b"12"),
    ],
)
def test_bad_files(data: bytes) -> None:
    with pytest.raises(FormatError, match="codes file"):
        load_codes(data)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_codes(_codes(1, 2, 3), tmp_path / "nowhere" / "speech.safetensors")
    assert not list(tmp_path.iterdir())
