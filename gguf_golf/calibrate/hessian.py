"""Hessians H = E[x x^T] of the inputs of linear layers: what error feedback needs beyond an imatrix.

A file is a GGUF with, for each distinct input, `<input>.hessian` f32 [n_mat, k, k] (sums over rows) and
`<input>.counts` f32 [n_mat] (how many rows); n_mat is the number of experts, or 1. An input is named after the first
weight that it feeds; the arrays hessian.weights and hessian.inputs say which input each weight has, since
attention's and the FFN's first layers share theirs. Sums grow in the file itself, so memory stays bounded.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import gguf
import numpy as np
from numpy.typing import NDArray

from gguf_golf.errors import DataError, InputError

KEY_WEIGHTS = "hessian.weights"
KEY_INPUTS = "hessian.inputs"
SUFFIX_SUM = ".hessian"
SUFFIX_COUNT = ".counts"


@dataclass(frozen=True)
class Rows:
    """Rows x f32 [n, k] that enter matrix `mat` of `n_mat` of a weight; `source` names the tensor they come from."""

    weight: str
    source: str
    n_mat: int
    mat: int
    x: NDArray[np.float32]


class Survey:
    """Which weights share an input, and the shapes: seen once, before the file is laid out."""

    def __init__(self) -> None:
        self.input_of: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, int]] = {}
        self._seen: dict[tuple[str, int, int], tuple[str, NDArray[np.float32]]] = {}

    def observe(self, rows: Rows) -> None:
        """Note a weight's input. Two weights share one if it has the same name, shape and first row."""
        if rows.weight in self.input_of:
            return
        key = (rows.source, rows.n_mat, rows.x.shape[1])
        first = self._seen.get(key)
        if first is not None and np.array_equal(first[1], rows.x[0]):
            self.input_of[rows.weight] = first[0]
            return
        self.input_of[rows.weight] = rows.weight
        self.shapes[rows.weight] = (rows.n_mat, rows.x.shape[1])
        self._seen[key] = (rows.weight, rows.x[0].copy())


class Accumulator:
    """Adds up x x^T in a file that appears under its name when the `with` block ends without an exception."""

    def __init__(self, path: Path, survey: Survey) -> None:
        self._path, self._aside, self._survey = path, path.with_name(path.name + ".partial"), survey
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, NDArray[np.float32]] = {}

    def __enter__(self) -> "Accumulator":
        try:
            _lay_out(self._aside, self._survey)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        for tensor in gguf.GGUFReader(self._aside, "r+").tensors:
            if tensor.name.endswith(SUFFIX_SUM):
                self._sums[tensor.name.removesuffix(SUFFIX_SUM)] = tensor.data
            else:
                self._counts[tensor.name.removesuffix(SUFFIX_COUNT)] = tensor.data
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sums.clear()
        self._counts.clear()
        if kind is None:
            os.replace(self._aside, self._path)
        else:
            self._aside.unlink(missing_ok=True)

    def observe(self, rows: Rows) -> None:
        """Add rows of the weight that its input is named after; those of other weights are the same again."""
        if self._survey.input_of.get(rows.weight) != rows.weight:
            return
        if not np.isfinite(rows.x).all():
            raise DataError(f"activations into {rows.weight} are NaN or Inf: the model is damaged")
        sums = self._sums[rows.weight].reshape(rows.n_mat, rows.x.shape[1], rows.x.shape[1])
        sums[rows.mat] += rows.x.T @ rows.x
        self._counts[rows.weight].reshape(-1)[rows.mat] += len(rows.x)


def _lay_out(path: Path, survey: Survey) -> None:
    """Write the header and leave a hole of zeros for the data."""
    writer = gguf.GGUFWriter(path, arch="")
    writer.kv_data[0].pop(gguf.Keys.General.ARCHITECTURE, None)
    writer.add_type("hessian")
    writer.add_array(KEY_WEIGHTS, list(survey.input_of))
    writer.add_array(KEY_INPUTS, list(survey.input_of.values()))
    float32 = np.dtype(np.float32)
    for name, (n_mat, k) in survey.shapes.items():
        writer.add_tensor_info(name + SUFFIX_SUM, (n_mat, k, k), float32, n_mat * k * k * 4)
        writer.add_tensor_info(name + SUFFIX_COUNT, (n_mat,), float32, n_mat * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        header = file.seek(0, os.SEEK_END)
        start = gguf.GGUFWriter.ggml_pad(header, writer.data_alignment)
        sizes = [info.nbytes for tensors in writer.tensors for info in tensors.values()]
        file.truncate(start + sum(gguf.GGUFWriter.ggml_pad(size, writer.data_alignment) for size in sizes))


class Hessians:
    """A file of Hessians, read where it lies: memory holds those in use only."""

    def __init__(self, path: Path) -> None:
        """Raises InputError for a file that is absent, damaged or something else."""
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            reader = gguf.GGUFReader(path)
        except Exception as error:
            raise InputError(f"{path}: damaged GGUF file ({error})") from error
        general_type = reader.get_field(gguf.Keys.General.TYPE)
        if general_type is None or general_type.contents() != "hessian":
            raise InputError(f"{path}: holds no Hessians; make some with gguf-golf imatrix --hessian")
        self.path = path
        self._tensors = {tensor.name: tensor.data for tensor in reader.tensors}
        weights, inputs = (reader.get_field(key) for key in (KEY_WEIGHTS, KEY_INPUTS))
        assert weights is not None and inputs is not None
        self._input_of = dict(zip(weights.contents(), inputs.contents(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self._input_of)

    def __contains__(self, weight: object) -> bool:
        return weight in self._input_of

    def input_of(self, weight: str) -> str:
        """The name of a weight's input; weights with the same one have the same Hessian."""
        return str(self._input_of[weight])

    def shape(self, weight: str) -> tuple[int, int]:
        """(n_mat, k) of a weight's Hessians."""
        data = self._tensors[self._input_of[weight] + SUFFIX_SUM]
        k = data.shape[-1]
        return data.size // (k * k), k

    def reached(self, weight: str) -> NDArray[np.bool_]:
        """Whether any row reached each matrix of a weight: bool [n_mat]."""
        counts: NDArray[np.float32] = self._tensors[self._input_of[weight] + SUFFIX_COUNT]
        return counts.reshape(-1) > 0

    def get(self, weight: str, mat: int = 0) -> NDArray[np.float64] | None:
        """E[x x^T] f64 [k, k] of the inputs of matrix `mat`; None for an expert that no row has reached."""
        n_mat, k = self.shape(weight)
        name = self._input_of[weight]
        count = float(self._tensors[name + SUFFIX_COUNT].reshape(-1)[mat])
        if count == 0:
            return None
        sums: NDArray[np.float32] = self._tensors[name + SUFFIX_SUM].reshape(n_mat, k, k)[mat]
        return sums.astype(np.float64) / count

    def fingerprint(self) -> bytes:
        """A digest of all names and diagonals: enough to tell two files apart without reading all of them."""
        digest = hashlib.sha256(repr(self._input_of).encode())
        for name in sorted(set(self._input_of.values())):
            n_mat, k = self.shape(name)
            digest.update(np.einsum("mii->mi", self._tensors[name + SUFFIX_SUM].reshape(n_mat, k, k)).tobytes())
        return digest.digest()
