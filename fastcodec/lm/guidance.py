"""Classifier-free guidance: what is done with the logits of the conditioned and the null rows."""

from __future__ import annotations

from torch import Tensor

from fastcodec.lm.sampling import NEVER


def guided(cond: Tensor, null: Tensor, scale: float) -> Tensor:
    """null + scale (cond - null) (MusicGen, AudioGen, MAGNeT, AudioLM, Moshi)."""
    return null + scale * (cond - null)


def doubly_guided(cond: Tensor, style: Tensor, null: Tensor, scale: float, beta: float) -> Tensor:
    """The text's share weighed by beta against the style's, both by scale (MusicGen-Style)."""
    return null + scale * (style + beta * (cond - style) - null)


def guided_choice(cond: Tensor, null: Tensor, scale: float, top_k: int) -> Tensor:
    """The conditioned logits of the top_k tokens of cond + scale (cond - null); the others are out;
    top_k 0: that sum itself (Dia, whose scale is by one lower than elsewhere).
    """
    preferred = cond + scale * (cond - null)
    if top_k == 0:
        return preferred
    chosen = preferred.topk(min(top_k, cond.shape[-1]), dim=-1).indices
    return cond.new_full(cond.shape, NEVER).scatter(-1, chosen, cond.gather(-1, chosen))
