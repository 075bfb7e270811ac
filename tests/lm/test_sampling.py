"""Every sampling rule and guidance formula against the published implementations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcodec.lm.guidance import doubly_guided, guided, guided_choice
from fastcodec.lm.sampling import (
    Chance,
    RepetitionAware,
    Sampler,
    penalise_repetition,
    philox,
)

VOCABULARY = 37
OF_FAMILY = {
    "S1_audiocraft": "audiocraft",
    "S2_moshi": "moshi",
    "S2full_csm": "csm",
    "S3_lifeiteng": "valle",
    "S3_plachtaa": "valle",
    "S3_hf": "transformers",
    "S3_dia": "dia",
    "S4_audiolm": "audiolm",
    "S4_soundstorm": "soundstorm",
    "S5_funcodec": "funcodec",
}


class Vectors:
    """The arrays of the case; ``take`` notes which were compared."""

    def __init__(self, shared: Path) -> None:
        folder = shared / "golden/lms"
        self.config = json.loads((folder / "manifest.json").read_text())["samplers"]["config"]
        with np.load(folder / "samplers.npz", allow_pickle=False) as file:
            self.arrays = {name: torch.from_numpy(file[name]) for name in file.files}

    def settings(self, family: str) -> list[str]:
        names = (name.split("/") for name in self.arrays if name.startswith(family + "/"))
        return sorted({parts[1] for parts in names if len(parts) == 3})

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]


@pytest.fixture(scope="module")
def vectors(shared: Path) -> Vectors:
    return Vectors(shared)


def sampler(family: str, setting: str, eos: int | None = None) -> Sampler:
    """Of a setting's name, such as ``T0.8_k10_p0.8``."""

    def number(letter: str) -> float | None:
        found = re.search(rf"(?:^|_){letter}([\d.]+|V|_?gtV|>V)", setting)
        if found is None:
            return None
        return 99.0 if "V" in found[1] else float(found[1])

    values: dict[str, Any] = {"rule": OF_FAMILY[family]}
    if (t := number("T")) is not None:
        values["temperature"] = t
    if (k := number("k")) is not None:
        values["top_k"] = VOCABULARY if "kV" in setting else int(k)
    if (p := number("p")) is not None:
        values["top_p"] = p
    if (m := re.search(r"minp([\d.]+)", setting)) is not None:
        values["min_p"] = float(m[1])
    if (thres := re.search(r"thres([\d.]+)", setting)) is not None:
        values["thres"] = float(thres[1])
    return Sampler(**values, eos=eos)


def probabilities(weights: Tensor) -> Tensor:
    """Weights [..., V] with the sum 1."""
    return weights / weights.sum(-1, keepdim=True)


def assert_probabilities(got: Tensor, want: Tensor) -> None:
    assert torch.equal(got == 0, want == 0)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def assert_most_probable(weights: Tensor, tokens: Tensor) -> None:
    """No token is more probable than these; which of equal ones is named is a matter of sorting."""
    of_tokens = weights.gather(-1, tokens.long()[:, None])[:, 0]
    assert torch.equal(of_tokens, weights.amax(-1))


def clear(logits: Tensor) -> Tensor:
    """Rows whose most probable token is one only."""
    top = logits.topk(2, dim=-1).values
    return top[:, 0] > top[:, 1]


@pytest.mark.parametrize("family", ["S1_audiocraft", "S3_lifeiteng", "S3_plachtaa", "S2full_csm"])
def test_probabilities_of_a_rule(family: str, vectors: Vectors) -> None:
    logits = vectors["in/logits"]
    for setting in vectors.settings(family):
        if "sampling" in setting:
            continue  # the next test
        weights = sampler(family, setting).weights(logits)
        name = f"{family}/{setting}"
        if f"{name}/probs" in vectors.arrays:
            assert_probabilities(probabilities(weights), vectors[f"{name}/probs"])
        if f"{name}/argmax" in vectors.arrays:
            assert_most_probable(weights, vectors[f"{name}/argmax"])
        if f"{name}/logprob" in vectors.arrays:
            tokens = vectors[f"{name}/argmax"].long()[:, None]
            scores = probabilities(weights).log().gather(-1, tokens)[:, 0]
            torch.testing.assert_close(scores, vectors[f"{name}/logprob"], rtol=0, atol=1e-6)
        if f"{name}/noise" in vectors.arrays:
            token = sampler(family, setting).sample(logits, vectors[f"{name}/noise"])
            assert torch.equal(token, vectors[f"{name}/token"].long()), name


