"""Speed of every tensor type by itself: encoding, and products on one thread as llama.cpp makes them.

Times are of a thread's own CPU time, so that other programs that take the core away do not count; rounds go over all
types in turn, so that a slow minute touches all of them alike.
"""

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_golf.bench.graph import F32, bytes_of, libcpu
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.progress import ProgressBar
from gguf_golf.runtime import ggml
from gguf_golf.runtime.abi import InitParams

ROW = 4096
"""Weights in a row."""

CACHE_ROWS, CACHE_REPEATS = 64, 16
"""Half a matrix that a core's own cache holds, and how often one measurement multiplies it."""

STREAM_BYTES = 192 << 20
"""A matrix that has to come from memory."""

PREFILL_ROWS, PREFILL_COLUMNS = 256, 512
ENCODE_ROWS = 16

QUANTITIES = ("cache_ns_per_weight", "stream_ns_per_weight", "prefill_ns_per_weight", "encode_weights_per_s")


@dataclass
class TypeSpeed:
    """Measurements of one type; `samples` has a list of one number a round for each of QUANTITIES.

    cache and stream: nanoseconds for one weight in a product of a matrix with one column. prefill: for one weight and
    column, with 512 columns. encode: weights quantized in a second.
    """

    type: quant_types.QuantType
    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in QUANTITIES})

    def median(self, quantity: str) -> float:
        """The middle of the rounds."""
        return statistics.median(self.samples[quantity])

    def to_json(self) -> dict[str, Any]:
        """The type, its bits, the medians, and [least, most] of each quantity."""
        medians = {name: self.median(name) for name in QUANTITIES}
        spreads = {name: [min(values), max(values)] for name, values in self.samples.items()}
        return {"type": self.type.name, "bpw": self.type.bpw, **medians, "spread": spreads}


def measure(names: Sequence[str] = (), rounds: int = 5, progress: bool = True) -> list[TypeSpeed]:
    """Measure the named types, or every type that the runtime can quantize and multiply; `rounds` times each.

    Raises InputError for a name that is no such type.
    """
    rng = np.random.default_rng(0)
    rows = (0.02 * rng.standard_normal((CACHE_ROWS, ROW))).astype(np.float32)
    available = {quant_type.name: (quant_type, data) for quant_type, data in _quantized(rows)}
    for name in names:
        if name not in available:
            raise InputError(f"{name} is not a type that can be measured; types are {', '.join(available)}")
    chosen = [available[name] for name in names or available]

    speeds = [TypeSpeed(quant_type) for quant_type, _ in chosen]
    with ProgressBar(total=rounds * len(chosen), unit="type", disable=not progress) as bar:
        for _ in range(rounds):
            for speed, (quant_type, data) in zip(speeds, chosen, strict=True):
                bar.set_postfix_str(quant_type.name)
                _measure_once(speed, data, rows)
                bar.update()
    return speeds


def table(speeds: Sequence[TypeSpeed]) -> str:
    """The medians as text, each with half the distance between its least and its most in percent."""
    heads = ("cache ns/w", "stream ns/w", "prefill ns/w", "encode Mw/s")
    lines = [f"{'type':9}{'bpw':>7}" + "".join(f"{head:>18}" for head in heads)]
    for speed in speeds:
        line = f"{speed.type.name:9}{speed.type.bpw:7.3f}"
        for name in QUANTITIES:
            values, middle = speed.samples[name], speed.median(name)
            shown = f"{middle / 1e6:.2f}" if name == "encode_weights_per_s" else f"{middle:.4f}"
            line += f"{shown:>11} ±{(max(values) - min(values)) / 2 / middle:4.0%} "
        lines.append(line.rstrip())
    return "\n".join(lines)


def _quantized(rows: NDArray[np.float32]) -> list[tuple[quant_types.QuantType, NDArray[np.uint8]]]:
    """`rows` in every type that ggml can make and multiply."""
    found = []
    for quant_type in quant_types.ALL.values():
        if quant_type.id == F32 or not libcpu().ggml_get_type_traits_cpu(quant_type.id).contents.vec_dot:
            continue
        try:
            found.append((quant_type, ggml.quantize(quant_type.id, rows, np.ones(ROW, np.float32))))
        except InputError:  # a type of activations
            continue
    return found


def _measure_once(speed: TypeSpeed, data: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
    """One round of one type; `data` is `rows` in that type."""
    type_id, row_bytes = speed.type.id, data.shape[1]

    def nanoseconds(matrix_rows: int, columns: int, repeats: int, runs: int) -> float:
        """Of all products, for one row's weight and column."""
        with _Products(type_id, data, matrix_rows, columns, repeats) as products:
            return min(_cpu_seconds(products.compute) for _ in range(runs)) * 1e9 / (ROW * columns * repeats)

    # twice the rows less once the rows: quantizing the column, is negligible for a real matrix and left out
    double, single = (nanoseconds(rows, 1, CACHE_REPEATS, runs=10) for rows in (2 * CACHE_ROWS, CACHE_ROWS))
    stream_rows = STREAM_BYTES // row_bytes

    samples = speed.samples
    samples["cache_ns_per_weight"].append((double - single) / CACHE_ROWS)
    samples["stream_ns_per_weight"].append(nanoseconds(stream_rows, 1, 1, runs=2) / stream_rows)
    samples["prefill_ns_per_weight"].append(nanoseconds(PREFILL_ROWS, PREFILL_COLUMNS, 1, runs=2) / PREFILL_ROWS)

    part, importance = rows[:ENCODE_ROWS], np.ones(ROW, np.float32)
    out = np.empty((ENCODE_ROWS, row_bytes), np.uint8)
    quantize = libcpu().ggml_quantize_chunk
    seconds = _cpu_seconds(
        lambda: quantize(type_id, part.ctypes.data, out.ctypes.data, 0, ENCODE_ROWS, ROW, importance.ctypes.data)
    )
    samples["encode_weights_per_s"].append(part.size / seconds)


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


class _Products:
    """A ggml graph that multiplies one matrix `repeats` times with the same columns, on the calling thread."""

    def __init__(self, type_id: int, data: NDArray[np.uint8], rows: int, columns: int, repeats: int) -> None:
        lib = libcpu()
        size = rows * data.shape[1] + 4 * columns * (ROW + rows * repeats) + (4 << 20)
        self._context = lib.ggml_init(InitParams(size, None, False))
        matrix = lib.ggml_new_tensor_2d(self._context, type_id, ROW, rows)
        bytes_of(matrix, rows * data.shape[1])[:] = np.resize(data, rows * data.shape[1])

        values = np.random.default_rng(1).standard_normal((columns, ROW), dtype=np.float32)
        activations = lib.ggml_new_tensor_2d(self._context, F32, ROW, columns)
        bytes_of(activations, values.nbytes)[:] = values.view(np.uint8).ravel()

        self._graph = lib.ggml_new_graph(self._context)
        for _ in range(repeats):
            lib.ggml_build_forward_expand(self._graph, lib.ggml_mul_mat(self._context, matrix, activations))
        self._plan = lib.ggml_graph_plan(self._graph, 1, None)
        self._work = np.empty(self._plan.work_size + 64, np.uint8)
        self._plan.work_data = self._work.ctypes.data
        self.compute()  # everything has been touched once

    def compute(self) -> None:
        """All products."""
        libcpu().ggml_graph_compute(self._graph, ctypes.byref(self._plan))

    def __enter__(self) -> "_Products":
        return self

    def __exit__(self, *_: object) -> None:
        libcpu().ggml_free(self._context)
