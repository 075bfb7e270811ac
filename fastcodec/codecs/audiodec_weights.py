"""AudioDec's checkpoints: a codec's parts come from two files or three.

Weights are one of

    the path of a file that holds all parts of an autoencoder, or its state dict;
    the folder that upstream's exp.zip makes, or the one above it, with
        {autoencoder,denoise,vocoder}/<tag>/checkpoint-<steps>steps.pkl;
    {"encoder": ..., "decoder": ...}, each a path or a state dict. The encoder's file gives the
        codebooks, too; the decoder's is the vocoder's where the codec has one. A third, "stats",
        is what a vocoder normalises by, where not its own: the path of a .npy file, or an array,
        [2, D].

Steps and pairs as utils/audiodec.py@e451e625 names them: upstream trains encoder and codebooks
first, and the decoder alone after that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints, torchfile
from fastcodec.io.checkpoints import Source, State, read_state

ROLES = ("encoder", "decoder", "stats")
_LIBRITTS = "autoencoder/symAD_libritts_24000_hop300"
_VCTK = "autoencoder/symAD_vctk_48000_hop300"
_UNIV = "autoencoder/symADuniv_vctk_48000_hop300"
_ACTIVATE = "autoencoder/symAAD_vctk_48000_hop300"
_C16 = "autoencoder/symAD_c16_vctk_48000_hop320"
_DENOISE = "denoise/symAD_vctk_48000_hop300"
_VOCODER = "vocoder/AudioDec_{}_hop300_clean"

# preset: (encoder's folder, steps / 1000, decoder's folder, steps / 1000)
_FILES = {
    "audiodec_24khz_libritts": (_LIBRITTS, 1000, _LIBRITTS, 1000),
    "audiodec_48khz_vctk": (_VCTK, 700, _VCTK, 700),
    "audiodec_48khz_univ": (_UNIV, 1000, _UNIV, 1000),
    "audiodec_48khz_activate": (_ACTIVATE, 700, _ACTIVATE, 700),
    "audiodec_48khz_c16": (_C16, 1000, _C16, 1000),
    "audiodec_48khz_denoise": (_DENOISE, 200, _DENOISE, 200),
    "audiodec_libritts_v1": (_LIBRITTS, 500, _VOCODER.format("v1_symAD_libritts_24000"), 500),
    "audiodec_libritts_sym": (_LIBRITTS, 500, _LIBRITTS, 1000),
    "audiodec_vctk_v0": (_VCTK, 200, _VOCODER.format("v0_symAD_vctk_48000"), 500),
    "audiodec_vctk_v1": (_VCTK, 200, _VOCODER.format("v1_symAD_vctk_48000"), 500),
    "audiodec_vctk_v2": (_VCTK, 200, _VOCODER.format("v2_symAD_vctk_48000"), 500),
    "audiodec_vctk_sym": (_VCTK, 200, _VCTK, 700),
    "audiodec_vctk_denoise": (_DENOISE, 200, _VOCODER.format("v1_symAD_vctk_48000"), 500),
    "audiodec_vctk_univ": (_UNIV, 500, _VOCODER.format("v3_symADuniv_vctk_48000"), 500),
    "audiodec_vctk_univ_sym": (_UNIV, 500, _UNIV, 1000),
    "audiodec_vctk_activate_sym": (_ACTIVATE, 200, _ACTIVATE, 700),
    "audiodec_vctk_c16h320_sym": (_C16, 500, _C16, 1000),
}


def read(source: Source, name: str, vocoder: bool) -> State:
    """The entries of all parts of a codec, under upstream's names.

    Args:
        source: as above
        name: the preset, which files of a folder are its own
        vocoder: the codec has one

    Raises:
        WeightsError: a file is missing, unreadable or unsafe, or a part is not given
    """
    if isinstance(source, Mapping) and set(source) & set(ROLES):
        parts = dict(source)
    elif not isinstance(source, Mapping) and Path(source).is_dir():
        encoder, decoder = files(Path(source), name)
        parts = {"encoder": encoder} | ({"decoder": decoder} if decoder != encoder else {})
    else:
        parts = {"encoder": source}
    if unknown := set(parts) - set(ROLES if vocoder else ROLES[:2]):
        raise WeightsError(f"{name}: weights have no part {', '.join(map(str, unknown))}")
    state = _joined(parts) if "encoder" in parts else {}
    whole = "decoder" in parts or not vocoder or any(n.startswith("input_conv.") for n in state)
    if not state or not whole:
        kind = "vocoder" if vocoder else "decoder"
        raise WeightsError(
            f"{name}: its encoder and its {kind} come from two checkpoints; give the folder that "
            f'upstream\'s exp.zip makes, or {{"encoder": path, "decoder": path of the {kind}\'s}}'
        )
    return state


def files(folder: Path, name: str) -> tuple[Path, Path]:
    """The encoder's and the decoder's checkpoint of a preset in upstream's folder."""
    if name not in _FILES:
        raise WeightsError(
            f"{folder}: is a folder, and {name} is no preset whose files are known; give "
            f'{{"encoder": path, "decoder": path}}'
        )
    encoder, encoder_steps, decoder, decoder_steps = _FILES[name]
    root = folder / "exp" if (folder / "exp").is_dir() else folder
    paths = (
        root / encoder / f"checkpoint-{encoder_steps}000steps.pkl",
        root / decoder / f"checkpoint-{decoder_steps}000steps.pkl",
    )
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise WeightsError(
            f"{name}: missing {' and '.join(dict.fromkeys(missing))}. Give the folder that "
            f'upstream\'s exp.zip makes, or {{"encoder": path, "decoder": path}}'
        )
    return paths


