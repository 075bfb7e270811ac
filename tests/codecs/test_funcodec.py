"""FunCodec beside funcodec 0.2.0 (PyPI) in every form of its nets, and what holds of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import fastcodec
from fastcodec import Codes, _native
from fastcodec.codecs import funcodec
from fastcodec.codecs.funcodec import FreqCodec, Funcodec, SemanticCodec
from fastcodec.errors import WeightsError
from fastcodec.io.funcodec_txt import read_codecs_txt, write_codecs_txt

from .. import nets, oracles
from ..backends import needs_native, threads

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]

TOLERANCE = 1e-4  # of the rms; two float32 implementations differ by about 1e-5

_NET = {"n_filters": 4, "norm": "time_group_norm", "causal": False}
_QUANTIZER = {
    "codebook_size": 32, "num_quantizers": 4, "sampling_rate": 1600, "encoder_hop_length": 8,
    "rand_num_quant": [1, 2, 4], "ema_decay": 0.99, "kmeans_init": False, "use_ddp": True,
}  # fmt: skip
_TIME: dict[str, Any] = {
    "input_size": 1,
    "encoder": "encodec_seanet_encoder",
    "encoder_conf": {**_NET, "ratios": [4, 2], "dimension": 12},
    "quantizer": "costume_quantizer",
    "quantizer_conf": _QUANTIZER,
    "decoder": "encodec_seanet_decoder",
    "decoder_conf": {**_NET, "ratios": [4, 2]},
    "model": "encodec",
    "model_conf": {"odim": 12, "audio_normalize": True, "segment_dur": None, "overlap_ratio": None},
    "batch_size": 16,
    "optim_conf": {"lr": 0.0003},
}
_PAIRS = {"ratios": [[4, 1], [4, 2]], "norm_params": {"num_groups": 1}, "dilation_base": 1}
_SPECTRA = {
    **_TIME,
    "input_size": 3,
    "encoder": "encodec_seanet_encoder_2d",
    "encoder_conf": {**_NET, **_PAIRS, "dimension": 12},
    "decoder": "encodec_seanet_decoder_2d",
    "decoder_conf": {**_NET, **_PAIRS, "channels": 3},
    "model": "freq_codec",
    "model_conf": {
        **_TIME["model_conf"],
        "codec_domain": ["mag_phase", "mag_phase"],
        "domain_conf": {"n_fft": 32, "hop_length": 12},
    },
}
_SEMANTIC = {**_TIME, "model": "codec_semantic_aug"}
_CAUSAL = {"norm": "weight_norm", "causal": True}


def form(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A config.yaml with changes of both nets (by their names) and of the parts named."""
    parts = {key: value for key, value in changes.items() if key in base}
    both = {key: value for key, value in changes.items() if key not in base}
    new = {**base}
    for part in ("encoder_conf", "decoder_conf"):
        new[part] = {**base[part], **both}
    for part, value in parts.items():
        new[part] = {**new[part], **value} if isinstance(value, dict) else value
    return new


def domains(first: str, second: str, channels: tuple[int, int]) -> dict[str, Any]:
    """FreqCodec in other domains."""
    conf = {"codec_domain": [first, second]}
    out = {"channels": channels[1]}
    return form(_SPECTRA, input_size=channels[0], model_conf=conf, decoder_conf=out)


