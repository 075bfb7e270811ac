"""What gets built and shipped: the wheel's guard, the native libraries, the metadata."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fastcodec

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = Path(fastcodec.__file__).parent
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
needs_x86 = pytest.mark.skipif(not ON_X86, reason="the CPU library is built on x86-64 only")


def setup_py(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=tree,
        env=os.environ | {"FASTCODEC_CUDA": "0", "MAX_JOBS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The real build files around sources that compile in no time."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    files = {
        "csrc/cpu/common.h": "#pragma once\n",
        "csrc/cpu/register.cpp": 'extern "C" int baseline() { return 1; }\n',
        "csrc/cpu/snake.cpp": '#include "common.h"\n'
        "namespace FASTCODEC_ISA_NS { int snake() { return 2; } }\n",
        "csrc/host/module.cpp": 'extern "C" void PyInit__host() {}\n',
        "fastcodec/__init__.py": "",
        "fastcodec/assets/clip.flac": "",
        "fastcodec/py.typed": "",
        "kernels/snake.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "fastcodec/kernels").symlink_to("../kernels")
    return tmp_path


@pytest.mark.parametrize("instead", ["file", "folder", "nothing"])
def test_no_wheel_where_the_link_is_not_a_link(tree: Path, instead: str) -> None:
    link = tree / "fastcodec/kernels"
    link.unlink()
    if instead == "file":
        link.write_text("../kernels")  # what a clone with core.symlinks=false makes of it
    elif instead == "folder":
        shutil.copytree(tree / "kernels", link)
    run = setup_py(tree, "bdist_wheel")
    assert run.returncode != 0
    assert "fastcodec/kernels must be a symbolic link" in run.stdout
    assert not list(tree.glob("dist/*.whl"))


@needs_x86
def test_wheel_holds_what_was_built_and_nothing_stale(tree: Path) -> None:
    (tree / "fastcodec/libfastcodec_cuda.so").touch()  # left by an earlier build with CUDA
    run = setup_py(tree, "-q", "bdist_wheel")
    assert run.returncode == 0, run.stdout
    (wheel,) = tree.glob("dist/*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("fastcodec/")}
    host = f"fastcodec/_host{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    assert names == {
        "fastcodec/__init__.py",
        "fastcodec/assets/clip.flac",
        "fastcodec/kernels/snake.py",
        "fastcodec/libfastcodec_cpu.so",
        "fastcodec/py.typed",
        host,
    }


@needs_x86
def test_build_compiles_only_what_changed(tree: Path) -> None:
    build = ("-q", "build_ext", "--inplace")
    first = setup_py(tree, *build)
    assert first.returncode == 0, first.stdout
    assert (tree / "fastcodec/libfastcodec_cpu.so").exists()
    assert "no work to do" in setup_py(tree, *build).stdout

    (tree / "csrc/cpu/common.h").write_text("#pragma once\n// changed\n")
    again = setup_py(tree, *build).stdout
    assert re.findall(r"compile .*/(\S+)", again) == [
        "snake.avx2.o",
        "snake.avx512.o",
        "snake.avx512_bf16.o",
    ]


def test_a_compiler_error_fails_the_build(tree: Path) -> None:
    (tree / "csrc/host/module.cpp").write_text("this is not C++\n")
    assert setup_py(tree, "-q", "build_ext", "--inplace").returncode != 0


@needs_x86
def test_cpu_library_depends_on_torch_by_name_alone() -> None:
    """No Python symbol, no path: one file serves every Python and every place torch lies in."""
    data = (INSTALLED / "libfastcodec_cpu.so").read_bytes()
    assert not re.search(rb"\0_?Py(?:[A-Z][a-z]+)*_\w+\0", data)
    assert b"libpython" not in data and b"libtorch_python" not in data
    torch = str(Path(importlib.metadata.distribution("torch").locate_file("torch")))
    assert torch.encode() not in data and b"$ORIGIN" not in data


@needs_x86
def test_cpu_library_leaves_denormals_alone(tmp_path: Path) -> None:
    """Linked with fast-math, a library would flush them for the whole process when it is loaded."""
    code = (
        "import sys, torch, fastcodec, numpy\n"
        "torch.ops.load_library(sys.argv[1])\n"
        "assert numpy.float64(1e-310) * 0.5 > 0 and float('1e-310') * 0.5 > 0\n"
    )
    library = str(INSTALLED / "libfastcodec_cpu.so")
    subprocess.run([sys.executable, "-c", code, library], cwd=tmp_path, check=True)


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("fastcodec")
    assert metadata["Name"] == "fastcodec"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert getattr(fastcodec, "__version__", metadata["Version"]) == metadata["Version"]
    lines = importlib.metadata.requires("fastcodec") or []
    always = {re.match(r"\w+", line)[0] for line in lines if "extra ==" not in line}  # type: ignore
    assert always == {"torch", "numpy"}
    extras = set(metadata.get_all("Provides-Extra") or [])
    assert extras >= {"audio", "weights", "hub", "lyra", "cli", "all", "test", "dev"}


def test_command_line_entry_point() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="fastcodec")
    (script,) = set(scripts)
    assert callable(script.load())


def test_types_are_announced() -> None:
    assert (INSTALLED / "py.typed").exists()


def test_hints_name_extras_that_exist() -> None:
    """Every ``pip install "fastcodec[...]"`` in a message or page names an extra that exists."""
    extras = set(importlib.metadata.metadata("fastcodec").get_all("Provides-Extra") or [])
    pages = [*ROOT.glob("*.md"), *(ROOT / "fastcodec").rglob("*.py")]
    for page in pages:
        for names in re.findall(r"fastcodec\[([a-z,]+)\]", page.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= extras, page.name
