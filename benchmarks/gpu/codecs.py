"""EnCodec 24 kHz and DAC 44.1 kHz on 10 s of signal: encode and decode beside transformers.

Gates of ours: the codes of the CPU at highest precision, by the tie rule; its samples; and, bit for
bit on the GPU, any batch, any partition, any padding.
"""

from __future__ import annotations

import contextlib
import copy
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.codecs import dac as dac_pair
from benchmarks.codecs import encodec as encodec_pair
from benchmarks.codecs._pair import AUDIO_LIMITS
from benchmarks.engines import Published
from benchmarks.gates import PEER, Gate, identical, relative_l2, worst
from benchmarks.gpu.clock import Row, Side
from benchmarks.gpu.contest import Bench, Case
from benchmarks.runner import Absent
from benchmarks.signals import wav
from benchmarks.ties import tie_gate
from benchmarks.weights import random_codec
from benchmarks.work import net_flops, parameter_bytes, quantizer_flops
from fastcodec.codecs import Codec, dac, encodec

SECONDS = 10.0
COMPILE_S = 40
PRECISIONS = ("highest", "high", "medium")
Peers = Callable[[Codec], list[Published]]
Goal = tuple[str, Callable[[float, float, float], bool]]


def rows(bench: Bench) -> Iterator[Row]:
    """Both codecs, both ways."""
    twice: Goal = ("at least 2 times the best peer", lambda us, peer, _: peer >= 2 * us)
    near: Goal = (
        "at least 1.3 times the best peer, at most 2 times the floor",
        lambda us, peer, floor: peer >= 1.3 * us and us <= 2 * floor,
    )
    yield from _of(bench, random_codec(encodec, "encodec_24khz"), _encodec_peers, 6.0, twice)
    yield from _of(bench, random_codec(dac, "dac_44khz"), _dac_peers, None, near)


def _encodec_peers(codec: Codec) -> list[Published]:
    return _there(lambda: encodec_pair.hf(codec, 6.0), lambda: encodec_pair.on_pypi(codec, 6.0))


def _dac_peers(codec: Codec) -> list[Published]:
    return _there(lambda: dac_pair.hf(codec), lambda: dac_pair.descript(codec))


def _there(*makers: Callable[[], Published]) -> list[Published]:
    found = []
    for make in makers:
        try:
            found.append(make())
        except Absent as reason:
            found.append(Published(str(reason).partition(";")[0], absent=str(reason)))
    return found