def test_no_sampling_is_temperature_zero(vectors: Vectors) -> None:
    logits = vectors["in/logits"]
    none = Sampler(temperature=0.0).weights(logits)
    for name in ("nosampling", "T0"):
        assert torch.equal(none.argmax(-1), vectors[f"S1_audiocraft/{name}/argmax"].long())


def test_transformers_warpers(vectors: Vectors) -> None:
    logits, history = vectors["in/logits"], vectors["in/history_ids"].long()
    for setting in vectors.settings("S3_hf"):
        scores = logits
        if (penalty := re.search(r"rep([\d.]+)", setting)) is not None:
            scores = penalise_repetition(scores, history, float(penalty[1]))
        weights = sampler("S3_hf", setting).weights(scores)
        assert_probabilities(weights, vectors[f"S3_hf/{setting}/probs"])


def test_dia(vectors: Vectors) -> None:
    logits = vectors["in/logits"]
    names = [n.split("/")[1] for n in vectors.arrays if n.startswith("S3_dia/") and "probs" in n]
    for name, eos in zip(names, vectors["S3_dia/eos_ids"].tolist(), strict=True):
        chosen = sampler("S3_dia", name, eos if eos >= 0 else None)
        weights = chosen.weights(logits)
        assert_probabilities(weights, vectors[f"S3_dia/{name}/probs"])
        assert torch.equal(weights.argmax(-1), vectors[f"S3_dia/{name}/argmax"].long())
    greedy = Sampler("dia", temperature=0.0).weights(logits)
    assert torch.equal(greedy.argmax(-1), vectors["S3_dia/T0/argmax"].long())


def test_moshi_with_its_noise(vectors: Vectors) -> None:
    logits = vectors["in/logits"]
    for setting in vectors.settings("S2_moshi"):
        name, one = f"S2_moshi/{setting}", sampler("S2_moshi", setting)
        token = vectors[f"{name}/token"].long()
        if f"{name}/noise" not in vectors.arrays:
            assert torch.equal(one.weights(logits).argmax(-1), token)
            continue
        noise = vectors[f"{name}/noise"]
        order = vectors.arrays.get(f"{name}/order")
        if order is not None:  # ours is in the order of the vocabulary
            noise = torch.full_like(logits, torch.inf).scatter(-1, order.long(), noise)
            weights = one.weights(logits).gather(-1, order.long())
            candidates = vectors[f"{name}/candidates"]
            # Which of equal tokens are cut is a matter of the sort; all others must agree.
            same = ((weights > 0) == (candidates > 0)).all(-1)
            assert_probabilities(*(probabilities(w[same]) for w in (weights, candidates)))
            assert same.sum() >= 7
            assert torch.equal(one.sample(logits, noise)[same], token[same])
        else:
            assert torch.equal(one.sample(logits, noise), token)


@pytest.mark.parametrize(
    "family, log_of", [("S4_audiolm", 1e-20), ("S4_soundstorm", 1e-10)], ids=["audiolm", "storm"]
)
def test_gumbel_races(family: str, log_of: float, vectors: Vectors) -> None:
    """argmax(l / T + Gumbel) is argmax(p / Exp(1)) of the same uniform numbers."""
    logits = vectors["in/logits"]
    for setting in vectors.settings(family):
        name, one = f"{family}/{setting}", sampler(family, setting)
        filtered = vectors[f"{name}/filtered"]
        u = vectors[f"{name}/uniform"].double()
        noise = (-torch.log(u + log_of) + log_of).float()
        same = ((one.weights(logits) == 0) | (filtered > -torch.inf)).all(-1)
        assert same.sum() >= 7  # of the others a different one of equal tokens is cut
        certain = same if one.temperature > 0.1 else same & clear(logits)
        token = one.sample(logits, noise)
        assert torch.equal(token[certain], vectors[f"{name}/token"].long()[certain]), name


def test_funcodec(vectors: Vectors) -> None:
    logits = vectors["in/logits"]
    settings: dict[str, dict[str, Any]] = {
        "true": {},
        "false": {"temperature": 0.0},
        "int5": {"top_k": 5},
        "int1": {"top_k": 1},
        "float0.8": {"top_p": 0.8},
        "float0.001": {"top_p": 0.001},
        "float1.0": {"top_p": 1.0},
    }
    assert set(settings) == set(vectors.settings("S5_funcodec"))
    for setting, values in settings.items():
        weights = Sampler("funcodec", **values).weights(logits)
        tokens = vectors[f"S5_funcodec/{setting}/argmax"]
        assert_most_probable(logits if setting == "false" else weights, tokens)
        if f"S5_funcodec/{setting}/weights" in vectors.arrays:
            want = vectors[f"S5_funcodec/{setting}/weights"]
            same = ((weights == 0) == (want == 0)).all(-1)
            assert same.sum() >= 8
            torch.testing.assert_close(weights[same], want[same], rtol=0, atol=1e-6)


