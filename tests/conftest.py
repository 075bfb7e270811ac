"""What the tests of every folder share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from .backends import threads

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("FASTCODEC_SHARED", ROOT.parent / "shared"))

# Without a GPU, Triton's kernels run in Python; it decides when they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Without a deadline: the machine may be busy. The same examples in every run: what fails on a
# server fails at the desk.
settings.register_profile("fastcodec", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("fastcodec")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small shapes: on a busy machine two threads wait for each other more than they work."""
    with threads(1):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the published weights and clips."""
    if not SHARED.is_dir():
        pytest.skip(f"nothing at {SHARED}; FASTCODEC_SHARED says where the shared data are")
    return SHARED
