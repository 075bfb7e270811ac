"""What FunCodec's config.yaml may say, and that everything else is refused by its name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastcodec.codecs import funcodec
from fastcodec.codecs.funcodec_config import FuncodecConfig, PpgConfig
from fastcodec.errors import WeightsError

RECIPE: dict[str, Any] = {
    "input_size": 1, "sampling_rate": 16000, "speech_max_length": 40960, "frontend": None,
    "frontend_conf": {}, "normalize": None, "normalize_conf": {}, "batch_size": 16, "lr": 0.0003,
    "encoder": "encodec_seanet_encoder",
    "encoder_conf": {"norm": "time_group_norm", "causal": False},
    "quantizer": "costume_quantizer",
    "quantizer_conf": {
        "codebook_size": 1024, "num_quantizers": 32, "ema_decay": 0.99, "kmeans_init": True,
        "sampling_rate": 16000, "quantize_dropout": True, "rand_num_quant": [1, 2, 4, 8, 16, 32],
        "use_ddp": True, "encoder_hop_length": 320,
    },
    "decoder": "encodec_seanet_decoder",
    "decoder_conf": {"norm": "time_group_norm", "causal": False},
    "discriminator": "multiple_disc",
    "discriminator_conf": {"disc_conf_list": [{"name": "anything", "filters": 32}]},
    "model": "encodec",
    "model_conf": {
        "odim": 128, "multi_spectral_window_powers_of_two": [5, 6, 7, 8, 9, 10],
        "target_sample_hz": 16000, "audio_normalize": True, "use_power_spec_loss": True,
        "segment_dur": None, "overlap_ratio": None,
    },
}  # fmt: skip
FREQUENCY = {
    **RECIPE,
    "input_size": 3,
    "encoder": "encodec_seanet_encoder_2d",
    "decoder": "encodec_seanet_decoder_2d",
    "model": "freq_codec",
}
_CONF: dict[str, Any] = {
    "ratios": [[4, 1], [4, 1], [4, 2], [4, 1]], "norm": "time_group_norm", "causal": False,
    "norm_params": {"num_groups": 1}, "dilation_base": 1,
}  # fmt: skip


def changed(base: dict[str, Any], part: str | None, **values: Any) -> dict[str, Any]:
    """The settings with other values, of a part or of their own."""
    return {**base, part: {**base[part], **values}} if part else {**base, **values}


def frequency(encoder: dict[str, Any], decoder: dict[str, Any]) -> dict[str, Any]:
    """The 2-D recipe with other arguments of its nets."""
    return {
        **changed(FREQUENCY, "model_conf", codec_domain=["mag_phase", "mag_phase"]),
        "encoder_conf": {**_CONF, **encoder},
        "decoder_conf": {**_CONF, "channels": 3, **decoder},
    }


def net_only(config: FuncodecConfig) -> FuncodecConfig:
    return replace(config, hub="", licence="")


def test_presets_are_the_recipes() -> None:
    ds640 = {"ratios": [8, 5, 4, 2, 2]}
    made = {
        "funcodec_en_16k_nq32ds320": RECIPE,
        "funcodec_zh_en_16k_nq32ds640": changed(
            changed(RECIPE, "encoder_conf", **ds640), "decoder_conf", **ds640
        ),
        "freqcodec_en_16k_gr1nq32ds320": frequency(
            small := {"n_filters": 16, "seq_model": "none", "conv_group_ratio": 1},
            {**small, "tr_conv_group_ratio": 2},
        ),
        "freqcodec_en_16k_gr8nq32ds320": frequency(
            {"conv_group_ratio": 8}, {"conv_group_ratio": 8, "tr_conv_group_ratio": 8}
        ),
    }
    for name, config in made.items():
        assert funcodec.from_upstream(config) == net_only(funcodec.PRESETS[name]), name


def test_bit_rates_are_those_trained_for() -> None:
    config = changed(RECIPE, "quantizer_conf", rand_num_quant=[2, 8], num_quantizers=20)
    assert funcodec.from_upstream(config).bandwidths_kbps == (1.0, 4.0, 10.0)
    config = changed(RECIPE, "quantizer_conf", rand_num_quant=None, sampling_rate=24000)
    assert funcodec.from_upstream(config).bandwidths_kbps == (24.0,)


@pytest.mark.parametrize(
    "kbps, n_codebooks", [(0.25, 1), (0.5, 2), (1.0, 4), (2.0, 8), (4.0, 16), (8.0, 32)]
)
def test_a_bit_rate_is_a_number_of_codebooks(kbps: float, n_codebooks: int) -> None:
    """As upstream's bits a second: max(1, floor(bandwidth / (10 bits * 25 Hz)))."""
    codec = funcodec.Funcodec(
        replace(
            funcodec.PRESETS["funcodec_en_16k_nq32ds640"],
            encoder=replace(funcodec.PRESETS["funcodec_en_16k_nq32ds640"].encoder, n_filters=2),
            decoder=replace(funcodec.PRESETS["funcodec_en_16k_nq32ds640"].decoder, n_filters=2),
        )
    )
    assert codec._n_codebooks(None, kbps) == n_codebooks


def test_semantic_augmentation() -> None:
    config = changed(RECIPE, "model_conf", ppg_conf={"ppg_dim": 40, "ppg_usage_mod": "anything"})
    made = funcodec.from_upstream({**config, "model": "codec_semantic_aug"})
    assert made.ppg == PpgConfig(classes=40, usage="concat")


TIME_PARTS = ("encoder_conf", "decoder_conf", "quantizer_conf", "model_conf")


