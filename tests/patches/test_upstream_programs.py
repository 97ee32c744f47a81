"""llama.cpp's own tests of quantized types, on ours: its error thresholds, and its kernels against its references."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Tool = Callable[[str], Path]


def test_quantize_fns(llama_tool: Tool) -> None:
    done = subprocess.run([llama_tool("test-quantize-fns")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "FAILED" in line)


@pytest.mark.parametrize("op", ["MUL_MAT", "MUL_MAT_ID", "GET_ROWS"])
def test_backend_ops(llama_tool: Tool, op: str) -> None:
    command = [llama_tool("test-backend-ops"), "test", "-b", "CPU", "-o", op, "-p", "type(_a)?=tcq"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = [line for line in done.stdout.splitlines() if "OK" in line and "tcq" in line]
    for name in ("tcq1", "tcq2", "tcq3", "tcq4", "tcq5", "tcq1_64", "tcq2_64", "tcq3_64", "tcq4_64", "tcq5_64"):
        assert any(f"={name}," in line for line in passed), f"{op} was not run for {name}"
