"""The codec of the package: its weights are there, small, and really code speech."""

from __future__ import annotations

from importlib.resources import files

import pytest
import torch

import fastcodec
from fastcodec import demo, metrics
from fastcodec.io import audio, model_file


@pytest.fixture(scope="module")
def codec() -> fastcodec.Codec:
    return fastcodec.load("fastcodec_16khz")


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """[1, S] of the bundled clip, which is no part of what the weights were trained on."""
    return audio.read(demo.clip_path())[0]


def test_facts(codec: fastcodec.Codec) -> None:
    info = codec.info
    assert (info.sample_rate_hz, info.frame_rate_hz, info.channels) == (16_000, 50.0, 1)
    assert (info.n_codebooks, info.codebook_size, info.kbps) == (8, 1024, 4.0)
    assert info.bandwidths_kbps[0] == 0.5 and info.streamable and info.latency == 0
    assert info.parameters <= 2_500_000


def test_the_weights_are_in_the_package_and_say_what_they_are(codec: fastcodec.Codec) -> None:
    path = files("fastcodec") / "assets" / "fastcodec_16khz.safetensors"
    found = model_file.read(str(path))
    assert found is not None and found[0].name == "fastcodec_16khz"
    assert 1e5 < len(path.read_bytes()) <= 5e6
    same = fastcodec.load(weights=str(path))
    assert same.info == codec.info
    for name, value in same.state_dict().items():
        assert torch.equal(value, codec.state_dict()[name]) and value.isfinite().all(), name


def test_speech_comes_back(codec: fastcodec.Codec, speech: torch.Tensor) -> None:
    """Better than silence, and the better the more codebooks."""
    codes = codec.encode(speech)
    silence = demo.log_mel_distance_db(speech, torch.zeros_like(speech), 16_000)
    backs = [codec.decode(codes.truncate(count))[0] for count in (1, 2, 4, 8)]
    far = [demo.log_mel_distance_db(speech, back, 16_000) for back in backs]
    assert far == sorted(far, reverse=True) and far[0] < silence / 2
    # The waveform is followed, not only the spectrum.
    assert metrics.si_sdr_db(speech[0], backs[0][0]) < metrics.si_sdr_db(speech[0], backs[-1][0])


def test_speech_at_4_kbps_is_as_intelligible_as_when_shipped(
    codec: fastcodec.Codec, speech: torch.Tensor
) -> None:
    """0.85 here and 0.86 over the clips of the README's table; something is left for rounding."""
    assert metrics.stoi(speech[0], codec.decode(codec.encode(speech))[0, 0]) >= 0.84


def test_every_codebook_is_used(codec: fastcodec.Codec, speech: torch.Tensor) -> None:
    """Of 467 frames: dead codebooks would repeat a handful of words."""
    used = metrics.codebook_usage([codec.encode(speech)], 1024)
    assert min(usage.perplexity for usage in used) > 50


def test_a_stream_is_the_whole_signal(codec: fastcodec.Codec, speech: torch.Tensor) -> None:
    wav = speech[None, :, :16_123]
    stream = codec.stream(n_codebooks=4)
    cuts = [0, 1, 700, 701, 9_000, 16_123]
    pieces = [wav[..., a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    parts = [stream.encode(p, final=i == 4) for i, p in enumerate(pieces)]
    whole = codec.encode(wav, n_codebooks=4)
    if codec.info.invariant:
        assert torch.equal(fastcodec.join(parts).tokens, whole.tokens)
