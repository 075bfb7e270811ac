"""Mimi beside moshi and transformers, and its checkpoints' spellings.

Small nets with random weights, whose transformers see 7 steps.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcodec import WeightsError
from fastcodec.codecs import configs, mimi
from fastcodec.codecs.keys import upstream_names
from fastcodec.codecs.mimi import Mimi, MimiConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.layers.quantize import ProjectedQuantizer
from fastcodec.layers.transformer import LayerScale, TransformerConfig

from .. import nets, oracles
from ..golden import compare

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-4  # of the rms; two float32 implementations differ by about 1e-5
EPSILON = 1e-4  # of the latents' squared length: a gap that rounding may decide

SMALL = MimiConfig(
    sample_rate_hz=800,
    seanet=SeanetConfig(
        dimension=16, n_filters=4, ratios=(4, 2), last_kernel_size=3, lstm=0, padding="zero",
        true_skip=True, norm="none",
    ),
    transformer=TransformerConfig(layers=2, heads=2, feed_forward=24, context=7),
    upsample_groups=16,
    n_codebooks=4,
    codebook_size=32,
    codebook_dimension=8,
    bandwidths_kbps=(0.25, 0.5, 1.0),
)  # fmt: skip


@torch.no_grad()
def small(config: MimiConfig = SMALL) -> Mimi:
    """A small Mimi with random weights, in evaluation mode, that uses many codes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Mimi(config, "small").eval().requires_grad_(False)
    g = nets.generator(3)
    for layer in net.modules():
        if isinstance(layer, LayerScale):
            layer.scale.copy_(0.3 + torch.rand(layer.scale.shape, generator=g))
    latent = net.encoder(nets.signal(1, net.channels, 40 * net.hop))
    for part in (net.quantizer.first, net.quantizer.rest):
        spread(part.residual.codebooks, part.in_proj(latent), g)
    return net


def spread(books: Tensor, latent: Tensor, g: torch.Generator) -> None:
    """Codebooks [K, N, D] as wide as latents [1, D, T]."""
    books.copy_(torch.randn(books.shape, generator=g))
    books *= 0.8 ** torch.arange(len(books)).view(-1, 1, 1) * latent.std(dim=2)
    books[0] += latent.mean(dim=2)


@torch.no_grad()
def checkpoint(net: Mimi) -> dict[str, Tensor]:
    """The state dict that moshi would have of a net."""
    state, own, g = {}, net.state_dict(), nets.generator(5)
    for name, theirs in upstream_names(net).items():
        values = own[name].unbind(0) if name.endswith(".codebooks") else [own[name]]
        for upstream, value in zip(theirs, values, strict=True):
            if "_transformer." in upstream and value.ndim == 3:
                value = value[..., 0]
            if upstream.endswith("embedding_sum"):
                path = upstream.removesuffix("embedding_sum")
                usage = 0.5 + torch.rand(len(value), generator=g)
                usage[3] = 1e-6  # a word that is hardly used: its sum is divided by 1e-5
                state[f"{path}_initialized"] = torch.ones(1)
                state[f"{path}cluster_usage"] = usage
                value = value * usage.clamp(min=1e-5)[:, None]
            state[upstream] = value.clone()
    return state


def loaded(state: Any, config: MimiConfig = SMALL) -> Mimi:
    net = Mimi(config, "small")
    net.load_weights(state)
    return net.eval().requires_grad_(False)


def parts(net: Mimi, tokens: Tensor) -> Iterator[tuple[ProjectedQuantizer, Tensor]]:
    """Each part of the quantizer with its codes."""
    yield net.quantizer.first, tokens[:, :1]
    yield net.quantizer.rest, tokens[:, 1:]


def assert_codes(net: Mimi, wav: Tensor, got: Tensor, want: Tensor) -> None:
    """Codes equal, or excused by their margin in float64; and they vary."""
    latent = net.encoder(wav)
    for (part, mine), (_, theirs) in zip(parts(net, got), parts(net, want), strict=True):
        residual = part.in_proj(latent).double().transpose(1, 2)
        epsilon, margins = EPSILON * float(residual.square().sum(2).mean()), []
        for level, words in enumerate(part.residual.codebooks.double()[: theirs.shape[1]]):
            distance = torch.cdist(residual, words.expand(len(residual), -1, -1)).square()
            chosen = theirs[:, level, :, None]
            others = distance.scatter(2, chosen, float("inf")).amin(2)
            margins.append(others - distance.gather(2, chosen)[..., 0])
            residual = residual - words[theirs[:, level]]
        rows = [torch.cat(list(x.unbind(0)), dim=1) for x in (mine, theirs)]
        margin = torch.cat(list(torch.stack(margins, dim=1).unbind(0)), dim=1)
        compare.codes(rows[0].numpy(), rows[1].numpy(), margin.numpy(), epsilon)


