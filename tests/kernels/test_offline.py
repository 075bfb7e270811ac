"""Every Triton kernel goes through the compiler for two GPUs, at the block sizes it is run with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "kernels"
STEMS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.mark.parametrize("stem", STEMS)
def test_compiles_without_spills_for_sm_80_and_sm_90(stem: str) -> None:
    """In a process of its own: in this one Triton interprets."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "fastcodec.kernels._offline", stem],
        capture_output=True,
        text=True,
        env=environment,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sm_80" in run.stdout and "sm_90" in run.stdout
