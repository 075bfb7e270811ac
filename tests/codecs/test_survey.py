"""Table I of the survey as presets, and published sizes."""

from __future__ import annotations

import pytest
import torch

import fastcodec
from fastcodec.codecs import FAMILIES
from fastcodec.codecs.survey import TABLE_I

INFO = {info.name: info for info in fastcodec.models()}


def test_the_table_is_whole() -> None:
    assert [row.row for row in TABLE_I] == (
        "A B1 B2 B3 C D1 D2 D3 E1 E2 E3 E4 E5 F1 F2 F3 F4 F5 F6".split()
    )


@pytest.mark.parametrize("row", TABLE_I, ids=lambda row: row.row)
def test_every_row_is_a_preset_of_its_rate(row: fastcodec.codecs.survey.SurveyRow) -> None:
    info = INFO[row.preset]
    assert row.n_codebooks <= info.n_codebooks
    kbps = row.n_codebooks * (info.codebook_size - 1).bit_length() * info.frame_rate_hz / 1000
    assert kbps == pytest.approx(row.kbps, rel=1e-6 if not row.differs else 0.04)
    assert info.licence and info.weights


def test_presets_have_one_name_each() -> None:
    names = [name for family in FAMILIES for name in family.PRESETS]
    assert len(names) == len(set(names)) == len(INFO)


# Parameters without the codebooks, as counted in the published nets (none has weight norm).
PUBLISHED = {
    "audiodec_24khz_libritts": 7_939_936,
    "audiodec_48khz_vctk": 7_939_936,
    "funcodec_en_16k_nq32ds320": 14_855_843,
    "mimi_24khz": 79_308_609,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    family = next(f for f in FAMILIES if name in f.PRESETS)
    with torch.device("meta"):
        net = family.build(name)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[name]
