"""The few functions of ggml that build and compute a graph on the CPU, through ctypes."""

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_golf.formats import quant_types
from gguf_golf.runtime.library import libggml

F32, I32 = quant_types.get("f32").id, quant_types.get("i32").id


def bytes_of(tensor: int, size: int) -> NDArray[np.uint8]:
    """The tensor's data, `size` bytes of it; a view."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(libcpu().ggml_get_data(tensor)))


def compute(graph: int, threads: int) -> None:
    """Compute the graph once."""
    plan = libcpu().ggml_graph_plan(graph, threads, None)
    work = np.empty(plan.work_size + 64, np.uint8)
    plan.work_data = work.ctypes.data
    libcpu().ggml_graph_compute(graph, ctypes.byref(plan))


@cache
def libcpu() -> ctypes.CDLL:
    """The runtime's libggml with its CPU backend started."""
    lib = libggml()
    lib.ggml_cpu_init()
    return lib
