"""The commands put together, and the options they share."""

from __future__ import annotations

from typing import Annotated

import typer

import fastcodec
from fastcodec.cli import convert, decode, demo, encode, evaluate, models, reports, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command explains itself with examples: [bold]fastcodec encode --help[/bold]",
)
for command in (
    encode.encode,
    decode.decode,
    convert.convert,
    reports.info,
    models.models,
    reports.doctor,
    demo.demo,
    evaluate.evaluate,
    train.train,
):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastcodec {fastcodec.__version__}")
        raise typer.Exit


@app.callback()
def fastcodec_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Neural audio codecs: sound to codes and back."""
