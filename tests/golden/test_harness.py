"""The harness itself, on a small set of vectors of the same form: it runs any configuration, and
fails whatever array or number of the set is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastcodec import use_backend

from .. import nets
from . import run_encodec, systems
from .cases import Case, all_cases

pytestmark = pytest.mark.usefixtures("one_thread")

FILL = """
import zlib
import numpy as np

def fill(key, shape, dtype, *, seed):
    rng = np.random.default_rng(zlib.crc32(key.encode()) + seed)
    return rng.normal(2 if key.endswith("_g") else 0, 0.2, shape).astype(dtype)
"""
SEANET = {
    "channels": 2, "dimension": 6, "n_filters": 3, "n_residual_layers": 2, "ratios": [3, 2],
    "activation": "ELU", "activation_params": {"alpha": 1.0}, "norm": "weight_norm",
    "norm_params": {}, "kernel_size": 5, "last_kernel_size": 3, "residual_kernel_size": 3,
    "dilation_base": 3, "causal": True, "pad_mode": "replicate", "true_skip": False, "compress": 1,
    "lstm": 1, "disable_norm_outer_blocks": 0, "trim_right_ratio": 1.0,
}  # fmt: skip
ENTRY: dict[str, Any] = {
    "upstream": {"name": "audiocraft", "version": "x"},
    "config": {"seanet": SEANET, "rvq": {"n_q": 3, "bins": 8}, "frame_rate": 50},
    "sample_rate": 300,
    "fill": {"seed": 5},
    "states": [{"table": "t", "prefix": "codec:"}],
    "hop": 6,
    "decoded_samples": 204,
}


@dataclass
class Vectors:
    """A set of one case, in memory until it is written."""

    entry: dict[str, Any]
    table: list[list[Any]]
    stored: dict[str, NDArray[Any]]

    def case(self, folder: Path) -> Case:
        """The case, written to files and read back."""
        (folder / "codecs").mkdir(exist_ok=True)
        (folder / "fill.py").write_text(FILL)
        manifest = {
            "default_tolerance": 1e-4,
            "state_dicts": {"t": self.table},
            "cases": {"a": self.entry},
        }
        (folder / "codecs" / "manifest.json").write_text(json.dumps(manifest))
        np.savez(folder / "codecs" / "a.npz", **self.stored)
        (case,) = all_cases(folder)
        return case

    def add(self, name: str, array: NDArray[Any], **entry: Any) -> None:
        """Store an array, and its statistics where it holds floats."""
        flat = array.reshape(-1).astype(np.float64)
        if array.dtype == np.float32:
            sums = {"sq_sum": flat @ flat, "max_abs": np.abs(flat).max(), "cos_dot": 0.0}
            entry["stats"] = {key: float(value) for key, value in sums.items()}
        shape, dtype = list(array.shape), str(array.dtype)
        self.entry["arrays"][name] = {"shape": shape, "dtype": dtype, "stored": "full", **entry}
        self.stored[name] = array


def made(folder: Path, upstream: str = "audiocraft", **seanet: Any) -> Vectors:
    """What our own reference backend gives; the harness cannot tell whose results it compares."""
    vectors = Vectors(json.loads(json.dumps(ENTRY)) | {"arrays": {}}, [], {})
    vectors.entry["config"]["seanet"] |= seanet
    vectors.entry["upstream"]["name"] = upstream
    vectors.add("input", np.random.default_rng(0).integers(-9000, 9000, (2, 200), dtype=np.int16))
    net = run_encodec.build(vectors.case(folder))
    shapes = nets.checkpoint_shapes(net)
    vectors.table += [[key, list(shape), "float32"] for key, shape in shapes.items()]
    vectors.table.append(["encoder.window", [4], "float32", "constant"])
    case = vectors.case(folder)
    net.load_weights(case.states()[0])
    with use_backend("reference"), torch.no_grad():
        latent = net.encoder(case.wav())
        codes = net.quantizer.encode(latent)
        audio = net.decode(codes)
    vectors.add("latent", latent[0].numpy())
    vectors.add("codes", codes[0].numpy().astype(np.int16))
    vectors.add("codes_margin", np.full(codes[0].shape, 0.5, np.float16), epsilon=1e-3)
    vectors.add("audio", audio[0].numpy())
    return vectors


@pytest.mark.parametrize(
    "seanet",
    [
        {},
        {"causal": False, "pad_mode": "constant", "true_skip": True},
        {"norm": "time_group_norm", "pad_mode": "reflect", "lstm": 0, "channels": 2},
        {"norm": "none", "ratios": [2, 1, 3], "n_filters": 4, "compress": 2},
    ],
)
def test_any_configuration_runs(tmp_path: Path, seanet: dict[str, Any]) -> None:
    systems.run(made(tmp_path, **seanet).case(tmp_path))


def add_to(name: str, amount: float) -> Callable[[Vectors], None]:
    def change(vectors: Vectors) -> None:
        vectors.stored[name].reshape(-1)[11] += amount

    return change


def entry(**values: Any) -> Callable[[Vectors], None]:
    return lambda vectors: vectors.entry.update(values)


def extra(vectors: Vectors) -> None:
    vectors.add("surprise", np.zeros(3, np.float32))


@pytest.mark.parametrize(
    "change, complaint",
    [
        (add_to("latent", 0.1), "latent: latent: full differs by"),
        (add_to("audio", 0.1), "audio: audio: full differs by"),
        (add_to("codes", 1), "codes.*differ without excuse"),
        (add_to("input", 3000), "latent"),
        (entry(decoded_samples=203), "audio: expected shape"),
        (entry(hop=7), "hop: expected 7, got 6"),
        (entry(fill={"seed": 6}), "latent"),
        (entry(segment_frames=[33]), "frames: expected 33, got 34"),
        (extra, "arrays that nothing compared: surprise"),
    ],
)
def test_any_change_fails(
    tmp_path: Path, change: Callable[[Vectors], None], complaint: str
) -> None:
    vectors = made(tmp_path)
    change(vectors)
    with pytest.raises(pytest.fail.Exception, match=f"(?s)codec-a:.*{complaint}"):
        systems.run(vectors.case(tmp_path))


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda v: v.entry["config"]["seanet"].update(activation="ReLU"), "with activation=ReLU"),
        (lambda v: v.entry["config"].update(renormalize=True), "with renormalize=True"),
        (lambda v: v.entry["upstream"].update(name="x"), "^x$"),
    ],
)
def test_what_is_not_built_is_said(
    tmp_path: Path, change: Callable[[Vectors], None], reason: str
) -> None:
    vectors = made(tmp_path)
    assert systems.why_not(vectors.case(tmp_path)) is None
    change(vectors)
    assert re.search(reason, systems.why_not(vectors.case(tmp_path)) or "")


@pytest.mark.parametrize(
    "upstream, config",
    [
        ("encodec", {"model": "encodec_24khz", "bandwidth_kbps": 6.0}),
        ("encodec", {"model": "encodec_48khz", "bandwidth_kbps": 6.0}),
        ("google/lyra", {"weight_files": {}}),
    ],
)
def test_these_systems_are_built(upstream: str, config: dict[str, Any], tmp_path: Path) -> None:
    entry = {"upstream": {"name": upstream}, "config": config}
    assert systems.why_not(Case("codec", "a", entry, tmp_path)) is None


def test_damaged_files_are_noticed(tmp_path: Path) -> None:
    vectors = made(tmp_path)
    vectors.add("ecdc", np.arange(9, dtype=np.uint8), crc32=1)
    with pytest.raises(AssertionError, match="ecdc"):
        vectors.case(tmp_path).arrays  # noqa: B018
