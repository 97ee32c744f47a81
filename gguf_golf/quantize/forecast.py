"""What `--dry-run` says before a file is written: its types, its exact size, and about how long encoding takes."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gguf_golf.container.layout import lay_out
from gguf_golf.container.tensors import tensor_infos
from gguf_golf.encode import Encoder, Guide
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.quantize.prepare import Prepared

TIMED_WEIGHTS = 1 << 16
"""Weights that each type is tried on."""


@dataclass(frozen=True)
class Forecast:
    """A file that could be written: what each tensor becomes by name, its size, and seconds of encoding."""

    types: dict[str, str]
    file_bytes: int
    seconds: float
    notes: list[str]

    def __str__(self) -> str:
        return f"{self.file_bytes:,} bytes; {counted(self.types.values())}; encoding takes about {self.seconds:.0f} s"

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def counted(types: Iterable[str]) -> str:
    """How many tensors have which type, the most frequent first."""
    return "tensors: " + ", ".join(f"{count} in {name}" for name, count in Counter(types).most_common())


def forecast(made: Prepared) -> Forecast:
    """What writing this would give: nothing is written, and only some rows of the largest tensors are read."""
    layout = lay_out(tensor_infos(made.model, made.types, made.protected), made.metadata)
    names = {name: quant_type.name for name, quant_type in made.types.items()}
    names |= {name: f"{names[name]} + {rows}" for name, rows in made.protected.items()}
    seconds = encoding_seconds(made.model, made.types, made.guide, made.encoder)
    return Forecast(names, layout.file_bytes, seconds, made.notes)


def encoding_seconds(model: Model, chosen: Mapping[str, QuantType], guide: Guide, encoder: Encoder) -> float:
    """How long encoding takes: each type is timed on rows of the largest tensor that has it."""
    total = 0.0
    for quant_type in {each.name: each for each in chosen.values() if each.is_quantized}.values():
        tensors = [tensor for tensor in model.tensors if chosen[tensor.name] == quant_type]
        largest = max(tensors, key=_weights)
        total += _seconds_per_weight(largest, quant_type, guide, encoder) * sum(map(_weights, tensors))
    return total


def _seconds_per_weight(tensor: LazyTensor, quant_type: QuantType, guide: Guide, encoder: Encoder) -> float:
    k = tensor.shape[-1]
    rows = tensor.load_rows(0, min(tensor.n_rows // tensor.n_experts, max(1, TIMED_WEIGHTS // k)))
    guidance = guide.of(tensor.name, quant_type, k, 0, tensor.n_experts)
    encoder.encode(rows[:1], quant_type, guidance)  # tables are made at first use
    started = time.perf_counter()
    encoder.encode(rows, quant_type, guidance)
    return (time.perf_counter() - started) / rows.size


def _weights(tensor: LazyTensor) -> int:
    return tensor.n_rows * tensor.shape[-1]
