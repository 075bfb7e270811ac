"""``fastcodec encode``: audio files to codes files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import fastcodec
from fastcodec import files
from fastcodec.cli import batch, dac, options
from fastcodec.cli.plan import Job, plan
from fastcodec.codecs.embedded import DEFAULT
from fastcodec.codes import Codes, join
from fastcodec.io import audio

_CHUNK_S = 0.4  # what is pushed at a time: the size of the tiles that the codecs use themselves


def encode(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="AUDIO…", help="wav, flac, ogg, mp3 files or folders.")
    ],
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec",
            "-c",
            show_default=False,
            help="A preset; see [bold]fastcodec models[/bold]. Without it: what the weights say "
            "they are, or fastcodec_16khz where none are given.",
        ),
    ] = None,
    out: options.Out = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="safetensors|ecdc|dac|lyra",
            show_default=False,
            help="safetensors holds any codec's codes (default); ecdc, dac and lyra are EnCodec's, "
            "DAC's and Lyra's own files.",
        ),
    ] = None,
    codebooks: Annotated[
        int | None,
        typer.Option("--codebooks", "-n", show_default=False, help="Codebooks to keep (all)."),
    ] = None,
    kbps: Annotated[
        float | None,
        typer.Option("--kbps", "-b", show_default=False, help="A bit rate, instead of -n."),
    ] = None,
    segment_s: options.SegmentS = None,
    weights: options.Weights = None,
    lm: options.Lm = None,
    device: options.Device = "cpu",
    precision: options.Precision = "highest",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Encode audio files to codes.

    Files of any rate are resampled; channels are mixed to mono, or mono is copied
    to both, as the codec needs. Where the codec streams, a file is read and coded
    piece by piece, so that its length hardly matters for memory.

    [bold]Examples[/bold]

    [cyan]fastcodec encode talk.wav --kbps 2[/cyan]  → talk.safetensors, by fastcodec_16khz

    [cyan]fastcodec encode talk.mp3 -c encodec_24khz -b 6 --out talk.ecdc[/cyan]  → EnCodec's file

    [cyan]fastcodec encode recordings/ --out codes/ --codec lyra_v2 -w lyra/[/cyan]  → a folder

    [cyan]fastcodec encode talk.wav -w dac-folder/[/cyan]  → a folder saved by transformers

    [cyan]fastcodec encode talk.wav --json | jq '.files\\[0].kbps'[/cyan]  → for scripts
    """
    suffix = options.suffix(file_format, out, files.SUFFIXES)
    jobs = plan(inputs, out, audio.SUFFIXES, files.SUFFIXES, suffix, force)
    if codec is None and weights is None:
        codec = DEFAULT
    if codec is not None:  # before anything is downloaded
        _check_formats(jobs, codec, codebooks)
    net = fastcodec.load(codec, weights=weights, device=device, precision=precision)
    _check_formats(jobs, net.info.name, codebooks)

    def work(job: Job, progress: batch.Progress) -> dict[str, Any]:
        started = time.perf_counter()
        if job.target.suffix.lower() == ".dac":
            job.target.parent.mkdir(parents=True, exist_ok=True)
            facts = dac.encode(net, job, codebooks, kbps, progress)
            return facts | {"seconds": time.perf_counter() - started}
        codes = encode_file(net, job.source, codebooks, kbps, progress, segment_s)
        seconds = time.perf_counter() - started
        job.target.parent.mkdir(parents=True, exist_ok=True)
        files.save_codes(codes, job.target, lm)
        duration_s = int(codes.n_samples[0]) / net.info.sample_rate_hz
        return {
            "duration_s": duration_s,
            "seconds": seconds,
            "n_frames": codes.tokens.shape[2],
            "n_codebooks": codes.n_codebooks,
            "kbps": files.kbps_of(codes, net.info.codebook_size),
            "file_kbps": job.target.stat().st_size * 8e-3 / duration_s,
        }

    batch.run(jobs, work, "encoded", {"codec": net.info.name}, as_json)


def _check_formats(jobs: Sequence[Job], codec: str, codebooks: int | None) -> None:
    for job in jobs:
        files.check_format(job.target, codec, codebooks)


def encode_file(
    net: fastcodec.Codec,
    path: Path,
    n_codebooks: int | None,
    bandwidth_kbps: float | None,
    progress: batch.Progress,
    segment_s: float | None = None,
) -> Codes:
    """The codes of an audio file, piece by piece where the codec streams."""
    info, header = net.info, audio.probe(path)
    rate_hz, channels = info.sample_rate_hz, info.channels
    if not info.streamable:
        wav, _ = audio.read(path, rate_hz, channels)
        return net.encode(
            wav,
            n_codebooks,
            bandwidth_kbps,
            progress=lambda done, total: progress(done / rate_hz, total / rate_hz),
            segment_s=segment_s,
        )
    if segment_s is not None:
        raise ValueError(f"--segment-s: {info.name} takes any length as it is; leave it out")
    stream = net.stream(n_codebooks=n_codebooks, bandwidth_kbps=bandwidth_kbps)
    total_s = header.n_samples / header.sample_rate_hz

    def pieces() -> Iterator[Codes]:
        done = 0
        chunk = max(1, round(_CHUNK_S * header.sample_rate_hz))
        for piece in audio.blocks(path, rate_hz, channels, chunk):
            yield stream.encode(piece[None])
            done += piece.shape[1]
            progress(done / rate_hz, total_s)
        yield stream.encode(torch.zeros(1, channels, 0), final=True)

    codes = join(list(pieces()))
    if not codes.tokens.shape[2]:
        raise ValueError(f"{path}: too short for {info.name}, a frame is {info.hop} samples")
    return codes
