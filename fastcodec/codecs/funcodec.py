"""FunCodec (Du et al. 2023, arXiv:2309.07405): EnCodec's nets for speech at 16 kHz, and FreqCodec.

    wav / level -> encoder -> residual quantizer of 32 codebooks -> decoder -> wav * level

FreqCodec's nets work on spectra (``freqcodec``); phone classes may stand beside the codes
(``funcodec_semantic``). The level is that of the whole signal: ``Codes.scale`` carries it; decoded
without it, as bare tokens are, a signal comes at the level that the nets work at
(funcodec/models/codec_basic.py, codec_freq.py, codec_semantic_aug.py@3435d870).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcodec.codecs import freqcodec, funcodec_seanet, funcodec_yaml
from fastcodec.codecs.base import Codec, Progress, Weights
from fastcodec.codecs.encodec import volume
from fastcodec.codecs.funcodec_config import TIME, FuncodecConfig, NetConfig
from fastcodec.codecs.funcodec_quantizer import quantizer
from fastcodec.codecs.funcodec_semantic import Ppg, Semantics
from fastcodec.codecs.funcodec_yaml import from_upstream
from fastcodec.codecs.keys import snake_first
from fastcodec.codecs.stream import Wav, below_autograd, checked_finite
from fastcodec.codes import Codes, batch
from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv2d import Conv2d, ConvTranspose2d
from fastcodec.layers.streaming import StreamingModule

CONFIG = FuncodecConfig
LEVEL = "its input is brought to one level over the whole signal"
_KBPS, _HALF = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0), (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def _preset(
    net: NetConfig, hub: str = "", kbps: tuple[float, ...] = _KBPS, **decoder: Any
) -> FuncodecConfig:
    """A model of encoder and decoder alike, but for what ``decoder`` says."""
    domain = "mag_phase" if net.frequency_ratios else TIME
    return FuncodecConfig(
        16000, net, replace(net, **decoder), bandwidths_kbps=kbps, domain=(domain, domain),
        hub=f"alibaba-damo/audio_codec-{hub}-pytorch" if hub else "", licence="MIT" if hub else "",
    )  # fmt: skip


_DS320, _DS640 = NetConfig(), NetConfig(ratios=(8, 5, 4, 2, 2))
_GR8 = NetConfig(
    channels=3, ratios=(1, 1, 2, 1), frequency_ratios=(4, 4, 4, 4), dilation_base=1,
    conv_group_ratio=8,
)  # fmt: skip
_GR1 = replace(_GR8, n_filters=16, seq_model="none", conv_group_ratio=1)
_SOUNDSTREAM = NetConfig(
    dimension=512, n_residual_layers=3, causal=True, norm="weight_norm", seq_model="none"
)

# The nets of ds640, gr1 and gr8 are the nearest that is public: upstream publishes the true ones
# in a config.yaml beside the weights, and ``load_weights`` goes by that. The last one is a recipe.
PRESETS = {
    "funcodec_en_16k_nq32ds320": _preset(_DS320, "encodec-en-libritts-16k-nq32ds320"),
    "funcodec_en_16k_nq32ds640": _preset(_DS640, "encodec-en-libritts-16k-nq32ds640", _HALF),
    "funcodec_zh_en_16k_nq32ds320": _preset(_DS320, "encodec-zh_en-general-16k-nq32ds320"),
    "funcodec_zh_en_16k_nq32ds640": _preset(_DS640, "encodec-zh_en-general-16k-nq32ds640", _HALF),
    "freqcodec_en_16k_gr1nq32ds320": _preset(
        _GR1, "freqcodec_magphase-en-libritts-16k-gr1nq32ds320", tr_conv_group_ratio=2
    ),
    "freqcodec_en_16k_gr8nq32ds320": _preset(
        _GR8, "freqcodec_magphase-en-libritts-16k-gr8nq32ds320", tr_conv_group_ratio=8
    ),
    "funcodec_soundstream_16k_nq32ds320": _preset(_SOUNDSTREAM),
}


class Funcodec(Codec):
    """A model over time.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    config: FuncodecConfig
    training_only = re.compile(
        r"^(discriminator|mel_spec_transforms|context_model|context_masker|ppg_classifier"
        r"|phaseaug|enc_trans_func|dec_trans_func)\."
        r"|^quantizer\.rq\.model\..*(inited|cluster_size|embed_avg)$"
    )

    def __init__(self, config: FuncodecConfig, name: str = "funcodec") -> None:
        super().__init__()
        self.name = name
        self._build(config)

    def _build(self, config: FuncodecConfig) -> None:
        """Makes the net; again where a checkpoint brings a configuration of its own."""
        self.config, self.quantizer = config, quantizer(config)
        self.encoder, self.decoder = self._nets(config)
        if config.normalize and self.encoder.not_streamable_because is None:
            self.encoder.not_streamable_because = LEVEL
        self.sample_rate_hz, self.hop = config.sample_rate_hz, config.hop
        self.channels = config.encoder.channels
        self.bandwidths_kbps = config.bandwidths_kbps
        self.licence, self.weights_at = config.licence, config.hub

    def _nets(self, config: FuncodecConfig) -> tuple[StreamingModule, StreamingModule]:
        return funcodec_seanet.encoder(config.encoder), funcodec_seanet.decoder(config.decoder)

    def load_weights(self, weights: Weights | None) -> None:
        """Load model.pth, or a converted file.

        Args:
            weights: path of the file, or of a folder with a config.yaml beside it, which then says
                what the net is; a mapping of upstream's names to tensors; None: the hub's folder

        Raises:
            WeightsError: unreadable, unsafe, or not of this codec: every entry that differs
        """
        if weights is None and self.config.hub:
            checkpoints.from_hub(self.config.hub, "model.pth")
            weights = checkpoints.from_hub(self.config.hub, "config.yaml").parent
        if isinstance(weights, str | os.PathLike) and (Path(weights) / "config.yaml").is_file():
            self._follow(funcodec_yaml.read(Path(weights) / "config.yaml"), weights)
        super().load_weights(weights)

    def _follow(self, found: FuncodecConfig, where: str | os.PathLike[str]) -> None:
        """Become what a config.yaml says, where that is another net of the same kind."""
        if _kind(found) is not type(self):
            raise WeightsError(
                f"{where}: its config.yaml is of a {_kind(found).__name__}, but {self.name} is a "
                f"{type(self).__name__}; load it without a name"
            )
        own = self.config
        found = replace(found, hub=own.hub, licence=own.licence)
        if replace(found, bandwidths_kbps=own.bandwidths_kbps) != own:
            self._build(found)

    def _adapt(self, state: State) -> State:
        """Convolutions of maps have another form here."""
        out = dict(state)
        for layer in self.modules():
            key = f"{getattr(layer, 'upstream_path', '')}.weight"
            if isinstance(layer, Conv2d | ConvTranspose2d) and key in out and out[key].ndim == 4:
                out[key] = layer.kernel_form(out[key])
        return out

    def _layout(self, state: State) -> Callable[[str], str]:
        return snake_first

    def _encode_batch(self, wav: Tensor, n_codebooks: int, progress: Progress | None) -> Codes:
        if not self.config.normalize:
            return super()._encode_batch(wav, n_codebooks, progress)
        level = self._level(wav)
        codes = super()._encode_batch(wav / level[..., None], n_codebooks, progress)
        return replace(codes, scale=level)

    def _level(self, wav: Tensor) -> Tensor:
        """[B, 1] that the signals [B, C, S] are divided by."""
        return volume(checked_finite(wav, 0))[:, None] + 1e-8

    def _own_tokens(self, codes: Codes | Tensor) -> Tensor:
        if isinstance(codes, Codes) and codes.codec != self.name:
            raise ValueError(f"decode: these codes are of {codes.codec!r}, this is {self.name!r}")
        return codes if isinstance(codes, Tensor) else codes.tokens

    def _decode_batch(self, codes: Codes, n_samples: int, progress: Progress | None) -> Tensor:
        y = super()._decode_batch(codes, n_samples, progress)
        return y if codes.scale is None else y * codes.scale[:, :1, None]

    def _tiles(
        self, length: int, frame: int, net: StreamingModule, rows: int
    ) -> Iterator[tuple[int, int]]:
        """Tiles of a signal to encode, too, where only its level was to be known first."""
        level_only = net.not_streamable_because == LEVEL
        return super()._tiles(length, frame, self.decoder if level_only else net, rows)