@torch.no_grad()
def _of(bench: Bench, codec: Codec, peers: Peers, kbps: float | None, must: Goal) -> Iterator[Row]:
    published = peers(codec)
    x = wav(codec.sample_rate_hz, codec.channels, SECONDS)
    x = x[..., : x.shape[2] // codec.hop * codec.hop]  # the peers do not fill up a frame
    truth = codec.encode(x, bandwidth_kbps=kbps).tokens
    heard, latents = codec.decode(truth), codec.encoder(x)
    nets = {}
    for precision in PRECISIONS:
        nets[precision] = copy.deepcopy(codec).cuda()
        nets[precision].set_precision(precision)
    config = {"B": 1, "K": truth.shape[1], "seconds": SECONDS}
    yield bench.row(f"{codec.name}.invariance", config) | _invariance(nets, x)
    given = {"encode": x.cuda(), "decode": truth.cuda()}
    for what, data in given.items():

        def check(got: Tensor, precision: str, what: str = what) -> Gate:
            if what == "encode":
                return tie_gate(codec.quantizer, latents, got.cpu(), truth, precision)
            shortest = min(got.shape[2], heard.shape[2])
            near = relative_l2(
                got.float().cpu()[..., :shortest], heard[..., :shortest], AUDIO_LIMITS[precision]
            )
            return near

        theirs = _sides(bench, published, what, data, lambda y: check(y, PEER))
        for precision, net in nets.items():
            yield bench.measure(
                Case(
                    f"{codec.name}.{what}.{precision}",
                    config,
                    [_ours(net, what, data, truth.shape[1])],
                    theirs,
                    lambda y, p=precision: check(y, p),
                    _floor_us(bench, codec, what, truth, precision),
                    must,
                    lambda y: check(y, PEER),
                )
            )


def _ours(net: Codec, what: str, data: Tensor, count: int) -> Side:
    """What a call does, without its checks of the input, for which the host waits."""
    if what == "encode":
        return Side("fastcodec", lambda: net.quantizer.encode(net.encoder(data), count))
    return Side("fastcodec", lambda: net.decoder(net.quantizer.decode(data)))


def _floor_us(bench: Bench, codec: Codec, what: str, codes: Tensor, precision: str) -> float:
    frames, decode = codes.shape[2], what == "decode"
    net = codec.decoder if decode else codec.encoder
    flops = net_flops(net, frames if decode else frames * codec.hop)
    flops += quantizer_flops(codec.quantizer, frames, codes.shape[1], decode)
    rate = bench.floors["bf16_tflops" if precision == "medium" else "tf32_tflops"]
    read = parameter_bytes(net) / (2 if precision == "medium" else 1)
    return max(flops / rate / 1e6, read / bench.floors["copy_gbps"] / 1e3)


def _invariance(nets: dict[str, Codec], x: Tensor) -> Row:
    """Elements that differ, which none may: whole against batch, list and pushes, on the GPU."""
    gates = {}
    for precision, net in nets.items():
        short = x[..., : 2 * net.sample_rate_hz].cuda()
        whole = net.encode(short)
        heard = net.decode(whole)
        pair = net.encode([short[0, :, : short.shape[2] // 3], short[0]])
        batch = net.encode(torch.cat([short.flip(2), short, short]))
        stream, codes, samples = net.stream(), [], []
        step = 7 * net.hop + 3
        for begin in range(0, short.shape[2], step):
            final = begin + step >= short.shape[2]
            codes.append(stream.encode(short[..., begin : begin + step], final))
            samples.append(stream.decode(codes[-1], final))
        gates[precision] = worst(
            identical(pair.tokens[1:], whole.tokens),
            identical(batch.tokens[1:2], whole.tokens),
            identical(net.decode(batch)[1:2], heard),
            identical(torch.cat([c.tokens for c in codes], dim=2), whole.tokens),
            identical(torch.cat(samples, dim=2), heard),
        )
    found: Row = {"gates": {name: gate.as_row() for name, gate in gates.items()}}
    if not all(gate.passed for gate in gates.values()):
        found["error"] = "not the same bits whatever the batch, the list or the pushes"
    return found


def _sides(
    bench: Bench,
    published: list[Published],
    what: str,
    data: Tensor,
    check: Callable[[Tensor], Gate],
) -> list[Side]:
    """Each peer in float32 (torch's default: TF32 convolutions), in bfloat16, and the first of
    them compiled; all are measured as manual CUDA graphs where they can be captured."""
    made: list[Side] = []
    for peer in published:
        run = peer.encode if what == "encode" else peer.decode
        if run is None or peer.net is None:
            made.append(Side(peer.name, absent=peer.absent or f"it does not {what}"))
            continue
        peer.net.cuda()
        inputs = (data,) if what == "encode" else (data, None)
        made.append(Side(f"{peer.name} float32, TF32", lambda r=run, i=inputs: r(*i)))
        made.append(Side(f"{peer.name} autocast bfloat16", _autocast(run, inputs)))
        if len(made) == 2:
            made.append(_compiled(bench, f"{peer.name} compile(max-autotune)", run, inputs))
    return made


def _autocast(run: Callable[..., Tensor], inputs: tuple[Any, ...]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return run(*inputs)

    return call


def _compiled(bench: Bench, name: str, run: Callable[..., Tensor], inputs: tuple[Any, ...]) -> Side:
    """Autocast to bfloat16, compiled; what it takes longer than ``COMPILE_S`` for is absent."""
    allowed = min(COMPILE_S, int(bench.left_s) - 60)
    if allowed < 10:
        return Side(name, absent="there was no time left to compile it")
    torch._dynamo.reset()
    call = torch.compile(_autocast(run, inputs), dynamic=False, mode="max-autotune-no-cudagraphs")
    try:
        with _deadline(allowed):
            call()
    except Exception as error:
        text = str(error).strip().splitlines()
        return Side(name, absent=f"{type(error).__name__}: {text[0][:120] if text else ''}")
    return Side(name, call)


@contextlib.contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"not ready after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
