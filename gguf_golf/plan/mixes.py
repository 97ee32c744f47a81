"""llama-quantize's own mixes: the type that each of them gives to every tensor of a model, by asking llama.cpp itself.

`llama_model_quantize` has a dry run that chooses types and logs them without reading a weight. A file with these types
from our writer holds the tensor data that llama-quantize would write with the same imatrix: the encoders are the same.
"""

import ctypes
import os
import re
from pathlib import Path
from typing import Any

from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.runtime.session import bindings, captured_log

# [   3/  50]  blk.0.attn_q.weight - [  512,   512,     1,     1], type =   bf16, size =  0.50 MiB -> 0.08 MiB (q2_K)
_TENSOR = re.compile(
    r"\[ *\d+/ *\d+\] +(\S+) +- \[[^\]]*\], type = +(\S+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\S+)\))?"
)

_OURS = re.compile(r"LLAMA_FTYPE_MOSTLY_(TCQ\d|F16|BF16)")
_MIX = re.compile(r"LLAMA_FTYPE_MOSTLY_(\w+)")


def mix_names() -> dict[str, int]:
    """llama.cpp's mixes of quantized types, by llama-quantize's names (Q4_K_M), with their numbers."""
    found = {}
    for name, number in vars(bindings()).items():
        if (match := _MIX.fullmatch(name)) and not _OURS.match(name):
            found[match[1]] = int(number)
    return found


def mixes(model: Path, *, has_imatrix: bool) -> dict[str, dict[str, QuantType]]:
    """For each mix that llama.cpp can make of a GGUF in full precision: the type of every tensor, by name.

    Without an imatrix, mixes that need one are left out. Raises InputError if llama.cpp cannot read the model.
    """
    found = {}
    for name, number in mix_names().items():
        chosen = _dry_run(model, number, has_imatrix)
        if chosen and (has_imatrix or not any(t.needs_imatrix for t in chosen.values())):
            found[name] = chosen
    if not found:
        raise InputError(f"{model}: llama.cpp cannot quantize this file; is it a GGUF in full precision?")
    return found


def _dry_run(model: Path, number: int, has_imatrix: bool) -> dict[str, QuantType]:
    """The types of one mix; empty where llama.cpp refuses it, or takes a type that gguf-py does not know yet."""
    llama = bindings()
    params: Any = llama.llama_model_quantize_default_params()
    params.ftype, params.dry_run, params.nthread = number, True, 1
    # some choices depend on whether there is an imatrix, none on what it says
    importance = (ctypes.c_float * 1)(1.0)
    imatrix = (llama.llama_model_imatrix_data * 2)()
    imatrix[0].name, imatrix[0].data, imatrix[0].size = b"any", importance, 1
    if has_imatrix:
        params.imatrix = imatrix
    with captured_log() as log:
        status = llama.llama_model_quantize(os.fsencode(model), b"", ctypes.byref(params))
    if status != 0:
        return {}
    chosen = {name: quant_types.ALL.get((new or old).lower()) for name, old, new in _TENSOR.findall("".join(log))}
    known = {name: quant_type for name, quant_type in chosen.items() if quant_type is not None}
    return known if len(known) == len(chosen) else {}
