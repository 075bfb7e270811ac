"""The command line, run in this process on real nets with random weights."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastcodec
from fastcodec import files, ops
from fastcodec.cli import console, main
from fastcodec.io import audio

from . import tame
from .codecs.test_recognise import saved_by_transformers

COMMANDS = ("encode", "decode", "convert", "info", "models", "doctor", "demo", "evaluate")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def encodec_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """From a preset to the path of a checkpoint with random weights."""
    return functools.partial(tame.encodec_checkpoint, tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every codec is loaded once, by the real ``load``; plain errors; wide lines."""
    monkeypatch.setattr(fastcodec, "load", _load)
    monkeypatch.delenv("FASTCODEC_DEBUG", raising=False)
    monkeypatch.delenv("FASTCODEC_WEIGHTS", raising=False)


_load = functools.cache(fastcodec.load)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``fastcodec …``; exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def weights(encodec_checkpoint: Callable[[str], Path]) -> list[object]:
    """The options that give encodec_24khz its weights."""
    return ["--weights", encodec_checkpoint("encodec_24khz"), "--codec", "encodec_24khz"]


def _speech(path: Path, seconds: float = 0.5, rate_hz: int = 16_000, channels: int = 1) -> Path:
    noise = torch.Generator().manual_seed(channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = torch.randn(channels, round(seconds * rate_hz), generator=noise) / 10
    audio.write(path, wav, rate_hz)
    return path


def _json(run: Run, *arguments: object) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_encode_then_decode_is_the_api(tmp_path: Path, run: Run, weights: list[object]) -> None:
    source = _speech(tmp_path / "a.flac", 1.03, 44_100, 2)
    code, out, err = run("encode", source, "--kbps", 6, *weights)
    assert code == 0 and "a.safetensors" in out and "6 kbps" in out and "× real time" in out, err
    net = fastcodec.load("encodec_24khz", weights=str(weights[1]))
    wav, _ = audio.read(source, 24_000, 1)
    expected, found = (
        net.encode(wav, bandwidth_kbps=6),
        files.read_codes(tmp_path / "a.safetensors"),
    )
    assert found.tokens.shape == expected.tokens.shape == (1, 8, 78)
    assert torch.equal(found.n_samples, expected.n_samples) and found.codec == "encodec_24khz"
    same = (found.tokens == expected.tokens).float().mean()
    assert same == 1 if net.info.invariant else same > 0.98

    assert run("decode", tmp_path / "a.safetensors", "--encoding", "float32", *weights)[0] == 0
    back, rate_hz = audio.read(tmp_path / "a.wav")
    assert rate_hz == 24_000 and back.shape == wav.shape
    assert torch.allclose(back, net.decode(found)[0], rtol=0, atol=1e-5)


def test_a_codec_that_does_not_stream(
    tmp_path: Path, run: Run, encodec_checkpoint: Callable[[str], Path]
) -> None:
    source, w = _speech(tmp_path / "a.wav", 1.2), encodec_checkpoint("encodec_48khz")
    options = ["--codec", "encodec_48khz", "--weights", w]
    assert run("encode", source, "-n", 2, "-o", tmp_path / "a.ecdc", *options)[0] == 0
    codes = files.read_codes(tmp_path / "a.ecdc")
    assert codes.tokens.shape == (1, 2, 182) and codes.scale is not None
    result = _json(run, "decode", tmp_path / "a.ecdc", "-o", tmp_path / "b.flac", "-w", w)
    assert result["files"][0]["channels"] == 2
    assert audio.probe(tmp_path / "b.flac") == audio.AudioInfo(48_000, 2, 57_600)


def test_lyra_packets_of_real_weights(tmp_path: Path, run: Run, shared: Path) -> None:
    folder = shared / "data" / "lyra_v2"
    options = ["-w", folder / "float32", "-o", tmp_path]
    source = folder / "sample1_16kHz.wav"
    code, _, err = run("encode", source, "-c", "lyra_v2", "-b", 3.2, "-f", "lyra", *options)
    packets = tmp_path / "sample1_16kHz.lyra"
    assert code == 0 and packets.stat().st_size == 172 * 8, err
    expected = np.load(folder / "float32" / "reference_64bits.npz")["codes"][:, :16]
    codes = files.read_codes(packets, n_codebooks=16)
    assert np.array_equal(codes.tokens[0].T, expected)
    assert run("decode", packets, "-n", 16, *options)[0] == 0
    assert audio.probe(tmp_path / "sample1_16kHz.wav").n_samples == 172 * 320
    code, _, err = run("encode", _speech(tmp_path / "short.wav", 0.01), "-c", "lyra_v2", *options)
    assert code == 1 and "short.wav: too short for lyra_v2" in err


def test_nothing_but_the_package_is_needed(tmp_path: Path, run: Run) -> None:
    source = _speech(tmp_path / "a.wav", 0.5)
    entry = _json(run, "encode", source, "-c", "fastcodec_16khz", "--kbps", 2)["files"][0]
    assert (entry["n_codebooks"], entry["n_frames"], entry["kbps"]) == (4, 25, 2.0)
    code, out, err = run("decode", tmp_path / "a.safetensors", "-o", tmp_path / "b.wav")
    assert code == 0 and "2 kbps" in out, err
    assert audio.probe(tmp_path / "b.wav") == audio.AudioInfo(16_000, 1, 8_000)


def test_json_of_encode_and_decode(tmp_path: Path, run: Run, weights: list[object]) -> None:
    source = _speech(tmp_path / "a.wav")
    encoded = _json(run, "encode", source, "-n", 4, "-f", "ecdc", *weights)
    entry = encoded["files"][0]
    assert encoded["codec"] == "encodec_24khz" and entry["output"] == str(tmp_path / "a.ecdc")
    assert (entry["n_codebooks"], entry["n_frames"], entry["kbps"]) == (4, 38, 3.0)
    assert entry["duration_s"] == 0.5 and entry["rtf"] == pytest.approx(0.5 / entry["seconds"])
    assert entry["file_kbps"] == (tmp_path / "a.ecdc").stat().st_size * 8 / 500
    decoded = _json(run, "decode", tmp_path / "a.ecdc", "-o", tmp_path / "x" / "b.ogg", *weights)
    assert decoded["files"][0]["outputs"] == [str(tmp_path / "x" / "b.ogg")]
    assert audio.probe(tmp_path / "x" / "b.ogg").n_samples == 12_000


def test_folders_keep_their_structure_and_one_bad_file_does_not_stop_the_rest(
    tmp_path: Path, run: Run, weights: list[object]
) -> None:
    _speech(tmp_path / "in" / "a.wav", 0.1)
    _speech(tmp_path / "in" / "deep" / "b.flac", 0.1)
    _speech(tmp_path / "in" / ".hidden.wav", 0.1)
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFF nothing")
    (tmp_path / "in" / "notes.txt").write_text("not audio")
    alone = _speech(tmp_path / "c.wav", 0.1)
    code, out, err = run(
        "encode", tmp_path / "in", alone, "-o", tmp_path / "out", *weights, "--json"
    )
    assert code == 1 and "bad.wav: cannot be read as audio" in err and "Traceback" not in err
    made = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert made == {"a.safetensors", "deep/b.safetensors", "c.safetensors"}
    errors = [entry.get("error") for entry in json.loads(out)["files"]]
    assert sum(error is not None for error in errors) == 1 and len(errors) == 4
    code, out, _ = run("decode", tmp_path / "out", "-o", tmp_path / "back", *weights)
    assert code == 0 and "3 of 3 files decoded" in out
    assert (tmp_path / "back" / "deep" / "b.wav").is_file()


def test_nothing_is_overwritten_unless_forced(
    tmp_path: Path, run: Run, weights: list[object]
) -> None:
    first, second = _speech(tmp_path / "a.wav", 0.1), _speech(tmp_path / "b.wav", 0.1)
    (tmp_path / "b.safetensors").write_text("mine")
    code, _, err = run("encode", first, second, *weights)
    assert code == 1 and "b.safetensors exists already; --force" in err
    assert not (tmp_path / "a.safetensors").exists()  # refused before any work
    assert (tmp_path / "b.safetensors").read_text() == "mine"
    assert run("encode", first, second, "--force", *weights)[0] == 0
    assert files.read_codes(tmp_path / "b.safetensors").tokens.shape == (1, 32, 8)


def test_several_signals_in_a_file_become_several_files(
    tmp_path: Path, run: Run, weights: list[object]
) -> None:
    net = fastcodec.load("encodec_24khz", weights=str(weights[1]))
    wavs = [torch.randn(1, n) / 10 for n in (1000, 5000)]
    files.save_codes(net.encode(wavs, n_codebooks=2), tmp_path / "two.safetensors")
    (tmp_path / "two-1.wav").touch()
    code, _, err = run("decode", tmp_path / "two.safetensors", *weights)
    assert code == 1 and "two-1.wav exists" in err and not (tmp_path / "two-0.wav").exists()
    assert run("decode", tmp_path / "two.safetensors", "--force", *weights)[0] == 0
    lengths = [audio.probe(tmp_path / f"two-{row}.wav").n_samples for row in range(2)]
    assert lengths == [1000, 5000]


def test_a_failure_on_the_way_leaves_nothing_behind(
    tmp_path: Path, run: Run, weights: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("encode", _speech(tmp_path / "a.wav", 2.0), "-n", 1, *weights)[0] == 0
    (tmp_path / "a.wav").unlink()
    decode, calls = fastcodec.Stream.decode, []

    def fails_later(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the disk is on fire")
        return decode(*arguments, **options)

    monkeypatch.setattr(fastcodec.Stream, "decode", fails_later)
    code, _, err = run("decode", tmp_path / "a.safetensors", *weights)
    assert code == 1 and err == "fastcodec: the disk is on fire\n"
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["encode", "a.wav", "gone.wav"], "gone.wav: no such file"),
        (["encode", "empty"], "empty: no .wav"),
        (["encode", "a.wav", "b/a.wav", "-o", "x.ecdc"], "one file, but there are 2 inputs"),
        (["encode", "a.wav", "b/a.wav", "-o", "x"], "would both become"),
        (["encode", "a.wav", "-c", "nope"], "no codec 'nope'"),
        (["encode", "a.wav", "-w", "gone.th"], "gone.th: no such checkpoint"),
        (["encode", "a.wav", "-f", "lyra"], ".lyra holds codes of Lyra, not of fastcodec_16khz"),
        (["encode", "a.wav", "-c", "lyra_v2", "-f", "ecdc"], "not of lyra_v2"),
        (["encode", "a.wav", "-c", "lyra_v2", "-f", "lyra", "-n", "9"], "[16, 30, 46] codebooks"),
        (["decode", "a.wav"], "a.wav is an input"),
        (["decode", "a.wav", "-o", "x.wav"], "a.wav: not a codes file"),
        (["info", "gone"], "gone: neither a file nor a preset"),
        (["demo", "-c", "nope"], "no codec 'nope'"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _speech(Path("a.wav"), 0.1)
    _speech(Path("b/a.wav"), 0.1)
    Path("empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (1, "") and sorted(tmp_path.rglob("*")) == before
    assert err.startswith("fastcodec: ") and err.count("\n") == 1 and reason in err, err


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["encode", "a.wav", "--no-such-option"],
        ["encode", "a.wav", "-n", "many"],
        ["encode", "a.wav", "-f", "mp3"],
        ["encode", "a.wav", "-f", "lyra", "-o", "x.ecdc"],
        ["no-such-command"],
    ],
)
def test_wrong_use_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2 and "Usage: fastcodec" in err and "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCODEC_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["encode", "gone.wav"])


def test_an_unforeseen_error_is_still_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastcodec, "models", lambda: 1 // 0)
    code, _, err = run("models")
    assert code == 1 and err.startswith("fastcodec: ZeroDivisionError") and "DEBUG" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_examples(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0 and "Examples" in out and f"fastcodec {command}" in out
    assert command == "demo" or "--json" in out


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and all(command in out for command in COMMANDS)
    assert run("--version") == (0, f"fastcodec {fastcodec.__version__}\n", "")


def test_models(run: Run) -> None:
    said = _json(run, "models")
    rows = said["presets"]
    names = [row["name"] for row in rows]
    assert names == [model.name for model in fastcodec.models()]
    assert run("models", "--names")[1].split() == names
    assert {"encodec_24khz", "encodec_48khz", "lyra_v2"} <= set(names)
    row = rows[names.index("encodec_48khz")]
    assert (row["sample_rate_hz"], row["channels"], row["streamable"]) == (48_000, 2, False)
    assert row["bandwidths_kbps"] == [3, 6, 12, 24] and row["licence"]
    out = run("models")[1]
    assert all(name in out for name in names) and "CC-BY-NC" in out and "24000" in out


@pytest.fixture(scope="module")
def dac_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DacModel as transformers saves it."""
    folder = tmp_path_factory.mktemp("dac")
    saved_by_transformers("Dac", folder)
    return folder


def test_weights_that_say_what_they_are(tmp_path: Path, run: Run, dac_folder: Path) -> None:
    source = _speech(tmp_path / "a.wav", 0.3, 16_000)
    converted, codes = tmp_path / "dac.safetensors", tmp_path / "a.safetensors"
    assert run("convert", dac_folder, converted)[0] == 0
    assert "exists already" in run("convert", dac_folder, converted)[2]
    for weights in (dac_folder, converted):
        assert run("encode", source, "-w", weights, "--force")[0] == 0
        assert run("decode", codes, "-w", weights, "-o", tmp_path / "b.wav", "--force")[0] == 0
    net = fastcodec.load(weights=converted)
    wav, _ = audio.read(source, net.sample_rate_hz, 1)
    assert torch.equal(files.read_codes(codes).tokens, net.encode(wav).tokens)
    assert audio.probe(tmp_path / "b.wav").n_samples == wav.shape[1]


def test_dac_files(tmp_path: Path, run: Run, dac_folder: Path) -> None:
    """At the first rate, with all channels; a file does not say which DAC made it."""
    source, file = _speech(tmp_path / "a.wav", 0.6, 22_050, 2), tmp_path / "a.dac"
    assert run("encode", source, "-w", dac_folder, "-o", file, "-n", 2)[0] == 0
    facts = _json(run, "info", file)
    assert (facts["channels"], facts["sample_rate_hz"], facts["n_codebooks"]) == (2, 22_050, 2)
    assert run("decode", file, "-w", dac_folder, "-o", tmp_path / "b.wav")[0] == 0
    header = audio.probe(tmp_path / "b.wav")
    assert (header.sample_rate_hz, header.channels) == (22_050, 2)
    assert header.n_samples == audio.probe(source).n_samples
    assert "does not say which DAC" in run("decode", file, "-o", tmp_path / "c.wav")[2]
    code, _, err = run("encode", source, "-c", "lyra_v2", "-o", tmp_path / "c.dac")
    assert code == 1 and "holds codes of DAC, not of lyra_v2" in err


def test_info(tmp_path: Path, run: Run) -> None:
    assert _json(run, "info", "encodec_24khz")["codebook_size"] == 1024
    facts = _json(run, "info", _speech(tmp_path / "a.wav", 0.5, 8000, 2))
    assert (facts["sample_rate_hz"], facts["channels"], facts["duration_s"]) == (8000, 2, 0.5)
    tokens = torch.zeros(2, 3, 4, dtype=torch.int64)
    codes = fastcodec.Codes(tokens, 75.0, torch.tensor([1280, 1000]), "encodec_24khz")
    files.save_codes(codes, tmp_path / "c.safetensors")
    facts = _json(run, "info", tmp_path / "c.safetensors")
    assert (facts["codec"], facts["signals"], facts["n_codebooks"]) == ("encodec_24khz", 2, 3)
    assert facts["kbps"] == 2.25 and facts["n_samples"] == [1280, 1000]
    out = run("info", tmp_path / "c.safetensors")[1]
    assert "encodec_24khz" in out and "2.25" in out


def test_doctor_names_every_op_and_backend(run: Run) -> None:
    report = _json(run, "doctor")
    assert {"torch", "python", "cpu", "packages", "native_library"} <= report.keys()
    assert report["ops"] == {op.name: dict(op.report()) for op in ops.registry()}
    assert len(report["ops"]) > 5 and report["packages"]["soundfile"]
    out = run("doctor")[1]
    for name, row in report["ops"].items():
        assert name in out
        for backend, reason in row.items():
            assert backend in out
            assert reason is None or reason.replace(name, "this op") in out


def test_doctor_says_why_and_still_exits_0() -> None:
    settings = {**os.environ, "FASTCODEC_ISA": "reference"}
    command = [sys.executable, "-m", "fastcodec.cli", "doctor", "--json"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reasons = {row["cpu"] for row in json.loads(done.stdout)["ops"].values()}
    assert None not in reasons


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    code, _, err = run("models")
    assert code == 1 and 'pip install "fastcodec[cli]"' in err


def test_progress_bar_shows_the_real_time_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = console.Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(console, "ERR", terminal)
    with console.metered("talk.wav", quiet=False) as meter:
        meter.reached(30.0, 60.0)
    assert "talk.wav" in screen.getvalue() and "50%" in screen.getvalue()
    assert "× real time" in screen.getvalue()
    shown = len(screen.getvalue())
    with console.metered("talk.wav", quiet=True) as meter:
        meter.reached(30.0, 60.0)
    assert len(screen.getvalue()) == shown


def test_markup_in_file_names_is_printed_as_it_is(
    tmp_path: Path, run: Run, weights: list[object]
) -> None:
    source = _speech(tmp_path / "[bold]a[red].wav", 0.1)
    code, out, _ = run("encode", source, "-n", 1, *weights)
    assert code == 0 and "[bold]a[red].wav" in out
    assert np.array_equal(_json(run, "info", source)["sample_rate_hz"], 16_000)
