"""Codebooks in training: moving averages or gradients, k-means start, restarts, dropout.

``TrainedQuantizer`` and ``TrainedFactorised`` take a net's quantizer, train its codebooks in place
and give latents through which the encoder learns. Always float32 (or float64): near ties decide.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.train import clusters, ranks
from fastcodec.train.codebook_options import OPTIONS, CodebookOptions
from fastcodec.train.factorised import TrainedFactorised
from fastcodec.train.quantized import (
    Quantized,
    drawn_numbers,
    estimate,
    over_items,
    perplexity,
    up_to,
)

__all__ = [
    "OPTIONS",
    "CodebookOptions",
    "Quantized",
    "TrainedFactorised",
    "TrainedQuantizer",
    "perplexity",
]


class TrainedQuantizer(nn.Module):
    """A residual quantizer whose codebooks are moving averages of the latents that they stand for.

    encodec/quantization/core_vq.py@0e2d0aed; audiocraft's gradient; moshi's restarts@e6a55d27

    All processes of a distributed training keep equal codebooks, if each makes as many calls.

    Args:
        quantizer: whose ``codebooks`` every call in training mode updates
        options: see there
        generator: of all random choices, on the CPU; torch's own where None. Its state is not part
            of the state dict.
    """

    cluster_size: Tensor
    embed_avg: Tensor
    inited: Tensor
    steps: Tensor

    def __init__(
        self,
        quantizer: ResidualQuantizer,
        options: CodebookOptions | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.quantizer, self.options = quantizer, options or CodebookOptions()
        self.generator = generator
        words = quantizer.codebooks
        if self.options.learned:
            del quantizer.codebooks  # of the buffers
            quantizer.codebooks = nn.Parameter(words)
        self.register_buffer("cluster_size", torch.ones_like(words[..., 0]))  # [K, N] usage
        self.register_buffer("embed_avg", words.clone())  # [K, N, D] sums
        inited = torch.full((len(words),), self.options.learned)
        self.register_buffer("inited", inited)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, latent: Tensor, n_codebooks: Tensor | int | None = None) -> Quantized:
        """Quantise, with the codebooks as they were before this call's update.

        Args:
            latent: [B, D, T] float
            n_codebooks: [B] int64 of each item, or of all; where None, what ``dropout`` draws in
                training and all codebooks otherwise
        """
        books = self.quantizer.codebooks
        with torch.autocast(latent.device.type, enabled=False):
            x = latent.to(books.dtype)
            if self.training:
                self._start(x.detach())
            in_use = self._in_use(len(x), n_codebooks)
            codes = ops.rvq_encode(x.detach(), books.detach())
            pairs = zip(books, codes.unbind(1), strict=True)
            words = [book[row].transpose(1, 2) for book, row in pairs]
            y, commitments, inputs = self._through(x, words, in_use)
            first = estimate(x, words[0].detach(), self.options.gradient)
            learning = y.new_zeros(())
            if self.options.learned:
                learning = self._learning(inputs, words, in_use)
            elif self.training:
                self._update(inputs, codes, in_use)
        codes = codes.where(in_use[..., None], -1)
        count = in_use.any(0).sum().clamp(min=1)
        y = y * in_use[:, :1, None]  # the estimate of nothing has no gradient either
        return Quantized(y, codes, commitments.sum() / count, learning / count, commitments, first)

    @torch.no_grad()
    def keep_words(self) -> None:
        """Go on from the words that the quantizer has, instead of finding first ones."""
        self.embed_avg.copy_(self.quantizer.codebooks)
        self.inited.fill_(True)

    def _in_use(self, batch: int, n_codebooks: Tensor | int | None) -> Tensor:
        """[B, K] whether an item uses a codebook."""
        books, options = self.quantizer.codebooks, self.options
        if n_codebooks is None and self.training:
            n_codebooks = drawn_numbers(options, batch, len(books), self.generator)
        in_use = up_to(n_codebooks, batch, len(books)).to(books.device)
        return in_use & self.inited if self.training else in_use

    def _through(
        self, x: Tensor, words: list[Tensor], in_use: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The estimate [B, D, T], commitments [K], and each codebook's input [B, D, T]."""
        rest, total = x, torch.zeros_like(x)
        commitments, inputs = [], []
        for word, used in zip((word.detach() for word in words), in_use.unbind(1), strict=True):
            inputs.append(rest.detach())
            commitments.append(over_items((rest - word).square(), used))
            total = total + word * used[:, None, None]
            rest = rest - word
            if self.options.first_commits_alone:
                rest = rest.detach()
        y = estimate(x, total, self.options.gradient)
        return y, torch.stack(commitments), inputs

    def _learning(self, inputs: list[Tensor], words: list[Tensor], in_use: Tensor) -> Tensor:
        """How far words are from what they stand for, added up over the codebooks."""
        pairs = zip(inputs, words, in_use.unbind(1), strict=True)
        return torch.stack([over_items((x - word).square(), used) for x, word, used in pairs]).sum()

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        """The first words of codebooks that have none, from x [B, D, T]."""
        missing = (~self.inited).nonzero().flatten().tolist()
        if not missing:
            return
        options, books = self.options, self.quantizer.codebooks
        together = options.all_at_once or not options.kmeans_iterations
        rest = x.transpose(1, 2).flatten(0, 1)
        for i in range(missing[-1] + 1 if together else missing[0] + 1):
            if i in missing:
                self._start_one(i, rest)
            rest = rest - books[i][clusters.nearest(rest, books[i])]

    def _start_one(self, i: int, rows: Tensor) -> None:
        books, options = self.quantizer.codebooks, self.options
        size = books.shape[1]
        if options.kmeans_iterations:
            means, sizes = clusters.kmeans(
                rows, size, options.kmeans_iterations, self.generator, options.kmeans_resample
            )
            if not options.means_for_sums:
                sizes = sizes.clamp(min=1)  # an empty cluster keeps its mean until it is restarted
            books[i], self.cluster_size[i] = means, sizes
            self.embed_avg[i] = means if options.means_for_sums else means * sizes[:, None]
        else:
            self.cluster_size[i] = 1
            self.embed_avg[i] = ranks.of_first(books[i])
        self.inited[i] = True

    @torch.no_grad()
    def _update(self, inputs: list[Tensor], codes: Tensor, in_use: Tensor) -> None:
        """Restart codes that are hardly used, and move the averages towards this batch."""
        n_codes = self.quantizer.codebook_size
        flat = [x.transpose(1, 2).flatten(0, 1) for x in inputs]
        counted = codes.where(in_use[..., None], n_codes).transpose(0, 1).flatten(1)
        found = [clusters.tally(*pair, n_codes) for pair in zip(flat, counted, strict=True)]
        sizes, sums = (ranks.add_up(torch.stack(parts)) for parts in zip(*found, strict=True))
        used = sizes.sum(1, keepdim=True) > 0  # [K, 1]
        self.steps += 1
        if self.options.restart_below:
            self._restart(flat, used)
        self._average(sizes, sums, used)

    def _restart(self, rows: list[Tensor], used: Tensor) -> None:
        options, books = self.options, self.quantizer.codebooks
        mean = self.cluster_size.mean(1, keepdim=True)
        unit_usage = torch.ones_like(mean) if options.restart_absolute else mean
        limit = options.restart_below * unit_usage
        due = self.steps % options.restart_every == 0
        dead = (self.cluster_size < limit) & used & due  # [K, N]
        # Drawn whether or not a code is dead: to look would stop a GPU.
        fresh = torch.stack([clusters.sample(r, books.shape[1], self.generator) for r in rows])
        if options.restart_undone:
            books.copy_(fresh.where(dead[..., None], books))
            return
        # The mean usage, or one that survives the next check.
        usage = torch.maximum(mean, limit)[..., None]
        self.embed_avg.copy_((usage * fresh).where(dead[..., None], self.embed_avg))
        self.cluster_size.copy_(usage[..., 0].where(dead, self.cluster_size))

    def _average(self, sizes: Tensor, sums: Tensor, used: Tensor) -> None:
        """Of the codebooks that this batch used: [K, 1]."""
        options, books = self.options, self.quantizer.codebooks
        weight = (1 - options.decay) * used.to(books.dtype)
        self.cluster_size.lerp_(sizes, weight)
        self.embed_avg.lerp_(sums, weight[..., None])
        usage = self.cluster_size
        if options.smoothing == "laplace":
            total = usage.sum(1, keepdim=True)
            usage = (usage + options.epsilon) / (total + usage.shape[1] * options.epsilon) * total
        else:
            usage = usage.clamp(min=options.epsilon)
        books.copy_((self.embed_avg / usage[..., None]).where(used[..., None], books))
