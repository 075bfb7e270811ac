"""EnCodec's language model, torch and compiled, and the segments that they code."""

from __future__ import annotations

import sys
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from fastcodec import _host
from fastcodec.codecs import encodec_lm
from fastcodec.codecs.encodec_lm import EntropyLM, TorchProbabilities
from fastcodec.errors import BackendError, FormatError, WeightsError
from fastcodec.io import entropy
from fastcodec.io.ecdc_header import parse_header

PAST = 6


def _lm(codebooks: int = 3, features: int = 24, codewords: int = 50, layers: int = 2) -> EntropyLM:
    """Weights from integer arithmetic alone: the same bits on every machine."""
    lm = EntropyLM(codebooks, PAST, codewords, features, layers).eval()
    for index, (name, tensor) in enumerate(lm.state_dict().items()):
        words = np.random.PCG64(index).random_raw(tensor.numel()) >> np.uint64(56)
        values = (words.astype(np.float32) - 127.5) / 512
        if "norm" in name and name.endswith("weight"):
            values += 1
        tensor.copy_(torch.from_numpy(values).view(tensor.shape))
    return lm


def _codes(codebooks: int, frames: int, codewords: int = 50) -> np.ndarray:
    return np.random.default_rng(3).integers(0, codewords, (codebooks, frames))


def _steps(model: entropy.ProbabilityModel, codes: np.ndarray) -> np.ndarray:
    """[T, K, N]"""
    step = model.start(len(codes))
    previous = [None, *codes.T[:-1].copy()]
    return np.stack([step(frame) for frame in previous])


def test_one_call_equals_one_frame_a_call_beyond_the_window() -> None:
    lm, codes = _lm(), _codes(3, 4 * PAST)
    with torch.no_grad():
        whole = lm(torch.from_numpy(codes)[None])[0].permute(2, 1, 0)
    np.testing.assert_allclose(_steps(TorchProbabilities(lm), codes), whole, atol=1e-7)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("codebooks", [1, 2, 3])
def test_the_compiled_model_computes_the_same(codebooks: int) -> None:
    lm, codes = _lm(), _codes(codebooks, 4 * PAST)
    compiled = encodec_lm.entropy_model(lm.state_dict(), PAST)
    expected = _steps(TorchProbabilities(lm), codes)
    np.testing.assert_allclose(_steps(compiled, codes), expected, rtol=3e-6)


def test_the_compiled_model_gives_the_same_bits_everywhere() -> None:
    # A file is lost when one bit changes: another value here needs another EntropyModel::kName.
    compiled = encodec_lm.entropy_model(_lm().state_dict(), PAST)
    assert compiled.name == "fastcodec-1"
    assert zlib.crc32(_steps(compiled, _codes(3, 4 * PAST)).tobytes()) == 0x91FDFCD3


def test_golden_probabilities(golden: Any) -> None:
    for case in golden.with_array("pdf"):
        entry, arrays = golden.cases[case], golden.arrays(case)
        state = {k: torch.from_numpy(v) for k, v in golden.state(case, "lm:").items()}
        lm = encodec_lm.load_lm(entry["config"]["model"], state)
        sizes = entry["config"]["lm"]
        assert lm.transformer.past_frames == sizes["past_context"]
        compiled = encodec_lm.entropy_model(state, sizes["past_context"])
        pdf, one_call = (arrays[name].transpose(0, 2, 1) for name in ("pdf", "pdf_one_call"))
        tolerance = entry.get("tolerance", 1e-4) * np.sqrt(np.mean(pdf.astype(np.float64) ** 2))
        codes = arrays["codes"][:, : len(pdf)].astype(np.int64)
        for model in (TorchProbabilities(lm), compiled):
            assert np.abs(_steps(model, codes) - pdf).max() <= tolerance, case
        with torch.no_grad():
            whole = lm(torch.from_numpy(codes)[None])[0].permute(2, 1, 0).numpy()
        assert np.abs(whole[: len(one_call)] - one_call).max() <= tolerance, case


