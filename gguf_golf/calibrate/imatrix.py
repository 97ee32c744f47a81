"""Read and write importance matrices in llama.cpp's GGUF format; collecting them is `collect.py`'s job.

An entry holds, for one weight tensor, the sums of squared activations of each input channel, and the number of rows
that were summed: tensors `<name>.in_sum2` f32 [n_experts, k] and `<name>.counts` f32 [n_experts, 1] (llama.cpp
tools/imatrix). n_experts is 1 except in mixtures of experts. Our own `<name>.in_peak` f32 [n_experts, k], the largest
|x|, is ignored by llama.cpp, and so is `token_counts` f32 [n_vocab]: how often each token is in the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import gguf
import numpy as np
from numpy.typing import NDArray

from gguf_golf import files
from gguf_golf.errors import DataError, InputError
from gguf_golf.models.gguf_file import metadata_value, read_gguf

KEY_DATASETS = "imatrix.datasets"
KEY_CHUNK_COUNT = "imatrix.chunk_count"
KEY_CHUNK_SIZE = "imatrix.chunk_size"
SUFFIX_SUM = ".in_sum2"
SUFFIX_COUNT = ".counts"
SUFFIX_PEAK = ".in_peak"
TOKEN_COUNTS = "token_counts"
MARK = SUFFIX_PEAK.encode()
"""What every imatrix that `collect` writes contains (see files.py)."""

LEAST = np.float32(1e-12)
"""Of the mean importance: no channel counts less than this."""

BLOCK = 256  # channels whose weights share a scale in most types
LEAST_IN_BLOCK = np.float32(1e-6)
"""Of the largest importance in a block: below it, encoders that add up errors in F32 lose sight of a channel."""


@dataclass
class ImatrixEntry:
    """Statistics of the inputs of one weight: `in_sum2` f32 or f64 [n_experts, k], `counts` int64 [n_experts or 1]."""

    in_sum2: NDArray[np.floating]
    counts: NDArray[np.int64]
    peak: NDArray[np.float32] | None = None


@dataclass
class Imatrix:
    """All entries by weight name, with what they were collected on; `token_counts` int64 [n_vocab], of whose tokens, if
    it is known."""

    entries: dict[str, ImatrixEntry]
    datasets: list[str] = field(default_factory=list)
    chunk_count: int = 0
    chunk_size: int = 512
    token_counts: NDArray[np.int64] | None = None

    def frequent_tokens(self, n: int) -> NDArray[np.int64]:
        """The `n` most frequent tokens, ascending; among equals those of lower number."""
        assert self.token_counts is not None
        return np.sort(np.argsort(-self.token_counts, kind="stable")[:n])

    def importance(self, name: str) -> NDArray[np.float32]:
        """Mean squared activation f32 [n_experts, k] of the named weight tensor.

        An expert that was never chosen has no data: it gets ones (all channels alike), as in llama-quantize. So does
        one whose channels were all zero; single channels that were always zero count as the least of the others, since
        a block of weights that do not matter at all would be encoded as nothing, and none for less than a millionth of
        the largest in its block. Raises InputError if the imatrix has no such entry.
        """
        if name not in self.entries:
            raise InputError(f"the imatrix has no entry for {name}; was it collected on the same architecture?")
        entry = self.entries[name]
        counts = np.broadcast_to(entry.counts.reshape(-1, 1), (len(entry.in_sum2), 1))
        mean = np.where(counts > 0, entry.in_sum2 / np.maximum(counts, 1), 1.0).astype(np.float32)
        for row in mean:
            if not row.all():
                known = row[row > 0]
                row[row == 0] = max(known.min(), LEAST * known.mean()) if known.size else 1.0
        starts = np.arange(0, mean.shape[1], BLOCK)
        largest = np.maximum.reduceat(mean, starts, axis=1)
        least = np.repeat(LEAST_IN_BLOCK * largest, np.diff([*starts, mean.shape[1]]), axis=1)
        return np.maximum(mean, least)

    def notes(self) -> list[str]:
        """What a user should be told: how many experts the calibration text never chose."""
        stacks = [entry.counts for entry in self.entries.values() if len(entry.counts) > 1]
        idle = sum(int((counts == 0).sum()) for counts in stacks)
        if not idle:
            return []
        worst = max((name for name in self.entries), key=lambda name: int((self.entries[name].counts == 0).sum()))
        missing = int((self.entries[worst].counts == 0).sum())
        return [
            f"the calibration text never chose {idle} of {sum(map(len, stacks))} experts' matrices (most of {worst}, "
            f"{missing} of {len(self.entries[worst].counts)}): what their siblings see stands in; use more text"
        ]


def read(path: str | Path) -> Imatrix:
    """Read a GGUF imatrix, ours or llama-imatrix's.

    Raises InputError for a foreign, old (.dat) or damaged file, and DataError for numbers that are not sums of squares.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(
                f"{path}: not a GGUF imatrix; an old .dat file converts with "
                "gguf-golf tool llama-imatrix --in-file OLD.dat -o NEW.gguf -m ANY.gguf "
                "(it asks for a model, but reads none)"
            )
    reader = read_gguf(path)
    if _value(reader, gguf.Keys.General.TYPE, "") != "imatrix":
        raise InputError(f"{path}: a GGUF file, but not an imatrix; make one with gguf-golf imatrix")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    entries = {}
    for name in tensors:
        if name.endswith(SUFFIX_SUM):
            weight = name.removesuffix(SUFFIX_SUM)
            entries[weight] = _entry(path, weight, tensors)
    if not entries:
        raise InputError(f"{path}: the imatrix is empty")
    datasets = _value(reader, KEY_DATASETS, list[str]())
    return Imatrix(
        entries,
        [str(name) for name in datasets],
        _value(reader, KEY_CHUNK_COUNT, 0),
        _value(reader, KEY_CHUNK_SIZE, 512),
        _counts(path, TOKEN_COUNTS, tensors) if TOKEN_COUNTS in tensors else None,
    )


