"""Runs a case of audiolm-pytorch's SoundStream."""

from __future__ import annotations

import torch

from fastcodec.codecs import soundstream

from .cases import Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes

PRESETS = {
    "AudioLMSoundStream": "soundstream_audiolm_16khz",
    "MusicLMSoundStream": "soundstream_musiclm_24khz",
}


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    return None if case.config.get("constructor") in PRESETS else "a part of training"


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    codec = soundstream.build(PRESETS[case.config["constructor"]])
    (state,) = case.states()
    codec.load_weights(state)
    codec.eval().requires_grad_(False)
    for name in ("codebook_size", "rq_num_quantizers"):
        checks.equal(name, getattr(codec.config, name), case.config[name])
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    checks.uses("input")
    latents = record_latents(codec)
    codes = codec.encode(case.wav())
    checks.floats("latent", torch.cat(latents, dim=2)[0])
    checks.codes("codes", codes.tokens[0])
    audio = codec.decode(stored_codes(case)[None])
    checks.equal("decoded samples", audio.shape[2], case.entry["decoded_samples"])
    checks.floats("audio", audio[0])
    checks.finish()
