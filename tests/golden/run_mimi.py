"""Runs a case of Mimi: codes and audio of whole signals, and frame by frame."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastcodec.codecs import mimi
from fastcodec.codecs.mimi import Mimi, MimiConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.layers.transformer import Transformer, TransformerConfig

from .cases import Case
from .checks import Checks
from .run_encodec import NEUTRAL, PADDING, SAME, record_latents, stored_codes

# moshi's arguments of a transformer -> ours, and the values that the others must have.
TRANSFORMER = {
    "num_heads": "heads", "num_layers": "layers", "context": "context", "max_period": "max_period",
    "dim_feedforward": "feed_forward",
}  # fmt: skip
FIXED = {
    "causal": True, "conv_layout": True, "gating": "none", "norm": "layer_norm",
    "positional_embedding": "rope", "layer_scale": 0.01,
}  # fmt: skip


def why_not(case: Case) -> str | None:
    """What of the case's configuration is not built, or None."""
    seanet, layers = case.config["seanet"], case.config["transformer"]
    unknown = [f"{k}={v}" for k, v in FIXED.items() if layers[k] != v]
    known = SAME | {"ratios", "pad_mode"}
    unknown += [
        f"{k}={v}" for k, v in seanet.items() if k not in known and v not in NEUTRAL.get(k, ())
    ]
    return f"with {', '.join(unknown)}" if unknown else None


def config(case: Case) -> MimiConfig:
    """The configuration that the case describes."""
    given, layers = case.config["seanet"], case.config["transformer"]
    seanet = SeanetConfig(
        ratios=tuple(given["ratios"]),
        padding=PADDING[given["pad_mode"]],  # type: ignore[arg-type]
        lstm=0,
        **{name: given[name] for name in SAME & set(given)},
    )
    rvq: Mapping[str, Any] = case.config["quantizer"]
    return MimiConfig(
        case.config["sample_rate"],
        seanet,
        TransformerConfig(**{ours: layers[theirs] for theirs, ours in TRANSFORMER.items()}),
        upsample_groups=layers["d_model"],
        n_codebooks=case.config["total_codebooks"],
        codebook_size=rvq["bins"],
        codebook_dimension=rvq["dimension"],
    )


def run(case: Case) -> None:
    """Compare every array of the case."""
    checks = Checks(case)
    codec = Mimi(config(case), "golden")
    checks.equal("configuration", codec.config, _bare(mimi.PRESETS["mimi_24khz"]))
    codec.load_weights(case.states()[0])
    codec.eval().requires_grad_(False)
    checks.equal("hop", codec.info.hop, case.entry["hop"])
    checks.equal("frame rate", codec.info.frame_rate_hz, case.config["frame_rate"])
    _whole(case, codec, checks)
    _frame_by_frame(case, codec, checks)
    checks.finish()


def _bare(config: MimiConfig) -> MimiConfig:
    """A preset's sizes alone."""
    names = ("sample_rate_hz", "seanet", "transformer", "stride", "upsample_groups", "n_codebooks",
             "n_semantic", "codebook_size", "codebook_dimension")  # fmt: skip
    return MimiConfig(**{name: getattr(config, name) for name in names})


def _whole(case: Case, codec: Mimi, checks: Checks) -> None:
    checks.uses("input")
    latents = record_latents(codec)
    codes = codec.encode(case.wav(), n_codebooks=case.config["num_codebooks"])
    checks.codes("codes", codes.tokens[0])
    checks.floats("latent", torch.cat(latents, dim=2)[0])
    padded = codes.tokens.shape[2] * codec.hop
    checks.equal("padded samples", padded, case.entry["padded_samples"])
    heard = codec.decode(stored_codes(case)[None])[0]
    checks.equal("decoded samples", heard.shape[1], case.entry["decoded_samples"])
    checks.floats("audio", heard)
    if checks.has("audio_tail"):
        checks.floats("audio_tail", heard[:, -4000:])


def _frame_by_frame(case: Case, codec: Mimi, checks: Checks) -> None:
    """Our stream is the whole signal's; with moshi's ring of keys it must give moshi's stream."""
    count, wav = case.config["num_codebooks"], case.wav()
    whole_frames = wav.shape[2] // codec.hop
    codec = copy.deepcopy(codec)  # whose native runs are made anew
    look_back_as_moshi_streams(codec)
    stream = codec.stream(n_codebooks=count)
    tokens = [
        stream.encode(wav[..., i * codec.hop : (i + 1) * codec.hop]).tokens
        for i in range(whole_frames)
    ]
    got = torch.cat(tokens, dim=2)[0]
    with checks.of("codes_stream"):
        want, margins = case.arrays["codes_stream"].full, case.arrays["codes_margin"]
        checks.levels(got, want, margins.full[:, :whole_frames], margins.entry["epsilon"])
    stored = stored_codes(case)[None]
    heard = [stream.decode(stored[..., i : i + 1]) for i in range(stored.shape[2])]
    checks.floats("audio_stream", torch.cat(heard, dim=2)[0])


def look_back_as_moshi_streams(codec: Mimi) -> None:
    """Make the first step of every frame see one key less, once there are more than ``context``.

    moshi writes both steps of a frame into its ring of ``context`` keys before the first attends
    (modules/transformer.py@e6a55d27, RingKVCache.complete): the second has then overwritten the
    oldest key that the first should see. Which is why the note of the long case finds the
    reference's streaming and whole-file results different past 10 s.
    """
    for net in (m for m in codec.modules() if isinstance(m, Transformer)):
        context = net.context
        assert context is not None

        def oldest(position: Tensor, context: int = context) -> Tensor:
            return (position - context + 1 + (position + 1) % 2).clamp(min=0)

        net.oldest = oldest  # type: ignore[method-assign]
