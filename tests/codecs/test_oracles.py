"""fastcodec beside the published implementations, live, with the same random weights.

encodec 0.1.1 (PyPI) and transformers' EncodecModel: codes by the margin rule of the golden vectors,
audio from the other's codes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcodec import Codes
from fastcodec.codecs import encodec, encodec_lm
from fastcodec.codecs.encodec import Encodec, EncodecConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.io.ecdc import read_ecdc, write_ecdc

from .. import nets, oracles
from ..golden import compare

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]

LENGTHS = (1, 319, 320, 321, 6720)
TOLERANCE = 1e-4  # of the rms; two float32 implementations differ by about 1e-5
EPSILON = 1e-4  # of the latents' squared length: a gap that rounding may decide

Segment = tuple[Tensor, Tensor, Tensor | None]  # latents [B, D, T], codes [B, K, T], gain [B, 1]


class Published:
    """encodec's own model."""

    def __init__(self, net: nn.Module, channels: int) -> None:
        self.net: Any = lively(net.eval().requires_grad_(False), channels)
        self._latents: list[Tensor] = []
        self.net.encoder.register_forward_hook(lambda net, args, y: self._latents.append(y))

    def encode(self, wav: Tensor, kbps: float) -> list[Segment]:
        """What it gives of each segment."""
        self._latents.clear()
        found = self._encode(wav, kbps)
        return [(x, *rest) for x, rest in zip(self._latents, found, strict=True)]

    def _encode(self, wav: Tensor, kbps: float) -> list[tuple[Tensor, Tensor | None]]:
        self.net.set_target_bandwidth(kbps)
        found: list[tuple[Tensor, Tensor | None]] = self.net.encode(wav)
        return found

    def decode(self, segments: list[Segment]) -> Tensor:
        """The samples of codes, as many as come out."""
        wav: Tensor = self.net.decode([(codes, scale) for _, codes, scale in segments])
        return wav


class HuggingFace(Published):
    """transformers' EncodecModel, which stacks the segments and fills up the last with zeros."""

    def _encode(self, wav: Tensor, kbps: float) -> list[tuple[Tensor, Tensor | None]]:
        out = self.net.encode(wav, torch.ones_like(wav), bandwidth=kbps)
        self.filled = out.last_frame_pad_length
        frames = out.audio_codes.shape[3]
        segments = list(zip(out.audio_codes, out.audio_scales, strict=True))
        last, scale = segments.pop()
        return [*segments, (last[..., : frames - self.filled], scale)]

    def decode(self, segments: list[Segment]) -> Tensor:
        frames = segments[0][1].shape[2]
        codes = [nn.functional.pad(c, (0, frames - c.shape[2])) for _, c, _ in segments]
        scales = [scale for _, _, scale in segments]
        out = self.net.decode(torch.stack(codes), scales, last_frame_pad_length=self.filled)
        wav: Tensor = out.audio_values
        return wav


def lively(net: Any, channels: int) -> nn.Module:
    """The net with codebooks as wide as its latents, so that random weights use many codes."""
    latent = net.encoder(nets.signal(1, channels, 6400) * 5)
    g, level = nets.generator(5), 0
    for name, buffer in net.named_buffers():
        if name.endswith("inited"):
            buffer.fill_(1)
        elif name.endswith(".embed"):
            buffer.copy_(torch.randn(buffer.shape, generator=g) * latent.std(dim=2) * 0.85**level)
            buffer.add_(latent.mean(dim=2) if level == 0 else 0)
            level += 1
    assert level > 0
    return net


def published(model: str) -> Published:
    torch.manual_seed(0)
    net = getattr(oracles.encodec().EncodecModel, model)(pretrained=False)
    return Published(net, net.channels)


def hugging_face(**config: Any) -> HuggingFace:
    torch.manual_seed(0)
    package = oracles.transformers()
    net = package.EncodecModel(package.EncodecConfig(**config))
    return HuggingFace(net, net.config.audio_channels)


def music() -> Encodec:
    """The form of the 32 kHz model of MusicGen, with fewer filters."""
    seanet = SeanetConfig(
        n_filters=8, ratios=(8, 5, 4, 4), causal=False, padding="zero", true_skip=True
    )
    return Encodec(EncodecConfig(32000, seanet, 4, 2048, (2.2,)), "music")


