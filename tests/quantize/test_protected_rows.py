"""Protected rows in files: which rows, what is stored of them, and that llama.cpp computes with what they hold."""

import re
from dataclasses import replace

import gguf
import numpy as np
import pytest

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.container.metadata import needs, output_metadata
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.errors import InputError
from gguf_golf.evaluate.file_result import file_result
from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import NOT_APPLIED, Protected
from gguf_golf.models import open_model
from gguf_golf.publish.card import Published
from gguf_golf.publish.split import split
from gguf_golf.quantize.forecast import forecast
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.inspect import as_text, inspect
from gguf_golf.quantize.job import Job
from gguf_golf.quantize.prepare import by_recipe
from gguf_golf.quantize.stored import companions, stored_tensors
from gguf_golf.quantize.writer import write
from gguf_golf.runtime.session import LoadedModel
from gguf_golf.runtime.source import source_dir
from gguf_golf.steps import Executor, executing
from gguf_golf.steps.store import open_store
from tests.steps.inprocess import InProcess

VOCABULARY, N_ROWS = "token_embd.weight", 300
JOB = Job(threads=2, progress=False)


@pytest.fixture(scope="module")
def counts():
    """How often tokens of golf-tiny are said: every third one, and there are ties."""
    numbers = np.random.default_rng(5).integers(1, 1000, 4096)
    return np.where(np.arange(4096) % 3 == 0, numbers, 0)


@pytest.fixture(scope="module")
def folder(tiny, counts, tmp_path_factory):
    """An imatrix that counts tokens, and recipes with protected rows and without."""
    folder = tmp_path_factory.mktemp("protected")
    entry = ImatrixEntry(np.random.default_rng(0).uniform(0.5, 2, (1, 256)), np.array([1]))
    imatrix_file.write(Imatrix({VOCABULARY: entry}, ["text"], 1, token_counts=counts), folder / "imatrix.gguf")
    lines = 'format = 1\n[source]\nimatrix = "imatrix.gguf"\n[tensors]\n"blk.*" = "f32"\n'
    (folder / "plain.toml").write_text(f'{lines}"{VOCABULARY}" = "tcq1"\n')
    (folder / "rows.toml").write_text(f'{lines}"{VOCABULARY}" = {{ type = "tcq1", rows = {N_ROWS} }}\n')
    for name in ("plain", "rows"):
        quantize(tiny("f32"), folder / f"{name}.toml", folder / f"{name}.gguf", job=JOB)
    return folder


def tensors(path):
    quant_types.register_with_gguf()
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(tensor):
    return gguf.dequantize(np.array(tensor.data), tensor.tensor_type)


def test_the_rows_of_the_most_frequent_tokens_come_back_nearly_as_they_were(folder, tiny, counts):
    plain, with_rows = tensors(folder / "plain.gguf"), tensors(folder / "rows.gguf")
    added = [name for name in with_rows if name not in plain]
    assert added == [f"{VOCABULARY}.rows", f"{VOCABULARY}.residual"]
    assert list(with_rows)[:3] == [VOCABULARY, *added]
    assert all(np.array_equal(with_rows[name].data, plain[name].data) for name in plain)
    rows, residual = (with_rows[name] for name in added)
    assert (rows.tensor_type.name, residual.tensor_type.name) == ("I32", "TCQ2")
    chosen = np.array(rows.data)
    assert len(chosen) == N_ROWS
    assert (np.diff(chosen) > 0).all()
    assert counts[chosen].min() >= np.delete(counts, chosen).max()
    original, stored = values(tensors(tiny("f32"))[VOCABULARY])[chosen], values(plain[VOCABULARY])[chosen]
    before, after = (np.square(original - each).sum() for each in (stored, stored + values(residual)))
    assert 0.04 < after / before < 0.09, "2 bits leave 6% of the energy of noise"


def test_read_back_they_are_part_of_the_matrix(folder):
    stored = tensors(folder / "rows.gguf")
    expected = values(stored[VOCABULARY])
    expected[np.array(stored[f"{VOCABULARY}.rows"].data)] += values(stored[f"{VOCABULARY}.residual"])
    model = open_model(folder / "rows.gguf", allow_requantize=True)
    read = model.tensor(VOCABULARY)
    assert np.array_equal(read.load(), expected)
    assert np.array_equal(read.load_rows(100, 250), expected[100:250])
    assert not [tensor.name for tensor in model.tensors if not tensor.name.endswith(".weight")]


