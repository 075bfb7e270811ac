"""What a codec refuses, with a message that says what, what was expected and what came."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastcodec
from fastcodec import Codec, Codes, WeightsError
from fastcodec.codecs import lyra
from fastcodec.codecs.encodec import Encodec, transformers_name

from .. import nets

pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def small() -> Encodec:
    return nets.encodec()


@functools.cache
def segmented() -> Encodec:
    return nets.encodec(causal=False, norm="time_group_norm", channels=2, segment=80, stride=72)


@functools.cache
def lyra_v2() -> Codec:
    return lyra.build("lyra_v2").eval().requires_grad_(False)


WAV = nets.signal(1, 1, 100)


def with_value(value: float, row: int, sample: int) -> Tensor:
    wav = nets.signal(2, 1, 2000)
    wav[row, 0, sample] = value
    return wav


@pytest.mark.parametrize(
    "wav, message",
    [
        (torch.zeros(0), r"at least 1 sample\(s\) of at least one signal, got \[1, 1, 0\]"),
        (torch.zeros(2, 1, 0), r"at least 1 sample.*got \[2, 1, 0\]"),
        (torch.zeros(0, 1, 10), r"at least one signal, got \[0, 1, 10\]"),
        ([], "the list of signals is empty"),
        ([WAV[0, 0], torch.zeros(0)], r"wav\[1\] must hold at least 1 sample"),
        ([torch.zeros(2, 1, 9)], r"a list holds signals \[S\] or \[C, S\], not batches"),
        (with_value(float("nan"), 1, 1234), "finite, got nan at row 1, channel 0, sample 1234"),
        (with_value(float("inf"), 0, 0), "finite, got inf at row 0, channel 0, sample 0"),
        (with_value(float("-inf"), 1, 1999), "finite, got -inf at row 1, channel 0, sample 1999"),
        ([WAV[0], with_value(float("nan"), 1, 7)[1]], "finite, got nan at .*sample 7"),
        (torch.zeros(100, dtype=torch.int16), "floats in -1..1, got torch.int16; divide 16-bit"),
        (np.zeros(100, np.int32), "floats in -1..1, got torch.int32"),
        (torch.zeros(100, dtype=torch.bool), "floats in -1..1, got torch.bool"),
        (torch.zeros(100, dtype=torch.complex64), "floats in -1..1, got torch.complex64"),
        (torch.zeros(2, 100), r"must be \[B, 1, S\] or \[1, S\] for small, got \[1, 2, 100\]"),
        (torch.zeros(1, 2, 100), r"for small, got \[1, 2, 100\]"),
        (torch.zeros(1, 1, 1, 100), r"for small, got \[1, 1, 1, 100\]"),
        (torch.tensor(0.5), r"for small, got \[\]"),
        ("speech.wav", "must be a tensor or an array, got str"),
        (None, "must be a tensor or an array, got NoneType"),
        ([1.0, 2.0], r"wav\[0\] must be a tensor or an array, got float"),
    ],
)
def test_signals(wav: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().encode(wav)


def test_signals_of_other_codecs() -> None:
    with pytest.raises(ValueError, match=r"must be \[B, 2, S\] or \[2, S\]"):
        segmented().encode(torch.zeros(100))
    with pytest.raises(ValueError, match=r"\[B, 2, S\].*got \[1, 1, 100\]"):
        segmented().encode(torch.zeros(1, 100))
    with pytest.raises(ValueError, match="finite, got nan at row 0, channel 1, sample 150"):
        wav = nets.signal(1, 2, 200)
        wav[0, 1, 150] = float("nan")
        segmented().encode(wav)
    with pytest.raises(ValueError, match=r"at least 320 sample\(s\) of .*got \[1, 1, 319\]"):
        lyra_v2().encode(torch.zeros(319))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_rate_hz": 16000}, "small takes 800 Hz, got 16000 Hz; resample first"),
        ({"n_codebooks": 0}, "n_codebooks: small has 1 to 4, got 0"),
        ({"n_codebooks": 5}, "n_codebooks: small has 1 to 4, got 5"),
        ({"n_codebooks": -1}, "small has 1 to 4, got -1"),
        ({"bandwidth_kbps": 7.0}, r"bandwidth_kbps: small has \(0.5, 1.0, 2.0\), got 7.0"),
        ({"n_codebooks": 2, "bandwidth_kbps": 1.0}, "n_codebooks or bandwidth_kbps, not both"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().encode(WAV, **options)
    options.pop("sample_rate_hz", None)
    if options:
        with pytest.raises(ValueError, match=message):
            small().stream(1, **options)


def test_the_right_rate_passes() -> None:
    assert small().encode(WAV, sample_rate_hz=800).tokens.shape == (1, 4, 13)


TOKENS = torch.zeros(1, 4, 6, dtype=torch.int64)


def token(value: int) -> Tensor:
    tokens = TOKENS.clone()
    tokens[0, 3, 5] = value
    return tokens


@pytest.mark.parametrize(
    "tokens, message",
    [
        (TOKENS[0], r"must be \[B, K <= 4, T\] int64 for small, got \[4, 6\]"),
        (TOKENS.to(torch.int32), r"int64 for small, got \[1, 4, 6\] torch.int32"),
        (TOKENS.float(), "torch.float32"),
        (TOKENS.repeat(1, 2, 1), r"K <= 4.*got \[1, 8, 6\]"),
        (TOKENS[:, :0], r"got \[1, 0, 6\]"),
        (TOKENS[..., :0], r"no frames in tokens \[1, 4, 0\]"),
        (TOKENS[:0], r"no frames in tokens \[0, 4, 6\]"),
        (token(32), r"must be 0..31 for small, got 0..32"),
        (token(-1), r"got -1..0 \(-1 marks padding: cut each row to its length\)"),
        (token(-7), r"must be 0..31 for small, got -7..0"),
    ],
)
def test_tokens(tokens: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().decode(tokens)
    if tokens.ndim == 3 and tokens.numel():
        with pytest.raises(ValueError, match=message):
            small().stream().decode(tokens)


def test_codes_that_do_not_fit() -> None:
    codes = small().encode(WAV)
    with pytest.raises(ValueError, match="these codes are of 'lyra_v2', this is 'small'"):
        small().decode(replace(codes, codec="lyra_v2"))
    with pytest.raises(ValueError, match=r"tokens must be \[B, K, T\] int64"):
        Codes(codes.tokens[0], 100.0, codes.n_samples, "small")
    with pytest.raises(ValueError, match=r"n_samples must be \[1\] int64"):
        Codes(codes.tokens, 100.0, torch.tensor(100), "small")


@pytest.mark.parametrize("n_samples", [0, -3, 105, 10**9, 2**62])
def test_codes_of_another_length_than_they_say(n_samples: int) -> None:
    """13 frames are of 97 to 104 samples."""
    codes = replace(small().encode(WAV), n_samples=torch.tensor([n_samples]))
    with pytest.raises(
        ValueError, match=rf"n_samples must be 1 to what 13 frames.*got {n_samples}"
    ):
        small().decode(codes)


def test_codes_of_nothing() -> None:
    with pytest.raises(ValueError, match="n_samples must be 1 to"):
        small().decode(small().encode(WAV)[[]])
    segments = segmented().encode(nets.signal(1, 2, 200))
    with pytest.raises(ValueError, match="n_samples must be 1 to"):
        segmented().decode(replace(segments, n_samples=torch.tensor([2**62])))


def test_segmented_codes_need_their_scale() -> None:
    codes = segmented().encode(nets.signal(1, 2, 200))
    assert codes.scale is not None and codes.scale.shape == (1, 3)
    for scale in (None, codes.scale[:, :2]):
        with pytest.raises(ValueError, match=r"Codes.scale \[B, 3\]"):
            segmented().decode(replace(codes, scale=scale))
    with pytest.raises(ValueError, match="needs Codes with scale and n_samples, not bare tokens"):
        segmented().decode(codes.tokens)


def test_streams() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        small().stream(0)
    with pytest.raises(ValueError, match="small does not stream: group normalisation.*use encode"):
        segmented().stream()
    stream = small().stream(2)
    for chunk in (torch.zeros(1, 1, 5), torch.zeros(2, 2, 5), torch.zeros(5)):
        with pytest.raises(ValueError, match=r"a chunk must be \[2, 1, n\] floats"):
            stream.encode(chunk)
    with pytest.raises(ValueError, match="torch.int64"):
        stream.encode(torch.zeros(2, 1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="this stream has 2 rows, got 1"):
        stream.decode(TOKENS)


def test_what_was_refused_has_not_moved_the_stream() -> None:
    wav = nets.signal(1, 1, 300)
    broken = wav[..., 100:200].clone()
    broken[0, 0, 3] = float("nan")
    stream = small().stream()
    tokens = [stream.encode(wav[..., :100]).tokens]
    with pytest.raises(ValueError, match="finite, got nan at row 0, channel 0, sample 103"):
        stream.encode(broken)
    tokens.append(stream.encode(wav[..., 100:], final=True).tokens)
    assert torch.equal(torch.cat(tokens, dim=2), small().encode(wav).tokens)


def test_a_stream_ends_once() -> None:
    stream = small().stream()
    with pytest.raises(ValueError, match="the signal ended without a sample"):
        stream.encode(WAV[..., :0], final=True)
    codes = stream.encode(WAV, final=True)
    for final in (False, True):
        with pytest.raises(ValueError, match="has had its final chunk; make a new one"):
            stream.encode(WAV, final=final)
    stream.decode(codes, final=True)
    with pytest.raises(ValueError, match="has had its final codes; make a new one"):
        stream.decode(codes)


SMALL = {**nets.STREAMING, **nets.WHOLE}
every_net = pytest.mark.parametrize("name", SMALL)
Call = Callable[[], object]


@functools.cache
def built(name: str) -> Codec:
    return SMALL[name]()


def refuse(calls: list[tuple[Call, str]]) -> None:
    for i, (call, message) in enumerate(calls):
        try:
            call()
        except ValueError as error:
            assert re.search(message, str(error)), f"{i}: {message!r} expected, got: {error}"
        else:
            pytest.fail(f"{i}: nothing was refused where {message!r} is expected")


@every_net
def test_every_codec_refuses_signals(name: str) -> None:
    net = built(name)
    wav = nets.signal(2, net.channels, 40 * net.hop * net.frame_multiple)
    holes = wav.clone()
    holes[1, -1, 77] = float("nan")
    rate_hz, most = net.sample_rate_hz, net.quantizer.n_codebooks
    refuse([
        (lambda: net.encode(holes), "finite, got nan at row 1, channel . sample 77"
         .replace(". ", f"{net.channels - 1}, ")),
        (lambda: net.encode([wav[0], holes[1]]), "finite, got nan at .*sample 77"),
        (lambda: net.encode(wav[..., :0]), r"must hold at least \d+ sample.*got \[2, ., 0\]"),
        (lambda: net.encode(wav[:0]), r"at least one signal, got \[0, "),
        (lambda: net.encode(wav[:, :0]), rf"must be \[B, {net.channels}, S\].*got \[2, 0, "),
        (lambda: net.encode(torch.cat([wav, wav[:, :1]], 1)), r"must be \[B, .*got \[2, "),
        (lambda: net.encode(wav[None]), r"must be \[B, .*got \[1, 2, "),
        (lambda: net.encode(wav.to(torch.int16)), "floats in -1..1, got torch.int16"),
        (lambda: net.encode("speech.wav"), "tensor or an array, got str"),
        (lambda: net.encode([]), "list of signals is empty"),
        (lambda: net.encode([wav[0], wav]), "not batches"),
        (lambda: net.encode(wav, sample_rate_hz=rate_hz + 1), f"{rate_hz} Hz, got {rate_hz + 1}"),
        (lambda: net.encode(wav, 0), f"has 1 to {most}, got 0"),
        (lambda: net.encode(wav, most + 1), f"has 1 to {most}, got {most + 1}"),
        (lambda: net.encode(wav, bandwidth_kbps=0.123), r"bandwidth_kbps: .* has \(.*got 0.123"),
        (lambda: net.encode(wav, 1, 0.123), "not both"),
        (lambda: net.encode(wav, segment_s=0.0), "segment_s"),
        (lambda: net.encode(wav, segment_s=-1.0), "segment_s"),
        (lambda: net.encode(wav, segment_s=float("nan")), "segment_s"),
    ])  # fmt: skip


@every_net
def test_every_codec_refuses_codes(name: str) -> None:
    net = built(name)
    codes = net.encode(nets.signal(2, net.channels, 40 * net.hop * net.frame_multiple))
    most, size = net.quantizer.n_codebooks, net.quantizer.codebook_size
    high, low = codes.tokens.clone(), codes.tokens.clone()
    high[1, -1, 3], low[0, 0, 0] = size, -1

    def other(**changes: Any) -> Call:
        return lambda: net.decode(replace(codes, **changes))

    def lasting(n_samples: int) -> Call:
        return other(n_samples=torch.full((2,), n_samples))

    wide = codes.tokens.repeat(1, 2, 1)
    frames = codes.tokens.shape[2]
    calls = [
        (other(codec="mp3"), f"codes are of 'mp3', this is '{net.name}'"),
        (lasting(0), "n_samples must be 1 to what .* got 0 to 0"),
        (lasting(-5), "got -5 to -5"),
        (lasting(2**62), f"got {2**62} to {2**62}"),
        (lasting((frames + net.frame_multiple) * net.hop + 1), "n_samples must be 1 to what"),
        (other(tokens=high), rf"tokens must be 0..{size - 1} .*got \d+..{size}"),
        (other(tokens=low), r"got -1..\d+ \(-1 marks padding"),
        (other(tokens=wide, hold=None), rf"K <= {most}, T\] int64 .*got \[2, {2 * most}, "),
    ]
    if codes.scale is None:
        tokens = codes.tokens
        calls += [
            (lambda: net.decode(tokens[0]), rf"\[B, K <= {most}, T\] int64 .*got \[{most}, "),
            (lambda: net.decode(tokens.float()), "int64 .* torch.float32"),
            (lambda: net.decode(tokens[..., :0]), r"no frames in tokens \[2, "),
            (lambda: net.decode(tokens[:0]), r"no frames in tokens \[0, "),
            (lambda: net.decode(tokens[:, :0]), r"got \[2, 0, "),
            (lambda: net.decode(wide), rf"got \[2, {2 * most}, "),
            (lambda: net.decode(high), f"got .*{size}"),
        ]
    refuse(calls)


@every_net
def test_every_codec_refuses_what_does_not_stream(name: str) -> None:
    net = built(name)
    most = net.quantizer.n_codebooks
    if net.encoder.not_streamable_because and net.decoder.not_streamable_because:
        refuse([(net.stream, "does not stream: .*use encode and decode")])
        return
    refuse([
        (lambda: net.stream(0), "batch_size must be at least 1, got 0"),
        (lambda: net.stream(1, most + 1), f"has 1 to {most}, got {most + 1}"),
    ])  # fmt: skip
    wav = nets.signal(2, net.channels, 40 * net.hop * net.frame_multiple)
    codes, stream = net.encode(wav), net.stream(2)
    wrong = codes.tokens.clone()
    wrong[0, 0, 0] = net.quantizer.codebook_size
    refuse([
        (lambda: stream.decode(codes[0]), "has 2 rows, got 1"),
        (lambda: stream.decode(wrong), f"tokens must be 0..{net.quantizer.codebook_size - 1}"),
        (lambda: stream.decode(codes.tokens.float()), "int64 .*torch.float32"),
        (lambda: stream.decode(codes.tokens[:, 0]), r"\[B, K <= "),
        (lambda: stream.decode(replace(codes, codec="mp3")), "codes are of 'mp3'"),
    ])  # fmt: skip
    stream.decode(codes, final=True)
    refuse([(lambda: stream.decode(codes), "has had its final codes; make a new one")])
    if net.encoder.not_streamable_because:
        refuse([(lambda: stream.encode(wav), "encodes whole signals only")])
        return
    holes = wav.clone()
    holes[1, 0, 5] = float("inf")
    chunk = rf"a chunk must be \[2, {net.channels}, n\] floats, got"
    refuse([
        (lambda: stream.encode(wav[:1]), chunk),
        (lambda: stream.encode(wav.int()), f"{chunk} .* torch.int32"),
        (lambda: stream.encode(torch.cat([wav, wav], 1)), chunk),
        (lambda: stream.encode(wav[None]), chunk),
        (lambda: stream.encode(holes), "finite, got inf at row 1, channel 0, sample 5"),
        (lambda: stream.encode(wav[..., :0], final=True), "ended without a sample"),
    ])  # fmt: skip
    stream.encode(wav, final=True)
    refuse([(lambda: stream.encode(wav), "has had its final chunk; make a new one")])


def test_load() -> None:
    with pytest.raises(ValueError, match="no codec 'mp3'; known: .*lyra_v2, .*mimi"):
        fastcodec.load("mp3")
    with pytest.raises(ValueError, match="precision must be one of highest, high, medium, got"):
        fastcodec.load("lyra_v2", {}, precision="exact")
    with pytest.raises(WeightsError, match="lyra_v2: give weights=, the folder with soundstream"):
        fastcodec.load("lyra_v2")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fastcodec.load("encodec_24khz", "nowhere.th")


def spell(name: str) -> str:
    return name


@pytest.mark.parametrize("layout", [spell, transformers_name], ids=["encodec", "transformers"])
def test_every_wrong_entry_is_listed_in_upstreams_spelling(layout: Callable[[str], str]) -> None:
    state = {layout(name): value for name, value in nets.checkpoint(small()).items()}
    small().load_weights(dict(state))  # as it should be
    missing = [
        layout("encoder.model.1.block.3.conv.conv.bias"),
        layout("decoder.model.1.lstm.weight_hh_l1"),
        layout("quantizer.vq.layers.2._codebook.embed"),
    ]
    for name in missing:
        del state[name]
    wrong = [
        layout("encoder.model.0.conv.conv.bias"),
        layout("encoder.model.7.lstm.bias_ih_l0"),
        layout("quantizer.vq.layers.0._codebook.embed"),
    ]
    for name in wrong:
        state[name] = state[name][:-1]
    state["encoder.model.99.conv.conv.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        nets.encodec().load_weights(state)
    message = str(caught.value)
    assert "7 entries differ" in message and "the mapping given for small" in message
    for name in missing:
        assert f"missing: {name} [" in message
    for name in wrong:
        assert f"wrong shape: {name}: expected [" in message
    assert "unexpected: encoder.model.99.conv.conv.bias [3]" in message


def test_half_a_weight_norm_is_refused() -> None:
    state = nets.checkpoint(small())
    del state["decoder.model.3.convtr.convtr.weight_g"]
    with pytest.raises(WeightsError, match="stand alone: decoder.model.3.convtr.convtr.weight_v"):
        nets.encodec().load_weights(state)


def test_training_entries_are_no_surprise() -> None:
    state = nets.checkpoint(small())
    for q in range(4):
        prefix = f"quantizer.vq.layers.{q}._codebook."
        state |= {prefix + "inited": torch.ones(1), prefix + "cluster_size": torch.ones(32)}
        state |= {prefix + "embed_avg": torch.ones(32, 12)}
    nets.encodec().load_weights(state)


def test_a_refused_checkpoint_leaves_the_net_as_it_was() -> None:
    net = nets.encodec()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = nets.checkpoint(net)
    state["quantizer.vq.layers.3._codebook.embed"] = torch.zeros(1)
    with pytest.raises(WeightsError):
        net.load_weights(state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_new_weights_take_effect_at_once() -> None:
    """The kernels' own copies of the parameters are made anew when these have changed."""
    net, wav = nets.encodec(), nets.signal(1, 1, 400)
    results = []
    for seed in (1, 2, 1):
        net.load_weights(nets.checkpoint(net, seed))
        results.append(net.encoder(wav))
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])