def write(imatrix: Imatrix, path: str | Path, inputs: Sequence[Path | None] = ()) -> None:
    """Write `imatrix` as llama.cpp does; `inputs` are files that it must not replace. Raises InputError."""
    writer = gguf.GGUFWriter(None, arch="")
    # GGUFWriter always states an architecture; an imatrix has none
    writer.kv_data[0].pop(gguf.Keys.General.ARCHITECTURE, None)
    writer.add_type("imatrix")
    writer.add_array(KEY_DATASETS, imatrix.datasets)
    writer.add_uint32(KEY_CHUNK_COUNT, imatrix.chunk_count)
    writer.add_uint32(KEY_CHUNK_SIZE, imatrix.chunk_size)
    for name in sorted(imatrix.entries):
        entry = imatrix.entries[name]
        writer.add_tensor(name + SUFFIX_SUM, np.ascontiguousarray(entry.in_sum2, np.float32))
        writer.add_tensor(name + SUFFIX_COUNT, entry.counts.astype(np.float32).reshape(-1, 1))
        if entry.peak is not None:
            writer.add_tensor(name + SUFFIX_PEAK, np.ascontiguousarray(entry.peak, np.float32))
    if imatrix.token_counts is not None:
        writer.add_tensor(TOKEN_COUNTS, imatrix.token_counts.astype(np.float32))
    with files.replace_file(Path(path), inputs) as partial:
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


Value = TypeVar("Value", str, int, list[str])


def _value(reader: gguf.GGUFReader, key: str, default: Value) -> Value:
    """A metadata value; the default where it is absent or of another kind."""
    found = metadata_value(reader, key)
    return found if isinstance(found, type(default)) else default


def _numbers(path: Path, name: str, tensors: Mapping[str, gguf.ReaderTensor]) -> NDArray[np.float32]:
    tensor = tensors[name]
    if tensor.tensor_type != gguf.GGMLQuantizationType.F32:
        raise InputError(f"{path}: {name} is {tensor.tensor_type.name}, and an imatrix holds F32")
    values = np.array(tensor.data, np.float32)
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError(
            f"{path}: {name} holds NaN, Inf or negative numbers, and these are sums of squares and counts; collect the "
            "imatrix again"
        )
    return values


def _counts(path: Path, name: str, tensors: Mapping[str, gguf.ReaderTensor]) -> NDArray[np.int64]:
    counted = _numbers(path, name, tensors).reshape(-1)
    if (counted >= 2**53).any():
        raise InputError(f"{path}: {name} counts more than any text has: it is damaged")
    return np.rint(counted).astype(np.int64)


def _entry(path: Path, weight: str, tensors: Mapping[str, gguf.ReaderTensor]) -> ImatrixEntry:
    if weight + SUFFIX_COUNT not in tensors:
        raise InputError(f"{path}: {weight}{SUFFIX_SUM} has no {weight}{SUFFIX_COUNT}")
    sums = _numbers(path, weight + SUFFIX_SUM, tensors)
    if not sums.size:
        raise InputError(f"{path}: {weight}{SUFFIX_SUM} is empty: the file is damaged; collect the imatrix again")
    sums = sums.reshape(-1, sums.shape[-1])
    counts = _counts(path, weight + SUFFIX_COUNT, tensors)
    if len(counts) not in (1, len(sums)):
        raise InputError(f"{path}: {weight} has {len(sums)} rows of sums and {len(counts)} counts: it is damaged")
    if weight + SUFFIX_PEAK not in tensors:
        return ImatrixEntry(sums, counts)
    peak = _numbers(path, weight + SUFFIX_PEAK, tensors)
    if peak.size != sums.size:
        raise InputError(f"{path}: {weight} has {sums.size} sums and {peak.size} peaks: it is damaged")
    return ImatrixEntry(sums, counts, peak.reshape(sums.shape))
