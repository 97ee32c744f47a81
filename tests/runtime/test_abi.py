"""What ctypes believes of the patched llama.cpp, against its headers: prototypes as text, structs by the C compiler."""

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import gguf_golf
from gguf_golf.runtime import abi
from gguf_golf.runtime.source import source_dir

# which header has which struct, and its name there
STRUCTS = {
    abi.GgmlTensor: ("ggml.h", "struct ggml_tensor"),
    abi.TypeTraits: ("ggml.h", "struct ggml_type_traits"),
    abi.TypeTraitsCpu: ("ggml-cpu.h", "struct ggml_type_traits_cpu"),
    abi.InitParams: ("ggml.h", "struct ggml_init_params"),
    abi.CPlan: ("ggml-cpu.h", "struct ggml_cplan"),
    abi.GgufInitParams: ("gguf.h", "struct gguf_init_params"),
    abi.TcqFeedback: ("ggml-tcq.h", "tcq_feedback"),
}
SCALARS = {
    "bool": ctypes.c_bool,
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "void": None,
    "ggml_abort_callback_t": abi.AbortCallback,
    **dict.fromkeys(("ggml_backend_reg_t", "ggml_backend_dev_t"), ctypes.c_void_p),
    **{name: struct for struct, (_, name) in STRUCTS.items()},
}


@pytest.fixture(scope="module")
def prototypes() -> str:
    ggml = source_dir() / "ggml"
    headers = [ggml / "include" / name for name in ("ggml.h", "ggml-backend.h", "ggml-cpu.h", "ggml-rpc.h", "gguf.h")]
    text = "".join(
        path.read_text() for path in [*headers, ggml / "src/ggml-tcq.h", ggml / "src/ggml-cuda/tcq-encode.cu"]
    )
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", [*abi.GGML, *abi.CUDA, *abi.RPC])
def test_a_signature_is_that_of_the_header(name: str, prototypes: str) -> None:
    found = re.search(rf"(?:GGML_\w*API|GGML_CALL)\s+([\w\s*]+?)\b{name}\s*\(([^)]*)\)", prototypes)
    assert found, f"{name} is in none of the headers"
    result, arguments = (abi.GGML | abi.CUDA | abi.RPC)[name]
    theirs = [] if found[2].strip() in ("", "void") else found[2].split(",")
    assert len(arguments) == len(theirs)
    assert_same(result, found[1])
    for ours, text in zip(arguments, theirs, strict=True):
        assert_same(ours, re.sub(r"\w+\s*$", "", text.strip()))  # without the parameter's name


def assert_same(ours: Any, text: str) -> None:
    """A pointer for a pointer, the same scalar otherwise; text for `const char *` alone."""
    pointers = (ctypes.c_void_p, ctypes.c_char_p)
    if "*" in text:
        assert ours in pointers or issubclass(ours, ctypes._Pointer), text
        assert (ours is ctypes.c_char_p) == ("char" in text.split()), text
        return
    words = [word for word in text.split() if word not in ("const", "GGML_RESTRICT")]
    expected = ctypes.c_int if words[0] == "enum" else SCALARS[" ".join(words)]
    assert ours is expected, text


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_a_struct_lies_in_memory_as_the_compiler_lays_it_out(struct: type[ctypes.Structure], tmp_path: Path) -> None:
    header, name = STRUCTS[struct]
    checks = [f'_Static_assert(sizeof({name}) == {ctypes.sizeof(struct)}, "size");']
    for field, *_ in struct._fields_:
        at = getattr(struct, field)
        checks.append(f'_Static_assert(offsetof({name}, {field}) == {at.offset}, "offset of {field}");')
        checks.append(f'_Static_assert(sizeof((({name} *) 0)->{field}) == {at.size}, "size of {field}");')
    program = tmp_path / "check.c"
    program.write_text(f'#include <stddef.h>\n#include "{header}"\n' + "\n".join(checks) + "\n")
    ggml = source_dir() / "ggml"
    command = ["cc", "-fsyntax-only", f"-I{ggml / 'include'}", f"-I{ggml / 'src'}", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_else_declares_structs_or_signatures() -> None:
    package = Path(gguf_golf.__file__).parent
    declaring = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\.(restype|argtypes)\s*=|\bctypes\.Structure\)", path.read_text(encoding="utf-8"))
    }
    assert declaring == {"runtime/abi.py"}
