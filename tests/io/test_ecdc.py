"""`.ecdc`: upstream's bytes both ways, and files that no encoder has written."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcodec.codecs import encodec_lm
from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.io.ecdc import EcdcFile, Segment, read_ecdc, read_ecdc_header, write_ecdc
from fastcodec.io.ecdc_header import LAYOUTS, EcdcHeader
from fastcodec.io.entropy import ProbabilityModel


def _file(model: str, n_samples: int, n_codebooks: int, uses_lm: bool = False) -> EcdcFile:
    rng = np.random.default_rng(n_samples)
    layout = LAYOUTS[model]
    segments = [
        Segment(
            rng.integers(0, 1024, (n_codebooks, frames)),
            float(np.float32(rng.random())) if layout.has_scale else None,
        )
        for frames in layout.frames(n_samples)
    ]
    return EcdcFile(model, n_samples, n_codebooks, uses_lm, segments)


def _same(a: EcdcFile, b: EcdcFile) -> None:
    assert replace(a, segments=[], probability_model=None) == replace(
        b, segments=[], probability_model=None
    )
    assert [s.scale for s in a.segments] == [s.scale for s in b.segments]
    for one, other in zip(a.segments, b.segments, strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)


def _small_lm(model: str) -> encodec_lm.EntropyLM:
    torch.manual_seed(1)
    return encodec_lm.EntropyLM(LAYOUTS[model].max_codebooks, 6, features=8, layers=1)


def _compiled(header: EcdcHeader) -> ProbabilityModel:
    return encodec_lm.entropy_model(_small_lm(header.model).state_dict(), 6)


def test_header_bytes() -> None:
    data = write_ecdc(_file("encodec_24khz", 24000, 8))
    text = b'{"m": "encodec_24khz", "al": 24000, "nc": 8, "lm": false}'
    assert data.startswith(b"ECDC\x00\x00\x00\x00\x39" + text)
    assert read_ecdc_header(data) == EcdcHeader("encodec_24khz", 24000, 8, False)


@pytest.mark.parametrize("n_samples", [1, 319, 320, 321, 6720, 13440, 240000])
def test_frames_are_rounded_up_exactly(n_samples: int) -> None:
    assert list(LAYOUTS["encodec_24khz"].frames(n_samples)) == [-(-n_samples // 320)]
    frames = list(LAYOUTS["encodec_48khz"].frames(n_samples))
    starts = range(0, n_samples, 47520)
    assert frames == [-(-min(48000, n_samples - start) // 320) for start in starts]


def test_golden_bytes_both_ways(golden: Any) -> None:
    for case in golden.with_array("ecdc"):
        entry, arrays = golden.cases[case], golden.arrays(case)
        data = arrays["ecdc"].tobytes()
        file = read_ecdc(data)
        assert file.model == entry["config"]["model"]
        assert file.n_samples == entry["arrays"]["input"]["shape"][-1]
        codes = file.to_codes()
        np.testing.assert_array_equal(codes.tokens[0], arrays["codes"], err_msg=case)
        assert [s.codes.shape[1] for s in file.segments] == entry["segment_frames"]
        if "scales" in arrays:
            np.testing.assert_array_equal(codes.scale[0], arrays["scales"])
        assert write_ecdc(EcdcFile.from_codes(codes)) == data


def test_golden_codes_survive_the_language_model(golden: Any) -> None:
    """Written with one thread, read with two; other bytes than upstream's, the same codes."""
    threads = torch.get_num_threads()
    for case in golden.with_array("ecdc_lm"):
        entry, arrays = golden.cases[case], golden.arrays(case)
        state = {k: torch.from_numpy(v) for k, v in golden.state(case, "lm:").items()}
        past_frames = entry["config"]["lm"]["past_context"]

        def model(header: EcdcHeader, state: Any = state) -> ProbabilityModel:
            return encodec_lm.probability_model(header.model, state, header.probability_model)

        plain = read_ecdc(arrays["ecdc"].tobytes())
        try:
            torch.set_num_threads(1)
            compiled = encodec_lm.entropy_model(state, past_frames)
            data = write_ecdc(replace(plain, uses_lm=True), model=compiled)
            torch.set_num_threads(2)
            _same(read_ecdc(data, model), replace(plain, uses_lm=True))
        finally:
            torch.set_num_threads(threads)
        header = read_ecdc_header(data)
        assert header.probability_model == "fastcodec-1"
        # The same entropy, whatever the last bits: the header's mark aside, within some bytes.
        assert abs(len(data) - 40 - len(arrays["ecdc_lm"])) < 16


