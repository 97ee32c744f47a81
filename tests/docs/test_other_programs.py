"""docs/other-programs.md quotes other programs exactly: a type that ours does not know either brings the same words."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_golf.formats import quant_types
from gguf_golf.quantize.convert import convert
from gguf_golf.quantize.job import Job
from tests.docs.conftest import ROOT

PAGE = (ROOT / "docs" / "other-programs.md").read_text(encoding="utf-8")
UNKNOWN = 250


@pytest.fixture
def unknown(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """golf-tiny with one tensor of a type that no llama.cpp has."""
    data = bytearray(tiny("q8_0").read_bytes())
    name = b"blk.0.attn_k.weight"
    at = data.index(len(name).to_bytes(8, "little") + name) + 8 + len(name)
    of_type = at + 4 + 8 * int.from_bytes(data[at : at + 4], "little")  # after the number of axes and the axes
    data[of_type : of_type + 4] = UNKNOWN.to_bytes(4, "little")
    (tmp_path / "small.gguf").write_bytes(data)
    return tmp_path / "small.gguf"


def test_llama_cpps_words(unknown: Path) -> None:
    program = (
        "import sys, llama_cpp\n"
        "llama_cpp.llama_backend_init()\n"
        "llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), llama_cpp.llama_model_default_params())"
    )
    loaded = "from gguf_golf.runtime import load; load()\n" + program
    run = subprocess.run(
        [sys.executable, "-c", loaded, unknown.name], cwd=unknown.parent, capture_output=True, text=True, check=True
    )
    quoted = re.findall(r"^(gguf_init|llama_model_load).*", PAGE, re.MULTILINE)
    lines = [line for line in PAGE.splitlines() if line.startswith(tuple(quoted))]
    masked = [
        re.sub(r"type 114\. should be in \[0, \d+\)", f"type {UNKNOWN}. should be in [0, N)", line) for line in lines
    ]
    said = re.sub(r"should be in \[0, \d+\)", "should be in [0, N)", run.stderr)
    assert len(lines) == 3
    assert all(line in said for line in masked), run.stderr


def test_gguf_pys_words(tiny_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "tcq3.gguf"
    convert(tiny_dir, file, type_name="tcq3", embedding_type="q6_k", job=Job(threads=2, progress=False))
    program = "import sys, gguf; gguf.GGUFReader(sys.argv[1])"
    run = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1] in PAGE
    assert quant_types.get("tcq3").id == 114
