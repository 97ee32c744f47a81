"""Hessians H = E[x x^T] of the inputs of linear layers: what error feedback needs beyond an imatrix.

A file is a GGUF with, for each distinct input, `<input>.hessian` f32 [n_experts, k, k] (sums over rows) and
`<input>.counts` f32 [n_experts] (how many rows); n_experts is 1 except in mixtures of experts. An input is named after
the first weight that it feeds; the arrays hessian.weights and hessian.inputs say which input each weight has, since
attention's and the FFN's first layers share theirs. Sums grow in the file itself, so memory stays bounded.
"""

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import gguf
import numpy as np
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.errors import DataError, InputError
from gguf_golf.models.gguf_file import metadata_value, read_gguf
from gguf_golf.models.gguf_header import header_bytes

KEY_WEIGHTS = "hessian.weights"
KEY_INPUTS = "hessian.inputs"
MARK = KEY_WEIGHTS.encode()
"""What every file of Hessians contains (see files.py)."""

SUFFIX_SUM = ".hessian"
SUFFIX_COUNT = ".counts"


@dataclass(frozen=True)
class Rows:
    """Rows x f32 [n, k] that enter one expert's matrix of a weight; `source` names the tensor they come from."""

    weight: str
    source: str
    n_experts: int
    expert: int
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
        key = (rows.source, rows.n_experts, rows.x.shape[1])
        first = self._seen.get(key)
        if first is not None and np.array_equal(first[1], rows.x[0]):
            self.input_of[rows.weight] = first[0]
            return
        self.input_of[rows.weight] = rows.weight
        self.shapes[rows.weight] = (rows.n_experts, rows.x.shape[1])
        self._seen[key] = (rows.weight, rows.x[0].copy())


class Accumulator:
    """Adds up x x^T in a file that appears under its name when the `with` block ends without an exception.

    `save` keeps a copy of the sums, which a later run continues with `resume`. `inputs` are files that it must not
    replace. Raises InputError for a file that cannot be written.
    """

    def __init__(
        self,
        path: Path,
        survey: Survey,
        *,
        resume: bool = False,
        inputs: Sequence[Path | None] = (),
        force: bool = False,
    ) -> None:
        self._path, self._survey, self._resume = path, survey, resume
        self._sums: dict[str, NDArray[np.float32]] = {}
        self._counts: dict[str, NDArray[np.float32]] = {}
        self._replacing = files.replace_file(path, inputs, mark=MARK, force=force)

    def __enter__(self) -> "Accumulator":
        header, places, size = _lay_out(self._survey)
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._partial = stack.enter_context(self._replacing)
            if self._resume:
                shutil.copyfile(kept_path(self._path), self._partial)
            with self._partial.open("r+b" if self._resume else "wb") as file:
                file.write(header)
                files.allocate(file, size)
            data = np.memmap(self._partial, np.uint8, "r+")
            for name, (offset, shape) in places.items():
                view = data[offset : offset + 4 * math.prod(shape)].view(np.float32).reshape(shape)
                group = self._sums if name.endswith(SUFFIX_SUM) else self._counts
                group[name.rpartition(".")[0]] = view
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sums.clear()
        self._counts.clear()
        self._stack.__exit__(kind, error, trace)

    def save(self) -> None:
        """Keep the sums so far beside the file, in place of those kept before. Raises InputError without the room."""
        with files.replace_file(kept_path(self._path)) as partial:
            shutil.copyfile(self._partial, partial)

    def observe(self, rows: Rows) -> None:
        """Add rows of the weight that its input is named after; those of weights that share the input are the same."""
        if self._survey.input_of.get(rows.weight) != rows.weight:
            return
        if not np.isfinite(rows.x).all():
            raise DataError(f"activations into {rows.weight} are NaN or Inf: the model is damaged")
        self._sums[rows.weight][rows.expert] += rows.x.T @ rows.x
        self._counts[rows.weight][rows.expert] += len(rows.x)


def kept_path(path: Path) -> Path:
    """Where the sums of an unfinished run for `path` are kept."""
    return path.with_name(path.name + ".kept")


def kept(path: Path, survey: Survey, rows: Mapping[str, NDArray[np.int64]]) -> bool:
    """Whether sums are kept for `path` with this layout, over as many rows of each weight as `rows` counts."""
    header, places, size = _lay_out(survey)
    file = kept_path(path)
    if file.is_symlink() or not file.is_file() or file.stat().st_size != size:
        return False
    with file.open("rb") as stream:
        if stream.read(len(header)) != header:
            return False
        for name in survey.shapes:
            offset, shape = places[name + SUFFIX_COUNT]
            stream.seek(offset)
            counts = np.frombuffer(stream.read(4 * math.prod(shape)), np.float32)
            if name not in rows or not (counts == rows[name].astype(np.float32)).all():
                return False
    return True


Places = dict[str, tuple[int, tuple[int, ...]]]
"""Where each tensor's data starts in the file, and its shape, by name."""


