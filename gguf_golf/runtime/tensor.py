"""`struct ggml_tensor` of the pinned llama.cpp, for evaluation callbacks: its fields, and its data as a numpy view."""

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_golf.runtime import library

MAX_DIMS = 4
MAX_SRC = 10
MAX_NAME = 64


class GgmlTensor(ctypes.Structure):
    """Mirrors ggml/include/ggml.h; checked against the library by tests/runtime/test_tensor.py."""

    name: bytes
    op: int
    type: int


GgmlTensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * MAX_DIMS),
    ("nb", ctypes.c_size_t * MAX_DIMS),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(GgmlTensor) * MAX_SRC),
    ("view_src", ctypes.POINTER(GgmlTensor)),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * MAX_NAME),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


def view(tensor: GgmlTensor, dtype: type[np.float32] | type[np.int32]) -> NDArray[np.generic]:
    """The data of a tensor in host memory, without a copy: numpy order [ne3, ne2, ne1, ne0], ggml's strides."""
    item = np.dtype(dtype).itemsize
    spans = [(n - 1) * stride for n, stride in zip(tensor.ne, tensor.nb, strict=True)]
    n_bytes = sum(spans) + item
    memory = (ctypes.c_char * n_bytes).from_address(tensor.data)
    return np.ndarray(tuple(tensor.ne)[::-1], dtype, memory, strides=tuple(tensor.nb)[::-1])


@cache
def op_name(op: int) -> bytes:
    """Name of an operation, as b"MUL_MAT": the enum's numbers change between versions, the names do not."""
    function = library.libggml().ggml_op_name
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_int]
    return bytes(function(op))