class FreqCodec(Funcodec):
    """A model over spectra. What it decodes ends a hop of the spectra before its last frame's end:
    of ``Codes`` of a longer signal the rest is zeros.
    """

    encoder: freqcodec.SpectralEncoder
    decoder: freqcodec.SpectralDecoder

    def _build(self, config: FuncodecConfig) -> None:
        super()._build(config)
        self.channels = 1

    def _nets(self, config: FuncodecConfig) -> tuple[StreamingModule, StreamingModule]:
        return freqcodec.SpectralEncoder(config), freqcodec.SpectralDecoder(config)

    def n_frames(self, n_samples: int) -> int:
        """How many frames a signal of ``n_samples`` makes."""
        spectra = n_samples // self.config.fft_hop + 1
        return -(-spectra * self.config.fft_hop // self.hop)

    def _encode_batch(self, wav: Tensor, n_codebooks: int, progress: Progress | None) -> Codes:
        if wav.shape[2] <= self.config.n_fft // 2:
            raise ValueError(
                f"encode: {self.name} takes signals of {self.config.n_fft // 2 + 1} samples or "
                f"more, got {wav.shape[2]}"
            )
        return super()._encode_batch(wav, n_codebooks, progress)

    def phase(self, wav: Wav) -> Tensor:
        """[B, F, T] float32: the angles of the spectra of signals [B, 1, S], for ``decode``."""
        real, imaginary = self.encoder.spectrum(self._as_batch(wav, "wav")).unbind(-1)
        return torch.atan2(imaginary, real).float().transpose(1, 2)

    def decode(
        self, codes: Codes | Tensor, progress: Progress | None = None, phase: Tensor | None = None
    ) -> Tensor:
        """As every codec's.

        Args:
            codes, progress: as there
            phase: what ``phase`` gave of the signals, all of one length; only for the domain
                "mag_oracle_phase", whose codes are of magnitudes alone
        """
        if self.config.domain[1] != "mag_oracle_phase":
            return super().decode(codes, progress)
        tokens = self._own_tokens(codes)
        self._check_tokens(tokens)
        expected = (len(tokens), self.config.n_fft // 2 + 1)
        if phase is None or phase.ndim != 3 or phase.shape[:2] != expected:
            raise ValueError(f"decode: {self.name} needs phase {list(expected)} + [T], see phase()")
        with below_autograd(self.device):
            latent = self.quantizer.decode(tokens.to(self.device))
            y = self.decoder.whole(latent, phase.to(self.device, torch.float64))
        if isinstance(codes, Tensor):
            return y
        y = y if codes.scale is None else y * codes.scale[:, :1, None].to(self.device)
        return y[..., : int(codes.n_samples.max())]


class SemanticCodec(Funcodec):
    """A model over time with phone classes beside the codes; signals are coded one by one."""

    def _build(self, config: FuncodecConfig) -> None:
        super()._build(config)
        assert config.ppg is not None
        self.semantics = Semantics(config.ppg, config.encoder.dimension)

    def encode(
        self,
        wav: Wav | Sequence[Wav],
        n_codebooks: int | None = None,
        bandwidth_kbps: float | None = None,
        sample_rate_hz: int | None = None,
        progress: Progress | None = None,
        segment_s: float | None = None,
        ppg: Ppg | Sequence[Ppg] | None = None,
    ) -> Codes:
        """As every codec's.

        Args:
            ppg: phone classes of each signal, see ``Semantics.rows``; only the usage "residual"
                needs them here
        """
        plain = (n_codebooks, bandwidth_kbps, sample_rate_hz, progress, segment_s)
        if self.semantics.config.usage != "residual":
            return super().encode(wav, *plain)
        if segment_s is not None or sample_rate_hz not in (None, self.sample_rate_hz):
            raise ValueError(
                f"encode: {self.name} takes whole signals at {self.sample_rate_hz} Hz, got "
                f"segment_s={segment_s}, sample_rate_hz={sample_rate_hz}"
            )
        count = self._n_codebooks(n_codebooks, bandwidth_kbps)
        given = list(wav) if isinstance(wav, list | tuple) else [wav]
        signals = [s for i, w in enumerate(given) for s in self._as_batch(w, f"wav[{i}]").split(1)]
        classes, parts = self.semantics.rows(ppg, len(signals)), []
        for i, (signal, row) in enumerate(zip(signals, classes, strict=True)):
            with below_autograd(self.device):
                parts.append(self._encode_residual(signal, row, count))
            if progress:
                progress(i + 1, len(signals))
        return batch(parts)

    def _encode_residual(self, wav: Tensor, ppg: Tensor, n_codebooks: int) -> Codes:
        n_samples, wav = wav.shape[2], checked_finite(wav, 0)
        level = self._level(wav) if self.config.normalize else None
        latent = self.encoder(wav if level is None else wav / level[..., None])
        classes = self.semantics.latents(ppg, latent.shape[2], n_samples // self.hop)
        tokens = self.quantizer.encode(self.semantics.before(latent, classes), n_codebooks)
        return self._codes(tokens, [n_samples], level)

    def decode(
        self,
        codes: Codes | Tensor,
        progress: Progress | None = None,
        ppg: Ppg | Sequence[Ppg] | None = None,
    ) -> Tensor:
        """As every codec's.

        Args:
            codes, progress: as there
            ppg: phone classes of each signal, see ``Semantics.rows``
        """
        if self.semantics.config.usage == "supervision":
            return super().decode(codes, progress)
        tokens = self._own_tokens(codes)
        lengths = [tokens.shape[2] * self.hop] * len(tokens)
        if isinstance(codes, Codes):
            self._check_lengths(codes)
            lengths = codes.n_samples.tolist()
        rows = self.semantics.rows(ppg, len(tokens))
        out = torch.zeros(len(tokens), self.channels, max(lengths, default=0), device=self.device)
        for i, (length, row) in enumerate(zip(lengths, rows, strict=True)):
            frames = tokens[i : i + 1, :, : self.n_frames(length)]
            self._check_tokens(frames)
            with below_autograd(self.device):
                y = self._decode_beside(frames.to(self.device), row, length)
            if isinstance(codes, Codes) and codes.scale is not None:
                y = y * codes.scale[i, 0].to(y.device)
            out[i, :, : y.shape[2]] = y[0]
        return out

    def _decode_beside(self, tokens: Tensor, ppg: Tensor, n_samples: int) -> Tensor:
        classes = self.semantics.latents(ppg, tokens.shape[2], n_samples // self.hop)
        latent = self.semantics.after(self.quantizer.decode(tokens), classes)
        return self.decoder(latent)[..., :n_samples]


def _kind(config: FuncodecConfig) -> type[Funcodec]:
    if config.ppg is not None:
        return SemanticCodec
    return Funcodec if config.domain == (TIME, TIME) else FreqCodec


def build(name: str, config: FuncodecConfig | None = None) -> Funcodec:
    """The net of a preset, or of a configuration of your own, without its weights."""
    config = config or PRESETS[name]
    return _kind(config)(config, name)


__all__ = [
    "CONFIG", "PRESETS", "FreqCodec", "Funcodec", "FuncodecConfig", "SemanticCodec", "build",
    "from_upstream",
]  # fmt: skip
