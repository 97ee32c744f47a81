"""A short, fixed corpus of damaged files through every reader; `make fuzz` tries as many as time allows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.run import Tally, outcome_of, prepared
from tests.fuzz.targets import TARGETS, Target

INPUTS = 100


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def damaged(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Path, Path, bytes]]:
    with prepared(request.param) as (path, victim, valid):
        yield request.param, path, victim, valid


def test_damaged_files_are_accepted_or_refused_by_name(damaged: tuple[Target, Path, Path, bytes]) -> None:
    tally = Tally()
    for seed in range(INPUTS):
        tally.add(*outcome_of(*damaged, seed), seed)
    assert not tally.faults
    assert tally.outcomes["refused"] > INPUTS // 10, "the damage reaches nothing that the reader looks at"
