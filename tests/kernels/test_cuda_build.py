"""Every file of csrc/cuda goes through nvcc for two GPUs, and the library links and loads."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import setuptools

from fastcodec._native import schema_drift
from fastcodec.ops._op import _schemas

from ..conftest import ROOT

ARCHS = ("80", "90a")


@pytest.fixture(scope="module")
def setup_py() -> ModuleType:
    """setup.py without what it does when run: the flags are those of the build."""
    spec = importlib.util.spec_from_file_location("fastcodec_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **_: None)
        patch.setenv("FASTCODEC_CUDA", "0")
        spec.loader.exec_module(module)
    if module.find_nvcc() is None:
        pytest.skip("nvcc is not installed")
    return module


def kernels_of(report: str) -> dict[tuple[str, str], dict[str, int]]:
    """(kernel, GPU) -> registers and bytes of stack and spills, from ptxas's report."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for part in report.split("Compiling entry function ")[1:]:
        names = re.match(r"'(\S+)' for '(\S+)'", part)
        spilled = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        registers = re.search(r"Used (\d+) registers", part)
        assert names and spilled and registers, part
        stack, stores, loads = map(int, spilled.groups())
        found[names[1], names[2]] = {
            "registers": int(registers[1]),
            "stack": stack,
            "spilled": stores + loads,
        }
    return found


def test_compiles_without_spills_and_links(
    setup_py: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCODEC_CUDA_ARCHS", ";".join(ARCHS))
    library = setup_py.cuda_library()
    objects, spilling = [], []
    for stem, source, flags in library.objects:
        objects.append(tmp_path / f"{stem}.o")
        command = [*library.compiler, *flags, "-Xptxas", "-v", "-c", source, "-o", objects[-1]]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        kernels = kernels_of(run.stderr)
        per_gpu = [{name for name, gpu in kernels if gpu == f"sm_{arch}"} for arch in ARCHS]
        if source.suffix == ".cu":
            assert per_gpu[0] == per_gpu[1] != set()
        for (name, gpu), what in kernels.items():
            print(source.name, gpu, name, what)
            if what["spilled"] or what["stack"]:
                spilling.append((source.name, gpu, name, what))
    assert not spilling
    built = tmp_path / "libfastcodec_cuda.so"
    subprocess.run(
        [*library.compiler, "-shared", *objects, "-o", built, *library.link], cwd=ROOT, check=True
    )
    schemas, registered = loaded(built, tmp_path)
    assert schema_drift(schemas, _schemas) is None, schema_drift(schemas, _schemas)
    assert registered == {line.split("(")[0] for line in schemas.splitlines()}


# In a process of its own: what it registers stays. The one symbol that the CPU build of torch lacks
# gets a stand-in; ctypes binds all others at once, or fails.
LOAD = """
import ctypes, sys, torch
from fastcodec.ops._op import _schemas

ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
library = ctypes.CDLL(sys.argv[2])
library.fastcodec_schemas.restype = ctypes.c_char_p
has = torch._C._dispatch_has_kernel_for_dispatch_key
print(*(name for name in _schemas if has(f"fastcodec::{name}", "CUDA")))
print(library.fastcodec_schemas().decode(), end="")
"""


def loaded(library: Path, folder: Path) -> tuple[str, set[str]]:
    """(schemas that it was written for, ops that it registers)."""
    source, stand_in = folder / "stream.c", folder / "stream.so"
    source.write_text("int aoti_torch_get_current_cuda_stream(int d, void** s) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", stand_in], check=True)
    run = subprocess.run(
        [sys.executable, "-c", LOAD, stand_in, library], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    names, schemas = run.stdout.split("\n", 1)
    return schemas, set(names.split())
