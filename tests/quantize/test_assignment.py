"""Which types a uniform file gives to the vocabulary's tables."""

import numpy as np
import pytest

from gguf_golf.models import LazyTensor, Model
from gguf_golf.quantize.assignment import AUTO, uniform


def model_of(*names: str) -> Model:
    return Model(
        "llama", [], [LazyTensor(n, (256, 256), "F32", lambda a, b: np.zeros((b - a, 256), np.float32)) for n in names]
    )


@pytest.mark.parametrize(
    ("body", "head"), [("tcq1", "tcq2"), ("tcq4", "tcq5"), ("tcq5", "q6_k"), ("q3_k", "q6_k"), ("q8_0", "q8_0")]
)
def test_a_head_takes_the_rate_above_and_an_embedding_that_is_only_looked_up_the_layers_type(
    body: str, head: str
) -> None:
    tied = uniform(model_of("token_embd.weight", "blk.0.attn_q.weight"), body, AUTO).types
    assert {name: t.name for name, t in tied.items()} == {"token_embd.weight": head, "blk.0.attn_q.weight": body}
    untied = uniform(model_of("token_embd.weight", "blk.0.attn_q.weight", "output.weight"), body, AUTO).types
    assert untied["output.weight"].name == head
    assert untied["token_embd.weight"].name == untied["blk.0.attn_q.weight"].name == body


def test_a_named_type_is_taken_for_both_tables() -> None:
    untied = uniform(model_of("token_embd.weight", "output.weight"), "tcq2", "q8_0").types
    assert {t.name for t in untied.values()} == {"q8_0"}


@pytest.mark.parametrize(("body", "embedding"), [("iq1_s", "q2_k"), ("iq2_s", "q2_k"), ("iq3_xxs", "iq3_s")])
def test_an_embedding_that_no_imatrix_knows_takes_a_type_that_needs_none(body: str, embedding: str) -> None:
    untied = uniform(model_of("token_embd.weight", "blk.0.attn_q.weight", "output.weight"), body, AUTO).types
    assert {name: t.name for name, t in untied.items()} == {
        "token_embd.weight": embedding,
        "blk.0.attn_q.weight": body,
        "output.weight": "q6_k",
    }
