"""snake, both residual quantizers and the LSTM at the sizes of DAC 44.1 kHz and EnCodec 24 kHz."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.gates import Gate, codes_up_to_ties, doubled, relative_l2, worst
from benchmarks.gpu.clock import Row, Side
from benchmarks.gpu.contest import Bench, Case, by_backend, compiled
from benchmarks.machine import package
from benchmarks.ops._eager import n_bytes, time_major
from benchmarks.signals import word_sizes
from benchmarks.ties import tie_gate
from fastcodec import ops
from fastcodec.layers.quantize import FactorisedQuantizer

EAGER = f"{package('torch')} eager"
# C_in, C_out, kernel, dilation or stride, T: of DAC 44.1 kHz's decoder over 10 s
CONVS = {
    "conv1d.last_block": (96, 96, 7, 9, 441000),
    "conv1d.middle_block": (384, 384, 7, 3, 110250),
    "conv1d.first_block": (768, 768, 7, 1, 6890),
    "conv_transpose1d.last_block": (192, 96, 4, 2, 220500),
    "conv_transpose1d.first_block": (1536, 768, 16, 8, 861),
}
HALF = 1e-2  # relative L2 of what is bfloat16 throughout


def rows(bench: Bench) -> Iterator[Row]:
    """One an op and type."""
    for kind in (torch.float32, torch.bfloat16):
        yield bench.measure(_snake(bench, kind))
    for name, shape in CONVS.items():
        for precision in ("highest", "medium"):
            yield bench.measure(_conv(bench, name, shape, precision))
    yield bench.measure(_rvq(bench))
    yield bench.measure(_rvq_dac(bench))
    for precision, limit in (("highest", 1e-5), ("medium", 2e-2)):
        yield bench.measure(_lstm(precision, limit))


def _draw(*shape: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source).cuda()


def _copy_us(bench: Bench, *tensors: Tensor) -> float:
    return n_bytes(*tensors) / bench.floors["copy_gbps"] / 1e3


def _snake(bench: Bench, kind: torch.dtype) -> Case:
    """DAC's last block, time-major as in a net; the peers have the layout that they want."""
    x = _draw(1, 96, 441000).to(kind)
    alpha = (_draw(96, seed=1).abs() + 0.1).to(kind)
    mine, column = time_major(x), alpha[:, None]
    truth = ops.snake.reference(x.double(), alpha.double())
    limit = HALF if kind is torch.bfloat16 else 1e-5

    def formula(x: Tensor) -> Tensor:
        return x + torch.sin(column * x).square() * (column + 1e-9).reciprocal()

    def dac(x: Tensor, alpha: Tensor) -> Tensor:
        return x + (alpha + 1e-9).reciprocal() * torch.sin(alpha * x).pow(2)

    script = torch.jit.script(dac)
    floor = _copy_us(bench, x, x)
    name = str(kind).removeprefix("torch.")
    return Case(
        f"snake.{name}",
        {"B": 1, "C": 96, "T": 441000},
        by_backend(ops.snake, (mine, alpha, None)),
        [
            Side(EAGER, lambda: formula(x)),
            Side("dac's torch.jit.script", lambda: script(x, column)),
            compiled("torch.compile", formula, x),
            Side("BigVGAN CUDA", absent="filters up and down around the snake: other work"),
        ],
        lambda y: relative_l2(y, truth, limit),
        floor,
        ("at most 1.15 times a copy of the bytes", lambda us, _, copy: us <= 1.15 * copy),
    )


