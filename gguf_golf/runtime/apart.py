"""Ask llama.cpp in a process of its own: it ends the process when it meets what it takes for impossible."""

import json
import os
import subprocess
import sys
from typing import Any

from gguf_golf.runtime.session import GAVE_UP


def ask_apart(module: str, *arguments: object) -> dict[str, Any]:
    """What `python -m module arguments` prints as JSON on its last line; {"error": ...} if the process does not end
    well."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # of exceptions that nothing catches
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    said = done.stderr.splitlines() or ["it says nothing"]
    if done.returncode == GAVE_UP:
        return {"error": said[-1].removeprefix("error: ")}
    return {"error": f"llama.cpp ended with status {done.returncode} ({said[-1]})"}