@pytest.mark.parametrize("n_tokens", [1, 2, 40])
def test_llama_cpp_computes_what_the_dequantized_model_does(folder, tmp_path, n_tokens):
    dequantized = as_f32(folder / "rows.gguf", tmp_path)
    tokens = np.random.default_rng(1).integers(3, 200, n_tokens)
    found, expected, without = (
        logits(path, tokens) for path in (folder / "rows.gguf", dequantized, folder / "plain.gguf")
    )
    assert distance(found, expected) < 0.01, "more than the rounding of the head's inputs to 8 bits"
    assert distance(without, expected) > 0.1, "this model cannot tell"


def test_a_prompt_of_several_batches_of_which_only_the_last_has_outputs(folder, tmp_path):
    tokens, last = np.arange(5, 29, dtype=np.int32), np.arange(24) == 23
    found = []
    for path in (folder / "rows.gguf", as_f32(folder / "rows.gguf", tmp_path)):
        with LoadedModel(path) as model, model.context(64, n_ubatch=8, threads=2) as context:
            found.append(context.decode(tokens, np.arange(24, dtype=np.int32), last).copy())
    assert distance(*found) < 0.01


@pytest.mark.parametrize("type_name", ["tcq2", "tcq2_64", "q8_0", "f16"])
def test_any_matrix_may_have_some_whatever_types_they_have(tiny, tmp_path, type_name):
    """Linear layers too, and a head of its own: what `quantize` does not write yet, llama.cpp reads."""
    model = open_model(tiny("f32"))
    model = replace(model, tensors=[*model.tensors, replace(model.tensor(VOCABULARY), name="output.weight")])
    f32, tcq1 = quant_types.get("f32"), quant_types.get("tcq1_64")
    names = ["output.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight", "blk.3.attn_output.weight"]
    chosen = {tensor.name: tcq1 if tensor.name in names else f32 for tensor in model.tensors}
    encoder, stored = open_encoder(threads=2), []
    for tensor in stored_tensors(model, chosen, Guide(), encoder):
        stored.append(tensor)
        if tensor.name in names:
            n_rows = tensor.shape[0]
            guide = Guide(Imatrix({}, token_counts=np.random.default_rng(n_rows).integers(0, 9, n_rows)))
            rows = Protected(n_rows // 2, quant_types.get(type_name))
            stored += companions(model.tensor(tensor.name), tcq1, rows, guide, encoder)
    path, tokens = tmp_path / "many.gguf", np.arange(5, 25)
    write(stored, path, metadata=output_metadata(model, chosen, None, None), made_from=None, progress=False)
    assert distance(logits(path, tokens), logits(as_f32(path, tmp_path), tokens)) < 0.03


def test_the_file_says_what_it_needs(folder):
    found = inspect(folder / "rows.gguf")
    assert found.needs == "gguf-golf's llama.cpp, for tcq1, tcq2, protected rows"
    assert found.parameters == inspect(folder / "plain.gguf").parameters
    assert f"{VOCABULARY}: {N_ROWS} protected rows in tcq2" in as_text(found)
    assert "protected rows" not in as_text(inspect(folder / "plain.gguf"))


def test_the_card_and_the_results_know_them(folder):
    path = folder / "rows.gguf"
    assert Published(inspect(path), [path.name], []).ours == ["tcq1", "tcq2", "protected rows"]
    with_rows, plain = (file_result(folder / name, "quant") for name in ("rows.gguf", "plain.gguf"))
    assert with_rows.parameters == plain.parameters
    assert with_rows.bpw > plain.bpw
    assert needs([("a.weight", "q8_0"), ("a.weight.residual", "f16")]) == "gguf-golf's llama.cpp, for protected rows"


def test_the_size_is_known_beforehand(folder, tiny, tmp_path):
    made, _ = by_recipe(tiny("f32"), folder / "rows.toml", tmp_path / "out.gguf", JOB)
    found = forecast(made)
    assert found.file_bytes == (folder / "rows.gguf").stat().st_size
    assert f"1 in tcq1 + {N_ROWS} rows in tcq2" in str(found)


def test_neither_threads_nor_splitting_changes_them(folder, tiny, tmp_path):
    quantize(tiny("f32"), folder / "rows.toml", tmp_path / "one.gguf", job=Job(threads=1, progress=False))
    assert (tmp_path / "one.gguf").read_bytes() == (folder / "rows.gguf").read_bytes()
    parts = split(tmp_path / "one.gguf", tmp_path, 4_000_000)
    assert len(parts) > 1
    tokens = np.arange(5, 25)
    assert np.array_equal(logits(parts[0], tokens), logits(folder / "rows.gguf", tokens))


def test_on_an_executor_they_are_the_same(folder, tiny, tmp_path):
    with executing(Executor(InProcess(0), open_store(tmp_path / "store"), 1)):
        quantize(tiny("f32"), folder / "rows.toml", tmp_path / "elsewhere.gguf", job=JOB)
    assert (tmp_path / "elsewhere.gguf").read_bytes() == (folder / "rows.gguf").read_bytes()


def test_a_residual_is_not_reused_for_a_matrix_in_another_type(folder, tiny, tmp_path):
    reusing = replace(JOB, encoded=tmp_path / "encoded")
    recipe = folder / "other.toml"
    recipe.write_text((folder / "rows.toml").read_text().replace("tcq1", "tcq2_64"))
    quantize(tiny("f32"), folder / "rows.toml", tmp_path / "first.gguf", job=reusing)
    for name, job in (("reused", reusing), ("alone", JOB)):
        quantize(tiny("f32"), recipe, tmp_path / f"{name}.gguf", job=job)
    assert (tmp_path / "reused.gguf").read_bytes() == (tmp_path / "alone.gguf").read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"blk.0.attn_q.weight" = { type = "tcq2", rows = 8 }', "only token_embd.weight"),
        (f'"{VOCABULARY}" = {{ type = "tcq2", rows = 5000 }}', "which has 4096"),
        (f'"{VOCABULARY}" = {{ type = "tcq2", rows = -1 }}', "protects -1 rows"),
        (f'"{VOCABULARY}" = {{ type = "tcq2", rows = "all" }}', "should be int"),
        (f'"{VOCABULARY}" = {{ type = "tcq2", row = 8 }}', "unknown entry row"),
        (f'"{VOCABULARY}" = {{ type = "tcq2", rows = 8, residual = "i32" }}', "cannot be stored as i32"),
        (f'"{VOCABULARY}" = {{ type = "tcq2", rows = 8, residual = "tcq9" }}', "tcq9"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(folder, tiny, tmp_path, line, words):
    recipe = folder / "wrong.toml"
    recipe.write_text(f'format = 1\n[source]\nimatrix = "imatrix.gguf"\n[tensors]\n{line}\n"*" = "tcq4"\n')
    with pytest.raises(InputError, match=re.escape(words)):
        quantize(tiny("f32"), recipe, tmp_path / "out.gguf", job=JOB)


def test_without_token_counts_or_with_those_of_another_model_they_are_refused(folder, tiny, tmp_path):
    recipe = tmp_path / "rows.toml"
    recipe.write_text((folder / "rows.toml").read_text().replace('imatrix = "imatrix.gguf"', ""))
    entry = ImatrixEntry(np.ones((1, 256)), np.array([1]))
    for counted, words in ((None, "how frequent tokens are"), (np.ones(77, np.int64), "counts 77 tokens")):
        imatrix_file.write(Imatrix({VOCABULARY: entry}, token_counts=counted), tmp_path / "imatrix.gguf")
        with pytest.raises(InputError, match=words):
            quantize(tiny("f32"), recipe, tmp_path / "x.gguf", job=replace(JOB, imatrix=tmp_path / "imatrix.gguf"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[::-1].copy(), "ascending numbers of rows"),
        (lambda rows: rows - rows[0] - 1, "ascending numbers of rows"),
        (lambda rows: rows + 4096 - rows[-1], "ascending numbers of rows"),
    ],
)
def test_row_numbers_that_are_none_are_refused(folder, tmp_path, change, words):
    """By llama.cpp, which would write beside its buffers otherwise, and by the reader."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes((folder / "rows.gguf").read_bytes())
    tensor = tensors(damaged)[f"{VOCABULARY}.rows"]
    changed = change(np.array(tensor.data))
    with damaged.open("r+b") as file:
        file.seek(tensor.data_offset)
        file.write(changed.astype("<i4").tobytes())
    with pytest.raises(InputError, match=words):
        LoadedModel(damaged)
    with pytest.raises(InputError, match="do not fit"):
        open_model(damaged, allow_requantize=True)


def test_what_belongs_together_is_not_read_apart(folder, tiny, tmp_path):
    model = open_model(tiny("f32"))
    f32 = dict.fromkeys((tensor.name for tensor in model.tensors), quant_types.get("f32"))
    encoder = open_encoder(threads=1)
    guide = Guide(Imatrix({}, token_counts=np.ones(4096, np.int64)))
    rows = companions(
        model.tensor(VOCABULARY), quant_types.get("tcq1"), Protected(4, quant_types.get("f16")), guide, encoder
    )
    for kept, words in ((rows[:1], "do not fit the matrix"), (rows[1:], "wrong number of tensors")):
        path = tmp_path / "apart.gguf"
        write(
            [*stored_tensors(model, f32, Guide(), encoder), *kept],
            path,
            metadata=output_metadata(model, f32, None, None),
            made_from=None,
            force=True,
            progress=False,
        )
        with pytest.raises(InputError, match=words):
            LoadedModel(path)
        with pytest.raises(InputError, match="belong together"):
            open_model(path)


@pytest.mark.parametrize(
    ("rows", "residual"),
    [
        (np.zeros(0, np.int32), np.zeros((0, 256), np.float32)),
        (np.zeros(1, np.int32), np.zeros((1, 256), np.int32)),
        (np.zeros(1, np.int32), np.zeros((1, 64), np.float32)),
        (np.zeros(1, np.int32), np.zeros((2, 256), np.float32)),
        (np.zeros(1, np.float32), np.zeros((1, 256), np.float32)),
    ],
    ids=["no rows", "a residual of integers", "of another width", "of more rows", "row numbers that are floats"],
)
def test_rows_and_residuals_that_do_not_fit_are_refused(tiny, tmp_path, rows, residual):
    path = tmp_path / "wrong.gguf"
    source = gguf.GGUFReader(tiny("f32"))
    writer = gguf.GGUFWriter(path, "llama")
    for field in source.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            kind = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), *kind)
    for tensor in source.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.add_tensor(f"{VOCABULARY}.rows", rows)
    writer.add_tensor(f"{VOCABULARY}.residual", residual)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="do not fit the matrix"):
        LoadedModel(path)
    with pytest.raises(InputError):
        open_model(path)


def test_architectures_that_use_the_vocabulary_themselves_are_known():
    """Of every model file that multiplies by the head or looks up the embedding past llama.cpp's common functions."""
    sources = source_dir() / "src"
    names = dict(re.findall(r"LLM_ARCH_(\w+),\s+\"([^\"]+)\"", (sources / "llama-arch.cpp").read_text()))
    head = re.compile(r"ggml_mul_mat\(ctx0, model\.output\b")
    past = {path.stem for path in (sources / "models").glob("*.cpp") if head.search(path.read_text())}
    known = {name for name in names.values() if name.replace("_", "-") in past}
    assert {name.replace("_", "-") for name in known} == past, "a file is not named as its architecture"
    assert known <= NOT_APPLIED
    assert set(names.values()) >= NOT_APPLIED


def logits(path, tokens):
    tokens = np.asarray(tokens, np.int32)
    with LoadedModel(path) as model, model.context(64, threads=2) as context:
        return context.decode(tokens, np.arange(len(tokens), dtype=np.int32), np.ones(len(tokens), bool)).copy()


def distance(found, expected):
    """The root mean square of the difference, in that of what is expected."""
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def as_f32(path, folder):
    """What a file holds, in full precision."""
    model = open_model(path, allow_requantize=True)
    f32 = dict.fromkeys((tensor.name for tensor in model.tensors), quant_types.get("f32"))
    out = folder / f"{path.stem}-f32.gguf"
    stored = stored_tensors(model, f32, Guide(), open_encoder(threads=2))
    write(stored, out, metadata=output_metadata(model, f32, None, None), made_from=None, progress=False)
    return out
