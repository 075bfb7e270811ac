"""``rvq_encode`` of EnCodec 24 kHz, 8 and 32 stages of 1024 words of 128, and of one frame; DAC
44.1 kHz's 9 levels of 1024 words of 8 between projections, both ways. The published packages' own
quantizers and faiss stand beside torch.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import Gate, codes_up_to_ties, doubled, relative_l2
from benchmarks.machine import package
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.published import published, quietly, version_of
from benchmarks.runner import Absent, Bench, Case, Peer, Row
from benchmarks.signals import word_sizes
from fastcodec import ops
from fastcodec.layers.quantize import FactorisedQuantizer

WORDS, FEATURES = 1024, 128
CHANNELS, LEVELS, WIDTH = 1024, 9, 8  # DAC
ANGLE_LIMIT = 1e-4


def rows(bench: Bench) -> Iterator[Row]:
    """The whole signal at two numbers of stages, and a frame."""
    frames = round(75 * bench.seconds)
    for name, stages, length in (("k8", 8, frames), ("k32", 32, frames), ("one_frame", 8, 1)):
        if bench.wanted(f"rvq_encode.{name}"):
            yield from bench.measure(_case(f"rvq_encode.{name}", stages, length))
    if bench.wanted("rvq_encode.dac") or bench.wanted("rvq_decode.dac"):
        for case in _dac(round(44100 / 512 * bench.seconds)):
            yield from bench.measure(case)


def _case(name: str, stages: int, frames: int) -> Case:
    draw = generator()
    x = draw(1, FEATURES, frames)
    books = draw(stages, WORDS, FEATURES) * word_sizes(stages)[:, None, None]
    packed, ours_x, by_frame = ops.rvq_encode_pack(books), time_major(x), x[0].T.contiguous()

    def encode(norm_of_residual: bool) -> Tensor:
        residual, codes = by_frame, []
        for words in books:
            score = 2 * (residual @ words.T) - words.square().sum(1)
            if norm_of_residual:  # as encodec and transformers compute it
                score = score - residual.square().sum(1, keepdim=True)
            codes.append(score.max(dim=1).indices)
            residual = residual - words[codes[-1]]
        return torch.stack(codes)[None]

    return Case(
        name,
        {"B": 1, "T": frames, "K": stages, "N": WORDS, "D": FEATURES},
        lambda: ops.rvq_encode(ours_x, books, packed),
        [
            *eager({"distance": lambda: encode(True), "score": lambda: encode(False)}),
            _or_absent("encodec", lambda: _encodec(x, books)),
            _or_absent("faiss", lambda: _faiss(by_frame, books)),
        ],
        lambda got, truth: codes_up_to_ties(got, truth, x, books),
        Work(2 * frames * books.numel(), n_bytes(x, books) + 8 * stages * frames),
        lambda: ops.rvq_encode.reference(*doubled((x, books, None))),
    )


def _or_absent(name: str, make: Callable[[], Peer]) -> Peer:
    try:
        return make()
    except Absent as error:
        return Peer(name, absent=str(error))


def _encodec(x: Tensor, books: Tensor) -> Peer:
    """The package's own loop over the stages."""
    quantizer = quietly(
        published("encodec.quantization.core_vq").ResidualVectorQuantization,
        num_quantizers=len(books),
        dim=FEATURES,
        codebook_size=WORDS,
    )
    for layer, words in zip(quantizer.layers, books, strict=True):
        layer._codebook.embed.copy_(words)
        layer._codebook.inited.fill_(1)
    return Peer(
        version_of("encodec"), {"encode": lambda: quantizer.encode(x).transpose(0, 1).contiguous()}
    )


def _faiss(by_frame: Tensor, books: Tensor) -> Peer:
    """An exact search a stage, and its own residual quantizer with a beam of one."""
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError as error:
        raise Absent(f"{error}; pip install --no-deps faiss-cpu") from error
    x, words = by_frame.numpy(), books.numpy()
    indices = [faiss.IndexFlatL2(FEATURES) for _ in books]
    for index, stage in zip(indices, words, strict=True):
        index.add(stage)
    bits = WORDS.bit_length() - 1
    residual_quantizer = faiss.ResidualQuantizer(FEATURES, len(books), bits)
    residual_quantizer.max_beam_size, residual_quantizer.is_trained = 1, True
    faiss.copy_array_to_vector(words.ravel(), residual_quantizer.codebooks)

    def flat() -> Tensor:
        faiss.omp_set_num_threads(torch.get_num_threads())
        rest, codes = x, []
        for index, stage in zip(indices, words, strict=True):
            codes.append(torch.from_numpy(index.search(rest, 1)[1][:, 0]))
            rest = rest - stage[codes[-1].numpy()]
        return torch.stack(codes)[None]

    def beam() -> Tensor:
        """Codes of ``bits`` bits, packed from the lowest on."""
        faiss.omp_set_num_threads(torch.get_num_threads())
        packed = torch.from_numpy(residual_quantizer.compute_codes(x))
        ones = packed[..., None] >> torch.arange(8, dtype=torch.uint8) & 1
        each = ones.flatten(1)[:, : len(books) * bits].unflatten(1, (len(books), bits))
        return (each.long() << torch.arange(bits)).sum(2).T[None]

    return Peer(package("faiss-cpu"), {"flat": flat, "residual_quantizer": beam})


