"""DAC beside descript-audio-codec 1.0.0 and transformers' DacModel, live; its files, both ways."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcodec.codecs import dac, dac_chunks, dac_signal
from fastcodec.codecs.dac import Dac, DacConfig
from fastcodec.errors import WeightsError
from fastcodec.io.dac_file import DacFile, read_dac, write_dac

from .. import nets, oracles
from ..backends import needs_native, threads
from ..golden import compare
from ..golden.run_dac import margins
from ..golden.run_encodec import record_latents

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]

TOLERANCE = 1e-4  # of the rms; two float32 implementations differ by about 1e-5
EPSILON = 1e-4  # between unit vectors: a gap that rounding may decide
RATE_HZ = 16000
KWARGS: dict[str, dict[str, Any]] = {
    "even": {
        "encoder_dim": 8, "encoder_rates": [2, 4], "decoder_dim": 32, "decoder_rates": [4, 2],
        "n_codebooks": 4, "codebook_size": 64, "codebook_dim": 4, "latent_dim": 24,
    },
    "odd": {
        "encoder_dim": 8, "encoder_rates": [3, 5], "decoder_dim": 32, "decoder_rates": [5, 3],
        "n_codebooks": 4, "codebook_size": 50, "codebook_dim": 8, "latent_dim": None,
    },
}  # fmt: skip


@torch.no_grad()
def lively(net: Any, last: Any) -> Any:
    """A net whose every parameter matters, and whose latents are centred, for codes that vary.

    Upstream starts with biases of 0 and alphas of 1. ``last``: convolution of the encoder.
    """
    g = nets.generator(1)
    for name, value in net.named_parameters():
        if name.endswith("alpha"):
            value.uniform_(0.5, 1.5, generator=g)
        elif name.endswith("bias"):
            value.normal_(0, 0.05, generator=g)
    latents = net.encoder(signal(1, 1, 100 * 30))[0]
    scale = latents.std(dim=1)
    weight = last.weight_g if hasattr(last, "weight_g") else last.weight
    weight /= scale[:, None, None]
    last.bias.copy_((last.bias - latents.mean(dim=1)) / scale)
    return net.eval().requires_grad_(False)


@functools.cache
def pair(name: str) -> tuple[Any, Dac]:
    """Upstream's model, and ours with its weights."""
    kwargs = {**KWARGS[name], "sample_rate": RATE_HZ, "quantizer_dropout": 0.5}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = oracles.descript().DAC(**kwargs)
    lively(theirs, theirs.encoder.block[-1])
    ours = dac.build("small", dac.from_upstream(kwargs))
    ours.load_weights({"state_dict": theirs.state_dict(), "metadata": {"kwargs": kwargs}})
    return theirs, ours.eval().requires_grad_(False)


def signal(*shape: int, seed: int = 0) -> Tensor:
    return nets.signal(*shape, seed=seed) * 3


def assert_close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= TOLERANCE * want.square().mean().sqrt()


def assert_codes(ours: Dac, got: Tensor, want: Tensor, latents: Tensor) -> None:
    """Equal, or excused by their margin."""
    assert got.shape == want.shape
    for row, other, margin in zip(got, want, margins(ours, latents, want), strict=True):
        compare.codes(row.numpy(), other.numpy(), margin.numpy(), EPSILON)


@pytest.mark.parametrize("frames", [0, 1, 2, 37])
@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("name", KWARGS)
def test_against_upstream(name: str, frames: int, over: int) -> None:
    theirs, ours = pair(name)
    length = frames * ours.hop + over
    if length < 1:
        return
    wav = signal(2, 1, length)
    padded = theirs.preprocess(wav, RATE_HZ)
    _, codes, latents, _, _ = theirs.encode(padded)
    got = ours.encode(wav)
    encoded = ours.encoder(wav)
    assert_close(encoded, theirs.encoder(padded))
    assert_codes(ours, got.tokens, codes, encoded)
    if torch.equal(got.tokens, codes):
        assert_close(ours.latents(wav), latents)
    z = theirs.quantizer.from_codes(codes)[0]
    want = theirs.decode(z)
    assert_close(ours.decode(codes), want)  # as long as upstream's: short of odd strides' samples
    heard = ours.decode(replace(got, tokens=codes))
    assert heard.shape == wav.shape
    assert_close(heard[..., : want.shape[2]], want[..., :length])


