"""AudioDec: checkpoints of several files, and its three flows."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastcodec.codecs import audiodec, audiodec_vocoder, audiodec_weights, configs
from fastcodec.codecs.audiodec import FLOWS, AudioDec, AudioDecConfig
from fastcodec.codecs.audiodec_vocoder import VocoderConfig
from fastcodec.codecs.keys import upstream_names
from fastcodec.errors import WeightsError
from fastcodec.io.checkpoints import State, fold_weight_norm

from .. import nets
from ..backends import needs_native, threads

pytestmark = pytest.mark.usefixtures("one_thread")

GROUPS = VocoderConfig(12, 8, 7, (3, 2), (3,), ((1, 3),), 3)
FIELDS = VocoderConfig(12, 8, 7, (3, 2), (3, 5), ((1, 3), (1, 2)), 1)  # v0's mean of blocks
VOCODERS = {"none": None, "groups": GROUPS, "fields": FIELDS}
PLACES = st.lists(st.floats(0, 1), max_size=6)


def config(**changes: Any) -> AudioDecConfig:
    """A small model of a hop of 6 samples."""
    sizes: dict[str, Any] = {
        "enc_strides": (2, 3),
        "dec_strides": (3, 2),
        "enc_ratios": (1, 2),
        "dec_ratios": (2, 1),
        "encode_channels": 4,
        "decode_channels": 4,
        "code_dim": 12,
        "codebook_num": 4,
        "codebook_size": 32,
        "priming": 130,
    }
    return AudioDecConfig(600, **{**sizes, **changes})


def build(name: str = "small", **changes: Any) -> AudioDec:
    """A small model with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return audiodec.build(name, config(**changes)).eval().requires_grad_(False)


def checkpoint(net: torch.nn.Module, seed: int, weight_norm: bool = False) -> State:
    """Random entries as upstream saves them, streaming state and codebook statistics among them."""
    g, own, state = nets.generator(seed), net.state_dict(), {}
    for name, theirs in upstream_names(net).items():
        for entry in map(audiodec_vocoder.upstream_name, theirs):
            shape = own[name].shape
            if entry.endswith(".embed"):
                state[entry] = torch.randn(shape[:0:-1], generator=g)
                state[entry.replace("embed", "cluster_size")] = torch.ones(shape[1])
                state[entry + "_avg"] = torch.zeros(shape[:0:-1])
                continue
            value = 0.3 * torch.randn(shape, generator=g)
            if weight_norm and entry.endswith(".weight"):
                state[entry + "_g"] = 1 + torch.rand(shape[0], 1, 1, generator=g)
                state[entry + "_v"] = value
            else:
                state[entry] = value
    convs = [n for n in state if n.endswith((".conv.weight", ".deconv.weight_v"))]
    for n in convs:
        state[n.rpartition(".")[0].rpartition(".")[0] + ".pad_buffer"] = torch.full((1, 3, 2), 7.0)
    return state


def autoencoder_file(seed: int, **changes: Any) -> State:
    return checkpoint(build(**changes), seed, changes.get("codec") == "activate_audiodec")


def vocoder_file(seed: int, vocoder: VocoderConfig = GROUPS) -> State:
    state = checkpoint(audiodec_vocoder.build(vocoder), seed, weight_norm=True)
    state["scale"] = state["scale"].abs() + 0.1
    return state


