"""Runs a case of a training step: codebooks that move, DAC's gradients, EnCodec's balancer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parametrizations

from fastcodec import ops
from fastcodec.layers.quantize import FactorisedLevel, FactorisedQuantizer, ResidualQuantizer
from fastcodec.train.balancer import Balancer
from fastcodec.train.codebooks import (
    OPTIONS,
    CodebookOptions,
    Quantized,
    TrainedFactorised,
    TrainedQuantizer,
    perplexity,
)

from . import cases
from .cases import Case
from .checks import Checks

CLOSE = 1e-5  # times the rms


def serves(case: Case) -> bool:
    """Whether a case is of a training step: such a case names the class that made it."""
    return case.entry["upstream"].get("class") in RUNNERS


def run(case: Case) -> None:
    """Compare every array of the case."""
    with ops.use_backend("reference"):
        RUNNERS[case.entry["upstream"]["class"]](case)


def _encodec(case: Case) -> None:
    """Some steps of encodec's residual quantizer."""
    checks, config = Checks(case), case.config
    options = replace(OPTIONS["encodec"], dropout=0.0)
    checks.equal("decay", options.decay, config["decay"])
    checks.equal("iterations", options.kmeans_iterations, config["kmeans_iters"])
    checks.equal("threshold", options.restart_below, config["threshold_ema_dead_code"])
    trained = _quantizer(case, options, config["codebook_size"], config["dim"])
    if case.entry["states"]:
        _load(trained, case, "layers.{}._codebook.{}")
        for name, value in _buffers(trained).items():
            checks.floats(f"{name}_before", value)
    with mock.patch("fastcodec.train.clusters.draw", _recorded(case)):
        for step in range(len(case.entry["draws"]["per_step"])):
            batch = _filled(case, f"batch.{step}", case.entry["shape"]).requires_grad_()
            got = trained(batch)
            checks.floats(f"quantised_step{step}", got.latent.detach())
            checks.exact(f"codes_step{step}", got.codes.transpose(0, 1))
            checks.floats(f"commit_loss_step{step}", got.commitments.detach()[:, None])
            weight = _filled(case, f"weight.{step}", case.entry["shape"])
            (got.commitments.sum() + (got.latent * weight).mean()).backward()
            checks.floats(f"input_grad_step{step}", _grad(batch))
            for name, value in _buffers(trained).items():
                checks.floats(f"{name}_after{step}", value)
    checks.uses(*(f"draw_{i}" for i in range(len(case.entry["draws"]["kind"]))))
    _finish(checks)


def _audiodec(case: Case) -> None:
    """Some steps of AudioDec's residual quantizer, whose features are the last dimension."""
    checks, config = Checks(case), case.config
    options = OPTIONS["audiodec"]
    checks.equal("decay", options.decay, config["decay"])
    trained = _quantizer(case, options, config["codebook_size"], config["dim"])
    _load(trained, case, "layers.{}.{}")

    def buffers() -> Iterator[tuple[str, Tensor]]:
        for name, value in _buffers(trained).items():
            if name != "inited":
                yield name, value.transpose(1, 2) if value.dim() == 3 else value

    for name, value in buffers():
        checks.floats(f"{name}_before", value)
    for step in range(2):
        batch = _filled(case, f"batch.{step}", case.entry["shape"])
        got: Quantized = trained(batch.transpose(1, 2))
        checks.floats(f"quantised_step{step}", got.latent.transpose(1, 2))
        checks.floats(f"loss_step{step}", got.commitments)
        checks.floats(f"perplexity_step{step}", perplexity(got.codes, config["codebook_size"]))
        for name, value in buffers():
            checks.floats(f"{name}_after{step}", value)
    _finish(checks)


def _quantizer(case: Case, options: CodebookOptions, size: int, dimension: int) -> TrainedQuantizer:
    return TrainedQuantizer(
        ResidualQuantizer(case.config["num_quantizers"], size, dimension), options
    )


def _load(trained: TrainedQuantizer, case: Case, key: str) -> None:
    """Put the case's state, of entries ``key``, in the place of a first batch."""
    (state,) = case.states()
    for name, buffer in _buffers(trained).items():
        for i in range(len(buffer)):
            value = state.get(key.format(i, name))
            if value is not None:  # AudioDec's as [D, N]
                buffer[i] = value if value.shape == buffer[i].shape else value.T
    trained.inited.fill_(True)


def _buffers(trained: TrainedQuantizer) -> dict[str, Tensor]:
    """By upstream's names."""
    return {
        "embed": trained.quantizer.codebooks,
        "embed_avg": trained.embed_avg,
        "cluster_size": trained.cluster_size,
        "inited": trained.inited[:, None].float(),
    }


def _recorded(case: Case) -> Callable[[int, int, object], Tensor]:
    """``clusters.draw`` with the recorded draws, for the k-means of all levels before restarts."""
    levels = case.config["num_quantizers"]
    order: list[int] = []
    for count in case.entry["draws"]["per_step"]:
        per_level = count // levels  # upstream's: one after the other within a level
        at = len(order)
        order += [at + per_level * i + kind for kind in range(per_level) for i in range(levels)]
    draws = iter(order)

    def draw(count: int, size: int, generator: object) -> Tensor:
        return torch.from_numpy(case.arrays[f"draw_{next(draws)}"].full.astype(np.int64)[:size])

    return draw


