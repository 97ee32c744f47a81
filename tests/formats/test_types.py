"""The type registry against ggml itself, gguf-py, and the rules of fallback."""

import gguf
import numpy as np
import pytest

from gguf_golf.errors import InputError
from gguf_golf.formats import tcq, types
from gguf_golf.runtime import ggml


def test_names_and_sizes_are_those_of_the_runtime() -> None:
    for quant_type in types.ALL.values():
        if quant_type.id in ggml.type_ids():
            traits = ggml.type_traits(quant_type.id)
            assert (traits.block_size, traits.type_size) == (quant_type.block_size, quant_type.type_size)
            assert traits.name.lower() == quant_type.name
    assert {t.id for t in types.TCQ.values()} == {*range(112, 117), *range(118, 123)}
    assert {t.id for t in types.TCQ.values()} <= set(ggml.type_ids())


def test_bits_per_weight() -> None:
    assert [types.get(f"tcq{rate}").bpw for rate in range(1, 6)] == [1.125, 2.125, 3.125, 4.125, 5.125]
    assert [types.get(f"tcq{rate}_64").bpw for rate in range(1, 6)] == [1.25, 2.25, 3.25, 4.25, 5.25]


@pytest.mark.parametrize(
    ("wanted", "row_length", "chosen"),
    [
        ("tcq3", 768, "tcq3"),
        ("tcq3", 576, "tcq3_64"),
        ("tcq3", 96, "q4_0"),
        ("tcq5", 2880, "tcq5_64"),
        ("tcq5", 96, "q8_0"),
        ("tcq2", 30, "f16"),
        ("q6_k", 576, "q8_0"),
        ("q2_k", 576, "q4_0"),
        ("iq2_xs", 576, "iq4_nl"),
        ("q4_0", 100, "f16"),
        ("f32", 7, "f32"),
    ],
)
def test_fallback_by_row_length(wanted: str, row_length: int, chosen: str) -> None:
    quant_type, note = types.type_for_row(wanted, row_length)
    assert quant_type.name == chosen
    assert (note is None) == (wanted == chosen)
    if note:
        assert chosen in note
        assert str(row_length) in note


def test_every_fallback_ends_in_a_type_that_takes_any_row() -> None:
    for name in types.ALL:
        assert types.type_for_row(name, 7)[0].divides(7)


def test_unknown_names_are_refused_with_the_list() -> None:
    with pytest.raises(InputError, match="tcq3_64"):
        types.get("tcq9")
    with pytest.raises(InputError, match="300 weights"):
        types.get("tcq3").row_bytes(300)


def test_gguf_py_reads_our_types_as_its_own() -> None:
    types.register_with_gguf()
    types.register_with_gguf()  # a second call changes nothing
    for name, fmt in types.TCQ_FORMATS.items():
        member = gguf.GGMLQuantizationType(types.TCQ[name].id)
        assert member is gguf.GGMLQuantizationType[name.upper()]
        blocks = np.random.default_rng(3).integers(0, 256, (6, fmt.type_size), np.uint8)
        got = gguf.quants.dequantize(blocks.reshape(2, -1), member)
        assert np.array_equal(got, tcq.dequantize(fmt, blocks).reshape(2, -1))
        assert gguf.quant_shape_to_byte_shape((2, 3 * fmt.block_size), member) == (2, 3 * fmt.type_size)