def save(state: State, path: Path) -> Path:
    """As upstream's trainer does: the generator beside the rest."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 3])
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = {
        "model": {"generator": state, "discriminator": {"weight": torch.zeros(1)}},
        "optimizer": {"generator": optimizer.state_dict()},
        "scheduler": {"generator": schedule.state_dict()},
        "steps": 3,
        "epochs": 1,
    }
    torch.save(tree, path)
    return path


def assert_holds(net: AudioDec, encoder: State, decoder: State) -> None:
    """The net's parameters are the encoder's and codebooks of one state, the rest of another."""
    own = net.state_dict()
    states = [fold_weight_norm(state) for state in (encoder, decoder)]
    for name, theirs in upstream_names(net).items():
        state = states[1] if name.startswith("decoder.") else states[0]
        want = [state[audiodec_vocoder.upstream_name(entry)] for entry in theirs]
        if "codebooks" in name:
            assert torch.equal(own[name], torch.stack(want).transpose(1, 2))
        else:
            assert torch.equal(own[name], want[0]), name


def file_of(folder: Path, part: str, tag: str, steps: int) -> Path:
    return folder / part / tag / f"checkpoint-{steps}steps.pkl"


@pytest.mark.parametrize("inside", [True, False])
def test_a_vocoder_bundle_from_upstreams_folder(tmp_path: Path, inside: bool) -> None:
    root = tmp_path / "exp" if inside else tmp_path
    encoder, vocoder = autoencoder_file(1), vocoder_file(2)
    save(encoder, file_of(root, "autoencoder", "symAD_libritts_24000_hop300", 500000))
    tag = "AudioDec_v1_symAD_libritts_24000_hop300_clean"
    save(vocoder, file_of(root, "vocoder", tag, 500000))
    net = build("audiodec_libritts_v1", vocoder=GROUPS)
    net.load_weights(tmp_path)
    assert_holds(net, encoder, vocoder)


def test_a_bundle_of_two_autoencoders(tmp_path: Path) -> None:
    first, second = (autoencoder_file(i, codec="activate_audiodec") for i in (1, 2))
    tag = "symAAD_vctk_48000_hop300"
    save(first, file_of(tmp_path, "autoencoder", tag, 200000))
    save(second, file_of(tmp_path, "autoencoder", tag, 700000))
    net = build("audiodec_vctk_activate_sym", codec="activate_audiodec")
    net.load_weights(tmp_path)
    assert_holds(net, first, second)
    alone = build("audiodec_48khz_activate", codec="activate_audiodec")
    alone.load_weights(tmp_path)
    assert_holds(alone, second, second)


def test_parts_by_role(tmp_path: Path) -> None:
    encoder, other, vocoder = autoencoder_file(1), autoencoder_file(2), vocoder_file(3, FIELDS)
    path = save(encoder, tmp_path / "any.pkl")
    for source in (path, str(path), encoder, {"model": {"generator": encoder}}):
        net = build(vocoder=FIELDS)
        net.load_weights({"encoder": source, "decoder": vocoder})
        assert_holds(net, encoder, vocoder)
        net = build()
        net.load_weights({"encoder": source, "decoder": other})
        assert_holds(net, encoder, other)
        net = build()
        net.load_weights(source)
        assert_holds(net, encoder, encoder)


def test_what_is_missing_in_a_folder_is_named(tmp_path: Path) -> None:
    net = build("audiodec_vctk_v2", vocoder=GROUPS)
    with pytest.raises(WeightsError) as error:
        net.load_weights(tmp_path)
    encoder = file_of(tmp_path, "autoencoder", "symAD_vctk_48000_hop300", 200000)
    vocoder = file_of(tmp_path, "vocoder", "AudioDec_v2_symAD_vctk_48000_hop300_clean", 500000)
    assert f"missing {encoder} and {vocoder}" in str(error.value)
    with pytest.raises(WeightsError, match=r"mine is no preset whose files are known; give \{"):
        build("mine").load_weights(tmp_path)


def test_parts_that_are_not_given() -> None:
    state = autoencoder_file(1)
    for source in (state, {"encoder": state}, {"decoder": vocoder_file(2)}):
        with pytest.raises(WeightsError, match="encoder and its vocoder come from two checkpoints"):
            build(vocoder=GROUPS).load_weights(source)
    with pytest.raises(WeightsError, match="encoder and its decoder come from two checkpoints"):
        build().load_weights({"decoder": state})
    with pytest.raises(WeightsError, match="weights have no part quantizer"):
        build().load_weights({"encoder": state, "quantizer": state})
    with pytest.raises(WeightsError, match="weights have no part stats"):
        build().load_weights({"encoder": state, "stats": np.ones((2, 12), np.float32)})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl: no such checkpoint"):
        build().load_weights("nowhere.pkl")
    with pytest.raises(WeightsError, match=r"exp\.zip of the releases of github\.com/facebook"):
        build().load_weights(None)


def test_the_wrong_file_is_told_by_upstreams_names() -> None:
    encoder, vocoder = autoencoder_file(1), vocoder_file(2)

    def complaint(net: AudioDec, **parts: State) -> str:
        with pytest.raises(WeightsError) as error:
            net.load_weights(parts)
        return str(error.value)

    swapped = complaint(build(vocoder=GROUPS), encoder=vocoder, decoder=encoder)
    assert "missing: encoder.conv.conv.weight [4, 1, 7]" in swapped
    assert "unexpected: decoder.conv_blocks.0.conv.deconv.bias [4]" in swapped
    twice = complaint(build(), encoder=encoder, decoder=vocoder)
    assert "missing: decoder.conv1.conv.weight [8, 12, 7]" in twice
    assert "unexpected: blocks.0.conv_out.weight [4, 12, 1]" in twice
    other = complaint(build(vocoder=FIELDS), encoder=encoder, decoder=vocoder)
    assert "missing: blocks.1.blocks.0.convs1.1.conv.bias [2]" in other
    small = complaint(build(codebook_size=16), encoder=encoder)
    assert (
        "wrong shape: quantizer.codebook.layers.3.embed: expected [16, 12], got [32, 12]" in small
    )
    active = complaint(build(codec="activate_audiodec"), encoder=encoder)
    assert "missing: decoder.conv_blocks.1.1.res_units.2.conv2.weight [4, 4, 1]" in active
    assert "unexpected: decoder.conv_blocks.1.res_units.2.conv2.weight [4, 4, 1]" in active
    assert "pad_buffer" in " ".join(encoder)
    assert not any("pad_buffer" in text for text in (swapped, twice, other, small, active))


def test_tensors_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    state = autoencoder_file(1)
    state["encoder.conv.conv.weight"] = torch.zeros(1).expand(1 << 40)
    with pytest.raises(WeightsError, match=r"encoder\.conv\.conv\.weight .* not a plain tensor"):
        build().load_weights(save(state, tmp_path / "large.pkl"))


def test_statistics_of_their_own(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"encoder": autoencoder_file(1), "decoder": vocoder_file(2)}
    stats = nets.signal(2, 12).abs().numpy() + 0.1
    np.save(tmp_path / "stats.npy", stats)
    for source in (tmp_path / "stats.npy", stats, torch.from_numpy(stats)):
        net = build(vocoder=GROUPS)
        net.load_weights({**parts, "stats": source})
        assert_holds(net, parts["encoder"], {**parts["decoder"], **_named(stats)})
    del parts["decoder"]["mean"], parts["decoder"]["scale"]
    with pytest.raises(WeightsError, match=r"missing: mean \[12\]\n  missing: scale \[12\]"):
        build(vocoder=GROUPS).load_weights(parts)
    build(vocoder=GROUPS).load_weights({**parts, "stats": stats})
    with pytest.raises(WeightsError, match=r"wrong shape: mean: expected \[12\], got \[5\]"):
        build(vocoder=GROUPS).load_weights({**parts, "stats": stats[:, :5]})


def _named(stats: np.ndarray) -> State:
    return {"mean": torch.from_numpy(stats[0]), "scale": torch.from_numpy(stats[1])}


def test_files_of_statistics_are_read_with_care(tmp_path: Path) -> None:
    def refused(content: bytes | np.ndarray, match: str) -> None:
        path = tmp_path / "bad.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content, allow_pickle=True)
        parts = {"encoder": autoencoder_file(1), "decoder": vocoder_file(2), "stats": path}
        with pytest.raises(WeightsError, match=match):
            build(vocoder=GROUPS).load_weights(parts)

    good = tmp_path / "good.npy"
    np.save(good, np.ones((2, 12), np.float32))
    plain = good.read_bytes()
    refused(np.array([{"a": 1}], object), "is no .npy file of plain numbers")
    refused(b"", "is no .npy file")
    refused(b"PK\x03\x04 and more", "is no .npy file")
    refused(plain[:-4], "is no .npy file")
    refused(plain.replace(b"(2, 12), }" + b" " * 6, b"(2, 12999999), }"), "is no .npy file")
    refused(plain.replace(b"'<f4'", b"'<zz'"), "is no .npy file")
    refused(
        np.ones((3, 12), np.float32), r"expected floats \[2, D\], mean and scale, got \[3, 12\]"
    )
    refused(np.ones((2, 12), np.int64), r"expected floats \[2, D\], .* int64")
    np.save(good, np.ones((2, 12), ">f8"))
    net = build(vocoder=GROUPS)
    net.load_weights(
        {"encoder": autoencoder_file(1), "decoder": vocoder_file(2), "stats": str(good)}
    )


def test_presets() -> None:
    """Sizes, rates and files of all of them."""
    assert set(audiodec_weights._FILES) == set(audiodec.PRESETS)
    with torch.device("meta"):
        infos = {name: audiodec.build(name).info for name in audiodec.PRESETS}
    assert infos["audiodec_24khz_libritts"].parameters == 7_939_936 + 8 * 1024 * 64
    assert {i.kbps for n, i in infos.items() if "libritts" in n} == {6.4}
    assert {i.kbps for n, i in infos.items() if "vctk_v" in n} == {12.8}
    assert infos["audiodec_vctk_c16h320_sym"].kbps == 24
    assert all(info.streamable and info.latency == 0 for info in infos.values())
    assert {i.bandwidths_kbps == (i.kbps,) for i in infos.values()} == {True}
    for preset in audiodec.PRESETS.values():
        assert configs.from_json(AudioDecConfig, configs.to_json(preset), "") == preset


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (2999, 10), (3000, 10), (3001, 11)])
def test_number_of_frames(samples: int, frames: int) -> None:
    with torch.device("meta"):
        assert audiodec.build("audiodec_24khz_libritts").n_frames(samples) == frames
    net = build()
    samples = max(1, samples // 50)
    assert net.encode(nets.signal(1, samples)).tokens.shape[2] == -(-samples // 6)


@functools.cache
def lively(flow: str, vocoder: str, codec: str = "audiodec") -> AudioDec:
    net = build(vocoder=VOCODERS[vocoder], codec=codec)
    g = nets.generator(5)
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=g))
    nets.lively(net)
    net.flow = flow
    return net


NETS = st.sampled_from(
    [(flow, vocoder, "audiodec") for flow in FLOWS for vocoder in VOCODERS]
    + [(flow, "none", "activate_audiodec") for flow in FLOWS]
)


def pieces(x: Tensor, places: list[float]) -> list[Tensor]:
    edges = sorted(round(place * x.shape[2]) for place in places)
    ends = [*edges, x.shape[2]]
    return [x[..., a:b] for a, b in zip([0, *edges], ends, strict=True)]


@needs_native
@given(NETS, st.integers(1, 300), st.integers(1, 3), PLACES, st.integers(1, 2))
def test_any_pieces(
    which: tuple[str, str, str], size: int, batch: int, places: list[float], n_threads: int
) -> None:
    """A live stream gives what encode and decode give, never more than it was given."""
    net = lively(*which)
    wav = nets.signal(batch, 1, size)
    whole = net.encode(wav)
    heard = net.decode(whole)
    stream, got, tokens, received = net.stream(batch), [], [], 0
    cut = pieces(wav, places)
    with threads(n_threads):
        for i, piece in enumerate(cut):
            received += piece.shape[2]
            codes = stream.encode(piece, final=i == len(cut) - 1)
            got.append(stream.decode(codes, final=i == len(cut) - 1))
            tokens.append(codes.tokens)
            assert sum(y.shape[2] for y in got) <= received
    assert torch.equal(torch.cat(tokens, dim=2), whole.tokens)
    assert torch.equal(torch.cat(got, dim=2), heard)


def test_the_small_nets_use_many_codes() -> None:
    for flow in FLOWS:
        tokens = lively(flow, "none").encode(nets.signal(1, 1200)).tokens[0]
        assert tokens.unique(dim=1).shape[1] >= 0.8 * tokens.shape[1]


@needs_native
@pytest.mark.parametrize("vocoder", VOCODERS)
def test_primed_is_what_follows_silence(vocoder: str) -> None:
    """And the first samples differ from those of the other flows, in the way they should."""
    zero, primed = lively("zero", vocoder), lively("primed", vocoder)
    wav, silence = nets.signal(2, 1, 200), torch.zeros(2, 1, 132)
    frames = silence.shape[2] // 6
    both = zero.encode(torch.cat([silence, wav], dim=2))
    codes = primed.encode(wav)
    assert torch.equal(codes.tokens, both.tokens[..., frames:])
    heard = zero.decode(both)[..., silence.shape[2] :]
    assert torch.equal(primed.decode(codes), heard)
    assert not torch.equal(codes.tokens, zero.encode(wav).tokens)


def test_offline_and_zero_differ_in_the_decoder_alone() -> None:
    offline, zero = lively("offline", "none"), lively("zero", "none")
    codes = offline.encode(nets.signal(1, 900))
    assert torch.equal(codes.tokens, zero.encode(nets.signal(1, 900)).tokens)
    apart = (offline.decode(codes) - zero.decode(codes)).abs()[0, 0]
    assert apart[:6].max() > 0
    assert torch.equal(apart[700:], torch.zeros(200))  # what the first frame reaches has ended


def test_flows() -> None:
    net = build()
    with pytest.raises(ValueError, match="flow must be one of offline, zero, primed, got 'live'"):
        net.flow = "live"
    assert net.flow == net.config.flow == "offline"
    net.flow = "primed"
    assert net.config.flow == "primed"
    assert audiodec.build("again", net.config).flow == "primed"


def test_a_copy_is_primed_by_its_own_weights() -> None:
    net = lively("primed", "none")
    other, wav = copy.deepcopy(net), nets.signal(1, 100)
    want = net.decode(net.encode(wav))
    assert torch.equal(other.decode(other.encode(wav)), want)
    for parameter in other.parameters():
        parameter.mul_(2)
    assert torch.equal(net.decode(net.encode(wav)), want)
    assert not torch.equal(other.decode(net.encode(wav)), want)
