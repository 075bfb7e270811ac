"""EnCodec and audiocraft's variants beside PyPI's encodec and transformers, same random weights."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import fastcodec
from benchmarks import peers
from benchmarks.floors import Work
from benchmarks.gates import Gate, codes_up_to_ties, relative_l2
from benchmarks.machine import package
from benchmarks.runner import Bench, Case, Peer, Row
from benchmarks.signals import wav
from benchmarks.work import net_flops, parameter_bytes
from fastcodec.codecs.encodec import PRESETS

# preset -> kbps to measure; the encoder's work depends on it, the decoder's hardly
BANDWIDTHS_KBPS = {
    "encodec_24khz": (6.0, 24.0),
    "encodec_48khz": (6.0,),
    "encodec_32khz": (2.2,),
    "encodec_16khz": (2.2,),
}
ON_PYPI = ("encodec_24khz", "encodec_48khz")


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode of every preset."""
    for name, bandwidths in BANDWIDTHS_KBPS.items():
        if not any(bench.wanted(f"{name}.{what}") for what in ("encode", "decode")):
            continue
        trio = Trio(name, bench.seconds)
        for kbps in bandwidths:
            yield from bench.measure(trio.encode(kbps))
        yield from bench.measure(trio.decode(bandwidths[0]))


class Trio:
    """One preset three times: ours, transformers', encodec's, with one set of weights."""

    def __init__(self, name: str, seconds: float) -> None:
        config = PRESETS[name]
        self.name, self.config, self.seconds = name, config, seconds
        self.transformers = peers.transformers_encodec(config)
        state = dict(self.transformers.state_dict())
        self.ours = fastcodec.load(name, state)
        peers.fold_weight_norm(self.transformers)
        self.upstream: Any = None
        self.upstream_absent = _absent(name)
        if self.upstream_absent is None:
            self.upstream = peers.upstream_encodec(config, self.transformers.state_dict())
        self.wav = wav(config.sample_rate_hz, config.seanet.channels, seconds)

    def encode(self, kbps: float) -> Case:
        """wav -> codes."""
        codes = self.ours.encode(self.wav, bandwidth_kbps=kbps)
        latents = self._latents(kbps)

        def upstream() -> Tensor:
            self.upstream.set_target_bandwidth(kbps)
            segments: list[tuple[Tensor, Any]] = self.upstream.encode(self.wav)
            return torch.cat([tokens for tokens, _ in segments], dim=2)

        def transformers() -> Tensor:
            tokens: Tensor = self.transformers.encode(self.wav, bandwidth=kbps).audio_codes
            return tokens.permute(1, 2, 0, 3).flatten(2)[..., : codes.tokens.shape[2]]

        def compare(got: Tensor, truth: Tensor) -> Gate:
            return codes_up_to_ties(got, truth, latents, self.ours.quantizer.codebooks)

        quantizer = self.ours.quantizer.codebooks[: codes.n_codebooks]
        frames = codes.tokens.shape[2]
        flops = net_flops(self.ours.encoder, frames * self.ours.hop)
        return Case(
            f"{self.name}.encode",
            self._config(kbps, codes.tokens),
            lambda: self.ours.encode(self.wav, bandwidth_kbps=kbps).tokens,
            self._peers(upstream, transformers),
            compare,
            Work(
                flops + 2 * frames * quantizer.numel(),
                parameter_bytes(self.ours.encoder) + 4 * quantizer.numel() + 4 * self.wav.numel(),
            ),
        )

    def decode(self, kbps: float) -> Case:
        """Codes -> wav."""
        codes = self.ours.encode(self.wav, bandwidth_kbps=kbps)
        samples = self.wav.shape[2]
        parts = codes.tokens.split(self._segment_frames(), dim=2)
        scales = [None] * len(parts) if codes.scale is None else list(codes.scale.T[..., None])
        last_pad = parts[0].shape[2] - parts[-1].shape[2]
        stacked = torch.stack([*parts[:-1], torch.nn.functional.pad(parts[-1], (0, last_pad))])

        def transformers() -> Tensor:
            out = self.transformers.decode(stacked, scales, last_frame_pad_length=last_pad)
            y: Tensor = out.audio_values
            return y[..., :samples]

        frames = codes.tokens.shape[2]
        return Case(
            f"{self.name}.decode",
            self._config(kbps, codes.tokens),
            lambda: self.ours.decode(codes),
            self._peers(
                lambda: self.upstream.decode(list(zip(parts, scales, strict=True)))[..., :samples],
                transformers,
            ),
            relative_l2,
            Work(
                net_flops(self.ours.decoder, frames),
                parameter_bytes(self.ours.decoder) + 4 * self.wav.numel(),
            ),
        )

    def _peers(self, upstream: Any, transformers: Any) -> list[Peer]:
        eager = Peer(package("transformers"), {"eager": transformers})
        if self.upstream_absent is None:
            return [eager, Peer(package("encodec"), {"eager": upstream})]
        return [eager, Peer(package("encodec"), absent=self.upstream_absent)]

    def _config(self, kbps: float, tokens: Tensor) -> dict[str, Any]:
        _, codebooks, frames = tokens.shape
        sizes = {"C": self.config.seanet.channels, "K": codebooks, "T": frames}
        return {"seconds": self.seconds, "kbps": kbps, "B": 1, **sizes}

    def _segment_frames(self) -> int:
        segment = self.config.segment or self.wav.shape[2]
        return -(-segment // self.ours.hop)

    def _latents(self, kbps: float) -> Tensor:
        """[B, D, T] of all segments in turn, caught in transformers' encoder."""
        seen: list[Tensor] = []
        hook = self.transformers.encoder.register_forward_hook(lambda m, x, y: seen.append(y))
        with torch.no_grad():
            self.transformers.encode(self.wav, bandwidth=kbps)
        hook.remove()
        return torch.cat(seen, dim=2)


def _absent(name: str) -> str | None:
    """Why PyPI's encodec cannot be the peer of a preset."""
    if name not in ON_PYPI:
        return "it has the 24 and 48 kHz models only"
    return None if find_spec("encodec") else "not installed: pip install --no-deps encodec"
