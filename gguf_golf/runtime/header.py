"""The header of a GGUF file through ggml's own parser: tensors, text values, and a digest of the tokenizer.

gguf-py reads more, but takes seconds for a vocabulary of 150k; this takes milliseconds.
"""

import ctypes
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gguf_golf.errors import InputError
from gguf_golf.formats.foreign import foreign_type
from gguf_golf.runtime import abi
from gguf_golf.runtime.library import libggml
from gguf_golf.runtime.session import check_gguf

TYPE_STRING, TYPE_ARRAY = 8, 9  # enum gguf_type, fixed by the format
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
SIGNED_KINDS = frozenset({1, 3, 5, 11})
INTEGER_KINDS = SIGNED_KINDS | {0, 2, 4, 10}
TOKENIZER_PREFIX = b"tokenizer.ggml."


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `type` is ggml's name in capitals, `shape` is (rows, columns), the contiguous axis last."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int


class GgufHeader:
    """An open header; use as a context manager. Raises InputError on a foreign or damaged file."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        check_gguf(path)
        self._lib = libggml()
        self._gguf = self._lib.gguf_init_from_file(os.fsencode(path), abi.GgufInitParams(True, None))
        if not self._gguf:
            if foreign := foreign_type(path):
                raise InputError(foreign)
            raise InputError(f"{path}: damaged or incomplete GGUF file: its header cannot be read; download it again")
        if self._data_end() > path.stat().st_size:
            self.__exit__(None, None, None)
            raise InputError(
                f"{path}: incomplete: its tensors end beyond its {path.stat().st_size} bytes; download it again"
            )

    def __enter__(self) -> "GgufHeader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.gguf_free(self._gguf)

    def tensors(self) -> list[TensorInfo]:
        """All tensors in file order."""
        lib, gguf = self._lib, self._gguf
        found = []
        for i in range(lib.gguf_get_n_tensors(gguf)):
            ne = list(lib.gguf_get_tensor_ne(gguf, i)[:4])
            while len(ne) > 1 and ne[-1] == 1:
                ne.pop()
            found.append(
                TensorInfo(
                    lib.gguf_get_tensor_name(gguf, i).decode("utf-8", "replace"),
                    lib.ggml_type_name(lib.gguf_get_tensor_type(gguf, i)).decode().upper(),
                    tuple(reversed(ne)),
                    lib.gguf_get_tensor_size(gguf, i),
                )
            )
        return found

    def text(self, key: str) -> str | None:
        """The value of a key that holds a string; None if it is absent or holds something else."""
        index = self._lib.gguf_find_key(self._gguf, key.encode())
        if index < 0 or self._lib.gguf_get_kv_type(self._gguf, index) != TYPE_STRING:
            return None
        return str(self._lib.gguf_get_val_str(self._gguf, index).decode("utf-8", "replace"))

    def integer(self, key: str) -> int | None:
        """The value of a key that holds an integer; None if it is absent or holds something else."""
        index = self._lib.gguf_find_key(self._gguf, key.encode())
        kind = -1 if index < 0 else self._lib.gguf_get_kv_type(self._gguf, index)
        if kind not in INTEGER_KINDS:
            return None
        data = ctypes.string_at(self._lib.gguf_get_val_data(self._gguf, index), SCALAR_BYTES[kind])
        return int.from_bytes(data, sys.byteorder, signed=kind in SIGNED_KINDS)

    def length(self, key: str) -> int | None:
        """How many elements the array under a key has; None if there is no array."""
        index = self._lib.gguf_find_key(self._gguf, key.encode())
        if index < 0 or self._lib.gguf_get_kv_type(self._gguf, index) != TYPE_ARRAY:
            return None
        return int(self._lib.gguf_get_arr_n(self._gguf, index))

    def tokenizer_digest(self) -> str:
        """Hash of all that the file says of its tokenizer: equal digests mean equal tokens for every text."""
        lib, gguf = self._lib, self._gguf
        parts = []
        for index in range(lib.gguf_get_n_kv(gguf)):
            key = lib.gguf_get_key(gguf, index)
            if key.startswith(TOKENIZER_PREFIX):
                parts.append(hashlib.sha256(key + b"\0" + self._value_bytes(index)).digest())
        return hashlib.sha256(b"".join(sorted(parts))).hexdigest()

    def _value_bytes(self, index: int) -> bytes:
        lib, gguf = self._lib, self._gguf
        kind = lib.gguf_get_kv_type(gguf, index)
        if kind == TYPE_STRING:
            return bytes(lib.gguf_get_val_str(gguf, index))
        if kind != TYPE_ARRAY:
            return ctypes.string_at(lib.gguf_get_val_data(gguf, index), SCALAR_BYTES[kind])
        n, kind = lib.gguf_get_arr_n(gguf, index), lib.gguf_get_arr_type(gguf, index)
        if kind == TYPE_STRING:
            return b"\0".join(lib.gguf_get_arr_str(gguf, index, i) for i in range(n))
        return ctypes.string_at(lib.gguf_get_arr_data(gguf, index), n * SCALAR_BYTES[kind])

    def _data_end(self) -> int:
        lib, gguf = self._lib, self._gguf
        ends = [
            lib.gguf_get_tensor_offset(gguf, i) + lib.gguf_get_tensor_size(gguf, i)
            for i in range(lib.gguf_get_n_tensors(gguf))
        ]
        return int(lib.gguf_get_data_offset(gguf) + max(ends, default=0))
