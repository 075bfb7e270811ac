"""HiFi-Codec: grouped residual quantizer, dropped tails, checkpoints."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fastcodec
from fastcodec.codecs import FAMILIES, hificodec
from fastcodec.codecs.hificodec import Hificodec, HificodecConfig
from fastcodec.codecs.keys import tagged_state, upstream_names
from fastcodec.codecs.recognise import recognise, spec_of
from fastcodec.errors import WeightsError
from fastcodec.io import model_file
from fastcodec.layers.quantize import GroupedResidualQuantizer

from .. import nets

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = HificodecConfig(
    sampling_rate=800,
    upsample_rates=(5, 3, 2),
    upsample_kernel_sizes=(11, 7, 4),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1, 2)),
    n_codes=32,
    encoder_channels=8,
)
PUBLISHED = {
    "resblock": "1", "num_gpus": 8, "upsample_rates": [8, 5, 3, 2],
    "upsample_kernel_sizes": [16, 11, 7, 4], "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "sampling_rate": 24000,
    "n_code_groups": 2, "n_codes": 1024, "codebook_loss_lambda": 1.0, "fmax_for_loss": None,
}  # fmt: skip


@functools.cache
def codec() -> Hificodec:
    """A small net with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return hificodec.build("small", CONFIG).eval().requires_grad_(False)


def checkpoint() -> dict[str, dict[str, Tensor]]:
    """A net's weights as upstream saves them, {"generator", "encoder", "quantizer"}."""
    parts: dict[str, dict[str, Tensor]] = {"generator": {}, "encoder": {}, "quantizer": {}}
    state = codec().state_dict()
    for own, theirs in upstream_names(codec()).items():
        several = state[own] if len(theirs) > 1 else state[own][None]
        for name, value in zip(theirs, several, strict=True):
            net, _, entry = hificodec.upstream_name(name).partition(".")
            normed = entry.endswith("weight") and value.ndim == 3 and entry != "conv_post.weight"
            if normed or (normed := net == "generator" and entry == "conv_post.weight"):
                parts[net][f"{entry}_v"] = 2 * value
                parts[net][f"{entry}_g"] = value.flatten(1).norm(dim=1).view(-1, 1, 1)
            else:
                parts[net][entry] = value.clone()
    return parts


def test_groups_are_quantised_apart_level_by_level() -> None:
    quantizer = GroupedResidualQuantizer(levels=2, groups=3, codebook_size=8, dimension=12)
    x = torch.randn(2, 12, 9, generator=nets.generator(0))
    codes, words = quantizer.encode(x), torch.zeros(2, 12, 9)
    for g, group in enumerate(quantizer.groups):
        rows = slice(4 * g, 4 * g + 4)
        for level, book in enumerate(group.codebooks):  # type: ignore[arg-type, union-attr]
            left = (x - words)[:, rows].transpose(1, 2)
            nearest = (left[..., None, :] - book).square().sum(-1).argmin(-1)
            assert torch.equal(codes[:, 3 * level + g], nearest)
            words[:, rows] += book[nearest].transpose(1, 2)
    torch.testing.assert_close(quantizer.decode(codes), words)
    for count in range(1, 7):
        assert torch.equal(quantizer.encode(x, count), codes[:, :count])
    half = quantizer.decode(codes[:, :2])
    assert half[:, :8].any() and not half[:, 8:].any()
    with pytest.raises(ValueError, match="do not make 5 groups"):
        GroupedResidualQuantizer(2, 5, 8, 12)


def test_samples_that_fill_no_frame_are_dropped_but_heard() -> None:
    """They are in the statistics of the normalisation."""
    net = codec()
    assert net.hop == 30 and net.info.n_codebooks == 4
    for length, frames in ((30, 1), (59, 1), (60, 2), (901, 30)):
        codes = net.encode(nets.signal(1, 1, length))
        assert codes.tokens.shape == (1, 4, frames)
        assert net.decode(codes).shape == (1, 1, 30 * frames)
    with pytest.raises(ValueError, match="at least 30 sample"):
        net.encode(torch.zeros(29))
    wav = nets.signal(1, 1, 89)
    loud = wav.clone()
    loud[..., 60:] *= 50
    assert not torch.equal(net.encoder(wav)[..., 0], net.encoder(loud)[..., 0])


