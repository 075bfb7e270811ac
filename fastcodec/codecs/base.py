"""``Codec``: what every codec of the library offers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec import _native, ops
from fastcodec.codecs.keys import load_tagged
from fastcodec.codecs.stream import Stream, Wav, below_autograd, checked_finite
from fastcodec.codes import ABSENT, Codes, batch
from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints, model_file
from fastcodec.io.checkpoints import State
from fastcodec.layers.quantize import Quantizer
from fastcodec.layers.streaming import StreamingModule

Weights = str | os.PathLike[str] | Mapping[str, Any]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CodecInfo:
    """Facts of a codec. ``latency`` counts samples of look-ahead on top of the frame itself.

    ``kbps`` is the bit rate of all codebooks. ``streamable`` means both ways; where only ``encode``
    needs whole signals, ``decode_streamable`` is true nevertheless.
    ``invariant`` says whether the codes here are bit-identical for any batch, padding, chunking and
    number of threads: true where the CPU kernels serve every op (torch's own convolutions choose
    their algorithm by shape).
    """

    name: str
    sample_rate_hz: int
    channels: int
    frame_rate_hz: float
    hop: int
    n_codebooks: int
    codebook_size: int
    kbps: float
    bandwidths_kbps: tuple[float, ...]
    streamable: bool
    decode_streamable: bool
    not_streamable_because: str | None
    latency: int
    parameters: int
    licence: str
    weights: str
    invariant: bool


class Codec(nn.Module):
    """encoder -> residual quantizer -> decoder. Made by ``fastcodec.load``.

    A family sets the attributes, and overrides what is its own of ``_encode_batch``,
    ``_decode_batch``, ``_decode_tokens``, ``n_frames`` and of the steps of ``load_weights``.
    """

    encoder: StreamingModule
    decoder: StreamingModule
    quantizer: Quantizer
    config: Any = None  # a frozen dataclass, the family's CONFIG
    name: str
    sample_rate_hz: int
    channels: int = 1
    hop: int
    bandwidths_kbps: tuple[float, ...] = ()
    licence: str = ""
    weights_at: str = ""
    drops_tail: bool = False  # encodes only whole frames, as upstream does
    frame_multiple: int = 1  # the signal is filled up with zeros to a multiple of so many frames
    tile_s: float = 0.4  # of a push inside encode: fits the caches, and hides the cost of a call
    training_only: re.Pattern[str] | None = None  # entries of a checkpoint that are left out

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.sample_rate_hz / self.hop

    @property
    def device(self) -> torch.device:
        """Where the codebooks are."""
        return next(iter(self.quantizer.state_dict().values())).device

    @property
    def info(self) -> CodecInfo:
        """The codec's facts."""
        reason = self.encoder.not_streamable_because or self.decoder.not_streamable_because
        quantizer = self.quantizer
        bits = (quantizer.codebook_size - 1).bit_length()
        hold = quantizer.hold or (1,) * quantizer.n_codebooks
        lookahead = self.encoder.lookahead - (self.hop - 1) + self.decoder.lookahead * self.hop
        return CodecInfo(
            name=self.name,
            sample_rate_hz=self.sample_rate_hz,
            channels=self.channels,
            frame_rate_hz=self.frame_rate_hz,
            hop=self.hop,
            n_codebooks=quantizer.n_codebooks,
            codebook_size=quantizer.codebook_size,
            kbps=bits * self.frame_rate_hz * sum(1 / every for every in hold) / 1000,
            bandwidths_kbps=self.bandwidths_kbps,
            streamable=reason is None,
            decode_streamable=self.decoder.not_streamable_because is None,
            not_streamable_because=reason,
            latency=round(lookahead),
            parameters=sum(p.numel() for p in self.parameters())
            + sum(b.numel() for b in quantizer.buffers()),
            licence=self.licence,
            weights=self.weights_at,
            invariant=_native.cpu.why_not is None
            and ops.forced_backend() in (None, "cpu")
            and self.device.type == "cpu",
        )

    def load_weights(self, weights: Weights | None) -> None:
        """Load a published checkpoint by its own keys, weight norm folded, or a converted one.

        Args:
            weights: path, mapping of upstream's names to tensors, or None for the published one

        Raises:
            WeightsError: unreadable, unsafe, or not of this codec: every entry that differs
        """
        converted = None if isinstance(weights, Mapping | None) else model_file.read(weights)
        if converted is None:
            self._load_published(weights)
        else:
            load_tagged(self, converted[1], str(weights))

    def _load_published(self, weights: Weights | None) -> None:
        source = self._from_hub() if weights is None else weights
        given = isinstance(source, Mapping)
        what = f"the mapping given for {self.name}" if given else str(source)
        state = self._adapt(checkpoints.fold_weight_norm(self.read(source)))
        if (unused := self.training_only) is not None:
            state = {name: value for name, value in state.items() if not unused.search(name)}
        load_tagged(self, state, what, self._layout(state))

    def read(self, source: Weights) -> State:
        """The entries of a checkpoint, or of the one in a folder such as transformers writes."""
        if not isinstance(source, Mapping) and os.path.isdir(source):
            source = checkpoints.in_folder(source)
        return checkpoints.read_state(source)

    def _adapt(self, state: State) -> State:
        """The entries as upstream's package has them, where a layout differs not only in names."""
        return state

    def _layout(self, state: State) -> Callable[[str], str]:
        """How the checkpoint spells the names of the tags."""
        return str

    def _from_hub(self) -> str | os.PathLike[str]:
        raise WeightsError(
            f"{self.name}: its weights cannot be downloaded from here "
            f"({self.weights_at or 'none are published'}); give the path of a checkpoint as weights"
        )

    def encode(
        self,
        wav: Wav | Sequence[Wav],
        n_codebooks: int | None = None,
        bandwidth_kbps: float | None = None,
        sample_rate_hz: int | None = None,
        progress: Progress | None = None,
        segment_s: float | None = None,
    ) -> Codes:
        """The codes of one or more signals.

        Args:
            wav: [S], [C, S] or [B, C, S] float samples in -1..1 at the codec's rate, or a list of
                [S] or [C, S] of any lengths, whose codes do not depend on each other
            n_codebooks: how many codebooks to keep; all where neither this nor a bandwidth is given
            bandwidth_kbps: one of ``info.bandwidths_kbps``, instead of ``n_codebooks``
            sample_rate_hz: rate of wav, if you want it checked
            progress: called with (samples done, samples in all)
            segment_s: of a codec that needs whole signals: cut them into segments of this length,
                each coded on its own, so that memory does not grow with the signal

        Returns:
            tokens [B, K, T], with rows of a list that end early filled up with -1

        Raises:
            ValueError: empty, not finite, integer, of the wrong rate or number of channels
        """
        count = self._n_codebooks(n_codebooks, bandwidth_kbps)
        segment = self._segment(segment_s)
        if sample_rate_hz is not None and sample_rate_hz != self.sample_rate_hz:
            raise ValueError(
                f"encode: {self.name} takes {self.sample_rate_hz} Hz, got {sample_rate_hz} Hz; "
                f"resample first (fastcodec.io.audio.read does)"
            )
        with below_autograd():
            if isinstance(wav, list | tuple):
                return self._encode_list(wav, count, progress, segment)
            return self._encode_segments(self._as_batch(wav, "wav"), count, progress, segment)

    def decode(self, codes: Codes | Tensor, progress: Progress | None = None) -> Tensor:
        """The signals [B, C, S] float32 of codes.

        Args:
            codes: from ``encode``: S is the longest signal's length, shorter ones end in zeros (and
                so does what a decoder gives too little of: DAC's with an odd stride);
                or tokens [B, K, T] int64: S is all that T frames give
            progress: called with (frames done, frames in all)

        Raises:
            ValueError: codes of another codec, of the wrong shape, or out of range
        """
        with below_autograd():
            if isinstance(codes, Tensor):
                self._check_tokens(codes)
                return self._decode_tokens(codes.to(self.device), progress)
            if codes.codec != self.name:
                raise ValueError(
                    f"decode: these codes are of {codes.codec!r}, this is {self.name!r}"
                )
            self._check_lengths(codes)
            codes = codes.to(self.device)
            out = torch.zeros(len(codes), self.channels, int(codes.n_samples.max()))
            out = out.to(self.device)
            for rows in _equal(codes.n_samples.tolist()):
                n_samples = int(codes.n_samples[rows[0]])
                y = self._decode_segments(codes[rows], n_samples, progress)[..., :n_samples]
                out[rows, :, : y.shape[2]] = y
            return out

    def stream(
        self,
        batch_size: int = 1,
        n_codebooks: int | None = None,
        bandwidth_kbps: float | None = None,
    ) -> Stream:
        """A live stream of ``batch_size`` signals in step: pieces in, pieces out.

        Raises:
            ValueError: the codec needs whole signals both ways; the message says why
        """
        reason = self.encoder.not_streamable_because
        if reason and self.decoder.not_streamable_because:
            raise ValueError(f"{self.name} does not stream: {reason}; use encode and decode")
        if batch_size < 1:
            raise ValueError(f"stream: batch_size must be at least 1, got {batch_size}")
        return Stream(self, batch_size, self._n_codebooks(n_codebooks, bandwidth_kbps))

    def n_frames(self, n_samples: int) -> int:
        """How many frames a signal of ``n_samples`` makes."""
        if self.drops_tail:
            return n_samples // self.hop
        return -(-n_samples // (self.hop * self.frame_multiple)) * self.frame_multiple

    def _segments(self, n_samples: int, segment: int | None) -> list[tuple[int, int]]:
        """Where each segment begins and ends; the last takes up to half a segment more."""
        count = max(1, -((segment - 2 * n_samples) // (2 * segment))) if segment else 1
        starts = [i * (segment or 0) for i in range(count)]
        return list(zip(starts, [*starts[1:], n_samples], strict=True))

    def _segment(self, segment_s: float | None) -> int | None:
        """A segment's length in samples, whole frames."""
        if segment_s is None:
            return None
        if self.info.streamable:
            raise ValueError(
                f"encode: {self.name} takes signals of any length in constant memory; leave "
                f"segment_s out"
            )
        unit = self.hop * self.frame_multiple
        segment = round(segment_s * self.sample_rate_hz / unit) * unit
        if segment < unit:
            raise ValueError(f"encode: segment_s must be at least a frame, got {segment_s}")
        return segment

    def _encode_segments(
        self, wav: Tensor, n_codebooks: int, progress: Progress | None, segment: int | None
    ) -> Codes:
        """As ``_encode_batch``, of each segment on its own."""
        n_samples = wav.shape[2]
        if segment is None:
            return self._encode_batch(wav, n_codebooks, progress)
        parts = []
        for begin, end in self._segments(n_samples, segment):
            parts.append(self._encode_batch(wav[..., begin:end], n_codebooks, None))
            if progress:
                progress(end, n_samples)
        return join_segments(parts, segment)

    def _decode_segments(self, codes: Codes, n_samples: int, progress: Progress | None) -> Tensor:
        """As ``_decode_batch``, of each segment on its own."""
        if codes.segment is None:
            return self._decode_batch(codes, n_samples, progress)
        out = torch.zeros(len(codes), self.channels, n_samples, device=self.device)
        at = 0
        for i, (begin, end) in enumerate(self._segments(n_samples, codes.segment)):
            frames = self.n_frames(end - begin)
            part = replace(
                codes,
                tokens=codes.tokens[..., at : at + frames],
                n_samples=torch.full_like(codes.n_samples, end - begin),
                scale=None if codes.scale is None else codes.scale[:, i : i + 1],
                segment=None,
            )
            y = self._decode_batch(part, end - begin, None)[..., : end - begin]
            out[..., begin : begin + y.shape[2]] = y
            at += frames
            if progress:
                progress(at, codes.tokens.shape[2])
        return out

    def _encode_batch(self, wav: Tensor, n_codebooks: int, progress: Progress | None) -> Codes:
        state = self.encoder.init_state(len(wav))
        # In one piece from the start: a list of small results would keep each tile's memory alive.
        shape = (len(wav), n_codebooks, self.n_frames(wav.shape[2]))
        tokens, done = torch.empty(shape, dtype=torch.int64, device=wav.device), 0
        for begin, end in self._tiles(wav.shape[2], self.hop, self.encoder):
            chunk = checked_finite(wav[..., begin:end], begin)
            latent = self.encoder.push(chunk, state, final=end == wav.shape[2])
            if latent.shape[2]:
                frames = slice(done, done + latent.shape[2])
                tokens[..., frames] = self.quantizer.encode(latent, n_codebooks)
                done = frames.stop
            if progress:
                progress(end, wav.shape[2])
        assert done == tokens.shape[2]
        n_samples = wav.shape[2] // self.hop * self.hop if self.drops_tail else wav.shape[2]
        return self._codes(tokens, [n_samples] * len(wav))

    def _decode_batch(self, codes: Codes, n_samples: int, progress: Progress | None) -> Tensor:
        return self._decode_tokens(codes.tokens[..., : self.n_frames(n_samples)], progress)

    def _decode_tokens(self, tokens: Tensor, progress: Progress | None) -> Tensor:
        self._check_tokens(tokens)
        state = self.decoder.init_state(len(tokens))
        frames = tokens.shape[2]
        out = torch.empty(len(tokens), self.channels, 0, device=self.device)
        done = 0
        for begin, end in self._tiles(frames, 1, self.decoder):
            latent = self.quantizer.decode(tokens[..., begin:end])
            y = self.decoder.push(latent, state, final=end == frames)
            if done + y.shape[2] > out.shape[2]:  # the first tile: room for all
                room = max(frames * self.hop, done + y.shape[2])
                grown = torch.empty(len(tokens), self.channels, room, device=self.device)
                grown[..., :done] = out[..., :done]
                out = grown
            out[..., done : done + y.shape[2]] = y
            done += y.shape[2]
            if progress:
                progress(end, frames)
        return out[..., :done]

    def _tiles(self, length: int, frame: int, net: StreamingModule) -> Iterator[tuple[int, int]]:
        tile = (
            length
            if net.not_streamable_because
            else max(1, round(self.tile_s * self.frame_rate_hz)) * frame
        )
        for begin in range(0, length, tile):
            yield begin, min(begin + tile, length)

    def _encode_list(
        self,
        wavs: Sequence[Wav],
        n_codebooks: int,
        progress: Progress | None,
        segment: int | None,
    ) -> Codes:
        if not wavs:
            raise ValueError("encode: the list of signals is empty")
        signals = [self._as_batch(wav, f"wav[{i}]") for i, wav in enumerate(wavs)]
        if any(len(signal) > 1 for signal in signals):
            raise ValueError("encode: a list holds signals [S] or [C, S], not batches [B, C, S]")
        lengths = [signal.shape[2] for signal in signals]
        total, done = sum(lengths), 0
        parts: list[Codes] = [None] * len(signals)  # type: ignore[list-item]
        for rows in _equal(lengths):
            equal = torch.cat([signals[row] for row in rows])
            part = self._encode_segments(equal, n_codebooks, None, segment)
            for i, row in enumerate(rows):
                parts[row] = part[i]
            done += len(rows) * lengths[rows[0]]
            if progress:
                progress(done, total)
        return batch(parts)

    def _codes(self, tokens: Tensor, n_samples: list[int], scale: Tensor | None = None) -> Codes:
        return Codes(
            tokens,
            self.frame_rate_hz,
            torch.tensor(n_samples),
            self.name,
            scale,
            hop=self.hop,
            hold=self.quantizer.hold and self.quantizer.hold[: tokens.shape[1]],
        )

    def _n_codebooks(self, n_codebooks: int | None, bandwidth_kbps: float | None) -> int:
        most, size = self.quantizer.n_codebooks, self.quantizer.codebook_size
        if n_codebooks is not None and bandwidth_kbps is not None:
            raise ValueError("give n_codebooks or bandwidth_kbps, not both")
        if bandwidth_kbps is not None:
            if bandwidth_kbps not in self.bandwidths_kbps:
                raise ValueError(
                    f"bandwidth_kbps: {self.name} has {self.bandwidths_kbps}, got "
                    f"{bandwidth_kbps}; n_codebooks takes any number up to {most}"
                )
            bits = (size - 1).bit_length()
            return max(1, int(bandwidth_kbps * 1000 / (bits * self.frame_rate_hz) + 1e-6))
        if n_codebooks is None:
            return most
        if not 1 <= n_codebooks <= most:
            raise ValueError(f"n_codebooks: {self.name} has 1 to {most}, got {n_codebooks}")
        return n_codebooks

    def _as_batch(self, wav: object, what: str) -> Tensor:
        if isinstance(wav, np.ndarray):
            wav = torch.from_numpy(wav)
        if not isinstance(wav, Tensor):
            raise ValueError(
                f"encode: {what} must be a tensor or an array, got {type(wav).__name__}"
            )
        if not wav.dtype.is_floating_point:
            raise ValueError(
                f"encode: {what} must hold floats in -1..1, got {wav.dtype}; divide 16-bit PCM "
                f"by 32768"
            )
        if wav.ndim == 1 and self.channels == 1:
            wav = wav[None]
        if wav.ndim == 2:
            wav = wav[None]
        if wav.ndim != 3 or wav.shape[1] != self.channels:
            raise ValueError(
                f"encode: {what} must be [B, {self.channels}, S] or [{self.channels}, S] for "
                f"{self.name}, got {list(wav.shape)}"
            )
        shortest = self.hop if self.drops_tail else 1
        if wav.shape[0] == 0 or wav.shape[2] < shortest:
            raise ValueError(
                f"encode: {what} must hold at least {shortest} sample(s) of at least one signal, "
                f"got {list(wav.shape)}"
            )
        return wav.to(device=self.device, dtype=torch.float32)

    def _check_lengths(self, codes: Codes) -> None:
        """Before anything is allocated: a file may claim any length."""
        lengths, frames = codes.n_samples.tolist(), codes.tokens.shape[2]
        shortest, longest = min(lengths, default=0), max(lengths, default=0)
        if self.frame_multiple > 1:  # part of a signal need not have as many frames as a whole one
            needed = -(-longest // self.hop)
        else:
            needed = sum(self.n_frames(b - a) for a, b in self._segments(longest, codes.segment))
        too_long = longest >= (frames + 1) * self.hop or needed > frames
        if shortest < 1 or too_long:
            raise ValueError(
                f"decode: Codes.n_samples must be 1 to what {frames} frames of {self.hop} samples "
                f"hold, got {shortest} to {longest}"
            )

    def _check_tokens(self, tokens: Tensor) -> None:
        most, size = self.quantizer.n_codebooks, self.quantizer.codebook_size
        if tokens.ndim != 3 or tokens.dtype != torch.int64 or not 1 <= tokens.shape[1] <= most:
            raise ValueError(
                f"decode: tokens must be [B, K <= {most}, T] int64 for {self.name}, got "
                f"{list(tokens.shape)} {tokens.dtype}"
            )
        if tokens.numel() == 0:
            raise ValueError(f"decode: no frames in tokens {list(tokens.shape)}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= size:
            raise ValueError(
                f"decode: tokens must be 0..{size - 1} for {self.name}, got {low}..{high}"
                + (" (-1 marks padding: cut each row to its length)" if low == ABSENT else "")
            )


def _equal(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers grouped by length."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(length, []).append(row)
    return list(groups.values())


def join_segments(parts: Sequence[Codes], segment: int) -> Codes:
    """The codes of a signal from those of its segments of ``segment`` samples."""
    scales = [part.scale for part in parts if part.scale is not None]
    return replace(
        parts[0],
        tokens=torch.cat([part.tokens for part in parts], dim=2),
        n_samples=torch.stack([part.n_samples for part in parts]).sum(dim=0),
        scale=torch.cat(scales, dim=1) if scales else None,
        segment=segment,
    )
