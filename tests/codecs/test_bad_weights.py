"""Damaged configs and checkpoints of every family: ``WeightsError`` or a net, and nothing else.

Nothing is executed, nothing hangs, and no file takes memory that it does not itself have.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import fastcodec
from fastcodec import Codec, WeightsError
from fastcodec.codecs import (
    FAMILIES,
    audiodec,
    configs,
    dac,
    dac_config,
    encodec,
    funcodec,
    hificodec,
    mimi,
    snac,
    soundstream,
    speechtokenizer,
)
from fastcodec.codecs.keys import tagged_state
from fastcodec.codecs.recognise import build_checked, recognise, spec_of

from .. import nets
from ..io.test_fuzz import _memory_limit, _mutate

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning"),
]

ENCODEC = {
    "model_type": "encodec", "num_filters": 4, "hidden_size": 12, "codebook_size": 32,
    "codebook_dim": 12, "upsampling_ratios": [4, 2], "sampling_rate": 800, "num_lstm_layers": 1,
    "target_bandwidths": [0.5, 1.0, 2.0], "norm_type": "weight_norm", "chunk_length_s": None,
    "overlap": None, "normalize": False, "pad_mode": "reflect", "use_causal_conv": True,
}  # fmt: skip
SEGMENTS = {
    "chunk_length_s": 1.0, "overlap": 0.01, "normalize": True, "audio_channels": 2,
    "norm_type": "time_group_norm", "use_causal_conv": False,
}  # fmt: skip
DAC_TRANSFORMERS = {
    "model_type": "dac", "encoder_hidden_size": 8, "downsampling_ratios": [2, 3],
    "decoder_hidden_size": 32, "upsampling_ratios": [3, 2], "hidden_size": 32, "n_codebooks": 3,
    "codebook_size": 32, "codebook_dim": 8,
}  # fmt: skip
DAC = {
    "encoder_dim": 8, "encoder_rates": [2, 4], "latent_dim": 24, "decoder_dim": 32,
    "decoder_rates": [4, 2], "n_codebooks": 4, "codebook_size": 64, "codebook_dim": [4, 4, 4, 4],
    "quantizer_dropout": 0.5, "sample_rate": 800,
}  # fmt: skip
MIMI = {
    "model_type": "mimi", "num_filters": 4, "hidden_size": 32, "codebook_size": 32,
    "codebook_dim": 16, "vector_quantization_hidden_dimension": 16, "num_quantizers": 4,
    "head_dim": 8, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 4, "upsample_groups": 32, "sliding_window": 20, "_frame_rate": 12.5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "hidden_act": "gelu",
}  # fmt: skip
SPEECHTOKENIZER = {
    "n_filters": 4, "strides": [4, 2], "dimension": 12, "semantic_dimension": 10,
    "bidirectional": True, "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1,
    "lstm_layers": 2, "activation": "Snake", "codebook_size": 32, "n_q": 3, "sample_rate": 800,
}  # fmt: skip
HIFICODEC = {
    "sampling_rate": 800, "upsample_rates": [3, 2], "upsample_kernel_sizes": [7, 4],
    "upsample_initial_channel": 16, "resblock": "1", "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]], "n_code_groups": 2, "n_codes": 32,
}  # fmt: skip
AUDIODEC = {
    "sampling_rate": 600,
    "generator_params": {
        "enc_strides": [2, 3], "dec_strides": [3, 2], "enc_ratios": [1, 2], "dec_ratios": [2, 1],
        "encode_channels": 4, "decode_channels": 4, "code_dim": 12, "codebook_num": 3,
        "codebook_size": 32, "codec": "audiodec", "nonlinear_activation_params": {},
    },
}  # fmt: skip
VOCODER = {
    "generator_params": {
        "in_channels": 12, "channels": 8, "upsample_scales": [3, 2], "groups": 1,
        "upsample_kernel_sizes": [6, 4], "resblock_kernel_sizes": [3, 5], "stats": "stats.npy",
        "resblock_dilations": [[1, 3], [1, 2]], "use_weight_norm": True,
        "nonlinear_activation_params": {"negative_slope": 0.1},
    },
}  # fmt: skip
SNAC = {**nets._SNAC, "attn_window_size": 6}
SOUNDSTREAM = {
    **json.loads(json.dumps({**nets._SOUNDSTREAM, **nets._ATTENTION})), "pad_mode": "reflect",
    "rq_groups": 1, "attn_xpos_scale_base": 512,
}  # fmt: skip
FUNCODEC: dict[str, Any] = copy.deepcopy(nets._FUNCODEC)
FUNCODEC["encoder_conf"] |= {
    "seq_model": "transformer", "activation": "LeakyReLU",
    "activation_params": {"negative_slope": 0.2},
}  # fmt: skip
FUNCODEC["quantizer_conf"] |= {"codec_dim": 8, "codec_range": 2.0, "q0_ds_ratio": 2}
PPG = {"ppg_dim": 6, "ppg_ds_rate": 2, "ppg_usage_mod": "concat", "ppg_ds_type": "conv"}
SEMANTIC = {
    **nets._FUNCODEC, "model": "codec_semantic_aug",
    "model_conf": {"audio_normalize": False, "segment_dur": None, "ppg_conf": PPG},
}  # fmt: skip

Reader = Callable[[Any], Any]
# Name -> family, its reader of a config, a config of a small net.
CONFIGS: dict[str, tuple[Any, Reader, dict[str, Any]]] = {
    "encodec": (encodec, encodec.from_transformers, ENCODEC),
    "encodec, segments": (encodec, encodec.from_transformers, {**ENCODEC, **SEGMENTS}),
    "dac, transformers": (dac, dac_config.from_transformers, DAC_TRANSFORMERS),
    "dac": (dac, dac_config.from_upstream, DAC),
    "mimi": (mimi, mimi.from_upstream, MIMI),
    "snac": (snac, snac.from_upstream, SNAC),
    "speechtokenizer": (speechtokenizer, speechtokenizer.from_upstream, SPEECHTOKENIZER),
    "hificodec": (hificodec, hificodec.from_upstream, HIFICODEC),
    "funcodec": (funcodec, funcodec.from_upstream, FUNCODEC),
    "freqcodec": (funcodec, funcodec.from_upstream, nets._FREQCODEC),
    "funcodec, semantic": (funcodec, funcodec.from_upstream, SEMANTIC),
    "audiodec": (audiodec, audiodec.from_upstream, AUDIODEC),
    "audiodec, vocoder": (audiodec, lambda c: audiodec.from_upstream(AUDIODEC, c), VOCODER),
    "soundstream": (soundstream, soundstream.from_upstream, SOUNDSTREAM),
    "soundstream, pickled": (
        soundstream, lambda c: soundstream.from_upstream(pickle.dumps(c)), SOUNDSTREAM
    ),
    "converted": (
        encodec, lambda c: configs.from_json(encodec.CONFIG, c, "spec"),
        configs.to_json(nets.encodec().config),
    ),
}  # fmt: skip

DEEP: list[Any] = []
LAUGHS: list[Any] = ["ha"] * 10
for _ in range(200):
    DEEP = [DEEP]
for _ in range(9):
    LAUGHS = [LAUGHS] * 10
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 255, 1 << 16, 1 << 24, 1 << 31, 1 << 63, -(1 << 63),
    10**400, 16**6000, 0.0, -0.5, 0.5, 1e-9, 1e300, float("nan"), float("inf"), "", "x", "none",
    "x" * 100_000, [], [0], [2], [4, 2], [-1], [[1]], [[4, 1], [4, 2]], [1] * 300, [2] * 256,
    [2] * 50_000, ["a"], [None], [1.5], [1 << 24] * 200, {}, {"a": 1}, {1: 2}, b"x", DEEP, LAUGHS,
)  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a tree of dicts and lists."""
    steps = tree.items() if isinstance(tree, dict) else ()
    steps = enumerate(tree) if isinstance(tree, list) else steps
    for step, value in steps:
        yield (*path, step)
        yield from places(value, (*path, step))


