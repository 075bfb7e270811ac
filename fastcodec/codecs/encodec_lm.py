"""EnCodec's entropy-coding language model: how likely each code of the next frame is.

Source: Défossez et al. 2022, §3.4 "Language modeling and entropy coding"; facebookresearch/encodec
encodec/model.py, encodec/modules/transformer.py@0e2d0aed. A transformer over the sum of the
embeddings of a frame's K codes predicts all K codes of the next frame at once.

Two implementations. ``EntropyLM`` is the plain torch one, by upstream's operations in upstream's
order, which is what upstream's own entropy-coded files need. ``entropy_model`` gives the compiled
one, whose probabilities are the same bits on every machine and for any number of threads; files
that fastcodec writes use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fastcodec.errors import FormatError
from fastcodec.io.checkpoints import load_strict
from fastcodec.io.entropy import ProbabilityModel, host

if TYPE_CHECKING:
    from fastcodec._host import EntropyModel

_HEADS = 8
_MAX_PERIOD = 10_000.0


@dataclass(frozen=True)
class LmPreset:
    """One published model: its size, and the name of its checkpoint in upstream's store."""

    n_codebooks: int
    past_frames: int  # int(3.5 s * frame rate)
    checkpoint: str


PRESETS = {
    "encodec_24khz": LmPreset(32, 262, "encodec_lm_24khz-1608e3c0.th"),
    "encodec_48khz": LmPreset(16, 525, "encodec_lm_48khz-7add9fc3.th"),
}


@dataclass(frozen=True)
class LmState:
    """What the model remembers: the last inputs of each layer, [B, P, D], and the frames seen."""

    inputs: tuple[Tensor, ...]
    frame: int


class EntropyLM(nn.Module):
    """Probabilities of the next frame's codes, given the frames before.

    Args:
        n_codebooks: K of the weights; fewer may be used
        past_frames: how far back attention reaches
        codewords: N
        features: D
        layers: number of transformer layers
    """

    def __init__(
        self,
        n_codebooks: int = 32,
        past_frames: int = 262,
        codewords: int = 1024,
        features: int = 200,
        layers: int = 5,
    ) -> None:
        super().__init__()
        self.transformer = _Transformer(features, layers, past_frames)
        self.emb = nn.ModuleList(nn.Embedding(codewords + 1, features) for _ in range(n_codebooks))
        self.linears = nn.ModuleList(nn.Linear(features, codewords) for _ in range(n_codebooks))

    def forward(self, codes: Tensor) -> Tensor:
        """Probabilities of every frame of a segment at once.

        Args:
            codes: [B, K, T] int64

        Returns:
            [B, N, K, T] float32, frame t predicted from the frames before t
        """
        missing = torch.zeros_like(codes[:, :, :1])
        return self._predict(torch.cat([missing, 1 + codes[:, :, :-1]], dim=2), None)[0]

    def step(self, previous: Tensor, state: LmState | None) -> tuple[Tensor, LmState]:
        """Probabilities of one frame.

        Args:
            previous: [B, K] int64, codes of the frame before; ignored where ``state`` is None
            state: None at the first frame of a segment

        Returns:
            [B, N, K] float32 probabilities, and the state for the next call
        """
        index = torch.zeros_like(previous) if state is None else 1 + previous
        probabilities, state = self._predict(index[:, :, None], state)
        return probabilities[..., 0], state

    def _predict(self, index: Tensor, state: LmState | None) -> tuple[Tensor, LmState]:
        """``index`` [B, K, T]: 0 where a code is missing, otherwise 1 + code."""
        n_codebooks = index.shape[1]
        x: Tensor = sum(self.emb[k](index[:, k]) for k in range(n_codebooks))
        x, state = self.transformer(x, state)
        logits = torch.stack([self.linears[k](x) for k in range(n_codebooks)], dim=1)
        # This order of the axes decides by which of torch's kernels the softmax is computed.
        return torch.softmax(logits.permute(0, 3, 1, 2), dim=1), state


class _Transformer(nn.Module):
    def __init__(self, features: int, layers: int, past_frames: int) -> None:
        super().__init__()
        self.past_frames = past_frames
        self.norm_in = nn.LayerNorm(features)
        self.layers = nn.ModuleList(_Layer(features, past_frames) for _ in range(layers))

    def forward(self, x: Tensor, state: LmState | None) -> tuple[Tensor, LmState]:
        if state is None:
            # A real target of attention, until it falls out of the window.
            state = LmState((torch.zeros_like(x[:, :1]),) * len(self.layers), 0)
        frames, features = x.shape[1:]
        x = self.norm_in(x)
        x = x + _positions(frames, features, state.frame, x.device)
        inputs = []
        for layer, past in zip(self.layers, state.inputs, strict=True):
            inputs.append(torch.cat([past, x], dim=1)[:, -self.past_frames :])
            x = layer(x, past)
        return x, LmState(tuple(inputs), state.frame + frames)


