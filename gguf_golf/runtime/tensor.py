"""Tensors as evaluation callbacks get them: their data as a NumPy view, and the names of operations."""

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gguf_golf.runtime import library
from gguf_golf.runtime.abi import GgmlTensor


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
    return bytes(library.libggml().ggml_op_name(op))
