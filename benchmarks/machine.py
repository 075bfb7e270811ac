"""What a row says about where and with what it was measured."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastcodec
from fastcodec import _native

ROOT = Path(__file__).resolve().parents[1]


@cache
def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, instruction set of our kernels, memory."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _brand(),
        "cores": len(os.sched_getaffinity(0)),
        "isa": _native.cpu_isa or "reference",
        "ram_gb": round(ram / 1e9, 1),
    }


@cache
def fastcodec_version() -> str:
    """The version, and the commit where this is a git checkout."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return fastcodec.__version__
    return f"{fastcodec.__version__}+{commit}"


def package(name: str) -> str:
    """``"name version"`` of an installed package."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


def slug() -> str:
    """A file name for this machine's rows, such as ``amd_epyc_2c_avx512``."""
    facts = machine()
    text = f"{facts['cpu']} {facts['cores']}c {facts['isa']}"
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def shared(*parts: str) -> Path:
    """A path in the folder of test data, which is no part of the repository."""
    return Path(os.environ.get("FASTCODEC_SHARED", ROOT.parent / "shared")).joinpath(*parts)


def _brand() -> str:
    try:
        from fastcodec import _host

        if brand := _host.cpu_report()["brand"]:
            return str(brand).strip()
    except ImportError:
        pass
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else "unknown"