def test_repetition_aware(vectors: Vectors) -> None:
    logits, history = vectors["S6_ras/logits"], vectors["S6_ras/history"].long()
    weights = Sampler("valle", temperature=0.7, top_p=0.95).weights(logits)
    assert_probabilities(weights, vectors["S6_ras/first_probs"])
    tokens = weights.argmax(-1)
    assert torch.equal(tokens, vectors["S6_ras/first_token"].long())
    rule = RepetitionAware(window=7, most=2)
    again = rule.again(tokens, history)
    assert torch.equal(again.nonzero()[:, 0], vectors["S6_ras/resampled_rows"].long())
    assert_probabilities(logits[again].softmax(-1), vectors["S6_ras/resample_probs"])
    tokens = torch.where(again, logits.argmax(-1), tokens)
    assert torch.equal(tokens, vectors["S6_ras/tokens"].long())


def test_guidance(vectors: Vectors) -> None:
    cond, null = vectors["cfg/cond"], vectors["cfg/uncond"]
    made: dict[str, Callable[[], Tensor]] = {
        f"A_s{s}": lambda s=s: guided(cond, null, s) for s in (3.0, 1.0, 0.0, 5.5)
    }
    for s, b in ((3.0, 5.0), (2.0, 1.0)):
        made[f"B_s{s}_beta{b}"] = lambda s=s, b=b: doubly_guided(
            cond, vectors["cfg/style_only"], null, s, b
        )
    for s, k in ((3.0, 5), (3.0, None), (1.5, 37)):
        made[f"C_hf_s{s}_k{k}"] = lambda s=s, k=k: guided_choice(cond, null, s, k or 0)
    made["hf_s3.0"] = lambda: guided(cond, null, 3.0)
    for name, run in made.items():
        got, want = run(), vectors[f"cfg/{name}"]
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-5, msg=f"{name}")


def test_philox_gives_the_published_words() -> None:
    """The known answers of Random123."""
    answers = [
        ("00000000 " * 6, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 6, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ]
    for given, want in answers:
        words = [torch.tensor(int(word, 16)) for word in given.split()]
        got = philox(words[:4], words[4:])
        assert [f"{int(word):08x}" for word in got] == want.split()


def test_a_seeded_draw_does_not_depend_on_the_batch() -> None:
    logits = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0))
    one = Sampler(top_k=20)
    seeds = [11, -5, 2**40 + 1]
    whole = one.sample(logits, Chance(seeds).exponential(7, logits))
    for row, seed in enumerate(seeds):
        alone = logits[row : row + 1]
        assert torch.equal(one.sample(alone, Chance([seed]).exponential(7, alone))[0], whole[row])
    other = one.sample(logits, Chance(seeds).exponential(8, logits))
    assert not torch.equal(other, whole)


def test_the_race_draws_as_often_as_the_weights_say() -> None:
    logits = torch.tensor([0.5, 0.25, 0.2, 0.05]).log().expand(1, 20000, 4).contiguous()
    tokens = Sampler(top_k=3).sample(logits, Chance([1]).exponential(0, logits))
    shares = torch.bincount(tokens.flatten(), minlength=4) / tokens.numel()
    want = torch.tensor([0.5, 0.25, 0.2, 0.0]) / 0.95
    assert (shares - want).abs().max() < 0.015  # 4 standard deviations


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rule": "beam"}, "expected a rule of audiocraft"),
        ({"temperature": -1.0}, "temperature from 0 on"),
        ({"temperature": float("nan")}, "temperature from 0 on"),
        ({"top_k": -3}, "top_k from 0 on"),
        ({"top_p": 1.5}, "top_p and min_p from 0 to 1"),
        ({"thres": 1.0}, "thres from 0 to below 1"),
    ],
)
def test_impossible_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**values)


def test_seeds_and_rows_must_agree() -> None:
    with pytest.raises(ValueError, match="expected 2 seeds, one a row, got 3"):
        Chance([1, 2, 3]).exponential(0, torch.zeros(2, 1, 5))
    with pytest.raises(ValueError, match="got both"):
        Chance([1], torch.Generator())
