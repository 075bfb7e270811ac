"""Runs a case of AudioDec: an autoencoder in its three flows, or a vocoder alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcodec.codecs import audiodec, audiodec_vocoder
from fastcodec.codecs.audiodec import AudioDec
from fastcodec.codecs.keys import load_tagged
from fastcodec.io.checkpoints import State, fold_weight_norm
from fastcodec.layers.conv import ConvTranspose1d
from fastcodec.layers.streaming import Sequential

from .cases import Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes

TAIL = 900  # samples at the end of which the manifest says how far the flows are apart


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    built = {"codebook_num", "upsample_scales"} & set(case.config)
    return None if built else "a part of training"


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    parameters = {name: value for name, value in case.config.items() if name != "config"}
    upstream = {"generator_params": parameters, "sampling_rate": case.entry["sample_rate"]}
    if "upsample_scales" in case.config:
        _vocoder(case, audiodec_vocoder.from_upstream(upstream), checks)
    else:
        net = audiodec.build("golden", audiodec.from_upstream(upstream))
        net.load_weights(case.states()[0])
        _autoencoder(case, net.eval().requires_grad_(False), checks)
    checks.finish()


def _autoencoder(case: Case, net: AudioDec, checks: Checks) -> None:
    checks.uses("input")
    checks.equal("hop", net.hop, case.entry["hop"])
    latents = record_latents(net)
    codes = net.encode(case.wav())
    latent = torch.cat(latents, dim=2)[0]
    checks.floats("latent", latent)
    checks.codes("codes", codes.tokens[0])
    tokens = stored_codes(case)[None]
    audio = net.decode(tokens)[0]
    checks.floats("audio", audio)
    checks.equal("decoded samples", audio.shape[1], case.entry["decoded_samples"])
    _statistics(case, net, latent, checks)
    net.flow = "zero"
    checks.floats("audio_stream", lambda: net.decode(tokens)[0])
    net.flow = "primed"
    latents.clear()
    codes = net.encode(case.wav())
    stored = case.arrays["latent_primed"]
    checks.floats("latent_primed", torch.cat(latents, dim=2)[0, :, : stored.shape[1]])
    checks.codes("codes_primed", codes.tokens[0])
    primed = torch.from_numpy(case.arrays["codes_primed"].full.astype(np.int64))[None]
    checks.floats("audio_primed", lambda: net.decode(replace(codes, tokens=primed))[0])


def _statistics(case: Case, net: AudioDec, latent: Tensor, checks: Checks) -> None:
    """Of the stored codes: squared errors of all levels, and how evenly each uses its words."""
    residual, errors, perplexity = latent.double(), [], []
    for level, words in zip(stored_codes(case), net.quantizer.codebooks.double(), strict=True):
        residual = residual - words[level].T
        errors.append(float(residual.square().mean()))
        share = level.bincount(minlength=len(words)) / len(level)
        perplexity.append(float((-(share * (share + 1e-10).log()).sum()).exp()))
    for name, got in (("vq_loss", sum(errors)), ("perplexity", perplexity)):
        close = np.allclose(got, case.entry[name], rtol=case.tolerance, atol=0)
        checks.equal(f"{name} {got} as {case.entry[name]}", close, True)


def _vocoder(case: Case, config: audiodec_vocoder.VocoderConfig, checks: Checks) -> None:
    checks.uses("quantised")
    checks.equal("hop", config.hop, case.entry["hop"])
    net = audiodec_vocoder.build(config)
    load_tagged(net, _used(case.states()[0]), case.id, audiodec_vocoder.upstream_name)
    frames = torch.from_numpy(case.arrays["quantised"].full)[None]
    offline, stream = _heard(net, frames, "replicate"), _heard(net, frames, "zero")
    checks.floats("audio", offline)
    checks.floats("audio_stream", stream)
    apart = float(np.abs(offline - stream)[:, -TAIL:].max())
    allowed = 2 * case.tolerance * case.arrays["audio"].rms
    want = case.entry["stream_tail_max_abs_diff"]
    checks.equal(f"flows apart at the end by {want}", abs(apart - want) <= allowed, True)


def _used(state: State) -> State:
    return {n: v for n, v in fold_weight_norm(state).items() if not n.endswith("pad_buffer")}


@torch.no_grad()
def _heard(net: Sequential, frames: Tensor, first: str) -> NDArray[np.float32]:
    for layer in net.modules():
        if isinstance(layer, ConvTranspose1d):
            layer.first = first  # type: ignore[assignment]
    heard: NDArray[np.float32] = net(frames)[0].numpy()
    return heard
