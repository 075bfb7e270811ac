"""Codes in files: our own (.safetensors), EnCodec's (.ecdc), DAC's and Lyra's packets (.lyra)."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import torch

from fastcodec.codes import ABSENT, Codes
from fastcodec.errors import FormatError
from fastcodec.io import checkpoints, codes_file, dac_file, ecdc, lyra_packets
from fastcodec.io.ecdc_header import LAYOUTS, EcdcHeader
from fastcodec.io.entropy import ProbabilityModel

SUFFIXES = (".safetensors", ".ecdc", ".dac", ".lyra")

_LYRA_CODEC, _LYRA_FRAME_RATE_HZ, _LYRA_HOP = "lyra_v2", 50.0, 320
_SAFETENSORS_HEADER_BYTES = 8  # length of the JSON that follows, which begins with "{"


def save_codes(
    codes: Codes, path: str | os.PathLike[str], lm: checkpoints.Source | None = None
) -> None:
    """Writes codes in the format that the suffix of ``path`` names.

    Args:
        codes: what ``codec.encode`` gave; .ecdc and .lyra hold one signal of their own codecs
        path: .safetensors (any codec, any batch), .ecdc (encodec_24khz, encodec_48khz) or .lyra
            (Lyra v2 at 3.2, 6 or 9.2 kbps; the length is rounded up to whole frames of 20 ms)
        lm: weights of EnCodec's language model: makes the .ecdc file smaller by entropy coding

    Raises:
        ValueError: another suffix, or codes that the format cannot hold
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_format(path, codes.codec, codes.n_codebooks)
    if lm is not None and suffix != ".ecdc":
        raise ValueError(f"{path}: only .ecdc files are coded with a language model")
    if suffix == ".safetensors":
        codes_file.save_codes(codes, path)
        return
    if len(codes) != 1:
        raise ValueError(f"{path}: {suffix} holds one signal, got a batch of {len(codes)}")
    if suffix == ".dac":
        raise ValueError(
            f"{path}: a .dac file holds the loudness of the signal, too: write it with "
            f"fastcodec.codecs.dac_chunks (compress, or file_of for codes)"
        )
    if suffix == ".ecdc":
        file = ecdc.EcdcFile.from_codes(codes, uses_lm=lm is not None)
        ecdc.write_ecdc(file, path, None if lm is None else _writing_model(file.model, lm))
    else:
        lyra_packets.write_lyra(codes.tokens[0].cpu().numpy(), path)


def check_format(path: Path, codec: str, n_codebooks: int | None = None) -> None:
    """ValueError where the format that ``path`` names cannot hold codes of the preset ``codec``."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: codes are saved as {', '.join(SUFFIXES)}, got {suffix!r}")
    if suffix == ".ecdc" and codec not in LAYOUTS:
        raise ValueError(f"{path}: .ecdc holds codes of {', '.join(LAYOUTS)}, not of {codec}")
    if suffix == ".dac" and not codec.startswith("dac"):
        raise ValueError(f"{path}: .dac holds codes of DAC, not of {codec}")
    if suffix == ".lyra" and not codec.startswith("lyra"):
        raise ValueError(f"{path}: .lyra holds codes of Lyra, not of {codec}")
    sizes = lyra_packets.PACKET_BYTES.keys() | {lyra_packets.N_CODEBOOKS}
    if suffix == ".lyra" and n_codebooks is not None and n_codebooks not in sizes:
        raise ValueError(f"{path}: a packet holds {sorted(sizes)} codebooks, not {n_codebooks}")


def read_codes(
    path: str | os.PathLike[str],
    codec: str | None = None,
    lm: checkpoints.Source | None = None,
    n_codebooks: int | None = None,
) -> Codes:
    """The codes in a file; its first bytes say which format it has, and ``.lyra`` its suffix.

    Args:
        path: written by ``save_codes`` or by the codec's original tools
        codec: preset to note in the codes, instead of the one the file belongs to; a .dac file,
            which does not say it, needs it
        lm: weights of EnCodec's language model, for an entropy-coded .ecdc file
        n_codebooks: of a .lyra file (16, 30 or 46), where its length fits several

    Raises:
        FormatError: truncated, corrupted or of no known format; it names the file
        ValueError: the file needs ``lm`` and it was not given
        FileNotFoundError: no such file
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such codes file")
    try:
        codes = _read(path, codec, lm, n_codebooks)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    return codes if codec is None else replace(codes, codec=codec)


def kbps_of(codes: Codes, codebook_size: int) -> float:
    """Bit rate of the codes as such, without entropy coding, in kbit/s of one signal."""
    tokens = sum(1 / every for every in codes.hold or (1,) * codes.n_codebooks)  # a frame
    return tokens * math.log2(codebook_size) * codes.frame_rate_hz / 1000


def _read(
    path: Path, codec: str | None, lm: checkpoints.Source | None, n_codebooks: int | None
) -> Codes:
    with open(path, "rb") as file:
        start = file.read(_SAFETENSORS_HEADER_BYTES + 1)
    if path.suffix.lower() == ".lyra":
        return _read_lyra(path, n_codebooks)
    if start[: len(dac_file.MAGIC)] == dac_file.MAGIC:
        return _read_dac(path, codec)
    if start[:4] == b"ECDC":
        return _read_ecdc(path, lm)
    if start[_SAFETENSORS_HEADER_BYTES:] == b"{" or path.suffix.lower() == ".safetensors":
        return codes_file.load_codes(path)
    raise FormatError(f"not a codes file; expected one of {', '.join(SUFFIXES)}")


def _read_dac(path: Path, codec: str | None) -> Codes:
    from fastcodec.codecs.dac import PRESETS

    if codec not in PRESETS:
        raise ValueError(
            f"{path}: a .dac file does not say which DAC made it; give codec, one of "
            f"{', '.join(PRESETS)}"
        )
    config = PRESETS[codec]
    return dac_file.read_dac(path).to_codes(codec, config.sample_rate, config.hop)


def _read_lyra(path: Path, n_codebooks: int | None) -> Codes:
    tokens = torch.from_numpy(lyra_packets.read_lyra(path, n_codebooks))
    sent = tokens[(tokens != ABSENT).any(dim=1)]
    n_samples = torch.tensor([tokens.shape[1] * _LYRA_HOP])
    return Codes(sent[None], _LYRA_FRAME_RATE_HZ, n_samples, _LYRA_CODEC, hop=_LYRA_HOP)


def _read_ecdc(path: Path, lm: checkpoints.Source | None) -> Codes:
    def probabilities(header: EcdcHeader) -> ProbabilityModel:
        from fastcodec.codecs.encodec_lm import probability_model

        if lm is None:
            raise ValueError(
                f"{path}: is entropy-coded; give the weights of the language model of "
                f"{header.model} as lm (on the command line: --lm FILE)"
            )
        state = checkpoints.read_state(lm)
        return probability_model(header.model, state, header.probability_model)

    return ecdc.read_ecdc(path, probabilities).to_codes()


def _writing_model(model: str, lm: checkpoints.Source) -> ProbabilityModel:
    """The compiled language model: its files decode alike on every machine."""
    from fastcodec.codecs.encodec_lm import PRESETS, entropy_model, load_lm

    checked = load_lm(model, checkpoints.read_state(lm))
    return entropy_model(checked.state_dict(), PRESETS[model].past_frames)
