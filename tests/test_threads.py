"""``FASTCODEC_THREADS``: no kernel wakes more of torch's threads than it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .backends import needs_native

# torch's threads are made when they are first needed, so the tasks of the process tell.
WOKEN = """
import os, torch
from fastcodec import ops
torch.set_num_threads(1)
x = torch.ones(4, 64, 4000)
torch.set_num_threads(3)
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
with torch.inference_mode():
    y = ops.conv1d(x, torch.ones(64, 64, 7))
    state, weight, bias = torch.zeros(1, 4, 64), torch.ones(1, 256, 64), torch.ones(1, 256)
    y = ops.lstm(y[:, :, :500], state, state, weight, weight, bias, bias)[0]
print(tasks() - before, float(y.double().sum()))
"""


def run(threads: str | None) -> tuple[int, float, str]:
    """Threads that were made, a sum of results, and what was said, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "FASTCODEC_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", WOKEN],
        env=environment | ({} if threads is None else {"FASTCODEC_THREADS": threads}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made, total = done.stdout.split()
    return int(made), float(total), done.stderr


@needs_native
@pytest.mark.skipif(sys.platform != "linux", reason="counts the tasks in /proc")
def test_no_more_threads_than_asked_for() -> None:
    """One makes none; two cannot be told from three, for OpenMP makes all that torch may take."""
    found = {threads: run(threads) for threads in (None, "1", "2", "9")}
    assert [made for made, *_ in found.values()] == [2, 0, 2, 2]
    assert len({total for _, total, _ in found.values()}) == 1


@pytest.mark.parametrize("threads", ["0", "-1", "two", ""])
def test_what_is_no_number_of_threads_is_said(threads: str) -> None:
    assert f"FASTCODEC_THREADS must be a number from 1 on, got {threads!r}" in run(threads)[2]
