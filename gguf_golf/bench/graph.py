"""The few functions of ggml that build and compute a graph on the CPU, through ctypes."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.runtime.library import libggml

F32, I32 = 0, 26
"""Numbers of ggml's types."""


def bytes_of(tensor: int, size: int) -> NDArray[np.uint8]:
    """The tensor's data, `size` bytes of it; a view."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(libcpu().ggml_get_data(tensor)))


def compute(graph: int, threads: int) -> None:
    """Compute the graph once."""
    plan = libcpu().ggml_graph_plan(graph, threads, None)
    work = np.empty(plan.work_size + 64, np.uint8)
    plan.work_data = work.ctypes.data
    libcpu().ggml_graph_compute(graph, ctypes.byref(plan))


class InitParams(ctypes.Structure):
    """`struct ggml_init_params` of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class CPlan(ctypes.Structure):
    """`struct ggml_cplan` of ggml-cpu.h."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


class TypeTraitsCpu(ctypes.Structure):
    """`struct ggml_type_traits_cpu` of ggml-cpu.h."""

    _fields_ = (
        ("from_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("vec_dot", ctypes.c_void_p),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )


@cache
def libcpu() -> ctypes.CDLL:
    """The runtime's libggml with the signatures of what is used here."""
    lib = libggml()
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ggml_init": (pointer, [InitParams]),
        "ggml_free": (None, [pointer]),
        "ggml_new_tensor_2d": (pointer, [pointer, ctypes.c_int, integer, integer]),
        "ggml_new_tensor_3d": (pointer, [pointer, ctypes.c_int, integer, integer, integer]),
        "ggml_get_data": (pointer, [pointer]),
        "ggml_mul_mat": (pointer, [pointer, pointer, pointer]),
        "ggml_mul_mat_id": (pointer, [pointer, pointer, pointer, pointer]),
        "ggml_new_graph": (pointer, [pointer]),
        "ggml_build_forward_expand": (None, [pointer, pointer]),
        "ggml_graph_plan": (CPlan, [pointer, ctypes.c_int, pointer]),
        "ggml_graph_compute": (ctypes.c_int, [pointer, pointer]),
        "ggml_cpu_init": (None, []),
        "ggml_get_type_traits_cpu": (ctypes.POINTER(TypeTraitsCpu), [ctypes.c_int]),
        "ggml_quantize_chunk": (
            ctypes.c_size_t,
            [ctypes.c_int, pointer, pointer, integer, integer, integer, pointer],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.ggml_cpu_init()
    return lib
