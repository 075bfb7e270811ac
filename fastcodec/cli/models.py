"""``fastcodec models``: the codecs, first those of the survey's Table I."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

import fastcodec
from fastcodec import CodecInfo
from fastcodec.cli import console, options
from fastcodec.codecs.survey import TABLE_I, SurveyRow

_RIGHT = ("Hz", "frames/s", "n_q", "kbps", "hop", "parameters")


def models(
    as_json: options.Json = False,
    names: Annotated[bool, typer.Option("--names", help="The presets' names alone.")] = False,
) -> None:
    """List the codecs: rates, codebooks, parameters, whether they stream, licences.

    First the 19 rows of Table I of "Towards audio language modeling - an overview",
    with a note where what upstream published differs from it, then the other presets.

    [bold]Examples[/bold]

    [cyan]fastcodec models[/cyan]

    [cyan]fastcodec models --json | jq -r '.presets\\[].name'[/cyan]  → for scripts
    """
    presets = {info.name: info for info in fastcodec.models()}
    if names:
        for name in presets:
            console.say(name)
        return
    if as_json:
        rows = [asdict(row) for row in TABLE_I]
        console.say_json({"table_i": rows, "presets": [asdict(i) for i in presets.values()]})
        return
    console.say("Table I of the survey", "bold")
    table = console.table(
        "", "survey's name", "codec", "Hz", "frames/s", "n_q", "kbps", "hop", "parameters",
        "streams", "licence of weights", right=_RIGHT,
    )  # fmt: skip
    for row in TABLE_I:
        _add_survey(table, row, presets[row.preset])
    console.say_table(table)
    console.say("")
    for row in TABLE_I:
        if row.differs:
            console.say(f"{row.row}: {row.differs}", "dim")
    console.say("")
    console.say("All presets", "bold")
    _say_all(list(presets.values()))


def _add_survey(table: Table, row: SurveyRow, info: CodecInfo) -> None:
    bits = (info.codebook_size - 1).bit_length()
    table.add_row(
        row.row + ("*" if row.differs else ""),
        row.name,
        info.name,
        f"{info.sample_rate_hz}",
        f"{info.frame_rate_hz:.4g}",
        f"{row.n_codebooks}",
        f"{row.n_codebooks * bits * info.frame_rate_hz / 1000:.4g}",
        f"{info.hop}",
        f"{info.parameters / 1e6:.1f} M",
        streams(info),
        Text(info.licence),
    )


def _say_all(presets: list[CodecInfo]) -> None:
    table = console.table(
        "codec", "Hz", "channels", "frames/s", "codebooks", "kbps", "hop", "parameters",
        "streams", "licence of weights", right=("Hz", "channels", "frames/s", "hop", "parameters"),
    )  # fmt: skip
    for info in presets:
        table.add_row(
            info.name,
            f"{info.sample_rate_hz}",
            f"{info.channels}",
            f"{info.frame_rate_hz:.4g}",
            f"{info.n_codebooks} × {info.codebook_size}",
            " ".join(f"{kbps:g}" for kbps in info.bandwidths_kbps) or f"{info.kbps:.3g}",
            f"{info.hop}",
            f"{info.parameters / 1e6:.1f} M",
            streams(info),
            Text(info.licence),
        )
    console.say_table(table)


def streams(info: CodecInfo) -> str:
    """In which directions a codec takes pieces."""
    if info.streamable:
        return "yes"
    return "decoding" if info.decode_streamable else "no"