def _conv(bench: Bench, name: str, shape: tuple[int, int, int, int, int], precision: str) -> Case:
    """snake, then a convolution; the peer's in TF32, or bfloat16 throughout."""
    c_in, c_out, kernel, step, frames = shape
    turned = name.startswith("conv_transpose")
    x, alpha = _draw(1, c_in, frames), _draw(c_in, seed=1).abs() + 0.1
    size = (c_in, c_out, kernel) if turned else (c_out, c_in, kernel)
    weight, bias = _draw(*size, seed=2) * (c_in * kernel) ** -0.5, _draw(c_out, seed=3)
    snake = (ops.ACTIVATIONS["snake"], 0.0)
    op: Any = ops.conv_transpose1d if turned else ops.conv1d
    if turned:
        given: tuple[Any, ...] = (x, weight, bias, alpha, None, None, step, 1, *snake)
    else:
        given = (x, weight, bias, None, alpha, None, None, 1, step, 1, *snake)
    truth = op.reference(*doubled(given))
    mine = (time_major(x), *given[1:], ops.PRECISIONS[precision])
    whole = slice(step, step * frames) if turned else slice(None)  # of what frames complete

    def torch_conv(kind: torch.dtype) -> Side:
        wav, w, b, a = (t.to(kind) for t in (x, weight, bias, alpha[:, None]))

        def run() -> Tensor:
            y = wav + torch.sin(a * wav).square() * (a + 1e-9).reciprocal()
            if turned:
                return torch.nn.functional.conv_transpose1d(y, w, b, step)[..., whole]
            return torch.nn.functional.conv1d(y, w, b, dilation=step)

        return Side(f"{EAGER} {kind}", run)

    flops = 2 * weight.numel() * frames
    rate = bench.floors["bf16_tflops" if precision == "medium" else "tf32_tflops"]
    floor = max(flops / rate / 1e6, _copy_us(bench, x, weight, truth.float()))
    limit = HALF if precision == "medium" else 1e-5
    return Case(
        f"{name}.{precision}",
        {"B": 1, "C": c_in, "C_out": c_out, "k": kernel, "step": step, "T": frames},
        by_backend(op, mine),
        [torch_conv(torch.float32), torch_conv(torch.bfloat16)],
        lambda y: relative_l2(y, truth, limit),
        floor,
        ("faster than torch", lambda us, peer, _: us < peer),
        lambda y: relative_l2(y.float(), truth, 3e-2),
    )


def _rvq(bench: Bench) -> Case:
    frames, stages, words, features = 750, 32, 1024, 128
    x = _draw(1, features, frames)
    books = _draw(stages, words, features, seed=1) * word_sizes(stages).cuda()[:, None, None]
    by_frame, turned, norms = x[0].T.contiguous(), books.mT.contiguous(), books.square().sum(2)
    truth = ops.rvq_encode.reference(*doubled((x, books, None)))

    def loop() -> Tensor:
        residual, codes = by_frame, []
        for k in range(stages):
            codes.append((2 * (residual @ turned[k]) - norms[k]).max(dim=1).indices)
            residual = residual - books[k][codes[-1]]
        return torch.stack(codes)[None]

    flops, read = 2 * frames * books.numel(), n_bytes(x, books)
    floor = max(flops / bench.floors["tf32_tflops"] / 1e6, read / bench.floors["copy_gbps"] / 1e3)
    return Case(
        "rvq_encode.encodec",
        {"B": 1, "T": frames, "K": stages, "N": words, "D": features},
        by_backend(ops.rvq_encode, (time_major(x), books, None)),
        [
            Side(f"{EAGER} loop", loop),
            compiled("torch.compile", loop),
            _vqp(by_frame, books),
            _flash(by_frame, books),
        ],
        lambda codes: codes_up_to_ties(codes, truth, x, books),
        floor,
        (
            "at most 100 us and a fifth of the best peer",
            lambda us, peer, _: us <= min(100, peer / 5),
        ),
    )


def _vqp(by_frame: Tensor, books: Tensor) -> Side:
    if find_spec("vector_quantize_pytorch") is None:
        return Side("vector-quantize-pytorch", absent="not installed")
    from vector_quantize_pytorch import ResidualVQ

    stages, words, features = books.shape
    net: Any = ResidualVQ(dim=features, num_quantizers=stages, codebook_size=words).cuda().eval()
    for layer, book in zip(net.layers, books, strict=True):
        layer._codebook.embed.copy_(book[None])
        layer._codebook.initted.fill_(True)
    return Side(package("vector-quantize-pytorch"), lambda: net(by_frame[None])[1].mT.contiguous())


def _flash(by_frame: Tensor, books: Tensor) -> Side:
    if find_spec("flash_kmeans") is None:
        return Side("flash-kmeans per stage", absent="not installed")
    from flash_kmeans import euclid_assign_triton

    norms = by_frame.square().sum(1)[None]

    def run() -> Tensor:
        residual, codes = by_frame, []
        for book in books:
            codes.append(euclid_assign_triton(residual[None], book[None], norms)[0].long())
            residual = residual - book[codes[-1]]
        return torch.stack(codes)[None]

    return Side(f"{package('flash-kmeans')} per stage", run)


