"""Runs a case of SpeechTokenizer: nets, quantizer from any level on, semantic head."""

from __future__ import annotations

from fastcodec.codecs import speechtokenizer
from fastcodec.codes import Codes

from .cases import Case
from .checks import Checks
from .run_encodec import record_latents, stored_codes

START = 2  # the level that "codes_start2" begins with


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    return None if "semantic_dimension" in case.config else "a part of training"


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    codec = speechtokenizer.build("golden", speechtokenizer.from_upstream(case.config))
    codec.load_weights(case.states()[0])
    codec.eval().requires_grad_(False)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("sample rate", codec.info.sample_rate_hz, case.entry["sample_rate"])
    checks.uses("input")
    latents = record_latents(codec)
    codes = codec.encode(case.wav())
    checks.codes("codes", codes.tokens[0])
    checks.floats("latent", latents[0][0])
    start = codec.from_codebook(START).encode(case.wav())
    checks.exact(f"codes_start{START}", start.tokens[0])
    _decode(case, codec, codes, checks)
    checks.finish()


def _decode(
    case: Case, codec: speechtokenizer.SpeechTokenizer, codes: Codes, checks: Checks
) -> None:
    """Decode the stored codes: all of them, the first codebook's, and the others."""
    tokens = stored_codes(case)[None]
    checks.floats("audio", lambda: codec.decode(tokens)[0])
    checks.floats("audio_first_codebook", lambda: codec.decode(tokens[:, :1])[0])
    rest = codec.from_codebook(1)
    checks.floats("audio_codebooks_from_1", lambda: rest.decode(tokens[:, 1:])[0])
    checks.floats("semantic_feature", lambda: codec.semantic_features(tokens)[0])
    checks.equal("samples", codec.decode(tokens).shape[2], case.entry["decoded_samples"])
    checks.equal("frames", codes.tokens.shape[2], tokens.shape[2])