def test_the_oracles_codes_vary() -> None:
    """Otherwise equal codes would say little."""
    for name in KWARGS:
        theirs, ours = pair(name)
        codes = theirs.encode(signal(1, 1, 60 * ours.hop))[1][0]
        assert codes.unique(dim=1).shape[1] >= 0.8 * codes.shape[1]


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_codebooks_and_latents(count: int) -> None:
    theirs, ours = pair("odd")
    wav = signal(2, 1, 20 * ours.hop)
    codes, latents = theirs.encode(wav, count)[1:3]
    assert torch.equal(ours.encode(wav, count).tokens, codes)
    assert_close(ours.latents(wav, count), latents)
    assert torch.equal(ours.tokens_of(latents), theirs.quantizer.from_latents(latents)[2])


def test_latents_of_another_width() -> None:
    with pytest.raises(ValueError, match="K \\* 8"):
        pair("odd")[1].tokens_of(torch.zeros(1, 12, 5))


def test_odd_strides_give_fewer_samples() -> None:
    net = pair("odd")[1]
    for frames in (1, 2, 9):
        lost = 1 * 3 + 1  # by stride 5, each worth 3 samples, then by stride 3
        assert (
            net.decode(torch.zeros(1, 4, frames, dtype=torch.int64)).shape[2] == 15 * frames - lost
        )
    whole = net.encode(signal(1, 1, 30))
    assert not net.decode(whole)[..., -4:].any()