def _dac(case: Case) -> None:
    """Losses and gradients of DAC's quantizer with dropout."""
    checks, config = Checks(case), case.config
    sizes = (config["n_codebooks"], config["codebook_size"], config["codebook_dim"])
    trained = TrainedFactorised(FactorisedQuantizer(*sizes, config["input_dim"]))
    parameters = _with_weight_norm(trained.quantizer, case)
    batch = _filled(case, "batch.0", case.entry["shape"]).requires_grad_()
    counts = torch.full((len(batch),), sizes[0])
    dropped = int(len(batch) * config["quantizer_dropout"])
    counts[:dropped] = torch.tensor(case.entry["dropout_draw"][:dropped])
    got = trained(batch, counts)
    total = (
        0.25 * got.commitment
        + got.codebook
        + (got.latent * _filled(case, "weight.0", case.entry["shape"])).mean()
    )
    total.backward()
    checks.floats("quantised", got.latent.detach())
    with checks.of("codes"):  # upstream's has codes of what dropout leaves out too
        want = torch.from_numpy(case.arrays["codes"].full.astype(np.int64))
        assert torch.equal(trained(batch).codes, want)
        assert torch.equal(got.codes, want.where(got.codes >= 0, -1))
        assert torch.equal((got.codes >= 0).sum(1), counts[:, None].expand(-1, want.shape[2]))
    checks.floats("projected", _projected(trained.quantizer, batch))
    checks.floats("grad_input", _grad(batch))
    for name, parameter in parameters.items():
        checks.floats(f"grad/{name}", _grad(parameter))
    for name, value in {
        "commitment_loss": got.commitment, "codebook_loss": got.codebook, "total": total
    }.items():  # fmt: skip
        checks.equal(name, math.isclose(value.item(), case.entry[name], rel_tol=CLOSE), True)
    _finish(checks)


def _with_weight_norm(quantizer: FactorisedQuantizer, case: Case) -> dict[str, Tensor]:
    """The quantizer's parameters by upstream's names, filled, those of projections normalised."""
    (state,) = case.states()
    found: dict[str, Tensor] = {}
    for i, level in enumerate(quantizer.levels):
        assert isinstance(level, FactorisedLevel)
        found[f"quantizers.{i}.codebook.weight"] = level.codebook
        for name in ("in_proj", "out_proj"):
            conv, prefix = getattr(level, name), f"quantizers.{i}.{name}"
            parametrizations.weight_norm(conv)
            weight = conv.parametrizations.weight
            found |= {f"{prefix}.bias": conv.bias, f"{prefix}.weight_g": weight.original0,
                      f"{prefix}.weight_v": weight.original1}  # fmt: skip
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(state[name])
    return found


@torch.no_grad()
def _projected(quantizer: FactorisedQuantizer, x: Tensor) -> Tensor:
    """[B, K * D, T]: every level's input in the words' space."""
    rest, found = x, []
    for level in quantizer.levels:
        assert isinstance(level, FactorisedLevel)
        found.append(level.project(rest))
        rest = rest - level.decode(level.encode(found[-1]))
    return torch.cat(found, dim=1)


def _balancer(case: Case) -> None:
    """Three steps of encodec's balancer, with losses of very different size."""
    checks, config = Checks(case), case.config
    balancer = Balancer(
        config["weights"], config["total_norm"], config["ema_decay"], config["rescale_grads"]
    )
    shape = case.arrays["grad_step0"].shape
    for step in range(3):
        y = _filled(case, f"output.{step}", shape).requires_grad_()
        target = _filled(case, f"target.{step}", shape)
        losses = {
            "l1": (y - target).abs().mean(),
            "mel": (y - target).square().mean(),
            "adv": (1 - y).relu().mean() * (5 if step else 1),
        }
        balancer.backward(losses, y)
        checks.floats(f"grad_step{step}", _grad(y))
    _finish(checks)


def _finish(checks: Checks) -> None:
    """With a tolerance of steps of training: the vectors' own would be ten times as large."""
    worst = max(checks.measured, key=lambda name: checks.measured[name])
    checks.equal(f"{worst} within {CLOSE}", checks.measured[worst] < CLOSE, True)
    checks.finish()


def _filled(case: Case, key: str, shape: tuple[int, ...] | list[int]) -> Tensor:
    """A random signal of the case, of unit variance."""
    arguments = {**case.entry["fill"], "gain": math.sqrt(math.prod(shape[1:]))}
    filler = case.folder.parent / "fill.py"
    values = cases._filled(filler, key, tuple(shape), "float32", tuple(arguments.items()))
    return torch.from_numpy(values.copy())


def _grad(x: Tensor) -> NDArray[np.float32]:
    assert x.grad is not None
    grad: NDArray[np.float32] = x.grad.numpy()
    return grad


RUNNERS = {
    "quantization.core_vq.ResidualVectorQuantization": _encodec,
    "layers.vq_module.ResidualVQ": _audiodec,
    "nn.quantize.ResidualVectorQuantize": _dac,
    "balancer.Balancer": _balancer,
}