def assert_audio(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= TOLERANCE * want.square().mean().sqrt()


@functools.cache
def moshi() -> tuple[Any, Mimi]:
    """moshi's model and ours, from one state dict."""
    config, net = SMALL, small()
    seanet = {
        "channels": 1, "dimension": 16, "causal": True, "n_filters": 4, "n_residual_layers": 1,
        "compress": 2, "dilation_base": 2, "kernel_size": 7, "residual_kernel_size": 3,
        "last_kernel_size": 3, "norm": "none", "pad_mode": "constant", "ratios": [4, 2],
        "true_skip": True,
    }  # fmt: skip
    layers = {
        "d_model": 16, "num_heads": 2, "num_layers": 2, "causal": True, "layer_scale": 0.01,
        "context": 7, "conv_layout": True, "max_period": 10000, "gating": "none",
        "norm": "layer_norm", "positional_embedding": "rope", "dim_feedforward": 24,
        "input_dimension": 16, "output_dimensions": [16],
    }  # fmt: skip
    rvq = {
        "dimension": 8, "n_q": 4, "bins": 32, "input_dimension": 16, "output_dimension": 16,
    }  # fmt: skip
    theirs = oracles.moshi("moshi.models.loaders").get_mimi(
        None,
        {
            "sample_rate": 800, "channels": 1, "frame_rate": 50.0, "seanet": seanet,
            "transformer": layers, "quantizer": rvq,
        },
        num_codebooks=4,
    )  # fmt: skip
    state = checkpoint(net)
    theirs.load_state_dict(state)
    return theirs.eval().requires_grad_(False), loaded(state, config)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 100, 16 * 30 + 5])
def test_against_moshi(length: int) -> None:
    theirs, ours = moshi()
    wav = nets.signal(2, 1, length)
    codes = theirs.encode(wav)
    got = ours.encode(wav)
    padded = torch.nn.functional.pad(wav, (0, -length % ours.hop))
    assert_codes(ours, padded, got.tokens, codes)
    assert_audio(ours.decode(codes), theirs.decode(codes))


def test_fewer_codebooks_as_moshi() -> None:
    theirs, ours = moshi()
    codes = theirs.encode(nets.signal(1, 1, 200))
    for count in (1, 2, 3):
        assert_audio(ours.decode(codes[:, :count]), theirs.decode(codes[:, :count]))


def test_streams_as_moshi_within_the_window() -> None:
    """Three frames are six steps; the seventh would be the last that both agree on."""
    theirs, ours = moshi()
    wav = nets.signal(1, 1, 3 * ours.hop)
    pieces = wav.split(ours.hop, dim=2)
    with theirs.streaming(1):
        codes = torch.cat([theirs.encode(x) for x in pieces], dim=2)
        heard = torch.cat([theirs.decode(c) for c in codes.split(1, dim=2)], dim=2)
    stream = ours.stream()
    assert_codes(ours, wav, torch.cat([stream.encode(x).tokens for x in pieces], dim=2), codes)
    assert_audio(torch.cat([stream.decode(c) for c in codes.split(1, dim=2)], dim=2), heard)


@functools.cache
def transformers(**changes: Any) -> Any:
    """transformers' model with random weights that use many codes."""
    package = oracles.transformers()
    settings = {
        "sampling_rate": 800, "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [4, 2],
        "num_quantizers": 4, "codebook_size": 32, "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8, "upsample_groups": 16, "num_hidden_layers": 2,
        "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2,
        "sliding_window": 7,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        theirs = package.MimiModel(package.MimiConfig(**settings | changes)).eval()
    theirs.requires_grad_(False)
    g = nets.generator(6)
    for name, value in theirs.named_parameters():
        if name.endswith("layer_scale.scale"):
            value.copy_(0.3 + torch.rand(value.shape, generator=g))
    latent = theirs.encoder(nets.signal(1, 1, 40 * 16)).latents
    for part in theirs.quantizer.children():
        books = torch.stack([layer.codebook.embed_sum for layer in part.layers])
        spread(books, part.input_proj(latent), g)
        for layer, book in zip(part.layers, books, strict=True):
            layer.codebook.cluster_usage.copy_(0.5 + torch.rand(len(book), generator=g))
            layer.codebook.embed_sum.copy_(book * layer.codebook.cluster_usage[:, None])
            layer.codebook.initialized.fill_(1)
    return theirs


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 1}, {"head_dim": 4}], ids=str)
def test_against_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    """From what save_pretrained writes: flat names and a config.json."""
    theirs = transformers(**changes)
    theirs.save_pretrained(tmp_path)
    config = mimi.from_upstream(json.loads((tmp_path / "config.json").read_text()))
    if not changes:
        assert config == replace(SMALL, bandwidths_kbps=())
    ours = loaded(tmp_path / "model.safetensors", config)
    for frames in (1, 2, 30):  # transformers does not fill up the signal
        wav = nets.signal(2, 1, frames * ours.hop)
        codes = theirs.encode(wav).audio_codes
        assert_codes(ours, wav, ours.encode(wav).tokens, codes)
        assert_audio(ours.decode(codes), theirs.decode(codes).audio_values)


