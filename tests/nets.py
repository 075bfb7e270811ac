"""Small nets, random signals and checkpoints in upstream's spelling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fastcodec.codecs import (
    academicodec,
    audiodec,
    dac,
    embedded,
    funcodec,
    hificodec,
    mimi,
    snac,
    soundstream,
    speechtokenizer,
)
from fastcodec.codecs.audiodec import AudioDecConfig
from fastcodec.codecs.audiodec_vocoder import VocoderConfig
from fastcodec.codecs.base import Codec
from fastcodec.codecs.dac_config import DacConfig
from fastcodec.codecs.embedded import EmbeddedConfig
from fastcodec.codecs.encodec import Encodec, EncodecConfig, EncodecSegmented
from fastcodec.codecs.hificodec import HificodecConfig
from fastcodec.codecs.keys import upstream_names
from fastcodec.codecs.mimi import MimiConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codecs.soundstream import SoundstreamConfig
from fastcodec.codecs.speechtokenizer import SpeechTokenizerConfig
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.quantize import FactorisedLevel, FactorisedQuantizer, ResidualQuantizer
from fastcodec.layers.transformer import TransformerConfig


def generator(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on another's draws."""
    return torch.Generator().manual_seed(seed)


def signal(*shape: int, seed: int = 0) -> Tensor:
    """A noise signal of speech-like level."""
    return 0.1 * torch.randn(*shape, generator=generator(seed))


