"""The type registry against ggml itself, gguf-py, and the rules of fallback."""

import re
from pathlib import Path

import gguf
import numpy as np
import pytest

import gguf_golf
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime.library import libggml
from gguf_golf.runtime.source import source_dir


def test_names_ids_and_sizes_are_those_of_the_runtime() -> None:
    # ids from the header: the library has no count of its types, and aborts the process when asked for one too many
    header = (source_dir() / "ggml" / "include" / "ggml.h").read_text()
    ids = {int(n) for n in re.findall(r"^\s*GGML_TYPE_(?!COUNT)\w+\s*=\s*(\d+)", header, re.MULTILINE)}
    assert set(quant_types.TCQ) <= {t.name for t in quant_types.ALL.values() if t.id in ids}
    assert ids - {t.id for t in quant_types.ALL.values()} == {9, 15, 42}, (
        "Q8_1, Q8_K (activations); gguf-py knows no Q2_0"
    )
    for quant_type in quant_types.ALL.values():
        traits = libggml().ggml_get_type_traits(quant_type.id).contents
        assert traits.type_name.decode().lower() == quant_type.name
        assert (traits.blck_size, traits.type_size) == (quant_type.block_size, quant_type.type_size)
        assert traits.is_quantized == quant_type.is_quantized
        if libggml().ggml_quantize_requires_imatrix(quant_type.id):
            assert quant_type.needs_imatrix
    assert {t.id for t in quant_types.TCQ.values()} == {*range(112, 117), *range(118, 123)}


def test_bits_per_weight() -> None:
    assert [quant_types.get(f"tcq{rate}").bpw for rate in range(1, 6)] == [1.125, 2.125, 3.125, 4.125, 5.125]
    assert [quant_types.get(f"tcq{rate}_64").bpw for rate in range(1, 6)] == [1.25, 2.25, 3.25, 4.25, 5.25]


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
    quant_type, note = quant_types.type_for_row(wanted, row_length)
    assert quant_type.name == chosen
    assert (note is None) == (wanted == chosen)
    if note:
        assert chosen in note
        assert str(row_length) in note


def test_every_fallback_ends_in_a_type_that_takes_any_row() -> None:
    for name in quant_types.ALL:
        assert quant_types.type_for_row(name, 7)[0].divides(7)


def test_fallbacks_are_those_of_the_patched_llama_quantize() -> None:
    source = (source_dir() / "src" / "llama-quant.cpp").read_text()
    body = re.search(r"static ggml_type tensor_type_fallback\(.*?\n}\n", source, re.DOTALL)
    assert body
    theirs = {}
    for labels, result in re.findall(r"((?:case GGML_TYPE_\w+:\s*)+)return_type = (.*?);", body[0]):
        for name in re.findall(r"GGML_TYPE_(\w+):", labels):
            # "ncols % 64 == 0 ? GGML_TYPE_TCQ1_64 : GGML_TYPE_Q4_0": ours goes there in two steps
            theirs[name.lower()] = [found.lower() for found in re.findall(r"GGML_TYPE_(\w+)", result)]
    assert set(quant_types.TCQ) < set(theirs)
    for name in theirs.keys() & quant_types.ALL.keys():  # gguf-py knows no Q2_0 yet
        steps, chain = theirs[name], [name]
        while len(chain) <= len(steps):
            chain.append(quant_types.get(chain[-1]).fallback)
        assert chain[1:] == steps, name


def test_a_file_type_is_the_number_that_the_patched_llama_h_gives_the_name() -> None:
    header = (source_dir() / "include" / "llama.h").read_text()
    numbers = {name: int(n) for name, n in re.findall(r"LLAMA_FTYPE_MOSTLY_(\w+)\s*=\s*(\d+)", header)}
    for quant_type in quant_types.TCQ.values():
        assert quant_type.tcq
        assert quant_type.file_type == numbers[f"TCQ{quant_type.tcq.rate}"]
    assert quant_types.get("q4_k").file_type == numbers["Q4_K_M"]
    assert quant_types.get("q6_k").file_type == numbers["Q6_K"]
    assert quant_types.get("iq2_xs").file_type == numbers["IQ2_XS"]
    assert quant_types.get("f32").file_type == 0


def test_numbers_hold_no_weights_and_only_tcq_is_not_stock() -> None:
    for quant_type in quant_types.ALL.values():
        assert quant_type.holds_weights == (quant_type.name not in ("f64", "i8", "i16", "i32", "i64"))
    assert {t.name for t in quant_types.ALL.values() if not t.is_stock} == set(quant_types.TCQ)


def test_types_are_stock_from_the_build_that_reads_their_present_layout() -> None:
    since = {t.name: t.since for t in quant_types.ALL.values()}
    # the first and the last i-quants, and what later changes of layout moved
    assert (since["iq2_xxs"], since["iq1_m"], since["bf16"]) == (1792, 2539, 2808)
    assert since["iq3_s"] == 2316, "#5829 changed the codebook of #5676 (b2253)"
    assert since["iq1_s"] == 2404, "#5999 changed the layout of #5453 (b2172)"
    assert all(since[name] is None for name in quant_types.TCQ)


def test_unknown_names_are_refused_with_the_list() -> None:
    with pytest.raises(InputError, match="tcq3_64"):
        quant_types.get("tcq9")
    with pytest.raises(InputError, match="300 weights"):
        quant_types.get("tcq3").row_bytes(300)


def test_gguf_py_reads_our_types_as_its_own() -> None:
    quant_types.register_with_gguf()
    quant_types.register_with_gguf()  # a second call changes nothing
    for name, fmt in quant_types.TCQ_FORMATS.items():
        member = gguf.GGMLQuantizationType(quant_types.TCQ[name].id)
        assert member is gguf.GGMLQuantizationType[name.upper()]
        blocks = np.random.default_rng(3).integers(0, 256, (6, fmt.type_size), np.uint8)
        got = gguf.quants.dequantize(blocks.reshape(2, -1), member)
        assert np.array_equal(got, tcq.dequantize(fmt, blocks).reshape(2, -1))
        assert gguf.quant_shape_to_byte_shape((2, 3 * fmt.block_size), member) == (2, 3 * fmt.type_size)


def test_nothing_outside_formats_decides_by_a_types_id_name_or_table() -> None:
    package = Path(gguf_golf.__file__).parent
    deciding = re.compile(
        r'"tcq"\s+in\b|startswith\("(tcq|iq|q\d)|\bin (types\.)?TCQ\b|\bTCQ(_FORMATS|\.values|\[)|\.family\s*[=!]=|'
        r"(type_id|\.id|\.type)\s*(==|!=|in)\s*[\[(]?\d|GGML_TYPE_"
    )
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        if path.parent.name != "formats"
        for line in path.read_text(encoding="utf-8").splitlines()
        if deciding.search(line)
    ]
    assert not found
