"""Metrics against values known otherwise, and the command that makes the table of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fastcodec
from fastcodec import demo, evaluate, metrics
from fastcodec.cli import main
from fastcodec.codes import Codes
from fastcodec.io import audio

from . import nets

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """[S] at 16 kHz, three seconds."""
    return audio.read(demo.clip_path())[0][0, :48_000]


@pytest.fixture
def clips(tmp_path: Path, speech: torch.Tensor) -> Path:
    """A folder with two clips, one in a folder of its own, and something else."""
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    audio.write(tmp_path / "clips" / "a.wav", speech[:16_000], 16_000)
    audio.write(tmp_path / "clips" / "deep" / "b.flac", speech[16_000:40_000], 16_000)
    (tmp_path / "clips" / "notes.txt").write_text("no audio")
    return tmp_path / "clips"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``fastcodec evaluate …``: exit code, standard output, standard error."""
    monkeypatch.delenv("FASTCODEC_DEBUG", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["evaluate", *map(str, arguments)])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return call


def test_si_sdr_by_hand() -> None:
    s = torch.tensor([1.0, -1.0, 1.0, -1.0])
    n = torch.tensor([1.0, 1.0, -1.0, -1.0])  # orthogonal to s, both without a mean
    for gain in (0.1, 1.0):
        expected = -20 * math.log10(gain)
        assert metrics.si_sdr_db(s, s + gain * n) == pytest.approx(expected)
        assert metrics.si_sdr_db(s, 3 * (s + gain * n) + 0.5) == pytest.approx(expected)
    assert metrics.si_sdr_db(s, -s) > 200  # a sign is a scale
    assert metrics.si_sdr_db(s, n) < -200
    for pair in ((s, 0 * s), (0 * s, s)):
        with pytest.raises(metrics.Undefined, match="silent"):
            metrics.si_sdr_db(*pair)


def test_stoi_of_known_pairs(speech: torch.Tensor) -> None:
    pytest.importorskip("pystoi", reason="pystoi is of the extra evaluate")
    assert metrics.stoi(speech, speech) == pytest.approx(1, abs=1e-6)
    noise = torch.randn(len(speech), generator=nets.generator(0))
    assert metrics.stoi(speech, noise) < 0.4 < metrics.stoi(speech, speech + 0.1 * noise) < 0.99
    with pytest.raises(metrics.Undefined, match="STOI: Not enough"):
        metrics.stoi(speech[:800], speech[:800])


def test_pesq_of_known_pairs(speech: torch.Tensor) -> None:
    pytest.importorskip("pesq", reason="pesq is of the extra evaluate")
    assert metrics.pesq_wb(speech, speech) == pytest.approx(4.644, abs=1e-3)  # the scale's top
    noise = torch.randn(len(speech), generator=nets.generator(0))
    assert 1 < metrics.pesq_wb(speech, speech + 0.1 * noise) < 2
    with pytest.raises(metrics.Undefined, match="silent"):
        metrics.pesq_wb(speech, 0 * speech)
    with pytest.raises(metrics.Undefined, match="PESQ: "):
        metrics.pesq_wb(speech[:1000], speech[:1000])


def test_the_log_mel_distance_is_the_demos(speech: torch.Tensor) -> None:
    (metric,) = (m for m in metrics.METRICS if m.name == "log_mel_distance_db")
    expected = demo.log_mel_distance_db(speech[None], speech[None] / 2, 16_000)
    assert metric.of(speech, speech / 2) == expected and not metric.higher_is_better


def test_codebook_usage() -> None:
    def codes(tokens: list[list[int]], hold: tuple[int, ...] | None = None) -> Codes:
        return Codes(torch.tensor([tokens]), 50.0, torch.tensor([80]), "x", hold=hold)

    constant, even = metrics.codebook_usage([codes([[3, 3, 3, 3], [0, 1, 2, 3]])], 8)
    assert constant == metrics.Usage(1.0, 1, 8)
    assert even.perplexity == pytest.approx(4) and even.words_used == 4
    parts = [codes([[0, 0]]), codes([[1, -1]])]  # two of one word, one of another, one absent
    (both,) = metrics.codebook_usage(parts, 2)
    assert both.perplexity == pytest.approx(3 / 2 ** (2 / 3)) and both.words_used == 2
    held, _ = metrics.codebook_usage([codes([[5, 5, 7, 7], [0, 1, 2, 3]], (2, 1))], 8)
    assert held.perplexity == pytest.approx(2)