def encodec(
    causal: bool = True,
    padding: str = "reflect",
    ratios: Sequence[int] = (4, 2),
    segment: int | None = None,
    stride: int | None = None,
    **seanet: Any,
) -> Encodec:
    """A small EnCodec with random weights, in evaluation mode."""
    shape = {"n_filters": 4, "dimension": 12, **seanet}
    config = EncodecConfig(
        sample_rate_hz=800,
        seanet=SeanetConfig(causal=causal, padding=padding, ratios=tuple(ratios), **shape),  # type: ignore[arg-type]
        n_codebooks=4,
        codebook_size=32,
        bandwidths_kbps=(0.5, 1.0, 2.0),
        segment=segment,
        segment_stride=stride,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = (Encodec if segment is None else EncodecSegmented)(config, "small")
    lively(net.eval().requires_grad_(False))
    return net


def checkpoint_shapes(net: Encodec) -> dict[str, tuple[int, ...]]:
    """Upstream's entries of a net's checkpoint, weight norm not folded, training's left out."""
    shapes: dict[str, tuple[int, ...]] = {}
    own_state = net.state_dict()
    for own, theirs in upstream_names(net).items():
        owner = net.get_submodule(own.rpartition(".")[0])
        stacked = isinstance(owner, Lstm | ResidualQuantizer)
        shape = tuple(own_state[own].shape[1:] if stacked else own_state[own].shape)
        for name in theirs:
            if net.config.seanet.norm == "weight_norm" and name.endswith(
                (".conv.weight", "tr.weight")
            ):
                shapes[name + "_g"] = (shape[0], 1, 1)
                shapes[name + "_v"] = shape
            else:
                shapes[name] = shape
    return shapes


def checkpoint(net: Encodec, seed: int = 0) -> dict[str, Tensor]:
    """Random values for these entries."""
    g = generator(seed)
    return {
        name: 0.3 * torch.randn(shape, generator=g)
        for name, shape in checkpoint_shapes(net).items()
    }


@torch.no_grad()
def lively(codec: Codec) -> Codec:
    """The codec with codebooks as wide as its latents, so that random weights use many codes."""
    g = generator(3)
    encode = ResidualQuantizer.encode

    def spread(self: ResidualQuantizer, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        self.codebooks.copy_(torch.randn(self.codebooks.shape, generator=g))
        self.codebooks.mul_(0.8 ** torch.arange(self.n_codebooks).view(-1, 1, 1) * x.std(dim=2))
        self.codebooks[0] += x.mean(dim=2)
        return encode(self, x, n_codebooks)

    def centre(self: FactorisedLevel, x: Tensor) -> Tensor:
        assert self.in_proj.bias is not None
        self.in_proj.bias -= self.project(x).mean(dim=2)[0]
        word = self.decode(self.encode(self.project(x)))
        self.out_proj.weight *= 0.5 * x.std(dim=2).mean() / word.std(dim=2).mean()
        return self.encode(self.project(x))

    def by_level(self: FactorisedQuantizer, x: Tensor) -> None:
        for level in self.levels:
            assert isinstance(level, FactorisedLevel)
            x = x - level.decode(level.quantise(x))

    latent = codec.encoder(signal(1, codec.channels, 40 * codec.frame_multiple * codec.hop))
    with (
        mock.patch.object(ResidualQuantizer, "encode", spread),
        mock.patch.object(FactorisedLevel, "quantise", centre),
        mock.patch.object(FactorisedQuantizer, "encode", by_level),
    ):
        codec.quantizer.encode(latent)
    return codec


def made(family: Any, config: Any) -> Codec:
    """A small net of a family with random weights, none of them 0 or 1, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net: Codec = family.build("small", config).eval().requires_grad_(False)
    g = generator(2)
    for name, value in net.named_parameters():
        if name.endswith(("bias", "alpha", "scale")):
            value += 0.1 * torch.randn(value.shape, generator=g)
    return lively(net)


_RATES = {"sampling_rate": 600, "encoder_rates": [2, 3, 2], "decoder_rates": [2, 3, 2]}
_SNAC = {
    **_RATES, "encoder_dim": 8, "decoder_dim": 64, "codebook_size": 96, "codebook_dim": 6,
    "vq_strides": [4, 2, 1],
}  # fmt: skip
_SOUNDSTREAM = {
    "target_sample_hz": 600, "strides": (2, 3), "channels": 4, "channel_mults": (2, 3),
    "codebook_dim": 10, "codebook_size": 32, "rq_num_quantizers": 3,
}  # fmt: skip
_ATTENTION = {"attn_window_size": 5, "attn_dim_head": 6, "attn_heads": 2}
_PAPER = {"use_local_attn": False, "padding": "zero", "elu_first": True, "film": False}
_MIMI = MimiConfig(
    800,
    SeanetConfig(
        dimension=16, n_filters=4, ratios=(4, 2), last_kernel_size=3, lstm=0, padding="zero",
        true_skip=True, norm="none",
    ),
    TransformerConfig(layers=2, heads=2, feed_forward=24, context=7),
    upsample_groups=16, n_codebooks=4, codebook_size=32, codebook_dimension=8,
)  # fmt: skip
_AUDIODEC = AudioDecConfig(600, (2, 3), (3, 2), (1, 2), (2, 1), 4, 4, 12, 3, 32, priming=130)
_VOCODER = VocoderConfig(12, 8, 7, (3, 2), (3, 5), ((1, 3), (1, 2)), 1)
_HIFICODEC = HificodecConfig(
    sampling_rate=800, upsample_rates=(5, 3, 2), upsample_kernel_sizes=(11, 7, 4),
    upsample_initial_channel=16, resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1, 2)), n_codes=32, encoder_channels=8,
)  # fmt: skip
_SPEECHTOKENIZER = SpeechTokenizerConfig(
    800,
    SeanetConfig(
        n_filters=4, dimension=12, ratios=(4, 2), causal=False, activation="snake",
        bidirectional=True,
    ),
    3, 32, (), semantic_dimension=10,
)  # fmt: skip
_ACADEMICODEC = EncodecConfig(
    800, SeanetConfig(n_filters=4, dimension=12, ratios=(4, 2), causal=False), 3, 32, ()
)
_NET = {"n_filters": 4, "norm": "time_group_norm", "causal": False}
_FUNCODEC: dict[str, Any] = {
    "input_size": 1, "model": "encodec",
    "encoder": "encodec_seanet_encoder", "decoder": "encodec_seanet_decoder",
    "quantizer": "costume_quantizer",
    "encoder_conf": {**_NET, "ratios": [4, 2], "dimension": 12},
    "decoder_conf": {**_NET, "ratios": [4, 2]},
    "quantizer_conf": {
        "codebook_size": 32, "num_quantizers": 4, "sampling_rate": 1600, "encoder_hop_length": 8,
    },
    "model_conf": {"odim": 12, "audio_normalize": True, "segment_dur": None, "overlap_ratio": None},
}  # fmt: skip
_PAIRS = {"ratios": [[4, 1], [4, 2]], "norm_params": {"num_groups": 1}, "dilation_base": 1}
_FREQCODEC: dict[str, Any] = {
    **_FUNCODEC, "input_size": 3, "model": "freq_codec",
    "encoder": "encodec_seanet_encoder_2d", "decoder": "encodec_seanet_decoder_2d",
    "encoder_conf": {**_NET, **_PAIRS, "dimension": 12},
    "decoder_conf": {**_NET, **_PAIRS, "channels": 3},
    "quantizer_conf": {**_FUNCODEC["quantizer_conf"], "encoder_hop_length": 24},
    "model_conf": {
        **_FUNCODEC["model_conf"], "codec_domain": ["mag_phase", "mag_phase"],
        "domain_conf": {"n_fft": 32, "hop_length": 12},
    },
}  # fmt: skip
_DAC = DacConfig(800, 8, (3, 5), 24, 32, (5, 3), 3, 50, 4)
_EMBEDDED = EmbeddedConfig(
    800, (4, 3, 2), (8, 6, 2), (6, 10, 10), (1, 2, 1), (2, 1, 1), 5, 2, 3, 12, 4, 32
)
_EVEN = DacConfig(800, 8, (2, 4), 24, 32, (4, 2), 4, 64, 4)

# Small forms of every family that streams both ways, and of those that need whole signals.
STREAMING: dict[str, Callable[[], Codec]] = {
    "encodec": encodec,
    "encodec, not causal": lambda: encodec(
        causal=False, padding="zero", ratios=(3, 2), true_skip=True, lstm=1
    ),
    "embedded": lambda: made(embedded, _EMBEDDED),
    "academicodec": lambda: made(academicodec, _ACADEMICODEC),
    "dac, odd strides": lambda: made(dac, _DAC),
    "dac": lambda: made(dac, _EVEN),
    "snac": lambda: made(snac, snac.from_upstream({**_SNAC, "attn_window_size": None})),
    "snac, attention": lambda: made(snac, snac.from_upstream({**_SNAC, "attn_window_size": 6})),
    "snac, dense": lambda: made(
        snac, snac.from_upstream({**_SNAC, "attn_window_size": 4, "depthwise": False})
    ),
    "mimi": lambda: made(mimi, _MIMI),
    "soundstream, audiolm": lambda: made(
        soundstream, SoundstreamConfig(**_SOUNDSTREAM, **_ATTENTION)
    ),
    "soundstream, deeper": lambda: made(
        soundstream,
        SoundstreamConfig(**_SOUNDSTREAM, **_ATTENTION, attn_depth=2, attn_xpos_scale_base=7),
    ),
    "soundstream, paper": lambda: made(soundstream, SoundstreamConfig(**_SOUNDSTREAM, **_PAPER)),
    "audiodec": lambda: made(audiodec, _AUDIODEC),
    "audiodec, primed, vocoder": lambda: made(
        audiodec, replace(_AUDIODEC, flow="primed", vocoder=_VOCODER)
    ),
}
WHOLE: dict[str, Callable[[], Codec]] = {
    "encodec, segments": lambda: encodec(
        causal=False, norm="time_group_norm", channels=2, segment=80, stride=72, lstm=1
    ),
    "funcodec": lambda: made(funcodec, funcodec.from_upstream(_FUNCODEC)),
    "freqcodec": lambda: made(funcodec, funcodec.from_upstream(_FREQCODEC)),
    "hificodec": lambda: made(hificodec, _HIFICODEC),
    "speechtokenizer": lambda: made(speechtokenizer, _SPEECHTOKENIZER),
}
