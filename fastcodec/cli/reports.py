"""``fastcodec info`` and ``doctor``: what there is, and what works here."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
import typer
from rich.text import Text

import fastcodec
from fastcodec import _native, files, ops
from fastcodec.cli import console, dac, options
from fastcodec.codecs import preset_names
from fastcodec.io import audio

_EXTRAS = {
    "soundfile": "audio",
    "soxr": "audio",
    "safetensors": "weights",
    "huggingface_hub": "weights",
    "tflite": "lyra",
    "matplotlib": "cli",
    "pystoi": "evaluate",
    "pesq": "evaluate",
    "av": "evaluate",
}


def info(
    target: Annotated[
        str, typer.Argument(metavar="FILE|PRESET", help="A codes or audio file, or a preset.")
    ],
    lm: options.Lm = None,
    codebooks: Annotated[
        int | None,
        typer.Option("--codebooks", "-n", show_default=False, help="Of a .lyra file, if asked."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say what a file holds, or what a preset is.

    [bold]Examples[/bold]

    [cyan]fastcodec info talk.ecdc[/cyan]  → codec, length, codebooks, kbps

    [cyan]fastcodec info talk.mp3[/cyan]  → rate, channels, length

    [cyan]fastcodec info encodec_48khz[/cyan]  → the codec's facts, where its weights come from
    """
    path = Path(target)
    if path.is_file():
        is_audio = path.suffix.lower() in audio.SUFFIXES
        if path.suffix.lower() == ".dac":
            facts = dac.facts(path)
        else:
            facts = _audio_facts(path) if is_audio else _codes_facts(path, lm, codebooks)
    elif target in preset_names():
        facts = asdict(fastcodec.models(target)[0])
    else:
        names = ", ".join(preset_names())
        raise ValueError(f"{target}: neither a file nor a preset; presets: {names}")
    if as_json:
        console.say_json(facts)
    else:
        _say(facts)


def doctor(as_json: options.Json = False) -> None:
    """Show what works on this machine, and why the rest does not.

    Versions, instruction sets, optional packages, every operator × backend.
    Put its output into bug reports.

    [bold]Examples[/bold]

    [cyan]fastcodec doctor[/cyan]

    [cyan]FASTCODEC_ISA=avx2 fastcodec doctor[/cyan]  → as on a machine without AVX-512
    """
    facts, packages = _machine_facts(), {name: _version(name) for name in _EXTRAS}
    report = {op.name: dict(op.report()) for op in ops.registry()}
    if as_json:
        console.say_json(facts | {"packages": packages, "ops": report})
        return
    _say(facts)
    console.say("")
    for name, found in packages.items():
        state = found or f'not installed: pip install "fastcodec[{_EXTRAS[name]}]"'
        console.say(f"{name:<16} {state}")
    console.say("")
    _say_ops(report)


def _say_ops(report: dict[str, dict[str, str | None]]) -> None:
    """A table op × backend, and under it the reasons, each once for all the ops it is true of."""
    backends = list(dict.fromkeys(name for row in report.values() for name in row))
    table = console.table("op", *backends)
    reasons: dict[tuple[str, str], list[str]] = {}
    for op, row in report.items():
        marks = [Text("yes", "green") if row[b] is None else Text("no", "dim") for b in backends]
        table.add_row(op, *marks)
        for backend, reason in row.items():
            if reason is not None:
                reasons.setdefault((backend, reason.replace(op, "this op")), []).append(op)
    console.say_table(table)
    for (backend, reason), names in reasons.items():
        whom = "every op" if len(names) == len(report) else ", ".join(names)
        console.say(f"{backend}, {whom}: {reason}")


def _machine_facts() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "fastcodec": fastcodec.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "FASTCODEC_THREADS": os.environ.get("FASTCODEC_THREADS"),
        "gpu": _gpus(),
        "backend": ops.forced_backend() or "automatic",
        "native_library": _native.cpu.why_not or f"loaded, {_native.cpu_isa}",
        "medium_precision": _medium(),
    }
    try:
        from fastcodec import _host
    except ImportError as error:
        return facts | {"cpu": platform.processor() or None, "host_module": str(error)}
    cpu = _host.cpu_report()
    sets = [name for name, usable in cpu.items() if usable is True]
    return facts | {"cpu": cpu["brand"], "instruction_sets": sets, "host_module": "loaded"}


def _gpus() -> str:
    """Names and capabilities of the NVIDIA GPUs, or why there is none."""
    if torch.version.cuda is None:
        return "none: this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"none: torch (CUDA {torch.version.cuda}) sees no NVIDIA GPU"
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    names = ", ".join(f"{gpu.name} (sm_{gpu.major}{gpu.minor})" for gpu in found)
    return f"{names}, CUDA {torch.version.cuda}"


def _medium() -> str:
    """What ``--precision medium`` gains here; "high" is float32 everywhere so far."""
    if _native.cpu.why_not is None and _native.cpu_isa == "avx512_bf16":
        return "bfloat16 products, twice as fast as float32"
    return "float32 products of numbers rounded to bfloat16, no faster than highest"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _audio_facts(path: Path) -> dict[str, Any]:
    header = audio.probe(path)
    return {
        "kind": "audio",
        "duration_s": header.n_samples / header.sample_rate_hz,
        **asdict(header),
        "bytes": path.stat().st_size,
    }


def _codes_facts(path: Path, lm: str | None, n_codebooks: int | None) -> dict[str, Any]:
    codes = files.read_codes(path, lm=lm, n_codebooks=n_codebooks)
    facts = {
        "kind": "codes",
        "codec": codes.codec,
        "signals": len(codes),
        "n_codebooks": codes.n_codebooks,
        "n_frames": codes.tokens.shape[2],
        "frame_rate_hz": codes.frame_rate_hz,
        "n_samples": codes.n_samples.tolist(),
        "bytes": path.stat().st_size,
    }
    if codes.codec not in preset_names():
        return facts
    (preset,) = fastcodec.models(codes.codec)
    return facts | {
        "sample_rate_hz": preset.sample_rate_hz,
        "duration_s": [n / preset.sample_rate_hz for n in codes.n_samples.tolist()],
        "kbps": files.kbps_of(codes, preset.codebook_size),
        "licence": preset.licence,
    }


def _say(facts: dict[str, Any]) -> None:
    console.say_facts({name.replace("_", " "): _shown(value) for name, value in facts.items()})


def _shown(value: Any) -> str:
    """A value as a person wants to read it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value) or "–"
    return str(value)