def test_upstreams_entropy_coded_files_as_far_as_torch_allows(golden: Any) -> None:
    """They return where torch's probabilities are the writer's bits; elsewhere they are refused, or
    give codes of the right shape: nothing in such a file tells."""
    for case in golden.with_array("ecdc_lm"):
        arrays = golden.arrays(case)
        state = {k: torch.from_numpy(v) for k, v in golden.state(case, "lm:").items()}
        model = encodec_lm.probability_model(golden.cases[case]["config"]["model"], state, None)
        step, previous, same_bits = model.start(arrays["codes"].shape[0]), None, True
        for pdf, frame in zip(arrays["pdf"], arrays["codes"].T.astype(np.int64), strict=False):
            same_bits = same_bits and np.array_equal(step(previous), pdf.T)
            previous = frame
        try:
            tokens = _read_with(model, arrays["ecdc_lm"].tobytes()).to_codes().tokens[0]
        except FormatError:
            assert not same_bits, f"{case}: refused although the probabilities are upstream's"
            continue
        assert tokens.shape == arrays["codes"].shape
        if same_bits:
            np.testing.assert_array_equal(tokens, arrays["codes"])


def _read_with(model: ProbabilityModel, data: bytes) -> EcdcFile:
    return read_ecdc(data, lambda header: model)


@settings(deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 150_000), st.integers(1, 16), st.booleans())
def test_any_file_returns(model: str, n_samples: int, n_codebooks: int, to_codes: bool) -> None:
    file = _file(model, n_samples, n_codebooks)
    if to_codes:
        file = EcdcFile.from_codes(file.to_codes("a preset"), model=model)
    data = write_ecdc(file)
    _same(read_ecdc(data), file)
    with pytest.raises(FormatError):
        read_ecdc(data[:-1])
    with pytest.raises(FormatError):
        read_ecdc(data + b"\0")


@pytest.mark.parametrize("model", sorted(LAYOUTS))
@pytest.mark.parametrize(
    ("n_samples", "by_torch"), [(1, False), (700, False), (47_600, False), (1, True), (700, True)]
)
def test_entropy_coded_files_return(model: str, n_samples: int, by_torch: bool) -> None:
    file = _file(model, n_samples, 2, uses_lm=True)
    torch_model = encodec_lm.TorchProbabilities(_small_lm(model))
    coder = torch_model if by_torch else _compiled(EcdcHeader(model, n_samples, 2, True))
    data = write_ecdc(file, model=coder)
    # A file by torch's probabilities carries upstream's four keys and no others.
    keys = json.loads(data[9 : 9 + data[8]]).keys()
    assert list(keys) == ["m", "al", "nc", "lm"] + ([] if by_torch else ["pm", "crc"])
    read = read_ecdc(data, lambda _: coder)
    _same(read, file)
    assert read.probability_model == coder.name


