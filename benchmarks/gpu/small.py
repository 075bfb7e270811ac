"""Every kernel once at small odd sizes, for a memory or race checker to watch; nothing is timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastcodec
from fastcodec import ops, use_backend

PUSHES = 6
TOOLS = ("memcheck", "racecheck")
LIMIT_S = 240  # of a tool: torch under it takes minutes
FOUND = 9  # exit code where a tool has found an error


def main() -> int:
    """Exit code: 1 where a kernel fails; what a result is worth, the tests say."""
    failed = 0
    for op in ops.registry():
        for args in op.examples():
            there = tuple(a.cuda() if isinstance(a, Tensor) else a for a in args)
            for backend in ("cuda", "triton"):
                if op.why_not(backend, there) is None:
                    failed += not _runs(op, backend, there)
    codec = fastcodec.load("fastcodec_16khz", device="cuda")
    codes = codec.encode(0.1 * torch.randn(2, 1, 4000, device="cuda"))
    codec.decode(codes)
    if "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ:  # graphs need the allocator's pools
        return int(failed > 0)
    stream = codec.stream(graph=True)
    for _ in range(PUSHES):
        stream.decode(stream.encode(0.1 * torch.randn(1, 1, 4 * codec.hop, device="cuda")))
    torch.cuda.synchronize()
    return int(failed > 0)


def sanitized() -> int:
    """``main`` under each tool; exit code 1 where one finds an error, 0 where none can run."""
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    search = f"{os.environ.get('PATH', '')}{os.pathsep}{toolkit}"
    if (tool := shutil.which("compute-sanitizer", path=search)) is None:
        print("compute-sanitizer: not found in PATH or CUDA_HOME; nothing was checked")
        return 0
    return max([_watched(tool, kind) for kind in TOOLS])


def _watched(tool: str, kind: str) -> int:
    command = [tool, "--tool", kind, "--error-exitcode", str(FOUND)]
    command += [sys.executable, "-m", "benchmarks.gpu", "--small"]
    # With torch's allocator a write past a tensor would land in another one, unseen.
    plain = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if kind == "memcheck" else {}
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_S, env=os.environ | plain
        )
    except subprocess.TimeoutExpired:
        print(f"{kind}: not done after {LIMIT_S} s")
        return 1
    output = run.stdout + run.stderr
    if "Device not supported" in output:
        print(f"{kind}: compute-sanitizer does not support this device; nothing was checked")
        return 0
    print("\n".join(output.splitlines()[-40:]))
    print(f"{kind}: {'no errors' if run.returncode == 0 else f'exit code {run.returncode}'}")
    return int(run.returncode != 0)


def _runs(op: Any, backend: str, args: tuple[Any, ...]) -> bool:
    try:
        with use_backend(backend), torch.no_grad():
            op(*args)
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"{op.name} by {backend}: {error}")
        return False
    print(f"{op.name} by {backend}: ran")
    return True
