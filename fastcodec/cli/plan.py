"""Which file becomes which: inputs and folders given on the command line, and their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One file to read and the one to write."""

    source: Path
    target: Path


def plan(
    inputs: Sequence[Path],
    out: Path | None,
    read_suffixes: Sequence[str],
    write_suffixes: Sequence[str],
    suffix: str,
    force: bool,
) -> list[Job]:
    """The jobs, checked before any work is done.

    Args:
        inputs: files, and folders that are searched for files with ``read_suffixes``
        out: None: beside each input; a path with one of ``write_suffixes``: that file, for a single
            input; anything else: a folder, which keeps the structure of searched folders
        read_suffixes: of the files taken from folders
        write_suffixes: what can be written
        suffix: of the outputs, where ``out`` is not a file
        force: existing outputs may be replaced

    Raises:
        FileNotFoundError: an input does not exist, or a folder holds nothing to read
        FileExistsError: an output exists and ``force`` is not set
        ValueError: outputs that would overwrite an input or each other
    """
    found = [pair for path in inputs for pair in _found(path, read_suffixes)]
    if out is not None and out.suffix.lower() in write_suffixes and not out.is_dir():
        if len(found) != 1:
            raise ValueError(
                f"--out {out} is one file, but there are {len(found)} inputs; give a folder"
            )
        jobs = [Job(found[0][0], out)]
    else:
        jobs = [Job(path, _beside(path, inside, out, suffix)) for path, inside in found]
    _check(jobs, force)
    return jobs


def _found(path: Path, suffixes: Sequence[str]) -> list[tuple[Path, Path]]:
    """(file, its path inside the folder that was given, or its name)."""
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        return [(path, Path(path.name))]
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    visible = [(p, p.relative_to(path)) for p in files]
    visible = [(p, inside) for p, inside in visible if not str(inside.name).startswith(".")]
    if not visible:
        raise FileNotFoundError(f"{path}: no {', '.join(suffixes)} files in this folder")
    return visible


def _beside(path: Path, inside: Path, out: Path | None, suffix: str) -> Path:
    return (path if out is None else out / inside).with_suffix(suffix)


def _check(jobs: Sequence[Job], force: bool) -> None:
    by_target: dict[Path, Path] = {}
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        first = by_target.setdefault(job.target, job.source)
        if first is not job.source:
            raise ValueError(
                f"{first} and {job.source} would both become {job.target}; give them apart"
            )
        if job.target.resolve() in sources:
            raise ValueError(f"{job.target} is an input; give another --out")
        refuse_existing(job.target, force)


def refuse_existing(path: Path, force: bool) -> None:
    """FileExistsError where ``path`` is there already and may not be replaced."""
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already; --force replaces it")
