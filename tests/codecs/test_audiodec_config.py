"""AudioDec: upstream's configuration files."""

from __future__ import annotations

from typing import Any

import pytest

from fastcodec.codecs import audiodec, audiodec_vocoder
from fastcodec.errors import WeightsError

PUBLISHED = {
    "input_channels": 1,
    "output_channels": 1,
    "encode_channels": 32,
    "decode_channels": 32,
    "code_dim": 64,
    "codebook_num": 16,
    "codebook_size": 1024,
    "bias": True,
    "enc_ratios": [2, 4, 8, 16],
    "dec_ratios": [16, 8, 4, 2],
    "enc_strides": [2, 4, 5, 8],
    "dec_strides": [8, 5, 4, 2],
    "mode": "causal",
    "codec": "audiodec",
    "projector": "conv1d",
    "quantier": "residual_vq",
}
PUBLISHED_V0 = {
    "bias": True,
    "channels": 512,
    "groups": 1,
    "in_channels": 64,
    "kernel_size": 7,
    "nonlinear_activation": "LeakyReLU",
    "nonlinear_activation_params": {"negative_slope": 0.1},
    "out_channels": 1,
    "resblock_dilations": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "resblock_kernel_sizes": [3, 7, 11],
    "stats": "stats/symAD_vctk_48000_hop300_clean.npy",
    "upsample_kernel_sizes": [10, 10, 8, 6],
    "upsample_scales": [5, 5, 4, 3],
    "use_additional_convs": True,
    "use_weight_norm": True,
}


def autoencoder_yml(**changes: Any) -> dict[str, Any]:
    return {"generator_params": {**PUBLISHED, **changes}, "sampling_rate": 48000, "seed": 1337}


def vocoder_yml(**changes: Any) -> dict[str, Any]:
    return {"generator_params": {**PUBLISHED_V0, **changes}, "sampling_rate": 48000}


def test_upstreams_configurations() -> None:
    found = audiodec.from_upstream(autoencoder_yml())
    assert found == audiodec.PRESETS["audiodec_48khz_c16"]
    sizes = {"enc_strides": [3, 4, 5, 5], "dec_strides": [5, 5, 4, 3], "codebook_num": 8}
    found = audiodec.from_upstream(autoencoder_yml(**sizes), vocoder_yml())
    assert found.vocoder == audiodec_vocoder.VOCODERS["v0"]
    groups = {"resblock_kernel_sizes": [3], "resblock_dilations": [[1, 3, 5]], "groups": 3}
    found = audiodec.from_upstream(autoencoder_yml(**sizes), vocoder_yml(**groups))
    assert found.vocoder == audiodec_vocoder.VOCODERS["v2"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mode": "noncausal"}, "only mode: causal is built, got noncausal"),
        ({"projector": "conv1d_bn"}, "only projector: conv1d is built"),
        ({"input_channels": 2}, "only input_channels: 1 is built"),
        ({"nonlinear_activation": "ReLU"}, "only nonlinear_activation: ELU"),
        ({"nonlinear_activation_params": {"alpha": 2}}, "only ELU without"),
        ({"codec": "else"}, "codec must be audiodec or activate_audiodec"),
        ({"lstm": 2}, "unknown settings: lstm"),
        ({"codebook_num": -1}, "codebook_num must be a positive whole number"),
        ({"dec_strides": [8, 5, 4, 3]}, "of 320 samples, the decoder 480|from 320 samples"),
        ({"enc_ratios": [2, 4, 8]}, "as many ratios as strides"),
    ],
)
def test_autoencoders_that_are_not_built(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        audiodec.from_upstream(autoencoder_yml(**changes))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"use_additional_convs": False}, "only use_additional_convs: True is built, got False"),
        ({"stats": ""}, "only generators with stats"),
        ({"upsample_kernel_sizes": [11, 10, 8, 6]}, "must be twice the upsample_scales"),
        ({"resblock_dilations": 3}, "must be a list of lists"),
        ({"resblock_dilations": [[1, 0]]}, "must be a positive whole number"),
        ({"resblock_dilations": [[1]]}, "one tuple of dilations a kernel"),
        ({"nonlinear_activation_params": {"inplace": True}}, "unknown settings: inplace"),
        ({"nonlinear_activation_params": [0.1]}, "a mapping, got"),
        ({"aux_channels": 2}, "unknown settings: aux_channels"),
        ({"in_channels": 80}, "one of 80"),
    ],
)
def test_vocoders_that_are_not_built(changes: dict[str, Any], match: str) -> None:
    sizes = {"enc_strides": [3, 4, 5, 5], "dec_strides": [5, 5, 4, 3]}
    with pytest.raises(WeightsError, match=match):
        audiodec.from_upstream(autoencoder_yml(**sizes), vocoder_yml(**changes))


@pytest.mark.parametrize("wrong", [{}, {"generator_params": 3}, {"generator_params": PUBLISHED}])
def test_a_config_without_what_it_should_say(wrong: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="no generator_params|sampling_rate must be"):
        audiodec.from_upstream(wrong)