FORMS: dict[str, dict[str, Any]] = {
    "time": _TIME,
    "causal, level not taken": form(_TIME, **_CAUSAL, model_conf={"audio_normalize": False}),
    "soundstream": form(_TIME, **_CAUSAL, n_residual_layers=3, seq_model="none"),
    "snake": form(_TIME, activation="snake", seq_model=None, true_skip=True),
    "more snakes": form(_TIME, add_snake_activation=True, res_seq=False, seq_layer_num=1),
    "leaky, tanh, causal": form(
        _TIME, **_CAUSAL, activation="LeakyReLU", activation_params={"negative_slope": 0.3},
        pad_mode="constant",
        decoder_conf={"trim_right_ratio": 0.4, "final_activation": "Tanh"},
    ),
    "relu, replicate": form(
        _TIME, activation="ReLU", activation_params={}, pad_mode="replicate", norm="none",
        residual_kernel_size=5, compress=1, kernel_size=5, last_kernel_size=3,
    ),
    "even width": form(
        _TIME, norm="time_layer_norm", encoder_conf={"double_filters": False},
        decoder_conf={"half_filters": False},
    ),
    "transformer": form(_TIME, seq_model="transformer", seq_layer_num=1),
    "causal transformer": form(_TIME, **_CAUSAL, seq_model="transformer", res_seq=False),
    "stereo": form(_TIME, input_size=2, decoder_conf={"channels": 2}),
    "codec_dim": form(_TIME, quantizer_conf={"codec_dim": 6}),
    "codec_range": form(_TIME, quantizer_conf={"codec_dim": 5, "codec_range": 1.5}),
    "q0_ds_ratio": form(_TIME, quantizer_conf={"q0_ds_ratio": 2}),
    "spectra": _SPECTRA,
    "spectra in groups": form(
        _SPECTRA, n_filters=8, conv_group_ratio=2, decoder_conf={"tr_conv_group_ratio": 1}
    ),
    "causal spectra": form(_SPECTRA, **_CAUSAL, dilation_base=2, n_residual_layers=2),
    "other spectra": form(
        _SPECTRA, activation="snake", seq_model="transformer", seq_layer_num=1, true_skip=True,
        ratios=[[2, 3], [8, 1]],
    ),
    "angles": domains("mag_angle", "mag_angle", (2, 2)),
    "magnitudes": domains("mag", "mag_phase", (1, 3)),
    "stft": domains("stft", "stft", (2, 2)),
    "oracle phase": domains("mag_oracle_phase", "mag_oracle_phase", (1, 1)),
    "addition": form(_SEMANTIC, model_conf={"ppg_conf": {"ppg_usage_mod": "addition"}}),
    "concat": form(
        _SEMANTIC, model_conf={"ppg_conf": {"ppg_usage_mod": "concat", "ppg_ds_type": "every"}}
    ),
    "residual": form(_SEMANTIC, model_conf={"ppg_conf": {"ppg_dim": 7, "ppg_ds_rate": 3}}),
    "supervision": form(
        _SEMANTIC, model_conf={"ppg_conf": {"ppg_usage_mod": "supervision"}}
    ),
}  # fmt: skip
MODELS = {
    "encodec": ("codec_basic", "Encodec"),
    "freq_codec": ("codec_freq", "FreqCodec"),
    "codec_semantic_aug": ("codec_semantic_aug", "CodecSemanticAug"),
}


@functools.cache
def oracle(name: str) -> Any:
    """Upstream's net, put together as its ``build_model`` does, with lively codebooks."""
    given = FORMS[name]

    def made(module: str, kind: str, **arguments: Any) -> Any:
        return getattr(oracles.funcodec(f"funcodec.models.{module}"), kind)(**arguments)

    torch.manual_seed(0)
    flat = "2d" if given["encoder"].endswith("_2d") else ""
    encoder_conf, decoder_conf = ({**given[f"{part}_conf"]} for part in ("encoder", "decoder"))
    encoder = made(
        "encoder.seanet_encoder", f"SEANetEncoder{flat}", input_size=given["input_size"],
        **encoder_conf,
    )  # fmt: skip
    decoder = made("decoder.seanet_decoder", f"SEANetDecoder{flat}", input_size=12, **decoder_conf)
    quantizer = made(
        "quantizer.costume_quantizer", "CostumeQuantizer", input_size=12, **given["quantizer_conf"]
    )
    module, kind = MODELS[given["model"]]
    net = made(
        module, kind, input_size=given["input_size"], encoder=encoder, quantizer=quantizer,
        decoder=decoder, multi_spectral_window_powers_of_two=[], **given["model_conf"],
    )  # fmt: skip
    return lively(net.eval().requires_grad_(False), given["input_size"] if not flat else 1)


def lively(net: Any, channels: int) -> Any:
    """The net with codebooks as wide as its latents, so that random weights use many codes."""
    for name, value in net.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.uniform_(value, 0.5, 2)
    latent = net._encode(nets.signal(1, channels, 400))[0][0]
    quantizer = net.quantizer
    latent = latent if quantizer.input_proj is None else quantizer.input_proj(latent)
    for level, book in enumerate(quantizer.rq.model.embed):
        noise = torch.randn(book.shape, generator=nets.generator(level))
        book.copy_(noise * latent.std(dim=1) * 0.85**level)
        book.add_(latent.mean(dim=1) if level == 0 else 0)
    return net


