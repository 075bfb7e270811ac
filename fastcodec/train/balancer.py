"""EnCodec's loss balancer: a weight is a loss's share of the gradient, however large the loss is.

arXiv:2210.13438, section 3.4; encodec/balancer.py@0e2d0aed
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastcodec.train import ranks


class Balancer(nn.Module):
    """Rescales the gradients of losses at a net's output by running means of their norms.

    Its buffers are the running means: part of what a training that resumes must load.

    Args:
        weights: of each loss, by name
        total_norm: of the sum of all gradients, about
        ema_decay: of the running means
        rescale: else gradients are added, times their weights
        per_item: the norm is the mean of the items' norms, else that of the whole batch
        epsilon: added to a norm that divides
    """

    totals: Tensor
    counts: Tensor

    def __init__(
        self,
        weights: Mapping[str, float],
        total_norm: float = 1.0,
        ema_decay: float = 0.999,
        rescale: bool = True,
        per_item: bool = True,
        epsilon: float = 1e-12,
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.total_norm, self.ema_decay, self.rescale = total_norm, ema_decay, rescale
        self.per_item, self.epsilon = per_item, epsilon
        self.register_buffer("totals", torch.zeros(len(self.weights)))
        self.register_buffer("counts", torch.zeros(len(self.weights)))

    def backward(self, losses: Mapping[str, Tensor], output: Tensor) -> None:
        """Back-propagate from the output the balanced sum of the losses' gradients there.

        Args:
            losses: scalars by names that have a weight; those missing take no share this time
            output: [B, ...], which the losses were computed from and parameters lead to

        Raises:
            ValueError: a loss has no weight
        """
        output.backward(self.gradient(losses, output))

    def gradient(self, losses: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """What ``backward`` sends back from the output: a tensor of its shape."""
        if unknown := set(losses) - set(self.weights):
            raise ValueError(
                f"Balancer: {', '.join(sorted(unknown))} has no weight; there are "
                f"{', '.join(self.weights)}"
            )
        # The graph is kept: losses share parts of it, a discriminator say.
        grads = torch.stack(
            [torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in losses.values()]
        )
        scales = grads.new_tensor([self.weights[name] for name in losses])
        if self.rescale:
            norms = self._averaged(list(losses), self._over_ranks(self._norms(grads), len(output)))
            scales = self.total_norm * scales / scales.sum() / (self.epsilon + norms)
        return (grads * scales.view(-1, *[1] * output.dim())).sum(0)

    def _norms(self, grads: Tensor) -> Tensor:
        """[losses] of [losses, B, ...]."""
        if self.per_item:
            return grads.flatten(2).norm(dim=2).mean(1)
        return grads.flatten(1).norm(dim=1)

    def _over_ranks(self, norms: Tensor, batch: int) -> Tensor:
        """The mean over all processes' items."""
        if not ranks.several():
            return norms
        sums = ranks.add_up(torch.cat([norms * batch, norms.new_tensor([batch])]))
        return sums[:-1] / sums[-1]

    @torch.no_grad()
    def _averaged(self, names: list[str], norms: Tensor) -> Tensor:
        """The running means, of these norms too, as they would be had they not begun at zero."""
        places = [list(self.weights).index(name) for name in names]
        self.totals[places] = self.ema_decay * self.totals[places] + norms
        self.counts[places] = self.ema_decay * self.counts[places] + 1
        return self.totals[places] / self.counts[places]
