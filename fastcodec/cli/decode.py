"""``fastcodec decode``: codes files to audio files."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import fastcodec
from fastcodec import files
from fastcodec.cli import batch, dac, options
from fastcodec.cli.plan import Job, plan, refuse_existing
from fastcodec.codecs import preset_names
from fastcodec.codes import Codes
from fastcodec.io import audio

_CHUNK_S = 0.4  # as in encoding


def decode(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="CODES…", help="safetensors, ecdc, dac, lyra files or folders."),
    ],
    out: options.Out = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="wav|flac|ogg|mp3", show_default=False, help="wav"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="pcm16|pcm24|float32",
            show_default=False,
            help="Sample format of wav and flac (pcm16; float32 in wav only).",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option("--codec", "-c", show_default=False, help="A preset other than the file's."),
    ] = None,
    codebooks: Annotated[
        int | None,
        typer.Option(
            "--codebooks", "-n", show_default=False, help="16, 30 or 46: of .lyra files, if asked."
        ),
    ] = None,
    weights: options.Weights = None,
    lm: options.Lm = None,
    device: options.Device = "cpu",
    precision: options.Precision = "highest",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Decode codes files to audio.

    The codes file says which codec it is of. If it holds several signals, each
    becomes a file of its own: talk-0.wav, talk-1.wav …

    [bold]Examples[/bold]

    [cyan]fastcodec decode talk.safetensors[/cyan]  → talk.wav

    [cyan]fastcodec decode talk.ecdc --out talk.flac[/cyan]

    [cyan]fastcodec decode codes/ --out audio/ --format mp3[/cyan]  → a folder

    [cyan]fastcodec decode talk.dac --codec dac_44khz[/cyan]  → at its first rate and loudness

    [cyan]fastcodec decode talk.lyra -w lyra/ --codebooks 46[/cyan]  → Lyra packets of 9.2 kbps
    """
    suffix = options.suffix(file_format, out, audio.SUFFIXES)
    jobs = plan(inputs, out, files.SUFFIXES, audio.SUFFIXES, suffix, force)

    @functools.cache
    def net_of(name: str | None) -> fastcodec.Codec:
        known = name if name in preset_names() else None
        return fastcodec.load(known, weights, device, precision)

    def work(job: Job, progress: batch.Progress) -> dict[str, Any]:
        if job.source.suffix.lower() == ".dac":
            if codec is None and weights is None:
                raise ValueError(f"{job.source}: does not say which DAC made it; give --codec")
            job.target.parent.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            facts = dac.decode(net_of(codec), job, encoding, progress)
            return facts | {"seconds": time.perf_counter() - started}
        codes = files.read_codes(job.source, codec, lm, codebooks)
        net = net_of(codes.codec)
        targets = _targets(job.target, len(codes))
        for target in targets:
            refuse_existing(target, force)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        reports = [
            decode_to(net, codes[row], target, encoding, progress)
            for row, target in enumerate(targets)
        ]
        return {
            "codec": codes.codec,
            "outputs": [str(target) for target in targets],
            "duration_s": sum(report.n_samples for report in reports) / net.info.sample_rate_hz,
            "seconds": time.perf_counter() - started,
            "sample_rate_hz": net.info.sample_rate_hz,
            "channels": net.info.channels,
            "n_codebooks": codes.n_codebooks,
            "kbps": files.kbps_of(codes, net.info.codebook_size),
            "peak": max(report.peak for report in reports),
            "clipped": sum(report.clipped for report in reports),
        }

    batch.run(jobs, work, "decoded", {}, as_json)


def decode_to(
    net: fastcodec.Codec,
    codes: Codes,
    path: Path,
    encoding: str | None,
    progress: batch.Progress,
) -> audio.WriteReport:
    """Decodes one signal to an audio file, piece by piece where the codec streams."""
    with audio.Writer.open(path, net.info.sample_rate_hz, net.info.channels, encoding) as out:
        for piece in _pieces(net, codes, progress):
            out.write(piece)
        return out.report


def _pieces(net: fastcodec.Codec, codes: Codes, progress: batch.Progress) -> Iterator[Tensor]:
    """[C, n] pieces of the one signal in ``codes``; together its ``n_samples``."""
    n_samples, rate_hz = int(codes.n_samples[0]), net.info.sample_rate_hz
    if not net.info.decode_streamable or codes.scale is not None or codes.segment is not None:
        yield net.decode(codes, progress=_in_seconds(progress, n_samples / rate_hz))[0]
        return
    tokens = codes.tokens[..., : net.n_frames(n_samples)]  # a ragged batch's row is filled up
    chunk = max(1, round(_CHUNK_S * codes.frame_rate_hz))
    stream, done = net.stream(n_codebooks=codes.n_codebooks), 0
    for begin in range(0, tokens.shape[2], chunk):
        last = begin + chunk >= tokens.shape[2]
        piece = stream.decode(tokens[..., begin : begin + chunk], final=last)[0]
        piece = piece[:, : n_samples - done]
        done += piece.shape[1]
        progress(done / rate_hz, n_samples / rate_hz)
        yield piece
    if done < n_samples:  # a decoder that gives a little less than its frames: DAC at 16 kHz
        yield torch.zeros(net.info.channels, n_samples - done)


def _in_seconds(progress: batch.Progress, duration_s: float) -> Any:
    return lambda done, total: progress(duration_s * done / total, duration_s)


def _targets(target: Path, rows: int) -> list[Path]:
    if rows == 1:
        return [target]
    return [target.with_name(f"{target.stem}-{row}{target.suffix}") for row in range(rows)]
