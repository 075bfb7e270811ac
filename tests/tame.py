"""Checkpoints of full-size nets with torch's own initial weights: tame signals, real shapes."""

from __future__ import annotations

from pathlib import Path

import torch

from fastcodec.codecs import encodec
from fastcodec.codecs.keys import upstream_names


def encodec_checkpoint(folder: Path, preset: str) -> Path:
    """A checkpoint in audiocraft's layout and encodec's names; made once a folder."""
    path = folder / f"{preset}.th"
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = encodec.build(preset)
            own = net.state_dict()
            own["quantizer.codebooks"] = torch.randn_like(own["quantizer.codebooks"])
        state = {}
        for name, theirs in upstream_names(net).items():
            parts = own[name] if len(theirs) > 1 else [own[name]]
            state |= {their: part.clone() for their, part in zip(theirs, parts, strict=True)}
        torch.save({"xp.cfg": "seed: 0\n", "best_state": state}, path)
    return path
