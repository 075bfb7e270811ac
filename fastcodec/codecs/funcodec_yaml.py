"""Reads the config.yaml that FunCodec keeps beside its weights.

Upstream's ``build_model`` (funcodec/tasks/gan_speech_codec.py@3435d870) makes the net of a few of
the file's entries, each the arguments of a constructor; the rest is its trainer's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from fastcodec.codecs.funcodec_config import TIME, FuncodecConfig, NetConfig, PpgConfig
from fastcodec.codecs.settings import LARGEST, LONGEST, PADDING, checked, made
from fastcodec.errors import WeightsError, listed, shown
from fastcodec.io import config_file

# Entries of the file that make the net; others that begin so are a mistake.
_PARTS = ("encoder", "quantizer", "decoder", "model", "frontend", "normalize")
# Arguments that both nets have, with upstream's defaults (encoder/seanet_encoder.py).
_NET = {
    "n_filters": 32, "n_residual_layers": 1, "kernel_size": 7, "last_kernel_size": 7,
    "residual_kernel_size": 3, "dilation_base": 2, "causal": False, "true_skip": False,
    "compress": 2, "seq_layer_num": 2, "res_seq": True, "norm": "weight_norm",
}  # fmt: skip
_ENCODER = {"dimension": 128}
_DECODER = {"channels": 1, "trim_right_ratio": 1.0}
_SPECIAL = {"activation", "activation_params", "norm_params", "pad_mode", "seq_model", "ratios"}
_FINAL = {"final_activation", "final_activation_params"}
# Kind of net -> its other arguments.
_NETS = {
    "encodec_seanet_encoder": {"double_filters", "add_snake_activation"},
    "encodec_seanet_decoder": {"half_filters", "add_snake_activation"} | _FINAL,
    "encodec_seanet_encoder_2d": {"conv_group_ratio"},
    "encodec_seanet_decoder_2d": {"conv_group_ratio", "tr_conv_group_ratio", "last_out_padding"}
    | _FINAL,
}
_QUANTIZER = {
    "codebook_size": 1024, "num_quantizers": 8, "ema_decay": 0.95, "kmeans_init": False,
    "sampling_rate": 24000, "quantize_dropout": False, "rand_num_quant": (),
    "encoder_hop_length": 320, "use_ddp": True, "q0_ds_ratio": 1, "codec_dim": None,
    "codec_range": 0.0,
}  # fmt: skip
_MODELS: dict[str, dict[str, Any]] = {
    "encodec": {"audio_normalize": True, "codec_domain": TIME, "bypass_quantizer": False},
    "freq_codec": {
        "audio_normalize": False, "codec_domain": (TIME, TIME), "bypass_quantizer": False,
    },
    "codec_semantic_aug": {"audio_normalize": False, "ppg_conf": None},
}  # fmt: skip
_TRAINING = {
    "odim", "target_sample_hz", "multi_spectral_window_powers_of_two", "multi_spectral_n_mels",
    "recon_loss_weight", "multi_spectral_recon_loss_weight", "adversarial_loss_weight",
    "feat_match_loss_weight", "enc_quant_loss_weight", "commit_loss_weight",
    "use_power_spec_loss", "context_loss_weight", "context_loss_conf",
    "phase_invariant_training", "pit_feat_loss_weight", "pit_disc_loss_weight",
    "feat_match_layer_start", "overlap_ratio",
}  # fmt: skip


def read(path: Path) -> FuncodecConfig:
    """The configuration of a config.yaml.

    Raises:
        WeightsError: not YAML, or as ``from_upstream``
    """
    config = config_file.read(path)
    if not isinstance(config, Mapping):
        raise WeightsError(f"{path}: a table of settings expected, got {type(config).__name__}")
    return from_upstream(config)


def from_upstream(config: Mapping[str, Any]) -> FuncodecConfig:
    """The configuration of a parsed config.yaml.

    Raises:
        WeightsError: a setting that is not known, or a value that is not supported, by its name
    """
    known = {*_PARTS, *(f"{part}_conf" for part in _PARTS)}
    _refuse("FunCodec", (n for n in config if isinstance(n, str) and n.startswith(_PARTS)), known)
    for name in ("frontend", "normalize"):
        value = config.get(name)
        _one_of(f"FunCodec: {name}", "none" if value is None else _lower(value), ("none",))
    channels = checked("FunCodec", {"input_size": config.get("input_size", 1)}, {"input_size": 1})
    encoder = _net(config, "encoder", channels=channels["input_size"])
    decoder = _net(config, "decoder", dimension=encoder.dimension)
    model = _model(config)
    sizes = _quantizer(config, encoder, model)
    return made(FuncodecConfig, encoder=encoder, decoder=decoder, **model, **sizes)


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, Mapping):
        raise WeightsError(f"FunCodec: {name} must be a table of settings, got {shown(value)}")
    return dict(value)


def _net(config: Mapping[str, Any], part: str, **sizes: Any) -> NetConfig:
    """The encoder or the decoder."""
    kinds = [kind for kind in _NETS if part in kind]
    kind = _one_of(f"FunCodec: {part}", config.get(part, kinds[0]), kinds)
    given, what = _part(config, f"{part}_conf"), f"FunCodec: {part}_conf"
    plain: dict[str, Any] = {**_NET, **(_ENCODER if part == "encoder" else _DECODER)}
    for switch in _NETS[kind] & {"double_filters", "half_filters", "add_snake_activation"}:
        plain[switch] = switch != "add_snake_activation"
    _refuse(what, given, plain.keys() | _SPECIAL | _NETS[kind])
    found = checked(what, {k: v for k, v in given.items() if k in plain}, plain)
    found["resize_filters"] = found.pop("double_filters", True) and found.pop("half_filters", True)
    if found["norm"] == "time_layer_norm":  # upstream gives it no layer
        found["norm"] = "none"
    if given.get("norm_params") not in (None, {}, {"num_groups": 1}):
        raise WeightsError(f"{what}: norm_params {shown(given['norm_params'])} is not supported")
    pad_mode = _one_of(f"{what}: pad_mode", given.get("pad_mode", "reflect"), PADDING)
    found["padding"] = PADDING[pad_mode]
    found["seq_model"] = given.get("seq_model", "lstm") or "none"
    found.update(_activation(what, given))
    if kind.endswith("_2d"):
        found.update(_two_dimensional(what, given))
    else:
        ratios = checked(what, {"ratios": given.get("ratios", (8, 5, 4, 2))}, {"ratios": (1,)})
        found["ratios"] = ratios["ratios"]
    try:
        return NetConfig(**{**found, **sizes})
    except ValueError as error:
        raise WeightsError(f"{what}: {error}") from error


def _activation(what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The activation, and whether the decoder ends in tanh."""
    name = _one_of(
        f"{what}: activation",
        _lower(given.get("activation", "ELU")),
        ("elu", "snake", "leakyrelu", "relu"),
    )
    parameters = {"alpha": 1.0} if "activation_params" not in given else {}
    parameters |= _part(given, "activation_params")
    slope = parameters.pop("negative_slope", 0.01) if name == "leakyrelu" else 0.0
    neutral = name == "snake" or not parameters or (name == "elu" and parameters == {"alpha": 1.0})
    if not neutral or not isinstance(slope, float) or not abs(slope) <= LARGEST:
        raise WeightsError(
            f"{what}: activation_params {shown(given.get('activation_params'))} of {name} is not "
            f"supported"
        )
    final = _one_of(f"{what}: final_activation", given.get("final_activation"), (None, "Tanh"))
    if given.get("final_activation_params"):
        raise WeightsError(f"{what}: final_activation_params is not supported")
    kind = "leaky_relu" if "relu" in name else name
    return {"activation": kind, "slope": slope, "final_tanh": final is not None}


