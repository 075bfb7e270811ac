"""Builds the native parts; everything else about the package is in pyproject.toml.

csrc/cpu  -> fastcodec/libfastcodec_cpu.so   torch ops, libtorch stable ABI, no Python symbols
csrc/cuda -> fastcodec/libfastcodec_cuda.so  the same for NVIDIA GPUs, one fat binary
csrc/host -> fastcodec/_host.*.so            byte-level work, pybind11, no torch

Setuptools decides where the files go; a ninja file written here decides what is compiled again.

Environment: ``FASTCODEC_CUDA`` = 0 | 1 | auto (default: when nvcc is there and torch is a CUDA
build) · ``FASTCODEC_CUDA_ARCHS`` · ``CUDA_HOME`` · ``CXX``, ``CXXFLAGS``, ``LDFLAGS`` ·
``MAX_JOBS``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH_FLOOR = (2, 10)
SHARED = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Icsrc"]

# Every csrc/cpu/<op>.cpp is compiled once a row. Rising order matters: the linker keeps the first
# copy of an inline function that several objects share, so that one must be the least demanding.
ISAS = {
    "avx2": ["-mavx2", "-mfma", "-mbmi2"],
    # gcc 12 and 13 take the undefined operand inside their own avx512fintrin.h for a mistake.
    "avx512": [
        *["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
        "-Wno-maybe-uninitialized",
    ],
}
ISAS["avx512_bf16"] = [*ISAS["avx512"], "-mavx512bf16"]
# Stems compiled once, without -m flags: they run before the choice.
GLUE = (
    "glue_attention",
    "glue_conv",
    "glue_lstm",
    "glue_norm",
    "glue_pointwise",
    "glue_rvq",
    "glue_plan",
)
ISA_FREE = ("register", "isa", *GLUE)
CUDA_ARCHS = "80;86;89;90a;100;120"


def torch_dir() -> Path:
    """Folder of the installed torch; found without importing it, which would take seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "fastcodec: torch is needed to build (headers and libtorch_cpu.so); install it first "
            "and build with `pip install --no-build-isolation .`"
        )
    version = importlib.metadata.version("torch")
    if tuple(int(part) for part in version.split(".")[:2]) < TORCH_FLOOR:
        floor = ".".join(map(str, TORCH_FLOOR))
        raise SystemExit(f"fastcodec: expected torch >= {floor}, got {version}")
    return Path(spec.submodule_search_locations[0])


def find_nvcc() -> str | None:
    """Path of nvcc, from ``CUDA_HOME`` or ``PATH``."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")


def wants_cuda() -> bool:
    """Whether to build csrc/cuda, by ``FASTCODEC_CUDA``; says why where the answer is no."""
    choice = os.environ.get("FASTCODEC_CUDA", "auto")
    if choice not in ("0", "1", "auto"):
        raise SystemExit(f"fastcodec: FASTCODEC_CUDA must be 0, 1 or auto, got {choice!r}")
    reason = ""
    if choice == "0":
        reason = "FASTCODEC_CUDA=0"
    elif not any((ROOT / "csrc/cuda").glob("*.cu")):
        reason = "csrc/cuda has no .cu file"
    elif find_nvcc() is None:
        if choice == "1":
            raise SystemExit("fastcodec: FASTCODEC_CUDA=1 needs nvcc; set CUDA_HOME or PATH")
        reason = "nvcc was not found"
    elif choice == "auto" and runpy.run_path(str(torch_dir() / "version.py"))["cuda"] is None:
        reason = "this torch is a CPU build (FASTCODEC_CUDA=1 builds it all the same)"
    if reason:
        print(f"fastcodec: no CUDA library: {reason}")
    return not reason


@dataclass
class Library:
    """One shared library: what is compiled into it, and how it is linked."""

    objects: list[tuple[str, Path, list[str]]] = field(default_factory=list)  # stem, source, flags
    compiler: list[str] = field(default_factory=list)
    link: list[str] = field(default_factory=list)


def sources(folder: str, *suffixes: str) -> list[Path]:
    """The source files of ``folder``, relative to the repository, in a fixed order."""
    found = sorted(p for p in (ROOT / "csrc" / folder).glob("*.c*") if p.suffix in suffixes)
    if not found:
        raise SystemExit(f"fastcodec: csrc/{folder} holds no {' or '.join(suffixes)} file")
    return [path.relative_to(ROOT) for path in found]


def host_compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "g++"))


def cpu_library() -> Library:
    """libfastcodec_cpu: every op once per instruction set."""
    base = [*SHARED, "-O3", "-fno-math-errno", *torch_headers()]
    paths = sources("cpu", ".cpp")
    objects = [(p.stem, p, base) for p in paths if p.stem in ISA_FREE]
    for isa, flags in ISAS.items():
        variant = [*base, f"-DFASTCODEC_ISA_NS={isa}", *flags]
        objects += [(f"{p.stem}.{isa}", p, variant) for p in paths if p.stem not in ISA_FREE]
    return Library(objects, host_compiler(), link_torch("torch_cpu"))


def cuda_library() -> Library:
    """libfastcodec_cuda: machine code for each listed GPU generation, PTX for later ones."""
    archs = os.environ.get("FASTCODEC_CUDA_ARCHS", CUDA_ARCHS).replace(",", ";").split(";")
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    portable = [a for a in archs if a.isdigit()]  # PTX of an "a" architecture runs nowhere else
    if portable:
        newest = max(portable, key=int)
        codes.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    host = [flag for flag in [*SHARED, *torch_headers()] if flag.startswith("-f")]
    flags = [flag for flag in [*SHARED, *torch_headers()] if not flag.startswith(("-f", "-W"))]
    flags += ["-O3", "-DUSE_CUDA", *codes, "-Xcompiler", ",".join(host)]
    objects = [(p.name, p, flags) for p in sources("cuda", ".cu", ".cpp")]
    # libtorch.so, not libtorch_cuda.so: a CPU build of torch has the first only, and the first
    # brings in the second where it exists.
    nvcc = find_nvcc()
    assert nvcc is not None
    return Library(objects, [nvcc], [*codes, *link_torch("torch")])


def host_library() -> Library:
    """_host: a Python module. No contraction: the entropy model gives the same bits everywhere."""
    pybind11 = importlib.util.find_spec("pybind11")
    if pybind11 is None or not pybind11.submodule_search_locations:
        raise SystemExit("fastcodec: pybind11 is needed to build; `pip install pybind11`")
    includes = [f"{pybind11.submodule_search_locations[0]}/include", sysconfig.get_path("include")]
    flags = [*SHARED, "-O2", "-ffp-contract=off"]
    for folder in includes:
        flags += ["-isystem", folder]
    return Library([(p.stem, p, flags) for p in sources("host", ".cpp")], host_compiler())


def torch_headers() -> list[str]:
    """Flags for the stable ABI; the map keeps the headers' own path out of the error messages."""
    folder = f"{torch_dir()}/include"
    version = f"-DTORCH_TARGET_VERSION=0x{TORCH_FLOOR[0]:02x}{TORCH_FLOOR[1]:02x}000000000000"
    return [version, f"-ffile-prefix-map={folder}/=", "-isystem", folder]


