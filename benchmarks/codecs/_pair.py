"""What the files of families share: both sides on one set of weights, and what is asked of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import fastcodec
from benchmarks import contest
from benchmarks.contest import Contest
from benchmarks.engines import Function, Published
from benchmarks.floors import Work
from benchmarks.gates import PEER, Gate, relative_l2
from benchmarks.published import version_of
from benchmarks.runner import Absent, Bench, Row
from benchmarks.signals import wav
from benchmarks.ties import tie_gate
from benchmarks.work import net_flops, parameter_bytes, quantizer_bytes, quantizer_flops
from fastcodec import Codes
from fastcodec.codecs.base import Codec

# Relative L2; 1e-2 is 40 dB.
AUDIO_LIMITS = {"highest": 1e-5, "high": 1e-4, "medium": 1e-2, PEER: 3e-2}
EXACT_S = 2.0  # of the signal through the float64 net
SHORT_S = 1.0


@dataclass(frozen=True)
class Pair:
    """A preset, ours and theirs with one set of weights.

    Args:
        name: of the preset
        weights: what ours loads
        peers: the first one is the truth
        kbps: bandwidth, or None for all codebooks
        signal: seconds -> wav [1, C, S], whole frames
    """

    name: str
    weights: Any
    peers: Sequence[Published]
    kbps: float | None = None
    signal: Callable[[float], Tensor] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def peer(package: str, make: Callable[[Codec], Published], codec: Codec) -> Published:
    """A peer of a package, or the reason why there is none."""
    try:
        return make(codec)
    except Absent as reason:
        return Published(version_of(package), absent=str(reason))


def rows(bench: Bench, makers: Mapping[str, Callable[[], Pair]]) -> Iterator[Row]:
    """Encode and decode of every preset that is asked for."""
    for name, make in makers.items():
        asked = [what for what in ("encode", "decode") if bench.wanted(f"{name}.{what}")]
        if asked:
            yield from pair_rows(bench, make(), asked)


def pair_rows(bench: Bench, pair: Pair, asked: Sequence[str]) -> Iterator[Row]:
    """Of "encode" and "decode" what is asked for."""
    sides = Sides(pair, bench)
    for what in asked:
        yield from contest.measure(bench, sides.encode() if what == "encode" else sides.decode())


class Sides:
    """Ours at every precision on a signal, and what the peers get."""

    def __init__(self, pair: Pair, bench: Bench) -> None:
        self.pair = pair
        self.ours: dict[str, Codec] = {
            p: fastcodec.load(pair.name, pair.weights, precision=p) for p in bench.precisions
        }
        self.codec = next(iter(self.ours.values()))
        self.wav = self._signal(bench.seconds)
        self.seconds = round(self.wav.shape[2] / self.codec.sample_rate_hz, 4)
        self.codes, self.latents = recorded(self.codec, self.wav, pair.kbps)
        self.short: Tensor | None = self._signal(SHORT_S) if bench.seconds > 2 * SHORT_S else None

    def _signal(self, seconds: float) -> Tensor:
        """Whole frames: what is done with a rest differs between packages."""
        if self.pair.signal is not None:
            return self.pair.signal(seconds)
        codec = self.codec
        multiple = codec.frame_multiple * codec.hop
        count = max(1, round(seconds * codec.sample_rate_hz / multiple))
        length = count * multiple / codec.sample_rate_hz
        return wav(codec.sample_rate_hz, codec.channels, length)

    def encode(self) -> Contest:
        """wav -> codes; the first peer's are right."""
        codec, frames, count = self.codec, self.codes.tokens.shape[2], self.codes.n_codebooks
        kbps, quantizer, latents = self.pair.kbps, codec.quantizer, self.latents

        def gate(precision: str, got: Tensor, truth: Tensor) -> Gate:
            return tie_gate(quantizer, latents, got, truth, precision)

        exact_s, exact = self._float64_latents()
        figures: dict[str, dict[str, Any]] = {}
        found: dict[str, Tensor] = {}
        for precision, other in self.ours.items():
            found[precision] = recorded(other, self.wav, kbps)[1]
            error = relative_l2(_latents(other, self._signal(exact_s)).double(), exact).value
            tokens = other.encode(self.wav, bandwidth_kbps=kbps).tokens
            equal = (tokens == self.codes.tokens).double().mean().item()
            figures[precision] = {
                "latents_relative_l2": _rounded(error),
                "latents_seconds": exact_s,
                "codes_equal_to_highest_percent": round(100 * equal, 4),
            }
        return Contest(
            f"{self.pair.name}.encode",
            self._config(),
            {
                p: (lambda c=c: c.encode(self.wav, bandwidth_kbps=kbps).tokens)
                for p, c in self.ours.items()
            },
            _twins(found),
            self.pair.peers,
            lambda peer: peer.encode,
            (self.wav,),
            None if self.short is None else (self.short,),
            gate,
            Work(
                net_flops(codec.encoder, self.latents.shape[2] / codec.encoder.rate)
                + quantizer_flops(quantizer, frames, count, decode=False),
                parameter_bytes(codec.encoder)
                + quantizer_bytes(quantizer, count)
                + 4 * self.wav.numel(),
            ),
            figures,
            self.seconds,
            SHORT_S,
        )

    def decode(self) -> Contest:
        """Codes -> wav; the first peer's is right."""
        codec, samples = self.codec, self.wav.shape[2]
        heard = {p: other.decode(self.codes) for p, other in self.ours.items()}
        highest = next(iter(heard.values()))
        figures = {
            p: {"snr_db_to_highest": _snr_db(y, highest)} if p != "highest" else {}
            for p, y in heard.items()
        }

        def of(peer: Published) -> Function | None:
            if peer.decode is None:
                return None
            run = peer.decode
            return lambda *args: run(args[0], args[1] if len(args) > 1 else None)[..., :samples]

        def gate(precision: str, got: Tensor, truth: Tensor) -> Gate:
            shortest = min(got.shape[2], truth.shape[2])  # DAC's odd strides give less
            if shortest < samples - 2 * codec.hop:
                return Gate(f"{shortest} samples, not {samples}", math.nan, 0.0)
            limit = AUDIO_LIMITS[precision]
            return relative_l2(got[..., :shortest], truth[..., :shortest], limit)

        return Contest(
            f"{self.pair.name}.decode",
            self._config(),
            {p: (lambda c=c: c.decode(self.codes)) for p, c in self.ours.items()},
            _twins(heard),
            self.pair.peers,
            of,
            _inputs(self.codes),
            None
            if self.short is None
            else _inputs(self.codec.encode(self.short, bandwidth_kbps=self.pair.kbps)),
            gate,
            Work(
                net_flops(codec.decoder, self.codes.tokens.shape[2])
                + quantizer_flops(
                    codec.quantizer, self.codes.tokens.shape[2], self.codes.n_codebooks, decode=True
                ),
                parameter_bytes(codec.decoder) + 4 * self.wav.numel(),
            ),
            figures,
            self.seconds,
            SHORT_S,
        )

    def _config(self) -> dict[str, Any]:
        _, count, frames = self.codes.tokens.shape
        kbps = {} if self.pair.kbps is None else {"kbps": self.pair.kbps}
        sizes = {"B": 1, "C": self.codec.channels, "K": count, "T": frames}
        return {**kbps, **sizes, **self.pair.config}

    def _float64_latents(self) -> tuple[float, Tensor]:
        """How many seconds of the signal, and what our net makes of them in float64."""
        seconds = min(self.seconds, EXACT_S)
        exact = copy.deepcopy(self.codec).double()
        with torch.inference_mode(), fastcodec.use_backend("reference"):
            return seconds, exact.encoder(self._signal(seconds).double())


