"""The byte-return curve: a convex frontier that the planner's own plans lie on or above."""

import math
from itertools import pairwise

import pytest

from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan.budget import Budget
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.curve import frontier
from gguf_golf.plan.make import explain
from gguf_golf.plan.planner import Planner


@pytest.fixture(scope="module")
def planner(model, sensitivity, source):
    return Planner(model, sensitivity, Constraints(), None, source)


@pytest.fixture(scope="module")
def points(model, planner):
    sizes = {tensor.name: math.prod(tensor.shape) for tensor in model.tensors if is_quantizable(tensor)}
    return frontier(planner.groups, sizes)


def test_frontier_is_convex_and_falling(points):
    slopes = [(one.damage - two.damage) / (two.bytes - one.bytes) for one, two in pairwise(points)]
    assert len(points) > 20
    assert min(slopes) >= 0
    assert [point.per_mb for point in points] == pytest.approx([*(1e6 * slope for slope in slopes), 0])
    assert all(steep >= flat * (1 - 1e-9) for steep, flat in pairwise(slopes))


def test_points_of_the_frontier_are_what_the_planner_finds(planner, points):
    for point in points[5:-1:15]:
        header = planner.plan(Budget("", file_bytes=10**7))
        used = sum(int(group.item.bytes[i]) for group, i in zip(header.groups, header.chosen, strict=True))
        plan = planner.plan(Budget("", file_bytes=point.bytes + header.file_bytes - used + 512))
        assert plan.recipe.predicted_kld <= point.damage * (1 + 1e-9)
        assert plan.recipe.predicted_kld == pytest.approx(point.damage, rel=0.05)


def test_words(model, planner):
    text = explain(model, planner.plan(Budget("0.6MB", file_bytes=600_000)))
    assert "<- this plan" in text
    assert "the next MB would save KLD" in text
    assert "vocabulary" in text
    assert "MLP" in text
