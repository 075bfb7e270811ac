"""``python -m fastcodec.kernels._offline [ops]``: every kernel through the compiler, without a GPU.

A line a kernel and architecture: registers a thread, bytes spilled, bytes of shared memory. The
exit code is 1 where one does not compile, spills, or asks for more than the architecture has.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastcodec.kernels._tools import Offline

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # a block's most


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel for ``sm_<arch>``."""

    name: str
    arch: int
    registers: int
    spilled_bytes: int
    shared_bytes: int

    @property
    def fits(self) -> bool:
        return self.spilled_bytes == 0 and self.shared_bytes <= SHARED_BYTES[self.arch]


def kernels(ops: Sequence[str] = ()) -> Iterator[Offline]:
    """What every file of this folder, or those of some ops, lists under ``offline``."""
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        if not ops or path.stem in ops:
            yield from import_module(f"fastcodec.kernels.{path.stem}").offline()


def compile_for(one: Offline, arch: int) -> Compiled:
    """Triton's own way to machine code, then what the assembler says about it."""
    function = one.kernel.fn if hasattr(one.kernel, "configs") else one.kernel
    types = {name: one.types.get(name, "constexpr") for name in function.arg_names}
    places = {name: (i,) for i, name in enumerate(function.arg_names)}
    aligned = {places[name]: [["tt.divisibility", 16]] for name in one.aligned}
    source = ASTSource(function, types, dict(one.constants), aligned)
    made = triton.compile(source, GPUTarget("cuda", arch, 32), dict(one.options))
    text = _resources(made.asm["cubin"])
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    constants = ", ".join(f"{k}={v}" for k, v in one.constants.items())
    return Compiled(
        f"{function.__name__}({one.types[function.arg_names[0]]}, {constants})",
        arch,
        found["REG"],
        found["LOCAL"] + found["STACK"],
        made.metadata.shared,
    )


def _resources(cubin: bytes) -> str:
    """``cuobjdump -res-usage`` of a cubin; the tool comes with Triton."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory(prefix="fastcodec-") as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        run = subprocess.run(
            [str(tool), "-res-usage", str(path)], capture_output=True, text=True, check=True
        )
    return run.stdout + run.stderr


def main(ops: Sequence[str]) -> int:
    good = True
    for one in kernels(ops):
        for arch in SHARED_BYTES:
            made = compile_for(one, arch)
            good &= made.fits
            print(
                f"sm_{arch} {made.name}: {made.registers} registers, {made.spilled_bytes} bytes "
                f"spilled, {made.shared_bytes} bytes shared",
                flush=True,
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
