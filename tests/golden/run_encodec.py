"""Runs a case of EnCodec or of audiocraft's EnCodec: nets, quantizer, container, language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcodec.codecs import encodec
from fastcodec.codecs.base import Codec
from fastcodec.codecs.encodec import EncodecConfig, EncodecSegmented
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codes import Codes
from fastcodec.io.ecdc import EcdcFile, read_ecdc, write_ecdc

from . import run_encodec_lm
from .cases import Case
from .checks import Checks

PADDING = {"constant": "zero", "reflect": "reflect", "replicate": "replicate"}
# Constructor arguments that our net has under the same name, and those that only training uses.
SAME = {
    "channels", "dimension", "n_filters", "n_residual_layers", "kernel_size", "last_kernel_size",
    "residual_kernel_size", "dilation_base", "compress", "lstm", "causal", "true_skip", "norm",
}  # fmt: skip
TRAINING = {
    "q_dropout", "decay", "kmeans_init", "kmeans_iters", "threshold_ema_dead_code",
    "orthogonal_reg_weight", "orthogonal_reg_active_codes_only", "orthogonal_reg_max_codes",
    "no_quantization_rate",
}  # fmt: skip
# Values under which an argument that we do not have changes nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "activation": ("ELU",),
    "activation_params": ({"alpha": 1.0},),
    "norm_params": ({},),
    "final_activation": (None,),
    "final_activation_params": (None, {}),
    "trim_right_ratio": (1.0,),
    "disable_norm_outer_blocks": (0,),
    "renormalize": (False,),
}


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    config = case.config
    if "seanet" in config:
        unknown = _unknown(config)
        return f"with {', '.join(unknown)}" if unknown else None
    model = config.get("model")
    if "class" in case.entry["upstream"] or model is None:
        return "a part of training"
    return None if model in encodec.PRESETS else f"model {model}"


def _unknown(config: Mapping[str, Any]) -> list[str]:
    seanet, rvq = config["seanet"], config.get("rvq", {})
    unknown = [f"pad_mode={seanet['pad_mode']}"] if seanet["pad_mode"] not in PADDING else []
    outside = {"seanet", "rvq", "frame_rate", "model", "bandwidth_kbps", "lm"}
    given = {**seanet, **rvq, **{k: v for k, v in config.items() if k not in outside}}
    for name, value in given.items():
        known = SAME | TRAINING | {"ratios", "pad_mode", "n_q", "bins"}
        if name not in known and value not in NEUTRAL.get(name, ()):
            unknown.append(f"{name}={value}")
    return unknown


def build(case: Case) -> Codec:
    """The net that the configuration describes, without its weights."""
    config = case.config
    if "seanet" not in config:
        return encodec.build(config["model"])
    arguments = {name: config["seanet"][name] for name in SAME & set(config["seanet"])}
    seanet = SeanetConfig(
        ratios=tuple(config["seanet"]["ratios"]),
        padding=PADDING[config["seanet"]["pad_mode"]],  # type: ignore[arg-type]
        **arguments,
    )
    rate, rvq = case.entry["sample_rate"], config["rvq"]
    return encodec.Encodec(EncodecConfig(rate, seanet, rvq["n_q"], rvq["bins"], ()), "golden")


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    states = case.states()
    codec = build(case)
    codec.load_weights(next(s for s in states if not run_encodec_lm.is_lm(s)))
    codec.eval().requires_grad_(False)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    if "frame_rate" in case.config:
        checks.equal("frame rate", codec.info.frame_rate_hz, case.config["frame_rate"])
    codes = _encode(case, codec, checks)
    _decode(case, codec, codes, checks)
    if checks.has("ecdc"):
        _container(case, codec, codes, checks)
    for state in states:
        if run_encodec_lm.is_lm(state):
            run_encodec_lm.run(case, state, codes, checks)
    checks.finish()


def _encode(case: Case, codec: Codec, checks: Checks) -> Codes:
    """Encode the input; returns the stored codes with the lengths and gains that were found."""
    checks.uses("input")
    latents = record_latents(codec)
    codes = codec.encode(case.wav(), **_width(case, codec))
    checks.codes("codes", codes.tokens[0])
    if checks.has("latent"):
        checks.floats("latent", torch.cat(latents, dim=2)[0])
    if checks.has("scales"):
        checks.floats("scales", lambda: codes.scale[0])  # type: ignore[index]
        codes = replace(codes, scale=torch.from_numpy(case.arrays["scales"].full)[None])
    if "segment_frames" in case.entry:
        checks.equal("frames", codes.tokens.shape[2], sum(case.entry["segment_frames"]))
    return replace(codes, tokens=stored_codes(case)[None])


def stored_codes(case: Case) -> Tensor:
    """The case's codes [K, T] int64."""
    return torch.from_numpy(case.arrays["codes"].full.astype(np.int64))


