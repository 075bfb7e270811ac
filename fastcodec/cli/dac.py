"""``.dac`` files on the command line: a signal at its own rate and loudness, not codes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastcodec
from fastcodec.cli import batch
from fastcodec.cli.plan import Job
from fastcodec.codecs.dac import Dac
from fastcodec.codecs.dac_chunks import compress, decompress
from fastcodec.io import audio
from fastcodec.io.dac_file import DacFile, read_dac, write_dac


def encode(
    net: fastcodec.Codec,
    job: Job,
    n_codebooks: int | None,
    bandwidth_kbps: float | None,
    progress: batch.Progress,
) -> dict[str, Any]:
    """Write the ``.dac`` file of an audio file, coded whole; the original tools read it."""
    wav, rate_hz = audio.read(job.source)
    count = as_dac(net)._n_codebooks(n_codebooks, bandwidth_kbps)
    file = compress(
        as_dac(net), wav, rate_hz, None, n_quantizers=count, progress=in_seconds(progress, net)
    )
    write_dac(file, job.target)
    duration_s = file.original_length / rate_hz
    return {
        "duration_s": duration_s,
        "n_frames": file.codes.shape[2],
        "n_codebooks": count,
        "kbps": kbps(net, file),
        "file_kbps": job.target.stat().st_size * 8e-3 / duration_s,
    }


def decode(
    net: fastcodec.Codec,
    job: Job,
    encoding: str | None,
    progress: batch.Progress,
) -> dict[str, Any]:
    """Write the audio of a ``.dac`` file, at the rate and loudness it was made from."""
    file = read_dac(job.source)
    frames = file.codes.shape[2]
    duration_s = file.original_length / file.sample_rate_hz

    def reached(done: int, total: int) -> None:
        progress(duration_s * done / max(total, frames), duration_s)

    wav, rate_hz = decompress(as_dac(net), file, reached)
    report = audio.write(job.target, wav[0], rate_hz, encoding)
    return {
        "codec": net.info.name,
        "outputs": [str(job.target)],
        "duration_s": duration_s,
        "sample_rate_hz": rate_hz,
        "channels": file.channels,
        "n_codebooks": file.codes.shape[1],
        "kbps": kbps(net, file),
        "peak": report.peak,
        "clipped": report.clipped,
    }


def facts(path: Path) -> dict[str, Any]:
    """What a file says of itself; it does not name its model."""
    file = read_dac(path)
    return {
        "kind": "codes",
        "codec": "a DAC; the file does not say which",
        "n_codebooks": file.codes.shape[1],
        "n_frames": file.codes.shape[2],
        "chunk_frames": file.chunk_length,
        "channels": file.channels,
        "sample_rate_hz": file.sample_rate_hz,
        "duration_s": file.original_length / file.sample_rate_hz,
        "input_db": file.input_db.tolist(),
        "bytes": path.stat().st_size,
    }


def kbps(net: fastcodec.Codec, file: DacFile) -> float:
    """Of all channels together."""
    bits = (net.info.codebook_size - 1).bit_length()
    return len(file.codes) * file.codes.shape[1] * bits * net.info.frame_rate_hz / 1000


def as_dac(net: fastcodec.Codec) -> Dac:
    """The codec as a DAC; ValueError for another, which writes no such files."""
    if not isinstance(net, Dac):
        raise ValueError(f".dac holds codes of DAC, not of {net.info.name}")
    return net


def in_seconds(progress: batch.Progress, net: fastcodec.Codec) -> Any:
    """A callback that counts samples, from one that counts seconds."""
    rate_hz = net.info.sample_rate_hz
    return lambda done, total: progress(done / rate_hz, total / rate_hz)
