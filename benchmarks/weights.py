"""Random weights for both sides, such that many codes are used: equal codes then say something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.signals import wav, word_sizes
from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import tagged_state
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.quantize import (
    FactorisedLevel,
    FactorisedQuantizer,
    GroupedResidualQuantizer,
    MultiRateQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
    SplitQuantizer,
)
from fastcodec.layers.transformer import LayerScale

State = dict[str, Tensor]


@torch.no_grad()
def random_codec(family: Any, name: str, seed: int = 0) -> Codec:
    """A preset of a family whose signals keep their size, and whose words fit its latents.

    With a constructor's weights a signal fades from layer to layer, until an engine that computes
    an ELU as exp(x) - 1 has few digits left of it, and bf16 none of what is not a constant.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec: Codec = family.build(name).eval().requires_grad_(False)
        for part, value in codec.named_parameters():
            if part.endswith("bias"):
                value *= 0.1
        for layer in codec.modules():
            if isinstance(layer, LayerScale):  # published ones are not small any more
                layer.scale.uniform_(0.1, 0.4)
        multiple = codec.frame_multiple * codec.hop
        frames = -(-codec.sample_rate_hz // multiple)
        signal = wav(codec.sample_rate_hz, codec.channels, frames * multiple / codec.sample_rate_hz)
        with _sizes_kept():
            codec.encoder(signal[..., : -(-frames // 4) * multiple])
        latent = codec.encoder(signal)
        _fit(codec.quantizer, latent)
        few = -(-min(40, latent.shape[2]) // codec.frame_multiple) * codec.frame_multiple
        words = codec.quantizer.decode(codec.quantizer.encode(latent[..., :few]))
        with _sizes_kept():
            codec.decoder(words)
        _centre(codec.decoder, words)
    return codec


@contextmanager
def _sizes_kept() -> Iterator[None]:
    """Whatever a convolution gives the first time, its weights are scaled for: to 1, or to a half
    where it is added to something else."""
    convolve, transpose, done = Conv1d._convolve, ConvTranspose1d._convolve, set[int]()

    def scale(layer: Conv1d | ConvTranspose1d, y: Tensor, size: float) -> None:
        done.add(id(layer))
        layer.weight *= size / y.std().clamp(min=1e-6)

    def conv(self: Conv1d, x: Tensor, held: Any) -> Tensor:
        if id(self) not in done:
            scale(self, convolve(self, x, None), 1.0 if held is None else 0.2)
        return convolve(self, x, held)

    def conv_transpose(self: ConvTranspose1d, x: Tensor) -> Tensor:
        if id(self) not in done:
            scale(self, transpose(self, x), 1.0)
        return transpose(self, x)

    with (
        mock.patch.object(Conv1d, "_convolve", conv),
        mock.patch.object(ConvTranspose1d, "_convolve", conv_transpose),
    ):
        yield


def _centre(decoder: nn.Module, latent: Tensor) -> None:
    """Give its output a loudness of 0.1 around zero."""
    last = [layer for layer in decoder.modules() if isinstance(layer, Conv1d)][-1:]
    for layer in last:
        for _ in range(2):  # a tanh at the end bends the first
            layer.weight *= 0.1 / decoder(latent).std()
        if layer.bias is not None:
            layer.bias -= decoder(latent).mean(dim=(0, 2))


def _fit(quantizer: nn.Module, x: Tensor) -> None:
    """Words as wide as the latents x [1, D, T]."""
    if isinstance(quantizer, ResidualQuantizer):
        books, mean = quantizer.codebooks, x.mean(dim=2)
        books.normal_().mul_(word_sizes(len(books)).view(-1, 1, 1) * x.std(dim=2))
        books[0] += mean
    elif isinstance(quantizer, GroupedResidualQuantizer):
        for group, part in zip(quantizer.groups, x.chunk(len(quantizer.groups), 1), strict=True):
            _fit(group, part)
    elif isinstance(quantizer, SplitQuantizer):
        _fit(quantizer.first, x)
        _fit(quantizer.rest, x)
    elif isinstance(quantizer, ProjectedQuantizer):
        _fit(quantizer.residual, quantizer.in_proj(x))
    elif isinstance(quantizer, FactorisedQuantizer):
        _fit_levels(quantizer, x)
    else:
        raise TypeError(f"random_codec: no words for {type(quantizer).__name__}")


def _fit_levels(quantizer: FactorisedQuantizer, residual: Tensor) -> None:
    hold = quantizer.hold if isinstance(quantizer, MultiRateQuantizer) else None
    for i, part in enumerate(quantizer.levels):
        level, every = cast(FactorisedLevel, part), hold[i] if hold else 1
        pooled = nn.functional.avg_pool1d(residual, every)
        assert level.in_proj.bias is not None
        level.in_proj.bias -= level.project(pooled).mean(dim=2)[0]
        word = level.decode(level.encode(level.project(pooled)))
        level.out_proj.weight *= 0.5 * residual.std(dim=2).mean() / word.std(dim=2).mean()
        word = level.decode(level.encode(level.project(pooled)))
        residual = residual - word.repeat_interleave(every, dim=2)


def upstream_state(codec: Codec, spell: Callable[[str], str] = str) -> State:
    """Its weights under upstream's names, as ``spell`` writes them."""
    return {spell(name): value.clone() for name, value in tagged_state(codec).items()}


def pour(state: Mapping[str, Tensor], net: nn.Module, unused: tuple[str, ...] = ()) -> None:
    """Put upstream's weights into upstream's net, every parameter; ``unused``: parts of names."""
    own = net.state_dict()
    missing = [n for n in own if n not in state and not any(part in n for part in unused)]
    extra = [n for n in state if n not in own]
    if missing or extra:
        raise ValueError(f"not this net's weights: missing {missing[:3]}, extra {extra[:3]}")
    net.load_state_dict(
        {n: v.view_as(own[n]) if v.numel() == own[n].numel() else v for n, v in state.items()},
        strict=False,
    )
