"""Protected rows as candidates: what they are expected to save, when a plan takes them, and that sizes stay exact."""

from dataclasses import replace

import pytest

from gguf_golf.container.layout import lay_out
from gguf_golf.container.metadata import recipe_metadata
from gguf_golf.container.tensors import tensor_infos
from gguf_golf.plan.budget import Budget
from gguf_golf.plan.candidates import RESIDUAL_ERROR, groups
from gguf_golf.plan.constraints import Constraints, Speed
from gguf_golf.plan.correction import Correction
from gguf_golf.plan.planner import Planner
from gguf_golf.plan.recipe import Line, Recipe, from_toml, to_toml

VOCABULARY = "token_embd.weight"
BUDGET = Budget("0.5MB", file_bytes=500_000)


SAVED = {"64": 0.4, "128": 0.6, "256": 0.7}


@pytest.fixture(scope="module")
def measured(sensitivity):
    """What exact rows of the vocabulary save was measured."""
    tensors = [replace(t, rows_saved=SAVED) if t.name == VOCABULARY else t for t in sensitivity.tensors]
    return replace(sensitivity, tensors=tensors)


@pytest.fixture(scope="module")
def planner(model, measured, source):
    def make(correction=None, **constraints):
        made = Planner(model, measured, Constraints(**constraints), None, source)
        return made if correction is None else made.corrected(correction)

    return make


def group_of(found):
    return next(group for group in found if group.names == (VOCABULARY,))


def test_they_save_what_was_measured_but_for_what_their_residual_leaves(model, measured):
    group = group_of(groups(model, measured, Constraints()))
    plain = {c.type.name: i for i, c in enumerate(group.choices) if c.protected is None}
    assert {str(c.protected.n_rows) for c in group.choices if c.protected} == SAVED.keys()
    for index, choice in enumerate(group.choices):
        if choice.protected is not None:
            n, base = choice.protected.n_rows, plain[choice.type.name]
            left = 1 - SAVED[str(n)] * (1 - RESIDUAL_ERROR)
            assert group.damage[index] == pytest.approx(group.damage[base] * left)
            assert group.item.bytes[index] - group.item.bytes[base] == n * (4 + 68)


def test_a_plan_takes_them_where_they_pay_and_is_better_for_it(planner):
    with_rows, without = planner().plan(BUDGET), planner(protects_rows=False).plan(BUDGET)
    line = with_rows.recipe.tensors[VOCABULARY]
    assert line.rows in (64, 128, 256)
    assert line.residual == "tcq2"
    assert with_rows.recipe.predicted_kld < without.recipe.predicted_kld
    assert all(line.rows == 0 for line in without.recipe.tensors.values())


def test_predicted_size_is_the_size_of_the_file(model, planner, source):
    plan = planner().plan(BUDGET)
    chosen, _ = plan.recipe.types_for(model)
    protected = plan.recipe.protected_for(model)
    metadata = recipe_metadata(
        model,
        chosen,
        recipe_text=plan.text,
        fingerprint=source["fingerprint"],
        imatrix=None,
        imatrix_name="",
        imatrix_sha256="",
        protected=protected,
    )
    layout = lay_out(tensor_infos(model, chosen, protected), metadata)
    assert plan.file_bytes == plan.recipe.predicted_bytes == layout.file_bytes <= BUDGET.file_bytes
    assert f"{VOCABULARY}.residual" in layout.offsets


@pytest.mark.parametrize(
    "constraints",
    [{"stock": 5000}, {"pins": ((VOCABULARY, "tcq2"),)}, {"ties": ("*",)}],
)
def test_no_rows_where_they_cannot_be_or_a_pin_says_all(planner, constraints):
    budget = Budget("0.8MB", file_bytes=800_000)
    assert planner().plan(budget).recipe.tensors[VOCABULARY].rows > 0
    assert planner(**constraints).plan(budget).recipe.tensors[VOCABULARY].rows == 0


def test_no_rows_for_an_architecture_that_does_not_apply_them_or_where_nothing_was_measured(
    model, sensitivity, measured
):
    for changed, known in ((replace(model, architecture="deepseek2"), measured), (model, sensitivity)):
        assert not any(choice.protected for choice in group_of(groups(changed, known, Constraints())).choices)


def test_their_time_counts(model, measured):
    ns = dict.fromkeys(("tcq1", "tcq2", "q6_k"), 1.0)
    group = group_of(groups(model, measured, Constraints(speed=Speed(1.0, ns))))
    n_rows = model.tensor(VOCABULARY).n_rows
    for choice, seconds in zip(group.choices, group.item.seconds, strict=True):
        extra = choice.protected.n_rows if choice.protected else 0
        assert seconds == pytest.approx(1e-9 * 256 * (n_rows + extra))
    slow = dict.fromkeys(("tcq1", "q6_k"), 1.0)
    group = group_of(groups(model, measured, Constraints(speed=Speed(1.0, slow))))
    assert not any(choice.protected for choice in group.choices), "nobody knows how slow tcq2 is"


def test_what_was_measured_corrects_them_too(planner):
    plan = planner().plan(BUDGET)
    parts = planner().parts(plan)
    assert sum(parts.values()) == pytest.approx(plan.recipe.predicted_kld)
    corrected = planner(Correction(log_factors={"vocabulary": 0.5}))
    assert corrected.expected(plan.chosen) > planner().expected(plan.chosen)


def test_a_recipe_says_them_and_is_read_again():
    recipe = Recipe({VOCABULARY: Line("tcq3", 0.1, 0.01, 512, "tcq3"), "blk.*": Line("tcq2")})
    text = to_toml(recipe)
    assert 'type = "tcq3", rows = 512, residual = "tcq3"' in text
    assert from_toml(text, "recipe.toml") == recipe
    short = from_toml(f'format = 1\n[tensors]\n"{VOCABULARY}" = {{ type = "tcq2", rows = 7 }}', "r.toml")
    assert short.tensors[VOCABULARY] == Line("tcq2", rows=7, residual="tcq2")
    assert str(short.tensors[VOCABULARY]) == "tcq2 + 7 rows in tcq2"
