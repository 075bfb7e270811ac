"""``Stream``: a codec fed live, and what a public call does around the nets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec.codes import Codes

if TYPE_CHECKING:
    from fastcodec.codecs.base import Codec

Wav = Tensor | np.ndarray


class Stream:
    """A live encoder and a live decoder of one codec; what they give equals encode and decode.

    Made by ``Codec.stream``.
    """

    def __init__(self, codec: Codec, batch_size: int, n_codebooks: int) -> None:
        self.codec, self.batch_size, self.n_codebooks = codec, batch_size, n_codebooks
        self._encoder: Any = codec.encoder.init_state(batch_size)
        self._decoder: Any = codec.decoder.init_state(batch_size)
        self._received = self._encoded = 0  # samples taken in, samples their codes stand for
        self._due = self._emitted = 0  # samples that came as codes, samples given out
        self._encode_ended = self._decode_ended = False

    def encode(self, chunk: Wav, final: bool = False) -> Codes:
        """The codes that a piece [B, C, n] of the signal completes, T >= 0.

        Args:
            chunk: any number of samples; none, [B, C, 0], is fine
            final: the signal ends here
        """
        if self._encode_ended:
            raise ValueError("Stream.encode: this stream has had its final chunk; make a new one")
        codec = self.codec
        if reason := codec.encoder.not_streamable_because:
            raise ValueError(f"Stream.encode: {codec.name} encodes whole signals only: {reason}")
        with below_autograd():
            x = self._chunk(chunk)
            if final and self._received + x.shape[2] == 0:
                raise ValueError("Stream.encode: the signal ended without a sample")
            latent = codec.encoder.push(checked_finite(x, self._received), self._encoder, final)
            tokens = codec.quantizer.encode(latent, self.n_codebooks)
        self._received += x.shape[2]
        self._encode_ended = final
        n_samples = tokens.shape[2] * codec.hop
        if final and not codec.drops_tail:
            n_samples = self._received - self._encoded
        self._encoded += n_samples
        return codec._codes(tokens, [n_samples] * self.batch_size)

    def decode(self, codes: Codes | Tensor, final: bool = False) -> Tensor:
        """The samples [B, C, n] that the next codes complete, n >= 0.

        Args:
            codes: the next frames, T >= 0: Codes, or tokens [B, K, T]
            final: no more codes will come
        """
        if self._decode_ended:
            raise ValueError("Stream.decode: this stream has had its final codes; make a new one")
        codec = self.codec
        if reason := codec.decoder.not_streamable_because:
            raise ValueError(f"Stream.decode: {codec.name} decodes whole signals only: {reason}")
        if isinstance(codes, Codes) and codes.codec != codec.name:
            raise ValueError(
                f"Stream.decode: these codes are of {codes.codec!r}, this is {codec.name!r}"
            )
        tokens = codes if isinstance(codes, Tensor) else codes.tokens
        if tokens.ndim != 3 or tokens.shape[2]:
            codec._check_tokens(tokens)
        if len(tokens) != self.batch_size:
            raise ValueError(
                f"Stream.decode: this stream has {self.batch_size} rows, got {len(tokens)}"
            )
        with below_autograd():
            latent = codec.quantizer.decode(tokens.to(codec.device))
            y = codec.decoder.push(latent, self._decoder, final)
        if isinstance(codes, Codes) and codes.scale is not None:  # the level of the whole signal
            y = y * codes.scale[:, :1, None].to(y.device)
        self._due += (
            tokens.shape[2] * codec.hop if isinstance(codes, Tensor) else int(codes.n_samples[0])
        )
        y = y[..., : self._due - self._emitted]
        missing = self._due - self._emitted - y.shape[2]
        if final and missing and not isinstance(codes, Tensor):  # zeros, as ``Codec.decode``
            y = nn.functional.pad(y, (0, missing))
        self._emitted += y.shape[2]
        self._decode_ended = final
        return y.contiguous()

    def _chunk(self, chunk: Wav) -> Tensor:
        codec = self.codec
        x = torch.as_tensor(chunk)
        while x.ndim < 3:
            x = x[None]
        if not x.dtype.is_floating_point or x.shape[:2] != (self.batch_size, codec.channels):
            raise ValueError(
                f"Stream.encode: a chunk must be [{self.batch_size}, {codec.channels}, n] floats, "
                f"got {list(x.shape)} {x.dtype}"
            )
        return x.to(device=codec.device, dtype=torch.float32)


@contextmanager
def below_autograd() -> Iterator[None]:
    """No gradients, and the dispatcher goes straight to the kernels (5 us a call less).

    Unlike ``torch.inference_mode`` the results can be used in training afterwards.
    """
    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
        yield


def checked_finite(wav: Tensor, offset: int) -> Tensor:
    """wav [B, C, n]; ValueError where a sample is NaN or infinite, naming the first."""
    finite = torch.isfinite(wav)
    if not finite.all():
        row, channel, sample = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"encode: wav must be finite, got {wav[row, channel, sample].item()} at row {row}, "
            f"channel {channel}, sample {offset + sample}"
        )
    return wav