def link_torch(name: str) -> list[str]:
    """Records the need for torch's library by name, without a path: torch is imported before."""
    return [f"-L{torch_dir()}/lib", "-Xlinker", "--no-as-needed", f"-l{name}"]


def ninja_lines(libraries: dict[str, Library], folder: Path) -> Iterator[str]:
    """The build file: ``libraries`` maps a file name to what it is made of."""

    def words(arguments: list[str]) -> str:
        return shlex.join(arguments).replace("$", "$$")

    yield f"builddir = {folder}\n"
    yield "rule compile\n  command = $tool $flags -MMD -MF $out.d -c $in -o $out\n"
    yield "  depfile = $out.d\n  deps = gcc\n  description = compile $out\n"
    yield "rule link\n  command = $tool -shared $in -o $out $flags\n  description = link $out\n"
    cxx_flags = shlex.split(os.environ.get("CXXFLAGS", ""))
    ld_flags = shlex.split(os.environ.get("LDFLAGS", ""))
    for name, library in libraries.items():
        outputs = []
        for stem, source, flags in library.objects:
            outputs.append(f"{folder}/{source.parent.name}/{stem}.o")
            yield f"build {outputs[-1]}: compile {source}\n"
            extra = cxx_flags if source.suffix == ".cpp" else []
            yield f"  tool = {words(library.compiler)}\n  flags = {words([*flags, *extra])}\n"
        yield f"build {folder}/{name}: link {' '.join(outputs)}\n"
        yield f"  tool = {words(library.compiler)}\n  flags = {words([*library.link, *ld_flags])}\n"


class BuildNative(build_ext):
    """Compiles with ninja into build/native, then hands the files to setuptools."""

    def get_ext_filename(self, fullname: str) -> str:
        if fullname.rpartition(".")[2].startswith("lib"):  # a plain library, not a Python module
            return fullname.replace(".", "/") + ".so"
        return str(super().get_ext_filename(fullname))

    def run(self) -> None:
        refuse_broken_link()
        makers = {"libfastcodec_cpu": cpu_library, "libfastcodec_cuda": cuda_library}
        libraries = {}
        for extension in self.extensions:
            maker = makers.get(extension.name.rpartition(".")[2], host_library)
            libraries[Path(self.get_ext_filename(extension.name)).name] = maker()
        # The name holds what the objects depend on and no file's date shows.
        torch_version = importlib.metadata.version("torch")
        self.folder = Path("build/native") / f"{sys.implementation.cache_tag}-torch-{torch_version}"
        self.run_ninja(libraries)
        super().run()

    def run_ninja(self, libraries: dict[str, Library]) -> None:
        (ROOT / self.folder).mkdir(parents=True, exist_ok=True)
        build_file = ROOT / self.folder / "build.ninja"
        build_file.write_text("".join(ninja_lines(libraries, self.folder)))
        in_python = importlib.util.find_spec("ninja") is not None
        command = [sys.executable, "-m", "ninja"] if in_python else ["ninja"]
        if jobs := os.environ.get("MAX_JOBS"):
            command += ["-j", jobs]
        subprocess.run([*command, "-f", str(build_file.relative_to(ROOT))], cwd=ROOT, check=True)

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / self.folder / target.name, target)


def refuse_broken_link() -> None:
    """A clone without symlinks has a text file there, and would give a wheel without kernels."""
    link = ROOT / "fastcodec/kernels"
    unpacked_sdist = (ROOT / "PKG-INFO").exists() and link.is_dir()
    if not link.is_symlink() and not unpacked_sdist:
        raise SystemExit(
            "fastcodec: fastcodec/kernels must be a symbolic link to ../kernels, got a plain file "
            "or folder; clone again with `git clone -c core.symlinks=true`"
        )


def extensions() -> list[Extension]:
    names = ["_host"]
    if re.fullmatch("x86_64|amd64", platform.machine().lower()):
        names.append("libfastcodec_cpu")
    else:
        print(f"fastcodec: no CPU library: there is none for {platform.machine()} yet")
    if wants_cuda():
        names.append("libfastcodec_cuda")
    return [Extension(f"fastcodec.{name}", []) for name in names]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative}, zip_safe=False)
