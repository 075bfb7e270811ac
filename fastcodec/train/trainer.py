"""The trainer: a codec with a residual quantizer, from recordings in a folder.

Everything a step draws comes from (seed, step, rank), and a checkpoint holds all the rest, so a
resumed run repeats bit by bit what the unbroken one does (with the same torch, threads, processes).

    crops ─ encoder ─► latent ─ TrainedQuantizer ─► latent' ─ decoder ─► decoded ─► losses
              └─────────────── averaged copy ───────────────┘          (held-out curve, export)
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcodec.io import torchfile
from fastcodec.io.atomic import replacing
from fastcodec.ops import use_backend
from fastcodec.optional import require
from fastcodec.train import data, ranks
from fastcodec.train.adversary import Adversary
from fastcodec.train.balancer import Balancer
from fastcodec.train.config import Losses, TrainConfig
from fastcodec.train.heldout import HeldOut
from fastcodec.train.losses import MelScale, MultiResolutionStft, MultiScaleMel, Waveform
from fastcodec.train.net import Net, export, initialise, unloaded

Report = Callable[[int, dict[str, float]], None]


class Trainer:
    """One run, from its start or from its checkpoint.

    Args:
        config: what to train, and how
        folder: recordings
        out: folder for ``checkpoint.pt``, ``curve.jsonl`` and ``<preset>.safetensors``
        resume: go on from ``out``'s checkpoint
        weights: of the codec, to start from; random ones where None
        device: where; with torchrun's environment variables, one process a device
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        out: Path,
        resume: bool = False,
        device: torch.device | str = "cpu",
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config, self.out, self.device = config, out, torch.device(device)
        self.rank, self.ranks = _join()
        if config.threads:
            torch.set_num_threads(config.threads)
        self.checkpoint, self.curve = out / "checkpoint.pt", out / "curve.jsonl"
        self.exported = out / f"{config.preset}.safetensors"
        if self.checkpoint.exists() != resume:
            raise ValueError(
                f"train: {self.checkpoint} {'does not exist' if resume else 'exists already'}; "
                + ("start without --resume" if resume else "go on with --resume, or name another")
            )
        if resume and weights is not None:
            raise ValueError("train: a run that goes on has its weights; leave the others out")
        self._build(weights)
        out.mkdir(parents=True, exist_ok=True)
        c = config.data
        codec = self.net.codec
        self.tape, test = data.read_folder(
            folder, codec.sample_rate_hz, codec.channels, c.held_out_percent
        )
        self.held_out = HeldOut(test, codec.sample_rate_hz, config.log)
        self.n_samples = round(c.crop_s * codec.sample_rate_hz / codec.hop) * codec.hop
        self.step, self.seconds, self._stopped = 0, 0.0, False
        self.board: Any = None
        if config.log.tensorboard and not self.rank:
            writer = require("torch.utils.tensorboard", "train", "log.tensorboard").SummaryWriter
            self.board = writer(out)
        if resume:
            self._restore(torchfile.read(self.checkpoint))

    def _build(self, weights: str | os.PathLike[str] | None) -> None:
        config = self.config
        torch.manual_seed(config.seed)  # the initial weights
        self.generator = torch.Generator()
        codec = initialise(unloaded(config.preset))
        if weights is not None:
            codec.load_weights(weights)
        self.net = Net(codec, config, self.generator)
        if weights is not None:
            self.net.quantizer.keep_words()
        self.net.to(self.device)
        self.average = copy.deepcopy(self.net.codec).requires_grad_(False).eval()
        self.model: nn.Module = self.net
        if self.ranks > 1:
            self.model = nn.parallel.DistributedDataParallel(self.net, broadcast_buffers=False)
        o = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), o.learning_rate, o.betas, weight_decay=o.weight_decay
        )
        losses, rate_hz = config.losses, self.net.codec.sample_rate_hz
        terms = {
            "mel": log_mel(rate_hz, losses),
            "stft": MultiResolutionStft(),
            "waveform": Waveform(),
        }
        factors = {name: getattr(losses, name) for name in terms}
        self.terms = {name: terms[name].to(self.device) for name, f in factors.items() if f}
        a = config.adversarial
        self.adversary: Adversary | None = None
        if a.discriminators:
            self.adversary = Adversary(config, self.net.codec.channels, self.device, self.ranks > 1)
            factors |= {"adversarial": a.weight, "features": a.features}
        self.weights = factors
        self.balancer = Balancer(self.weights).to(self.device)

    def stop(self) -> None:
        """End ``run`` after the step it is at; for signal handlers."""
        self._stopped = True

    def run(self, minutes: float | None = None, report: Report | None = None) -> None:
        """Steps until ``config.steps``, or for ``minutes``; writes the checkpoint at the end."""
        log, started, saved = self.config.log, time.monotonic(), time.monotonic()
        before, found = self.seconds, list[dict[str, float]]()
        with use_backend("reference"):
            while self.step < self.config.steps:
                found.append(self.train_step())
                self.seconds = before + time.monotonic() - started
                if self.step % log.every == 0:
                    self._log(found, report)
                    found = []
                if time.monotonic() - saved > 60 * log.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if self._is_over(started + 60 * (math.inf if minutes is None else minutes)):
                    break
        self.save()

    def _is_over(self, end: float) -> bool:
        """Whether the first process says so: all have to stop at the same step."""
        over = torch.tensor(float(self._stopped or time.monotonic() > end), device=self.device)
        return bool(ranks.of_first(over))

    def train_step(self) -> dict[str, float]:
        """One step of the optimizers; the terms of the loss."""
        config = self.config
        self.generator.manual_seed(_seed(config.seed, self.step, self.rank))
        wav = data.batch(
            self.tape, config.data.batch, self.n_samples, self.generator, config.data.augmentation
        ).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.model.train()
        decoded, quantized = self.model(wav)
        values = {name: loss(decoded, wav) for name, loss in self.terms.items()}
        adversary = self.adversary if self.step >= config.adversarial.start else None
        if adversary:
            values |= adversary.losses(decoded, wav)
        total = self._weighted(values, decoded)
        total = total + config.losses.commitment * quantized.commitment
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), config.optimizer.clip_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"train: the gradient is not finite at step {self.step}")
        self.optimizer.step()
        values |= {"commitment": quantized.commitment, "norm": norm}
        if adversary:
            values["discriminator"] = adversary.train_step(decoded, wav)
        self.step += 1
        self._follow()
        return {name: value.item() for name, value in values.items()}

    def _weighted(self, values: dict[str, Tensor], decoded: Tensor) -> Tensor:
        """A scalar whose gradient at the decoder's output is that of the weighted losses."""
        if not self.config.losses.balanced:
            return torch.stack([self.weights[name] * v for name, v in values.items()]).sum()
        return (self.balancer.gradient(values, decoded).detach() * decoded).sum()

    def _learning_rate(self) -> float:
        o, left = self.config.optimizer, self.config.steps - self.step
        rising = min(1.0, (self.step + 1) / max(1, o.warmup_steps))
        return o.learning_rate * rising * min(1.0, left / max(1, o.falling_steps))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged copy; sooner at the start, where an average would be of noise."""
        decay = min(self.config.optimizer.average, (1 + self.step) / (10 + self.step))
        codec = self.net.codec
        for average, own in zip(self.average.parameters(), codec.parameters(), strict=True):
            average.lerp_(own, 1 - decay)
        # The codebooks are averages already, and a restarted word is not between two places.
        for words, current in zip(self.average.buffers(), codec.buffers(), strict=True):
            words.copy_(current)

    def _log(self, steps: list[dict[str, float]], report: Report | None) -> None:
        """A line of the curve: the means over the steps since the last one."""
        if self.rank:
            return
        line = {"step": self.step, "seconds": round(self.seconds, 1), "lr": self._learning_rate()}
        for name in steps[-1]:
            values = [values[name] for values in steps if name in values]
            line[name] = round(sum(values) / len(values), 5)
        if self.step % self.config.log.held_out_every == 0:
            with use_backend(None):
                line |= self.held_out.measure(self.average)
        with self.curve.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board:
            for name, value in line.items():
                self.board.add_scalar(name, value, self.step)
        if report:
            report(self.step, line)

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each whole or not at all."""
        if self.rank:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "config": asdict(self.config),
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
        }
        if self.adversary:
            state["adversary"] = self.adversary.state_dict()
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)
        export(self.average, self.exported)

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if bool(self.adversary) == ("adversary" in state):  # else one begins or ends here
            self.balancer.load_state_dict(state["balancer"])
            if self.adversary:
                self.adversary.load_state_dict(state["adversary"])
        if self.curve.exists() and not self.rank:  # a run that was killed got further
            lines = self.curve.read_text(encoding="utf-8").splitlines(keepends=True)
            with replacing(self.curve) as temporary:
                kept = [line for line in lines if json.loads(line)["step"] <= self.step]
                temporary.write_text("".join(kept), encoding="utf-8")


def log_mel(sample_rate_hz: int, losses: Losses) -> MultiScaleMel:
    """The mean over windows of the mean absolute difference of log-mel spectra."""
    if len(losses.mel_windows) != len(losses.mel_bins):
        raise ValueError(
            f"train: mel_windows and mel_bins must be equally many, got {len(losses.mel_windows)} "
            f"and {len(losses.mel_bins)}"
        )
    share = 1 / len(losses.mel_windows)
    return MultiScaleMel(
        sample_rate_hz,
        [
            MelScale(window, window // 4, bins, log_l1=share)
            for window, bins in zip(losses.mel_windows, losses.mel_bins, strict=True)
        ],
        scale="htk",
        equal_area=False,
        log="natural",
        log_floor=losses.mel_floor,
        normalised=True,
    )


def _join() -> tuple[int, int]:
    """Rank and number of processes, as torchrun says; joins them."""
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return rank, ranks


def _seed(*parts: int) -> int:
    """63 bits that tell every (seed, step, rank) from every other."""
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