def test_find_clips(clips: Path, tmp_path: Path) -> None:
    found = evaluate.find_clips([clips, clips / "a.wav"])
    assert [clip.path.name for clip in found] == ["a.wav", "b.flac"]
    assert [clip.duration_s for clip in found] == [1.0, 1.5]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no .wav"):
        evaluate.find_clips([tmp_path / "empty"])
    with pytest.raises(fastcodec.FormatError, match="notes.txt"):
        evaluate.find_clips([clips / "notes.txt"])


class Halver:
    """Gives back half of the signal's level, and nothing at all of a clip called ``silent``."""

    name, rates_kbps, codebook_size = "halver", (1.0,), 4

    def code(self, clip: evaluate.Clip, kbps: float) -> evaluate.Coded:
        wav, _ = audio.read(clip.path, 16_000, 1)
        gain = 0.0 if clip.path.stem == "silent" else 0.5
        codes = Codes(torch.zeros(1, 2, 3, dtype=torch.int64), 50.0, torch.tensor([960]), "x")
        return evaluate.Coded(gain * wav[0], 2 * kbps, codes)


def test_measure(clips: Path, speech: torch.Tensor) -> None:
    found = evaluate.find_clips([clips])
    heard: list[tuple[float, float]] = []
    row = evaluate.measure(Halver(), 1.0, found, lambda *at: heard.append(at))
    assert heard == [(1.0, 2.5), (2.5, 2.5)]
    assert (row.kbps, row.n_codebooks, row.notes) == (2.0, 2, [])
    assert row.usage == [metrics.Usage(1.0, 1, 4)] * 2
    values = [clip["log_mel_distance_db"] for clip in row.clips]
    assert row.means["log_mel_distance_db"] == pytest.approx(sum(values) / 2)  # type: ignore[arg-type]

    audio.write(clips / "silent.wav", speech, 16_000)
    row = evaluate.measure(Halver(), 1.0, evaluate.find_clips([clips]))
    assert row.clips[-1]["si_sdr_db"] is None and row.means["si_sdr_db"] is not None
    assert "SI-SDR (dB): left out 1 of 3 clips: a silent signal has no SI-SDR" in row.notes


