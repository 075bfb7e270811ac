"""``fastcodec convert``: a published checkpoint as one safetensors file that says what it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import fastcodec
from fastcodec.cli import console, options
from fastcodec.cli.plan import refuse_existing


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A checkpoint, or the folder with it.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec", "-c", show_default=False, help="A preset, where IN does not say what it is."
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Rewrite a checkpoint as safetensors with the codec's spec inside.

    Every entry is checked, weight norm is folded, training's leftovers are dropped.
    The result loads without naming a preset, and without unpickling anything.

    [bold]Examples[/bold]

    [cyan]fastcodec convert weights_16khz.pth dac.safetensors[/cyan]  → config found inside

    [cyan]fastcodec convert mimi-folder/ mimi.safetensors[/cyan]  → transformers' config.json

    [cyan]fastcodec convert encodec_24khz-d7cc33bc.th e.safetensors -c encodec_24khz[/cyan]

    [cyan]fastcodec encode talk.wav -w dac.safetensors[/cyan]  → what it is good for
    """
    refuse_existing(target, force)
    info = fastcodec.convert(source, target, codec)
    size_bytes = target.stat().st_size
    if as_json:
        console.say_json(asdict(info) | {"output": str(target), "bytes": size_bytes})
    else:
        console.say(f"{source} → {target}   {info.name}, {size_bytes / 1e6:.1f} MB")
