"""Audio files: what is read is what was written, by blocks or whole; bad files say so."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from fastcodec.errors import FormatError
from fastcodec.io import audio


def _tone(rate_hz: int, seconds: float, channels: int = 1, hz: float = 440.0) -> torch.Tensor:
    time = torch.arange(round(rate_hz * seconds), dtype=torch.float64) / rate_hz
    phases = torch.arange(channels, dtype=torch.float64)[:, None]
    return (0.5 * torch.sin(2 * torch.pi * hz * time + phases)).float()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_16_bit_files_survive_a_round_trip_bit_for_bit(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, (channels, 70_000))
    pcm[:, :2] = -32768, 32767
    report = audio.write(tmp_path / f"a{suffix}", pcm / 32768, 24_000)
    stored, rate_hz = sf.read(tmp_path / f"a{suffix}", dtype="int16", always_2d=True)
    assert rate_hz == 24_000 and np.array_equal(stored.T, pcm)
    wav, rate_hz = audio.read(tmp_path / f"a{suffix}")
    assert rate_hz == 24_000 and wav.dtype == torch.float32
    assert torch.equal(wav, torch.from_numpy(pcm / 32768).float())
    assert (report.n_samples, report.clipped, report.peak) == (70_000, 0, 1.0)


def test_float_wav_keeps_every_bit_and_what_lies_above_full_scale(tmp_path: Path) -> None:
    wav = torch.randn(2, 1000) * 3
    report = audio.write(tmp_path / "a.wav", wav, 48_000, "float32")
    assert torch.equal(audio.read(tmp_path / "a.wav")[0], wav)
    assert report.clipped == 0 and report.peak == wav.abs().max().item()


def test_loud_samples_are_clipped_not_wrapped_and_counted(tmp_path: Path) -> None:
    wav = torch.tensor([1.0, -1.0, 1.5, -1.5, 0.25])
    report = audio.write(tmp_path / "a.wav", wav, 16_000)
    stored = sf.read(tmp_path / "a.wav", dtype="int16")[0].tolist()
    assert stored == [32767, -32768, 32767, -32768, 8192]
    assert (report.clipped, report.peak) == (2, 1.5)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_lossy_files_hold_the_tone_even_when_long(tmp_path: Path, suffix: str) -> None:
    wav = _tone(24_000, 60.0, 2)
    audio.write(tmp_path / f"a{suffix}", wav, 24_000)
    back, rate_hz = audio.read(tmp_path / f"a{suffix}")
    assert rate_hz == 24_000 and abs(back.shape[1] - wav.shape[1]) <= 1152
    n = min(back.shape[1], wav.shape[1])
    assert (back[:, :n] - wav[:, :n]).square().mean() < 1e-3 * wav.square().mean()


@pytest.mark.parametrize("have_hz, want_hz", [(44_100, 24_000), (8_000, 16_000), (48_000, 16_000)])
def test_resampled_blocks_do_not_depend_on_block_size(
    tmp_path: Path, have_hz: int, want_hz: int
) -> None:
    audio.write(tmp_path / "a.wav", _tone(have_hz, 1.234, 2), have_hz)
    whole, _ = audio.read(tmp_path / "a.wav", want_hz)
    assert abs(whole.shape[1] - 1.234 * want_hz) <= 1
    for block in (333, 4096):
        pieces = list(audio.blocks(tmp_path / "a.wav", want_hz, block=block))
        assert len(pieces) >= 3 and torch.equal(torch.cat(pieces, 1), whole)
    inner = slice(want_hz // 10, -want_hz // 10)
    error = whole[:, inner] - _tone(want_hz, 2, 2)[:, : whole.shape[1]][:, inner]
    assert error.abs().max() < 1e-3


def test_channel_rules(tmp_path: Path) -> None:
    stereo = torch.stack([torch.full((100,), 0.5), torch.full((100,), -0.25)])
    audio.write(tmp_path / "2.wav", stereo, 16_000)
    audio.write(tmp_path / "1.wav", stereo[0], 16_000)
    audio.write(tmp_path / "6.wav", torch.ones(6, 100) / 8, 16_000)
    assert torch.equal(audio.read(tmp_path / "2.wav", channels=1)[0], torch.full((1, 100), 0.125))
    assert torch.equal(audio.read(tmp_path / "1.wav", channels=2)[0], torch.full((2, 100), 0.5))
    assert torch.equal(audio.read(tmp_path / "2.wav", channels=2)[0], stereo)
    assert audio.read(tmp_path / "6.wav", channels=1)[0].shape == (1, 100)
    with pytest.raises(ValueError, match=r"6\.wav.*has 6 channels and 2 are wanted"):
        audio.read(tmp_path / "6.wav", channels=2)


def test_an_hour_is_read_in_constant_memory(tmp_path: Path) -> None:
    silence = np.zeros(8_000 * 60, np.int16)
    with sf.SoundFile(tmp_path / "hour.wav", "w", 8_000, 1) as file:
        for _ in range(60):
            file.write(silence)
    tracemalloc.start()
    total = sum(b.shape[1] for b in audio.blocks(tmp_path / "hour.wav", 16_000, 2))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 3600 * 16_000
    assert peak_bytes < 16e6  # the whole would be 461 MB


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_files_that_are_not_audio(tmp_path: Path, suffix: str) -> None:
    for content in (b"", b"RIFF", b"no audio at all " * 100):
        (tmp_path / f"bad{suffix}").write_bytes(content)
        with pytest.raises(FormatError, match=rf"bad\{suffix}"):
            audio.read(tmp_path / f"bad{suffix}")


def test_truncated_flac(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", torch.randn(48_000) / 10, 24_000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"a\.flac"):
        audio.read(tmp_path / "a.flac")


def test_bad_headers_and_arguments(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", torch.zeros(0), 16_000)
    with pytest.raises(FormatError, match=r"a\.wav: holds no samples"):
        audio.read(tmp_path / "a.wav")
    sf.write(tmp_path / "slow.wav", np.zeros(100), 1)
    with pytest.raises(FormatError, match=r"slow\.wav.*1 Hz"):
        audio.read(tmp_path / "slow.wav", 24_000)
    sf.write(tmp_path / "one.wav", np.zeros(1), 48_000)
    with pytest.raises(FormatError, match="too few"):
        audio.read(tmp_path / "one.wav", 16_000)
    (tmp_path / "a.raw").write_bytes(b"1234")
    with pytest.raises(FormatError, match="raw"):
        audio.read(tmp_path / "a.raw")
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        audio.read(tmp_path / "gone.wav")


def test_probe(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", torch.zeros(2, 123), 44_100)
    assert audio.probe(tmp_path / "a.flac") == audio.AudioInfo(44_100, 2, 123)


def test_a_failed_write_leaves_the_old_file_and_no_scrap(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", torch.ones(10) / 2, 16_000)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(RuntimeError, match="stop"):
        with audio.Writer.open(tmp_path / "a.wav", 16_000, 1) as out:
            out.write(torch.zeros(1000))
            raise RuntimeError("stop")
    with pytest.raises(ValueError, match=r"a\.wav.*NaN"):
        audio.write(tmp_path / "a.wav", torch.tensor([0.0, torch.nan]), 16_000)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    "name, rate_hz, encoding, reason",
    [
        ("a.xyz", 16_000, None, r"a\.xyz.*\.wav"),
        ("a.flac", 16_000, "float32", r"a\.flac.*pcm16 or pcm24"),
        ("a.mp3", 16_001, None, r"a\.mp3.*16001 Hz"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, name: str, rate_hz: int, encoding: str | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        audio.write(tmp_path / name, torch.zeros(10), rate_hz, encoding)
    assert os.listdir(tmp_path) == []


def test_a_batch_is_not_a_signal(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one signal of a batch"):
        with audio.Writer.open(tmp_path / "a.wav", 16_000, 1) as out:
            out.write(torch.zeros(2, 1, 10))
    with pytest.raises(FileNotFoundError, match="folder"):
        audio.write(tmp_path / "no" / "a.wav", torch.zeros(10), 16_000)
