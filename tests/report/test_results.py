"""Reading results files of any origin: what is refused, and what is only said."""

import json
from pathlib import Path
from typing import Any

import pytest

from gguf_golf.errors import InputError
from gguf_golf.report.merge import merge
from gguf_golf.report.results import clean, read
from tests.report.documents import base, document, ladder, quant, task


def test_a_model_needs_only_a_name_and_a_size() -> None:
    results = read(document({"file": "a.gguf", "bytes": 10}))
    (model,) = results.models
    assert (model.file, model.bytes, model.role) == ("a.gguf", 10, "quant")
    assert model.measures == {} and model.tasks == {} and model.recipe is None and model.is_stock is None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"0.1"', "true", "[]", "1" + "0" * 400])
def test_what_is_not_a_finite_number_is_not_measured_and_said(tmp_path: Path, value: str) -> None:
    path = tmp_path / "r.json"
    text = json.dumps(document(base(), quant("q4", 100, 0.25)))
    path.write_text(text.replace('"kld_mean": 0.25', f'"kld_mean": {value}'))
    results = read(path)
    assert "kld_mean" not in results.quants[0].measures
    assert results.quants[0].measures["kld_p50"] == 0.125
    assert "1 value is not a finite number" in results.notes[0] and "models[1].kld_mean" in results.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "something else"}, "not a results file"),
        ({"version": 2}, "schema version 2, this program knows 1; update gguf-golf"),
        ({"version": "1"}, "not a number"),
        ({"models": []}, "no quantized file"),
        ({"models": "many"}, "no quantized file"),
        ({"models": [{"file": "a.gguf"}]}, r"models\[0\] needs"),
        ({"models": [{"bytes": 4}]}, r"models\[0\] needs"),
        ({"models": [{"file": "a.gguf", "bytes": -4}]}, r"models\[0\] needs"),
        ({"models": [{"file": "a.gguf", "bytes": 4, "role": "king"}]}, "role 'king'"),
    ],
)
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read({**document(*ladder()), **change})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[1]"])
def test_not_a_results_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"r\.json: not a results"):
        read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "no.json")


def test_clean_text_cannot_reorder_or_break_lines() -> None:
    assert clean("a\u202eb\nc\ud800\x00") == "a�b�c��"
    assert len(clean("x" * 1000)) == 200


def test_merge_joins_a_model_by_its_hash() -> None:
    speed = {"threads": 2}
    first = document(base(), quant("q4", 100, 0.1), quant("q8", 200, 0.01))
    second = document(base(), quant("q4", 100, None, speed={"generate_tps": 9.0}), texts=[], speed=speed)
    merged = merge([read(first), read(second)])
    assert [model.label for model in merged.models] == ["bf16", "q4", "q8"]
    assert merged.models[1].speed == {"generate_tps": 9.0} and merged.models[1].measures["kld_mean"] == 0.1
    assert merged.speed == speed and merged.notes == []


def test_merge_pairs_no_chunks_of_texts_in_another_order() -> None:
    texts = [{"name": name, "sha256": name * 64, "n_ctx": 512, "n_chunks": 2} for name in "ab"]
    chunks = {"kld": [0.1, 0.2, 0.3, 0.4]}
    first = document(base(), quant("q4", 100, 0.1, chunks=chunks), texts=texts)
    second = document(base(), quant("q8", 200, 0.01, chunks=chunks), texts=texts[::-1])
    assert [model.chunks for model in merge([read(first), read(second)]).quants] == [chunks, {}]
    second = document(base(), quant("q8", 200, 0.01, chunks={"kld": [0.1, float("nan")]}), texts=texts)
    assert merge([read(first), read(second)]).quants[1].chunks == {}


def test_merge_refuses_other_texts_bases_and_questions() -> None:
    known = document(base(), quant("q4", 100, 0.1))
    other_text = {**known["settings"]["texts"][0], "sha256": "22" * 32}
    with pytest.raises(InputError, match=r"different texts .*11111111.*22222222"):
        merge([read(known), read(document(base(), quant("q3", 90, 0.2), texts=[other_text]))])
    with pytest.raises(InputError, match="different bases"):
        merge([read(known), read(document(base(sha256="cc" * 32), quant("q3", 90, 0.2)))])
    arc = {"name": "arc", "sha256": "33" * 32, "seed": 0}
    first = document(base(), quant("q4", 100, 0.1, tasks={"arc": task(0.4, 0.3, 0.5)}), tasks=[arc])
    second = document(base(), quant("q3", 90, 0.2, tasks={"arc": task(0.4, 0.3, 0.5)}), tasks=[{**arc, "seed": 1}])
    with pytest.raises(InputError, match="'arc' differs in seed"):
        merge([read(first), read(second)])


def test_merge_says_what_it_leaves_out() -> None:
    fast = document(base(), quant("q4", 100, 0.1, speed={"generate_tps": 5.0}), speed={"threads": 2})
    slow = document(base(), quant("q3", 90, 0.2, speed={"generate_tps": 7.0}), speed={"threads": 1})
    again = document(base(), quant("q4", 100, 0.11))
    merged = merge([read(fast), read(slow), read(again)])
    assert [model.speed for model in merged.quants] == [{"generate_tps": 5.0}, {}]
    assert "other settings" in merged.notes[0] and "measured twice" in merged.notes[1]
    assert merged.quants[0].measures["kld_mean"] == 0.1


def test_equal_names_are_told_apart() -> None:
    twins = [quant("q4", 100, 0.1), {**quant("q4", 90, 0.2), "sha256": "ee" * 32}]
    labels = [model.label for model in merge([read(document(base(), *twins))]).quants]
    assert len(set(labels)) == 2 and labels[1].endswith("(eeeeee)")


def test_the_layers_bits_leave_out_the_vocabulary() -> None:
    """Four matrices at 4 bits and a norm in F32, beside an embedding at 6.5625."""
    listed, unlisted = read(document(quant("tcq3", 1, 0.1), quant("q4", 1, 0.1, tensors=[]))).quants
    matrices = 4 * 256 * 512
    assert listed.layers_bpw == pytest.approx(8 * (matrices // 2 + 1024) / (matrices + 256))
    assert unlisted.layers_bpw is None


def test_protected_rows_belong_to_the_vocabulary_and_not_to_every_llama_cpp() -> None:
    """Beside types that any llama.cpp reads."""
    tensors = [
        {"name": "token_embd.weight", "type": "q4_0", "shape": [512, 256], "bytes": 73728},
        {"name": "blk.0.attn_q.weight", "type": "q4_0", "shape": [256, 256], "bytes": 36864},
    ]
    rows = [
        {"name": "token_embd.weight.rows", "type": "i32", "shape": [8], "bytes": 32},
        {"name": "token_embd.weight.residual", "type": "f16", "shape": [8, 256], "bytes": 4096},
    ]
    plain, protected = read(
        document(quant("a", 1, 0.1, tensors=tensors), quant("b", 1, 0.1, tensors=[*tensors, *rows]))
    ).quants
    assert (plain.is_stock, protected.is_stock) == (True, False)
    assert plain.layers_bpw == protected.layers_bpw == 4.5
