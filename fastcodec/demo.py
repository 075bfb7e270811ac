"""The demo: the bundled clip through a codec and back, with files to listen to and to look at."""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastcodec
from fastcodec import demo_figure
from fastcodec.codecs.embedded import DEFAULT
from fastcodec.files import kbps_of, save_codes
from fastcodec.io import audio

WEIGHTS_VARIABLE = "FASTCODEC_WEIGHTS"

_WINDOW_S, _HOP_S, _BANDS = 0.064, 0.016, 80
_DYNAMIC_RANGE_DB = 80.0  # below this under the loudest value both signals count as silent
_WARM_UP_S = 0.5


@dataclass(frozen=True)
class DemoResult:
    """What the demo did; times are of one call each, after a short one to warm up."""

    codec: str
    duration_s: float
    kbps: float
    n_codebooks: int
    frame_rate_hz: float
    encode_s: float
    decode_s: float
    log_mel_distance_db: float
    original: Path
    decoded: Path
    codes: Path
    figure: Path

    @property
    def encode_rtf(self) -> float:
        """Seconds of audio encoded a second."""
        return self.duration_s / self.encode_s

    @property
    def decode_rtf(self) -> float:
        """Seconds of audio decoded a second."""
        return self.duration_s / self.decode_s

    def as_dict(self) -> dict[str, Any]:
        """All figures and paths, ready for JSON."""
        fields = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        return fields | {"encode_rtf": self.encode_rtf, "decode_rtf": self.decode_rtf}


def clip_path() -> Path:
    """The bundled speech: 9.34 s, 16 kHz, mono; ``assets/README.md`` says where it is from."""
    return Path(str(files("fastcodec"))) / "assets" / "speech.flac"


def run(
    codec_name: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "demo",
) -> DemoResult:
    """Encodes and decodes the bundled clip and writes wav files, codes and a picture.

    Args:
        codec_name: a preset of ``fastcodec.models()``; None: what the weights say they are, or the
            one whose weights come with the package
        weights: its weights; None takes the path in the environment variable FASTCODEC_WEIGHTS,
            where there is one
        out: folder for the results, made if needed; earlier results in it are replaced

    Raises:
        WeightsError: the weights do not fit, or do not say what they are
    """
    weights = weights or os.environ.get(WEIGHTS_VARIABLE) or None
    if codec_name is None and weights is None:
        codec_name = DEFAULT
    codec = fastcodec.load(codec_name, weights=weights)
    info = codec.info
    wav, rate_hz = audio.read(clip_path(), info.sample_rate_hz, info.channels)
    codec.decode(codec.encode(wav[:, : round(_WARM_UP_S * rate_hz)]))
    started = time.perf_counter()
    codes = codec.encode(wav)
    encoded = time.perf_counter()
    decoded = codec.decode(codes)[0]
    finished = time.perf_counter()
    wav = wav[:, : decoded.shape[1]]  # some codecs drop the last part of a frame

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    result = DemoResult(
        codec=info.name,
        duration_s=wav.shape[1] / rate_hz,
        kbps=kbps_of(codes, info.codebook_size),
        n_codebooks=codes.n_codebooks,
        frame_rate_hz=codes.frame_rate_hz,
        encode_s=encoded - started,
        decode_s=finished - encoded,
        log_mel_distance_db=log_mel_distance_db(wav, decoded, rate_hz),
        original=folder / "original.wav",
        decoded=folder / "decoded.wav",
        codes=folder / "codes.safetensors",
        figure=folder / "demo.png",
    )
    audio.write(result.original, wav, rate_hz)
    audio.write(result.decoded, decoded, rate_hz)
    save_codes(codes, result.codes)
    demo_figure.save(
        result.figure, wav, decoded, rate_hz, codes, info.codebook_size, _title(result)
    )
    return result


def _title(result: DemoResult) -> str:
    return (
        f"{result.codec}   {result.kbps:g} kbps = {result.n_codebooks} codebooks at "
        f"{result.frame_rate_hz:g} Hz   log-mel distance {result.log_mel_distance_db:.1f} dB"
    )


def log_mel_distance_db(reference: Tensor, other: Tensor, sample_rate_hz: int) -> float:
    """Mean absolute difference of two signals' log-mel spectra, in dB; 0 for equal signals.

    Hann window of 64 ms every 16 ms, power spectrum, 80 triangular mel bands from 0 to half the
    rate, ``10 log10``, floored 80 dB below the reference's loudest value; then the mean over
    channels, bands and frames. Lower is closer, but it is no measure of how good it sounds.

    Args:
        reference: [C, S] float
        other: [C, S] float, of the same shape
        sample_rate_hz: rate of both
    """
    if reference.shape != other.shape:
        raise ValueError(
            f"log_mel_distance_db: shapes differ: {list(reference.shape)}, {list(other.shape)}"
        )
    power = [_mel_power(wav, sample_rate_hz) for wav in (reference, other)]
    floor = max(float(power[0].max()) * 10 ** (-_DYNAMIC_RANGE_DB / 10), 1e-20)
    first, second = (10 * torch.log10(p.clamp_min(floor)) for p in power)
    return float((first - second).abs().mean())


def _mel_power(wav: Tensor, sample_rate_hz: int) -> Tensor:
    """[C, bands, frames] power in mel bands."""
    window, hop = round(_WINDOW_S * sample_rate_hz), round(_HOP_S * sample_rate_hz)
    size = 1 << math.ceil(math.log2(window))
    spectrum = torch.stft(
        wav.detach().float().cpu(),
        size,
        hop,
        window,
        torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    )
    return _mel_filters(sample_rate_hz, size) @ spectrum.abs().square()


def _mel_filters(sample_rate_hz: int, size: int) -> Tensor:
    """[bands, size/2 + 1] triangles of height 1, equally wide in mel = 2595 log10(1 + f/700)."""
    top_mel = 2595 * math.log10(1 + sample_rate_hz / 2 / 700)
    mels = torch.linspace(0, top_mel, _BANDS + 2, dtype=torch.float64)
    corners_hz = 700 * (10 ** (mels / 2595) - 1)
    bins_hz = torch.linspace(0, sample_rate_hz / 2, size // 2 + 1, dtype=torch.float64)
    rising = (bins_hz - corners_hz[:-2, None]) / (corners_hz[1:-1] - corners_hz[:-2])[:, None]
    falling = (corners_hz[2:, None] - bins_hz) / (corners_hz[2:] - corners_hz[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp_min(0).float()
