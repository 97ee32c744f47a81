"""A program of plan/memory.py: the sizes of the buffers that llama.cpp lays out for a context, in bytes.

    python -m gguf_golf.runtime.context_sizes MODEL.gguf N_CTX KEYS_TYPE_ID VALUES_TYPE_ID

The model is opened with `no_alloc`: nothing is allocated, and its weights are not read.
"""

import ctypes
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from gguf_golf.errors import GolfError
from gguf_golf.runtime.session import LoadedModel, bindings, captured_log

_MIB = 1 << 20

# llama_kv_cache: layer   3: dev = CPU
_CACHED_LAYER = re.compile(r"^\w+(?:: |, )layer +(\d+): dev = ")
# llama_kv_cache: size =   48.00 MiB (  8192 cells,  12 layers,  1/1 seqs), K (f16):   24.00 MiB, V (f16):   24.00 MiB
_CACHE = re.compile(r"^\w+: size = +([\d.]+) MiB \( *\d+ cells,")
# sched_reserve:        CPU compute buffer size =    36.50 MiB
_COMPUTE = re.compile(r"^\w+: +\S+ compute buffer size = +([\d.]+) MiB")


def main() -> None:
    """Print {"cache_of": {layer: bytes}, "compute": bytes}, or {"error": ...}, as JSON on the last line."""
    path, n_ctx, keys, values = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    llama = bindings()
    try:
        with LoadedModel(path, without_weights=True) as loaded:
            params: Any = llama.llama_context_default_params()
            params.n_ctx, params.n_seq_max, params.type_k, params.type_v = n_ctx, 1, keys, values
            params.swa_full = False  # as in llama-cli and llama-server
            with captured_log() as log:
                context = llama.llama_init_from_model(loaded._model, params)
            if context:
                llama.llama_free(ctypes.c_void_p(context))
                print(json.dumps(sizes("".join(log))))
            else:
                print(json.dumps({"error": f"llama.cpp cannot make a context of {n_ctx} tokens with such a cache"}))
    except GolfError as error:
        print(json.dumps({"error": str(error)}))


def sizes(log: str) -> dict[str, Any]:
    """What llama.cpp logged. Each cache, of keys and values or a recurrent state, names its layers before its size."""
    cache_of: Counter[int] = Counter()
    layers: list[int] = []
    compute = 0
    for line in log.splitlines():
        if match := _CACHED_LAYER.match(line):
            layers.append(int(match[1]))
        elif match := _CACHE.match(line):
            for layer in layers:
                cache_of[layer] += round(float(match[1]) * _MIB / len(layers))
            layers = []
        elif match := _COMPUTE.match(line):
            compute += round(float(match[1]) * _MIB)
    return {"cache_of": cache_of, "compute": compute}


if __name__ == "__main__":
    main()
