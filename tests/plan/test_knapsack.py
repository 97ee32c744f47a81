"""The knapsack against brute force, and at the size of a large model."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_golf.errors import InputError
from gguf_golf.plan.knapsack import Item, solve


def brute_force(items, budget, max_seconds=None):
    """The least damage over every combination; inf when none fits."""
    best = np.inf
    for choice in itertools.product(*(range(len(item.bytes)) for item in items)):
        size = sum(int(item.bytes[c]) for item, c in zip(items, choice, strict=True))
        seconds = sum(0 if item.seconds is None else item.seconds[c] for item, c in zip(items, choice, strict=True))
        if size <= budget and (max_seconds is None or seconds <= max_seconds):
            best = min(best, sum(float(item.damage[c]) for item, c in zip(items, choice, strict=True)))
    return best


def total(items, choice):
    return (
        sum(int(item.bytes[c]) for item, c in zip(items, choice, strict=True)),
        sum(float(item.damage[c]) for item, c in zip(items, choice, strict=True)),
    )


candidate = st.tuples(st.integers(1, 1000), st.floats(0, 1, allow_subnormal=False), st.integers(1, 50))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(candidate, min_size=1, max_size=5), min_size=1, max_size=5),
    st.floats(0, 1),
    st.sampled_from([1e-6, 1.0, 1e5]),
)
def test_equals_brute_force(raw, tightness, unit):
    items = [Item(np.array([c[0] for c in i]), unit * np.array([c[1] for c in i])) for i in raw]
    low = sum(int(item.bytes.min()) for item in items)
    high = sum(int(item.bytes.max()) for item in items)
    budget = low + int(tightness * (high - low))
    size, damage = total(items, solve(items, budget))
    assert size <= budget
    assert damage == pytest.approx(brute_force(items, budget), rel=1e-9, abs=1e-12 * unit)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(candidate, min_size=1, max_size=4), min_size=1, max_size=4),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_equals_brute_force_with_a_bound_on_time(raw, tightness, slowness):
    items = [
        Item(np.array([c[0] for c in i]), np.array([c[1] for c in i]), np.array([float(c[2]) for c in i])) for i in raw
    ]
    low, high = (sum(int(f(item.bytes)) for item in items) for f in (np.min, np.max))
    budget = low + int(tightness * (high - low))
    fast, slow = (sum(float(f(item.seconds)) for item in items) for f in (np.min, np.max))
    # between whole numbers, so that no solution sits on the bound itself
    max_seconds = np.floor(fast + slowness * (slow - fast)) + 0.5
    expected = brute_force(items, budget, max_seconds)
    if np.isinf(expected):
        with pytest.raises(InputError, match="speed"):
            solve(items, budget, max_seconds)
        return
    size, damage = total(items, solve(items, budget, max_seconds))
    assert size <= budget
    assert damage == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_below_the_minimum_names_it():
    items = [Item(np.array([30, 10]), np.array([0.0, 1.0])), Item(np.array([7, 9]), np.array([1.0, 0.0]))]
    with pytest.raises(InputError, match="17 bytes"):
        solve(items, 16)
    assert solve(items, 17) == [1, 0]


def large_problem():
    """1,000 tensors, 25 candidates whose damage falls about e^-1.4 a bit, sensitivities over three decades."""
    rng = np.random.default_rng(7)
    low = [1.125, 1.56, 1.75, 2.06, 2.125, 2.31, 2.56, 2.625, 3.06, 3.125, 3.44, 3.4375]
    high = [4.125, 4.25, 4.5, 4.5, 5, 5.125, 5.5, 5.5, 6.56, 8.5, 9, 16, 16]
    bpw = np.array([*low, *high])
    items = []
    for _ in range(1000):
        weights = int(rng.integers(1, 200)) * 65536
        damage = np.exp(rng.normal(0, 1.5)) * weights / 1e9 * np.exp(-1.4 * bpw * np.exp(rng.normal(0, 0.03, 25)))
        items.append(Item((weights * bpw / 8).astype(np.int64), damage))
    return items


def test_a_thousand_tensors():
    items = large_problem()
    budget = sum(int(item.bytes[12]) for item in items)
    size, damage = total(items, solve(items, budget))
    assert size <= budget
    # no multiplier gives a lower bound above the solution, and the best one comes very close to it
    bounds = [
        sum(float((item.damage + m * item.bytes).min()) for item in items) - m * budget
        for m in np.logspace(-14, -9, 400)
    ]
    assert max(bounds) <= damage <= max(bounds) * (1 + 1e-3)