class _Layer(nn.Module):
    """Post-norm transformer layer that attends to its past inputs and the present ones."""

    def __init__(self, features: int, past_frames: int) -> None:
        super().__init__()
        self.past_frames = past_frames
        self.self_attn = nn.MultiheadAttention(features, _HEADS, batch_first=True)
        self.linear1 = nn.Linear(features, 4 * features)
        self.linear2 = nn.Linear(4 * features, features)
        self.norm1 = nn.LayerNorm(features)
        self.norm2 = nn.LayerNorm(features)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        keys = torch.cat([past, x], dim=1)
        begin, end = past.shape[1], keys.shape[1]
        position = torch.arange(end, device=x.device)
        distance = position[begin:, None] - position
        hidden = (distance < 0) | (distance > self.past_frames)
        attended, _ = self.self_attn(x, keys, keys, attn_mask=hidden, need_weights=False)
        x = self.norm1(x + attended)
        y: Tensor = self.norm2(x + self.linear2(F.gelu(self.linear1(x))))
        return y


def _positions(frames: int, features: int, first: int, device: torch.device) -> Tensor:
    """Cosines, then sines, of each frame's position: [1, T, D]."""
    half = features // 2
    position = torch.arange(frames, device=device).view(1, -1, 1) + first
    period: Tensor = _MAX_PERIOD ** (torch.arange(half, device=device).view(1, 1, -1) / (half - 1))
    phase = position / period
    return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)


class TorchProbabilities:
    """``EntropyLM`` one frame at a time: upstream's own files, as far as torch allows.

    They decode where every probability comes out as it did for the writer, to the last bit: on a
    machine of the same kind with a torch that computes alike. Nothing in such a file tells.
    """

    name = None

    def __init__(self, lm: EntropyLM) -> None:
        self._lm = lm.eval()

    def start(self, n_codebooks: int) -> Callable[[NDArray[np.int64] | None], NDArray[np.float32]]:
        """A segment's step; see ``fastcodec.io.entropy.ProbabilityModel``."""
        state: LmState | None = None

        @torch.no_grad()
        def step(previous: NDArray[np.int64] | None) -> NDArray[np.float32]:
            nonlocal state
            codes = np.zeros(n_codebooks, np.int64) if previous is None else previous
            probabilities, state = self._lm.step(torch.from_numpy(codes)[None], state)
            return np.ascontiguousarray(probabilities[0].T.numpy())

        return step


def load_lm(model: str, weights: Mapping[str, Tensor]) -> EntropyLM:
    """The torch model with upstream's weights.

    Args:
        model: ``"encodec_24khz"`` or ``"encodec_48khz"``
        weights: by upstream's keys

    Raises:
        WeightsError: a key is missing, unexpected or of another shape; all are listed
    """
    preset = PRESETS[model]
    with torch.device("meta"):
        lm = EntropyLM(preset.n_codebooks, preset.past_frames)
    lm.to_empty(device="cpu")
    load_strict(lm, weights, f"the language model of {model}")
    return lm.eval()


def entropy_model(weights: Mapping[str, Tensor], past_frames: int) -> EntropyModel:
    """The compiled model, the same bits on every machine.

    Args:
        weights: by upstream's keys; the sizes are read from the shapes
        past_frames: how far back attention reaches

    Raises:
        BackendError: ``fastcodec._host`` has not been built
    """
    arrays = {key: tensor.detach().float().cpu().numpy() for key, tensor in weights.items()}
    made: EntropyModel = host().EntropyModel(arrays, _HEADS, past_frames)
    return made


def probability_model(
    model: str, weights: Mapping[str, Tensor], name: str | None
) -> ProbabilityModel:
    """What a file with a language model is read with.

    Args:
        model: ``"encodec_24khz"`` or ``"encodec_48khz"``
        weights: by upstream's keys
        name: ``EcdcHeader.probability_model``; None where upstream wrote the file

    Raises:
        FormatError: the file needs an implementation that this version does not have
    """
    lm = load_lm(model, weights)
    if name is None:
        return TorchProbabilities(lm)
    made = entropy_model(lm.state_dict(), PRESETS[model].past_frames)
    if name != made.name:
        raise FormatError(
            f".ecdc: entropy-coded by the probability model {name!r}, this version has "
            f"{made.name!r}; read it with the version of fastcodec that wrote it"
        )
    return made
