"""The codec that comes with the package: speech at 16 kHz, 0.5 to 4 kbps, streaming.

A small EnCodec without LSTM: SEANet of 16 filters around 8 codebooks of 1024 words, 50 frames a
second, no look-ahead. Trained by ``fastcodec train`` on recordings under free licences; data,
recipe and learning curves: ``fastcodec/train/recipes``.

    wav 16 kHz ─ conv 7 ─ [unit ─ conv ↓2] ─ [↓4] ─ [↓5] ─ [↓8] ─ conv 7 ─► 64 × 50 Hz ─► 8 codes
    wav 16 kHz ◄ conv 7 ─ [unit ─ conv ↑2] ◄ [↑4] ◄ [↑5] ◄ [↑8] ◄ conv 7 ─◄ sum of code words ◄┘
"""

from __future__ import annotations

import os
from pathlib import Path

from fastcodec.codecs.encodec import Encodec
from fastcodec.codecs.encodec_config import EncodecConfig
from fastcodec.codecs.seanet import SeanetConfig

CONFIG = EncodecConfig
ASSETS = Path(__file__).parents[1] / "assets"

PRESETS = {
    "fastcodec_16khz": EncodecConfig(
        16000,
        SeanetConfig(
            dimension=64, n_filters=16, lstm=0, padding="zero", true_skip=True, norm="none"
        ),
        8, 1024, (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0), "",
        "CC-BY-SA 3.0, as the recordings it learnt from",
    )
}  # fmt: skip

DEFAULT = "fastcodec_16khz"  # of the demo and of evaluate: it needs nothing but the package


class Embedded(Encodec):
    """An EnCodec whose weights lie in the package."""

    def _from_hub(self) -> os.PathLike[str]:
        return ASSETS / f"{self.name}.safetensors"


def build(name: str, config: EncodecConfig | None = None) -> Embedded:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Embedded(config or PRESETS[name], name)


__all__ = ["CONFIG", "PRESETS", "Embedded", "EncodecConfig", "build"]
