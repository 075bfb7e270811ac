"""SoundStream: both forms by plain torch, audiolm-pytorch's files."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.codecs import soundstream
from fastcodec.codecs.keys import upstream_names
from fastcodec.codecs.soundstream import PRESETS, Soundstream, SoundstreamConfig
from fastcodec.errors import WeightsError

from .. import nets

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "target_sample_hz": 600, "strides": (2, 3), "channels": 4, "channel_mults": (2, 3),
    "codebook_dim": 10, "codebook_size": 32, "rq_num_quantizers": 3,
}  # fmt: skip
ATTENTION = {"attn_window_size": 5, "attn_dim_head": 6, "attn_heads": 2}
PAPER = {"use_local_attn": False, "padding": "zero", "elu_first": True, "film": False}
FORMS: dict[str, dict[str, Any]] = {
    "audiolm": ATTENTION,
    "audiolm, deeper": {**ATTENTION, "attn_depth": 2, "attn_xpos_scale_base": 7},
    "paper": PAPER,
}
HOP = 6


@functools.cache
def codec(name: str) -> Soundstream:
    """A small net with random weights, biases too, and lively codebooks."""
    net = soundstream.build(name, SoundstreamConfig(**{**SMALL, **FORMS[name]}))
    g = nets.generator(1)
    net.eval().requires_grad_(False)
    for parameter in net.parameters():
        fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 10
        parameter.copy_(torch.randn(parameter.shape, generator=g) / fan**0.5)
    nets.lively(net)
    return net


def test_a_frame_is_all_the_latency() -> None:
    for name in FORMS:
        assert codec(name).info.latency == 0 and codec(name).info.streamable


def entries(net: Soundstream) -> dict[str, Tensor]:
    """The net's values by their names in a checkpoint."""
    state = net.state_dict()
    return {
        theirs[0]: state[own] for own, theirs in upstream_names(net).items() if len(theirs) == 1
    }


def conv(state: dict[str, Tensor], path: str, x: Tensor, stride: int = 1, dilation: int = 1,
         mode: str = "reflect") -> Tensor:  # fmt: skip
    """A causal convolution by plain torch."""
    weight, bias = state[f"{path}.conv.weight"], state[f"{path}.conv.bias"]
    left = dilation * (weight.shape[2] - 1) + 1 - stride
    if left:
        x = F.pad(x, (left, 0), mode=mode)
    return F.conv1d(x, weight, bias, stride, 0, dilation)


def unit(state: dict[str, Tensor], path: str, x: Tensor, dilation: int, paper: bool) -> Tensor:
    """A residual unit of either form."""
    mode = "constant" if paper else "reflect"
    y = conv(state, f"{path}.fn.0", F.elu(x) if paper else x, 1, dilation, mode)
    y = conv(state, f"{path}.fn.2", F.elu(y))
    return x + (y if paper else F.elu(y))


@pytest.mark.parametrize("name", ["paper", "audiolm"])
def test_the_order_of_the_layers(name: str) -> None:
    """Convolutions, units and activations of both nets, without attention, written out."""
    paper = name == "paper"
    mode, elu = ("constant", F.elu) if paper else ("reflect", lambda x: x)
    config = {**SMALL, **(PAPER if paper else {"use_local_attn": False})}
    net = soundstream.build(name, SoundstreamConfig(**config)).eval().requires_grad_(False)
    state = entries(net)
    wav = nets.signal(2, 1, 60 * HOP) * 5
    x = conv(state, "encoder.0", wav, mode=mode)
    for i, stride in enumerate((2, 3), 1):
        for j, dilation in enumerate((1, 3, 9)):
            x = unit(state, f"encoder.{i}.{j}", x, dilation, paper)
        x = conv(state, f"encoder.{i}.3", elu(x), stride, mode=mode)
    latents = conv(state, "encoder.3", elu(x), mode=mode)
    assert_near(net.encoder(wav), latents)
    x = conv(state, "decoder.0", latents, mode=mode)
    for i, stride in enumerate((3, 2), 1):
        size, path = x.shape[2] * stride, f"decoder.{i}.0.conv"
        x = F.conv_transpose1d(elu(x), state[f"{path}.weight"], state[f"{path}.bias"], stride)
        x = x[..., :size]
        for j, dilation in enumerate((1, 3, 9), 1):
            x = unit(state, f"decoder.{i}.{j}", x, dilation, paper)
    assert_near(net.decoder(latents), conv(state, "decoder.3", elu(x), mode=mode))