STEREO = {
    "sampling_rate": 48000, "audio_channels": 2, "normalize": True, "chunk_length_s": 1.0,
    "overlap": 0.01, "norm_type": "time_group_norm", "use_causal_conv": False,
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
}  # fmt: skip
MUSIC = {
    "sampling_rate": 32000, "num_filters": 8, "upsampling_ratios": [8, 5, 4, 4],
    "use_causal_conv": False, "pad_mode": "constant", "use_conv_shortcut": False,
    "codebook_size": 2048, "target_bandwidths": [2.2],
}  # fmt: skip
# name: (the oracle, ours, bit rates, lengths besides the common ones)
PAIRS: dict[
    str, tuple[Callable[[], Published], Callable[[], Encodec], tuple[float, ...], tuple[int, ...]]
] = {
    "encodec 24 kHz": (
        lambda: published("encodec_model_24khz"),
        lambda: encodec.build("encodec_24khz"),
        (1.5, 24.0),
        (),
    ),
    "encodec 48 kHz": (
        lambda: published("encodec_model_48khz"),
        lambda: encodec.build("encodec_48khz"),
        (3.0, 24.0),
        (47_520, 60_001),
    ),
    "transformers 24 kHz": (
        lambda: hugging_face(),
        lambda: encodec.build("encodec_24khz"),
        (6.0, 24.0),
        (),
    ),
    "transformers 48 kHz": (
        lambda: hugging_face(**STEREO),
        lambda: encodec.build("encodec_48khz"),
        (24.0,),
        (48_001,),
    ),
    "transformers 32 kHz, small": (lambda: hugging_face(**MUSIC), music, (2.2,), (641,)),
}


@functools.lru_cache(maxsize=2)  # the tests of a pair follow one another; two nets have 160 MB
def pair(name: str) -> tuple[Published, Encodec]:
    """An oracle, and our net loaded from its state dict, in its own spelling."""
    make, build, _, _ = PAIRS[name]
    oracle, ours = make(), build()
    ours.load_weights(oracle.net.state_dict())
    return oracle, ours.eval().requires_grad_(False)


CASES = [
    pytest.param(name, kbps, length, id=f"{name}-{kbps}-{length}")
    for name, (_, _, rates, longer) in PAIRS.items()
    for length in LENGTHS + longer
    for kbps in rates
]


@pytest.mark.parametrize("name, kbps, length", CASES)
def test_against(name: str, kbps: float, length: int) -> None:
    oracle, ours = pair(name)
    wav = nets.signal(2, ours.channels, length) * 5
    theirs = oracle.encode(wav, kbps)
    got = ours.encode(wav, bandwidth_kbps=kbps)
    assert got.n_samples.tolist() == [length, length]
    assert_codes(ours, got, theirs)
    want = oracle.decode(theirs)[..., :length]
    stored = Codes(
        torch.cat([codes for _, codes, _ in theirs], dim=2),
        got.frame_rate_hz,
        got.n_samples,
        got.codec,
        None if got.scale is None else torch.cat([s for _, _, s in theirs if s is not None], dim=1),
    )
    heard = ours.decode(stored)
    assert heard.shape == want.shape == wav.shape
    assert (heard - want).abs().max() <= TOLERANCE * want.square().mean().sqrt()


