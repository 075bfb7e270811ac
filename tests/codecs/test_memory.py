"""Constant memory: five minutes of sound in tiles, not in one piece.

The limits hold for any length; the hour is a row of the benchmarks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SECONDS = 300
SLACK_BYTES = 40 << 20  # a tile's working set, and what the allocator keeps

MEASURE = """
import importlib.util, json, resource, sys
import torch

spec = importlib.util.spec_from_file_location("nets", sys.argv[1])
nets = importlib.util.module_from_spec(spec)
spec.loader.exec_module(nets)
torch.set_num_threads(1)
options = json.loads(sys.argv[2])
if isinstance(options, str):
    codec = nets.STREAMING[options]()
else:
    codec = nets.encodec(ratios=(8, 5, 4, 2), n_filters=8, lstm=1, **options)
codec.sample_rate_hz = 24000

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

wav = torch.empty(1, codec.channels, 24000 * int(sys.argv[3])).normal_()
codec.decode(codec.encode(wav[..., : 2 * 24000]))
start = peak()
codes = codec.encode(wav)
encoded = peak()
heard = codec.decode(codes)
assert heard.shape == wav.shape
print(json.dumps([encoded - start, peak() - encoded, wav.nbytes, codes.tokens.nbytes]))
"""


@pytest.mark.parametrize(
    "options, copies",
    [
        ({}, 1),
        ({"causal": False, "padding": "zero", "true_skip": True}, 1),
        # What overlaps is added up, and divided by the sum of its weights: two copies.
        ({"causal": False, "norm": "time_group_norm", "segment": 24000, "stride": 23760}, 2),
    ],
    ids=["causal", "not causal", "segmented"],
)
def test_five_minutes(options: dict[str, object], copies: int) -> None:
    encoding, decoding, wav_bytes, codes_bytes = measured(options, SECONDS)
    # The first layer's output alone would be eight times the signal.
    assert encoding <= 3 * codes_bytes + SLACK_BYTES
    assert decoding <= copies * wav_bytes + 3 * codes_bytes + SLACK_BYTES
    assert SLACK_BYTES < 2 * wav_bytes


@pytest.mark.parametrize(
    "name", ["dac, odd strides", "snac, attention", "mimi", "soundstream, audiolm", "audiodec"]
)
def test_a_minute_and_a_half_of_every_family(name: str) -> None:
    encoding, decoding, wav_bytes, codes_bytes = measured(name, 90)
    assert encoding <= 3 * codes_bytes + SLACK_BYTES
    assert decoding <= wav_bytes + 3 * codes_bytes + SLACK_BYTES
    assert SLACK_BYTES < 8 * wav_bytes  # the first layer's output alone


def measured(options: object, seconds: int) -> list[int]:
    """Growth of the process while encoding and decoding, and the bytes of signal and codes."""
    arguments = [str(TESTS / "nets.py"), json.dumps(options), str(seconds)]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    numbers: list[int] = json.loads(run.stdout)
    return numbers