def assert_near(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-5 * want.square().mean().sqrt()


def test_to_denoise_or_not() -> None:
    """Left out unless asked for; then gamma x + beta of the answer, on both sides."""
    net = codec("audiolm")
    wav = nets.signal(1, 1, 60)
    latents, plain = net.encoder(wav), net.encode(wav)
    assert net.denoise is None
    state, heard = entries(net), []
    for answer, one_hot in ((True, [1.0, 0.0]), (False, [0.0, 1.0])):
        net.denoise = answer
        condition = F.linear(
            torch.tensor(one_hot), state["encoder_film.to_cond.weight"],
            state["encoder_film.to_cond.bias"],
        )  # fmt: skip
        gamma, beta = condition.chunk(2)
        assert_near(net.encoder(wav), latents * gamma[:, None] + beta[:, None])
        heard.append(net.decode(plain))
    net.denoise = None
    assert not torch.equal(*heard) and torch.equal(net.encode(wav).tokens, plain.tokens)
    with pytest.raises(ValueError, match="paper has no FiLM"):
        codec("paper").denoise = True


def checkpoint(net: Soundstream) -> dict[str, Tensor]:
    """The net's checkpoint in audiolm-pytorch's form, with what only training uses."""
    state = {}
    for name, value in entries(net).items():
        linear = name.startswith(("encoder_attn", "decoder_attn")) and value.ndim == 3
        state[name] = value.squeeze(2) if linear else value.clone()
    for i, words in enumerate(net.quantizer.codebooks):
        path = f"rq.rvqs.0.layers.{i}._codebook"
        state[f"{path}.embed"] = words[None].clone()
        state[f"{path}.embed_avg"] = words[None].clone()
        state[f"{path}.cluster_size"] = torch.ones(1, len(words))
        state[f"{path}.initted"] = torch.tensor(True)
    state["encoder_attn.layers.0.0.attn_fn.rel_pos.inv_freq"] = torch.ones(3)
    state["discriminators.0.init_conv.weight"] = torch.ones(2, 1, 15)
    state["stft_discriminator.init_conv.weight"] = torch.ones(2, 1, 7, 7, 2)
    state["mel_spec_transforms.0.mel_scale.fb"] = torch.ones(3, 2)
    return state


ARGUMENTS = {
    **SMALL, **ATTENTION, "rq_groups": 1, "rq_kwargs": {}, "rq_ema_decay": 0.95,
    "stft_discriminator": None, "discr_multi_scales": (1, 0.5, 0.25), "squeeze_excite": False,
    "complex_stft_discr_kwargs": {}, "pad_mode": "reflect",
}  # fmt: skip


@pytest.mark.parametrize("averaged", [False, True])
def test_a_file_as_upstream_saves_it(tmp_path: Path, averaged: bool) -> None:
    net, path = codec("audiolm"), tmp_path / "soundstream.1000.pt"
    file = {"model": checkpoint(net), "config": pickle.dumps(ARGUMENTS), "version": "2.4.0"}
    if averaged:
        mean = {f"ema_model.{name}": value for name, value in checkpoint(net).items()}
        online = {f"online_model.{name}": value * 0 for name, value in checkpoint(net).items()}
        file |= {"model": checkpoint(codec("audiolm, deeper")), "ema_model": mean | online}
    torch.save(file, path)
    config = torch.load(path, weights_only=True)["config"]
    loaded = soundstream.build("mine", soundstream.from_upstream(config))
    loaded.load_weights(path)
    wav = nets.signal(1, 1, 100)
    codes = net.encode(wav)
    assert torch.equal(loaded.encode(wav).tokens, codes.tokens)
    assert torch.equal(loaded.decode(codes.tokens), net.decode(codes.tokens))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1 / 0",)


@pytest.mark.parametrize(
    "config, message",
    [
        (pickle.dumps({**ARGUMENTS, "attn_heads": Bomb()}), "attn_heads must be a positive whole"),
        (pickle.dumps([1]), "the checkpoint's config is a list"),
        (pickle.dumps(ARGUMENTS)[:-9], "the checkpoint's config"),
        (b"", "the checkpoint's config"),
        ({**ARGUMENTS, "rq_groups": 2}, "rq_groups must be 1, got 2"),
        ({**ARGUMENTS, "use_gate_loop_layers": True}, "use_gate_loop_layers must be False"),
        ({**ARGUMENTS, "heads": 2}, "unknown settings: heads"),
        ({**ARGUMENTS, "codebook_size": None}, "codebook_size must be given"),
        ({**ARGUMENTS, "pad_mode": "circular"}, "pad_mode must be in"),
        ({**ARGUMENTS, "strides": (2, 3, 4)}, "must be equally many"),
        ({**ARGUMENTS, "strides": (2, 0)}, "strides must be a positive whole number"),
    ],
)
def test_configurations_that_are_not_built(config: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        soundstream.from_upstream(config)


def test_other_padding() -> None:
    """Of all convolutions but the strided ones."""
    net = soundstream.build("x", soundstream.from_upstream({**ARGUMENTS, "pad_mode": "constant"}))
    found = {(layer.stride > 1, layer.padding) for layer in net.encoder.layers
             if isinstance(layer, soundstream.Conv1d)}  # fmt: skip
    assert found == {(True, "reflect"), (False, "zero")}


def test_presets() -> None:
    facts = {
        "soundstream_24khz": (24000, 320, 24, 18.0),
        "soundstream_audiolm_16khz": (16000, 320, 12, 6.0),
        "soundstream_musiclm_24khz": (24000, 480, 12, 6.0),
    }
    assert facts.keys() == PRESETS.keys()
    for name, fact in facts.items():
        with torch.device("meta"):
            info = soundstream.build(name).info
        assert (info.sample_rate_hz, info.hop, info.n_codebooks, info.kbps) == fact
        assert info.codebook_size == 1024 and info.streamable
    with pytest.raises(WeightsError, match="none are published"):
        soundstream.build("soundstream_24khz").load_weights(None)
