"""A short, fixed corpus of damaged files through every reader; `make fuzz` tries as many as time allows."""

import subprocess
import sys
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


def test_damaged_tcq_files_are_refused_by_llama_cpp_or_compute_logits() -> None:
    # a process of its own: it forks, which one with ggml's threads must not
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", "--target", "llama.cpp", "--count", str(INPUTS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    accepted, refused = (int(n) for n in done.stdout.splitlines()[-1].split()[2:4])
    assert accepted > INPUTS // 10 and refused > INPUTS // 10
