"""llama.cpp's own programs run files with protected rows, and keep them."""

import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.container.metadata import output_metadata
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.formats import quant_types
from gguf_golf.models import open_model
from gguf_golf.quantize.from_recipe import quantize
from gguf_golf.quantize.job import Job
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import write
from tests.evaluate.test_evaluate import llama_perplexity
from tests.patches.test_llama_programs import run, tensors

Tool = Callable[[str], Path]

RECIPE = """format = 1
[tensors]
"token_embd.weight" = { type = "tcq1", rows = 2000, residual = "tcq4" }
"blk.*" = "f32"
"""


@pytest.fixture(scope="module")
def files(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """golf-tiny with its vocabulary in tcq1 and half of its rows protected, the same dequantized, and without them."""
    folder = tmp_path_factory.mktemp("programs")
    imatrix, recipe = folder / "imatrix.gguf", folder / "recipe.toml"
    entry = ImatrixEntry(np.ones((1, 256)), np.array([1]))
    imatrix_file.write(Imatrix({"token_embd.weight": entry}, token_counts=np.arange(4096)[::-1].copy()), imatrix)
    made = []
    for name, text in (("rows", RECIPE), ("plain", RECIPE.replace(", rows = 2000", ""))):
        recipe.write_text(text)
        made.append(folder / f"{name}.gguf")
        quantize(tiny("f32"), recipe, made[-1], job=Job(imatrix=imatrix, threads=2, progress=False))
    model, dequantized = open_model(made[0], allow_requantize=True), folder / "f32.gguf"
    f32 = dict.fromkeys((tensor.name for tensor in model.tensors), quant_types.get("f32"))
    stored = stored_tensors(model, f32, Guide(), open_encoder(threads=2))
    write(stored, dequantized, metadata=output_metadata(model, f32, None, None), made_from=None, progress=False)
    return made[0], dequantized, made[1]


def test_llama_perplexity(llama_tool: Tool, files: tuple[Path, Path, Path], demo_text: Path) -> None:
    program = llama_tool("llama-perplexity")
    options = ("-f", demo_text, "-c", "128", "-b", "128", "--chunks", "2", "--load-mode", "none")
    found, expected, without = (llama_perplexity(program, path, *options)["Final estimate: PPL"] for path in files)
    assert found == pytest.approx(expected, rel=0.01)
    assert without > 1.1 * expected


def test_llama_cli_and_llama_server_say_what_the_dequantized_model_says(
    llama_tool: Tool, files: tuple[Path, Path, Path]
) -> None:
    said, served = [], []
    for path in files[:2]:
        words = run(
            *(llama_tool("llama-cli"), "-m", path, "-p", "The city of", "-n", 12, "--temp", 0, "-t", 2),
            *("--single-turn", "--simple-io", "--no-warmup", "--jinja", "--chat-template", "chatml"),
        )
        said.append(re.sub(r"\[.*", "", words.split("The city of", 1)[1]).split())
        served.append(answer(llama_tool("llama-server"), path))
    assert said[0] == said[1]
    assert len(said[0]) >= 4
    assert served[0]["content"] == served[1]["content"]
    found, expected = ([token["logprob"] for token in each["completion_probabilities"]] for each in served)
    assert np.allclose(found, expected, atol=0.2), "more than the rounding of activations"


def test_llama_quantize_keeps_them(llama_tool: Tool, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run(llama_tool("llama-quantize"), "--allow-requantize", files[0], tmp_path / "copy.gguf", "COPY")
    assert tensors(tmp_path / "copy.gguf") == tensors(files[0])


def answer(program: Path, model: Path) -> Any:
    """What llama-server completes, with the probabilities of its tokens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-m", model, "--port", port, "-t", 2, "-c", 128, "--no-warmup"]
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60).close()
                break
            except OSError:
                time.sleep(0.05)
        asked = {"prompt": "The city of", "n_predict": 12, "temperature": 0, "n_probs": 1}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=240) as response:
            return json.load(response)
    finally:
        server.kill()
        server.wait()
