"""What happens where llama.cpp itself gives up, and a model whose rows it repacks when it loads them."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from gguf_golf.models import open_model
from gguf_golf.runtime.session import LoadedModel
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


COMPARED = """
import sys
import numpy as np
from gguf_golf.runtime.session import LoadedModel, captured_log

def logits(**options):
    with captured_log() as log, LoadedModel(sys.argv[1], **options) as model:
        rows = []
        with model.context(n_ctx=64, n_batch=32, threads=2) as context:
            for first, n in ((0, 1), (1, 31)):  # few columns, then many
                tokens = np.arange(first + 10, first + 10 + n, dtype=np.int32)
                positions = np.arange(first, first + n, dtype=np.int32)
                rows.append(context.decode(tokens, positions, np.ones(n, np.bool_)).copy())
    return np.concatenate(rows), "CPU_TCQ_REPACK model buffer size" in "".join(log)

repacked, was_repacked = logits()
stored, was_stored = logits(mapped=True)
print(was_repacked, not was_stored, np.linalg.norm(repacked - stored) / np.linalg.norm(stored))
"""


def has_avx2() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx2 " in cpuinfo.read_text()


@pytest.mark.skipif(not has_avx2(), reason="rows are repacked for AVX2 only")
def test_a_model_loaded_into_groups_of_rows_computes_as_its_file_does(tiny: Callable[[str], Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPARED, tiny("tcq4")],
        env=os.environ | {"GGML_TCQ_KERNELS": "avx2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    was_repacked, was_stored, error = done.stdout.split()
    assert (was_repacked, was_stored) == ("True", "True")
    assert float(error) < 1e-3


def test_a_text_may_have_more_tokens_than_bytes(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """Without a piece for the space, each becomes three bytes of it."""
    data, space = tiny("bf16").read_bytes(), struct.pack("<Q", 3) + "\u2581".encode()
    assert data.count(space) == 1
    path = tmp_path / "spaceless.gguf"
    path.write_bytes(data.replace(space, struct.pack("<Q", 3) + "\u3006".encode()))
    text = " ~" * 30
    with LoadedModel(path, vocab_only=True) as model:
        tokens = model.tokenize(text, add_special=False)
        assert len(tokens) > len(text) + 8
        said = b"".join(model.piece(int(token)) for token in tokens).decode()
    assert said.replace("\u2581", " ").strip() == text.strip()
