"""How the CUDA kernels are launched: csrc/cuda/plan.cpp, which calls nothing of CUDA."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest

from fastcodec.ops.rvq_encode import CUDA_FEATURES

from ..conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

# Bytes of shared memory that a block may have: CUDA programming guide, technical specifications.
SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
CLUSTERS = (90, 100)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("plan") / "plan.so"
    flags = ["-std=c++17", "-shared", "-fPIC", f"-I{ROOT}/tests/kernels/emulated", f"-I{ROOT}/csrc"]
    subprocess.run(["g++", *flags, ROOT / "csrc/cuda/plan.cpp", "-o", library], check=True)
    return ctypes.CDLL(str(library))


def plan(plans: ctypes.CDLL, op: str, fields: str, *sizes: int) -> dict[str, int] | None:
    names = ["blocks", "threads", "cluster", "shared", *fields.split()]
    out = (ctypes.c_int64 * len(names))()
    *longs, last = sizes  # the last is an int
    found = getattr(plans, f"fastcodec_{op}_launch")(*map(ctypes.c_int64, longs), last, out)
    return dict(zip(names, out, strict=True)) if found else None


def encode(plans: ctypes.CDLL, rows: int, words: int, d: int, capability: int) -> dict[str, int]:
    found = plan(plans, "rvq_encode", "rows words stride", rows, words, d, capability)
    assert found is not None
    return found


def test_rvq_encode_on_an_h200(plans: ctypes.CDLL) -> None:
    """The rows of 10 s of EnCodec fill 16 clusters, one wave; a block holds its share."""
    p = encode(plans, 750, 1024, 128, 90)
    assert (p["cluster"], p["rows"], p["blocks"]) == (8, 48, 128)
    assert (p["words"], p["threads"], p["stride"]) == (128, 256, 144)
    # two buffers of the codebook and the residual, and less than 12 kB besides
    floats = 4 * 144 * (2 * 128 + 48)
    assert floats < p["shared"] < floats + 12 * 1024


@pytest.mark.parametrize("capability", SHARED)
@pytest.mark.parametrize("d", [1, 8, 33, 128, 256, CUDA_FEATURES])
def test_rvq_encode_fits_every_gpu(plans: ctypes.CDLL, capability: int, d: int) -> None:
    for rows in (1, 17, 750, 10**7):
        for words in (1, 2, 100, 127, 128, 1024, 1025, 1 << 20):
            p = encode(plans, rows, words, d, capability)
            assert p["shared"] <= 1024 * SHARED[capability]
            assert p["cluster"] == (8 if capability in CLUSTERS and words >= 128 else 1)
            assert p["rows"] in (16, 32, 48, 64) and p["threads"] == 2 * p["words"]
            assert p["words"] in (16, 32, 64, 128)
            assert p["stride"] >= d and p["stride"] % 32 == 16
            clusters = p["blocks"] // p["cluster"]
            assert p["blocks"] % p["cluster"] == 0
            assert (clusters - 1) * p["rows"] < rows <= clusters * p["rows"]


def test_rvq_encode_says_what_it_cannot(plans: ctypes.CDLL) -> None:
    assert plan(plans, "rvq_encode", "rows words stride", 5, 64, CUDA_FEATURES + 1, 86) is None
    assert plan(plans, "rvq_encode", "rows words stride", 5, 64, 2000, 90) is None


def lstm(plans: ctypes.CDLL, batch: int, hidden: int, capability: int) -> dict[str, int]:
    found = plan(plans, "lstm", "persistent rows units", batch, hidden, capability)
    assert found is not None
    return found


def test_lstm_of_512_units_stays_on_the_chip_of_an_h200(plans: ctypes.CDLL) -> None:
    for batch, rows, clusters in ((1, 1, 1), (8, 1, 8), (16, 2, 8), (32, 4, 8), (33, 4, 9)):
        p = lstm(plans, batch, 512, 90)
        assert p["persistent"] and (p["cluster"], p["units"], p["threads"]) == (16, 32, 512)
        assert p["rows"] == rows and p["blocks"] == 16 * clusters
        assert p["shared"] <= 227 * 1024


@pytest.mark.parametrize("capability", SHARED)
def test_lstm_covers_all_units_and_rows(plans: ctypes.CDLL, capability: int) -> None:
    for batch in (1, 2, 9, 17, 100):
        for hidden in (1, 13, 32, 33, 256, 512, 513, 1024):
            p = lstm(plans, batch, hidden, capability)
            row_blocks = -(-batch // p["rows"])
            unit_blocks = p["blocks"] // row_blocks
            assert p["blocks"] == unit_blocks * row_blocks
            assert unit_blocks * p["units"] >= hidden > (unit_blocks - 1) * p["units"] - unit_blocks
            assert p["threads"] >= 16 * p["units"] and p["threads"] % 32 == 0
            assert p["shared"] <= 1024 * SHARED[capability]
            if p["persistent"]:
                assert unit_blocks == p["cluster"] and p["threads"] <= 512
            else:
                assert p["cluster"] == 1 and (hidden > 512 or capability not in CLUSTERS)


def test_snake(plans: ctypes.CDLL) -> None:
    def one(count: int, channels: int, inner: int, aligned: int) -> tuple[int, int]:
        p = plan(plans, "snake", "vector", count, channels, inner, aligned)
        assert p is not None and p["threads"] == 256 and p["cluster"] == 1
        return p["vector"], p["blocks"]

    assert one(96 * 441000, 96, 441000, 1) == (4, 96 * 441000 // 4096 + 1)
    assert one(96 * 441000, 96, 441000, 0)[0] == 1
    assert one(96 * 441001, 96, 441001, 1)[0] == 1  # a vector would span two channels
    assert one(96 * 441001, 96, 1, 1)[0] == 4
    assert one(95 * 441000, 95, 1, 1)[0] == 1
    assert one(1 << 40, 64, 1, 1)[1] == 1 << 16
