"""Works through a list of files: progress, one line a file, one exit code for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer

from fastcodec.cli import console, debugging, explained
from fastcodec.cli.plan import Job

Progress = Callable[[float, float], None]  # seconds of audio done, seconds in all


def run(
    jobs: Sequence[Job],
    work: Callable[[Job, Progress], dict[str, Any]],
    verb: str,
    head: dict[str, Any],
    as_json: bool,
) -> None:
    """Does every job; a file that fails is reported and does not keep the others from being done.

    Args:
        jobs: what to do
        work: does one job and gives its facts, among them ``duration_s`` of audio and the
            ``seconds`` it took
        verb: "encoded" or "decoded"
        head: what the JSON document says beside the files
        as_json: print that document and nothing else on standard output

    Raises:
        typer.Exit: with code 1, where a file failed
    """
    results: list[dict[str, Any]] = []
    for job in jobs:
        names = {"input": str(job.source), "output": str(job.target)}
        try:
            with console.metered(job.source.name, quiet=as_json) as meter:
                facts = work(job, meter.reached)
        except Exception as error:
            if debugging():
                raise
            results.append(names | {"error": explained(error)})
            console.warn(f"fastcodec: {results[-1]['error']}")
            continue
        results.append(names | facts | {"rtf": facts["duration_s"] / facts["seconds"]})
        if not as_json:
            console.say(_line(results[-1]))
    failed = sum("error" in result for result in results)
    if as_json:
        console.say_json(head | {"files": results})
    elif len(jobs) > 1:
        console.say(f"{len(jobs) - failed} of {len(jobs)} files {verb}")
    if failed:
        raise typer.Exit(1)


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['input']} → {result['output']}   {result['duration_s']:.2f} s, "
        f"{result['n_codebooks']} codebooks, {result['kbps']:.3g} kbps, "
        f"{result['rtf']:.1f}× real time"
    )
