"""A GGUF file, or all parts of a split one, as a Model. Its metadata is copied as it is; protected rows come back with
their residual."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFValueType
from gguf.gguf_reader import ReaderField, ReaderTensor

from gguf_golf.errors import InputError
from gguf_golf.files import part_paths
from gguf_golf.formats import tcq
from gguf_golf.formats.foreign import foreign_type
from gguf_golf.formats.protected import RESIDUAL, ROWS, matrix_of
from gguf_golf.formats.quant_types import TCQ, register_with_gguf
from gguf_golf.models.checkpoint import FLOAT_DTYPES, to_float32
from gguf_golf.models.model import FloatArray, LazyTensor, MetadataField, Model

KEY_KEPT = "gguf_golf.kept_lattice"
"""The names of the tensors whose weights were on the lattice of a quantized type already: they hold the source exactly,
so they count as full precision."""

INTEGERS = frozenset({"I8", "I16", "I32", "I64"})


class _Reader(GGUFReader):  # type: ignore[misc]  # gguf-py's types are not followed
    """gguf-py's reader with its one access to the bytes replaced.

    gguf-py slices, so a count that points beyond the end silently gets fewer values, or loops for hours; this refuses.
    It is also several times faster: a vocabulary is hundreds of thousands of accesses.
    """

    def _get(self, offset: int, dtype: npt.DTypeLike, count: int = 1, override_order: Any = None) -> npt.NDArray[Any]:
        if count > self.data.nbytes:
            raise ValueError(f"{count} values are announced, the file has {self.data.nbytes} bytes")
        stored = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        return np.frombuffer(self.data, stored, int(count), int(offset))


def open_gguf(path: Path, *, allow_requantize: bool) -> Model:
    """Open PATH, and the other parts if it is one part of a split model.

    Raises InputError for a damaged, foreign, big-endian or incomplete file, and for a quantized one unless
    `allow_requantize`.
    """
    metadata: list[MetadataField] = []
    tensors: list[LazyTensor] = []
    companions: dict[str, tuple[Path, ReaderTensor]] = {}
    for part, reader in _parts(path):
        metadata = metadata or _metadata(part, reader)
        companions |= {tensor.name: (part, tensor) for tensor in reader.tensors if matrix_of(tensor.name)}
        tensors += [_lazy_tensor(part, tensor) for tensor in reader.tensors if not matrix_of(tensor.name)]
    tensors = _with_residuals(path, tensors, companions)
    architecture = next((field.value for field in metadata if field.key == gguf.Keys.General.ARCHITECTURE), None)
    if not isinstance(architecture, str) or not tensors:
        raise InputError(f"{path} names no architecture or holds no tensors: it is not a model")
    kept = next((field.value for field in metadata if field.key == KEY_KEPT), None)
    exact = set(kept) if isinstance(kept, list) else set()
    quantized = sorted({t.source_type for t in tensors if t.name not in exact} - FLOAT_DTYPES.keys())
    if quantized and not allow_requantize:
        raise InputError(
            f"{path} is already quantized ({', '.join(quantized)}): start from full precision, the F32, F16 or BF16 "
            "GGUF or the Hugging Face directory it was made from (or pass --allow-requantize and measure against it)"
        )
    return Model(architecture, metadata, tensors)


def _with_residuals(
    path: Path, tensors: list[LazyTensor], companions: Mapping[str, tuple[Path, ReaderTensor]]
) -> list[LazyTensor]:
    """The tensors, protected rows with their residual. Raises InputError for companions of no matrix, or that do not
    fit theirs."""
    matrices = {tensor.name: tensor for tensor in tensors}
    for name in {matrix_of(name) or "" for name in companions}:
        matrix, rows, residual = matrices.get(name), companions.get(name + ROWS), companions.get(name + RESIDUAL)
        if matrix is None or rows is None or residual is None:
            raise InputError(f"{path}: {name}, {name}{ROWS} and {name}{RESIDUAL} belong together, and one is missing")
        numbers, stored = np.asarray(rows[1].data), _lazy_tensor(*residual)
        if (
            rows[1].tensor_type != GGMLQuantizationType.I32
            or stored.shape != (numbers.size, matrix.shape[-1])
            or (np.diff(numbers, prepend=-1) <= 0).any()
            or numbers[-1] >= matrix.n_rows
        ):
            raise InputError(f"{path}: the protected rows of {name} do not fit it; the file is damaged")
        matrices[name] = replace(matrix, read_rows=_Restored(matrix, numbers.astype(np.int64), stored))
    return list(matrices.values())


class _Restored:
    """Reads rows of a matrix, and adds the residual of those that are protected."""

    def __init__(self, matrix: LazyTensor, numbers: npt.NDArray[np.int64], residual: LazyTensor) -> None:
        self.matrix, self.numbers, self.residual = matrix, numbers, residual

    def __call__(self, first: int, last: int) -> FloatArray:
        values = self.matrix.read_rows(first, last)
        start, end = (int(place) for place in np.searchsorted(self.numbers, [first, last]))
        values[self.numbers[start:end] - first] += self.residual.read_rows(start, end)
        return values


def split_parts(path: Path) -> list[Path]:
    """All parts of a split GGUF, whichever `path` is; [path] for a whole one. Raises InputError if one is missing."""
    return [part for part, _ in _parts(path)]


def _parts(path: Path) -> list[tuple[Path, GGUFReader]]:
    """The file, or all parts of the split model that it is a part of (split.count says so), in order."""
    parts = _read_parts(path)
    _check_tcq_format(path, [reader for _, reader in parts])
    return parts


def _check_tcq_format(path: Path, readers: list[GGUFReader]) -> None:
    """Raise InputError for TCQ tensors of another version of the format: their bytes would decode to noise."""
    ours = sorted({t.tensor_type.name.lower() for reader in readers for t in reader.tensors} & TCQ.keys())
    version = metadata_value(readers[0], tcq.FORMAT_KEY)
    if not ours or version == tcq.FORMAT_VERSION:
        return
    if version is None:
        raise InputError(
            f"{path}: its {', '.join(ours)} tensors were written by an earlier, unreleased gguf-golf: "
            "convert the model again"
        )
    raise InputError(
        f"{path}: its {', '.join(ours)} tensors are of format {version}, this gguf-golf reads format "
        f"{tcq.FORMAT_VERSION}: convert the model again"
    )


def _read_parts(path: Path) -> list[tuple[Path, GGUFReader]]:
    reader = read_gguf(path)
    count = _split(reader, "count") or 1
    if count < 2:
        return [(path, reader)]
    paths = part_paths(path)
    if len(paths) != count:
        raise InputError(
            f"{path} is part {(_split(reader, 'no') or 0) + 1} of {count} of a split model, but its name does not say "
            f"where the others are: name the parts NAME-00001-of-{count:05d}.gguf, ..."
        )
    if missing := [part.name for part in paths if not part.is_file()]:
        raise InputError(f"{path}: {len(missing)} of {count} parts are missing ({missing[0]}, ...); download them here")
    parts = [(part, reader if part == path else read_gguf(part)) for part in paths]
    for i, (part, part_reader) in enumerate(parts):
        if (_split(part_reader, "no"), _split(part_reader, "count")) != (i, count):
            raise InputError(f"{part} is not part {i + 1} of {count} of this model; download it again")
    return parts


def metadata_value(reader: GGUFReader, key: str) -> object:
    """A metadata value as Python has it, None where it is absent; text that is not UTF-8 stays bytes."""
    field = reader.fields.get(key)
    if field is None:
        return None
    return _array(field) if field.types[0] == GGUFValueType.ARRAY else _scalar(field)


def _split(reader: GGUFReader, key: str) -> int | None:
    value = metadata_value(reader, f"split.{key}")
    return value if isinstance(value, int) else None


def read_gguf(path: Path) -> GGUFReader:
    """A reader for any GGUF file, however damaged: InputError where it cannot be read, never a loop or a traceback."""
    register_with_gguf()
    try:
        reader = _Reader(path)
    except Exception as error:  # a hostile file can make the parser fail in any way; each of them means the same
        if foreign := foreign_type(path):
            raise InputError(foreign) from error
        raise InputError(f"{path} is truncated or not a GGUF file ({error}); download it again") from error
    if reader.endianess == GGUFEndian.BIG:
        raise InputError(f"{path} is big-endian; convert it with `gguf-convert-endian {path} little` first")
    return reader


def _metadata(path: Path, reader: GGUFReader) -> list[MetadataField]:
    fields = []
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "split.")):  # the header's own counts, and how this file was split
            continue
        if len(field.types) > 2:
            raise InputError(f"{path}: {key} is an array of arrays, which neither llama.cpp nor gguf-py can write")
        if field.types[0] != GGUFValueType.ARRAY:
            fields.append(MetadataField(key, _scalar(field), field.types[0]))
        elif values := _array(field):  # gguf-py writes no empty array, and llama.cpp takes an absent one for empty
            fields.append(MetadataField(key, values, GGUFValueType.ARRAY, field.types[-1]))
    return fields


def _scalar(field: ReaderField) -> object:
    value = field.parts[-1]
    return _string(value) if field.types[0] == GGUFValueType.STRING else value[0].item()


def _array(field: ReaderField) -> list[object]:
    if field.types[-1] == GGUFValueType.STRING:
        return [_string(field.parts[i]) for i in field.data]
    return [field.parts[i][0].item() for i in field.data]


def _string(data: npt.NDArray[np.uint8]) -> str | bytes:
    """Strings are UTF-8, but nothing enforces it for tokens; the writer takes bytes as well."""
    raw = data.tobytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _lazy_tensor(path: Path, tensor: ReaderTensor) -> LazyTensor:
    source_type = tensor.tensor_type.name
    if source_type in INTEGERS:
        raise InputError(f"{path}: tensor {tensor.name} holds integers ({source_type}), which cannot be quantized")
    shape = tuple(int(n) for n in reversed(tensor.shape.tolist()))
    if not shape or 0 in shape:
        raise InputError(f"{path}: tensor {tensor.name} is empty; the file is damaged: download it again")
    # Only numbers are kept: the reader and its thousands of small arrays can go.
    return LazyTensor(
        tensor.name,
        shape,
        "F32" if source_type == "F64" else source_type,
        _RowReader(path, tensor.data_offset, shape[-1], tensor.tensor_type),
    )


class _RowReader:
    """Reads rows of one tensor from its file; the mapping lives for one read."""

    def __init__(self, path: Path, offset: int, row_length: int, type_: GGMLQuantizationType) -> None:
        block_size, type_size = gguf.GGML_QUANT_SIZES[type_]
        self.path, self.offset, self.type = path, offset, type_
        self.row_bytes = row_length // block_size * type_size

    def __call__(self, first: int, last: int) -> FloatArray:
        data = np.memmap(self.path, np.uint8, "r", self.offset + first * self.row_bytes, (last - first, self.row_bytes))
        if self.type.name in FLOAT_DTYPES:
            return to_float32(data.view(FLOAT_DTYPES[self.type.name]), self.type.name)
        try:
            weights: FloatArray = gguf.dequantize(data, self.type)
        except NotImplementedError:
            raise InputError(
                f"{self.path}: {self.type.name} cannot be dequantized here; take a source of another type"
            ) from None
        return weights
