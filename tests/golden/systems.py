"""Which systems are built, by their upstream's name, and how a case of each is run."""

from __future__ import annotations

from collections.abc import Callable

from . import (
    run_academicodec,
    run_audiodec,
    run_dac,
    run_discriminators,
    run_encodec,
    run_funcodec,
    run_lyra,
    run_mimi,
    run_snac,
    run_soundstream,
    run_speechtokenizer,
    run_training,
)
from .cases import Case

# Upstream's name -> (why a case is not of a built system or None, how to run it).
SYSTEMS: dict[str, tuple[Callable[[Case], str | None], Callable[[Case], None]]] = {
    "encodec": (run_encodec.why_not, run_encodec.run),
    "audiocraft": (run_encodec.why_not, run_encodec.run),
    "AcademiCodec": (run_academicodec.why_not, run_academicodec.run),
    "speechtokenizer": (run_speechtokenizer.why_not, run_speechtokenizer.run),
    "descript-audio-codec": (run_dac.why_not, run_dac.run),
    "AudioDec": (run_audiodec.why_not, run_audiodec.run),
    "funcodec": (run_funcodec.why_not, run_funcodec.run),
    "google/lyra": (run_lyra.why_not, run_lyra.run),
    "moshi (Mimi)": (run_mimi.why_not, run_mimi.run),
    "snac": (run_snac.why_not, run_snac.run),
    "audiolm-pytorch": (run_soundstream.why_not, run_soundstream.run),
}


# Runners of parts, told by what a case holds: upstream's name is that of a codec too.
PARTS = (run_training, run_discriminators)


def why_not(case: Case) -> str | None:
    """What of a case is not built yet, or None where it can be run."""
    if any(part.serves(case) for part in PARTS):
        return None
    name = case.entry["upstream"]["name"]
    if case.kind != "codec" or name not in SYSTEMS:
        return case.upstream
    reason = SYSTEMS[name][0](case)
    return None if reason is None else f"{case.upstream}, {reason}"


def run(case: Case) -> None:
    """Compare every array of a case; fails with all differences."""
    for part in PARTS:
        if part.serves(case):
            part.run(case)
            return
    SYSTEMS[case.entry["upstream"]["name"]][1](case)
