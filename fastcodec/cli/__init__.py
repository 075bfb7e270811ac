"""The command line, ``fastcodec`` (typer and rich). This file needs neither, the others do."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fastcodec.optional import require

DEBUG_VARIABLE = "FASTCODEC_DEBUG"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 wrong use, 130 interrupted.

    Args:
        arguments: as after the program's name; None takes the process's own
    """
    try:
        for package in ("typer", "rich"):
            require(package, "cli", "the command line")
        from fastcodec.cli.app import app

        app(None if arguments is None else list(arguments), prog_name="fastcodec")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debugging():
            raise
        print(f"fastcodec: {explained(error)}", file=sys.stderr)
        sys.exit(1)


def debugging() -> bool:
    """Whether errors are to come with their traceback."""
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def explained(error: Exception) -> str:
    """What is printed for an error: its own words where it was raised for the user to read."""
    from fastcodec.errors import BackendError

    known = (ValueError, OSError, ImportError, BackendError)
    if isinstance(error, known) and str(error):
        return str(error)
    return (
        f"{type(error).__name__}: {error} (this should not happen; {DEBUG_VARIABLE}=1 shows where)"
    )
