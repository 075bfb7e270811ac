"""Runs a case of the discriminators: every score, and the statistics of every feature map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastcodec.train import discriminators
from fastcodec.train.discriminators import Judgement

from . import compare
from .cases import Case
from .checks import Checks
from .compare import Mismatch, Reference

# The kind that an upstream's class is, with its options.
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "soundstream.ComplexSTFTDiscriminator": ("complex_stft", {}),
    "soundstream.MultiScaleDiscriminator": ("msd_melgan", {"scales": 1}),
    "models.soundstream.models.MultiPeriodDiscriminator": ("mpd_academicodec", {}),
}


def serves(case: Case) -> bool:
    """Whether the case is of a discriminator that is built."""
    known = not case.config.get("rates") and case.config.get("class", "") in {"", *CLASSES}
    return "feature_maps" in case.entry and known


def run(case: Case) -> None:
    """Compare every array and every statistic of the case."""
    checks = Checks(case)
    name, options = _kind(case.config)
    net = discriminators.build(name, **options)
    (state,) = case.states()
    discriminators.load_weights(net, state)
    net.train(case.entry["training_mode"]).requires_grad_(False)
    _check_settings(case.config, net, checks)
    checks.uses("input")
    judgements: list[Judgement] = net(case.wav())
    scores = sum(array.startswith("score_") for array in case.arrays)
    checks.equal("number of scores", len(judgements), scores)
    for i, judgement in enumerate(judgements):
        checks.floats(f"score_{i}", judgement.score)
    maps = {
        (i, layer): _plain(x)
        for i, judgement in enumerate(judgements)
        for layer, x in enumerate(judgement.features)
    }
    described = [(entry["discriminator"], entry["layer"]) for entry in case.entry["feature_maps"]]
    checks.equal("feature maps", list(maps), described)
    for entry, first in zip(
        case.entry["feature_maps"], case.arrays["feature_first"].full, strict=True
    ):
        at = entry["discriminator"], entry["layer"]
        with checks.of("feature_first"):
            name = f"feature map {at}"
            got = maps.get(at, np.zeros(0))
            checks.measured[name] = _compare_map(name, got, entry, first, case.tolerance)
    checks.finish()


def _kind(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of a case's discriminator."""
    if "class" in config:
        return CLASSES[config["class"]]
    if "bands" in config:
        names = {"periods": "periods", "windows": "fft_sizes", "bands": "bands"}
        return "dac", {ours: config[theirs] for ours, theirs in names.items()}
    if "n_ffts" in config:
        figures = {"n_ffts": config["n_ffts"], "width": config["filters"] / 32}
        return "msstftd_encodec", {**figures, "first_without_norm": True}
    if "fft_sizes" in config:
        return "audiodec_univ", {}
    if "scales" in config:
        return "audiodec", {"norm_skips_conv1d": True}
    return ("mpd_hifigan", dict(config)) if "periods" in config else ("msd_hifigan", {})


def _check_settings(config: Mapping[str, Any], net: nn.Module, checks: Checks) -> None:
    """The lists of figures that the net has of itself, against the case's."""
    figures = {
        "periods": "period",
        "n_ffts": "spectrum.n_fft",
        "fft_sizes": "spectrum.n_fft",
        "hop_lengths": "spectrum.hop",
        "hop_sizes": "spectrum.hop",
    }
    for name, own in figures.items():
        if name in config:
            found = [value for judge in net.modules() if (value := _value(judge, own)) is not None]
            checks.equal(name, found, config[name])


def _value(judge: nn.Module, path: str) -> Any:
    value: Any = judge
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _plain(x: Tensor) -> NDArray[Any]:
    """The map's values; of a complex one, real and imaginary parts in a last axis."""
    array: NDArray[Any] = (torch.view_as_real(x) if x.is_complex() else x).numpy()
    return array


def _compare_map(
    name: str,
    got: NDArray[Any],
    entry: Mapping[str, Any],
    first: NDArray[Any],
    tolerance: float,
) -> float:
    """The largest difference of the first values in units of the map's rms; also all sums."""
    count, rms = got.size, float(np.sqrt(entry["sq_sum"] / max(1, got.size)))
    head = min(count, first.size)
    described = {"shape": entry["shape"], "stats": entry, "step": max(1, count), "head": head}
    parts = {"every": first[:1], "head": first[:head]}
    worst = compare.floats(got, Reference(name, described, parts), tolerance)
    values = got.astype(np.float64)
    measured = {
        "sum": (values.sum(), compare.COS_DOT_TOLERANCE * rms * np.sqrt(count)),
        "abs_sum": (np.abs(values).sum(), compare.SQ_SUM_TOLERANCE * entry["abs_sum"]),
        "max_abs": (np.abs(values).max(), tolerance * rms),
    }
    for what, (value, allowed) in measured.items():
        if not abs(value - entry[what]) <= allowed:
            raise Mismatch(
                f"{name}: {what} is {value:.9g}, expected {entry[what]:.9g} within {allowed:.3g}"
            )
    return worst
