"""Every reader of files that come from outside: a valid seed, how to damage it, and how it is read to the end.

A reader may accept an input or raise a GolfError. Anything else, an endless loop or a crash is a fault.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import numpy as np

from gguf_golf.calibrate import imatrix
from gguf_golf.calibrate.hessian import Accumulator, Hessians, Rows, Survey
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.errors import InputError
from gguf_golf.evaluate.logits_file import LogitsFile, LogitsShape, LogitsWriter
from gguf_golf.evaluate.suite import read_suite
from gguf_golf.evaluate.tasks.kinds.gpqa import COLUMNS
from gguf_golf.evaluate.tasks.readers import read_questions
from gguf_golf.models import open_model
from gguf_golf.plan import recipe
from gguf_golf.plan.constraints import read_speed
from gguf_golf.report import write_report
from gguf_golf.sensitivity import result as sensitivity
from tests.fuzz import mutate
from tests.fuzz.mutate import Mutator
from tests.models.checkpoints import build
from tests.models.conftest import small_model_file
from tests.report import documents

SUITES = Path(str(files("gguf_golf"))).parent / "eval" / "suites"


@dataclass(frozen=True)
class Target:
    """`make(folder)` writes a valid input and returns the path to read; `victim` is the file in it to damage."""

    name: str
    victim: str
    make: Callable[[Path], Path]
    mutate: Mutator
    read: Callable[[Path], object]


def read_model(path: Path) -> None:
    """Open a model and read rows of all of its tensors, up to where llama.cpp's converter would take over: it runs for
    seconds in a process of its own."""
    with patch("gguf_golf.models.huggingface.convert_upstream", side_effect=InputError("llama.cpp's converter")):
        for tensor in open_model(path, allow_requantize=True).tensors:
            tensor.load_rows(0, min(tensor.n_rows, 2))


def _checkpoint(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = build(name, folder).rename(folder / "model")
        generation = {"eos_token_id": [282, 283], "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1}
        (path / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
        return path

    return make


def _gguf(folder: Path) -> Path:
    return small_model_file(folder / "model.gguf")


def _imatrix(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    entries = {
        name: ImatrixEntry(rng.random((n, 8)).astype(np.float32), np.full(n, 7), rng.random((n, 8)).astype(np.float32))
        for name, n in (("blk.0.ffn_up.weight", 1), ("blk.0.ffn_up_exps.weight", 3))
    }
    imatrix.write(Imatrix(entries, ["text.txt"], 2, 512), folder / "imatrix.gguf")
    return folder / "imatrix.gguf"


def _read_imatrix(path: Path) -> None:
    read = imatrix.read(path)
    for name in read.entries:
        read.importance(name)


def _hessian(folder: Path) -> Path:
    rows = Rows("blk.0.ffn_up.weight", "norm", 1, 0, np.random.default_rng(0).random((16, 8)).astype(np.float32))
    survey = Survey()
    survey.observe(rows)
    with Accumulator(folder / "hessian.gguf", survey) as accumulator:
        accumulator.observe(rows)
    return folder / "hessian.gguf"


def _read_hessian(path: Path) -> None:
    hessians = Hessians(path)
    for weight in hessians:
        hessians.shape(weight), hessians.counts(weight), hessians.get(weight)
    hessians.fingerprint()


def _sensitivity(folder: Path) -> Path:
    entry = sensitivity.TensorSensitivity(
        *("blk.0.ffn_up.weight", [8, 8], {"tcq2": 0.1, "tcq3": 0.02}, 1.0, 0.5),
        rounding={"q8_K": 1e-5},
        measured=[sensitivity.Measurement("tcq2", 0.1, [0.05, 0.06])],
        row_share={"0.01": 0.2},
    )
    weight = sensitivity.SuperWeight("blk.0.ffn_up.weight", 1, 2, 3.0, 9.0, [0.1], True, {"tcq2": 0.0}, ["tcq2"])
    whole = sensitivity.Sensitivity("m.gguf", "ab", None, None, None, None, 512, 2, False, [entry], [weight])
    sensitivity.write(whole, folder / "sensitivity.json")
    return folder / "sensitivity.json"


def _read_sensitivity(path: Path) -> None:
    read = sensitivity.read(path)
    for tensor in read.tensors:
        for name in tensor.errors:
            tensor.damage(name)


def _recipe(folder: Path) -> Path:
    lines = {"token_embd.weight": recipe.Line("tcq5", 0.0004, 0.0001), "blk.*.attn_v.weight": recipe.Line("tcq4")}
    whole = recipe.Recipe(lines, "1.2GB", 38400000, 0.0312, {"fingerprint": "ab" * 32}, {"w[1, 2]": "kept"})
    path = folder / "recipe.toml"
    path.write_text(recipe.to_toml(whole), encoding="utf-8")
    return path


def _suite(folder: Path) -> Path:
    (folder / "text.txt").write_text("text", encoding="utf-8")
    path = folder / "suite.toml"
    path.write_text(
        'name = "all"\nnoise_floor = true\n\n[[texts]]\nfile = "text.txt"\nn_ctx = 512\nn_chunks = 8\n\n'
        '[[tasks]]\nname = "h"\nkind = "hellaswag"\nfile = "text.txt"\nlimit = 100\n\n[speed]\nthreads = 2\n',
        encoding="utf-8",
    )
    return path


def _logits(folder: Path) -> Path:
    shape = LogitsShape(n_ctx=8, n_vocab=10, n_chunk=2)
    writer = LogitsWriter(folder / "base.logits", shape, np.arange(16, dtype=np.int32).reshape(2, 8) % 10)
    for _ in range(shape.n_chunk):
        writer.append(np.ones((shape.n_scored, shape.n_row), np.uint16))
    writer.finish()
    return folder / "base.logits"


def _read_logits(path: Path) -> None:
    file = LogitsFile(path)
    for chunk in range(file.shape.n_chunk):
        file.rows(chunk), file.target_nll(chunk)


def _results(folder: Path) -> Path:
    path = folder / "results.json"
    path.write_text(
        json.dumps(documents.document(documents.base(), documents.quant("q4.gguf", 5_000_000, 0.02, 0.001))),
        encoding="utf-8",
    )
    return path


def _read_results(path: Path) -> None:
    write_report([path], path.with_name("report.html"))


def _bench(folder: Path) -> Path:
    path = folder / "bench.json"
    path.write_text(json.dumps({"types": [{"type": "tcq3", "stream_ns_per_weight": 0.1}] * 3}), encoding="utf-8")
    return path


def _text(name: str, *lines: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return make


def _piqa(folder: Path) -> Path:
    _text("labels.lst", "0", "1")(folder)
    row = json.dumps({"goal": "open a jar", "sol1": "turn the lid", "sol2": "ask"})
    return _text("piqa.jsonl", row, row)(folder)


def _gpqa(folder: Path) -> Path:
    rows = [",".join(f'"made-up {row} {column}"' for column in range(len(COLUMNS))) for row in range(2)]
    return _text("gpqa.csv", ",".join(COLUMNS), *rows)(folder)


_ARC = json.dumps(
    {"id": "a", "question": {"stem": "s", "choices": [{"text": t, "label": t} for t in "AB"]}, "answerKey": "B"}
)
_WINOGRANDE = json.dumps({"qID": "7", "sentence": "It _ fell.", "option1": "it", "option2": "he", "answer": "2"})


def _checkpoint_targets() -> list[Target]:
    kinds = {
        "config.json": mutate.mutate_json,
        "tokenizer.json": mutate.mutate_json,
        "tokenizer_config.json": mutate.mutate_json,
        "generation_config.json": mutate.mutate_json,
        "model.safetensors": mutate.mutate_safetensors,
    }
    found = [
        Target(f"checkpoint {victim}", f"model/{victim}", _checkpoint("llama3-scaled"), mutator, read_model)
        for victim, mutator in kinds.items()
    ]
    index = "model/model.safetensors.index.json"
    found.append(Target("checkpoint index", index, _checkpoint("qwen3-sharded"), mutate.mutate_json, read_model))
    return [
        *found,
        Target("checkpoint tokenizer.model", "model/tokenizer.model", _tiny, mutate.mutate_bytes, read_model),
    ]


def _tiny(folder: Path) -> Path:
    """The embedded model, whose tokenizer is sentencepiece's."""
    return Path(shutil.copytree(Path(str(files("gguf_golf"))) / "data" / "golf-tiny", folder / "model"))


