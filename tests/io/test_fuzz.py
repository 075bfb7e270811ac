"""More than 100 000 damaged files: only ``FormatError`` comes out, and no reader takes 100 MB."""

from __future__ import annotations

import functools
import pickle
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcodec.codecs import encodec_lm
from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.io import inert_pickle
from fastcodec.io.codes_file import load_codes, save_codes
from fastcodec.io.ecdc import EcdcFile, Segment, read_ecdc, write_ecdc
from fastcodec.io.ecdc_header import LAYOUTS, EcdcHeader
from fastcodec.io.entropy import ProbabilityModel
from fastcodec.io.funcodec_txt import read_codecs_txt, write_codecs_txt
from fastcodec.io.lyra_packets import pack_lyra, read_lyra

LIMIT_BYTES = 100 << 20
# What damages headers most: sign bits, extremes, digits and brackets of JSON.
BYTES = b"\x00\x01\x7f\x80\xff0189-+.eE\"'{}[],: truefalsn"
NUMBERS = ["0", "-1", "1", "33", "47521", "2147483648", "9" * 18, "9" * 30, "1e9", "NaN", "[]"]


def _mutate(rng: random.Random, files: list[bytes]) -> bytes:
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(9)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(BYTES)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 5:
            data += rng.randbytes(rng.randrange(1, 40))
        elif kind == 6:
            other = rng.choice(files)
            data[at:] = other[rng.randrange(len(other)) :]
        elif kind == 7:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))
        else:
            _replace_number(rng, data)
    return bytes(data)


def _replace_number(rng: random.Random, data: bytearray) -> None:
    digits = [i for i, byte in enumerate(data[:400]) if 48 <= byte <= 57]
    if digits:
        begin = end = rng.choice(digits)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[begin:end] = rng.choice(NUMBERS).encode()


@contextmanager
def _memory_limit(traced: bool = True) -> Iterator[None]:
    """Peaks of what Python and NumPy allocate (``traced``: slow), and of what the process as a
    whole occupies.
    """
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before = _kilobytes(status, "VmRSS")
    except (OSError, StopIteration):
        before = None
    if traced:
        tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LIMIT_BYTES
    finally:
        tracemalloc.stop()
    if before is not None:
        assert (_kilobytes(status, "VmHWM") - before) * 1024 < LIMIT_BYTES


def _kilobytes(status: Path, name: str) -> int:
    return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith(name))


def _attack(read: Callable[[bytes], object], files: list[bytes], count: int) -> None:
    for file in files:
        read(file)
    rng = random.Random(count)
    refused = 0
    with _memory_limit():
        for index in range(count):
            data = _mutate(rng, files)
            try:
                read(data)
            except FormatError:
                refused += 1
            except BaseException as error:  # the file that did it belongs into the report
                pytest.fail(f"file {index}, {data!r}: {type(error).__name__}: {error}")
    assert refused > count // 4


def _ecdc_file(model: str, n_samples: int, n_codebooks: int, uses_lm: bool) -> EcdcFile:
    rng = np.random.default_rng(n_samples)
    layout = LAYOUTS[model]
    segments = [
        Segment(rng.integers(0, 1024, (n_codebooks, t)), 0.5 if layout.has_scale else None)
        for t in layout.frames(n_samples)
    ]
    return EcdcFile(model, n_samples, n_codebooks, uses_lm, segments)


@functools.cache
def _lm(model: str) -> encodec_lm.EntropyLM:
    torch.manual_seed(2)
    return encodec_lm.EntropyLM(LAYOUTS[model].max_codebooks, 4, features=8, layers=1).eval()


@functools.cache
def _compiled(model: str) -> ProbabilityModel:
    return encodec_lm.entropy_model(_lm(model).state_dict(), 4)


def _model(header: EcdcHeader) -> ProbabilityModel:
    """As ``encodec_lm.probability_model`` chooses, with a network of milliseconds."""
    compiled = _compiled(header.model)
    if header.probability_model is None:
        return encodec_lm.TorchProbabilities(_lm(header.model))
    if header.probability_model != compiled.name:
        raise FormatError(f"unknown probability model {header.probability_model}")
    return compiled


def test_ecdc() -> None:
    sizes = [("encodec_24khz", 1, 2), ("encodec_24khz", 3000, 8), ("encodec_48khz", 48_000, 2)]
    files = [write_ecdc(_ecdc_file(*size, uses_lm=False)) for size in sizes]
    _attack(lambda data: read_ecdc(data, _model), files, 40_000)


def test_ecdc_with_the_language_model() -> None:
    files = [
        write_ecdc(_ecdc_file(name, n_samples, 2, uses_lm=True), model=_compiled(name))
        for name, n_samples in (
            ("encodec_24khz", 1),
            ("encodec_24khz", 1600),
            ("encodec_48khz", 700),
        )
    ]
    _attack(lambda data: read_ecdc(data, _model), files, 12_000)


def test_upstreams_ecdc_with_the_language_model() -> None:
    file = _ecdc_file("encodec_48khz", 700, 2, uses_lm=True)
    files = [write_ecdc(file, model=encodec_lm.TorchProbabilities(_lm("encodec_48khz")))]
    _attack(lambda data: read_ecdc(data, _model), files, 150)


@pytest.mark.parametrize("n_codebooks", [None, 16, 30, 46])
def test_lyra(n_codebooks: int | None) -> None:
    rng = np.random.default_rng(0)
    sent = [16, 30, 46] if n_codebooks is None else [n_codebooks]
    files = [pack_lyra(rng.integers(0, 16, (n, 7))) for n in sent]
    _attack(lambda data: read_lyra(data, n_codebooks), files, 5_000)


def test_codes_file() -> None:
    tokens = torch.randint(-1, 1024, (2, 4, 9))
    n_samples = torch.tensor([3000, 2500])
    files = [
        save_codes(Codes(tokens, 75.0, n_samples, "encodec_24khz")),
        save_codes(Codes(tokens + 60_000, 75.0, n_samples, "wide", torch.rand(2, 1))),
        save_codes(Codes(tokens, 75.0, n_samples, "snac_24khz", hop=512, hold=(4, 2, 2, 1))),
        save_codes(Codes(tokens, 75.0, n_samples, "x", torch.rand(2, 3), hop=512, segment=1024)),
    ]
    _attack(load_codes, files, 30_000)


def test_funcodecs_text() -> None:
    tokens = torch.randint(0, 1024, (3, 5))
    files = [write_codecs_txt({"a": tokens, "b_2": tokens[:1]}), write_codecs_txt({"c": tokens})]
    _attack(read_codecs_txt, files, 20_000)


def test_inert_pickles() -> None:
    value = {"a": [1, -2, 2.5, "text", None, True], "b": (1, 2, 3, 4), "c": {"d": b"bytes"}}
    _attack(inert_pickle.read, [pickle.dumps(value, protocol=p) for p in (3, 4, 5)], 20_000)
