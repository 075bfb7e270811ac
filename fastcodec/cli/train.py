"""``fastcodec train``: a codec from a folder of recordings."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastcodec.cli import console, options


def train(
    folder: Annotated[
        Path,
        typer.Option("--data", "-d", metavar="FOLDER", help="Recordings, searched through."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="For the checkpoint, the curve and the weights."
        ),
    ] = Path("training"),
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", "-p", show_default=False, help="The codec; the recipe's where not given."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", show_default=False, help="Settings, a TOML file."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="PATH",
            show_default=False,
            help="Start from these weights of the preset instead of random ones.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the results' folder.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, show_default=False, help="Stop after this one.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.0, show_default=False, help="Stop after so long."),
    ] = None,
    device: options.Device = "cpu",
) -> None:
    """Train a codec, or go on with a training.

    Writes checkpoint.pt, from which --resume goes on bit by bit, curve.jsonl with
    the losses and the held-out recordings' distances, and PRESET.safetensors.
    Ctrl-C ends it after a step, everything saved.
    Several processes: torchrun --nproc-per-node 2 -m fastcodec train …

    [bold]Examples[/bold]

    [cyan]fastcodec train --data speech/ --minutes 60[/cyan]  → training/fastcodec_16khz.safetensors

    [cyan]fastcodec train --data speech/ --recipe mine.toml --out run1[/cyan]

    [cyan]fastcodec train --data speech/ --recipe mine.toml --out run1 --resume[/cyan]

    [cyan]fastcodec train --data my_voice/ -w training/fastcodec_16khz.safetensors -o mine[/cyan]
    """
    from fastcodec.train import config
    from fastcodec.train.trainer import Trainer

    settings = config.read(recipe) if recipe else config.TrainConfig()
    settings = replace(settings, preset=preset or settings.preset, steps=steps or settings.steps)
    trainer = Trainer(settings, folder, out, resume, device, weights)
    with _bar() as bar:
        task = bar.add_task(settings.preset, total=settings.steps, completed=trainer.step, loss="")

        def report(step: int, line: dict[str, float]) -> None:
            bar.update(task, completed=step, loss=f"mel {line.get('mel', 0.0):.3f}")
            if any(name.startswith("held_out") for name in line):
                console.say(_line(line))

        with _signals(trainer.stop):
            trainer.run(minutes, report)
    if trainer.rank == 0:
        console.say(f"{trainer.step} steps, {trainer.seconds / 3600:.2f} h → {trainer.exported}")


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and the like call ``stop``; the second time they do what they always do."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    usual = {number: signal.getsignal(number) for number in numbers}

    def once(number: int, frame: object) -> None:
        stop()
        signal.signal(number, usual[signal.Signals(number)])

    try:
        for number in numbers:
            signal.signal(number, once)
        yield
    finally:
        for number in numbers:
            signal.signal(number, usual[number])


def _line(line: dict[str, float]) -> str:
    names = [name for name in line if name.startswith("held_out")]
    found = "   ".join(f"{name.removeprefix('held_out_')} {line[name]:.3f}" for name in names)
    return f"step {line['step']:>7}   {found}"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console.ERR,
        disable=not console.ERR.is_terminal,
    )
