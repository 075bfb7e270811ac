"""SpeechTokenizer beside speechtokenizer 1.0.1 (PyPI), and what holds of it and of AcademiCodec's
EnCodec, whose quantizer can begin with any codebook, too."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fastcodec
from fastcodec.codecs import academicodec, speechtokenizer
from fastcodec.codecs.encodec import EncodecConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codecs.speechtokenizer import SpeechTokenizer
from fastcodec.errors import WeightsError

from .. import nets, oracles
from ..backends import needs_native
from ..golden import compare
from .test_oracles import EPSILON, TOLERANCE, lively

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]

UPSTREAM = {
    "n_filters": 4, "strides": [8, 5, 4, 2], "dimension": 24, "semantic_dimension": 10,
    "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
    "lstm_layers": 2, "activation": "ELU", "codebook_size": 128, "n_q": 5, "sample_rate": 16000,
    "num_mels": 80, "betas": [0.9, 0.99],
}  # fmt: skip
NETS: dict[str, dict[str, Any]] = {
    "elu": {},
    "snake": {"activation": "Snake"},
    "no head": {"semantic_dimension": 24, "lstm_layers": 1, "n_residual_layers": 2},
}


@functools.cache
def oracle(name: str) -> Any:
    torch.manual_seed(0)
    net = oracles.speechtokenizer().SpeechTokenizer(UPSTREAM | NETS[name])
    for entry, value in net.named_parameters():
        if entry.endswith(".alpha"):
            torch.nn.init.uniform_(value, 0.5, 2)
    return lively(net.eval().requires_grad_(False), 1)


@functools.cache
def codec(name: str) -> SpeechTokenizer:
    """Ours, with the weights of upstream's net of this name."""
    config = speechtokenizer.from_upstream(UPSTREAM | NETS[name])
    net = speechtokenizer.build("small", config)
    net.load_weights(oracle(name).state_dict())
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("length", [1, 319, 320, 6721])
@pytest.mark.parametrize("name", NETS)
def test_against_upstream(name: str, length: int) -> None:
    theirs, ours = oracle(name), codec(name)
    wav = nets.signal(2, 1, length) * 5
    want = theirs.encode(wav)
    got = ours.encode(wav)
    assert got.tokens.shape == want.transpose(0, 1).shape
    assert_codes(ours, got.tokens, want.transpose(0, 1), theirs.encoder(wav))
    start = ours.from_codebook(2).encode(wav, n_codebooks=2)
    want_start = theirs.encode(wav, n_q=4, st=2).transpose(0, 1)
    assert_codes(ours.from_codebook(2), start.tokens, want_start, theirs.encoder(wav))
    tokens = want.transpose(0, 1)
    for heard, wanted in (
        (ours.decode(tokens), theirs.decode(want)),
        (ours.decode(tokens[:, :1]), theirs.decode(want[:1])),
        (ours.from_codebook(1).decode(tokens[:, 1:]), theirs.decode(want[1:], st=1)),
        (ours.semantic_features(tokens), theirs.forward(wav)[2]),
    ):
        assert heard.shape == wanted.shape
        assert (heard - wanted).abs().max() <= TOLERANCE * wanted.square().mean().sqrt()


def assert_codes(ours: SpeechTokenizer, got: Tensor, want: Tensor, latents: Tensor) -> None:
    """Equal, or excused by their margin."""
    residual, margins = latents.double().transpose(1, 2), []
    for level, words in enumerate(ours.quantizer.codebooks.double()[: want.shape[1]]):
        distance = torch.cdist(residual, words.expand(len(residual), -1, -1)).square()
        chosen = want[:, level, :, None]
        own = distance.gather(2, chosen)[..., 0]
        margins.append(distance.scatter(2, chosen, float("inf")).amin(2) - own)
        residual = residual - words[want[:, level]]
    epsilon = EPSILON * float(latents.double().square().sum(dim=1).mean())
    rows = (x.transpose(0, 1).flatten(1).numpy() for x in (got, want, torch.stack(margins, dim=1)))
    compare.codes(*rows, epsilon)  # type: ignore[arg-type]


def test_codes_of_these_nets_vary() -> None:
    for name in NETS:
        tokens = codec(name).encode(nets.signal(1, 1, 6721) * 5).tokens[0]
        assert tokens.unique(dim=1).shape[1] >= 0.8 * tokens.shape[1]