def test_a_missing_package_is_said(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    rows = [evaluate.measure(Halver(), 1.0, evaluate.find_clips([clips]))]
    assert rows[0].means["pesq_wb"] is None and "pesq_wb" not in rows[0].clips[0]
    assert any("PESQ-wb" in n and "fastcodec[evaluate]" in n for n in evaluate.notes(rows))


def test_a_codec_at_its_bit_rates(clips: Path) -> None:
    """A small net at 800 Hz: what comes back is resampled, and its codes are counted."""
    net = nets.encodec()
    system = evaluate.Neural(net)
    assert system.rates_kbps == net.info.bandwidths_kbps
    with pytest.raises(ValueError, match=r"small has no 0\.7 kbps; its bit rates: 0\.5, 1, 2"):
        evaluate.Neural(net, [0.7])
    row = evaluate.measure(system, 1.0, evaluate.find_clips([clips]))
    wav, _ = audio.read(clips / "a.wav", 800, 1)
    assert row.n_codebooks == 2 and row.kbps == pytest.approx(1.0)
    coded = system.code(evaluate.find_clips([clips])[0], 1.0)
    assert coded.codes is not None and len(coded.wav) == 16_000
    assert torch.equal(coded.codes.tokens, net.encode(wav, bandwidth_kbps=1.0).tokens)


def test_the_command_with_real_weights(clips: Path, tmp_path: Path, run: Run, shared: Path) -> None:
    pytest.importorskip("av", reason="PyAV is of the extra evaluate")
    lyra, out = shared / "data" / "lyra_v2" / "float32", tmp_path / "new" / "report"
    options = ["--lyra", lyra, "--opus", "6,64", "--out", out]
    code, text, err = run(clips, *options, "--json")
    assert code == 0, err
    report = json.loads(text)
    assert report == json.loads((out / "evaluation.json").read_text())
    rows = {(row["system"], row["rate_kbps"]): row for row in report["rows"]}
    assert list(rows) == [("lyra_v2", 3.2), ("lyra_v2", 6.0), ("opus", 6.0), ("opus", 64.0)]
    assert report["duration_s"] == 2.5 and len(rows["opus", 6.0]["clips"]) == 2
    assert [len(row["usage"]) for row in rows.values()] == [16, 30, 0, 0]
    assert all(1 < use["perplexity"] <= 16 for use in rows["lyra_v2", 6.0]["usage"])
    for name in ("log_mel_distance_db", "si_sdr_db"):
        worse, better = (rows["opus", kbps]["means"][name] for kbps in (6.0, 64.0))
        assert worse > better if name.startswith("log") else worse < better
    assert (out / "evaluation.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    code, text, _ = run(clips, *options)
    assert code == 0 and "2 clips, 2.5 s" in text and "PESQ-wb" in text and "words used" in text


def test_the_codec_of_the_package_is_the_default(clips: Path, tmp_path: Path, run: Run) -> None:
    code, text, err = run(clips / "a.wav", "--out", tmp_path / "report", "--json")
    assert code == 0, err
    found = [(row["system"], row["rate_kbps"]) for row in json.loads(text)["rows"]]
    assert found == [("fastcodec_16khz", k / 2) for k in range(1, 9)]


def test_codecs_and_weights_are_paired(
    clips: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[Any, Any]] = []

    def load(name: str | None, weights: str | None, device: str) -> fastcodec.Codec:
        loaded.append((name, weights))
        return nets.encodec()

    monkeypatch.setattr(fastcodec, "load", load)
    both = ["-c", "one:1", "-w", "-", "-c", ":0.5,2", "-w", "x.th", "-o", tmp_path / "out"]
    code, text, err = run(clips, *both, "--json")
    assert code == 0, err
    assert loaded == [("one", None), (None, "x.th")]
    found = [(row["system"], row["rate_kbps"]) for row in json.loads(text)["rows"]]
    assert found == [("small", 1.0), ("small (x.th)", 0.5), ("small (x.th)", 2.0)]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["-c", "nope"], "no codec 'nope'"),
        (["-c", "encodec_24khz", "-c", "mimi", "-w", "x.th"], "there are 1 for 2 --codec"),
        (["--opus", "3"], "opus: has 6 to 510 kbps, got 3"),
        (["--lyra", "gone"], "gone"),
    ],
)
def test_errors_are_one_line(
    clips: Path, tmp_path: Path, run: Run, arguments: list[str], reason: str
) -> None:
    code, out, err = run(clips, *arguments, "-o", tmp_path / "out")
    assert (code, out) == (1, "") and not (tmp_path / "out").exists()
    assert err.startswith("fastcodec: ") and err.count("\n") == 1 and reason in err, err


def test_no_clips_is_one_line(tmp_path: Path, run: Run) -> None:
    code, _, err = run(tmp_path / "gone.wav", "--opus", "6")
    assert code == 1 and "gone.wav: no such audio file" in err and err.count("\n") == 1


@pytest.mark.parametrize("rates", ["six", "6,", "-1", "nan"])
def test_wrong_rates_are_wrong_use(clips: Path, run: Run, rates: str) -> None:
    code, _, err = run(clips, "--opus", rates)
    assert code == 2 and "expected bit rates in kbps" in err


def test_help_teaches_by_examples(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and "Examples" in out and "fastcodec evaluate speech/" in out
