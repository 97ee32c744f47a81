"""Recipes: what is written is read again, by our reader and as plain TOML; edits and mistakes are handled."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_golf.errors import InputError
from gguf_golf.plan.recipe import Line, Recipe, from_toml, to_toml

ROUNDED = st.floats(1e-12, 1e3).map(lambda value: float(f"{value:.3g}"))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1, max_size=20)
LINES = st.builds(Line, st.sampled_from(["tcq3", "q4_k", "f16"]), st.none() | ROUNDED, st.none() | ROUNDED)
RECIPES = st.builds(
    Recipe,
    tensors=st.dictionaries(NAMES, LINES, min_size=1, max_size=4),
    budget=st.none() | st.text(max_size=9),
    predicted_bytes=st.none() | st.integers(0, 1 << 50),
    predicted_kld=st.none() | ROUNDED,
    source=st.dictionaries(NAMES, st.text(max_size=9), max_size=3),
    super_weights=st.dictionaries(NAMES, st.text(max_size=9), max_size=2),
)


@given(RECIPES)
def test_round_trip(recipe):
    text = to_toml(recipe)
    assert from_toml(text, "recipe") == recipe
    assert tomllib.loads(text)["format"] == 1


def test_names_go_before_patterns(model):
    recipe = from_toml(
        'format = 1\n[tensors]\n"blk.*" = "tcq2"\n"blk.1.attn_v.weight" = "q6_k"\n"*" = "tcq4"\n', "recipe"
    )
    chosen, notes = recipe.types_for(model)
    assert chosen["blk.0.attn_v.weight"].name == "tcq2"
    assert chosen["blk.1.attn_v.weight"].name == "q6_k"
    assert chosen["token_embd.weight"].name == "tcq4"
    assert chosen["blk.0.attn_norm.weight"].name == "f32"
    assert notes == []


def test_a_missing_tensor_is_named(model):
    with pytest.raises(InputError, match=r"token_embd\.weight"):
        Recipe({"blk.*": Line("tcq3")}).types_for(model)


def test_a_line_for_no_tensor_is_named(model):
    with pytest.raises(InputError, match=r"blk\.9"):
        Recipe({"*": Line("tcq3"), "blk.9.attn_q.weight": Line("tcq3")}).types_for(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = ", "not valid TOML"),
        ("format = 2\n[tensors]\na = 'tcq3'", "format = 1"),
        ("format = 1", r"\[tensors\]"),
        ("format = 1\n[tensors]\na = 'tcq9'", "no tensor type"),
        ("format = 1\n[tensors]\na = 3", "needs a type"),
        ("format = 1\nbuget = '3'\n[tensors]\na = 'tcq3'", "unknown entry buget"),
        ("format = 1\npredicted_bytes = 'x'\n[tensors]\na = 'tcq3'", "predicted_bytes"),
        ("format = 1\ntensors = 3", "table"),
    ],
)
def test_mistakes_are_named(text, said):
    with pytest.raises(InputError, match=said):
        from_toml(text, "recipe.toml")
