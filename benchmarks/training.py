"""A training step's net, forward and backward: as we train it, and the same in torch's modules.

``training.step`` is what ``fastcodec train`` runs; ``training.layers`` the streaming layers with
the ops' own autograd formulas. Encoder, residual quantizer with the straight-through estimate,
decoder; loss: L1 of the waveform and commitment. The codebooks stay as they are, so that every call
does the same. The gate compares all gradients. ``audio_s_per_s``: seconds of audio a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.floors import Work
from benchmarks.gates import relative_l2
from benchmarks.machine import package
from benchmarks.runner import Bench, Case, Peer, Row
from benchmarks.signals import wav, word_sizes
from benchmarks.work import net_flops, parameter_bytes
from fastcodec import use_backend
from fastcodec.codecs import embedded
from fastcodec.codecs.base import Codec
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.streaming import Residual, Sequential
from fastcodec.ops import ACTIVATIONS
from fastcodec.train import plain
from fastcodec.train.codebooks import TrainedQuantizer
from fastcodec.train.config import Data

PRESET = "fastcodec_16khz"
MODULES = {ACTIVATIONS["elu"]: nn.ELU, ACTIVATIONS["gelu"]: nn.GELU}
CASES = ("training.step", "training.layers")


def rows(bench: Bench) -> Iterator[Row]:
    """Both of our ways beside torch's modules, on a batch of the recipes' size."""
    if not any(map(bench.wanted, CASES)):
        return
    codec = with_lively_codebooks(embedded.build(PRESET))
    batch, seconds = Data().batch, Data().crop_s
    length = round(seconds * codec.frame_rate_hz) * codec.hop
    x = wav(codec.sample_rate_hz, 1, batch * seconds)[..., : batch * length].view(batch, 1, length)
    peer = PlainNet(codec)
    for name, ours in zip(CASES, (AsTrained(codec), AsLayers(codec)), strict=True):
        case = Case(
            name,
            {"preset": PRESET, "B": batch, "S": length},
            partial(gradients, ours, x),
            [Peer(package("torch"), {"nn modules": partial(gradients, peer, x)})],
            relative_l2,
            # Backward is twice forward: once for the inputs and once for the weights.
            Work(
                3 * flops(codec, x),
                3 * (parameter_bytes(codec) + 4 * codec.quantizer.codebooks.numel()),
            ),
        )
        for row in bench.measure(case):
            yield row | per_second(row, x.numel() / codec.sample_rate_hz)


def gradients(net: nn.Module, x: Tensor) -> Tensor:
    """All gradients of the loss, in one vector; the bench's inference mode is left for it."""
    with torch.inference_mode(False), torch.enable_grad():
        net.zero_grad(set_to_none=True)
        decoded, commitment = net(x)
        (F.l1_loss(decoded, x) + commitment).backward()
        return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def per_second(row: Row, audio_s: float) -> Row:
    """Seconds of audio a second, of ours and of the peer."""
    sides = {side: row[f"{side}_ms"]["median"] for side in ("ours", "peer") if f"{side}_ms" in row}
    return {"audio_s_per_s": {k: round(1e3 * audio_s / ms, 2) for k, ms in sides.items()}}


def flops(codec: Codec, x: Tensor) -> float:
    """Of encoder, search and decoder, forward."""
    frames = x.numel() / codec.hop
    nets = net_flops(codec.encoder, x.numel()) + net_flops(codec.decoder, frames)
    return nets + 2 * frames * codec.quantizer.codebooks.numel()


@torch.no_grad()
def with_lively_codebooks(codec: Codec) -> Codec:
    """The codec with words that its latents use many of."""
    torch.manual_seed(0)
    latent = codec.encoder(wav(codec.sample_rate_hz, 1, 1.0))
    books = codec.quantizer.codebooks.normal_()
    books *= latent.std() * word_sizes(len(books))[:, None, None]
    books[0] += latent.mean(dim=(0, 2))
    return codec


class AsTrained(nn.Module):
    """What the trainer's net does, in torch's autograd."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        assert isinstance(codec.quantizer, ResidualQuantizer)
        self.codec, self.quantizer = codec, TrainedQuantizer(codec.quantizer).eval()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with use_backend("reference"):
            return self._run(x, plain.forward)

    def _run(self, x: Tensor, run: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        quantized = self.quantizer(run(self.codec.encoder, x))
        return run(self.codec.decoder, quantized.latent), quantized.commitment


class AsLayers(AsTrained):
    """The layers as they are: the ops' kernels forward, their formulas backward."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._run(x, lambda net, signal: net(signal))


class PlainNet(nn.Module):
    """The codec in torch's modules, with its weights."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.encoder, self.decoder = plain_layer(codec.encoder), plain_layer(codec.decoder)
        self.register_buffer("books", codec.quantizer.codebooks.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.encoder(x).transpose(1, 2)
        rest, total, errors = latent, torch.zeros_like(latent), []
        for book in self.books.unbind(0):
            rows = rest.detach().flatten(0, 1)
            far = rows.square().sum(1, keepdim=True) - 2 * rows @ book.T + book.square().sum(1)
            word = F.embedding(far.argmin(dim=1), book).view_as(rest)
            errors.append(F.mse_loss(rest, word))
            total, rest = total + word, rest - word
        through = latent + (total - latent).detach()
        return self.decoder(through.transpose(1, 2)), torch.stack(errors).mean()


class Skip(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Cut(nn.Module):
    """Drops the last frames."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : x.shape[2] - self.count]


def plain_layer(layer: nn.Module) -> nn.Module:
    """The same in torch's own modules, of what the preset is made of."""
    if isinstance(layer, Sequential):
        return nn.Sequential(*map(plain_layer, layer.layers))
    if isinstance(layer, Residual):
        return Skip(nn.Sequential(*map(plain_layer, layer.body)))
    activation = getattr(layer, "activation", 0)
    before = [MODULES[activation]()] if activation else []
    if isinstance(layer, Conv1d):
        c_out, c_in, kernel = layer.weight.shape
        conv: Any = nn.Conv1d(c_in * layer.groups, c_out, kernel, layer.stride, groups=layer.groups)
        parts = [*before, nn.ConstantPad1d((layer.left, layer.right), 0.0), conv]
    elif isinstance(layer, ConvTranspose1d):
        c_in, c_out, kernel = layer.weight.shape
        conv = nn.ConvTranspose1d(c_in, c_out, kernel, layer.stride)
        parts = [*before, conv, Cut(layer.cut_right)]
    else:
        raise TypeError(f"training: no module of torch for {type(layer).__name__}")
    conv.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return nn.Sequential(*parts)