def assert_codes(ours: Encodec, got: Codes, theirs: list[Segment]) -> None:
    """Gains within rounding, codes equal or excused by their margin."""
    codes = torch.cat([segment for _, segment, _ in theirs], dim=2)
    assert got.tokens.shape == codes.shape
    if theirs[0][2] is not None:
        scales = torch.cat([scale for _, _, scale in theirs if scale is not None], dim=1)
        assert got.scale is not None
        torch.testing.assert_close(got.scale, scales, rtol=1e-5, atol=0)
    latents = torch.cat([latent for latent, _, _ in theirs], dim=2).double()
    margins = torch.empty(codes.shape, dtype=torch.float64)
    residual = latents.transpose(1, 2)
    for level, words in enumerate(ours.quantizer.codebooks.double()[: codes.shape[1]]):
        distance = torch.cdist(residual, words.expand(len(residual), -1, -1)).square()
        chosen = codes[:, level, :, None]
        own = distance.gather(2, chosen)[..., 0]
        margins[:, level] = distance.scatter(2, chosen, float("inf")).amin(2) - own
        residual = residual - words[codes[:, level]]
    epsilon = EPSILON * float(latents.square().sum(dim=1).mean())
    levels, flat = codes.shape[1], (1, 0, 2)
    compare.codes(
        got.tokens.permute(flat).reshape(levels, -1).numpy(),
        codes.permute(flat).reshape(levels, -1).numpy(),
        margins.permute(flat).reshape(levels, -1).numpy(),
        epsilon,
    )


@pytest.mark.parametrize("name", PAIRS)
def test_the_oracles_codes_vary(name: str) -> None:
    """Otherwise equal codes would say little."""
    oracle, ours = pair(name)
    wav = nets.signal(1, ours.channels, 6720) * 5
    ((_, codes, _),) = oracle.encode(wav, PAIRS[name][2][-1])
    assert codes[0].unique(dim=1).shape[1] >= 0.8 * codes.shape[2]


def test_a_padding_mask_silences_what_it_hides() -> None:
    """transformers' batches of unequal length are the codes of signals that end in zeros.

    At 48 kHz the zeros count in the gain, so that a short signal's codes depend on its company.
    Here a list's do not: each is encoded as if alone.
    """
    oracle, ours = pair("transformers 48 kHz")
    wav = nets.signal(2, 2, 900) * 5
    mask = torch.ones(2, 900)
    mask[0, 500:] = 0
    theirs = oracle.net.encode(wav, mask, bandwidth=6.0).audio_codes[0]
    silenced = ours.encode(wav * mask[:, None], bandwidth_kbps=6.0)
    assert torch.equal(silenced.tokens, theirs)
    alone = ours.encode([wav[0, :, :500], wav[1]], bandwidth_kbps=6.0)
    assert torch.equal(alone.tokens[1], theirs[1])
    assert not torch.equal(alone.tokens[0, :, :2], theirs[0, :, :2])


@pytest.mark.parametrize("uses_lm", [False, True])
@pytest.mark.parametrize("name, length", [("encodec 24 kHz", 9600), ("encodec 48 kHz", 50_000)])
def test_files_are_the_published_ones(
    name: str, length: int, uses_lm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """encodec reads our .ecdc files, and writes the same bytes for the same codes."""
    compress = oracles.encodec("encodec.compress")
    oracle, ours = pair(name)
    net, lm = oracle.net, random_lm(oracle.net)
    monkeypatch.setattr(net, "name", ours.name)
    monkeypatch.setattr(net, "get_lm_model", lambda: lm)
    monkeypatch.setitem(compress.MODELS, ours.name, lambda: net)
    net.set_target_bandwidth(3.0)
    wav = nets.signal(1, ours.channels, length) * 5
    theirs = compress.compress(net, wav[0], use_lm=uses_lm)

    model = encodec_lm.probability_model(ours.name, lm.state_dict(), None)
    read = read_ecdc(theirs, lambda header: model)
    codes = torch.cat([c for _, c, _ in oracle.encode(wav, 3.0)], dim=2)
    assert torch.equal(read.to_codes().tokens, codes)
    written = write_ecdc(read, model=model)
    assert written == theirs
    heard, rate = compress.decompress(written)
    assert rate == ours.sample_rate_hz
    own = ours.decode(read.to_codes())[0]
    assert (heard - own).abs().max() <= TOLERANCE * own.square().mean().sqrt()


def random_lm(net: Any) -> nn.Module:
    """Upstream's language model for a net, with random weights."""
    torch.manual_seed(1)
    model = oracles.encodec("encodec.model").LMModel
    lm: nn.Module = model(
        net.quantizer.n_q, net.quantizer.bins, num_layers=5, dim=200,
        past_context=int(3.5 * net.frame_rate),
    )  # fmt: skip
    return lm.eval()
