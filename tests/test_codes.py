"""Codes as a value: rows, codebooks, time, and codes put together again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastcodec import Codes, batch, join

TOKENS = torch.arange(2 * 3 * 8).reshape(2, 3, 8)
CODES = Codes(TOKENS, 50.0, torch.tensor([155, 150]), "some", hop=20)


def held() -> Codes:
    """Tokens held over 4, 2 and 1 frames."""
    coarse = [
        TOKENS[:, i, ::every].repeat_interleave(every, 1) for i, every in enumerate((4, 2, 1))
    ]
    return replace(CODES, tokens=torch.stack(coarse, dim=1), hold=(4, 2, 1))


def test_truncate() -> None:
    some = held().truncate(2)
    assert torch.equal(some.tokens, held().tokens[:, :2]) and some.hold == (4, 2)
    for count in (0, 4):
        with pytest.raises(ValueError, match="1 to 3"):
            CODES.truncate(count)


def test_frames_keep_the_samples_they_stand_for() -> None:
    middle, end = CODES.frames(2, 7), CODES.frames(7, 8)
    assert torch.equal(middle.tokens, TOKENS[..., 2:7])
    assert middle.n_samples.tolist() == [100, 100]
    assert end.n_samples.tolist() == [15, 10]
    for start, stop in ((-1, 2), (3, 3), (0, 9)):
        with pytest.raises(ValueError, match="0 <= start < stop <= 8"):
            CODES.frames(start, stop)


def test_frames_of_what_has_no_parts() -> None:
    with pytest.raises(ValueError, match="multiples"):
        held().frames(2, 8)
    assert held().frames(4, 8).ragged()[0].shape == (2, 1)
    for codes in (
        replace(CODES, segment=40),
        replace(CODES, scale=torch.ones(2, 3)),
        replace(CODES, hop=None),
    ):
        with pytest.raises(ValueError, match="no parts"):
            codes.frames(0, 1)


def test_join_undoes_frames() -> None:
    whole = join([CODES.frames(0, 3), CODES.frames(3, 4), CODES.frames(4, 8)])
    assert torch.equal(whole.tokens, TOKENS) and torch.equal(whole.n_samples, CODES.n_samples)
    with pytest.raises(ValueError, match="part 0 of 2 ends within a frame"):
        join([CODES, CODES])
    with pytest.raises(ValueError, match="segments do not join"):
        join([replace(CODES, scale=torch.ones(2, 1))] * 2)
    with pytest.raises(ValueError, match="one codec"):
        join([CODES.frames(0, 3), replace(CODES, codec="other")])
    with pytest.raises(ValueError, match="no codes"):
        join([])


def test_batch_fills_up() -> None:
    short = replace(CODES.frames(0, 3), scale=torch.full((2, 1), 2.0))
    long = replace(CODES, scale=torch.full((2, 2), 3.0))
    rows = batch([short, long])
    assert torch.equal(rows.tokens[2:], TOKENS) and torch.equal(
        rows.tokens[:2, :, :3], TOKENS[..., :3]
    )
    assert (rows.tokens[:2, :, 3:] == -1).all()
    assert rows.scale is not None and rows.scale.tolist() == [[2, 1], [2, 1], [3, 3], [3, 3]]
    assert rows.n_samples.tolist() == [60, 60, 155, 150]
    with pytest.raises(ValueError, match="one codec"):
        batch([CODES, CODES.truncate(1)])


def test_ragged_gives_each_token_once() -> None:
    levels = held().ragged()
    assert [level.shape[1] for level in levels] == [2, 4, 8]
    for i, (level, every) in enumerate(zip(levels, (4, 2, 1), strict=True)):
        assert torch.equal(level, TOKENS[:, i, ::every])
    assert all(torch.equal(a, b) for a, b in zip(CODES.ragged(), TOKENS.unbind(1), strict=True))


def test_hold_is_of_every_codebook() -> None:
    with pytest.raises(ValueError, match="hold must name 3"):
        replace(CODES, hold=(4, 2))
