#!/usr/bin/env bash
# libllama keeps its SONAME when fields are inserted in the middle of structs that callers pass by value.
#
# llama.cpp adds and removes fields of llama_context_params and llama_model_params anywhere in the struct, and neither
# struct tells its size or version. Between the two releases below, n_outputs_max_per_seq went in before n_threads: a
# program built for the old header loads the new library without complaint, and its 8 threads are then 8 outputs. The
# SONAME is libllama.so.0 all along. The same holds for bindings in Python and other languages that point at a system's
# library.
#
# Seen in: llama.cpp b10069 and b11548 (libllama and the declarations in llama-cpp-py-sync 0.10069 and 0.11548).
# Most would expect: an unchanged SONAME says that programs built earlier go on working; else the loader refuses them.
# Why it matters: bindings break silently: settings are swapped or ignored, pointers are read from the wrong place.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet cffi==2.1.1 pyelftools==0.33
for version in 0.10069 0.11548; do
    "$work/venv/bin/pip" install --quiet --no-deps --target "$work/$version" llama-cpp-py-sync==$version
done
"$work/venv/bin/python" - "$work/0.10069" "$work/0.11548" <<'PY'
import importlib.util
import sys
from pathlib import Path

from elftools.elf.elffile import ELFFile


def release(folder):
    """The SONAME of its libllama and its declarations; the library itself is not loaded."""
    package = Path(folder, "llama_cpp_py_sync")
    with open(package / "libllama.so", "rb") as file:
        tags = ELFFile(file).get_section_by_name(".dynamic").iter_tags("DT_SONAME")
        soname = next(tags).soname
    spec = importlib.util.spec_from_file_location(f"bindings_{package.parent.name}", package / "_cffi_bindings.py")
    bindings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bindings)
    return soname, bindings.ffi


(old_soname, old), (new_soname, new) = map(release, sys.argv[1:])
print(f"SONAME: {old_soname} and {new_soname}")
assert old_soname == new_soname == "libllama.so.0", "no longer so"

for struct in ("struct llama_context_params", "struct llama_model_params"):
    before, after = (dict(ffi.typeof(struct).fields) for ffi in (old, new))
    moved = [name for name in before if name in after and before[name].offset != after[name].offset]
    print(f"{struct}: {old.sizeof(struct)} -> {new.sizeof(struct)} bytes")
    print(f"    new: {sorted(after.keys() - before.keys())}; gone: {sorted(before.keys() - after.keys())};", end=" ")
    print(f"kept, but elsewhere: {len(moved)} of {len(before)}")
    assert moved, "no longer so"

written = old.new("struct llama_context_params *", {"n_ctx": 4096, "n_threads": 8})
read = new.new("struct llama_context_params *")
new.buffer(read)[: old.sizeof(written[0])] = old.buffer(written)[:]
print(f"an old program asks for {written.n_threads} threads; a new libllama reads n_ctx = {read.n_ctx},", end=" ")
print(f"n_threads = {read.n_threads}, n_outputs_max_per_seq = {read.n_outputs_max_per_seq}")
assert (read.n_ctx, read.n_threads, read.n_outputs_max_per_seq) == (4096, 0, 8), "no longer so"
PY
