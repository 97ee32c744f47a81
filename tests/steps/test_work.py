"""What a worker loads before its first step."""

import subprocess
import sys

STEPS = ("gguf_golf.quantize.steps", "gguf_golf.sensitivity.steps", "gguf_golf.evaluate.steps")


def test_workers_start_without_scipy_which_takes_longer_to_import_than_all_else() -> None:
    program = f"import sys, {', '.join(STEPS)}\nsys.exit('scipy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