@functools.cache
def codec(name: str) -> Any:
    """Ours, with the weights of upstream's net of this form."""
    net = funcodec.build("small", funcodec.from_upstream(FORMS[name]))
    net.load_weights(oracle(name).state_dict())
    return net.eval().requires_grad_(False)


def phones(name: str, batch: int, length: int) -> dict[str, Tensor]:
    """The argument ppg where the form takes one: classes of every few samples."""
    if FORMS[name]["model"] != "codec_semantic_aug":
        return {}
    shape = (batch, length // 4 + 3)
    return {"ppg": torch.randint(0, 7, shape, generator=nets.generator(9))}


def close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= TOLERANCE * want.square().mean().sqrt()


@pytest.mark.parametrize("length", [17, 160, 815])
@pytest.mark.parametrize("name", FORMS)
def test_against_upstream(name: str, length: int) -> None:
    theirs, ours = oracle(name), codec(name)
    if name == "angles":  # of frames that are symmetric, rounding decides the sign
        theirs.enc_trans_func.forward = lambda x: torch.view_as_complex(
            ours.encoder.spectrum(x[:, None]).float().transpose(1, 2)
        )
    wav = nets.signal(2, ours.channels, length, seed=4) * 3
    ppg = phones(name, 2, length)
    want = upstream(name, wav, ppg)
    got = ours.encode(wav, **({} if name == "supervision" else ppg))
    assert torch.equal(got.tokens.transpose(0, 1), want["tokens"])
    if want["scale"] is not None:
        close(got.scale, want["scale"])
    extra = {"phase": ours.phase(wav)} if name == "oracle phase" else ppg
    heard = ours.decode(got, **extra)
    frames = want["audio"].shape[2]
    close(heard[..., :frames], want["audio"])
    assert not heard[..., frames:].any()
    if not extra:
        tokens = want["tokens"].permute(1, 2, 0)
        close(
            ours.decode(got.tokens),
            theirs.inference_decoding(tokens)["recon_speech"].view(2, ours.channels, -1),
        )


def upstream(name: str, wav: Tensor, ppg: dict[str, Tensor]) -> dict[str, Any]:
    """Tokens [K, B, T], level and audio of upstream's net, by its steps where its own way fails.

    One signal at a time: in the domain "stft" it mixes up the levels of several.
    """
    net = oracle(name)
    if not ppg:
        outs = [net.inference(row[None]) for row in wav]
        tokens = torch.cat([out["code_indices"][0] for out in outs], dim=1)
        levels = [out["code_embeddings"][0][1] for out in outs]
        levels = [level[0] if isinstance(level, tuple) else level for level in levels]
        audio = torch.cat([out["recon_speech"].view(1, len(wav[0]), -1) for out in outs])
        scale = None if levels[0] is None else torch.cat(levels)
        return {"tokens": tokens, "scale": scale, "audio": audio[..., : wav.shape[2]]}
    (emb, scale), usage = net._encode(wav)[0], net.ppg_usage_mod
    classes = net._process_ppg(ppg["ppg"], None, wav.shape[2])[0]
    missing = emb.shape[1] - classes.shape[2]
    classes = torch.nn.functional.pad(classes, (0, missing), "replicate").transpose(1, 2)
    taken_off = classes if usage == "residual" else torch.zeros(())
    quantised, tokens, _ = net.quantizer.inference(emb - taken_off)
    if usage == "concat":
        quantised = net._add_ppg_to_code(classes.transpose(1, 2), quantised)
    elif usage != "supervision":
        quantised = quantised + classes
    audio = net._decode([(quantised, scale)])[..., : wav.shape[2]]
    return {"tokens": tokens, "scale": scale, "audio": audio}


@pytest.mark.parametrize("name", FORMS)
def test_codes_of_these_nets_vary(name: str) -> None:
    net = codec(name)
    tokens = net.encode(nets.signal(1, net.channels, 803) * 3, **encode_ppg(name, 1, 803)).tokens[0]
    assert tokens.unique(dim=1).shape[1] >= 0.7 * tokens.shape[1]


def encode_ppg(name: str, batch: int, length: int) -> dict[str, Tensor]:
    return phones(name, batch, length) if name == "residual" else {}


INVARIANT = (
    "soundstream", "snake", "transformer", "causal transformer", "stereo", "codec_range",
    "q0_ds_ratio", "spectra in groups", "angles", "stft",
)  # fmt: skip


@needs_native
@pytest.mark.parametrize("name", INVARIANT)
def test_any_batch_list_and_threads(name: str) -> None:
    net = codec(name)
    wav = nets.signal(4, net.channels, 1203) * 3
    whole = net.encode(wav)
    heard = net.decode(whole)
    for n_threads in (1, 2, 3):
        with threads(n_threads):
            for rows in ([3], [1, 0], [2, 3, 1, 0]):
                some = net.encode(wav[rows])
                assert torch.equal(some.tokens, whole.tokens[rows])
                assert some.scale is not None and torch.equal(some.scale, whole.scale[rows])
                assert torch.equal(net.decode(some), heard[rows])
            ragged = net.encode([wav[1], wav[0, :, :500], wav[2]])
            together = net.decode(ragged)
    assert torch.equal(ragged.tokens[[0, 2]], whole.tokens[[1, 2]])
    assert torch.equal(together[[0, 2]], heard[[1, 2]])
    alone = net.encode(wav[0, :, :500])
    assert torch.equal(ragged.tokens[1, :, : alone.tokens.shape[2]], alone.tokens[0])
    assert torch.equal(together[1, :, :500], net.decode(alone)[0])


@needs_native
@pytest.mark.parametrize("kind", ["funcodec_en_16k_nq32ds320", "freqcodec_en_16k_gr1nq32ds320"])
def test_full_size_on_any_threads(kind: str) -> None:
    """Sizes at which the kernels do share their work between threads."""
    torch.manual_seed(0)
    net = nets.lively(funcodec.build(kind).eval().requires_grad_(False))
    wav = nets.signal(2, 1, 32_011)
    whole = net.encode(wav)
    heard = net.decode(whole)
    for n_threads in (2, 3):
        with threads(n_threads):
            assert torch.equal(net.encode(wav[[1]]).tokens, whole.tokens[[1]])
            assert torch.equal(net.decode(whole[1]), heard[[1]])
    assert whole.tokens[0].unique(dim=1).shape[1] >= 0.8 * whole.tokens.shape[2]


@needs_native
def test_rows_with_phone_classes() -> None:
    net = codec("residual")
    assert isinstance(net, SemanticCodec)
    wavs = [nets.signal(1, n, seed=n) * 3 for n in (803, 401)]
    ppg = [torch.randint(0, 7, (n // 4,), generator=nets.generator(n)) for n in (803, 401)]
    together = net.encode(wavs, ppg=ppg)
    heard = net.decode(together, ppg=ppg)
    for i, (wav, row) in enumerate(zip(wavs, ppg, strict=True)):
        alone = net.encode(wav, ppg=row)
        assert torch.equal(together.tokens[i, :, : alone.tokens.shape[2]], alone.tokens[0])
        assert torch.equal(heard[i, :, : wav.shape[1]], net.decode(alone, ppg=row)[0])
        posteriors = torch.nn.functional.one_hot(row, 7).float()
        assert torch.equal(net.encode(wav, ppg=posteriors).tokens, alone.tokens)
    for wrong in (
        None,
        ppg[0],
        [ppg[0], ppg[1] + 7],
        [ppg[0], ppg[1][:0]],
        [p.float() for p in ppg],
    ):
        with pytest.raises(ValueError, match="ppg: "):
            net.encode(wavs, ppg=wrong)


@pytest.mark.parametrize("name", ["time", "soundstream", "spectra"])
def test_what_streams(name: str) -> None:
    info = codec(name).info
    assert not info.streamable and info.decode_streamable == (name == "soundstream")
    reason = {"time": "group norm", "soundstream": "one level", "spectra": "spectra"}[name]
    assert reason in str(info.not_streamable_because)
    assert codec("causal, level not taken").info.streamable


@needs_native
def test_a_causal_net_works_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    net = codec("soundstream")
    wav = nets.signal(2, 1, 2003) * 3
    whole, calls = net.encode(wav), []
    push = net.encoder.push

    def counted(x: Tensor, state: Any, final: bool = False) -> Tensor:
        calls.append(x.shape[2])
        return push(x, state, final)

    monkeypatch.setattr(net.encoder, "push", counted)
    assert torch.equal(net.encode(wav).tokens, whole.tokens) and len(calls) > 3
    assert torch.equal(
        net.quantizer.encode(net.encoder(wav / whole.scale[..., None])), whole.tokens
    )


@pytest.mark.parametrize(
    "length, frames, samples", [(15_999, 50, 15_840), (16_000, 51, 16_160), (257, 1, 160)]
)
def test_lengths_of_spectra(length: int, frames: int, samples: int) -> None:
    """As upstream's: bare tokens give what the spectra hold, Codes the signal's length."""
    torch.manual_seed(0)
    net = funcodec.build("freqcodec_en_16k_gr1nq32ds320").eval().requires_grad_(False)
    assert isinstance(net, FreqCodec) and net.n_frames(length) == frames
    codes = net.encode(nets.signal(1, length))
    assert codes.tokens.shape[2] == frames
    assert net.decode(codes.tokens).shape[2] == samples
    heard = net.decode(codes)
    assert heard.shape[2] == length and not heard[..., samples:].any()
    with pytest.raises(ValueError, match="257 samples or more, got 256"):
        net.encode(nets.signal(1, 256))


def test_levels() -> None:
    """Codes carry the level, tokens do not; without it the sound comes at the nets' own."""
    net = codec("time")
    wav = nets.signal(1, 803)
    codes, loud = net.encode(wav), net.encode(4 * wav)
    assert torch.equal(codes.tokens, loud.tokens)
    close(net.decode(loud), 4 * net.decode(codes))
    bare = Codes(codes.tokens, codes.frame_rate_hz, codes.n_samples, codes.codec)
    assert torch.equal(net.decode(bare), net.decode(codes.tokens)[..., :803])
    silent = net.encode(torch.zeros(803))
    assert torch.isfinite(net.decode(silent)).all()


@pytest.mark.parametrize(
    "name", ["time", "more snakes", "spectra in groups", "residual", "codec_dim"]
)
def test_a_folder_with_its_config_loads_and_converts(name: str, tmp_path: Path) -> None:
    state = {f"discriminator.{i}.weight": torch.zeros(1) for i in range(3)}
    state |= {"mel_spec_transforms.0.mel_basis": torch.zeros(2), **oracle(name).state_dict()}
    torch.save(state, tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(FORMS[name]))
    loaded = fastcodec.load(weights=tmp_path)
    fastcodec.convert(tmp_path, tmp_path / "ours.safetensors")
    converted = fastcodec.load(weights=tmp_path / "ours.safetensors")
    want = codec(name).state_dict()
    for net in (loaded, converted):
        assert net.config == codec(name).config
        assert all(torch.equal(value, want[key]) for key, value in net.state_dict().items())


def test_a_preset_becomes_what_its_folder_says(tmp_path: Path) -> None:
    torch.save(oracle("time").state_dict(), tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(_TIME))
    net = fastcodec.load("funcodec_en_16k_nq32ds640", tmp_path)
    assert isinstance(net, Funcodec) and net.hop == 8 and net.name == "funcodec_en_16k_nq32ds640"
    with pytest.raises(WeightsError, match="is of a Funcodec, but .* is a FreqCodec"):
        fastcodec.load("freqcodec_en_16k_gr8nq32ds320", tmp_path)
    (tmp_path / "config.yaml").write_text("{")
    with pytest.raises(WeightsError, match="config.yaml: is no YAML"):
        fastcodec.load("funcodec_en_16k_nq32ds640", tmp_path)


def test_differing_entries_are_named_as_upstream_does() -> None:
    state = dict(oracle("snake").state_dict())
    del state["encoder.model.2.alpha"], state["quantizer.rq.model.embed"]
    state["encoder.model.0.conv.conv.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        funcodec.build("small", codec("snake").config).load_weights(state)
    lines = str(error.value).splitlines()[1:]
    assert sorted(line.split(": ")[1].split()[0] for line in lines) == [
        "encoder.model.0.conv.conv.weight",
        "encoder.model.2.alpha",
        "quantizer.rq.model.embed",
    ]


def test_codes_go_through_codecs_txt() -> None:
    net = codec("time")
    wavs = {f"speaker-{i}": nets.signal(1, 300 + i) for i in range(3)}
    file = write_codecs_txt({key: net.encode(wav).tokens[0] for key, wav in wavs.items()})
    for key, tokens in read_codecs_txt(file).items():
        assert torch.equal(net.decode(tokens[None]), net.decode(net.encode(wavs[key]).tokens))


def test_native_or_not() -> None:
    assert codec("spectra").info.invariant == (_native.cpu.why_not is None)
