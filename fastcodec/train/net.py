"""The net that is trained: a codec as one differentiable pass, at its start and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from fastcodec import codecs
from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import tagged_state
from fastcodec.codecs.recognise import spec_of
from fastcodec.io import model_file
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.streaming import Residual
from fastcodec.train import plain
from fastcodec.train.codebooks import Quantized, TrainedQuantizer
from fastcodec.train.config import TrainConfig


class Net(nn.Module):
    """A codec as training sees it: one differentiable pass from signal to signal."""

    def __init__(self, codec: Codec, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(codec.quantizer, ResidualQuantizer):
            raise ValueError(
                f"train: {codec.name} has a {type(codec.quantizer).__name__}; the trainer knows "
                f"ResidualQuantizer"
            )
        self.codec, self.autocast = codec, config.autocast
        self.unquantised = config.unquantised
        self.quantizer = TrainedQuantizer(codec.quantizer, config.codebooks, generator)
        self.encode, self.decode = self._encode, self._decode
        if config.compile:
            self.encode, self.decode = torch.compile(self._encode), torch.compile(self._decode)

    def forward(self, wav: Tensor) -> tuple[Tensor, Quantized]:
        """decoded [B, C, S] float32 of wav [B, C, S], S a multiple of the hop."""
        with torch.autocast(wav.device.type, torch.bfloat16, enabled=self.autocast):
            latent = self.encode(wav)
        latent = latent.float()
        quantized = self.quantizer(latent)
        # The last ones: the quantizer's dropout takes the first.
        count = len(wav) - round(self.unquantised * len(wav))
        given = torch.cat([quantized.latent[:count], latent[count:]])
        with torch.autocast(wav.device.type, torch.bfloat16, enabled=self.autocast):
            decoded = self.decode(given)
        return decoded.float(), quantized

    def _encode(self, wav: Tensor) -> Tensor:
        return plain.forward(self.codec.encoder, wav)

    def _decode(self, latent: Tensor) -> Tensor:
        return plain.forward(self.codec.decoder, latent)


def export(codec: Codec, path: Path) -> None:
    """Write a codec's weights in bfloat16, codebooks too, with its spec."""
    spec = spec_of(codec, codecs.FAMILIES)
    state = {name: value.bfloat16() for name, value in tagged_state(codec).items()}
    model_file.write(path, spec, state)


def unloaded(preset: str) -> Codec:
    for family in codecs.FAMILIES:
        if preset in family.PRESETS:
            codec: Codec = family.build(preset)
            return codec
    names = ", ".join(name for family in codecs.FAMILIES for name in family.PRESETS)
    raise ValueError(f"train: there is no preset {preset!r}; known: {names}")


@torch.no_grad()
def initialise(codec: Codec) -> Codec:
    """Weights that keep a signal's variance from layer to layer; without it, deep nets without
    normalisation start near silence.

    A residual path starts as a small part of the sum; a depthwise convolution lets the present
    frame through.
    """
    for layer in codec.modules():
        if isinstance(layer, Conv1d | ConvTranspose1d):
            inputs = layer.weight[0].numel()
            if isinstance(layer, ConvTranspose1d):
                inputs = layer.weight.shape[0] // layer.groups * layer.kernel // layer.stride
            nonlinear = 1.5 if layer.activation else 1.0  # what an activation takes away
            layer.weight.uniform_(-1, 1).mul_((3 * nonlinear / inputs) ** 0.5)
            if layer.groups > 1 and layer.weight.shape[1] == 1:
                layer.weight.mul_(0.3)
                layer.weight[:, 0, -1] += 0.7
    for layer in codec.modules():
        if isinstance(layer, Residual):
            cast(Conv1d, layer.body[-1]).weight.mul_(0.3)
    return codec
