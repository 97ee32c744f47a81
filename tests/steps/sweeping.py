"""A small sweep of one budget, here or as a driver that can be killed.

python -m tests.steps.sweeping MODEL FOLDER EXECUTOR
"""

import hashlib
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from gguf_golf.fit import Settings, fit
from gguf_golf.formats import quant_types
from gguf_golf.plan.constraints import Constraints
from gguf_golf.sensitivity import distortion
from gguf_golf.steps import Executor, executing, open_executor

SETTINGS = Settings(n_ctx=64, calibration_chunks=2, control_chunks=2, eval_chunks=3, threads=1)
TYPES = ("tcq2", "tcq3", "q4_k")  # a few: every type is tried in tests/sensitivity


def sweep(model: Path, folder: Path, executor: Executor | None = None) -> str:
    """The file's SHA-256; evaluations are cached beside it."""
    out = folder / "out.gguf"
    with pytest.MonkeyPatch.context() as patch, executing(executor):
        patch.setattr(distortion, "CANDIDATES", tuple(quant_types.get(name) for name in TYPES))
        patch.setattr("gguf_golf.evaluate.evaluate.cache_dir", lambda: folder / "cache")
        fit(model, ["2.6bpw"], [out], SETTINGS, Constraints(), lambda words: None)
    return hashlib.sha256(out.read_bytes()).hexdigest()


if __name__ == "__main__":
    _, model, folder, spec = sys.argv
    with open_executor(spec, Path(folder) / "store") or nullcontext() as executor:
        sweep(Path(model), Path(folder), executor)