def _rvq_dac(bench: Bench) -> Case:
    frames, levels, words, width, features = 861, 9, 1024, 8, 1024
    torch.manual_seed(0)
    net = FactorisedQuantizer(levels, words, width, features).eval().requires_grad_(False).cuda()
    x = _draw(1, features, frames)
    parts = net._stack.get(net._first(None))
    truth = ops.rvq_encode_factorised.reference(*doubled((x, *parts, None)))
    unit_words = torch.nn.functional.normalize(parts.codebooks, dim=2)

    def loop() -> Tensor:
        residual, codes = x[0], []
        for k in range(levels):
            seen = parts.in_weight[k] @ residual + parts.in_bias[k][:, None]
            seen = torch.nn.functional.normalize(seen, dim=0)
            codes.append((unit_words[k] @ seen).argmax(dim=0))
            word = parts.codebooks[k][codes[-1]].T
            residual = residual - (parts.out_weight[k] @ word + parts.out_bias[k][:, None])
        return torch.stack(codes)[None]

    read = n_bytes(x, *parts)
    flops = 2 * frames * levels * (2 * features * width + words * width)
    floor = max(flops / bench.floors["f32_tflops"] / 1e6, read / bench.floors["copy_gbps"] / 1e3)
    exact = net.cpu()
    latents, right = x.cpu(), truth.cpu()
    return Case(
        "rvq_encode.dac",
        {"B": 1, "T": frames, "K": levels, "N": words, "d": width, "D": features},
        by_backend(ops.rvq_encode_factorised, (time_major(x), *parts, None)),
        [Side(f"{EAGER} loop", loop), compiled("torch.compile", loop)],
        lambda codes: tie_gate(exact, latents, codes.cpu(), right),
        floor,
        ("at most 30 us", lambda us, peer, _: us <= 30),
    )


def _lstm(precision: str, limit: float) -> Case:
    frames, layers, hidden = 750, 2, 512
    x, h, c = _draw(1, hidden, frames), _draw(layers, 1, hidden, seed=1), _draw(layers, 1, hidden)
    weights = [_draw(layers, 4 * hidden, hidden, seed=i) * hidden**-0.5 for i in (2, 3)]
    biases = [_draw(layers, 4 * hidden, seed=i) * hidden**-0.5 for i in (4, 5)]
    truth = ops.lstm.reference(*doubled((x, h, c, *weights, *biases, None, True)))

    def cudnn(kind: torch.dtype) -> Side:
        states = (h.to(kind), c.to(kind))
        each = [w[i].to(kind) for i in range(layers) for w in (*weights, *biases)]
        net = torch.nn.LSTM(hidden, hidden, layers).cuda().to(kind)  # one block of weights
        with torch.no_grad():
            for own, value in zip(net.parameters(), each, strict=True):
                own.copy_(value)
        given = x.permute(2, 0, 1).to(kind).contiguous()

        def run() -> tuple[Tensor, ...]:
            y, (h_out, c_out) = net(given, states)
            return (y + given).permute(1, 2, 0), h_out, c_out

        return Side(f"cuDNN {torch.backends.cudnn.version()} {kind}", run)

    args = (time_major(x), h, c, *weights, *biases, None, True)
    return Case(
        f"lstm.{precision}",
        {"B": 1, "H": hidden, "L": layers, "T": frames},
        by_backend(ops.lstm, (*args, ops.PRECISIONS[precision])),
        [cudnn(torch.float32), cudnn(torch.float16), cudnn(torch.bfloat16)],
        lambda got: _states(got, truth, limit),
        (frames + 1) * 0.5,  # dependent steps, half a microsecond each: kernels.md's estimate
        ("at least 1.5 times as fast as cuDNN", lambda us, peer, _: peer >= 1.5 * us),
        lambda got: _states(got, truth, 3e-2),
    )


def _states(got: tuple[Tensor, ...], truth: tuple[Tensor, ...], limit: float) -> Gate:
    pairs = zip(got, truth, strict=True)
    return worst(*(relative_l2(g.float(), t, limit) for g, t in pairs))