def changed(rng: random.Random, tree: Any, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy of a tree with one to three entries replaced, removed or added."""
    paths, out = list(places(tree)), copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *above, last = rng.choice(paths)
        inner = out
        for step in above:
            inner = inner[step] if isinstance(inner, dict) and step in inner else inner
        kind = rng.randrange(6)
        if not isinstance(inner, dict):
            continue
        if kind == 0:
            inner.pop(last, None)
        elif kind == 1:
            inner[rng.choice(("surprise", "encoder_x", "", 7, None, (1, 2)))] = rng.choice(values)
        elif kind == 2 and type(number := inner.get(last)) in (int, float):
            inner[last] = rng.choice((number + 1, number - 1, 2 * number, -number, [number]))
        elif kind == 3 and isinstance(entries := inner.get(last), list) and len(entries) < 100:
            inner[last] = [*entries[1:], rng.choice(values)]
        else:
            inner[last] = rng.choice(values)
    return out


def attack_config(name: str, count: int) -> None:
    family, read, config = CONFIGS[name]
    net = family.build("fuzz", read(config))
    # Of all that a checkpoint is, its size alone matters to the building of a net.
    state = {"input_conv.x": torch.zeros(sum(v.numel() for v in net.state_dict().values()))}
    build_checked(family, "fuzz", read(config), state)
    rng, refused = random.Random(count), 0
    with _memory_limit(traced=False):
        for _ in range(count):
            config_now = changed(rng, config)
            try:
                build_checked(family, "fuzz", read(config_now), state)
            except WeightsError as error:
                refused += 1
                assert len(str(error)) < 10_000
    assert refused > count // 4


@pytest.mark.parametrize("name", CONFIGS)
def test_damaged_configs(name: str) -> None:
    attack_config(name, 40)


def attack_text(folder: Path, name: str, texts: list[str], count: int) -> None:
    rng, seeds, refused = random.Random(count), [text.encode() for text in texts], 0
    for seed in seeds:
        (folder / name).write_bytes(seed)
        recognise(folder, FAMILIES)
    with _memory_limit(traced=False):
        for _ in range(count):
            (folder / name).write_bytes(_mutate(rng, seeds))
            try:
                recognise(folder, FAMILIES)
            except WeightsError:
                refused += 1
    assert refused > count // 4


def test_damaged_json(tmp_path: Path) -> None:
    told = (ENCODEC, DAC_TRANSFORMERS, MIMI, SNAC, SPEECHTOKENIZER, HIFICODEC)
    attack_text(tmp_path, "config.json", [json.dumps(config) for config in told], 1_000)


def test_damaged_yaml(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    told = (FUNCODEC, nets._FREQCODEC, SEMANTIC, AUDIODEC)
    plain = [json.loads(json.dumps(config)) for config in told]
    attack_text(tmp_path, "config.yaml", [yaml.safe_dump(config) for config in plain], 250)


LAUGHING = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
    for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHING + "quantizer_conf: *k",
        LAUGHING.replace("[x, x, x, x, x, x, x, x, x]", "{x: y}").replace("[*", "{<<: [*"),
        "&a quantizer_conf: [*a]", "quantizer_conf: !!int ''", "quantizer_conf: !!bool maybe",
        "quantizer_conf: !!timestamp never", "quantizer_conf: !!python/object/apply:os.getcwd []",
        "quantizer_conf: " + "[" * 100_000, "quantizer_conf: " + "{a: " * 100_000,
        f"quantizer_conf: {{sampling_rate: 0x{'f' * 20_000}}}", f"0x{'f' * 20_000}: 1",
        "quantizer_conf: {}\nencoder_conf: {activation_params: 7}", "x: " + "y" * (1 << 18),
        "generator_params: 7", "generator_params: enc_strides", "\x00", "? [a]\n: b",
    ],
)  # fmt: skip
def test_yaml_that_is_no_config(text: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "config.yaml").write_text(text)
    with _memory_limit(traced=False), pytest.raises(WeightsError):
        recognise(tmp_path, FAMILIES)
    if "quantizer_conf" in text:
        with pytest.raises(WeightsError):
            fastcodec.load("funcodec_en_16k_nq32ds320", tmp_path)


SHAPES = ((), (0,), (1,), (3, 5), (2, 2, 2, 2))
DTYPES = (
    torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool,
    torch.complex64, torch.float8_e5m2,
)  # fmt: skip


def other_tensor(rng: random.Random, value: Tensor) -> Any:
    """Something that may stand where a tensor should."""
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: value[..., :-1] if value.ndim else value,
        lambda: torch.zeros(rng.choice(SHAPES)),
        lambda: value.to(rng.choice(DTYPES)),
        lambda: torch.full_like(value, rng.choice((float("nan"), float("inf")))),
        lambda: torch.zeros(1).expand(value.shape),
        lambda: torch.zeros(1).expand(1 << 40),
        lambda: value.reshape(-1)[:1].to_sparse(),
        lambda: value.flatten(),
        lambda: value[None],
        lambda: rng.choice((None, 3, "x", [value], {"a": value}, (), b"\x80\x04.")),
        lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        lambda: torch.zeros(value.shape, device="meta"),
    )
    return rng.choice(kinds)()


def published(net: Codec) -> dict[str, Tensor]:
    """The entries of a net as upstream's checkpoint has them."""
    spell = net._layout({})
    state = {spell(name): value for name, value in tagged_state(net).items()}
    if isinstance(net, snac.Snac | speechtokenizer.SpeechTokenizer):
        linear = re.compile(r"(to_qkv|to_out|transform)\.weight$")
        state = {n: v[..., 0] if linear.search(n) else v for n, v in state.items()}
    if isinstance(net, audiodec.AudioDec):
        state = {n: v.T if n.endswith(".embed") else v for n, v in state.items()}
    usage = {n.replace("embedding_sum", "cluster_usage"): v[:, 0] ** 0 for n, v in state.items()
             if n.endswith("embedding_sum")}  # fmt: skip
    return state | usage


def attack_checkpoint(net: Codec, path: Path, count: int) -> None:
    state, rng = published(net), random.Random(count)
    net.load_weights(dict(state))
    refused = 0
    with _memory_limit(traced=False):
        for _ in range(count):
            now: dict[Any, Any] = dict(state)
            for _ in range(rng.choice((1, 1, 2, 5))):
                name = rng.choice(list(state))
                kind = rng.randrange(8)
                if kind == 0:
                    now.pop(name, None)
                elif kind == 1:
                    now[rng.choice(("surprise", name + "_g", name + "_v", "", 7))] = state[name]
                else:
                    now[name] = other_tensor(rng, state[name])
            tree = rng.choice((now, {"state_dict": now}, {"model": now}, {"generator": now}, [now]))
            torch.save(tree, path, _use_new_zipfile_serialization=rng.random() < 0.8)
            for weights in (path, now):
                try:
                    net.load_weights(weights)
                except WeightsError:
                    refused += 1
    assert refused > count // 2


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [*nets.STREAMING, *nets.WHOLE])
def test_damaged_checkpoints(name: str, tmp_path: Path) -> None:
    attack_checkpoint({**nets.STREAMING, **nets.WHOLE}[name](), tmp_path / "w.pt", 8)


