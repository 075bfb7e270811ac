"""``fastcodec evaluate``: codecs side by side on recordings, as a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import fastcodec
from fastcodec import evaluate as evaluation
from fastcodec import evaluate_figure
from fastcodec.cli import console, options
from fastcodec.codecs.embedded import DEFAULT
from fastcodec.evaluate import Clip, Neural, Opus, Row, System
from fastcodec.io.atomic import replacing
from fastcodec.metrics import METRICS

_LYRA_KBPS = (3.2, 6.0)


def evaluate(
    clips: Annotated[
        list[Path], typer.Argument(metavar="CLIPS…", help="Recordings, or folders with them.")
    ],
    codec: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            "-c",
            metavar="NAME[:KBPS,…]",
            show_default=False,
            help="A preset, at these bit rates or at all it has. May be given several times. "
            "Without NAME, as in [bold]:1,2[/bold]: what the weights say they are. Where nothing "
            "is named at all: fastcodec_16khz.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="PATH",
            show_default=False,
            help="The checkpoint of each --codec, in the same order; [bold]-[/bold] for one whose "
            "weights are found without.",
        ),
    ] = None,
    lyra: Annotated[
        str | None,
        typer.Option(
            "--lyra",
            metavar="FOLDER",
            show_default=False,
            help="Lyra v2 at 3.2 and 6 kbps, from its .tflite files.",
        ),
    ] = None,
    opus: Annotated[
        str | None,
        typer.Option("--opus", metavar="KBPS,…", show_default=False, help="Opus at these rates."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the report goes.")
    ] = Path("report"),
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Measure codecs on the same recordings, at each of their bit rates.

    Log-mel distance, STOI, PESQ-wb and SI-SDR at 16 kHz mono as means over the
    clips, and how much of each codebook is used. Writes evaluation.json with
    every clip's values and evaluation.png; those of an earlier run are replaced.

    STOI, PESQ and Opus need the packages of the extra "evaluate". A metric
    without its package is left out, and the report says so.

    [bold]Examples[/bold]

    [cyan]fastcodec evaluate speech/ --codec fastcodec_16khz:1,2,4 --opus 6,12[/cyan]

    [cyan]fastcodec evaluate speech/ -c :1,2,4 -w mine.safetensors --lyra lyra/[/cyan]

    [cyan]fastcodec evaluate a.wav b.wav -c mimi -w - -c dac_16khz -w dac.pth[/cyan]

    [cyan]fastcodec evaluate speech/ --lyra lyra/ --json | jq '.rows\\[].means'[/cyan]
    """
    found = evaluation.find_clips(clips)
    systems = _systems(codec or [], weights or [], lyra, opus, device)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for system in systems:
        for kbps in system.rates_kbps:
            with console.metered(f"{system.name} {kbps:g} kbps", quiet=as_json) as meter:
                rows.append(evaluation.measure(system, kbps, found, meter.reached))
    report = evaluation.as_dict(rows, found)
    with replacing(out / "evaluation.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    evaluate_figure.save(out / "evaluation.png", rows, _title(found))
    if as_json:
        console.say_json(report)
    else:
        _say(rows, found, out)


def _systems(
    codecs: Sequence[str], weights: Sequence[str], lyra: str | None, opus: str | None, device: str
) -> list[System]:
    """Everything that is to be measured, loaded and checked before any work."""
    if weights and codecs and len(weights) != len(codecs):
        raise ValueError(
            f"--weights: there are {len(weights)} for {len(codecs)} --codec; give one each, "
            f"- for a codec whose weights are found without"
        )
    asked = [_spec(text) for text in codecs or [":"] * len(weights)]
    paths = [None if path == "-" else path for path in weights] or [None] * len(asked)
    wanted = [(name, rates, path) for (name, rates), path in zip(asked, paths, strict=True)]
    if lyra is not None:
        wanted.append(("lyra_v2", _LYRA_KBPS, lyra))
    made: list[System] = []
    for name, rates, path in wanted:
        net = fastcodec.load(name, weights=path, device=device)
        twice = any(system.name == net.info.name for system in made)
        label = f"{net.info.name} ({path or len(made) + 1})" if twice else None
        made.append(Neural(net, rates, label))
    if opus is not None:
        made.append(Opus(_rates(opus, "--opus")))
    return made or [Neural(fastcodec.load(DEFAULT, device=device))]


def _spec(text: str) -> tuple[str | None, tuple[float, ...] | None]:
    """``NAME[:KBPS,…]`` as name and bit rates, None for what is not said."""
    name, _, rates = text.partition(":")
    return name or None, _rates(rates, f"--codec {text}") if rates else None


def _rates(text: str, option: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or not all(0 < kbps < 1e4 for kbps in rates):
        raise typer.BadParameter(f"{option}: expected bit rates in kbps like 1.5,6, got {text!r}")
    return tuple(dict.fromkeys(rates))


def _title(clips: Sequence[Clip]) -> str:
    return f"{len(clips)} clips, {sum(c.duration_s for c in clips):.1f} s, compared at 16 kHz"


def _say(rows: Sequence[Row], clips: Sequence[Clip], out: Path) -> None:
    console.say(_title(clips), "bold")
    labels = [metric.label for metric in METRICS]
    numbers = ("kbps", "codebooks", *labels)
    table = console.table("codec", *numbers, right=numbers)
    for row in rows:
        values = [row.means[metric.name] for metric in METRICS]
        table.add_row(
            row.system,
            f"{row.kbps:.3g}",
            f"{row.n_codebooks or '–'}",
            *("–" if value is None else f"{value:.3g}" for value in values),
        )
    console.say_table(table)
    console.say("")
    for row in evaluation.highest_rates(rows):
        console.say(f"codebooks of {row.system}, {row.usage[0].size} words each", "bold")
        console.say("perplexity  " + " ".join(f"{u.perplexity:.3g}" for u in row.usage))
        console.say("words used  " + " ".join(f"{u.words_used}" for u in row.usage))
        console.say("")
    for note in evaluation.notes(rows):
        console.say(f"left out: {note}")
    console.say(f"report    {out / 'evaluation.json'}")
    console.say(f"picture   {out / 'evaluation.png'}")
