"""From scores to tokens: the sampling rules of the published systems, and two sources of chance.

A rule turns logits [..., V] into weights [..., V], the probabilities before the draw up to a
factor, zero where a token is out. The draw is a race: the largest of weight / Exp(1), which is
distributed as a multinomial draw and needs no sum, no sort and no answer from the GPU. The order of
a rule's steps is part of it, as is what it does with ties.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = -math.inf


@dataclass(frozen=True)
class Sampler:
    """A rule and its settings.

    Args:
        rule: a key of ``RULES``
        temperature: 0: the most probable token
        top_k: so many tokens at most; 0: any number
        top_p: the most probable tokens of this mass; 0: all
        min_p: at least this share of the largest probability ("transformers" only)
        thres: the share of the vocabulary that is cut ("audiolm" and "soundstorm")
        eos: the end token that "dia" treats on its own
    """

    rule: str = "audiocraft"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    min_p: float = 0.0
    thres: float = 0.0
    eos: int | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"Sampler: expected a rule of {', '.join(RULES)}, got {self.rule!r}")
        if not self.temperature >= 0 or math.isinf(self.temperature):
            raise ValueError(f"Sampler: expected a temperature from 0 on, got {self.temperature}")
        if self.top_k < 0 or not 0 <= self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(
                f"Sampler: expected top_k from 0 on, top_p and min_p from 0 to 1, got {self}"
            )
        if not 0 <= self.thres < 1:
            raise ValueError(f"Sampler: expected thres from 0 to below 1, got {self.thres}")

    def weights(self, logits: Tensor) -> Tensor:
        """[..., V] of [..., V]: probabilities up to a factor, in the order of the vocabulary."""
        if self.temperature == 0 and self.rule not in ("audiolm", "soundstorm"):
            return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
        return RULES[self.rule](logits, self)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Tokens [...] of logits [..., V].

        Args:
            noise: Exp(1) numbers of the same shape, see ``Chance``
        """
        return (self.weights(logits) / noise).argmax(-1)


def keep_top_k(x: Tensor, k: int, ties: bool, out: float = NEVER) -> Tensor:
    """x [..., V] with all but the k largest replaced; ties: those equal to the k-th stay, too."""
    k = min(k, x.shape[-1])
    values, places = x.topk(k, dim=-1)
    if ties:
        return x.masked_fill(x < values[..., -1:], out)
    return torch.full_like(x, out).scatter(-1, places, values)


def keep_top_p(probabilities: Tensor, p: float) -> Tensor:
    """The largest [..., V] whose sum of the larger ones is at most p; the others become 0."""
    ordered, places = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(ordered).scatter(-1, places, ordered.masked_fill(before > p, 0.0))