def test_a_wrapper_that_holds_itself(tmp_path: Path) -> None:
    tree: dict[str, Any] = {}
    tree["model"] = tree
    torch.save(tree, tmp_path / "w.pt")
    for weights in (tree, tmp_path / "w.pt"):
        with pytest.raises(WeightsError, match="no tensors found"):
            nets.encodec().load_weights(weights)


def test_a_key_of_a_million_levels(tmp_path: Path) -> None:
    """Its hash would end the process."""
    torch.save({}, tmp_path / "whole.pt")
    body = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "w.pt", "w") as w,
    ):
        for entry in whole.namelist():
            w.writestr(entry, body if entry.endswith("data.pkl") else whole.read(entry))
    with pytest.raises(WeightsError, match=r"w\.pt: .* levels"):
        nets.encodec().load_weights(tmp_path / "w.pt")


def attack_bytes(path: Path, seeds: list[bytes], count: int) -> None:
    """Files that say what they are, loaded without a name."""
    for seed in seeds:
        path.write_bytes(seed)
        fastcodec.load(weights=path)
    rng, refused = random.Random(count), 0
    with _memory_limit(traced=False):
        for _ in range(count):
            path.write_bytes(_mutate(rng, seeds))
            try:
                fastcodec.load(weights=path)
            except WeightsError:
                refused += 1
    assert refused > count // 2


