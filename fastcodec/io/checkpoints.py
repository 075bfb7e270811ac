"""Published checkpoints: reading them safely, their names and weight norm, loading them strictly.

Nothing in a checkpoint is ever executed (``torchfile`` says how), and what a file claims to hold is
compared with its size before anything is allocated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec.errors import WeightsError, listed, shown
from fastcodec.io import torchfile
from fastcodec.optional import require

State = dict[str, Tensor]
Source = str | os.PathLike[str] | Mapping[str, Any]

_DTYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8,
    torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
_USUAL_NAMES = ("model.safetensors", "pytorch_model.bin", "model.pth")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl", ".dev")
# Wrappers around a state dict, outermost first: audiocraft's {"xp.cfg", "best_state"}, Lightning's
# and DAC's "state_dict", audiolm-pytorch's "model"; averaged weights before the raw ones.
_WRAPPERS = ("best_state", "ema_model", "state_dict", "model")
_EMA_PREFIX = "ema_model."  # audiolm-pytorch saves an EMA wrapper: online_model.*, ema_model.*
# (g, v) of one weight: torch.nn.utils.weight_norm, and its parametrisation of torch 2.0 on
_NORM_SPELLINGS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def read_state(source: Source) -> State:
    """The tensors of a checkpoint by their own names, wrappers taken off.

    Args:
        source: path of a .safetensors file or of a torch file (.pt, .pth, .th, .bin, .ckpt), or a
            mapping of names to tensors or arrays; either may be wrapped as {"state_dict": …},
            {"model": …}, {"best_state": …}, {"ema_model": …}

    Raises:
        WeightsError: unreadable or truncated, a pickle that holds code, sizes that do not fit the
            file, or no tensors in it
        FileNotFoundError: no such file
    """
    if isinstance(source, Mapping):
        return state_of(source, "the mapping given as weights")
    path = Path(source)
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder; give one checkpoint file ({_listed(path)})")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    is_safetensors = path.suffix.lower() == ".safetensors"
    tree = _read_safetensors(path) if is_safetensors else torchfile.read(path)
    return state_of(tree, str(path))


def state_of(tree: Any, what: str) -> State:
    """The tensors of what a checkpoint held, wrappers taken off.

    Args:
        tree: anything
        what: the file, for the message

    Raises:
        WeightsError: no tensors in it, or some that are not plain: of other types than floats and
            whole numbers, sparse, or claiming more values than are stored
    """
    state = _tensors(tree, what)
    for name, tensor in state.items():
        plain = tensor.layout is torch.strided and tensor.dtype in _DTYPES and not tensor.is_meta
        stored_bytes = tensor.untyped_storage().nbytes() if plain else -1
        if tensor.numel() * tensor.element_size() > stored_bytes:
            raise WeightsError(
                f"{what}: {name} {list(tensor.shape)} is not a plain tensor with all its values"
            )
    return state


def in_folder(folder: str | os.PathLike[str]) -> Path:
    """The checkpoint in a folder: one of the usual names, or the only file of its kind.

    Raises:
        WeightsError: there is none, or there are several
    """
    folder = Path(folder)
    for name in _USUAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = [p for p in sorted(folder.iterdir()) if p.is_file() and p.suffix in _SUFFIXES]
    if len(found) != 1:
        raise WeightsError(
            f"{folder}: expected a folder with one checkpoint ({', '.join(_SUFFIXES)}), found "
            f"{len(found)}; give the file itself. In it: {_listed(folder)}"
        )
    return found[0]


def fold_weight_norm(state: Mapping[str, Tensor]) -> State:
    """The state with every weight-normed pair g, v replaced by its weight: w = v · g / ‖v‖.

    The norm runs over all dimensions but 0 and has no epsilon. It is computed by torch's own
    function, so that the weights are bit-equal to those that upstream computes in its forward.

    Raises:
        WeightsError: a g without its v or the reverse, or shapes that do not belong together
    """
    folded, lone = dict(state), []
    for g_name, v_name in _NORM_SPELLINGS:
        for name in [n for n in state if _ends(n, g_name) or _ends(n, v_name)]:
            stem = name.removesuffix(g_name).removesuffix(v_name)
            if stem + g_name not in state or stem + v_name not in state:
                lone.append(name)
            elif _ends(name, g_name):
                g, v = folded.pop(stem + g_name), folded.pop(stem + v_name)
                folded[stem + "weight"] = _normed(name, g, v)
    if lone:
        raise WeightsError(
            f"weight norm needs both g and v, but these stand alone: {', '.join(lone)}"
        )
    return folded


def rename(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str | None]]) -> State:
    """The state under new names; the tensors are the same.

    Args:
        state: tensors by name
        rules: (regular expression, replacement) in order; each is applied by ``re.sub`` to what the
            ones before it left. Replacement None drops the entries that the expression is found in

    Raises:
        WeightsError: two entries get the same name
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed: State = {}
    origin: dict[str, str] = {}
    for old, tensor in state.items():
        new = _renamed(old, compiled)
        if new is None:
            continue
        if new in renamed:
            raise WeightsError(f"both {origin[new]} and {old} of the checkpoint mean {new}")
        renamed[new], origin[new] = tensor, old
    return renamed


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    upstream: Mapping[str, str] | Callable[[str], str] | None = None,
) -> None:
    """Copies ``state`` into ``module``; all its entries must be there, and no others.

    Args:
        module: parameters and buffers that take the values
        state: tensors by the module's names
        what: what is being loaded, for the message: a path or a preset
        upstream: from the module's name to the checkpoint's own, for the message

    Raises:
        WeightsError: lists every missing, unexpected and wrongly shaped entry
    """
    spell = upstream if callable(upstream) else dict(upstream or {}).get
    own = module.state_dict()
    problems = _differences(own, state, lambda name: spell(name) or name)
    if problems:
        raise WeightsError(
            f"{what} does not fit the model, {len(problems)} entries differ (is it the checkpoint "
            f"of another preset?):\n  " + "\n  ".join(problems)
        )
    module.load_state_dict(dict(state))


