"""Checkpoints: safe to open, unwrapped, weight norm folded as torch does, loaded strictly."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints

STATE = {"a.weight": torch.arange(20.0).view(4, 5), "b": torch.tensor([1, 2, 3])}


class _Evil:
    """Unpickling it creates the file ``path``: the usual shape of an attack."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _same(state: dict[str, torch.Tensor]) -> bool:
    return list(state) == list(STATE) and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("suffix", [".pt", ".th", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    assert _same(checkpoints.read_state(path)) and _same(checkpoints.read_state(str(path)))


def test_safetensors(tmp_path: Path) -> None:
    import safetensors.torch as safetensors

    safetensors.save_file(STATE, tmp_path / "w.safetensors")
    state = checkpoints.read_state(tmp_path / "w.safetensors")
    assert _same(dict(sorted(state.items())))
    data = (tmp_path / "w.safetensors").read_bytes()
    for bad in (b"", data[:50], data[:-1], struct.pack("<Q", 1 << 60) + data[8:]):
        (tmp_path / "w.safetensors").write_bytes(bad)
        with pytest.raises(WeightsError, match=r"w\.safetensors"):
            checkpoints.read_state(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "wrapped",
    [
        {"xp.cfg": "seed: 1\n", "best_state": STATE},
        {"best_state": {"model": STATE}, "model": {"raw": torch.ones(1)}},
        {"state_dict": OrderedDict(STATE), "metadata": {"kwargs": {"rate": 2}}},
        {"model": STATE, "config": b"\x80\x04", "version": "1.0"},
        {"ema_model": STATE, "model": {"raw": torch.ones(1)}},
        {f"ema_model.{k}": v for k, v in STATE.items()} | {"online_model.b": torch.ones(1)},
        {**STATE, "step": 3, "name": "x"},
    ],
)
def test_wrappers(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    assert _same(checkpoints.read_state(wrapped))
    torch.save(wrapped, tmp_path / "w.pt")
    assert _same(checkpoints.read_state(tmp_path / "w.pt"))


def test_mapping_of_arrays() -> None:
    assert _same(checkpoints.read_state({k: v.numpy() for k, v in STATE.items()}))


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "was-here"
    content = {"state_dict": STATE, "optimizer": _Evil(trace)}
    if form == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match="refused|never opened") as caught:
        checkpoints.read_state(path)
    assert "evil.pt" in str(caught.value) and "weights_only" not in str(caught.value)
    assert form == "bare" or "mkdir" in str(caught.value)
    assert not trace.exists()
    if form != "bare":  # the trap itself works
        torch.load(path, weights_only=False)
        assert trace.exists()


def _repacked(path: Path, old: bytes, new: bytes, kind: int = zipfile.ZIP_STORED) -> None:
    """Rewrites a checkpoint with ``old`` in its pickle replaced by ``new``."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            assert old in content or not name.endswith("data.pkl")
            archive.writestr(name, content.replace(old, new, 1))


HUGE = b"J" + struct.pack("<i", 2_000_000_000)


@pytest.mark.parametrize(
    "old, new",
    [(b"K\x14", HUGE), (b"K\x04K\x05\x86", HUGE + b"K\x05\x86")],
    ids=["storage", "shape"],
)
def test_a_tensor_that_claims_more_than_the_file(tmp_path: Path, old: bytes, new: bytes) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    _repacked(tmp_path / "w.pt", old, new)
    with pytest.raises(WeightsError, match=r"w\.pt"):
        checkpoints.read_state(tmp_path / "w.pt")


def test_a_legacy_tensor_that_claims_more_than_the_file(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(data.replace(b"K\x14", HUGE, 1))
    with pytest.raises(WeightsError, match="claims 2000000000"):
        checkpoints.read_state(tmp_path / "w.pt")


def test_zip_bomb_and_expanded_tensor(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 22)}, tmp_path / "w.pt")
    _repacked(tmp_path / "w.pt", b"", b"", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "w.pt").stat().st_size < 1 << 16
    with pytest.raises(WeightsError, match="claims"):
        checkpoints.read_state(tmp_path / "w.pt")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="all its values"):
        checkpoints.read_state(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_torch_files(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    cuts = [data[: len(data) * i // 16] for i in range(16)]
    rng = np.random.default_rng(0)
    for bad in [*cuts, b"text", *(_flipped(data, rng) for _ in range(300))]:
        path.write_bytes(bad)
        try:  # a flipped bit in a value is still a checkpoint; anything else must say so
            checkpoints.read_state(path)
            assert len(bad) == len(data)
        except WeightsError as error:
            assert "w.pt" in str(error)


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    bad = bytearray(data)
    bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
    return bytes(bad)


def test_what_is_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        checkpoints.read_state(tmp_path / "gone.pt")
    (tmp_path / "w.pt").touch()
    with pytest.raises(WeightsError, match=r"is a folder.*w\.pt"):
        checkpoints.read_state(tmp_path)
    with pytest.raises(WeightsError, match="no tensors found in it, only: epoch, name"):
        checkpoints.read_state({"epoch": 1, "name": "x"})
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="a list"):
        checkpoints.read_state(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("arguments", [(6, 10, 7), (1, 1, 1)])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.parametrize("new_spelling", [True, False])
def test_weight_norm_is_folded_to_the_bits_of_torch(
    kind: type[nn.Module], arguments: tuple[int, int, int], new_spelling: bool
) -> None:
    norm = nn.utils.parametrizations.weight_norm if new_spelling else nn.utils.weight_norm
    normed = norm(kind(*arguments))
    for p in normed.parameters():
        nn.init.normal_(p)
    x = torch.randn(2, arguments[0], 20)
    expected = normed(x)  # the old form computes its weight in forward
    folded = checkpoints.fold_weight_norm(nn.Sequential(normed).state_dict())
    assert sorted(folded) == ["0.bias", "0.weight"]
    assert torch.equal(folded["0.weight"], normed.weight)
    plain = nn.Sequential(kind(*arguments))
    plain.load_state_dict(folded)
    assert torch.equal(plain(x), expected)


def test_weight_norm_at_the_root_and_what_is_not_weight_norm() -> None:
    g, v = torch.full((2, 1), 5.0), torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    folded = checkpoints.fold_weight_norm({"weight_g": g, "weight_v": v, "my_weight_g": g})
    assert folded["weight"].tolist() == [[3.0, 4.0], [0.0, 5.0]]
    assert sorted(folded) == ["my_weight_g", "weight"]


def test_weight_norm_halves() -> None:
    state = {"a.weight_g": torch.ones(2, 1), "b.parametrizations.weight.original1": torch.ones(2)}
    with pytest.raises(WeightsError) as caught:
        checkpoints.fold_weight_norm(state)
    assert all(name in str(caught.value) for name in state)
    with pytest.raises(WeightsError, match=r"a\.weight_g is \[2, 1\]"):
        checkpoints.fold_weight_norm(
            {"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.ones(3, 2)}
        )


def test_rename_applies_the_rules_in_order() -> None:
    rules = [
        (r"\._codebook\.(inited|cluster_size|embed_avg)$", None),
        (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.embed$", r"codebooks.\1"),
        (r"^codebooks\.", "rvq."),
        (r"\.conv\.conv\.", ".conv."),
    ]
    names = {
        "encoder.model.0.conv.conv.weight": "encoder.model.0.conv.weight",
        "quantizer.vq.layers.11._codebook.embed": "rvq.11",
        "quantizer.vq.layers.11._codebook.inited": None,
    }
    state = {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    renamed = checkpoints.rename(state, rules)
    assert {new: state[old] for old, new in names.items() if new} == renamed
    with pytest.raises(WeightsError, match="both a1 and a2 of the checkpoint mean a"):
        checkpoints.rename({"a1": torch.ones(1), "a2": torch.ones(1)}, [(r"\d", "")])


def test_strict_loading_lists_everything_that_is_wrong() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    good = {name: torch.randn(t.shape) for name, t in module.state_dict().items()}
    checkpoints.load_strict(module, good, "w.pt")
    loaded = module.state_dict()
    assert torch.equal(loaded["0.weight"], good["0.weight"])
    assert torch.equal(loaded["1.running_var"], good["1.running_var"])

    bad = {**good, "0.bias": torch.ones(4), "x.y": torch.ones(1), "x.z": torch.ones(2)}
    del bad["0.weight"], bad["1.running_mean"]
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        checkpoints.load_strict(module, bad, "w.pt", upstream={"0.weight": "lin.conv.weight_v"})
    assert str(caught.value).splitlines()[1:] == [
        "  missing: lin.conv.weight_v [3, 2]",
        "  missing: 1.running_mean [3]",
        "  unexpected: x.y [1]",
        "  unexpected: x.z [2]",
        "  wrong shape: 0.bias: expected [3], got [4]",
    ]
    assert "w.pt does not fit the model, 5 entries differ" in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    with pytest.raises(WeightsError, match=r"missing: up\.1\.running_mean"):
        checkpoints.load_strict(module, bad, "w.pt", upstream=lambda name: f"up.{name}")


def test_hub_file_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub as hub

    calls = []

    def download(**where: Any) -> str:
        calls.append(where)
        if where.get("local_files_only"):
            raise hub.errors.LocalEntryNotFoundError("not cached")
        return str(tmp_path / "x.bin")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert checkpoints.from_hub("me/net", "x.bin", "v1") == tmp_path / "x.bin"
    where = {"repo_id": "me/net", "filename": "x.bin", "revision": "v1"}
    assert calls == [{**where, "local_files_only": True}, where]


def test_hub_without_connection_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from fastcodec.io.checkpoints import from_hub\n"
        "try: from_hub('me/net', 'x.bin')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True)
    assert run.stdout.startswith("WeightsError me/net/x.bin: not in the local cache"), run
    assert "give its path as weights" in run.stdout
