"""What the native backend needs to be tested, and how many threads it may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fastcodec import _native

# Switched off, or a processor without AVX2. A library that is not built, does not load or is of
# another version is no reason to skip: the tests then run, and fail.
NO_NATIVE = _native.cpu.why_not is not None and (
    _native.cpu.why_not == "FASTCODEC_ISA=reference" or "this processor" in _native.cpu.why_not
)
needs_native = pytest.mark.skipif(
    NO_NATIVE, reason=f"the native CPU kernels do not run: {_native.cpu.why_not}"
)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch works with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