def from_hub(repo_id: str, filename: str, revision: str | None = None) -> Path:
    """The local path of a file of a Hugging Face repository, downloaded once and cached.

    Args:
        repo_id: ``"owner/name"``
        filename: path inside the repository
        revision: branch, tag or commit; None is the main branch

    Raises:
        WeightsError: neither cached nor to be had, with the reason and what to do
    """
    hub = require("huggingface_hub", "weights", f"downloading {repo_id}")
    where = {"repo_id": repo_id, "filename": filename, "revision": revision}
    try:
        try:  # published weights do not change: a cached file needs no connection
            return Path(hub.hf_hub_download(**where, local_files_only=True))
        except hub.errors.LocalEntryNotFoundError:
            return Path(hub.hf_hub_download(**where))
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(
            f"{repo_id}/{filename}: not in the local cache, and downloading failed "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
            f"Without a connection, fetch the file on another machine and give its path as weights"
        ) from error


def _listed(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir() if p.is_file())[:20]) or "empty"


def _read_safetensors(path: Path) -> State:
    safetensors = require("safetensors.torch", "weights", f"reading {path.name}")
    error_type = require("safetensors", "weights", f"reading {path.name}").SafetensorError
    try:
        return dict(safetensors.load_file(path))
    except (error_type, ValueError, KeyError, RuntimeError, OSError) as error:
        raise WeightsError(f"{path}: not an intact safetensors file: {error}") from error


def _tensors(tree: Any, what: str) -> State:
    """The tensors of the innermost state dict; other values beside them are left out."""
    for _ in _WRAPPERS:  # not for ever: one may hold itself
        if isinstance(tree, Mapping):
            tree = next((tree[k] for k in _WRAPPERS if isinstance(tree.get(k), Mapping)), tree)
    entries = dict(tree) if isinstance(tree, Mapping) else {}
    state = {
        name if isinstance(name, str) else shown(name): torch.as_tensor(value).detach()
        for name, value in entries.items()
        if isinstance(value, Tensor | np.ndarray)
    }
    if not state:
        names = listed(entries) or f"a {type(tree).__name__}"
        raise WeightsError(f"{what}: no tensors found in it, only: {names}")
    averaged = {
        name.removeprefix(_EMA_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(_EMA_PREFIX)
    }
    return averaged or state


def _differences(own: State, state: Mapping[str, Tensor], spell: Callable[[str], str]) -> list[str]:
    """One line for every entry that is missing, unexpected or of another shape."""
    missing = [f"missing: {spell(n)} {list(t.shape)}" for n, t in own.items() if n not in state]
    extra = [f"unexpected: {spell(n)} {list(t.shape)}" for n, t in state.items() if n not in own]
    misshapen = [
        f"wrong shape: {spell(n)}: expected {list(t.shape)}, got {list(state[n].shape)}"
        for n, t in own.items()
        if n in state and state[n].shape != t.shape
    ]
    return missing + extra + misshapen


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _normed(name: str, g: Tensor, v: Tensor) -> Tensor:
    if v.ndim == 0 or list(g.shape) != [v.shape[0]] + [1] * (v.ndim - 1):
        raise WeightsError(
            f"weight norm over dimension 0 expected: {name} is {list(g.shape)}, v {list(v.shape)}"
        )
    if v.dtype not in (torch.float32, torch.float64):
        g, v = g.float(), v.float()
    return torch._weight_norm(v, g.to(v.dtype), 0)


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], str | None]]) -> str | None:
    for pattern, replacement in rules:
        if replacement is not None:
            name = pattern.sub(replacement, name)
        elif pattern.search(name):
            return None
    return name
