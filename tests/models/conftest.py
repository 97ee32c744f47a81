"""The models room's own fixtures: the synthetic checkpoints, and a small GGUF file to damage."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from gguf_golf.models import Model
from tests.models.checkpoints import build


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """checkpoint("qwen2-yarn") writes that synthetic checkpoint into the test's folder."""
    return lambda name: build(name, tmp_path)


def write_gguf(model: Model, path: Path, type_: GGMLQuantizationType | None = None, *, split: int = 0) -> Path:
    """Write a model with gguf-py alone: matrices as `type_` (default F32), vectors as F32."""
    writer = GGUFWriter(path, model.architecture, split_max_tensors=split)
    for field in model.metadata:
        if field.key != gguf.Keys.General.ARCHITECTURE:
            writer.add_key_value(field.key, field.value, field.type, field.sub_type)
    for tensor in model.tensors:
        stored = type_ if type_ is not None and len(tensor.shape) > 1 else GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(tensor.load(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def small_model_file(path: Path) -> Path:
    """A GGUF with every kind of metadata value and two tensors."""
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("k.u8", 8)
    writer.add_int8("k.i8", -8)
    writer.add_uint16("k.u16", 16)
    writer.add_int16("k.i16", -16)
    writer.add_uint32("k.u32", 32)
    writer.add_int32("k.i32", -32)
    writer.add_uint64("k.u64", 2**63)
    writer.add_int64("k.i64", -(2**62))
    writer.add_float32("k.f32", 0.5)
    writer.add_float64("k.f64", 0.1)
    writer.add_bool("k.bool", True)
    writer.add_string("k.string", "naïve")
    writer.add_array("k.ints", [1, -2, 3])
    writer.add_array("k.floats", [0.5, 1.5])
    writer.add_array("k.bools", [True, False])
    writer.add_array("k.strings", ["a", "", "é"])
    writer.add_tensor("w", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("stack", np.arange(24, dtype=np.float16).reshape(2, 3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
