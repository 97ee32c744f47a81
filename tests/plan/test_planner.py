"""Plans: optimal, within the budget, exact to the byte, and obedient to every constraint."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from gguf_golf.container.layout import lay_out
from gguf_golf.container.metadata import recipe_metadata
from gguf_golf.container.tensors import tensor_infos
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.models import Model
from gguf_golf.plan.budget import Budget, n_weights
from gguf_golf.plan.candidates import Choice, tensor_damage
from gguf_golf.plan.constraints import NEWEST, Constraints, Speed, stock_build
from gguf_golf.plan.make import explain
from gguf_golf.plan.planner import Planner

MB = 10**6
BUDGETS = [Budget(f"{size}MB", file_bytes=int(size * MB)) for size in (0.35, 0.5, 0.8, 1.2)]


@pytest.fixture(scope="session")
def make(model, sensitivity, source):
    def make(budget, **constraints):
        return Planner(model, sensitivity, Constraints(**constraints), None, source).plan(budget)

    return make


def types_of(plan):
    return {name: quant_types.get(line.type) for name, line in plan.recipe.tensors.items()}


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.text)
def test_predicted_size_is_the_size_of_the_file(model, make, source, budget):
    plan = make(budget)
    chosen, _ = plan.recipe.types_for(model)
    metadata = recipe_metadata(
        model,
        chosen,
        recipe_text=plan.text,
        fingerprint=source["fingerprint"],
        imatrix=None,
        imatrix_name="",
        imatrix_sha256="",
    )
    assert lay_out(tensor_infos(model, chosen), metadata).file_bytes == plan.file_bytes == plan.recipe.predicted_bytes
    assert budget.file_bytes - 1500 < plan.file_bytes <= budget.file_bytes


def test_bits_per_weight_count_tensor_data(model, make):
    plan = make(Budget("3.0bpw", bpw=3.0))
    chosen, _ = plan.recipe.types_for(model)
    bits = 8 * sum(info.n_bytes for info in tensor_infos(model, chosen)) / n_weights(model)
    assert 2.98 < bits <= 3.0


def test_no_exchange_of_two_tensors_betters_a_plan(model, sensitivity, make):
    """Brute force over the types of any two tensors: none fits into the same bytes with less damage."""
    plan = make(BUDGETS[1])
    for (one, i), (two, j) in itertools.combinations(zip(plan.groups, plan.chosen, strict=True), 2):
        now = one.item.damage[i] + two.item.damage[j]
        spare = one.item.bytes[i] + two.item.bytes[j]
        damage = one.item.damage[:, None] + two.item.damage[None]
        fits = one.item.bytes[:, None] + two.item.bytes[None] <= spare
        assert damage[fits].min() >= now - 1e-12


def test_coarse_rounding_of_activations_makes_short_blocks_worth_their_bytes(model, sensitivity, source):
    """Types of 256 weights a block cannot do better than their activations; the plan then takes other types."""
    name = "blk.2.ffn_down.weight"
    tensors = [
        replace(tensor, rounding={"q8_k": 0.02, "q8_64": 2e-5, "q8_0": 1e-5}) if tensor.name == name else tensor
        for tensor in sensitivity.tensors
    ]
    plan = Planner(model, replace(sensitivity, tensors=tensors), Constraints(), None, source).plan(BUDGETS[3])
    assert types_of(plan)[name].activations in ("q8_64", "q8_0")
    coarse = tensors[[tensor.name for tensor in tensors].index(name)]
    assert coarse.damage("q6_k") == pytest.approx(coarse.coefficient * (coarse.errors["q6_k"] + 0.02))
    assert coarse.damage("q8_0") == pytest.approx(coarse.coefficient * (coarse.errors["q8_0"] + 1e-5))


def test_more_bytes_mean_less_damage(make):
    damages = [make(budget).recipe.predicted_kld for budget in BUDGETS]
    assert damages == sorted(damages, reverse=True)


def test_prediction_is_the_sum_of_its_tensors(sensitivity, make):
    plan = make(BUDGETS[2])
    total = sum(tensor_damage(sensitivity, name, Choice(each)) for name, each in types_of(plan).items())
    assert plan.recipe.predicted_kld == pytest.approx(total)


def test_below_the_minimum_the_error_names_it(make):
    with pytest.raises(InputError, match=r"smallest possible file has ([\d,]+) bytes") as caught:
        make(Budget("10kB", file_bytes=10_000))
    minimum = int(str(caught.value).split(" has ")[1].split(" ")[0].replace(",", ""))
    assert make(Budget("min", file_bytes=minimum + 32)).file_bytes <= minimum + 32
    with pytest.raises(InputError):
        make(Budget("1bpw", bpw=1.0))


def test_super_weights_are_kept(make):
    plan = make(BUDGETS[0])
    assert types_of(plan)["blk.1.ffn_down.weight"].bpw > 3
    assert "kept to 2%" in plan.recipe.super_weights["blk.1.ffn_down.weight[3, 7]"]


@pytest.mark.parametrize("build", [4000, NEWEST])
def test_stock(make, build):
    assert not {t.name for t in types_of(make(BUDGETS[1], stock=build)).values()} & set(quant_types.TCQ)


def test_a_file_for_an_older_program_holds_no_type_that_came_later(model, sensitivity, source):
    """At every budget, and though the newer types are made to cost nothing here."""
    newer = {t.name for t in quant_types.MAINLINE.values() if t.since is None or t.since > 2000}
    assert {"mxfp4", "q1_0", "iq4_xs"} <= newer
    cheap = [
        replace(each, errors={name: 0.0 if name in newer else error for name, error in each.errors.items()})
        for each in sensitivity.tensors
    ]
    planner = Planner(model, replace(sensitivity, tensors=cheap), Constraints(stock=2000), None, source)
    for budget in BUDGETS[2:]:
        assert not newer & {t.name for t in types_of(planner.plan(budget)).values()}


def test_builds_are_written_as_llama_cpp_tags_them():
    assert stock_build("b4000") == stock_build("4000") == 4000
    assert stock_build("newest") == NEWEST
    assert stock_build(None) is None
    with pytest.raises(InputError, match="b4000"):
        stock_build("yesterday")


def test_pins_and_bans(make):
    plan = make(
        BUDGETS[2], pins=(("blk.*.attn_q.weight", "q5_k"),), bans=(("*", "tcq*"), ("blk.*.attn_v.weight", "iq*"))
    )
    for name, quant_type in types_of(plan).items():
        assert not quant_type.name.startswith("tcq")
        assert (quant_type.name == "q5_k") or "attn_q" not in name
        assert "attn_v" not in name or not quant_type.name.startswith("iq")


def test_ties(make):
    plan = make(BUDGETS[1], ties=("blk.#.attn_[qkv].weight", "blk.*.ffn_up.weight"))
    chosen = types_of(plan)
    for layer in range(3):
        assert len({chosen[f"blk.{layer}.attn_{kind}.weight"].name for kind in "qkv"}) == 1
    assert len({chosen[f"blk.{layer}.ffn_up.weight"].name for layer in range(3)}) == 1
    free = types_of(make(BUDGETS[1]))
    assert len({free[f"blk.0.attn_{kind}.weight"].name for kind in "qkv"}) > 1, "the tie has nothing to do"


def test_embedding_floor(make):
    floor = quant_types.get("q6_k").bpw
    assert types_of(make(BUDGETS[1]))["token_embd.weight"].bpw < floor
    assert types_of(make(BUDGETS[1], embedding_floor="q6_k"))["token_embd.weight"].bpw >= floor


def test_speed_floor(model, make):
    """Our types are made five times as slow: a floor that only few of them meet changes the plan, and is met."""
    ns = {name: 5.0 if name in quant_types.TCQ else 1.0 for name in quant_types.ALL}
    weights = {tensor.name: int(np.prod(tensor.shape)) for tensor in model.tensors}

    def seconds(plan):
        return sum(1e-9 * weights[name] * ns[quant_type.name] for name, quant_type in types_of(plan).items())

    slow = seconds(make(BUDGETS[1]))
    floor = Speed(1 / (0.6 * slow), ns)
    fast = make(BUDGETS[1], speed=floor)
    assert seconds(fast) <= 0.6 * slow
    with pytest.raises(InputError, match="speed"):
        make(BUDGETS[1], speed=Speed(1e9, ns))


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        ({"pins": (("nothing*", "tcq3"),)}, "no tensor is called nothing"),
        ({"ties": ("blk.#.nothing",)}, "no tensor is called"),
        ({"ties": ("blk.*.attn_q.weight", "blk.#.attn_[qk].weight")}, "tied twice"),
        ({"bans": (("*", "*"),)}, "leave no type"),
    ],
)
def test_constraints_that_cannot_be(make, constraints, said):
    with pytest.raises(InputError, match=said):
        make(BUDGETS[1], **constraints)


def test_another_model_is_refused(model, sensitivity, source):
    stranger = replace(model.tensors[0], name="blk.9.attn_q.weight")
    other = Model("llama", model.metadata, [*model.tensors, stranger])
    with pytest.raises(InputError, match="knows no tensor"):
        Planner(other, sensitivity, Constraints(), None, source)


def test_explain_after_quick_says_what_the_next_megabyte_saves(model, sensitivity, source):
    """Damage then has no unit, but it falls all the same."""
    plan = Planner(model, replace(sensitivity, quick=True), Constraints(), None, source).plan(BUDGETS[1])
    assert plan.recipe.predicted_kld is None
    saved = re.search(r"the next MB would save damage ([\d.e+-]+)", explain(model, plan))
    assert float(saved[1]) > 0


def test_where_little_is_known_a_plan_is_cautious(model, sensitivity, source):
    """The same expected damage with a wide bar is worth more bytes; what is predicted is still what is expected."""
    name = "blk.2.ffn_down.weight"

    def plan(doubt):
        tensors = [
            replace(each, coefficient_sd=doubt if each.name == name else 0.05, anchor=0.05)
            for each in sensitivity.tensors
        ]
        return Planner(model, replace(sensitivity, tensors=tensors), Constraints(), None, source).plan(BUDGETS[1])

    sure, doubtful = plan(0.05), plan(1.5)
    assert types_of(doubtful)[name].bpw > types_of(sure)[name].bpw
    assert doubtful.recipe.predicted_kld >= sure.recipe.predicted_kld
