"""fastcodec against the published implementations, number by number: one test a case."""

from __future__ import annotations

from collections import defaultdict

import pytest

from . import systems
from .cases import GOLDEN, Case, all_cases

pytestmark = [pytest.mark.golden, pytest.mark.usefixtures("one_thread")]

CASES = list(all_cases())
UNBUILT = [(case, why) for case in CASES if (why := systems.why_not(case)) is not None]


@pytest.mark.skipif(GOLDEN.is_dir(), reason="the golden vectors are there")
def test_golden_vectors_are_there() -> None:
    pytest.skip(f"no golden vectors at {GOLDEN}; FASTCODEC_GOLDEN says where they are")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case: Case) -> None:
    why = systems.why_not(case)
    if why is not None:
        pytest.skip(f"not built yet: {why}")
    systems.run(case)


@pytest.mark.skipif(not UNBUILT, reason="every case is of a system that is built")
def test_cases_of_systems_that_are_not_built() -> None:
    """Skipped with their names, so that a report shows what no test has compared."""
    by_system = defaultdict(list)
    for case, why in UNBUILT:
        by_system[why].append(case.id)
    listed = "; ".join(f"{why}: {', '.join(ids)}" for why, ids in by_system.items())
    pytest.skip(f"not built yet: {len(UNBUILT)} of {len(CASES)} cases: {listed}")