def _joined(parts: Mapping[str, Any]) -> State:
    encoder = _generator(parts["encoder"])
    if "decoder" not in parts:
        return encoder
    decoder = _generator(parts["decoder"])
    # An autoencoder's checkpoint holds all of it: of each file, the part that is asked for. What
    # is not an autoencoder's stays, for the list of what does not fit.
    joined = {n: v for n, v in encoder.items() if not n.startswith("decoder.")}
    first = ("encoder.", "projector.", "quantizer.")
    joined |= {n: v for n, v in decoder.items() if not n.startswith(first)}
    if "stats" in parts:
        joined["mean"], joined["scale"] = _stats(parts["stats"])
    return joined


def _generator(source: Source) -> State:
    """The tensors of a generator, which upstream saves beside the discriminator's and others."""
    if isinstance(source, Mapping):
        return read_state(_inner(source))
    path = Path(source)
    if path.suffix == ".safetensors" or not path.is_file():
        return read_state(path)
    return checkpoints.state_of(_inner(torchfile.read(path)), str(path))


def _inner(tree: Any) -> Any:
    for wrapper in ("model", "generator"):
        tree = tree[wrapper] if isinstance(tree, Mapping) and wrapper in tree else tree
    return tree


def _stats(source: Any) -> Tensor:
    """Mean and scale [2, D] float32."""
    what, array = "stats", source
    if isinstance(source, str | os.PathLike):
        what = str(source)
        try:  # mapped, not read: a header may claim any size
            array = np.lib.format.open_memmap(what, mode="r")
        except FileNotFoundError:
            raise
        except Exception as error:  # numpy raises nearly every type on corrupted bytes
            raise WeightsError(f"{what}: is no .npy file of plain numbers: {error}") from error
    array = np.asarray(array)
    if array.ndim != 2 or len(array) != 2 or array.dtype.kind != "f":
        raise WeightsError(
            f"{what}: expected floats [2, D], mean and scale, got {list(array.shape)} {array.dtype}"
        )
    return torch.from_numpy(array.astype(np.float32))