def _lay_out(survey: Survey) -> tuple[bytes, Places, int]:
    """(header, where each tensor lies, bytes of the file)."""
    writer = gguf.GGUFWriter(None, arch="")
    writer.kv_data[0].pop(gguf.Keys.General.ARCHITECTURE, None)
    writer.add_type("hessian")
    writer.add_array(KEY_WEIGHTS, list(survey.input_of))
    writer.add_array(KEY_INPUTS, list(survey.input_of.values()))
    places: Places = {}
    end = 0
    for name, (n_experts, k) in survey.shapes.items():
        for suffix, shape in ((SUFFIX_SUM, (n_experts, k, k)), (SUFFIX_COUNT, (n_experts,))):
            size = 4 * math.prod(shape)
            writer.add_tensor_info(name + suffix, shape, np.dtype(np.float32), size)
            places[name + suffix] = (end, shape)
            end += gguf.GGUFWriter.ggml_pad(size, writer.data_alignment)
    header = header_bytes(writer)
    header = header.ljust(gguf.GGUFWriter.ggml_pad(len(header), writer.data_alignment), b"\0")
    return header, {name: (len(header) + at, shape) for name, (at, shape) in places.items()}, len(header) + end


class Hessians:
    """A file of Hessians, mapped into memory: only those in use are loaded."""

    def __init__(self, path: Path) -> None:
        """Raises InputError for a file that is absent, damaged or something else."""
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        reader = read_gguf(path)
        if metadata_value(reader, gguf.Keys.General.TYPE) != "hessian":
            raise InputError(f"{path}: holds no Hessians; make some with gguf-golf imatrix --hessian")
        self.path = path
        self._tensors = {tensor.name: tensor.data for tensor in reader.tensors}
        weights, inputs = (metadata_value(reader, key) for key in (KEY_WEIGHTS, KEY_INPUTS))
        if not (isinstance(weights, list) and isinstance(inputs, list) and len(weights) == len(inputs)) or not all(
            isinstance(name, str) for name in [*weights, *inputs]
        ):
            raise InputError(f"{path}: does not say which weight has which Hessian: it is damaged")
        self._input_of: dict[str, str] = dict(zip(weights, inputs, strict=True))
        if foreign := set(inputs) - {*weights}:
            raise InputError(f"{path}: the input {min(foreign)} is not named after one of its weights: it is damaged")
        for name in set(self._input_of.values()):
            self._check(name)

    def _check(self, name: str) -> None:
        """Raise InputError unless an input has counts f32 [n_experts] and a square matrix of sums f32 for each."""
        sums, counts = (self._tensors.get(name + suffix) for suffix in (SUFFIX_SUM, SUFFIX_COUNT))
        if sums is None or counts is None:
            raise InputError(f"{self.path}: {name} lacks its sums or its counts: the file is damaged")
        square = sums.size and sums.ndim in (2, 3) and sums.shape[-1] == sums.shape[-2]
        if sums.dtype != np.float32 or counts.dtype != np.float32 or not square:
            raise InputError(f"{self.path}: {name} is not a square matrix of F32 for each expert: the file is damaged")
        if counts.size != sums.size // sums.shape[-1] ** 2:
            raise InputError(f"{self.path}: {name} has {sums.shape} sums and {counts.size} counts: it is damaged")
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise DataError(f"{self.path}: {name} has negative or non-finite counts; collect the Hessians again")

    def __iter__(self) -> Iterator[str]:
        return iter(self._input_of)

    def __contains__(self, weight: object) -> bool:
        return weight in self._input_of

    def input_of(self, weight: str) -> str:
        """The name of a weight's input; weights with the same one have the same Hessian."""
        return str(self._input_of[weight])

    def shape(self, weight: str) -> tuple[int, int]:
        """(n_experts, k) of a weight's Hessians."""
        data = self._tensors[self._input_of[weight] + SUFFIX_SUM]
        k = data.shape[-1]
        return data.size // (k * k), k

    def counts(self, weight: str) -> NDArray[np.float32]:
        """How many rows reached each expert of a weight: f32 [n_experts]."""
        counts: NDArray[np.float32] = self._tensors[self._input_of[weight] + SUFFIX_COUNT]
        return counts.reshape(-1)

    def pooled(self, weight: str) -> NDArray[np.float64]:
        """E[x x^T] f64 [k, k] of the inputs of all experts of a weight together; zeros if no row reached any."""
        _, k = self.shape(weight)
        sums: NDArray[np.float32] = self._tensors[self._input_of[weight] + SUFFIX_SUM].reshape(-1, k, k)
        pooled: NDArray[np.float64] = sums.sum(0, dtype=np.float64) / max(1.0, float(self.counts(weight).sum()))
        return pooled

    def get(self, weight: str, expert: int = 0) -> NDArray[np.float64] | None:
        """E[x x^T] f64 [k, k] of the inputs of expert `expert`; None for an expert that no row has reached."""
        n_experts, k = self.shape(weight)
        name = self._input_of[weight]
        count = float(self._tensors[name + SUFFIX_COUNT].reshape(-1)[expert])
        if count == 0:
            return None
        sums: NDArray[np.float32] = self._tensors[name + SUFFIX_SUM].reshape(n_experts, k, k)[expert]
        return sums.astype(np.float64) / count

    def fingerprint(self) -> bytes:
        """A digest of all names and diagonals: enough to tell two files apart without reading all of them."""
        digest = hashlib.sha256(repr(self._input_of).encode())
        for name in sorted(set(self._input_of.values())):
            n_experts, k = self.shape(name)
            digest.update(np.einsum("mii->mi", self._tensors[name + SUFFIX_SUM].reshape(n_experts, k, k)).tobytes())
        return digest.digest()
