"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        metavar="PATH",
        show_default=False,
        help="The codec's checkpoint (.th, .pt, .pth, .bin, .safetensors), or a folder with one "
        "and its config; for Lyra the folder with its .tflite files. Without it: downloaded from "
        "the Hugging Face hub, once; those of fastcodec_16khz are in the package.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        show_default=False,
        help="A file for a single input, else a folder. Without it: beside each input.",
    ),
]
Lm = Annotated[
    str | None,
    typer.Option(
        "--lm",
        metavar="PATH",
        show_default=False,
        help="Weights of EnCodec's language model, for entropy-coded .ecdc files.",
    ),
]
SegmentS = Annotated[
    float | None,
    typer.Option(
        "--segment-s",
        metavar="SECONDS",
        show_default=False,
        help="Of codecs that do not stream: code segments of this length on their own, so that "
        "memory does not grow with the file.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 …")]
Precision = Annotated[
    str, typer.Option("--precision", help="highest (float32), high, or medium (bfloat16).")
]
Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist already.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]


def suffix(file_format: str | None, out: Path | None, suffixes: Sequence[str]) -> str:
    """The suffix of the outputs: the one asked for, or that of ``out``, or the first possible.

    Raises:
        typer.BadParameter: an unknown format, or one that contradicts ``out``
    """
    named = out.suffix.lower() if out and out.suffix.lower() in suffixes else None
    if file_format is None:
        return named or suffixes[0]
    asked = "." + file_format.lower().lstrip(".")
    if asked not in suffixes or (named and not out.is_dir() and named != asked):  # type: ignore[union-attr]
        expected = named[1:] if named and asked in suffixes else ", ".join(s[1:] for s in suffixes)
        raise typer.BadParameter(f"--format {file_format}: expected {expected}")
    return asked
