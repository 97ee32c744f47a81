"""What happens where llama.cpp itself gives up."""

import subprocess
import sys
from pathlib import Path

import gguf

from gguf_golf.models import open_model
from tests.models.checkpoints import build
from tests.models.conftest import write_gguf


def test_an_assertion_of_llama_cpp_ends_in_one_line_of_error(tmp_path: Path) -> None:
    model = open_model(build("llama3-scaled", tmp_path))
    (tokens,) = (field.value for field in model.metadata if field.key == gguf.Keys.Tokenizer.LIST)
    assert isinstance(tokens, list)
    tokens[5] = tokens[6]  # llama.cpp takes tokens of equal text for impossible
    path = write_gguf(model, tmp_path / "twice.gguf")
    done = subprocess.run(
        [sys.executable, "-m", "gguf_golf", "run", str(path), "-p", "The", "-n", "1", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.strip().startswith(f"error: {path}: llama.cpp cannot go on (llama-vocab.cpp:")
    assert "GGML_ASSERT" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
