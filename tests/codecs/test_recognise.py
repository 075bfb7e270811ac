"""Checkpoints that say what they are: converted files, folders of transformers, files of DAC."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fastcodec
from fastcodec import Codec, WeightsError
from fastcodec.codecs import FAMILIES, configs
from fastcodec.codecs.encodec import Encodec
from fastcodec.codecs.keys import tagged_state
from fastcodec.codecs.recognise import spec_of
from fastcodec.io import model_file

from .. import nets, oracles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_config_survives_json(family: Any) -> None:
    for name, config in family.PRESETS.items():
        text = json.dumps(configs.to_json(config))
        assert configs.from_json(family.CONFIG, json.loads(text), name) == config


def write(codec: Codec, path: Path, **changes: Any) -> Path:
    """The codec as a converted file, its spec changed."""
    spec = replace(spec_of(codec, FAMILIES), **changes)
    model_file.write(path, spec, tagged_state(codec))
    return path


def assert_same_codec(ours: Codec, theirs: Codec) -> None:
    assert (ours.name, ours.config) == (theirs.name, theirs.config)
    wav = nets.signal(1, ours.channels, 10 * ours.hop + 1)
    codes = ours.encode(wav)
    assert torch.equal(codes.tokens, theirs.encode(wav).tokens)
    assert torch.equal(ours.decode(codes), theirs.decode(codes))


def test_a_converted_file_needs_no_name(tmp_path: Path) -> None:
    net = nets.encodec()
    path = write(net, tmp_path / "net.safetensors")
    assert_same_codec(fastcodec.load(weights=path), net)
    assert sorted(load_file(path)) == sorted(
        n.replace("_v", "") for n in nets.checkpoint_shapes(net) if not n.endswith("_g")
    )


def test_convert_a_published_checkpoint(tmp_path: Path) -> None:
    """With weight norm and training's leftovers, by preset; the file then says the preset."""
    source, target = tmp_path / "published.th", tmp_path / "ours.safetensors"
    net = fastcodec.codecs.encodec.build("encodec_24khz")
    state = nets.checkpoint(net)
    state["quantizer.vq.layers.0._codebook.inited"] = torch.ones(1)
    torch.save({"best_state": state}, source)
    with pytest.raises(WeightsError, match="does not say which codec it is"):
        fastcodec.convert(source, target)
    assert not list(tmp_path.glob("*.safetensors*"))
    info = fastcodec.convert(source, target, "encodec_24khz")
    assert info.name == "encodec_24khz"
    converted = fastcodec.load(weights=target)
    net.load_weights(source)
    assert_same_codec(converted, net.eval())
    assert_same_codec(fastcodec.load("encodec_24khz", target), net)
    with pytest.raises(ValueError, match="must be a .safetensors file"):
        fastcodec.convert(source, tmp_path / "ours.pt", "encodec_24khz")


def damaged(net: Encodec) -> dict[str, Callable[[Path], Path]]:
    """Name of a damage -> a converted file that has it."""
    config = configs.to_json(net.config)
    seanet = config["seanet"]

    def changed(**values: Any) -> Callable[[Path], Path]:
        return lambda path: write(net, path, config={**config, **values})

    return {
        "known: .*soundstream": lambda path: write(net, path, family="nonsense"),
        "unknown fields: surprise": changed(surprise=1),
        "n_codebooks: expected int": changed(n_codebooks="4"),
        "expected int, got 99999999999": changed(codebook_size=99999999999),
        "asks for more layers": changed(seanet={**seanet, "n_residual_layers": 1 << 20}),
        "do(es)? not fit the model": changed(seanet={**seanet, "n_filters": 1 << 14}),
        "norm must be none": changed(seanet={**seanet, "norm": "batch_norm"}),
        "missing fields: bandwidths_kbps": lambda path: write(net, path, config={"seanet": seanet}),
    }


@pytest.mark.parametrize("what", damaged(nets.encodec()))
def test_specs_that_make_no_sense(what: str, tmp_path: Path) -> None:
    path = damaged(nets.encodec())[what](tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=what):
        fastcodec.load(weights=path)


def test_what_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fastcodec.load(weights=tmp_path / "nothing")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="does not say which codec it is"):
        fastcodec.load(weights=tmp_path / "plain.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="config.json: is no JSON"):
        fastcodec.load(weights=tmp_path)
    with pytest.raises(ValueError, match="give the name of a preset"):
        fastcodec.load()


def saved_by_transformers(kind: str, folder: Path) -> Any:
    """A small random model, saved as transformers saves it."""
    transformers = oracles.transformers()
    configs = {
        "Encodec": {"num_filters": 4, "hidden_size": 16, "codebook_dim": 16, "codebook_size": 32},
        "Dac": {
            "encoder_hidden_size": 8, "downsampling_ratios": [2, 3], "decoder_hidden_size": 32,
            "upsampling_ratios": [3, 2], "hidden_size": 32, "n_codebooks": 3, "codebook_size": 32,
        },
        "Mimi": {
            "num_filters": 4, "hidden_size": 32, "codebook_size": 32, "codebook_dim": 16,
            "vector_quantization_hidden_dimension": 16, "num_quantizers": 4, "head_dim": 8,
            "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4,
            "num_key_value_heads": 4, "upsample_groups": 32, "sliding_window": 20,
        },
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**configs[kind])
        model = getattr(transformers, f"{kind}Model")(config).eval().requires_grad_(False)
    for name, value in model.named_buffers():
        if name.endswith(("embed", "embed_sum")):
            value.copy_(torch.randn(value.shape, generator=nets.generator(1)))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["Encodec", "Dac", "Mimi"])
def test_a_folder_of_transformers(kind: str, tmp_path: Path) -> None:
    model = saved_by_transformers(kind, tmp_path / "model")
    codec = fastcodec.load(weights=tmp_path / "model")
    wav = nets.signal(1, 1, 20 * codec.hop)
    theirs = model.encode(wav)
    codes = theirs.audio_codes[0] if kind == "Encodec" else theirs.audio_codes
    ours = codec.encode(wav, n_codebooks=codes.shape[1])
    assert (ours.tokens == codes).float().mean() > 0.99
    heard = (
        model.decode(codes[None], [None]) if kind == "Encodec" else model.decode(audio_codes=codes)
    ).audio_values
    y = codec.decode(codes)
    torch.testing.assert_close(y, heard.reshape(y.shape), rtol=0, atol=1e-4 * float(heard.std()))
    converted = tmp_path / "ours.safetensors"
    fastcodec.convert(tmp_path / "model", converted)
    assert_same_codec(fastcodec.load(weights=converted), codec)
