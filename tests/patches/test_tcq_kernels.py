"""Every SIMD kernel of every TCQ type against integer sums from the NumPy decoder, on blocks of random bytes.

The same C program runs natively, where it tries each instruction set that this CPU has, and under qemu as an AArch64
program, whose CPU has NEON, dotprod and i8mm.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gguf_golf.formats import quant_types, tcq
from gguf_golf.runtime import source

HERE = Path(__file__).parent
CASES_PER_TYPE = 40
POWER_OF_TWO_SCALE = {256: 0xF0, 64: 0xD8}
"""By block size: the bits of the last byte that keep the driver's float results exact, as the mantissa is 0."""

NO_GAP = (0x7F << 8, 0x7F << 15, 0x7F << 8 | 0x7F << 15)
"""Clearing these bits of a 256-block's word makes a great value of two slots."""

ARM_CC, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's input: blocks, activations and their sums as NumPy has them."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("kernels") / "cases"
    with path.open("wb") as file:
        for name, fmt in quant_types.TCQ_FORMATS.items():
            for i in range(CASES_PER_TYPE):
                blocks = rng.integers(0, 256, (16, fmt.type_size), np.uint8)
                blocks[:, fmt.scale_offset] &= (1 << fmt.scale_shift) - 1  # the sign of a 256-block's last slot stays
                blocks[:, fmt.scale_offset] |= POWER_OF_TWO_SCALE[fmt.block_size]
                if fmt.block_size == 256:
                    word = blocks[:3, fmt.slot_offset :].copy().view("<u4")
                    word[:, 0] &= ~np.array(NO_GAP, np.uint32)
                    blocks[:3, fmt.slot_offset :] = word.view(np.uint8)
                q = rng.integers(-127, 128, (16, fmt.block_size), np.int8)
                if i % 8 == 0:  # the largest sums that an accumulator meets
                    q = np.where(q > 0, 127, -127).astype(np.int8)
                sums = tcq.integer_weights(fmt, blocks) @ q.astype(np.int32).T
                for part in (np.int32(quant_types.TCQ[name].id), blocks, q, sums.astype("<i4")):
                    file.write(part.tobytes())
    return path


def build(compiler: str, architecture: str, folder: Path, *flags: str) -> Path:
    """The driver, compiled with the kernels of one architecture."""
    tree = source.source_dir() / "ggml"
    cpu = tree / "src" / "ggml-cpu"
    kernels = sorted((cpu / "arch" / architecture).glob("tcq-*.c"))
    program = folder / f"tcq_kernels_{architecture}"
    command = [
        *(compiler, "-std=gnu11", "-O2", "-ffunction-sections", "-Wl,--gc-sections", *flags, "-o", program),
        *(f"-I{path}" for path in (tree / "include", tree / "src", cpu)),
        *(HERE / "tcq_kernels.c", tree / "src" / "ggml-tcq.c", cpu / "tcq.c", cpu / "tcq-repack.c", *kernels, "-lm"),
    ]
    subprocess.run(command, check=True)
    return program


def run(command: list[str | Path]) -> set[str]:
    """Runs the driver; the names of the kernels that it checked."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return set(result.stdout.splitlines()[-1].split(":")[1].split())


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_native(cases: Path, tmp_path: Path) -> None:
    machine = os.uname().machine
    architecture = {"x86_64": "x86", "aarch64": "arm"}.get(machine)
    if architecture is None:
        pytest.skip(f"no TCQ kernels for {machine}")
    checked = run([build("cc", architecture, tmp_path), cases])
    assert "generic" in checked
    if architecture == "arm":
        assert "neon" in checked
    elif " avx2 " in Path("/proc/cpuinfo").read_text():
        assert "avx2" in checked


@pytest.mark.skipif(
    (shutil.which(ARM_CC) is None or shutil.which(QEMU) is None) and os.environ.get("CI") != "true",
    reason=f"needs {ARM_CC} and {QEMU}: apt install gcc-aarch64-linux-gnu qemu-user",
)
def test_aarch64(cases: Path, tmp_path: Path) -> None:
    program = build(ARM_CC, "arm", tmp_path, "-static")
    assert run([QEMU, "-cpu", "max", program, cases]) == {"i8mm", "dotprod", "neon", "generic"}
    # a CPU of 2015: the program has the newer instructions, but must not run them
    assert run([QEMU, "-cpu", "cortex-a57", program, cases]) == {"neon", "generic"}