def _questions(kind: str, name: str, make: Callable[[Path], Path], mutator: Mutator) -> Target:
    def read(path: Path) -> None:
        settings = {"piqa": {"labels": path.with_name("labels.lst")}, "mmlu": {"shots": 0}}
        read_questions(kind, path, **settings.get(kind, {}))

    return Target(kind, name, make, mutator, read)


TARGETS = [
    *_checkpoint_targets(),
    Target("gguf", "model.gguf", _gguf, mutate.mutate_gguf, read_model),
    Target("imatrix", "imatrix.gguf", _imatrix, mutate.mutate_gguf, _read_imatrix),
    Target("hessian", "hessian.gguf", _hessian, mutate.mutate_gguf, _read_hessian),
    Target("sensitivity", "sensitivity.json", _sensitivity, mutate.mutate_json, _read_sensitivity),
    Target("recipe", "recipe.toml", _recipe, mutate.mutate_text, recipe.read),
    Target("suite", "suite.toml", _suite, mutate.mutate_text, read_suite),
    Target("logits", "base.logits", _logits, mutate.mutate_bytes, _read_logits),
    Target("results", "results.json", _results, mutate.mutate_json, _read_results),
    Target("bench", "bench.json", _bench, mutate.mutate_json, lambda path: read_speed(path, 1.0)),
    _questions("hellaswag", "h.txt", _text("h.txt", "A man", "2", "a", "b", "c", "d"), mutate.mutate_text),
    _questions("winogrande", "w.jsonl", _text("w.jsonl", _WINOGRANDE, _WINOGRANDE), mutate.mutate_json_lines),
    _questions("arc", "a.jsonl", _text("a.jsonl", _ARC, _ARC), mutate.mutate_json_lines),
    _questions("piqa", "piqa.jsonl", _piqa, mutate.mutate_json_lines),
    _questions("mmlu", "m.csv", _text("m.csv", "q,a,b,c,d,A", '"q, r",a,b,c,d,3'), mutate.mutate_text),
    _questions("lambada", "l.jsonl", _text("l.jsonl", '{"text": "one two"}'), mutate.mutate_json_lines),
    _questions("gpqa", "gpqa.csv", _gpqa, mutate.mutate_text),
]
