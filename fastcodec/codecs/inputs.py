"""``Checked``: what a codec accepts, and what it says of the rest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastcodec.codecs.loading import Loadable
from fastcodec.codecs.segments import spans
from fastcodec.codes import ABSENT, Codes
from fastcodec.layers.quantize import Quantizer


class Checked(Loadable):
    """Checks of everything that a public call of a codec is given, once, before any work."""

    quantizer: Quantizer
    sample_rate_hz: int
    channels: int = 1
    hop: int
    bandwidths_kbps: tuple[float, ...] = ()
    drops_tail: bool = False  # encodes only whole frames, as upstream does
    frame_multiple: int = 1  # the signal is filled up with zeros to a multiple of so many frames

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.sample_rate_hz / self.hop

    @property
    def device(self) -> torch.device:
        """Where the codebooks are."""
        return next(iter(self.quantizer.state_dict().values())).device

    def n_scales(self, n_samples: int) -> int:
        """Columns of ``Codes.scale``, where a codec has one, of so many samples."""
        return 1

    def n_frames(self, n_samples: int) -> int:
        """How many frames a signal of ``n_samples`` makes."""
        if self.drops_tail:
            return n_samples // self.hop
        return -(-n_samples // (self.hop * self.frame_multiple)) * self.frame_multiple

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
        too_long = longest >= (frames + 1) * self.hop or self._needed(longest, codes) > frames
        if shortest < 1 or too_long:
            raise ValueError(
                f"decode: Codes.n_samples must be 1 to what {frames} frames of {self.hop} samples "
                f"hold, got {shortest} to {longest}"
            )

    def _needed(self, n_samples: int, codes: Codes) -> int:
        """Frames of a signal of this length; part of one need not have as many as a whole one."""
        if self.frame_multiple > 1:
            return -(-n_samples // self.hop)
        return sum(self.n_frames(end - begin) for begin, end in spans(n_samples, codes.segment))

    def _check_tokens(self, tokens: Tensor) -> None:
        most, size = self.quantizer.n_codebooks, self.quantizer.codebook_size
        if tokens.ndim != 3 or tokens.dtype != torch.int64 or not 1 <= tokens.shape[1] <= most:
            raise ValueError(
                f"decode: tokens must be [B, K <= {most}, T] int64 for {self.name}, got "
                f"{list(tokens.shape)} {tokens.dtype}"
            )
        if tokens.numel() == 0:
            raise ValueError(f"decode: no frames in tokens {list(tokens.shape)}")
        low, high = torch.stack(tokens.aminmax()).tolist()  # one wait for a GPU, not two
        if low < 0 or high >= size:
            raise ValueError(
                f"decode: tokens must be 0..{size - 1} for {self.name}, got {low}..{high}"
                + (" (-1 marks padding: cut each row to its length)" if low == ABSENT else "")
            )