def converted(net: Codec) -> bytes:
    spec = spec_of(net, FAMILIES)
    text = json.dumps({"family": spec.family, "name": spec.name, "config": spec.config})
    metadata = {"format": "fastcodec.codec", "version": "1", "spec": text}
    return save({n: v.contiguous().clone() for n, v in tagged_state(net).items()}, metadata)


def test_damaged_converted_files(tmp_path: Path) -> None:
    small = [nets.encodec(n_filters=2, dimension=2, lstm=0), nets.made(dac, nets._EVEN)]
    attack_bytes(tmp_path / "w.safetensors", [converted(net) for net in small], 120)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_of_dac_and_soundstream(zipped: bool, tmp_path: Path) -> None:
    config = pickle.dumps({k: v for k, v in SOUNDSTREAM.items() if k != "attn_xpos_scale_base"})
    streamed = published(soundstream.build("small", soundstream.from_upstream(config)))
    trees = [
        {"metadata": {"kwargs": DAC}, "state_dict": published(nets.made(dac, nets._EVEN))},
        {"config": config, "model": streamed, "version": "1"},
    ]
    seeds = []
    for tree in trees:
        stream = io.BytesIO()
        torch.save(tree, stream, _use_new_zipfile_serialization=zipped)
        seeds.append(stream.getvalue())
    attack_bytes(tmp_path / "w.pt", seeds, 40)