def assert_same_net(a: Mimi, b: Mimi) -> None:
    other = b.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_transformers_nested_names() -> None:
    """The names of the modules of transformers 5, where they are written as they are."""
    theirs = transformers()
    state = theirs.state_dict()
    assert any(name.startswith("encoder.encoder_seanet.layers.") for name in state)
    flat = {
        re.sub(r"^(encoder|decoder)\.(\w+_transformer|downsample|upsample)", r"\2", name): value
        for name, value in state.items()
    }
    flat = {re.sub(r"(en|de)coder_seanet\.", "", name): value for name, value in flat.items()}
    assert_same_net(loaded(state), loaded(flat))


OLD_SPELLING = (
    (r"in_projs\.0\.weight", "in_proj_weight"),
    (r"out_projs\.0\.", "out_proj."),
    (r"_initialized", "inited"),
    (r"cluster_usage", "cluster_size"),
    (r"embedding_sum", "embed_avg"),
)


def test_moshis_older_names() -> None:
    state = checkpoint(small())
    old = {}
    for name, value in state.items():
        for new, before in OLD_SPELLING:
            name = re.sub(new, before, name)
        old[name] = value
    assert (
        len(old) == len(state)
        and "encoder_transformer.transformer.layers.1.self_attn.in_proj_weight" in old
    )
    assert_same_net(loaded(old), loaded(state))


def test_a_checkpoint_that_lacks_something() -> None:
    state = checkpoint(small())
    name = "encoder_transformer.transformer.layers.0.linear1.weight"
    with pytest.raises(WeightsError, match=f"missing: {re.escape(name)}"):
        loaded({n: v for n, v in state.items() if n != name})
    name = "quantizer.rvq_rest.vq.layers.1._codebook.cluster_usage"
    with pytest.raises(WeightsError, match=f"needs {re.escape(name)} beside it"):
        loaded({n: v for n, v in state.items() if n != name})
    theirs = transformers().state_dict()
    name = "encoder.encoder_transformer.layers.1.self_attn.k_proj.weight"
    with pytest.raises(WeightsError) as error:
        loaded({n: v for n, v in theirs.items() if n != name})
    joined = "missing: encoder_transformer.layers.1.self_attn.{q,k,v}_proj.weight"
    assert joined in str(error.value)
    for wrong in (theirs[name][:3], theirs[name][:, :3], theirs[name][0]):
        with pytest.raises(WeightsError, match=re.escape(joined)):
            loaded(theirs | {name: wrong})
    name = "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.cluster_usage"
    with pytest.raises(WeightsError, match="a usage for each row"):
        loaded(theirs | {name: theirs[name][:5]})


@pytest.mark.parametrize(
    "changed, why",
    [
        ({"model_type": "dac"}, "is of a 'dac'"),
        ({"use_causal_conv": False}, "use_causal_conv must be True"),
        ({"pad_mode": "reflect"}, "pad_mode must be 'constant'"),
        ({"hidden_act": "gelu_new"}, "hidden_act must be gelu or silu"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type"),
        ({"codebook_dim": 64}, "codebook_dim"),
        ({"num_semantic_quantizers": 32}, "n_semantic must be"),
        ({"num_attention_heads": 7}, "heads must divide"),
        ({"frame_rate": 11.0}, "steps a frame"),
        ({"sliding_window": "all"}, "sliding_window must be"),
        ({"encoder_config": None}, "unknown settings: encoder_config"),
    ],
    ids=str,
)
def test_configurations_that_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        mimi.from_upstream(changed)


def test_the_published_configuration_is_the_preset() -> None:
    """With transformers' defaults, and with the fields that the published file has besides."""
    preset = mimi.PRESETS["mimi_24khz"]
    want = replace(preset, bandwidths_kbps=(), hub="", licence="")
    assert mimi.from_upstream({}) == want
    published = {
        "model_type": "mimi", "architectures": ["MimiModel"], "frame_rate": 12.5, "head_dim": 64,
        "normalize": False, "rope_theta": 10000.0, "sliding_window": 250, "torch_dtype": "float32",
    }  # fmt: skip
    assert mimi.from_upstream(published) == want
    assert configs.from_json(MimiConfig, configs.to_json(preset), "here") == preset


def test_facts() -> None:
    with torch.device("meta"):
        info = mimi.build("mimi_24khz").info
    assert (info.sample_rate_hz, info.hop, info.frame_rate_hz) == (24000, 1920, 12.5)
    assert (info.n_codebooks, info.codebook_size, info.latency) == (32, 2048, 0)
    assert info.streamable and info.kbps == 4.4
    assert info.parameters == 79_308_609 + 32 * 2048 * 256  # the net's, as moshi counts; words