@needs_native
def test_the_encoder_is_fed_in_tiles() -> None:
    net = codec("elu")
    wav = nets.signal(2, 1, 15_003) * 5  # longer than two
    assert torch.equal(net.quantizer.encode(net.encoder(wav)), net.encode(wav).tokens)


def test_encoding_does_not_stream_but_decoding_does() -> None:
    net = codec("elu")
    info = net.info
    assert not info.streamable and info.decode_streamable
    assert "bidirectional" in str(info.not_streamable_because)
    with pytest.raises(ValueError, match="bidirectional"):
        net.stream().encode(torch.zeros(1, 1, 320))


def test_differing_entries_are_named_as_upstream_does() -> None:
    state = dict(oracle("snake").state_dict())
    del state["encoder.model.2.alpha"], state["decoder.model.2.alpha"]
    del state["encoder.model.13.lstm.weight_ih_l1_reverse"]
    state["extra"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        speechtokenizer.build("small", codec("snake").config).load_weights(state)
    lines = str(error.value).splitlines()[1:]
    assert sorted(line.split()[1] for line in lines) == [
        "decoder.model.2.alpha",
        "encoder.model.13.lstm.weight_ih_l1_reverse",
        "encoder.model.2.alpha",
        "extra",
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"activation": "ReLU"}, "activation must be ELU or Snake, got 'ReLU'"),
        ({"n_q": 0}, "n_q must be"),
        ({"compress": 4}, "unknown settings: compress"),
        ({"strides": 8}, "strides must be"),
    ],
)
def test_settings_that_are_not_built_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        speechtokenizer.from_upstream(UPSTREAM | change)


def test_the_presets_are_the_published_settings() -> None:
    published = {**UPSTREAM, "n_filters": 64, "dimension": 1024, "semantic_dimension": 768}
    published |= {"codebook_size": 1024, "n_q": 8}
    for name, activation in (("", "ELU"), ("_snake", "Snake")):
        preset = speechtokenizer.PRESETS[f"speechtokenizer_16khz{name}"]
        made = speechtokenizer.from_upstream(published | {"activation": activation})
        assert made.seanet == preset.seanet
        assert (made.n_codebooks, made.codebook_size) == (preset.n_codebooks, preset.codebook_size)


@pytest.mark.parametrize("name", NETS)
def test_a_folder_with_its_config_loads_and_converts(name: str, tmp_path: Path) -> None:
    torch.save(oracle(name).state_dict(), tmp_path / "SpeechTokenizer.pt")
    (tmp_path / "config.json").write_text(json.dumps(UPSTREAM | NETS[name]))
    loaded = fastcodec.load(weights=tmp_path)
    fastcodec.convert(tmp_path, tmp_path.with_suffix(".safetensors"))
    converted = fastcodec.load(weights=tmp_path.with_suffix(".safetensors"))
    want = codec(name).state_dict()
    for net in (loaded, converted):
        assert net.config == codec(name).config
        assert all(torch.equal(value, want[key]) for key, value in net.state_dict().items())


def test_from_codebook_shares_and_names_what_is_left() -> None:
    net = codec("elu")
    rest = net.from_codebook(2)
    assert rest.name == "small[2:]" and rest.info.n_codebooks == 3
    assert net.name == "small" and net.info.n_codebooks == 5
    assert rest.quantizer.codebooks.data_ptr() == net.quantizer.codebooks[2:].data_ptr()
    assert rest.encoder is net.encoder
    codes = rest.encode(nets.signal(1, 1, 700))
    with pytest.raises(ValueError, match=r"of 'small\[2:\]', this is 'small'"):
        net.decode(codes)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match="has codebooks 0 to 4"):
            net.from_codebook(wrong)


def test_academicodec_checkpoints_of_several_devices(tmp_path: Path) -> None:
    """Upstream saves the wrapper of its distributed training: every name begins with module."""
    seanet = SeanetConfig(n_filters=4, dimension=12, ratios=(4, 2), causal=False)
    config = EncodecConfig(800, seanet, 3, 16, ())
    net = academicodec.build("small", config)
    state = nets.checkpoint(net)
    net.load_weights(state)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "a.pth")
    twin = academicodec.build("small", config)
    twin.load_weights(tmp_path / "a.pth")
    wav = nets.signal(1, 1, 300)
    assert torch.equal(net.eval().encode(wav).tokens, twin.eval().encode(wav).tokens)