def test_encoding_does_not_stream_but_decoding_does() -> None:
    info = codec().info
    assert not info.streamable and info.decode_streamable
    with pytest.raises(ValueError, match="group normalisation"):
        codec().stream().encode(torch.zeros(1, 1, 30))


def test_checkpoints_of_three_nets(tmp_path: Path) -> None:
    """As upstream saves them, in a file or not; weight norm is folded."""
    parts = checkpoint()
    assert "quantizer_modules2.1.embedding.weight" in parts["quantizer"]
    assert {"conv_pre.weight_g", "conv_post.weight", "normalize.5.bias"} <= parts["encoder"].keys()
    assert {"conv_post.weight_g", "resblocks.5.convs2.1.bias"} <= parts["generator"].keys()
    torch.save(parts, tmp_path / "HiFi-Codec")
    wav = nets.signal(1, 1, 400)
    for weights in (parts, tmp_path / "HiFi-Codec"):
        net = hificodec.build("small", CONFIG)
        net.load_weights(weights)
        for own, value in net.state_dict().items():
            torch.testing.assert_close(value, codec().state_dict()[own])
        assert net.encode(wav).tokens.shape == (1, 4, 13)


def test_a_file_beside_its_config_is_known_and_converts(tmp_path: Path) -> None:
    """Upstream's encoder has 32 channels at first, so this net has as many; its files no suffix."""
    settings = {**PUBLISHED, "upsample_rates": [3, 2], "upsample_kernel_sizes": [7, 4]}
    settings |= {"upsample_initial_channel": 16, "n_codes": 8, "resblock": "2"}
    (tmp_path / "config_24k.json").write_text(json.dumps(settings))
    torch.save(checkpoint(), tmp_path / "HiFi-Codec")
    family, name, config = recognise(tmp_path / "HiFi-Codec", FAMILIES)
    assert (family, config) == (hificodec, hificodec.from_upstream(settings))
    source = family.build(name, config)
    target = tmp_path.with_suffix(".safetensors")
    model_file.write(target, spec_of(source, FAMILIES), tagged_state(source))
    converted = fastcodec.load(weights=target)
    assert converted.config == config
    want = source.state_dict()
    assert all(torch.equal(value, want[key]) for key, value in converted.state_dict().items())


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    parts = checkpoint()
    del parts["quantizer"]["quantizer_modules2.1.embedding.weight"]
    with pytest.raises(
        WeightsError, match=r"missing: quantizer\.quantizer_modules2\.1\.embedding\.weight"
    ):
        hificodec.build("small", CONFIG).load_weights(parts)
    parts = checkpoint()
    parts["encoder"]["conv_pre.weight_v"] = torch.zeros(1).expand(10**6, 1, 10**6)
    torch.save(parts, tmp_path / "claims_much")
    with pytest.raises(WeightsError, match="plain tensor"):
        hificodec.build("small", CONFIG).load_weights(tmp_path / "claims_much")
    torch.save({"generator": {}, "encoder": {}}, tmp_path / "two")
    with pytest.raises(WeightsError, match="no tensors"):
        hificodec.build("small", CONFIG).load_weights(tmp_path / "two")


def test_settings_of_upstream() -> None:
    made = hificodec.from_upstream(PUBLISHED)
    preset = hificodec.PRESETS["hifi_24k_240d"]
    assert made.upsample_rates == preset.upsample_rates
    assert made.upsample_kernel_sizes == preset.upsample_kernel_sizes
    assert (made.dimension, made.sampling_rate) == (512, 24000)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"residul_layer": 4}, "unknown settings: residul_layer"),
        ({"resblock": "3"}, "resblock must be '1' or '2'"),
        ({"upsample_kernel_sizes": [16, 10, 8, 4]}, "even number more"),
        ({"upsample_rates": [8, 5, 4]}, "even number more"),
        ({"resblock_dilation_sizes": [[1, 3, 5]]}, "as many as the kernels"),
        ({"resblock_dilation_sizes": [1, 3, 5]}, r"resblock_dilation_sizes\[0\] must be a list"),
        ({"n_codes": "1024"}, "n_codes must be"),
    ],
)
def test_settings_that_no_model_has_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        hificodec.from_upstream(PUBLISHED | change)
