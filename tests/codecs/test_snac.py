"""SNAC beside snac 1.2.1, its codes of several rates, its noise, its latency."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fastcodec.codecs import snac
from fastcodec.codecs.snac import PRESETS, Snac
from fastcodec.errors import WeightsError
from fastcodec.layers.noise import normal
from fastcodec.layers.quantize import FactorisedLevel

from .. import nets
from ..backends import needs_native, threads
from ..golden import compare

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*jit.script.*:DeprecationWarning"),
]

SMALL = {
    "sampling_rate": 600, "encoder_dim": 8, "encoder_rates": [2, 3, 2], "decoder_dim": 64,
    "decoder_rates": [2, 3, 2], "codebook_size": 96, "codebook_dim": 6, "vq_strides": [4, 2, 1],
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "attention": {"attn_window_size": 6},
    "no attention": {"attn_window_size": None},
    "dense, no noise": {"attn_window_size": 4, "depthwise": False, "noise": False},
}
TOLERANCE = 1e-4  # of the rms
EPSILON = 1e-4  # of a squared distance between vectors of unit length


@functools.cache
def published(name: str) -> Any:
    """Upstream's net with random weights, lively enough that many codes are used."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = importlib.import_module("snac").SNAC(**SMALL, **FORMS[name])
    net.eval().requires_grad_(False)
    residual = net.encoder(net.preprocess(nets.signal(1, 1, 1152)))
    for level in net.quantizer.quantizers:  # from the mean on, every latent has an angle of its own
        level.in_proj.bias -= level.in_proj(residual).mean(2)[0]
        gain = level.out_proj.parametrizations.weight.original0
        gain *= 0.5 * residual.std(2).mean() / level(residual)[0].std(2).mean()
        residual = residual - level(residual)[0]
    return net


