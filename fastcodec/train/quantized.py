"""What every quantizer in training gives, and what it needs: dropout, estimates, losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcodec.train.codebook_options import CodebookOptions


@dataclass(frozen=True)
class Quantized:
    """What a quantizer in training gives.

    Args:
        latent: [B, D, T] float, the decoder's input
        codes: [B, K, T] int64, -1 where a codebook is not in use
        commitment: scalar, how far the encoder is from the words, as upstream adds it up:
            the mean over the codebooks in use; factorised: the sum
        codebook: scalar, likewise for the words to learn; zero where moving averages move them
        commitments: [K], of each codebook
        first: [B, D, T] float, what the first codebook alone gives: semantic distillation's student
    """

    latent: Tensor
    codes: Tensor
    commitment: Tensor
    codebook: Tensor
    commitments: Tensor
    first: Tensor


def drawn_numbers(
    options: CodebookOptions, batch: int, n_codebooks: int, generator: torch.Generator | None
) -> Tensor:
    """[B] int64 the number of codebooks of each item of a batch, by the dropout options."""
    numbers = torch.full((batch,), n_codebooks)
    every = range(1, n_codebooks + 1)
    choices = torch.tensor([n for n in options.dropout_to or every if n in every])
    count = int(batch * options.dropout)
    if options.dropout_by_batch:
        count = batch * int(torch.rand((), generator=generator) < options.dropout)
        chosen = torch.randint(len(choices), (1,), generator=generator).expand(count)
    else:
        chosen = torch.randint(len(choices), (count,), generator=generator)
    numbers[:count] = choices[chosen]
    return numbers


def up_to(n_codebooks: Tensor | int | None, batch: int, most: int) -> Tensor:
    """[B, K] whether an item uses a codebook; all where None."""
    if n_codebooks is None:
        n_codebooks = most
    numbers = torch.as_tensor(n_codebooks)
    low, high = int(numbers.min()), int(numbers.max())
    if numbers.shape not in ((), (batch,)) or low < 0 or high > most:
        raise ValueError(
            f"n_codebooks: expected 0 .. {most} for {batch} items or for all of them, got "
            f"{low} .. {high}, {list(numbers.shape)}"
        )
    return torch.arange(most, device=numbers.device) < numbers.expand(batch)[:, None]


def over_items(error: Tensor, used: Tensor) -> Tensor:
    """The mean of an error [B, D, T] over items [B] that count, and zero for the others."""
    return (error.mean((1, 2)) * used).mean()


def estimate(x: Tensor, words: Tensor, gradient: str) -> Tensor:
    """``words``, with a gradient to x: the same one, or turned and scaled as x was to the words.

    Args:
        x, words: [B, D, T]
        gradient: ``"straight_through"`` or ``"rotation"`` (arXiv:2410.06424, algorithm 1)
    """
    if gradient == "straight_through":
        return x + (words - x).detach()
    with torch.no_grad():
        length, wanted = (v.norm(dim=1, keepdim=True).clamp(min=1e-6) for v in (x, words))
        a, b = x / length, words / wanted
        middle = nn.functional.normalize(a + b, dim=1)
    # Two reflections make the rotation: I - 2 m m' + 2 b a'.
    turned = x - 2 * middle * (middle * x).sum(1, keepdim=True)
    turned = turned + 2 * b * (a * x).sum(1, keepdim=True)
    return turned * (wanted / length)


def perplexity(codes: Tensor, codebook_size: int) -> Tensor:
    """[K] how many codes of a codebook are in use, were they used alike; of codes [B, K, T]."""
    rows = codes.transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(row[row >= 0], minlength=codebook_size) for row in rows])
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(1).exp()
