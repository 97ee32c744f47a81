"""Question: how many instructions does an Arm CPU spend on one block of weights, without an Arm CPU to time it?

    python eval/experiments/arm_instructions.py

Compiles the kernels for AArch64 and counts the instructions of the loop over blocks: `vec_dot` takes one row at a time,
`dot_rows` four rows with one column. Every instruction counts as one, and cache misses are not seen.
"""

import re
import subprocess
import tempfile

from gguf_golf.formats import quant_types
from gguf_golf.runtime import source

CC, OBJDUMP = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump"
ROWS = 4
"""What dot_rows takes at a time."""

LEAST_LOOP = 60
"""Loops with fewer instructions only copy something."""


def main() -> None:
    ggml = source.source_dir() / "ggml"
    include = [f"-I{path}" for path in (ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu")]
    with tempfile.TemporaryDirectory() as folder:
        kernels = ggml / "src" / "ggml-cpu" / "arch" / "arm" / "tcq-dotprod.c"
        command = [CC, "-std=gnu11", "-O3", "-DNDEBUG", "-fPIC", *include, "-c", kernels, "-o", f"{folder}/kernels.o"]
        subprocess.run(command, check=True)
        command = [OBJDUMP, "-d", "--no-show-raw-insn", f"{folder}/kernels.o"]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bodies = dict(re.findall(r"^[0-9a-f]+ <(\w+)>:\n(.*?)(?=\n\n|\Z)", listing, re.DOTALL | re.MULTILINE))

    print("| type | vec_dot | dot_rows | ratio |\n|---|---|---|---|")
    for name, fmt in quant_types.TCQ_FORMATS.items():
        suffix = name.removeprefix("tcq")
        one = block_loop(bodies[f"tcq_vec_dot_{suffix}"])
        # blocks of 256 go row by row; of blocks of 64, the loop takes one of each row
        several = block_loop(bodies[f"tcq_dot_rows_{suffix}"]) / (1 if fmt.block_size == 256 else ROWS)
        print(f"| {name} | {one} | {several:g} | {several / one:.2f} |")


def block_loop(body: str) -> int:
    """Instructions of the smallest loop that is not just a copy."""
    code = [(int(at, 16), text) for at, text in re.findall(r"^ +([0-9a-f]+):\t(.*)$", body, re.MULTILINE)]
    loops = []
    for at, text in code:
        branch = re.match(r"(?:b|b\.\w+|cbn?z|tbn?z)\t.*?\b([0-9a-f]+) <", text)
        if branch and int(branch[1], 16) < at:
            loops.append((at - int(branch[1], 16)) // 4 + 1)
    return min(n for n in loops if n >= LEAST_LOOP)


if __name__ == "__main__":
    main()