def _latents(codec: Codec, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return codec.encoder(x)


def recorded(codec: Codec, x: Tensor, kbps: float | None) -> tuple[Codes, Tensor]:
    """The codes of a signal, and the latents [B, D, T] that the quantizer saw."""
    seen, encode = [], codec.quantizer.encode

    def note(latent: Tensor, n_codebooks: int | None = None) -> Tensor:
        seen.append(latent.clone())
        return encode(latent, n_codebooks)

    codec.quantizer.encode = note
    try:
        codes = codec.encode(x, bandwidth_kbps=kbps)
    finally:
        del codec.quantizer.encode
    return codes, torch.cat(seen, dim=2)


def _twins(found: Mapping[str, Tensor]) -> dict[str, str]:
    """Precision -> an earlier one with the same bits, whose time is its own."""
    twins: dict[str, str] = {}
    for i, (precision, value) in enumerate(found.items()):
        for other in list(found)[:i]:
            if torch.equal(value, found[other]):
                twins[precision] = twins.get(other, other)
                break
    return twins


def _inputs(codes: Codes) -> tuple[Tensor, ...]:
    return (codes.tokens,) if codes.scale is None else (codes.tokens, codes.scale)


def _snr_db(got: Tensor, truth: Tensor) -> float | None:
    """None where both are equal."""
    noise = (got.double() - truth.double()).square().sum().item()
    power = truth.double().square().sum().item()
    return round(10 * math.log10(power / noise), 2) if noise and power else None


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