@functools.cache
def codec(name: str) -> Snac:
    """Ours, with the same weights."""
    net = snac.build(name, snac.from_upstream({**SMALL, **FORMS[name]}))
    net.load_weights(published(name).state_dict())
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("length", [1, 47, 48, 49, 700])
@pytest.mark.parametrize("name", FORMS)
def test_against_the_published_net(name: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its codes; and its audio, where our noise is what its decoder draws."""
    theirs, ours = published(name), codec(name)
    wav = nets.signal(2, 1, length) * 5
    codes = theirs.encode(wav)
    got = ours.encode(wav)
    assert [row.shape for row in got.ragged()] == [row.shape for row in codes]
    margins = code_margins(ours, theirs.encoder(theirs.preprocess(wav)), codes)
    for row in range(2):
        compare.codes(
            *([c[row].numpy() for c in x] for x in (got.ragged(), codes, margins)), EPSILON
        )
    tokens = ours.from_ragged(codes)
    for seed in (None, 3):
        monkeypatch.setattr(torch, "randn", draws(seed))
        want = theirs.decode(codes)
        monkeypatch.undo()
        monkeypatch.setattr(ours, "noise_seed", seed)
        heard = ours.decode(tokens)
        assert heard.shape == want.shape
        assert (heard - want).abs().max() <= TOLERANCE * want.square().mean().sqrt()


def draws(seed: int | None) -> Any:
    """A ``torch.randn`` that gives our noise of the blocks, in their order, or zeros."""
    blocks = iter(range(100))

    def randn(shape: tuple[int, ...], **kwargs: object) -> Tensor:
        values = torch.zeros(shape[2]) if seed is None else normal(seed, next(blocks), 0, shape[2])
        return values.expand(shape)

    return randn


def code_margins(net: Snac, latents: Tensor, codes: list[Tensor]) -> list[Tensor]:
    """[B, T / stride] for each level: how much farther the second nearest word is, in float64."""
    margins, residual = [], latents.double()
    levels = cast(list[FactorisedLevel], list(net.quantizer.levels))
    for level, stride, chosen in zip(levels, net.config.vq_strides, codes, strict=True):
        pooled = nn.functional.avg_pool1d(residual, stride)
        project = level.in_proj
        assert project.bias is not None
        x = nn.functional.conv1d(pooled, project.weight.double(), project.bias.double())
        words = nn.functional.normalize(level.codebook.double())
        distance = torch.cdist(nn.functional.normalize(x, dim=1).mT, words[None]).square()
        own = distance.gather(2, chosen[..., None])
        rest = distance.scatter(2, chosen[..., None], float("inf")).amin(2)
        margins.append(rest - own[..., 0])
        residual = residual - level.decode(chosen).double().repeat_interleave(stride, 2)
    return margins


@pytest.mark.parametrize("name", FORMS)
def test_the_codes_of_these_tests_vary(name: str) -> None:
    tokens = codec(name).encode(nets.signal(1, 1, 1152)).tokens[0]
    assert tokens.unique(dim=1).shape[1] >= 0.8 * tokens.shape[1]


@needs_native
@given(st.integers(1, 800), st.lists(st.floats(0, 1), max_size=5), st.integers(1, 2))
def test_noise_of_pieces_is_the_wholes(size: int, places: list[float], n_threads: int) -> None:
    net = codec("attention")
    codes = net.encode(nets.signal(2, 1, size))
    frames = codes.tokens.shape[2]
    edges = sorted([0, *(round(place * frames) for place in places), frames])
    net.noise_seed = 5
    with threads(n_threads):
        whole, stream = net.decode(codes.tokens), net.stream(2)
        heard = [
            stream.decode(codes.tokens[..., begin:end], final=i == len(edges) - 2)
            for i, (begin, end) in enumerate(zip(edges, edges[1:], strict=False))
        ]
        alone = net.decode(codes.tokens[1:])
    net.noise_seed = None
    assert torch.equal(torch.cat(heard, dim=2), whole)
    assert torch.equal(alone, whole[1:])


def test_noise_is_a_seeds() -> None:
    net = codec("attention")
    tokens = net.encode(nets.signal(1, 1, 500)).tokens
    plain, noisy = net.decode(tokens), []
    for seed in (1, 2, 1):
        net.noise_seed = seed
        noisy.append(net.decode(tokens))
    assert torch.equal(noisy[0], noisy[2])
    assert not torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0], plain)
    net.noise_seed = None
    assert torch.equal(net.decode(tokens), plain)


@pytest.mark.parametrize("name", FORMS)
def test_tokens_are_held(name: str) -> None:
    net = codec(name)
    codes = net.encode(nets.signal(2, 1, 500))
    assert codes.hold == net.config.vq_strides == (4, 2, 1)
    assert torch.equal(net.from_ragged(codes.ragged()), codes.tokens)
    assert torch.equal(net.from_ragged(codes.truncate(2).ragged()), codes.tokens[:, :2])
    assert codes.tokens.shape[2] % net.config.group == 0
    some = net.encode(nets.signal(2, 1, 500), n_codebooks=2)
    assert some.hold == (4, 2) and torch.equal(some.tokens, codes.tokens[:, :2])
    assert net.decode(some).shape == (2, 1, 500)


def test_ragged_codes_must_fit() -> None:
    net = codec("attention")
    rows = [torch.zeros(1, n, dtype=torch.int64) for n in (3, 6, 11)]
    with pytest.raises(ValueError, match=r"must be \[B, T / s\] for s in \(4, 2, 1\)"):
        net.from_ragged(rows)
    with pytest.raises(ValueError, match="must be a multiple of 4, got 6"):
        net.quantizer.encode(torch.zeros(1, net.config.dimension, 6))


@pytest.mark.parametrize("name", FORMS)
def test_latency(name: str) -> None:
    """Sample by sample, the stream is never later than one frame and ``latency`` samples."""
    net = codec(name)
    hop, latency, group = net.hop, net.info.latency, net.config.group
    start = 4 * group * hop + latency // hop * hop
    wav = nets.signal(1, 1, start + 2 * group * hop)
    stream = net.stream()
    ready = stream.decode(stream.encode(wav[..., :start])).shape[2]
    worst = start - ready
    for begin in range(start, wav.shape[2]):
        ready += stream.decode(stream.encode(wav[..., begin : begin + 1])).shape[2]
        worst = max(worst, begin + 1 - ready)
    assert latency < worst <= latency + hop


def test_presets() -> None:
    """Rates and parameters as published, among these weight norm's lengths and two constants."""
    published_kbps = {"snac_24khz": 0.98, "snac_32khz": 1.9, "snac_44khz": 2.6}
    for name, kbps in published_kbps.items():
        with torch.device("meta"):
            net = snac.build(name)
        info = net.info
        assert abs(info.kbps - kbps) < 0.06 and info.streamable and info.codebook_size == 4096
        lengths = sum(
            value.shape[0]
            for own, value in net.named_parameters()
            if value.ndim == 3 and ".to_" not in own
        )
        constants = 0 if net.config.attn_window_size is None else 64
        total = 19_842_914 if name == "snac_24khz" else 54_546_402
        assert info.parameters + lengths + constants == total


def test_a_folder_as_upstream_saves_it(tmp_path: Path) -> None:
    theirs, config = published("attention"), {**SMALL, **FORMS["attention"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    net = snac.build("mine", snac.from_upstream(json.loads((tmp_path / "config.json").read_text())))
    net.load_weights(tmp_path)
    tokens = codec("attention").encode(nets.signal(1, 1, 300)).tokens
    assert torch.equal(net.encode(nets.signal(1, 1, 300)).tokens, tokens)


def test_every_entry_counts() -> None:
    state = published("attention").state_dict()
    state["decoder.model.9.weight"] = torch.zeros(1)
    del state["decoder.model.3.block.0.alpha"]
    with pytest.raises(WeightsError, match=r"missing: decoder\.model\.3\.block\.0\.alpha") as info:
        snac.build("x", codec("attention").config).load_weights(state)
    assert "unexpected: decoder.model.9.weight" in str(info.value)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"window": 3}, "unknown settings: window"),
        ({"vq_strides": 4}, "vq_strides must be a list of whole numbers"),
        ({"vq_strides": [4, 3]}, "every one of vq_strides must divide"),
        ({"encoder_rates": [2, 4]}, "must be 2 or more and have one product"),
        ({"latent_dim": 5}, "latent_dim must be 1024"),
        ({"depthwise": 1}, "depthwise must be of type bool"),
        ({"encoder_dim": 10}, "multiples of 64"),
        ({"codebook_size": True}, "codebook_size must be a positive whole number"),
    ],
)
def test_configurations_that_no_net_has(config: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        snac.from_upstream(config)


def test_upstreams_defaults() -> None:
    assert snac.from_upstream({}).hop == 441
    rates = {"encoder_rates": [2, 3, 8, 8], "decoder_rates": [8, 8, 3, 2]}
    assert vars(snac.from_upstream(rates)) == vars(PRESETS["snac_44khz"]) | {
        "hub": "", "licence": "",
    }  # fmt: skip
