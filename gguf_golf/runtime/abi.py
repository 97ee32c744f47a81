"""The C interface of the patched llama.cpp as ctypes needs it: every struct and signature in use, and no other file.

tests/runtime/test_abi.py compares all of it with the pinned headers and with our own in patches/src.
"""

import ctypes
from ctypes import POINTER, c_bool, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any, TypeVar

MAX_DIMS, MAX_SRC, MAX_NAME, MAX_OP_PARAMS = 4, 10, 64, 64
"""GGML_MAX_DIMS and so on, of ggml.h."""

ToFloat = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)
FromFloat = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)
AbortCallback = ctypes.CFUNCTYPE(None, c_char_p)


class GgmlTensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""

    name: bytes
    op: int
    type: int


GgmlTensor._fields_ = [
    ("type", c_int),
    ("buffer", c_void_p),
    ("ne", c_int64 * MAX_DIMS),
    ("nb", c_size_t * MAX_DIMS),
    ("op", c_int),
    ("op_params", c_int32 * (MAX_OP_PARAMS // 4)),
    ("flags", c_int32),
    ("src", POINTER(GgmlTensor) * MAX_SRC),
    ("view_src", POINTER(GgmlTensor)),
    ("view_offs", c_size_t),
    ("data", c_void_p),
    ("name", c_char * MAX_NAME),
    ("extra", c_void_p),
    ("padding", c_char * 8),
]


class TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits` of ggml.h."""

    _fields_ = (
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", ToFloat),
        ("from_float_ref", c_void_p),
    )


class TypeTraitsCpu(ctypes.Structure):
    """`struct ggml_type_traits_cpu` of ggml-cpu.h."""

    _fields_ = (("from_float", FromFloat), ("vec_dot", c_void_p), ("vec_dot_type", c_int), ("nrows", c_int64))


class InitParams(ctypes.Structure):
    """`struct ggml_init_params` of ggml.h."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class CPlan(ctypes.Structure):
    """`struct ggml_cplan` of ggml-cpu.h."""

    _fields_ = (
        ("work_size", c_size_t),
        ("work_data", c_void_p),
        ("n_threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("use_ref", c_bool),
    )


class GgufInitParams(ctypes.Structure):
    """`struct gguf_init_params` of gguf.h."""

    _fields_ = (("no_alloc", c_bool), ("ctx", c_void_p))


class TcqFeedback(ctypes.Structure):
    """`tcq_feedback` of ggml-tcq.h."""

    _fields_ = (
        ("block_weights", c_void_p),
        ("section_weights", c_void_p),
        ("propagation", c_void_p),
        ("section", c_int),
        ("look_ahead", c_int),
    )


Signature = tuple[Any, tuple[Any, ...]]
"""Result type and argument types; a pointer to anything is c_void_p, unless Python reads what it points to."""

GGML: dict[str, Signature] = {
    "ggml_set_abort_callback": (AbortCallback, (AbortCallback,)),
    # devices
    "ggml_backend_register": (None, (c_void_p,)),
    "ggml_backend_dev_count": (c_size_t, ()),
    "ggml_backend_dev_get": (c_void_p, (c_size_t,)),
    "ggml_backend_dev_type": (c_int, (c_void_p,)),
    # types
    "ggml_type_name": (c_char_p, (c_int,)),
    "ggml_get_type_traits": (POINTER(TypeTraits), (c_int,)),
    "ggml_get_type_traits_cpu": (POINTER(TypeTraitsCpu), (c_int,)),
    "ggml_quantize_requires_imatrix": (c_bool, (c_int,)),
    "ggml_quantize_chunk": (c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)),
    "quantize_tcq_feedback": (c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    # graphs
    "ggml_op_name": (c_char_p, (c_int,)),
    "ggml_init": (c_void_p, (InitParams,)),
    "ggml_free": (None, (c_void_p,)),
    "ggml_new_tensor_2d": (c_void_p, (c_void_p, c_int, c_int64, c_int64)),
    "ggml_new_tensor_3d": (c_void_p, (c_void_p, c_int, c_int64, c_int64, c_int64)),
    "ggml_get_data": (c_void_p, (c_void_p,)),
    "ggml_mul_mat": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "ggml_mul_mat_id": (c_void_p, (c_void_p, c_void_p, c_void_p, c_void_p)),
    "ggml_new_graph": (c_void_p, (c_void_p,)),
    "ggml_build_forward_expand": (None, (c_void_p, c_void_p)),
    "ggml_graph_plan": (CPlan, (c_void_p, c_int, c_void_p)),
    "ggml_graph_compute": (c_int, (c_void_p, c_void_p)),
    "ggml_cpu_init": (None, ()),
    # GGUF files
    "gguf_init_from_file": (c_void_p, (c_char_p, GgufInitParams)),
    "gguf_free": (None, (c_void_p,)),
    "gguf_get_data_offset": (c_size_t, (c_void_p,)),
    "gguf_get_n_kv": (c_int64, (c_void_p,)),
    "gguf_find_key": (c_int64, (c_void_p, c_char_p)),
    "gguf_get_key": (c_char_p, (c_void_p, c_int64)),
    "gguf_get_kv_type": (c_int, (c_void_p, c_int64)),
    "gguf_get_arr_type": (c_int, (c_void_p, c_int64)),
    "gguf_get_val_str": (c_char_p, (c_void_p, c_int64)),
    "gguf_get_val_data": (c_void_p, (c_void_p, c_int64)),
    "gguf_get_arr_n": (c_size_t, (c_void_p, c_int64)),
    "gguf_get_arr_data": (c_void_p, (c_void_p, c_int64)),
    "gguf_get_arr_str": (c_char_p, (c_void_p, c_int64, c_size_t)),
    "gguf_get_n_tensors": (c_int64, (c_void_p,)),
    "gguf_get_tensor_name": (c_char_p, (c_void_p, c_int64)),
    "gguf_get_tensor_ne": (POINTER(c_int64), (c_void_p, c_int64)),
    "gguf_get_tensor_type": (c_int, (c_void_p, c_int64)),
    "gguf_get_tensor_size": (c_size_t, (c_void_p, c_int64)),
    "gguf_get_tensor_offset": (c_size_t, (c_void_p, c_int64)),
}
"""Functions of libggml."""

_ENCODE: Signature = (c_bool, (c_int, c_int, c_void_p, c_void_p, c_int64, c_int64, c_void_p))
CUDA: dict[str, Signature] = dict.fromkeys(
    ("ggml_backend_cuda_quantize_tcq", "ggml_backend_cuda_quantize_tcq_feedback"), _ENCODE
)
"""Functions of libggml-cuda, defined in patches/src/ggml/src/ggml-cuda/tcq-encode.cu."""

RPC: dict[str, Signature] = {
    "ggml_backend_rpc_add_server": (c_void_p, (c_char_p,)),
    "ggml_backend_rpc_start_server": (None, (c_char_p, c_char_p, c_size_t, c_size_t, c_void_p)),
}
"""Functions of libggml-rpc."""

Library = TypeVar("Library", bound=ctypes.CDLL)


def declare(library: Library, signatures: dict[str, Signature]) -> Library:
    """Tell ctypes the signatures of a library's functions. Raises AttributeError for one that the library lacks."""
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
