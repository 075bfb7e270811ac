"""Runs a case of FunCodec: its nets over time and over spectra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastcodec.codecs import funcodec
from fastcodec.codecs.freqcodec import SpectralEncoder
from fastcodec.codecs.funcodec import Funcodec
from fastcodec.codecs.funcodec_config import DOMAINS_IN, DOMAINS_OUT
from fastcodec.errors import WeightsError

from .cases import Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    if "model" not in case.config:
        return "a part of training"
    try:
        funcodec.from_upstream(settings(case))
    except WeightsError as error:
        return str(error)
    return None


def settings(case: Case) -> dict[str, Any]:
    """The case's configuration as a config.yaml has it: with the kinds of its parts."""
    parts = {k: v for k, v in case.config.items() if k.startswith(("model", "quant", "enc", "dec"))}
    if case.config["model"] != "freq_codec":
        return parts
    domain_in, domain_out = case.config["model_conf"]["codec_domain"]
    channels = {"channels": DOMAINS_OUT[domain_out]}
    return {
        **parts,
        "input_size": DOMAINS_IN[domain_in],
        "encoder": "encodec_seanet_encoder_2d",
        "decoder": "encodec_seanet_decoder_2d",
        "decoder_conf": {**case.config["decoder_conf"], **channels},
    }


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    codec = funcodec.build("golden", funcodec.from_upstream(settings(case)))
    (state,) = case.states()
    codec.load_weights(state)
    codec.eval().requires_grad_(False)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    if codec.config.encoder.norm != "weight_norm":  # folded: a parameter a channel less
        books = (
            codec.config.n_codebooks * codec.config.codebook_size * codec.config.encoder.dimension
        )
        parameters = sum(p.numel() for p in codec.parameters())
        checks.equal("parameters", parameters, case.config["parameters"])
        checks.equal("info", codec.info.parameters, parameters + books)
    if isinstance(codec.encoder, SpectralEncoder):
        _spectrum(case, codec, checks)
    checks.uses("input")
    latents = record_latents(codec)
    bits_per_second = case.config["bandwidth_bits_per_second"]
    codes = codec.encode(case.wav(), bandwidth_kbps=bits_per_second / 1000)
    checks.floats("latent", torch.cat(latents, dim=2)[0])
    checks.codes("codes", codes.tokens[0])
    assert codes.scale is not None
    near = abs(float(codes.scale) - case.entry["scale"]) <= case.tolerance * case.entry["scale"]
    checks.equal("scale within the tolerance", near, True)
    tokens = stored_codes(case)[None]
    checks.floats("audio_from_codes", lambda: codec.decode(tokens)[0])
    heard = codec.decode(replace(codes, tokens=tokens))[0]
    length = case.entry["decoded_samples"]
    checks.equal("decoded samples", heard.shape[1], case.wav().shape[2])
    checks.floats("audio", heard[:, :length])
    checks.equal("zeros after the end", bool(heard[:, length:].any()), False)
    checks.finish()


def _spectrum(case: Case, codec: Funcodec, checks: Checks) -> None:
    """Compare the first frames of the spectrum, and give the angles of the first one.

    It is symmetric, so its values are real, and rounding decides the sign of what they are not.
    """
    encoder = codec.encoder
    assert isinstance(encoder, SpectralEncoder)
    spectrum, wav = encoder.spectrum, case.wav()
    stored = torch.from_numpy(case.arrays["stft"].full)
    frames = stored.shape[1]
    own = spectrum(wav / codec._level(wav)[..., None])[0, :frames]
    checks.floats("stft", own.transpose(0, 1))

    def with_stored_angles(x: Tensor) -> Tensor:
        y = spectrum(x)
        y[:, 0] = stored[:, 0].double()
        return y

    if case.config["model_conf"]["codec_domain"][0] == "mag_angle":
        encoder.spectrum = with_stored_angles  # type: ignore[method-assign]
