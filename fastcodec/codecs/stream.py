"""``Stream``: a codec fed live, and what a public call does around the nets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec.codes import Codes
from fastcodec.layers.graph import Graphs, Live, hold_still

if TYPE_CHECKING:
    from fastcodec.codecs.base import Codec

Wav = Tensor | np.ndarray


class Stream:
    """A live encoder and a live decoder of one codec; what they give equals encode and decode.

    Made by ``Codec.stream``.
    """

    def __init__(
        self, codec: Codec, batch_size: int, n_codebooks: int, graphs: Graphs | None = None
    ) -> None:
        self.codec, self.batch_size, self.n_codebooks = codec, batch_size, n_codebooks
        self._graphs = graphs
        self._encoder = Live(codec.encoder.init_state(batch_size))
        self._decoder = Live(codec.decoder.init_state(batch_size))
        if graphs is not None:
            hold_still(self._encoder.state)
            hold_still(self._decoder.state)
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
        with below_autograd(codec.device):
            x = self._chunk(chunk)
            if final and self._received + x.shape[2] == 0:
                raise ValueError("Stream.encode: the signal ended without a sample")
            tokens = self._push("encode", x, final)
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
        with below_autograd(codec.device):
            y = self._push("decode", tokens.to(codec.device), final)
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

    def _push(self, what: str, x: Tensor, final: bool) -> Tensor:
        """By a graph where there are to be any; the end of a signal is unlike any other push."""
        live = self._encoder if what == "encode" else self._decoder
        push = self._encoded_by if what == "encode" else self._decoded_by
        if self._graphs is None or final or not x.shape[2]:
            return push(x, live.settle(), final)
        unit = self.codec.frame_multiple * (self.codec.hop if what == "encode" else 1)
        if x.shape[2] % unit:
            raise ValueError(
                f"Stream.{what}: with graph=True every push but the last must be a multiple of "
                f"{unit} {'samples' if what == 'encode' else 'frames'}, got {x.shape[2]}"
            )
        name = f"{what} {self.n_codebooks}" if what == "encode" else what
        return self._graphs.push(name, push, x, live)

    def _encoded_by(self, x: Tensor, state: Any, final: bool = False) -> Tensor:
        latent = self.codec.encoder.push(x, state, final)
        return self.codec.quantizer.encode(latent, self.n_codebooks)

    def _decoded_by(self, tokens: Tensor, state: Any, final: bool = False) -> Tensor:
        return self.codec.decoder.push(self.codec.quantizer.decode(tokens), state, final)

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
        # Where it is given: asking a GPU would make the host wait.
        return checked_finite(x, self._received).to(device=codec.device, dtype=torch.float32)


@contextmanager
def below_autograd(device: torch.device) -> Iterator[None]:
    """No gradients, and the dispatcher goes straight to the kernels (5 us a call less).

    Unlike ``torch.inference_mode`` the results can be used in training afterwards. Autocast is off:
    a codec has its own precision, and a quantizer's is always float32. Of several GPUs, ``device``
    is the current one inside.
    """
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with (
        torch.no_grad(),
        torch._C._AutoDispatchBelowAutograd(),
        torch._C._DisableAutocast(),
        current,
    ):
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
