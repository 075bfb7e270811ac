"""FreqCodec's nets (FunCodec, arXiv:2309.07405): SEANet over frequency and time, around a spectrum.

    wav -> STFT -> log magnitude and phase [B, F, T, 3] -> 2-D convolutions, F = 257 -> 64 -> 16 ->
    4 -> 1 -> LSTM -> convolution -> latents -> convolution -> LSTM -> 2-D transposed convolutions,
    F = 1 -> 4 -> 16 -> 64 -> 257 -> magnitude and phase -> inverse STFT -> wav

funcodec/models/codec_freq.py@3435d870, encoder/seanet_encoder.py, decoder/seanet_decoder.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastcodec.codecs.funcodec_config import FuncodecConfig, NetConfig
from fastcodec.codecs.funcodec_seanet import Builder
from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE, Activation
from fastcodec.layers.conv2d import Conv2d, ConvTranspose2d, Pair, norm_map
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.spectral import hann, istft, stft
from fastcodec.layers.streaming import WholeSignal

FLOOR = 1e-6  # of magnitudes, before a logarithm or a division


def features(spectrum: Tensor, domain: str) -> Tensor:
    """What the encoder sees of a spectrum [B, T, F, 2] float64: [B, F, T, C] float32."""
    real, imaginary = spectrum.unbind(-1)
    magnitude = (real * real + imaginary * imaginary).sqrt()
    floored = magnitude.clamp(min=FLOOR)
    if domain == "mag_phase":
        parts = [floored.log(), real / floored, imaginary / floored]
    elif domain == "mag_angle":
        parts = [floored.log(), torch.atan2(imaginary, real)]
    else:
        parts = [real, imaginary] if domain == "stft" else [magnitude]
    return torch.stack(parts, dim=-1).float().transpose(1, 2).contiguous()


def spectrum_of(x: Tensor, domain: str, phase: Tensor | None = None) -> Tensor:
    """The spectrum [B, T, F, 2] float64 that the decoder's output [B, F, T, C] stands for.

    Args:
        x: float32
        domain: of the output
        phase: [B, F, T] float64, angles of another signal's spectrum: for "mag_oracle_phase"
    """
    first, *others = x.double().transpose(1, 2).unbind(-1)
    if domain == "stft":
        return torch.stack([first, others[0]], dim=-1)
    if domain == "mag_oracle_phase":
        assert phase is not None
        frames = min(phase.shape[2], first.shape[1])
        first, angle = first[:, :frames], phase[..., :frames].transpose(1, 2)
        return torch.stack([first * angle.cos(), first * angle.sin()], dim=-1)
    magnitude = torch.where(first > 20, first, first.exp().log1p())  # torch's softplus
    if domain == "mag_phase":
        return torch.stack([magnitude * others[0], magnitude * others[1]], dim=-1)
    angle = others[0].sin() * math.pi
    return torch.stack([magnitude * angle.cos(), magnitude * angle.sin()], dim=-1)


class SpectralNet(WholeSignal):
    """Layers over maps [B, F, T, C] and then over signals, or the reverse."""

    not_streamable_because = "its spectra and their normalisation are of the whole signal"
    window: Tensor

    def __init__(self, layers: list[nn.Module], config: FuncodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.fft_hop = config.fft_hop
        self.register_buffer("window", hann(config.n_fft), persistent=False)


class SpectralEncoder(SpectralNet):
    """wav [B, 1, S] -> latents [B, D, T]."""

    def __init__(self, config: FuncodecConfig) -> None:
        super().__init__(encoder(config.encoder), config)
        self.domain, self.rate, self.lookahead = config.domain[0], 1 / config.hop, config.hop - 1

    def spectrum(self, x: Tensor) -> Tensor:
        """[B, T, F, 2] float64 of x [B, 1, S]."""
        return stft(x[:, 0], self.window, self.fft_hop)

    def whole(self, x: Tensor) -> Tensor:
        x = features(self.spectrum(x), self.domain)
        for layer in self.layers:
            x = layer(x)
        return x


class SpectralDecoder(SpectralNet):
    """latents [B, D, T] -> wav [B, 1, S], a little less than T hops."""

    def __init__(self, config: FuncodecConfig) -> None:
        super().__init__(decoder(config.decoder), config)
        self.domain, self.rate = config.domain[1], config.hop

    def whole(self, x: Tensor, phase: Tensor | None = None) -> Tensor:
        if self.domain == "mag_oracle_phase" and phase is None:
            raise ValueError("decode: this codec needs the phase that codec.phase(wav) gives")
        for layer in self.layers:
            x = layer(x)
        return istft(spectrum_of(x, self.domain, phase), self.window, self.fft_hop).float()[:, None]


class ToSignal(nn.Module):
    """A map of one row of frequency as a signal [B, C, T]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].transpose(1, 2)