@pytest.mark.parametrize("part", TIME_PARTS)
def test_every_unknown_setting_is_named(part: str) -> None:
    config = changed(RECIPE, part, surprise=1, another="x")
    with pytest.raises(WeightsError, match=rf"{part}: unknown settings: another, surprise"):
        funcodec.from_upstream(config)


REFUSED: dict[str, dict[str, Any]] = {
    "unknown settings: encoder_config, model_options": changed(
        RECIPE, None, encoder_config={}, model_options=1
    ),
    "frontend: only none is supported, got 'wav_frontend'": {**RECIPE, "frontend": "wav_frontend"},
    "encoder: only encodec_seanet_encoder.*got 'conformer'": {**RECIPE, "encoder": "conformer"},
    "quantizer: only costume_quantizer.*got 'identity'": {**RECIPE, "quantizer": "identity"},
    "model: only encodec.*got 'vits'": {**RECIPE, "model": "vits"},
    "encoder_conf must be a table": {**RECIPE, "encoder_conf": [1]},
    "input_size must be a positive": {**RECIPE, "input_size": 0},
    "encoder_conf: .*norm 'spectral_norm'": changed(RECIPE, "encoder_conf", norm="spectral_norm"),
    "norm time_group_norm cannot be causal": changed(RECIPE, "encoder_conf", causal=True),
    "encoder_conf: norm_params": changed(RECIPE, "encoder_conf", norm_params={"num_groups": 4}),
    "seq_model 'gru'": changed(RECIPE, "encoder_conf", seq_model="gru"),
    "activation: only elu.*got 'gelu'": changed(RECIPE, "decoder_conf", activation="GELU"),
    "activation_params": changed(RECIPE, "encoder_conf", activation_params={"alpha": 0.5}),
    "final_activation: only null, Tanh.*got 'ReLU'": changed(
        RECIPE, "decoder_conf", final_activation="ReLU"
    ),
    "pad_mode: only reflect.*got 'circular'": changed(RECIPE, "decoder_conf", pad_mode="circular"),
    "ratios must be a positive whole": changed(RECIPE, "decoder_conf", ratios=[[4, 1]]),
    "ratios of encoder and decoder": changed(RECIPE, "decoder_conf", ratios=[8, 5, 4]),
    "n_filters must be a positive": changed(RECIPE, "encoder_conf", n_filters="32"),
    "unknown settings: conv_group_ratio": changed(RECIPE, "encoder_conf", conv_group_ratio=2),
    "codec_dim must be a positive": changed(RECIPE, "quantizer_conf", codec_dim=0),
    "use_ddp": changed(RECIPE, "quantizer_conf", use_ddp=False),
    r"segment_dur .*only null is supported, got 2\.0": changed(
        RECIPE, "model_conf", segment_dur=2.0
    ),
    "bypass_quantizer": changed(RECIPE, "model_conf", bypass_quantizer=True),
    "audio_normalize": changed(RECIPE, "model_conf", audio_normalize="yes"),
    "codec_domain: only time is supported, got 'stft'": changed(
        RECIPE, "model_conf", codec_domain="stft"
    ),
    "domain 'time' needs 1-D nets": {
        **frequency({}, {}), "model": "encodec", "model_conf": RECIPE["model_conf"]
    },
    "ppg_conf: unknown settings: ppg_size": {
        **changed(RECIPE, "model_conf", ppg_conf={"ppg_size": 3}), "model": "codec_semantic_aug"
    },
    "ppg_usage_mod 'ptts'": {
        **changed(RECIPE, "model_conf", ppg_conf={"ppg_usage_mod": "ptts"}),
        "model": "codec_semantic_aug",
    },
    "domain_conf: unknown settings: win_length": changed(
        frequency({}, {}), "model_conf", domain_conf={"win_length": 400}
    ),
    "n_fft must be a power of two": changed(
        frequency({}, {}), "model_conf", domain_conf={"n_fft": 400}
    ),
    "codec_domain 'mel'": changed(
        frequency({}, {}), "model_conf", codec_domain=["mel", "mag_phase"]
    ),
    r"codec_domain \['mag_phase', 'time'\]": changed(
        frequency({}, {}), "model_conf", codec_domain=["mag_phase", "time"]
    ),
    "'mag_angle' needs 2-D nets of 2 channels": changed(
        frequency({}, {}), "model_conf", codec_domain=["mag_angle", "mag_phase"]
    ),
    "leave 4 of 257 rows": frequency({"ratios": [[4, 2], [4, 1], [4, 1]]}, {}),
    "final_activation of a 2-D net": frequency({}, {"final_activation": "Tanh"}),
    "more than 256 layers": changed(RECIPE, "encoder_conf", n_residual_layers=1 << 20),
    "ratios must be pairs": frequency({"ratios": [4, 4, 4, 4]}, {}),
    "last_out_padding must be pairs": frequency({}, {"last_out_padding": [[0, -1], [0, 0]]}),
    "tr_conv_group_ratio must be a whole": frequency({}, {"tr_conv_group_ratio": "2"}),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_built_is_refused_by_its_name(message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        funcodec.from_upstream(REFUSED[message])


@pytest.mark.parametrize("ratio", [3, 40])
def test_groups_that_do_not_divide_the_filters(ratio: int) -> None:
    config = funcodec.from_upstream(frequency({"conv_group_ratio": ratio}, {}))
    with pytest.raises(ValueError, match=f"conv_group_ratio {ratio}"):
        funcodec.build("small", config)