def record_latents(codec: Codec) -> list[Tensor]:
    """A list that gets what the quantizer is given from now on."""
    latents: list[Tensor] = []
    encode = codec.quantizer.encode

    def recorded(x: Tensor, n_codebooks: int | None = None) -> Tensor:
        latents.append(x)
        return encode(x, n_codebooks)

    codec.quantizer.encode = recorded  # type: ignore[method-assign]
    return latents


def _width(case: Case, codec: Codec) -> dict[str, Any]:
    """The case's bandwidth; where it is none of the preset's, as many codebooks as fit it."""
    kbps = case.config.get("bandwidth_kbps")
    if kbps is None or kbps in codec.info.bandwidths_kbps:
        return {"bandwidth_kbps": kbps}
    bits = (codec.info.codebook_size - 1).bit_length()
    return {"n_codebooks": max(1, int(kbps * 1000 // (bits * codec.info.frame_rate_hz)))}


def _decode(case: Case, codec: Codec, codes: Codes, checks: Checks) -> None:
    """Decode the stored codes, as long as the stored audio is: trimmed to the input or not."""
    untrimmed = case.entry.get("decoded_samples") == case.entry["arrays"]["audio"]["shape"][-1]
    segments: list[Tensor] = []
    if isinstance(codec, EncodecSegmented):
        codec.decoder.register_forward_hook(lambda net, args, y: segments.append(y))
    checks.floats("audio", lambda: codec.decode(codes.tokens if untrimmed else codes)[0])
    if "decoded_samples_before_trim" in case.entry:
        want = case.entry["decoded_samples_before_trim"]
        checks.equal("decoded samples", _untrimmed_length(codec, codes, segments), want)
    if checks.has("audio_first_segment_untrimmed"):
        tail = case.arrays["audio_first_segment_untrimmed"].shape[-1]
        first = segments[0][0] * codes.scale[0, 0]  # type: ignore[index]
        checks.floats("audio_first_segment_untrimmed", first[:, -tail:])


def _untrimmed_length(codec: Codec, codes: Codes, segments: list[Tensor]) -> int:
    if not segments:
        return codec.decode(codes.tokens).shape[2]
    stride = codec.config.segment_stride  # type: ignore[union-attr]
    return stride * (len(segments) - 1) + segments[-1].shape[2]


def _container(case: Case, codec: Codec, codes: Codes, checks: Checks) -> None:
    """Both ways: the stored codes give the stored bytes, and the bytes give the codes."""
    stored = case.arrays["ecdc"].full.tobytes()
    file = read_ecdc(stored).to_codes()
    with checks.of("ecdc"):
        assert torch.equal(file.tokens, codes.tokens), "the file read gives other codes"
        assert torch.equal(file.n_samples, codes.n_samples), "the file read gives another length"
        if codes.scale is not None:
            assert torch.allclose(file.scale, codes.scale, rtol=case.tolerance, atol=0)
    exact = replace(codes, scale=file.scale)
    write = EcdcFile.from_codes(exact, case.config["model"])
    checks.exact("ecdc", lambda: np.frombuffer(write_ecdc(write), np.uint8))
    if "ecdc_decoded_equals_audio_max_abs_diff" in case.entry:
        difference = float((codec.decode(exact) - codec.decode(codes)).abs().max())
        rms = case.arrays["audio"].rms
        checks.equal("decoded .ecdc as the audio", difference <= case.tolerance * rms, True)