class ToMap(nn.Module):
    """A signal [B, C, T] as a map of one row of frequency."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)[:, None]


def encoder(config: NetConfig, path: str = "encoder.model") -> list[nn.Module]:
    """Layers from features [B, F, T, C] to latents [B, D, T]."""
    net = Builder2d(config, path)
    width = config.n_filters
    net.conv2d(config.channels, width, (config.kernel_size,) * 2, activation=NONE)
    for ratio in zip(reversed(config.frequency_ratios), reversed(config.ratios), strict=True):
        net.residual_units(width)
        groups = net.groups(width, config.conv_group_ratio)
        net.conv2d(width, 2 * width, (2 * ratio[0], 2 * ratio[1]), ratio, groups)
        width *= 2
    net.reshape(ToSignal())
    net.sequence_model(width)
    net.conv(width, config.dimension, config.last_kernel_size)
    return net.modules + list(net.layers)


def decoder(config: NetConfig, path: str = "decoder.model") -> list[nn.Module]:
    """Layers from latents [B, D, T] to the features of a spectrum [B, F, T, C]."""
    net = Builder2d(config, path)
    width = config.n_filters * 2 ** len(config.ratios)
    net.conv(config.dimension, width, config.kernel_size, activation=NONE)
    net.sequence_model(width)
    net.modules += net.layers
    net.reshape(ToMap())
    ratios = list(zip(config.frequency_ratios, config.ratios, strict=True))
    for i, ratio in enumerate(ratios):
        net.conv_transpose2d(width, width // 2, ratio, last=i == len(ratios) - 1)
        width //= 2
        net.residual_units(width)
    net.conv2d(width, config.channels, (config.last_kernel_size,) * 2)
    return net.modules


class Normed(nn.Module):
    """A convolution of maps, and its normalisation if there is one."""

    def __init__(self, conv: Conv2d, norm: GroupNorm | None) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y if self.norm is None else norm_map(self.norm, y)


class Unit(nn.Module):
    """skip(x) + body(x)."""

    def __init__(self, body: list[nn.Module], skip: nn.Module | None) -> None:
        super().__init__()
        self.body, self.skip = nn.Sequential(*body), skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return (x if self.skip is None else self.skip(x)) + y


class Builder2d(Builder):
    """Appends layers over maps to ``modules``, those over signals to ``layers``."""

    def __init__(self, config: NetConfig, path: str) -> None:
        super().__init__(config, path)
        self.modules: list[nn.Module] = []

    def reshape(self, layer: nn.Module) -> None:
        """A change between maps and signals, which counts as a layer."""
        self.next_path()
        self.modules.append(layer)

    def groups(self, width: int, ratio: int | None) -> int:
        """Groups of twice ``ratio`` channels."""
        if ratio is None:
            return 1
        groups = width // 2 // ratio
        if groups < 1 or width % groups:
            raise ValueError(f"FunCodec: conv_group_ratio {ratio} does not divide {width} filters")
        return groups

    def conv2d(
        self, c_in: int, c_out: int, kernel: Pair, stride: Pair = (1, 1), groups: int = 1,
        activation: Activation | None = None,
    ) -> None:  # fmt: skip
        """A convolution of the activated map, and its normalisation."""
        activation = self.activation if activation is None else activation
        path = self.next_path(activation != NONE)
        self.modules.append(self._conv2d(path, c_in, c_out, kernel, stride, 1, groups, activation))

    def conv_transpose2d(self, c_in: int, c_out: int, ratio: Pair, last: bool) -> None:
        """A transposed convolution, normalised before it is cut."""
        path, config = self.next_path(True), self.config
        kept = config.last_out_padding if last else (0, 0, 0, 0)
        right = [ratio[0] // 2, ratio[1] // 2]
        if config.causal:
            right[1] = math.ceil(ratio[1] * config.trim_right_ratio)
        cuts = [ratio[0] - right[0], right[0], ratio[1] - right[1], right[1]]
        cuts = [max(0, cut - keep) for cut, keep in zip(cuts, kept, strict=True)]
        layer = ConvTranspose2d(
            c_in,
            c_out,
            ratio,
            self.groups(c_in, config.tr_conv_group_ratio),
            frequency=(cuts[0], cuts[1]),
            time=(cuts[2], cuts[3]),
            activation=self.activation,
            norm=self.group_norm(c_out, f"{path}.convtr.norm"),
        )
        self.modules.append(tag(layer, f"{path}.convtr.convtr"))

    def residual_units(self, width: int) -> None:
        """Units of a convolution dilated over time and a pointwise one, with a skip path."""
        config, hidden = self.config, width // self.config.compress
        inner = self.groups(min(width, hidden), config.conv_group_ratio)
        for j in range(config.n_residual_layers):
            path, dilation = self.next_path(), config.dilation_base**j
            square = (config.residual_kernel_size,) * 2
            body: list[nn.Module] = [
                self._conv2d(f"{path}.block.1", width, hidden, square, (1, 1), dilation, inner),
                self._conv2d(f"{path}.block.3", hidden, width, groups=inner),
            ]
            outer = self.groups(width, config.conv_group_ratio)
            skip = self._conv2d(f"{path}.shortcut", width, width, groups=outer, activation=NONE)
            self.modules.append(Unit(body, None if config.true_skip else skip))

    def _conv2d(
        self, path: str, c_in: int, c_out: int, kernel: Pair = (1, 1), stride: Pair = (1, 1),
        dilation: int = 1, groups: int = 1, activation: Activation | None = None,
    ) -> Normed:  # fmt: skip
        config = self.config
        rows, frames = kernel[0] - stride[0], (kernel[1] - 1) * dilation + 1 - stride[1]
        after = 0 if config.causal else frames // 2
        conv = Conv2d(
            c_in,
            c_out,
            kernel,
            stride,
            dilation,
            groups,
            frequency=(rows - rows // 2, rows // 2),
            time=(frames - after, after),
            causal=config.causal,
            padding=config.padding,
            activation=self.activation if activation is None else activation,
        )
        norm = self.group_norm(c_out, f"{path}.conv.norm")
        return Normed(tag(conv, f"{path}.conv.conv"), norm)
