"""Question: does a change under patches/ leave the machine code as it was?

    python eval/experiments/same_code.py BASE_REV [--device]

Compiles TCQ's sources of BASE_REV and of this checkout: C with `cc -O3` for this CPU and, where a cross compiler is
installed, for AArch64; with --device also CUDA with nvcc for `--arch`. Compares the code of every function, wherever
it has moved, and lists the functions that differ. Exit status 1: some do. Addresses of constants are not compared.
"""

import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

from gguf_golf.runtime import source

ROOT = Path(__file__).parents[2]
HOSTS = {"x86": ("cc", "objdump"), "arm": ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump")}
KERNELS = ("tcq.cu", "tcq-encode.cu", "template-instances/mmq-instance-tcq4.cu")
DECODING = """
#include "tcq-mmvq.cuh"
#define USE(name, NAME, qk) (void *) tcq_mul_mat_vec_cuda<GGML_TYPE_##NAME>,
extern void * const tcq_used[];
void * const tcq_used[] = { TCQ_FOR_EACH_TYPE(USE) };
"""

# what ggml-cuda's host code takes from cuBLAS, which compiling kernels does not need
CUBLAS_STAND_IN = """
#include <cuda_runtime.h>
typedef void * cublasHandle_t;
typedef enum { CUBLAS_STATUS_SUCCESS } cublasStatus_t;
enum { CUBLAS_TF32_TENSOR_OP_MATH, CUBLAS_COMPUTE_16F, CUBLAS_COMPUTE_32F };
const char * cublasGetStatusString(cublasStatus_t);
cublasStatus_t cublasCreate(cublasHandle_t *);
cublasStatus_t cublasSetMathMode(cublasHandle_t, int);
cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t);
"""

Code = dict[str, list[str]]


@click.command(help=__doc__)
@click.argument("base_rev")
@click.option("--device", is_flag=True, help="Compile the CUDA sources too: minutes for each.")
@click.option("--arch", default="sm_90", show_default=True, help="What nvcc compiles for.")
def main(base_rev: str, device: bool, arch: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", base_rev, "patches"], cwd=ROOT, check=True, capture_output=True)
        (Path(folder) / "base.tar").write_bytes(archive.stdout)
        with tarfile.open(Path(folder) / "base.tar") as tar:
            tar.extractall(folder, filter="data")
        new = source.source_dir()
        source.PATCHES = Path(folder) / "patches"
        base = source.source_dir()

        same = True
        for architecture, (compiler, objdump) in HOSTS.items():
            if shutil.which(compiler) is None:
                print(f"{architecture}: no {compiler}, not compared")
                continue
            codes = [host_code(tree, architecture, compiler, objdump, Path(folder)) for tree in (base, new)]
            same &= compare(architecture, *codes)
        if device and shutil.which("nvcc") is None:
            print("cuda: no nvcc, not compared")
        elif device:
            same &= compare(arch, *(device_code(tree, arch, Path(folder)) for tree in (base, new)))
    sys.exit(0 if same else 1)


def compare(what: str, base: Code, new: Code) -> bool:
    """Print which functions differ; whether none does."""
    both = base.keys() & new.keys()
    differ = sorted(name for name in both if base[name] != new[name])
    print(f"{what}: {len(both) - len(differ)} functions are the same")
    for words, names in (
        ("differs", differ),
        ("only in the base", base.keys() - both),
        ("only here", new.keys() - both),
    ):
        for name in sorted(names):
            print(f"    {words}: {name}")
    return not differ and base.keys() == new.keys()


def host_code(tree: Path, architecture: str, compiler: str, objdump: str, folder: Path) -> Code:
    """By name of a C function: the disassemblies of all functions of that name, with the targets of relocations."""
    code: Code = defaultdict(list)
    ggml = tree / "ggml" / "src"
    encoder, cpu = sorted(ggml.glob("ggml-tcq*.c")), ggml / "ggml-cpu"
    for path in [*encoder, *sorted(cpu.glob("tcq*.c")), *sorted((cpu / "arch" / architecture).glob("tcq-*.c"))]:
        flags = ["-std=gnu11", "-O3", "-DNDEBUG", "-fPIC", "-ffunction-sections", "-fdata-sections"]
        flags += ["-w", "-D__LINE__=0"]  # assertions know their line
        if path in encoder and path.name != "ggml-tcq.c":
            flags.append("-ffp-contract=off")
        include = [f"-I{part}" for part in (tree / "ggml" / "include", ggml, cpu)]
        subprocess.run([compiler, *flags, *include, "-c", path, "-o", folder / "object.o"], check=True)
        command = [objdump, "-dr", "--no-show-raw-insn", "--no-addresses", folder / "object.o"]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, body in re.findall(r"^<([^>]+)>:\n(.*?)(?=^<|^Disassembly|\Z)", listing, re.DOTALL | re.MULTILINE):
            code[name].append(re.sub(r"(\.(?:rodata\.cst\d+|LC\d+)|\.\d+)\S*$", r"", body, flags=re.MULTILINE))
    return {name: sorted(bodies) for name, bodies in code.items()}


def device_code(tree: Path, arch: str, folder: Path) -> Code:
    """By mangled name of a CUDA kernel: its machine code."""
    code: Code = {}
    (folder / "cublas_v2.h").write_text(CUBLAS_STAND_IN)
    (folder / "decoding.cu").write_text(DECODING)
    cuda = tree / "ggml" / "src" / "ggml-cuda"
    for path in (folder / "decoding.cu", *(cuda / name for name in KERNELS)):
        flags = ["-cubin", f"-arch={arch}", "-std=c++17", "-O3", "-use_fast_math", "-extended-lambda"]
        include = [f"-I{part}" for part in (folder, cuda, tree / "ggml" / "src", tree / "ggml" / "include")]
        subprocess.run(["nvcc", *flags, *include, path, "-o", folder / "object.cubin"], check=True)
        for section, content in elf_sections((folder / "object.cubin").read_bytes()):
            if section.startswith(".text.") and "tcq" in section:
                code[section.removeprefix(".text.")] = [content.hex()]
    return code


def elf_sections(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the sections of a 64-bit little-endian ELF file."""
    (offset,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, offset + i * size) for i in range(count)]
    start = headers[names][4]
    for name, kind, _, _, at, length in headers:
        if kind == 1:  # SHT_PROGBITS
            yield data[start + name : data.index(b"\0", start + name)].decode(), data[at : at + length]


if __name__ == "__main__":
    main()
