"""The other player of an adversarial training: discriminators, their losses and their optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastcodec.train import discriminators
from fastcodec.train.adversarial import discriminator_loss, feature_loss, generator_loss
from fastcodec.train.config import TrainConfig


class Adversary:
    """Several discriminators as one.

    Args:
        config: whose ``adversarial`` has names
        channels: of the signals
        device: where
        parallel: there are other processes
    """

    def __init__(
        self, config: TrainConfig, channels: int, device: torch.device, parallel: bool
    ) -> None:
        self.settings = config.adversarial
        options: dict[str, Any] = {"width": self.settings.width}
        if channels > 1:
            options["channels"] = channels
        self.net = _All(discriminators.build(n, **options) for n in self.settings.discriminators)
        self.net.to(device)
        self.model: nn.Module = self.net
        if parallel:
            self.model = nn.parallel.DistributedDataParallel(self.net)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(),
            self.settings.learning_rate,
            config.optimizer.betas,
            weight_decay=0.0,
        )

    def losses(self, decoded: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What the generator has to fear: ``adversarial`` and ``features``."""
        with self._frozen():
            real, fake = self.net(target), self.net(decoded)
        return {
            "adversarial": generator_loss(fake, self.settings.kind),
            "features": feature_loss(real, fake, self.settings.features_kind),
        }

    def train_step(self, decoded: Tensor, target: Tensor) -> Tensor:
        """One step of the discriminators; their loss."""
        # One call for both: a second forward pass before the backward one disturbs DDP.
        both = self.model(torch.cat([target, decoded.detach()]))
        real, fake = (_half(both, i) for i in range(2))
        loss = discriminator_loss(real, fake, self.settings.kind)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Without gradients of the discriminators' own parameters, which nobody asks for."""
        self.net.requires_grad_(False)
        try:
            yield
        finally:
            self.net.requires_grad_(True)


class _All(nn.ModuleList):
    def forward(self, x: Tensor) -> list[discriminators.Judgement]:
        return [judgement for net in self for judgement in net(x)]


def _half(judgements: list[discriminators.Judgement], which: int) -> list[discriminators.Judgement]:
    """The judgements of the first or the second half of a batch."""
    return [
        discriminators.Judgement(
            judgement.score.chunk(2)[which], [f.chunk(2)[which] for f in judgement.features]
        )
        for judgement in judgements
    ]
