"""The last look before success is said: llama.cpp loads the file, and decodes a token of one that is not too large.

It runs in a process of its own (`python -m gguf_golf.quantize.load_check FILE`), as llama.cpp ends the process when it
meets what it takes for impossible.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from gguf_golf.errors import GolfError, InputError
from gguf_golf.runtime.session import LoadedModel

DECODED_BYTES = 1 << 27
"""Larger files are loaded without their weights: converting a model must not take the memory that running it takes."""


def check_loads(path: Path) -> list[str]:
    """Load the file that was just written, and decode one token; notes, if the result is not finite.

    A file that fails is renamed to NAME.broken. Raises InputError if llama.cpp cannot load it or decode with it.
    """
    done = subprocess.run(
        [sys.executable, "-m", "gguf_golf.quantize.load_check", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        found = json.loads(lines[-1])
    else:
        said = [line for line in done.stderr.splitlines() if "GGML_ASSERT" in line] or done.stderr.splitlines()
        found = {"error": f"llama.cpp ended with status {done.returncode} ({said[-1] if said else 'it says nothing'})"}
    if "error" in found:
        broken = path.with_name(path.name + ".broken")
        path.replace(broken)
        raise InputError(f"{path} was written, but does not run; it is now {broken.name}: {found['error']}")
    return list(found["notes"])


def main() -> None:
    """Examine the file that the command line names; the finding as JSON, on the last line."""
    path = Path(sys.argv[1])
    small = path.stat().st_size <= DECODED_BYTES
    try:
        with LoadedModel(path, without_weights=not small) as model:
            print(json.dumps({"notes": _check_token(model) if small and _generates(model) else []}))
    except GolfError as error:
        print(json.dumps({"error": str(error)}))


def _generates(model: LoadedModel) -> bool:
    """Whether it predicts tokens; an embedding model does not."""
    architecture = model.metadata("general.architecture")
    return (
        model.metadata(f"{architecture}.pooling_type") is None
        and model.metadata(f"{architecture}.attention.causal") != "false"
    )


def _check_token(model: LoadedModel) -> list[str]:
    token = max(model.text_start, 0)
    with model.context(8, threads=1) as context:
        logits = context.decode(np.array([token], np.int32), np.zeros(1, np.int32), np.ones(1, bool))
        if bad := int(logits.size - np.count_nonzero(np.isfinite(logits))):
            return [
                f"WARNING: {bad} of {logits.size} logits of the first token are NaN or infinite though all weights are "
                "finite: the model's values overflow in llama.cpp (its caches are F16)"
            ]
    return []


if __name__ == "__main__":
    main()
