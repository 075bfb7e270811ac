"""The demo: every file it promises is there and true, and its distance is one."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastcodec
from fastcodec import demo, demo_figure, files
from fastcodec.cli import main
from fastcodec.io import audio

from . import tame


@pytest.fixture(scope="module")
def encodec_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """From a preset to the path of a checkpoint with random weights."""
    return functools.partial(tame.encodec_checkpoint, tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _no_weights_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCODEC_WEIGHTS", raising=False)
    monkeypatch.delenv("FASTCODEC_DEBUG", raising=False)


def test_the_clip_is_short_natural_speech_with_its_licence() -> None:
    header = audio.probe(demo.clip_path())
    assert (header.sample_rate_hz, header.channels) == (16_000, 1)
    assert 5 < header.n_samples / header.sample_rate_hz <= 10
    wav, _ = audio.read(demo.clip_path())
    pcm = (wav[0] * 32768).short().numpy().tobytes()
    assert hashlib.sha256(pcm).hexdigest().startswith("86dfca364e95e9bd")
    folder = demo.clip_path().parent
    assert "Carnegie Mellon" in (folder / "speech.LICENSE").read_text()
    assert "LibriVox" in (folder / "README.md").read_text()


def _check_results(
    result: demo.DemoResult, codec: fastcodec.Codec, duration_s: float = 9.34
) -> None:
    info = codec.info
    codes = files.read_codes(result.codes)
    wav, rate_hz = audio.read(result.original)
    decoded, decoded_rate_hz = audio.read(result.decoded)
    assert rate_hz == decoded_rate_hz == info.sample_rate_hz and wav.shape == decoded.shape
    assert result.duration_s == wav.shape[1] / rate_hz == pytest.approx(duration_s)
    assert codes.codec == info.name and codes.n_codebooks == result.n_codebooks
    expected = codec.decode(codes)[0].clamp(-1, 32767 / 32768)
    assert torch.allclose(decoded, expected, rtol=0, atol=1e-4)
    assert result.encode_rtf > 0 and result.decode_rtf > 0
    assert result.log_mel_distance_db == pytest.approx(
        demo.log_mel_distance_db(wav, codec.decode(codes)[0], rate_hz), rel=1e-2
    )
    image = result.figure.read_bytes()
    width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
    assert image[:8] == b"\x89PNG\r\n\x1a\n" and width >= 1200 and height >= 900


def test_demo_with_any_codec(
    tmp_path: Path,
    encodec_checkpoint: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two channels, another rate, a codec that takes its signal whole; on a second of the clip."""
    wav, rate_hz = audio.read(demo.clip_path())
    audio.write(tmp_path / "short.wav", wav[:, :rate_hz], rate_hz)
    monkeypatch.setattr(demo, "clip_path", lambda: tmp_path / "short.wav")
    weights = encodec_checkpoint("encodec_48khz")
    result = demo.run("encodec_48khz", weights, tmp_path / "new" / "out")
    _check_results(result, fastcodec.load("encodec_48khz", weights=weights), duration_s=1.0)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {
        "original.wav", "decoded.wav", "codes.safetensors", "demo.png",
    }  # fmt: skip


def test_demo_with_real_weights(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lyra v2 really codes speech: a decoder that only hums would be far off."""
    weights = shared / "data" / "lyra_v2" / "float32"
    with pytest.raises(SystemExit) as end:
        main(["demo", "--weights", str(weights), "--out", str(tmp_path), "--json"])
    assert not end.value.code
    printed = json.loads(capsys.readouterr().out)
    assert (printed["codec"], printed["n_codebooks"]) == ("lyra_v2", 46)
    assert printed["kbps"] == pytest.approx(9.2)
    codec = fastcodec.load("lyra_v2", weights=weights)
    fields = {name: printed[name] for name in demo.DemoResult.__dataclass_fields__}
    for name in ("original", "decoded", "codes", "figure"):
        fields[name] = Path(fields[name])
    result = demo.DemoResult(**fields)
    _check_results(result, codec)
    wav, rate_hz = audio.read(result.original)
    silence = demo.log_mel_distance_db(wav, torch.zeros_like(wav), rate_hz)
    assert result.log_mel_distance_db < 8 < silence / 2


def test_demo_takes_its_weights_from_the_environment(
    tmp_path: Path,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASTCODEC_WEIGHTS", str(shared / "data" / "lyra_v2" / "float32"))
    with pytest.raises(SystemExit) as end:
        main(["demo", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert not end.value.code and "9.2 kbps" in out and "× real time" in out
    assert "log-mel distance" in out and str(tmp_path / "demo.png") in out


def test_demo_needs_nothing_but_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["demo", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert not end.value.code and "fastcodec_16khz" in out and "4 kbps: 8 codebooks" in out
    assert {path.name for path in tmp_path.iterdir()} == {
        "original.wav", "decoded.wav", "codes.safetensors", "demo.png",
    }  # fmt: skip


def test_log_mel_distance() -> None:
    make = torch.Generator().manual_seed(0)
    wav = torch.randn(2, 24_000, generator=make) / 10
    assert demo.log_mel_distance_db(wav, wav, 24_000) == 0
    # Equally loud everywhere: every band of every frame differs by the gain.
    assert demo.log_mel_distance_db(wav, wav / 2, 24_000) == pytest.approx(6.02, abs=0.02)
    assert demo.log_mel_distance_db(wav, -wav, 24_000) == 0  # phase is not heard by it
    small, large = (
        demo.log_mel_distance_db(wav, wav + noise * torch.randn(wav.shape, generator=make), 24_000)
        for noise in (0.01, 0.1)
    )
    assert 0 < small < large
    floor = demo.log_mel_distance_db(wav, torch.zeros_like(wav), 24_000)
    assert 40 < floor < 80 and demo.log_mel_distance_db(wav * 0, wav * 0, 24_000) == 0
    with pytest.raises(ValueError, match="shapes differ"):
        demo.log_mel_distance_db(wav, wav[:, 1:], 24_000)


def test_mel_bands_cover_the_spectrum() -> None:
    filters = demo._mel_filters(16_000, 1024)
    assert filters.shape == (80, 513) and (filters >= 0).all() and filters.max() <= 1
    assert (filters.sum(dim=1) > 0).all()  # no band falls between two bins
    centres = filters.argmax(dim=1)
    assert (centres.diff() > 0).all()
    assert torch.allclose(
        filters.sum(dim=0)[centres[0] + 1 : centres[-1]], torch.ones(1), atol=1e-5
    )


def test_picture_of_absent_tokens_and_one_codebook(tmp_path: Path) -> None:
    tokens = torch.tensor([[[0, 5, -1]]])
    codes = fastcodec.Codes(tokens, 50.0, torch.tensor([960]), "x")
    wav = torch.randn(2, 960)
    demo_figure.save(tmp_path / "a.png", wav, wav, 16_000, codes, 16, "title")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
