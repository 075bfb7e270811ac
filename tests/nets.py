"""Small nets, random signals and checkpoints in upstream's spelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcodec.codecs.base import Codec
from fastcodec.codecs.encodec import Encodec, EncodecConfig, EncodecSegmented
from fastcodec.codecs.keys import upstream_names
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.quantize import ResidualQuantizer


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
    latent = codec.encoder(signal(1, codec.channels, 40 * codec.hop))
    books = codec.quantizer.codebooks
    books.copy_(torch.randn(books.shape, generator=g))
    books *= 0.8 ** torch.arange(len(books)).view(-1, 1, 1) * latent.std(dim=2)
    books[0] += latent.mean(dim=2)
    return codec