def test_golden_stream_by_golden_probabilities(golden: Any) -> None:
    """The first frames of upstream's stream, whose probabilities are stored to the last bit."""
    for case in golden.with_array("ecdc_lm"):
        arrays = golden.arrays(case)
        data = arrays["ecdc_lm"].tobytes()
        header, begin = parse_header(data)
        begin += 4 * header.layout.has_scale
        codes = arrays["codes"][:, : len(arrays["pdf"])].T.astype(np.int64)
        encoder, decoder = _host.ArithmeticEncoder(), _host.ArithmeticDecoder(data[begin:])
        for pdf, frame in zip(arrays["pdf"], codes, strict=True):
            counts = _host.quantized_cdf(pdf.T)
            np.testing.assert_array_equal(decoder.pull(counts), frame, err_msg=case)
            encoder.push(frame, counts)
        # The last bits still depend on what follows.
        ours = encoder.finish()[:-8]
        assert ours and data[begin:].startswith(ours), case


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_a_segment_returns(frames: int) -> None:
    lm, codes = _lm(), _codes(2, frames)
    for model in (encodec_lm.entropy_model(lm.state_dict(), PAST), TorchProbabilities(lm)):
        data = entropy.encode_segment(model, codes)
        decoded, size = entropy.decode_segment(model, memoryview(data + b"next"), 2, frames)
        np.testing.assert_array_equal(decoded, codes)
        assert size == len(data)


def test_promises_that_no_stream_can_keep() -> None:
    model = encodec_lm.entropy_model(_lm().state_dict(), PAST)
    with pytest.raises(FormatError, match="cannot fit"):
        entropy.decode_segment(model, memoryview(b"123"), 2, 1 << 50)
    with pytest.raises(FormatError, match="too early"):
        entropy.decode_segment(model, memoryview(b"123"), 2, 1000)


def test_weights_that_do_not_fit() -> None:
    state = {"emb.0.weight": torch.zeros(3, 3), "surplus": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        encodec_lm.load_lm("encodec_48khz", state)
    for name in ("surplus", "emb.0.weight", "emb.15.weight", "transformer.norm_in.bias"):
        assert name in str(error.value)


@pytest.mark.parametrize("broken", ["emb.1.weight", "transformer.layers.1.norm2.bias"])
def test_the_compiled_model_checks_shapes(broken: str) -> None:
    state = dict(_lm().state_dict())
    state[broken] = state[broken][:-1]
    with pytest.raises(ValueError, match=broken):
        encodec_lm.entropy_model(state, PAST)
    state.pop("linears.2.bias")
    with pytest.raises(ValueError, match="no weight|must be"):
        encodec_lm.entropy_model(state, PAST)


def test_the_compiled_model_checks_codes() -> None:
    model = encodec_lm.entropy_model(_lm().state_dict(), PAST)
    with pytest.raises(ValueError, match=r"codebooks must be in \[1, 3\]"):
        model.start(4)
    step = model.start(2)
    for bad in ([0], [0, 50], [-1, 0]):
        with pytest.raises(ValueError, match="codes"):
            step(np.array(bad))


def test_nan_weights_are_an_error() -> None:
    state = {key: tensor * float("nan") for key, tensor in _lm().state_dict().items()}
    model = encodec_lm.entropy_model(state, PAST)
    with pytest.raises(ValueError, match="NaN"):
        entropy.encode_segment(model, _codes(2, 2))


def test_without_the_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastcodec._host", None)
    with pytest.raises(BackendError, match="fastcodec._host"):
        encodec_lm.entropy_model(_lm().state_dict(), PAST)
    with pytest.raises(BackendError, match="fastcodec._host"):
        entropy.encode_segment(TorchProbabilities(_lm()), _codes(2, 2))
