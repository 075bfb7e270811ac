"""The trainer on small nets and made-up recordings: it learns, resumes bit by bit, and shares."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcodec
from fastcodec.cli import main
from fastcodec.codecs import embedded, encodec
from fastcodec.codecs.embedded import EmbeddedConfig
from fastcodec.codecs.encodec import EncodecConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.io import audio
from fastcodec.io.checkpoints import read_state
from fastcodec.train import config, data, plain
from fastcodec.train.config import Adversarial, Data, Log, Losses, Optimizer, TrainConfig
from fastcodec.train.net import Net
from fastcodec.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = SeanetConfig(dimension=16, n_filters=4, lstm=0, padding="zero", true_skip=True, norm="none")
TINY = EncodecConfig(16000, SMALL, 4, 32, (0.25, 0.5, 0.75, 1.0))
LADDER = EmbeddedConfig(16000, (8, 5), (16, 10), (6, 8), (1, 2), (2, 1), dimension=12)
RUN = TrainConfig(
    preset="tiny",
    steps=6,
    data=Data(crop_s=0.2, batch=4, held_out_percent=30.0),
    optimizer=Optimizer(learning_rate=2e-3, warmup_steps=4, falling_steps=1, average=0.9),
    losses=Losses(mel_windows=(256, 512), mel_bins=(12, 24)),
    codebooks=config.CodebookOptions(dropout=0.5, kmeans_iterations=5),
    log=Log(every=2, held_out_every=4, held_out_s=2.0, rates=(1, 4)),
)
PLAYED = replace(
    RUN,
    unquantised=0.25,
    losses=replace(RUN.losses, balanced=True, stft=1.0),
    adversarial=Adversarial(("msstftd_encodec",), width=0.125, start=2),
    data=replace(RUN.data, augmentation=data.Augmentation((0.8, 1.2), (-6.0, 0.0), (-3.0, 3.0))),
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve second-long voices: harmonics of a gliding pitch."""
    folder = tmp_path_factory.mktemp("recordings")
    time = torch.arange(16000) / 16000
    for i in range(12):
        phase = 2 * math.pi * (100 + 20 * i) * (time + 0.1 * time**2)
        wav = sum(torch.sin(phase * k) / k for k in range(1, 8)) * 0.2
        audio.write(folder / f"voice{i}.wav", torch.as_tensor(wav)[None], 16000)
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encodec.PRESETS, "tiny", TINY)


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested containers."""
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        for name, value in pairs:
            yield from tensors(value, f"{path}.{name}")
    else:
        yield path, state


def checkpoint(folder: Path) -> dict[str, Any]:
    found = dict(tensors(torch.load(folder / "checkpoint.pt", weights_only=True)))
    return {name: value for name, value in found.items() if name != ".seconds"}


def curve(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "curve.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_loss_falls_and_the_result_loads(recordings: Path, tmp_path: Path) -> None:
    settings = replace(RUN, steps=60, log=replace(RUN.log, every=10, held_out_every=60))
    seen: list[int] = []
    trainer = Trainer(settings, recordings, tmp_path / "run")
    trainer.run(report=lambda step, line: seen.append(step))
    lines = curve(tmp_path / "run")
    assert seen == [10, 20, 30, 40, 50, 60] == [line["step"] for line in lines]
    assert lines[-1]["mel"] < 0.7 * lines[0]["mel"]
    assert {"held_out_mel_1", "held_out_mel_4", "held_out_si_sdr_4", "used"} <= set(lines[-1])
    file = tmp_path / "run/tiny.safetensors"
    assert {value.dtype for value in read_state(file).values()} == {torch.bfloat16}
    codec = fastcodec.load(None, file)
    wav = audio.read(recordings / "voice0.wav")[0]
    assert codec.decode(codec.encode(wav)).shape == (1, 1, 16000)
    want = dict(trainer.average.named_parameters())
    for name, value in codec.named_parameters():
        assert torch.equal(value, want[name].bfloat16().float()), name


@pytest.mark.parametrize("settings", [RUN, PLAYED], ids=["plain", "adversarial"])
@pytest.mark.parametrize("stop", [1, 5])
def test_resumes_bit_by_bit(
    settings: TrainConfig, stop: int, recordings: Path, tmp_path: Path
) -> None:
    Trainer(settings, recordings, tmp_path / "whole").run()
    broken = Trainer(settings, recordings, tmp_path / "broken")
    broken.run(minutes=0.0)  # a step
    while broken.step < stop:
        broken = Trainer(settings, recordings, tmp_path / "broken", resume=True)
        broken.run(minutes=0.0)
    Trainer(settings, recordings, tmp_path / "broken", resume=True).run()
    whole, resumed = (checkpoint(tmp_path / name) for name in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        same = torch.equal(value, resumed[name]) if isinstance(value, Tensor) else None
        assert same if same is not None else value == resumed[name], name
    assert held_out(tmp_path / "whole") == held_out(tmp_path / "broken") != []


def held_out(folder: Path) -> list[dict[str, float]]:
    lines = [{k: v for k, v in line.items() if "held_out" in k} for line in curve(folder)]
    return [line for line in lines if line]


def test_a_killed_run_leaves_no_lines_behind(recordings: Path, tmp_path: Path) -> None:
    Trainer(replace(RUN, steps=2), recordings, tmp_path).run()
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 4, "mel": 0.0}\n')
    Trainer(replace(RUN, steps=4), recordings, tmp_path, resume=True).run()
    assert [line["step"] for line in curve(tmp_path)] == [2, 4]
    assert curve(tmp_path)[-1]["mel"] > 0


def test_batches_are_the_steps_own(recordings: Path) -> None:
    tape, _ = data.read_folder(recordings, 16000, 1, 30.0)
    how = PLAYED.data.augmentation

    def batch(seed: int) -> Tensor:
        return data.batch(tape, 3, 3200, torch.Generator().manual_seed(seed), how)

    assert torch.equal(batch(1), batch(1)) and not torch.equal(batch(1), batch(2))
    assert batch(1).shape == (3, 1, 3200) and float(batch(1).abs().max()) <= 1


def test_speed_moves_the_pitch_and_keeps_the_level() -> None:
    time = torch.arange(64000) / 16000
    tone = (torch.sin(2 * math.pi * 1000 * time)[None] * 16384).short()
    how = data.Augmentation(speed=(1.25, 1.25))
    wav = data.batch(data.Tape(["tone"], [tone]), 1, 16000, torch.Generator(), how)[0, 0]
    spectrum = torch.fft.rfft(wav).abs()
    assert int(spectrum.argmax()) == 1250  # a second: bins of 1 Hz
    assert float(wav.square().mean().sqrt()) == pytest.approx(0.5 / 2**0.5, rel=1e-3)


def test_held_out_recordings_stay_held_out(recordings: Path, tmp_path: Path) -> None:
    names = [f"speaker{i % 7}/prompt{i}.flac" for i in range(2000)]
    few, more = ({n for n in names if data.is_held_out(n, percent)} for percent in (5.0, 10.0))
    assert 60 < len(few) < 140 and few < more
    assert not data.is_held_out("a.flac", 32.7) and data.is_held_out("a.flac", 32.8)
    train, test = data.read_folder(recordings, 16000, 1, 30.0)
    split = [[r.name for r in tape.recordings] for tape in (train, test)]
    assert not set(split[0]) & set(split[1]) and len(split[0]) + len(split[1]) == 12
    assert all(
        data.is_held_out(name, 30.0) == (part == 1) for part in (0, 1) for name in split[part]
    )
    with pytest.raises(ValueError, match="none for the held-out test"):
        data.read_folder(recordings, 16000, 1, 0.0)
    with pytest.raises(ValueError, match="0 recordings"):
        data.read_folder(tmp_path, 16000, 1, 5.0)


@pytest.mark.parametrize("n_samples", [3200, 3217, 160, 1])
@pytest.mark.parametrize("family, config", [(encodec, TINY), (embedded, LADDER)])
def test_plain_pass_is_the_layers_own(family: Any, config: Any, n_samples: int) -> None:
    torch.manual_seed(0)
    codec = family.build("tiny", config)
    wav = torch.randn(2, 1, n_samples)
    latent = codec.encoder(wav)
    torch.testing.assert_close(plain.forward(codec.encoder, wav), latent)
    torch.testing.assert_close(plain.forward(codec.decoder, latent), codec.decoder(latent))


def test_quantizer_stays_float32_under_autocast(recordings: Path, tmp_path: Path) -> None:
    trainer = Trainer(replace(RUN, autocast=True), recordings, tmp_path)
    trainer.run()
    state = trainer.net.state_dict()
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    assert all(math.isfinite(line["mel"]) for line in curve(tmp_path))


def test_the_last_items_skip_the_quantizer() -> None:
    net = Net(encodec.build("tiny"), replace(RUN, unquantised=0.5), torch.Generator())
    wav = torch.randn(4, 1, 3200)
    decoded, quantized = net(wav)
    codec = net.codec
    latent = plain.forward(codec.encoder, wav)
    torch.testing.assert_close(decoded[2:], plain.forward(codec.decoder, latent[2:]))
    torch.testing.assert_close(decoded[:2], plain.forward(codec.decoder, quantized.latent[:2]))
    assert not torch.allclose(quantized.latent[2:], latent[2:])


def test_starts_from_weights(recordings: Path, tmp_path: Path) -> None:
    """The words, too: nothing is found anew, and without a step nothing changes."""
    Trainer(RUN, recordings, tmp_path / "first").run()
    weights = tmp_path / "first/tiny.safetensors"
    second = Trainer(replace(RUN, steps=0), recordings, tmp_path / "second", weights=weights)
    second.run()
    start, end = (read_state(tmp_path / f"{run}/tiny.safetensors") for run in ("first", "second"))
    assert start.keys() == end.keys()
    assert all(torch.equal(value, end[name]) for name, value in start.items())
    before = second.net.codec.quantizer.codebooks.clone()
    decay = replace(RUN.codebooks, decay=1.0, restart_below=0.0)
    third = Trainer(replace(RUN, codebooks=decay), recordings, tmp_path / "third", weights=weights)
    third.train_step()
    torch.testing.assert_close(third.net.codec.quantizer.codebooks, before, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="leave the others out"):
        Trainer(RUN, recordings, tmp_path / "first", resume=True, weights=weights)


def test_stops_after_a_step(recordings: Path, tmp_path: Path) -> None:
    trainer = Trainer(RUN, recordings, tmp_path)
    trainer.stop()
    trainer.run()
    assert trainer.step == 1 and checkpoint(tmp_path)[".step"] == 1


def test_refuses_to_start_over_and_to_resume_nothing(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Trainer(RUN, recordings, tmp_path, resume=True)
    Trainer(replace(RUN, steps=0), recordings, tmp_path).run()
    with pytest.raises(ValueError, match="exists already"):
        Trainer(RUN, recordings, tmp_path)
    with pytest.raises(ValueError, match="no preset 'tinny'; known: .*tiny"):
        Trainer(replace(RUN, preset="tinny"), recordings, tmp_path / "other")
    with pytest.raises(ValueError, match="FactorisedQuantizer"):
        Trainer(replace(RUN, preset="dac_16khz"), recordings, tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("presett = 'x'", "unknown setting presett; known: preset, steps"),
        ("[data]\nbatch = 1.5", "data: batch must be int, got 1.5"),
        (
            "[data.augmentation]\nspeed = [1.0]",
            r"augmentation: speed must be tuple\[float, float\]",
        ),
        ("[codebooks]\nsmoothing = 'lapplace'", "smoothing must be .*'laplace', 'floor'"),
        ("steps = true", "steps must be int, got True"),
        ("data = 3", "data must be Data, got 3"),
        ("a = ", "not a TOML file"),
    ],
)
def test_wrong_settings_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        config.read(tmp_path / "recipe.toml")


def test_the_recipe_of_the_embedded_codec_reads() -> None:
    recipes = Path(config.__file__).parent / "recipes"
    settings = config.read(recipes / "fastcodec_16khz.toml")
    assert settings.preset in embedded.PRESETS
    as_json = json.loads(json.dumps(asdict(settings)))
    assert config.from_table(TrainConfig, as_json, "") == settings


def test_the_embedded_codec_is_small() -> None:
    codec = embedded.build("fastcodec_16khz")
    count = sum(value.numel() for value in codec.state_dict().values())
    assert count <= 2_500_000 and 2 * count <= 5_000_000
    assert codec.hop == 320 and codec.encoder.lookahead <= 319 and codec.info.kbps == 4.0


def test_command(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("preset = 'tiny'\n[data]\ncrop_s = 0.2\nbatch = 2\nheld_out_percent = 30.0\n")
    command = ["train", "-d", str(recordings), "-o", str(tmp_path / "run"), "--recipe", str(recipe)]
    for extra in (["--steps", "1"], ["--steps", "2", "--resume"]):
        with pytest.raises(SystemExit) as exit:
            main([*command, *extra])
        assert exit.value.code == 0
    assert "2 steps" in capsys.readouterr().out and checkpoint(tmp_path / "run")[".step"] == 2


def test_two_processes_keep_equal_codebooks(recordings: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(port), str(recordings), str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.pop("batch").ne(second.pop("batch")).any()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert (tmp_path / "run/tiny.safetensors").exists() and len(curve(tmp_path / "run")) == 3


def _one_of_two(port: str, recordings: Path, folder: Path, rank: str) -> None:
    """What this file does when it is run as a program."""
    os.environ |= {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    encodec.PRESETS["tiny"] = TINY
    trainer = Trainer(PLAYED, recordings, folder / "run")
    assert isinstance(trainer.model, nn.parallel.DistributedDataParallel)
    trainer.run()
    state = trainer.net.state_dict() | trainer.average.state_dict(prefix="average.")
    generator = trainer.generator.manual_seed(int(rank))
    batch = data.batch(trainer.tape, 1, 320, generator, PLAYED.data.augmentation)
    torch.save(state | {"batch": batch}, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _one_of_two(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