def _two_dimensional(what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The ratios over frequency and time, the groups, what the last layer keeps."""
    pairs = _pairs(f"{what}: ratios", given.get("ratios", ((4, 1), (4, 1), (4, 2), (4, 1))), 1)
    kept = _pairs(f"{what}: last_out_padding", given.get("last_out_padding", ((0, 1), (0, 0))), 0)
    found: dict[str, Any] = {
        "frequency_ratios": tuple(pair[0] for pair in pairs),
        "ratios": tuple(pair[1] for pair in pairs),
        "last_out_padding": sum(kept, ()),
    }
    for name in ("conv_group_ratio", "tr_conv_group_ratio"):
        ratio = given.get(name, -1)
        if type(ratio) is not int or abs(ratio) > LARGEST:
            raise WeightsError(f"{what}: {name} must be a whole number, got {shown(ratio)}")
        found[name] = ratio if ratio > 0 else None
    return found


def _pairs(what: str, value: Any, least: int) -> list[tuple[int, ...]]:
    """Pairs of whole numbers, of which there is at least one."""
    rows = list(value) if isinstance(value, list | tuple) and len(value) <= LONGEST else []
    pairs = [tuple(row) if isinstance(row, list | tuple) else () for row in rows]
    good = all(
        len(pair) == 2 and all(type(n) is int and least <= n <= LARGEST for n in pair)
        for pair in pairs
    )
    if not good or not pairs:
        raise WeightsError(f"{what} must be pairs of whole numbers, got {shown(value)}")
    return pairs


def _quantizer(
    config: Mapping[str, Any], encoder: NetConfig, model: Mapping[str, Any]
) -> dict[str, Any]:
    """Sizes of the quantizer, and the bit rates that it was trained for."""
    kind = config.get("quantizer", "costume_quantizer")
    _one_of("FunCodec: quantizer", kind, ("costume_quantizer",))
    found = checked(
        "FunCodec: quantizer_conf",
        _part(config, "quantizer_conf"),
        _QUANTIZER,
        {"rand_num_quant", "codec_range"},
    )
    _one_of("FunCodec: quantizer_conf: use_ddp", found["use_ddp"], (True,))
    rate, count = found["sampling_rate"], found["num_quantizers"]
    hop = math.prod(encoder.ratios) * model.get("fft_hop", 1)
    kbps = math.log2(found["codebook_size"]) * rate / hop / 1000
    sizes = sorted({*(found["rand_num_quant"] or ()), count})
    own_width = found["codec_dim"] not in (None, encoder.dimension)
    return {
        "sample_rate_hz": rate,
        "n_codebooks": count,
        "codebook_size": found["codebook_size"],
        "bandwidths_kbps": tuple(n * kbps for n in sizes if n <= count),
        "codec_dim": found["codec_dim"] if own_width else None,
        "codec_range": found["codec_range"] or None,
        "q0_ds_ratio": found["q0_ds_ratio"],
    }


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    """What model and model_conf say: levels, domains, semantic augmentation."""
    model = _one_of("FunCodec: model", config.get("model", "encodec"), _MODELS)
    given, what = _part(config, "model_conf"), "FunCodec: model_conf"
    defaults = {**_MODELS[model], "segment_dur": 1.0, "domain_conf": None}
    _refuse(what, given, _TRAINING | defaults.keys())
    found = {**defaults, **given}
    _one_of(f"{what}: segment_dur (1.0 where it is not given)", found["segment_dur"], (None,))
    _one_of(f"{what}: bypass_quantizer", found.get("bypass_quantizer", False), (False,))
    _one_of(f"{what}: audio_normalize", found["audio_normalize"], (False, True))
    out: dict[str, Any] = {"normalize": found["audio_normalize"]}
    if model == "codec_semantic_aug":
        out["ppg"] = _ppg(_part(found, "ppg_conf"))
    elif model == "encodec":
        _one_of(f"{what}: codec_domain", found["codec_domain"], (TIME,))
    else:
        domain = found["codec_domain"]
        if not isinstance(domain, list | tuple) or len(domain) != 2 or not _spectral(domain):
            raise WeightsError(f"{what}: codec_domain {shown(domain)} is not supported")
        fft = checked(
            "FunCodec: domain_conf",
            _part(found, "domain_conf"),
            {"n_fft": 512, "hop_length": 160},
        )
        out |= {"domain": tuple(domain)}
        out |= {"n_fft": fft["n_fft"], "fft_hop": fft["hop_length"]}
    return out


def _spectral(domain: Iterable[Any]) -> bool:
    return all(isinstance(name, str) and name != TIME for name in domain)


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _ppg(given: Mapping[str, Any]) -> PpgConfig:
    defaults = {
        "ppg_dim": 86, "ppg_ds_rate": 2, "ppg_ds_type": "conv", "ppg_usage_mod": "residual",
    }  # fmt: skip
    found = checked("FunCodec: ppg_conf", given, defaults)
    usage = found["ppg_usage_mod"]
    if usage == "ptts":  # for which upstream calls a method that it does not have
        raise WeightsError("FunCodec: ppg_conf: ppg_usage_mod 'ptts' is not supported")
    named = usage in ("residual", "addition", "supervision")
    return PpgConfig(
        classes=found["ppg_dim"],
        rate=found["ppg_ds_rate"],
        usage=usage if named else "concat",  # upstream's reading of any other word
        convolution=found["ppg_ds_type"] == "conv",
    )


def _refuse(what: str, given: Iterable[Any], known: Iterable[str]) -> None:
    if unknown := set(given) - set(known):
        raise WeightsError(f"{what}: unknown settings: {listed(unknown)}")


def _one_of(what: str, value: Any, known: Iterable[Any]) -> Any:
    if not any(value == one and type(value) is type(one) for one in known):
        names = ", ".join("null" if one is None else str(one) for one in known)
        raise WeightsError(f"{what}: only {names} is supported, got {shown(value)}")
    return cast(Any, value)
