"""``Codec``: what every codec of the library offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcodec import ops
from fastcodec.codecs import segments
from fastcodec.codecs.info import CodecInfo, info_of
from fastcodec.codecs.inputs import Checked
from fastcodec.codecs.loading import Weights
from fastcodec.codecs.stream import Stream, Wav, below_autograd, checked_finite
from fastcodec.codes import Codes, batch
from fastcodec.layers.conv import set_precision
from fastcodec.layers.graph import CudaCapture, Graphs
from fastcodec.layers.graph import why_not as graph_why_not
from fastcodec.layers.streaming import StreamingModule

Progress = Callable[[int, int], None]


class Codec(Checked):
    """encoder -> residual quantizer -> decoder. Made by ``fastcodec.load``.

    A family sets the attributes, and overrides what is its own of ``_encode_batch``,
    ``_decode_batch``, ``_decode_tokens``, ``n_frames`` and of the steps of ``load_weights``.
    """

    encoder: StreamingModule
    decoder: StreamingModule
    config: Any = None  # a frozen dataclass, the family's CONFIG
    licence: str = ""
    tile_s: float = 0.4  # of a push inside encode: fits the caches, and hides the cost of a call
    gpu_tile_s: float = 40.0  # of all rows together: fills a GPU, and bounds its memory

    precision: str = "highest"
    _graphs: Graphs | None = None
    _graphs_device = "cuda"  # a test has another

    def set_precision(self, precision: str) -> None:
        """Of the convolutions of encoder and decoder, as ``fastcodec.load`` takes it."""
        for net in (self.encoder, self.decoder):
            set_precision(net, precision, but=self.quantizer)
        self.precision = precision

    @property
    def info(self) -> CodecInfo:
        """The codec's facts."""
        return info_of(self)

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
        segment = segments.length(self, segment_s)
        if sample_rate_hz is not None and sample_rate_hz != self.sample_rate_hz:
            raise ValueError(
                f"encode: {self.name} takes {self.sample_rate_hz} Hz, got {sample_rate_hz} Hz; "
                f"resample first (fastcodec.io.audio.read does)"
            )
        with below_autograd(self.device):
            if isinstance(wav, list | tuple):
                return self._encode_list(wav, count, progress, segment)
            rows = self._as_batch(wav, "wav")
            return segments.encode(self, rows, count, progress, segment)

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
        with below_autograd(self.device):
            if isinstance(codes, Tensor):
                self._check_tokens(codes)
                return self._decode_tokens(codes.to(self.device), progress)
            if codes.codec != self.name:
                raise ValueError(
                    f"decode: these codes are of {codes.codec!r}, this is {self.name!r}"
                )
            self._check_lengths(codes)
            codes = codes.to(self.device)
            longest = int(codes.n_samples.max())
            out = torch.zeros(len(codes), self.channels, longest, device=self.device)
            for rows in _equal(codes.n_samples.tolist()):
                n_samples = int(codes.n_samples[rows[0]])
                y = segments.decode(self, codes[rows], n_samples, progress)[..., :n_samples]
                out[rows, :, : y.shape[2]] = y
            return out

    def stream(
        self,
        batch_size: int = 1,
        n_codebooks: int | None = None,
        bandwidth_kbps: float | None = None,
        graph: bool = False,
    ) -> Stream:
        """A live stream of ``batch_size`` signals in step: pieces in, pieces out.

        Args:
            graph: on a GPU, from when the beginning is over each push is one CUDA graph, and must
                be of whole frames. One is made for each size of a push, eight at most are kept, in
                memory that they share and with all streams of this codec; the weights must not
                change while there are any.

        Raises:
            ValueError: the codec needs whole signals both ways, or graphs cannot be made of it or
                where it is; the message says why
        """
        reason = self.encoder.not_streamable_because
        if reason and self.decoder.not_streamable_because:
            raise ValueError(f"{self.name} does not stream: {reason}; use encode and decode")
        if batch_size < 1:
            raise ValueError(f"stream: batch_size must be at least 1, got {batch_size}")
        graphs = self._graphs_here() if graph else None
        return Stream(self, batch_size, self._n_codebooks(n_codebooks, bandwidth_kbps), graphs)

    def _graphs_here(self) -> Graphs:
        """Those that there are, if of the same weights, precision, device and backend."""
        if self.device.type != self._graphs_device:
            raise ValueError(
                f"stream: graph=True is for a codec on a GPU, {self.name} is on {self.device}; "
                f"leave it out, or codec.to('cuda') first"
            )
        if reason := graph_why_not(self):
            raise ValueError(f"stream: there is no graph of {self.name}: {reason}; leave it out")
        tensors = [*self.parameters(), *self.buffers()]
        key = (
            self.precision,
            self.device,
            ops.forced_backend(),
            *((t.data_ptr(), t._version) for t in tensors),
        )
        if self._graphs is None or self._graphs.made_for != key:
            self._graphs = Graphs(CudaCapture(self.device), made_for=key)
        return self._graphs

    def _encode_batch(self, wav: Tensor, n_codebooks: int, progress: Progress | None) -> Codes:
        state = self.encoder.init_state(len(wav))
        # In one piece from the start: a list of small results would keep each tile's memory alive.
        shape = (len(wav), n_codebooks, self.n_frames(wav.shape[2]))
        tokens, done = torch.empty(shape, dtype=torch.int64, device=wav.device), 0
        for begin, end in self._tiles(wav.shape[2], self.hop, self.encoder, len(wav)):
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
        for begin, end in self._tiles(frames, 1, self.decoder, len(tokens)):
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

    def _tiles(
        self, length: int, frame: int, net: StreamingModule, rows: int
    ) -> Iterator[tuple[int, int]]:
        on_gpu = self.device.type == "cuda"
        tile_s = max(self.tile_s, self.gpu_tile_s / rows) if on_gpu else self.tile_s
        tile = (
            length
            if net.not_streamable_because
            else max(1, round(tile_s * self.frame_rate_hz)) * frame
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
            part = segments.encode(self, equal, n_codebooks, None, segment)
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


def _equal(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers grouped by length."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(length, []).append(row)
    return list(groups.values())


__all__ = ["Codec", "CodecInfo", "Progress", "Weights"]