def _dac(frames: int) -> Iterator[Case]:
    """Codes of latents, and back."""
    torch.manual_seed(0)
    quantizer = FactorisedQuantizer(LEVELS, WORDS, WIDTH, CHANNELS).eval().requires_grad_(False)
    x = generator()(1, CHANNELS, frames)
    ours_x = time_major(x)
    config = {"B": 1, "T": frames, "K": LEVELS, "N": WORDS, "d": WIDTH, "D": CHANNELS}
    exact = _doubled(quantizer)
    codes = quantizer.encode(x)
    weights = sum(p.numel() for p in quantizer.parameters())
    projections = LEVELS * CHANNELS * WIDTH

    def peer(run: str) -> Peer:
        return _or_absent("descript-audio-codec", lambda: _descript(quantizer, x, codes, run))

    yield Case(
        "rvq_encode.dac",
        config,
        lambda: quantizer.encode(ours_x),
        [peer("encode")],
        lambda got, truth: _codes_up_to_angle(got, truth, x, exact),
        Work(
            2 * frames * (2 * projections + LEVELS * WORDS * WIDTH),
            4 * weights + n_bytes(x) + 8 * LEVELS * frames,
        ),
        lambda: exact.encode_in(x.double()),
    )
    yield Case(
        "rvq_decode.dac",
        config,
        lambda: quantizer.decode(codes),
        [peer("decode")],
        relative_l2,
        Work(2 * frames * projections, 4 * weights + n_bytes(x, codes)),
        lambda: exact.decode_in(codes),
    )


class _doubled:
    """The quantizer's parameters in float64, through the ops' references."""

    def __init__(self, quantizer: FactorisedQuantizer) -> None:
        levels = [level.parameters_in_order() for level in quantizer._first(None)]
        self.parts = [torch.stack(column).double() for column in zip(*levels, strict=True)]

    def encode_in(self, x: Tensor) -> Tensor:
        codes: Tensor = ops.rvq_encode_factorised.reference(x, *self.parts, None)
        return codes

    def decode_in(self, codes: Tensor) -> Tensor:
        y: Tensor = ops.rvq_decode_factorised.reference(codes, *self.parts[2:])
        return y


def _codes_up_to_angle(got: Tensor, truth: Tensor, latents: Tensor, exact: _doubled) -> Gate:
    """Zero where all codes are equal, else the widest gap between two that differ.

    In float64, at the first level where a frame differs: between the cosines of both words.
    """
    if got.shape != truth.shape:
        return Gate(f"shape {list(got.shape)}, not {list(truth.shape)}", math.nan, ANGLE_LIMIT)
    into, into_bias, books, _, _ = exact.parts
    differs = got != truth
    rows, frames = differs.any(dim=1).nonzero(as_tuple=True)
    levels = differs.int().argmax(dim=1)[rows, frames]
    widest = 0.0
    for row, frame, k in zip(rows.tolist(), frames.tolist(), levels.tolist(), strict=True):
        before = exact.decode_in(got[row : row + 1, :k, frame : frame + 1])[0, :, 0]
        projected = into[k] @ (latents[row, :, frame].double() - before) + into_bias[k]
        ours, theirs = (books[k, codes[row, k, frame]] for codes in (got, truth))
        cosines = [projected @ word / word.norm() for word in (ours, theirs)]
        widest = max(widest, ((cosines[0] - cosines[1]).abs() / projected.norm()).item())
    share = 1 - len(rows) / max(1, got.shape[0] * got.shape[2])
    return Gate(f"cosine gap where codes differ ({share:.2%} of frames equal)", widest, ANGLE_LIMIT)


def _descript(quantizer: FactorisedQuantizer, x: Tensor, codes: Tensor, run: str) -> Peer:
    """The package's quantizer: its call, which also makes losses, and what makes the codes."""
    module = published("dac.nn.quantize")
    theirs = quietly(module.ResidualVectorQuantize, CHANNELS, LEVELS, WORDS, WIDTH)
    for ours, level in zip(quantizer._first(None), theirs.quantizers, strict=True):
        for name in ("in_proj", "out_proj"):
            getattr(level, name).load_state_dict(getattr(ours, name).state_dict())
        level.codebook.weight.copy_(ours.codebook)

    def loop() -> Tensor:
        residual, found = x, []
        for level in theirs.quantizers:
            words, index = level.decode_latents(level.in_proj(residual))
            residual = residual - level.out_proj(words)
            found.append(index)
        return torch.stack(found, dim=1)

    variants: dict[str, Callable[[], Tensor]] = {
        "call": lambda: theirs(x)[1],
        "codes_only": loop,
    }
    if run == "decode":
        variants = {"from_codes": lambda: theirs.from_codes(codes)[0]}
    return Peer(version_of("dac"), variants)