def keep_top_p_logits(logits: Tensor, p: float) -> Tensor:
    """The same of logits, by the sum up to the token before (VALL-E, Dia, Bark)."""
    ordered, places = logits.sort(dim=-1, descending=True)
    over = ordered.softmax(-1).cumsum(-1) > p
    over = torch.cat([torch.zeros_like(over[..., :1]), over[..., :-1]], dim=-1)
    kept = ordered.masked_fill(over, NEVER)
    return torch.full_like(logits, NEVER).scatter(-1, places, kept)


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Positive logits of the ids seen [..., n] divided by the penalty, negative ones multiplied."""
    score = logits.gather(-1, seen)
    score = torch.where(score < 0, score * penalty, score / penalty)
    return logits.scatter(-1, seen, score)


def _audiocraft(logits: Tensor, s: Sampler) -> Tensor:
    """S1: among probabilities; top_p, where given, in place of top_k; ties stay
    (audiocraft/utils/utils.py@896ec7c).
    """
    p = (logits / s.temperature).softmax(-1)
    if s.top_p > 0:
        return keep_top_p(p, s.top_p)
    return keep_top_k(p, s.top_k, ties=True, out=0.0) if s.top_k > 0 else p


def _moshi(logits: Tensor, s: Sampler) -> Tensor:
    """S2: among probabilities; ties are cut (moshi/utils/sampling.py@e6a55d2)."""
    p = (logits / s.temperature).softmax(-1)
    if s.top_p > 0:
        return keep_top_p(p, s.top_p)
    return keep_top_k(p, s.top_k, ties=False, out=0.0) if s.top_k > 0 else p


def _csm(logits: Tensor, s: Sampler) -> Tensor:
    """S2 over the whole width: top_k among logits, ties stay (csm/models.py@2d72082)."""
    logits = logits / s.temperature
    return (keep_top_k(logits, s.top_k, ties=True) if s.top_k > 0 else logits).softmax(-1)


def _valle(logits: Tensor, s: Sampler) -> Tensor:
    """S3: temperature, top_k with ties, then top_p (valle/models/valle.py@9c69096)."""
    logits = logits / s.temperature
    if s.top_k > 0:
        logits = keep_top_k(logits, s.top_k, ties=True)
    if 0 < s.top_p < 1:
        logits = keep_top_p_logits(logits, s.top_p)
    return logits.softmax(-1)


def _transformers(logits: Tensor, s: Sampler) -> Tensor:
    """S3 as transformers' warpers have it: top_p from the small end, then min_p."""
    logits = logits / s.temperature
    if s.top_k > 0:
        logits = keep_top_k(logits, s.top_k, ties=True)
    if 0 < s.top_p < 1:
        ordered, places = logits.sort(dim=-1)
        out = ordered.softmax(-1).cumsum(-1) <= 1 - s.top_p
        out[..., -1] = False
        logits = logits.masked_fill(torch.zeros_like(out).scatter(-1, places, out), NEVER)
    if s.min_p > 0:
        p = logits.softmax(-1)
        logits = logits.masked_fill(p < s.min_p * p.amax(-1, keepdim=True), NEVER)
    return logits.softmax(-1)


def _dia(logits: Tensor, s: Sampler) -> Tensor:
    """S3 with an end that is either certain or out (dia/model.py@876125e)."""
    logits = logits / s.temperature
    if s.eos is not None:
        ends = logits.argmax(-1, keepdim=True) == s.eos
        ids = torch.arange(logits.shape[-1], device=logits.device)
        out = torch.where(ends, ids < s.eos, ids == s.eos)
        logits = logits.masked_fill(out, NEVER)
    if s.top_k > 0:
        logits = keep_top_k(logits, s.top_k, ties=False)
    if 0 < s.top_p < 1:
        logits = keep_top_p_logits(logits, s.top_p)
    return logits.softmax(-1)


def _bark(logits: Tensor, s: Sampler) -> Tensor:
    """S3b: top_p of the logits as they are, then top_k, then temperature
    (bark/generation.py@f4f32d4).
    """
    if 0 < s.top_p < 1:
        logits = keep_top_p_logits(logits, s.top_p)
    if s.top_k > 0:
        logits = keep_top_k(logits, s.top_k, ties=True)
    return (logits / s.temperature).softmax(-1)


def _lucidrains(logits: Tensor, s: Sampler, k: int, least: float) -> Tensor:
    """S4: a share of the vocabulary is cut, ties too; the race is that of Gumbel noise."""
    logits = keep_top_k(logits, k, ties=False)
    return (logits / max(s.temperature, least)).softmax(-1)


def _audiolm(logits: Tensor, s: Sampler) -> Tensor:
    k = max(int((1 - s.thres) * logits.shape[-1]), 1)
    return _lucidrains(logits, s, k, 1e-10)


def _soundstorm(logits: Tensor, s: Sampler) -> Tensor:
    return _lucidrains(logits, s, math.ceil((1 - s.thres) * logits.shape[-1]), 1e-3)