def test_a_corrupted_entropy_coded_file_never_gives_other_codes() -> None:
    file = _file("encodec_24khz", 3000, 2, uses_lm=True)
    coder = _compiled(EcdcHeader("encodec_24khz", 3000, 2, True))
    data = bytearray(write_ecdc(file, model=coder))
    for position in range(len(data) - 12, len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            try:
                # Padding and the tail of the interval may take any value.
                _same(read_ecdc(bytes(data), lambda _: coder), file)
            except FormatError:
                pass
            data[position] ^= 1 << bit


def test_an_unknown_probability_model() -> None:
    torch.manual_seed(0)
    lm = encodec_lm.EntropyLM(16, 525)
    with pytest.raises(FormatError, match="fastcodec-9"):
        encodec_lm.probability_model("encodec_48khz", lm.state_dict(), "fastcodec-9")


def test_path_bytes_and_open_file(tmp_path: Path) -> None:
    file = _file("encodec_48khz", 50_000, 4)
    path = tmp_path / "speech.ecdc"
    data = write_ecdc(file, path)
    stream = io.BytesIO()
    write_ecdc(file, stream)
    assert path.read_bytes() == data == stream.getvalue()
    assert list(tmp_path.iterdir()) == [path]
    stream.seek(0)
    for source in (path, str(path), data, bytearray(data), memoryview(data), stream):
        _same(read_ecdc(source), file)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "speech.ecdc"
    path.write_bytes(b"old")
    file = _file("encodec_24khz", 640, 2)
    file.segments[0].codes[0, 0] = 1024
    with pytest.raises(ValueError, match="1024"):
        write_ecdc(file, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def _with_header(text: bytes, body: bytes = bytes(5)) -> bytes:
    return struct.pack("!4sBI", b"ECDC", 0, len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ECDC\0",
        b"RIFF" + bytes(50),
        b"ECDC\1" + bytes(50),
        b"ECDC\0\xff\xff\xff\xff{}",
        _with_header(b"\xff\xfe"),
        _with_header(b"[" * 60_000),
        _with_header(b"[]"),
        _with_header(b'{"m": "encodec_24khz", "al": 320, "nc": 2}'),
        _with_header(b'{"m": [], "al": 320, "nc": 2, "lm": false}'),
        _with_header(b'{"m": "mp3", "al": 320, "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": 0, "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": NaN, "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": true, "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": 1e300, "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": ' + b"9" * 5000 + b', "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": 4' + b"0" * 18 + b', "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_48khz", "al": 4' + b"0" * 18 + b', "nc": 2, "lm": false}'),
        _with_header(b'{"m": "encodec_48khz", "al": 4' + b"0" * 18 + b', "nc": 2, "lm": true}'),
        _with_header(b'{"m": "encodec_24khz", "al": 4' + b"0" * 18 + b', "nc": 2, "lm": true}'),
        _with_header(b'{"m": "encodec_24khz", "al": 320, "nc": 33, "lm": false}'),
        _with_header(b'{"m": "encodec_24khz", "al": 320, "nc": 2, "lm": 1}'),
        _with_header(b'{"m": "encodec_24khz", "al": 320, "nc": 2, "lm": true, "pm": 7}'),
        _with_header(b'{"m": "encodec_24khz", "al": 320, "nc": 2, "lm": true, "pm": "x"}'),
        _with_header(b'{"m": "encodec_48khz", "al": 9, "nc": 2, "lm": false}', b"\x7f\xc0\0\0abc"),
        _with_header(b'{"m": "encodec_48khz", "al": 9, "nc": 2, "lm": false}', b"\xbf\x80\0\0abc"),
        _with_header(b'{"m": "encodec_48khz", "al": 9, "nc": 2, "lm": false}', b"\x3f\x80\0"),
    ],
)
def test_bad_files(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_ecdc(data, _compiled)


def test_an_entropy_coded_file_needs_its_model() -> None:
    file = _file("encodec_24khz", 640, 2, uses_lm=True)
    with pytest.raises(ValueError, match="give `model`"):
        write_ecdc(file)
    data = write_ecdc(file, model=_compiled(EcdcHeader("encodec_24khz", 640, 2, True)))
    with pytest.raises(ValueError, match="give `probabilities`"):
        read_ecdc(data)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "mp3"},
        {"n_samples": 0},
        {"n_samples": 641},
        {"n_codebooks": 3},
        {"n_codebooks": 0},
        {"segments": []},
        {"segments": [Segment(np.zeros((2, 3), np.int64))]},
        {"segments": [Segment(np.full((2, 2), -1))]},
        {"segments": [Segment(np.zeros((2, 2), np.int64), 1.0)]},
        {"model": "encodec_48khz"},
        {"model": "encodec_48khz", "segments": [Segment(np.zeros((2, 2), np.int64), np.inf)]},
        {"model": "encodec_48khz", "segments": [Segment(np.zeros((2, 2), np.int64), 1e300)]},
    ],
)
def test_values_that_cannot_be_written(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="write_ecdc"):
        write_ecdc(replace(_file("encodec_24khz", 640, 2), **change))


def test_codes_of_a_batch_are_written_row_by_row() -> None:
    """A short row ends in -1, and its gains in what the batch was padded with."""
    tokens = torch.randint(0, 1024, (2, 4, 151))
    tokens[1, :, 3:] = -1
    scale = torch.rand(2, 2)
    codes = Codes(tokens, 150.0, torch.tensor([47_521, 800]), "encodec_48khz", scale)
    with pytest.raises(ValueError, match="one signal"):
        EcdcFile.from_codes(codes)
    file = EcdcFile.from_codes(codes[1])
    assert [s.codes.shape for s in file.segments] == [(4, 3)]
    again = read_ecdc(write_ecdc(file)).to_codes()
    assert torch.equal(again.tokens, tokens[1:, :, :3]) and again.n_samples.tolist() == [800]
    assert torch.equal(again.scale, scale[1:, :1])
    assert len(EcdcFile.from_codes(codes[0]).segments) == 2
