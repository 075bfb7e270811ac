"""DAC's ``compress`` and ``decompress``: what is inside ``.dac`` files, number for number.

Upstream (descript-audio-codec dac/model/base.py@c7cfc5d2) brings a signal to -16 LUFS and codes
windows of it with convolutions that are not padded, so that a window decodes to fewer samples than
it was made from; windows start by that much apart. A signal no longer than a window is coded whole,
with the usual padding. ``compress(win_duration_s=None)`` does so with a signal of any length: here
it is streamed, so it needs no windows to save memory, and upstream reads the file.

Two quirks of upstream. The loudness of a signal is that of its channels together, but when decoding
each channel is brought to it on its own: kept. A signal whose decoding lacks some samples of its
length (``dac``: an odd stride) cannot be decoded by upstream: here zeros take their place. Signals
of ten hours and more upstream leaves to ffmpeg; here they are treated as all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec.codecs.base import Progress
from fastcodec.codecs.dac import Dac, convolutions, output_length
from fastcodec.codecs.dac_signal import loudness, resample
from fastcodec.codecs.stream import Wav, checked_finite
from fastcodec.codes import Codes
from fastcodec.io.dac_file import DacFile
from fastcodec.layers.conv import Conv1d


@torch.no_grad()
def compress(
    codec: Dac,
    wav: Wav,
    sample_rate_hz: int,
    win_duration_s: float | None = 1.0,
    normalize_db: float | None = -16.0,
    n_quantizers: int | None = None,
    progress: Progress | None = None,
) -> DacFile:
    """The contents of the ``.dac`` file that upstream makes of a signal.

    Args:
        codec: a DAC
        wav: [S], [C, S] or [B, C, S] float samples at any rate
        sample_rate_hz: that rate
        win_duration_s: of a window (upstream's command line has 5 s); None: the signal whole
        normalize_db: loudness in LUFS to code at; None: as it is
        n_quantizers: how many codebooks to keep; None: all
        progress: called with (samples done, samples in all), at the codec's rate

    Raises:
        ValueError: no finite samples, or windows too short for the nets
    """
    x = _signals(wav).to(codec.device)
    original_length, channels = x.shape[2], x.shape[1]
    x = resample(x, sample_rate_hz, codec.sample_rate_hz)
    if x.shape[2] == 0:
        raise ValueError(f"compress: {original_length} samples of {sample_rate_hz} Hz are too few")
    input_db = loudness(x, codec.sample_rate_hz)
    if normalize_db is not None:
        x = x * _gain(normalize_db - input_db)
    x = x * (1 / x.abs().amax(dim=2, keepdim=True).clamp(min=1))
    x = x.reshape(-1, 1, x.shape[2])
    whole = win_duration_s is None or x.shape[2] / codec.sample_rate_hz <= win_duration_s
    if win_duration_s is None or whole:
        chunks = [codec.encode(x, n_quantizers, progress=progress).tokens]
    else:
        chunks = list(_encode_windows(codec, x, win_duration_s, n_quantizers, progress))
    return DacFile(
        codes=torch.cat(chunks, dim=2).cpu().numpy(),
        chunk_length=chunks[0].shape[2],
        original_length=original_length,
        input_db=input_db.cpu().numpy(),
        channels=channels,
        sample_rate_hz=sample_rate_hz,
        padding=whole,
    )


@torch.no_grad()
def decompress(codec: Dac, file: DacFile, progress: Progress | None = None) -> tuple[Tensor, int]:
    """The signal of a ``.dac`` file, [B, C, S] float32, usually B = 1, and its rate in Hz.

    Args:
        codec: the DAC that the file was made with; files do not name it
        file: from ``read_dac`` or ``compress``
        progress: called with (frames done, frames in all)

    Raises:
        ValueError: not a file of this codec
    """
    if problem := file.problem():
        raise ValueError(f"decompress: {problem}")
    net = codec if file.padding else codec.unpadded()
    tokens, chunk = torch.from_numpy(file.codes), file.chunk_length
    if not file.padding and output_length(net.decoder, chunk) < 1:
        raise ValueError(f"decompress: chunks of {chunk} frames are too short for {codec.name}")
    parts = []
    for begin in range(0, tokens.shape[2], chunk):
        parts.append(net.decode(tokens[..., begin : begin + chunk]))
        if progress:
            progress(min(begin + chunk, tokens.shape[2]), tokens.shape[2])
    x = torch.cat(parts, dim=2)
    x = x * _gain(_row_db(file).to(x.device) - loudness(x, codec.sample_rate_hz))
    x = resample(x, codec.sample_rate_hz, file.sample_rate_hz)
    missing, frame = file.original_length - x.shape[2], codec.hop / codec.sample_rate_hz
    if missing > math.ceil(frame * file.sample_rate_hz):
        raise ValueError(
            f"decompress: the codes give {x.shape[2]} samples, the file says that the signal had "
            f"{file.original_length}; is it a file of another codec than {codec.name}?"
        )
    x = nn.functional.pad(x, (0, missing))  # a negative number cuts
    return x.reshape(-1, file.channels, file.original_length), file.sample_rate_hz


@torch.no_grad()
def file_of(codec: Dac, codes: Codes, input_db: float | None = None) -> DacFile:
    """The ``.dac`` file of codes of a whole signal, which upstream reads, too.

    Args:
        codec: the codes' codec
        codes: the rows are the channels
        input_db: loudness in LUFS that readers bring each channel to; None: the one it decodes to
            anyway, for which the codes are decoded once
    """
    if input_db is not None:
        return DacFile.from_codes(codes, input_db, codec.sample_rate_hz)
    levels = loudness(codec.decode(codes.tokens), codec.sample_rate_hz)
    return DacFile.from_codes(codes, levels.cpu().numpy(), codec.sample_rate_hz)


def delay(codec: Dac) -> int:
    """Samples of silence that are put on both sides of a signal before it is cut into windows."""
    shortest = output_length(codec, 0)  # negative: any length would do
    length = shortest
    for layer in reversed(convolutions(codec)):
        if isinstance(layer, Conv1d):
            length = (length - 1) * layer.stride + layer.span
        else:
            length = 1 - (layer.kernel - length) // layer.stride
    return (length - shortest) // 2


def _encode_windows(
    codec: Dac,
    x: Tensor,
    win_duration_s: float,
    n_quantizers: int | None,
    progress: Progress | None,
) -> Iterator[Tensor]:
    """The codes of each window of x [B, 1, S]."""
    net, n_samples = codec.unpadded(), x.shape[2]
    size = math.ceil(int(win_duration_s * codec.sample_rate_hz) / codec.hop) * codec.hop
    step = output_length(codec, size)
    if step < 1:
        raise ValueError(
            f"compress: win_duration_s is too short for {codec.name}: {size} samples, of which the "
            f"convolutions leave none"
        )
    x = nn.functional.pad(x, (delay(codec), delay(codec)))
    for begin in range(0, n_samples, step):
        window = x[..., begin : begin + size]
        window = nn.functional.pad(window, (0, size - window.shape[2]))
        yield net.encode(window, n_quantizers).tokens
        if progress:
            progress(min(begin + step, n_samples), n_samples)


def _signals(wav: Wav) -> Tensor:
    """[B, C, S] float32."""
    x = torch.from_numpy(wav) if isinstance(wav, np.ndarray) else wav
    while x.ndim < 3:
        x = x[None]
    if x.ndim > 3 or x.numel() == 0 or not x.dtype.is_floating_point:
        raise ValueError(
            f"compress: wav must be [S], [C, S] or [B, C, S] floats, got {list(x.shape)} {x.dtype}"
        )
    return checked_finite(x.float(), 0)


def _gain(db: Tensor) -> Tensor:
    """[B, 1, 1] factors."""
    return torch.exp(db * (math.log(10) / 20))[:, None, None]


def _row_db(file: DacFile) -> Tensor:
    """[rows] loudness that each row is brought to."""
    rows, db = len(file.codes), torch.from_numpy(file.input_db)
    return db.repeat_interleave(rows // len(db))
