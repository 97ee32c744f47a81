"""llama.cpp's own programs make and run files of our types."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_golf.formats import quant_types
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job

Tool = Callable[[str], Path]


def run(*command: object) -> str:
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    quant_types.register_with_gguf()
    return {t.name: (t.tensor_type.name, np.array(t.data).tobytes()) for t in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("name", ["tcq1", "tcq2", "tcq3", "tcq4", "tcq5"])
def test_llama_quantize_makes_what_convert_makes(
    llama_tool: Tool, tiny: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    program = llama_tool("llama-quantize")
    theirs, ours = tmp_path / "theirs.gguf", tmp_path / "ours.gguf"
    run(program, "--token-embedding-type", "q6_K", tiny("bf16"), theirs, name.upper())
    convert(tiny("bf16"), ours, type_name=name, embedding_type="q6_k", job=Job(progress=False))
    assert tensors(theirs) == tensors(ours)
    assert gguf.GGUFReader(theirs).get_field("gguf_golf.format").contents() == 1


def test_llama_quantize_finds_a_type_for_one_tensor_by_name(
    llama_tool: Tool, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    run(llama_tool("llama-quantize"), "--tensor-type", "ffn_down=tcq4_64", tiny("bf16"), out, "TCQ2")
    kinds = {name: kind for name, (kind, _) in tensors(out).items()}
    assert kinds["blk.0.ffn_down.weight"] == "TCQ4_64"
    assert kinds["blk.0.ffn_up.weight"] == "TCQ2"


def test_llama_bench_runs_our_types(llama_tool: Tool, tiny: Callable[[str], Path]) -> None:
    output = run(llama_tool("llama-bench"), "-m", tiny("tcq3"), "-p", 16, "-n", 4, "-r", 1, "-t", 2, "-o", "json")
    rows = json.loads(output)
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(16, 0), (0, 4)]
    assert all("TCQ3" in row["model_type"] and row["avg_ts"] > 0 for row in rows)


def test_llama_cli_generates_with_our_types(llama_tool: Tool, tiny: Callable[[str], Path]) -> None:
    output = run(
        *(llama_tool("llama-cli"), "-m", tiny("tcq5"), "-p", "The city of", "-n", 8, "--temp", 0, "-t", 2),
        *("--single-turn", "--simple-io", "--no-warmup", "--jinja", "--chat-template", "chatml"),
    )
    assert len(output.split("The city of", 1)[1].split()) >= 4
