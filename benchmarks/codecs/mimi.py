"""Mimi beside moshi and transformers' MimiModel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.codecs._pair import Pair, peer
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.engines import Published
from benchmarks.published import published, quietly, version_of
from benchmarks.runner import Bench, Row
from benchmarks.weights import State, pour, random_codec, upstream_state
from fastcodec.codecs import mimi
from fastcodec.codecs.base import Codec

NAME, KBPS = "mimi_24khz", 1.1  # moshi's own 8 codebooks
CODEBOOKS = 8


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode."""
    yield from pair_rows(bench, {NAME: partial(pair, NAME)})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights."""
    codec = random_codec(mimi, name)
    peers = [peer("moshi", by_moshi, codec), peer("transformers", hf, codec)]
    return Pair(name, moshi_state(codec), peers, KBPS)


def moshi_state(codec: Codec) -> State:
    """The weights as moshi has them: words as a sum over their uses, here one."""
    state = {}
    for name, value in upstream_state(codec).items():
        linear = "_transformer." in name and value.ndim == 3
        state[name] = value[..., 0] if linear else value
        if name.endswith("embedding_sum"):
            path = name.removesuffix("embedding_sum")
            state[f"{path}_initialized"] = torch.ones(1)
            state[f"{path}cluster_usage"] = torch.ones(len(value))
    return state


def moshi_net(codec: Codec) -> Any:
    """moshi's model, all codebooks."""
    loaders = published("moshi.models.loaders")
    net = quietly(loaders.get_mimi, None, num_codebooks=codec.info.n_codebooks)
    pour(moshi_state(codec), net)
    return net


def by_moshi(codec: Codec) -> Published:
    """moshi's model over whole signals."""
    net = moshi_net(codec)
    net.set_num_codebooks(CODEBOOKS)

    def encode(wav: Tensor) -> Tensor:
        return net.encode(wav)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return net.decode(codes)

    return Published(version_of("moshi"), net, encode, decode)


def hf(codec: Codec) -> Published:
    """transformers' model, whose defaults are this one's sizes."""
    package = published("transformers")
    net = quietly(package.MimiModel, package.MimiConfig())
    pour(_hf_state(codec, net), net, ("initialized",))

    def encode(wav: Tensor) -> Tensor:
        return net.encode(wav, num_quantizers=CODEBOOKS).audio_codes

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return net.decode(codes).audio_values

    return Published(version_of("transformers"), net, encode, decode)


def _hf_state(codec: Codec, net: Any) -> State:
    """moshi's entries under transformers' names: three maps for one, other pairs of rotation."""
    own, state = net.state_dict(), {}
    by_leaf = {_flat(name): name for name in own}
    heads = codec.config.transformer.heads
    for name, value in moshi_state(codec).items():
        theirs = mimi.transformers_name(name)
        theirs = theirs.replace("._initialized", ".initialized")
        theirs = theirs.replace(".vq.layers.", ".layers.").replace("._codebook.", ".codebook.")
        if "{q,k,v}" in theirs:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                rows = part if letter == "v" else _halves(part, heads)
                state[by_leaf[theirs.replace("{q,k,v}", letter)]] = rows
        else:
            state[by_leaf[theirs]] = value
    return state


def _flat(name: str) -> str:
    """A nested name of transformers 5 as it was in its checkpoints."""
    for side in ("encoder", "decoder"):
        name = name.replace(f"{side}.{side}_seanet.", f"{side}.")
        for part in (f"{side}_transformer", "downsample", "upsample"):
            name = name.replace(f"{side}.{part}.", f"{part}.")
    return name


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Rows [H * D, C] whose rotary pairs are neighbours, put half a head apart."""
    return rows.view(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