def _funcodec(logits: Tensor, s: Sampler) -> Tensor:
    """S5: top_k of the probabilities, or the first ones whose sum before them is below top_p
    (funcodec/models/audio_generation/laura_model.py@3435d87).
    """
    p = (logits / s.temperature).softmax(-1)
    if s.top_k > 0:
        return keep_top_k(p, s.top_k, ties=False, out=0.0)
    if s.top_p > 0:
        ordered, places = p.sort(dim=-1, descending=True, stable=True)
        before = torch.cat([torch.zeros_like(ordered[..., :1]), ordered.cumsum(-1)[..., :-1]], -1)
        kept = ordered.masked_fill(before >= s.top_p, 0.0)
        return torch.zeros_like(p).scatter(-1, places, kept)
    return p


RULES: dict[str, Callable[[Tensor, Sampler], Tensor]] = {
    "audiocraft": _audiocraft,
    "moshi": _moshi,
    "csm": _csm,
    "valle": _valle,
    "transformers": _transformers,
    "dia": _dia,
    "bark": _bark,
    "audiolm": _audiolm,
    "soundstorm": _soundstorm,
    "funcodec": _funcodec,
}


@dataclass(frozen=True)
class RepetitionAware:
    """S6: a token that the last ``window`` hold ``most`` times is drawn again from all (VALL-E 2;
    higgs-audio/boson_multimodal@f04f5df).
    """

    window: int = 7
    most: int = 2

    def again(self, tokens: Tensor, history: Tensor) -> Tensor:
        """bool [...]: which tokens [...] are drawn again; history [..., n]."""
        recent = history[..., max(0, history.shape[-1] - self.window) :]
        return (recent == tokens[..., None]).sum(-1) >= self.most


class Chance:
    """Exp(1) noise for the draws of a batch.

    Args:
        seeds: one a row: noise is then a function of (seed, step, stream, token) alone (Philox
            4x32-10, Salmon et al. 2011), whatever else is in the batch
        generator: torch's, where there are no seeds; the noise depends on the batch
    """

    def __init__(
        self, seeds: Sequence[int] | None = None, generator: torch.Generator | None = None
    ) -> None:
        if seeds is not None and generator is not None:
            raise ValueError("Chance: expected seeds or a generator, got both")
        self.seeds, self.generator = seeds, generator

    def exponential(self, step: int, like: Tensor) -> Tensor:
        """Noise for logits [B, K, V]; step: of the schedule."""
        if self.seeds is None:
            return torch.empty_like(like).exponential_(generator=self.generator)
        batch, streams, size = like.shape
        if len(self.seeds) != batch:
            raise ValueError(f"Chance: expected {batch} seeds, one a row, got {len(self.seeds)}")
        seeds = torch.tensor(self.seeds, dtype=torch.int64, device=like.device).view(-1, 1, 1)
        quads = torch.arange(-(-size // 4), device=like.device).view(1, 1, -1)
        stream = torch.arange(streams, device=like.device).view(1, -1, 1)
        zero = torch.zeros(batch, streams, quads.shape[2], dtype=torch.int64, device=like.device)
        counter = (quads + zero, zero + step, stream + zero, zero)
        bits = torch.stack(philox(counter, (seeds & _LOW, seeds >> 32 & _LOW)), dim=-1)
        uniform = ((bits.flatten(-2)[..., :size] >> 8).double() + 0.5) * 2.0**-24
        return -uniform.log().to(like.dtype)


_LOW = 0xFFFFFFFF
_MULTIPLIERS, _WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Philox 4x32-10: four 32 bit words of a counter of four, and a key of two, all in int64."""
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (second >> 32 & _LOW) ^ b ^ low,
            second & _LOW,
            (first >> 32 & _LOW) ^ d ^ high,
            first & _LOW,
        )
        low, high = low + _WEYL[0] & _LOW, high + _WEYL[1] & _LOW
    return a, b, c, d