def test_transformers_folder(tmp_path: Path) -> None:
    """A model saved by ``save_pretrained``: codes, projections and audio."""
    package = oracles.transformers()
    config = package.DacConfig(
        encoder_hidden_size=8, decoder_hidden_size=32, downsampling_ratios=[2, 5], n_codebooks=4,
        codebook_size=64, codebook_dim=4, sampling_rate=RATE_HZ,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = package.DacModel(config)
    lively(theirs, theirs.encoder.conv2)
    theirs.save_pretrained(tmp_path)
    read = dac.from_transformers(json.loads((tmp_path / "config.json").read_text()))
    ours = dac.build("small", read)
    ours.load_weights(tmp_path / "model.safetensors")
    ours.eval().requires_grad_(False)
    wav = signal(2, 1, 60 * ours.hop)
    want = theirs.encode(wav)
    codes = want.audio_codes
    assert codes[0].unique(dim=1).shape[1] >= 48
    assert_codes(ours, ours.encode(wav).tokens, codes, ours.encoder(wav))
    assert_close(ours.decode(codes)[:, 0], theirs.decode(audio_codes=codes).audio_values)


def test_weights_that_do_not_fit() -> None:
    theirs, ours = pair("even")
    state = theirs.state_dict()
    del state["encoder.block.1.block.0.block.2.alpha"]
    state["decoder.model.1.block.1.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        dac.build("small", ours.config).load_weights(state)
    message = str(caught.value)
    assert "missing: encoder.block.1.block.0.block.2.alpha" in message
    assert "wrong shape: decoder.model.1.block.1.bias" in message


@pytest.mark.parametrize(
    "change",
    [
        {"causal": True}, {"encoder_rates": [2, 1, 4]}, {"encoder_rates": [2, 8]},
        {"encoder_rates": 8}, {"encoder_rates": [2.0, 4.0]}, {"n_codebooks": 0},
        {"codebook_dim": [4, 8]}, {"codebook_dim": "8"}, {"sample_rate": True},
    ],
)  # fmt: skip
def test_settings_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=next(iter(change)).split("_")[-1]):
        dac.from_upstream({**KWARGS["even"], **change})


def test_settings_that_are_read() -> None:
    sizes = {"codebook_dim": [4, 4], "latent_dim": None, "quantizer_dropout": 0.5}
    config = dac.from_upstream({**KWARGS["even"], **sizes})
    assert config == DacConfig(44100, 8, (2, 4), None, 32, (4, 2), 4, 64, 4)
    preset = replace(dac.PRESETS["dac_44khz"], hub="", licence="")
    assert dac.from_upstream({}) == dac.from_upstream({"latent_dim": 1024}) == preset
    with pytest.raises(WeightsError, match="snac"):
        dac.from_transformers({"model_type": "snac"})
    with pytest.raises(WeightsError, match="use_magic"):
        dac.from_transformers({"model_type": "dac", "use_magic": True})


# name: (channels, rate in Hz, samples, arguments of compress)
FILES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "short, mono": (1, 16000, 1501, {"win_duration": 0.5}),
    "short, stereo, another rate": (2, 22050, 4001, {"win_duration": 0.5}),
    "windows, mono": (1, 16000, 9001, {"win_duration": 0.1}),
    "windows, stereo, another rate": (2, 24000, 20011, {"win_duration": 0.13}),
    "windows, two codebooks, not normalised": (
        1, 16000, 8000, {"win_duration": 0.2, "n_quantizers": 2, "normalize_db": None},
    ),
    "whole, loud": (2, 8000, 5003, {"win_duration": None, "normalize_db": -1.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", KWARGS)
@pytest.mark.parametrize("case", FILES)
def test_files_are_upstreams(name: str, case: str, tmp_path: Path) -> None:
    """Ours read by upstream, upstream's read by us: codes, metadata and what is heard."""
    channels, rate_hz, length, arguments = FILES[case]
    theirs, ours = pair(name)
    wav = signal(channels, length) * torch.tensor([[1.0], [0.3]])[:channels]
    sound = oracles.descript("audiotools").AudioSignal(wav[None].clone(), rate_hz)
    theirs.compress(sound, **arguments).save(tmp_path / "theirs.dac")
    file = read_dac(tmp_path / "theirs.dac")
    assert file.padding == ("windows" not in case)

    renamed = {"win_duration": "win_duration_s"}
    given = {renamed.get(key, key): value for key, value in arguments.items()}
    latents = record_latents(ours)
    made = dac_chunks.compress(ours, wav, rate_hz, **given)
    del ours.quantizer.encode
    want = torch.from_numpy(file.codes)
    assert_codes(ours, torch.from_numpy(made.codes), want, torch.cat(latents, dim=2))
    assert np.allclose(made.input_db, file.input_db, rtol=0, atol=1e-4)
    assert metadata(made) == metadata(file)

    write_dac(file, tmp_path / "ours.dac")
    for path in ("theirs.dac", "ours.dac"):
        heard = theirs.decompress(tmp_path / path)
        own, own_rate_hz = dac_chunks.decompress(ours, read_dac(tmp_path / path))
        assert own_rate_hz == heard.sample_rate == rate_hz
        assert_close(own, heard.audio_data)


def metadata(file: DacFile) -> dict[str, Any]:
    return {k: v for k, v in vars(file).items() if k not in ("codes", "input_db")}


@pytest.mark.parametrize("name", KWARGS)
@pytest.mark.parametrize("channels, length", [(1, 700), (2, 24001)])
def test_files_of_codes(name: str, channels: int, length: int, tmp_path: Path) -> None:
    """Codes of whole signals of any length, streamed by us, decode in upstream to the same."""
    theirs, ours = pair(name)
    codes = ours.encode(
        signal(channels, 1, length) * torch.tensor([1.0, 0.2])[:channels, None, None]
    )
    write_dac(dac_chunks.file_of(ours, codes), tmp_path / "x.dac")
    file = read_dac(tmp_path / "x.dac")
    back = file.to_codes("small", RATE_HZ, ours.hop)
    assert torch.equal(back.tokens, codes.tokens) and torch.equal(back.n_samples, codes.n_samples)
    own, rate_hz = dac_chunks.decompress(ours, file)
    assert own.shape == (1, channels, length) and rate_hz == RATE_HZ
    assert_close(own, ours.decode(codes)[None, :, 0])
    assert_close(own, theirs.decompress(tmp_path / "x.dac").audio_data)
    half = dac_chunks.decompress(ours, dac_chunks.file_of(ours, codes, -30.0))[0]
    levels = dac_signal.loudness(half[0, :, None], RATE_HZ)
    assert (levels + 30).abs().max() < 0.01


def test_a_length_that_upstream_cannot_decode() -> None:
    """Whole frames of an odd stride decode to less than the signal: here zeros take the place."""
    theirs, ours = pair("odd")
    file = dac_chunks.compress(ours, signal(1, 150), RATE_HZ)
    heard = dac_chunks.decompress(ours, file)[0]
    assert heard.shape == (1, 1, 150) and not heard[..., -4:].any() and heard[..., :-4].any()


def test_what_is_no_file_of_this_codec() -> None:
    ours = pair("even")[1]
    file = dac_chunks.compress(ours, signal(1, 4000), RATE_HZ, 0.1)
    with pytest.raises(ValueError, match="windows"):
        file.to_codes("small", RATE_HZ, ours.hop)
    with pytest.raises(ValueError, match="4000000"):
        dac_chunks.decompress(ours, replace(file, original_length=4_000_000))
    with pytest.raises(ValueError, match="too short"):
        dac_chunks.decompress(ours, replace(file, chunk_length=1))
    with pytest.raises(ValueError, match="tokens"):
        dac_chunks.decompress(ours, replace(file, codes=file.codes + 64))
    with pytest.raises(ValueError, match="win_duration_s"):
        dac_chunks.compress(ours, signal(1, 4000), RATE_HZ, 0.001)
    with pytest.raises(ValueError, match="finite"):
        dac_chunks.compress(ours, torch.full((1, 40), math.nan), RATE_HZ)
    with pytest.raises(ValueError, match="floats"):
        dac_chunks.compress(ours, torch.zeros(1, 0), RATE_HZ)


@pytest.mark.parametrize(
    "from_hz, to_hz, length",
    [(22050, 24000, 2811), (44100, 16000, 500), (8000, 24000, 11), (16000, 8000, 1), (7, 7, 5)],
)
def test_resampling_is_juliuss(from_hz: int, to_hz: int, length: int) -> None:
    import julius

    wav = signal(2, 1, length)
    want = julius.resample_frac(wav, from_hz, to_hz)
    torch.testing.assert_close(dac_signal.resample(wav, from_hz, to_hz), want, atol=1e-6, rtol=0)


def test_resampling_between_any_rates() -> None:
    """44 100 filters of 54 samples, or one of 2.2 million: in memory piece by piece."""
    wav = signal(1, 3000)
    near = dac_signal.resample(wav, 44101, 44100)
    assert (near[0, 500:600] - wav[0, 500:600]).abs().max() < 0.2
    assert dac_signal.resample(wav.expand(1, -1).repeat(1, 30), 44100, 1).shape == (1, 2)


@pytest.mark.parametrize(
    "rate_hz, length, channels, level",
    [
        (16000, 20011, 1, 0.1), (44100, 30000, 2, 0.3), (24000, 3000, 1, 0.2), (16000, 16000, 1, 0),
        (16000, 9000, 1, 1e-4), (22050, 22051, 5, 0.5), (16000, 1, 1, 0.5),
    ],
)  # fmt: skip
def test_loudness_is_audiotools(rate_hz: int, length: int, channels: int, level: float) -> None:
    wav = level * torch.randn(2, channels, length, generator=nets.generator(0))
    wav[..., length // 2 :] *= 0.05
    want = oracles.descript("audiotools").AudioSignal(wav.clone(), rate_hz).loudness()
    torch.testing.assert_close(dac_signal.loudness(wav, rate_hz), want, atol=1e-4, rtol=0)


@functools.cache
def own(name: str) -> Dac:
    """A small net that needs no oracle."""
    torch.manual_seed(0)
    net = dac.build("small", dac.from_upstream({**KWARGS[name], "sample_rate": 8000}))
    lively(net, net.encoder.layers[-1])
    return net


@needs_native
def test_windows_do_not_depend_on_each_other_or_on_threads() -> None:
    net, wav = own("odd"), signal(2, 6000)
    together = dac_chunks.compress(net, wav, 8000, 0.1, normalize_db=None)
    with threads(2):
        alone = dac_chunks.compress(net, wav[1], 8000, 0.1, normalize_db=None)
    assert np.array_equal(together.codes[1], alone.codes[0])


def test_the_unpadded_form_shares_its_weights() -> None:
    net = own("even")
    twin = net.unpadded()
    ours, theirs = dict(net.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in ours)
    assert not twin.training
