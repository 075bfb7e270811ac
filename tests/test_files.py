"""Codes files: whichever format, what is read is what was saved, and errors name the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fastcodec.codes import Codes
from fastcodec.errors import FormatError, WeightsError
from fastcodec.files import kbps_of, read_codes, save_codes

SEGMENT, STRIDE = 48_000, 47_520


def _codes(codec: str, n_codebooks: int, n_samples: int, batch: int = 1) -> Codes:
    """Random codes of the shape that the codec gives for a signal of ``n_samples``."""
    make = torch.Generator().manual_seed(n_samples)
    rate_hz, hop, size = {
        "encodec_24khz": (75.0, 320, 1024),
        "encodec_48khz": (150.0, 320, 1024),
        "lyra_v2": (50.0, 320, 16),
    }[codec]
    lengths, scale = [n_samples], None
    if codec == "encodec_48khz":
        lengths = [min(SEGMENT, n_samples - start) for start in range(0, n_samples, STRIDE)]
        scale = torch.rand(batch, len(lengths), generator=make)
    frames = sum(-(-length // hop) for length in lengths)
    tokens = torch.randint(size, (batch, n_codebooks, frames), generator=make)
    return Codes(tokens, rate_hz, torch.full((batch,), n_samples), codec, scale)


def _assert_same(a: Codes, b: Codes) -> None:
    assert (a.frame_rate_hz, a.codec) == (b.frame_rate_hz, b.codec)
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.n_samples, b.n_samples)
    assert (a.scale is None) == (b.scale is None)
    assert a.scale is None or torch.equal(a.scale, b.scale)


@pytest.mark.parametrize("n_samples", [1, 320, 321, 48_000, 100_001])
@pytest.mark.parametrize("codec", ["encodec_24khz", "encodec_48khz"])
def test_ecdc_round_trip(tmp_path: Path, codec: str, n_samples: int) -> None:
    codes = _codes(codec, 8, n_samples)
    save_codes(codes, tmp_path / "a.ecdc")
    assert (tmp_path / "a.ecdc").read_bytes()[:4] == b"ECDC"
    _assert_same(read_codes(tmp_path / "a.ecdc"), codes)


@pytest.mark.parametrize("n_codebooks", [16, 30, 46])
def test_lyra_round_trip_is_exact_for_whole_frames(tmp_path: Path, n_codebooks: int) -> None:
    codes = _codes("lyra_v2", n_codebooks, 7 * 320)
    save_codes(codes, tmp_path / "a.lyra")
    assert (tmp_path / "a.lyra").stat().st_size == 7 * n_codebooks // 2
    _assert_same(read_codes(tmp_path / "a.lyra", n_codebooks=n_codebooks), codes)


@pytest.mark.parametrize("codec, batch", [("lyra_v2", 3), ("encodec_48khz", 2)])
def test_safetensors_round_trip(tmp_path: Path, codec: str, batch: int) -> None:
    codes = _codes(codec, 5, 50_000, batch)
    save_codes(codes, tmp_path / "a.safetensors")
    _assert_same(read_codes(tmp_path / "a.safetensors"), codes)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    codes = _codes("encodec_24khz", 4, 1000)
    for suffix in (".ecdc", ".safetensors"):
        save_codes(codes, tmp_path / f"a{suffix}")
        os.rename(tmp_path / f"a{suffix}", tmp_path / "a.bin")
        _assert_same(read_codes(tmp_path / "a.bin"), codes)


def test_the_preset_can_be_named(tmp_path: Path) -> None:
    save_codes(_codes("lyra_v2", 16, 7 * 320), tmp_path / "a.lyra")
    assert read_codes(tmp_path / "a.lyra", codec="lyra_v2_int8").codec == "lyra_v2_int8"


@pytest.mark.parametrize(
    "codec, n_codebooks, batch, name, reason",
    [
        ("encodec_24khz", 8, 1, "a.xyz", r"a\.xyz.*\.safetensors"),
        ("encodec_24khz", 8, 1, "a.lyra", "of Lyra, not of encodec_24khz"),
        ("lyra_v2", 16, 2, "a.lyra", "one signal, got a batch of 2"),
        ("lyra_v2", 17, 1, "a.lyra", "17"),
        ("lyra_v2", 16, 1, "a.ecdc", "encodec_48khz, not of lyra_v2"),
        ("encodec_24khz", 8, 2, "a.ecdc", "one signal, got a batch of 2"),
    ],
)
def test_what_a_format_cannot_hold(
    tmp_path: Path, codec: str, n_codebooks: int, batch: int, name: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        save_codes(_codes(codec, n_codebooks, 3200, batch), tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.ecdc", "a.lyra", "a.safetensors"])
def test_every_truncation_is_a_format_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    codec = "lyra_v2" if name == "a.lyra" else "encodec_24khz"
    save_codes(_codes(codec, 16, 3200), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for size in range(len(data)):
        if name == "a.lyra" and size and size % 8 == 0:
            continue  # a whole number of packets is a shorter file, not a broken one
        (tmp_path / name).write_bytes(data[:size])
        with pytest.raises(FormatError, match=name):
            read_codes(tmp_path / name, n_codebooks=16)


def test_files_that_are_not_codes(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF1234WAVE")
    with pytest.raises(FormatError, match=r"a\.wav: not a codes file"):
        read_codes(tmp_path / "a.wav")
    with pytest.raises(FileNotFoundError, match=r"gone\.ecdc"):
        read_codes(tmp_path / "gone.ecdc")


def test_entropy_coding_needs_the_language_model(tmp_path: Path) -> None:
    codes = _codes("encodec_24khz", 2, 3200)
    with pytest.raises(ValueError, match=r"only \.ecdc"):
        save_codes(codes, tmp_path / "a.safetensors", lm={})
    with pytest.raises(WeightsError):
        save_codes(codes, tmp_path / "a.ecdc", lm={"x": torch.ones(1)})
    assert os.listdir(tmp_path) == []


def test_entropy_coded_round_trip(tmp_path: Path) -> None:
    from fastcodec.codecs.encodec_lm import EntropyLM

    torch.manual_seed(0)
    torch.save(EntropyLM().state_dict(), tmp_path / "lm.th")
    codes = _codes("encodec_24khz", 2, 3200)
    save_codes(codes, tmp_path / "a.ecdc", lm=tmp_path / "lm.th")
    _assert_same(read_codes(tmp_path / "a.ecdc", lm=tmp_path / "lm.th"), codes)
    with pytest.raises(ValueError, match=r"a\.ecdc: is entropy-coded.*--lm"):
        read_codes(tmp_path / "a.ecdc")


def test_kbps() -> None:
    assert kbps_of(_codes("encodec_24khz", 8, 320), 1024) == 6.0
    assert kbps_of(_codes("lyra_v2", 46, 320), 16) == pytest.approx(9.2)
