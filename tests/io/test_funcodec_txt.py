"""FunCodec's codecs.txt: what upstream writes and reads, and only ``FormatError`` for the rest."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from fastcodec.errors import FormatError
from fastcodec.io.funcodec_txt import read_codecs_txt, write_codecs_txt

CODES = {
    "speaker-1": torch.tensor([[1, 2, 3], [4, 5, 1023]]),
    "b/c.wav": torch.zeros(1, 1, dtype=torch.int64),
}


def test_the_bytes_are_upstreams(tmp_path: Path) -> None:
    want = b"speaker-1 [[[1, 2, 3], [4, 5, 1023]]]\nb/c.wav [[[0]]]\n"
    assert write_codecs_txt(CODES, tmp_path / "codecs.txt") == want
    assert (tmp_path / "codecs.txt").read_bytes() == want
    found = read_codecs_txt(tmp_path / "codecs.txt")
    assert list(found) == list(CODES)
    assert all(torch.equal(found[key], CODES[key]) for key in CODES)


def test_without_the_list_of_segments() -> None:
    """Which upstream's reader takes, too (funcodec/datasets/iterable_dataset.py@3435d870)."""
    found = read_codecs_txt(b"a [[1, 2], [3, 4]]\n\nb  [[[5]]]")
    assert found["a"].tolist() == [[1, 2], [3, 4]] and found["b"].tolist() == [[5]]


@pytest.mark.parametrize(
    "line, message",
    [
        (b"", "no line"),
        (b"\xff", "not a text file"),
        (b"alone", "line 1: a key and JSON expected"),
        (b"a [[[1, 2]]", "line 1: a key and JSON"),
        (b"a " + b"[" * 100_000, "line 1"),
        (b"a [[[1, 2]]]\na [[[1, 2]]]", "line 2: the key 'a' is there twice"),
        (b"a [[[1], [2]], [[3], [4]]]", "a token 0 to 65535 expected, got"),
        (b"a [[[1, 2], [3]]]", "equally many tokens"),
        (b"a [[[]]]", "equally many tokens"),
        (b"a []", "equally many tokens"),
        (b"a 7", "equally many tokens"),
        (b"a [[[1, -1]]]", "got -1"),
        (b"a [[[1, 65536]]]", "got 65536"),
        (b"a [[[1, 2.0]]]", "got 2.0"),
        (b"a [[[true]]]", "got True"),
        (b'a [[["1"]]]', "got '1'"),
        (b"a [[[" + b"9" * 5000 + b"]]]", "line 1"),
    ],
)
def test_what_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_codecs_txt(line)


def test_keys_and_tokens_that_cannot_be_written() -> None:
    good = torch.zeros(1, 2, dtype=torch.int64)
    for key in ("", "two words", "new\nline"):
        with pytest.raises(ValueError, match="a key must be a word"):
            write_codecs_txt({key: good})
    for tokens in (good[0], good.float(), good[:, :0], good - 1, good + 70_000):
        with pytest.raises(ValueError, match="tokens"):
            write_codecs_txt({"a": tokens})


def test_damaged_files() -> None:
    rng, whole = random.Random(0), write_codecs_txt(CODES)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.choice(
                (b"", b"[", b"]", b",", b"9", b"\xff", b"e")
            )
        try:
            codes = read_codecs_txt(bytes(data))
        except FormatError:
            continue
        assert json.dumps({key: tokens.tolist() for key, tokens in codes.items()})
