"""What was written is loaded and run before success is said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from gguf_golf.errors import InputError
from gguf_golf.models import LazyTensor, Model, open_model
from gguf_golf.quantize.load_check import check_loads
from tests.models.checkpoints import build
from tests.models.conftest import write_gguf


def test_a_file_that_runs_has_nothing_to_note(tiny: Callable[[str], Path], tiny_dir: Path) -> None:
    assert check_loads(tiny("q4_k"), open_model(tiny("f32")), tiny_dir) == []


def test_tokens_that_are_not_the_checkpoints_are_said(tmp_path: Path) -> None:
    checkpoint = build("llama3-scaled", tmp_path)
    model = open_model(checkpoint)
    pre = next(i for i, field in enumerate(model.metadata) if field.key == gguf.Keys.Tokenizer.PRE)
    model.metadata[pre] = model.metadata[pre]._replace(value="gpt-2")
    path = write_gguf(model, tmp_path / "m.gguf")
    (note,) = check_loads(path, model, checkpoint)
    assert note.startswith("WARNING: 1 awkward texts get other tokens: '  two spaces, then one at the end ' becomes [")
    assert note.endswith(" in the checkpoint's tokenizer")


@pytest.mark.parametrize("change", ["a tensor is missing", "llama.cpp gives up"])
def test_a_file_that_does_not_run_is_set_aside(change: str, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model, path = open_model(tiny("f32")), tmp_path / "m.gguf"
    if change == "a tensor is missing":
        del model.tensors[5]
    else:  # an assertion of its loader
        count = gguf.Keys.LLM.EXPERT_COUNT.format(arch="llama")
        model.metadata.append(
            model.metadata[-1]._replace(key=count, value=4, type=gguf.GGUFValueType.UINT32, sub_type=None)
        )
    write_gguf(model, path)
    with pytest.raises(InputError, match=r"m\.gguf was written, but does not run; it is now m\.gguf\.broken: .*"):
        check_loads(path, model)
    assert not path.exists()
    assert (tmp_path / "m.gguf.broken").exists()


def times(model: Model, name: str, factor: float) -> Model:
    """The model with one tensor multiplied."""

    def changed(tensor: LazyTensor) -> LazyTensor:
        read = tensor.read_rows
        return replace(tensor, read_rows=lambda first, last: read(first, last) * np.float32(factor))

    return replace(model, tensors=[changed(t) if t.name == name else t for t in model.tensors])


def test_logits_that_are_not_finite_are_a_failure_unless_the_source_has_them_too(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    source = open_model(tiny("f32"))
    overflowing, path = times(source, "blk.0.attn_v.weight", 1e30), tmp_path / "m.gguf"
    write_gguf(overflowing, path)
    (note,) = check_loads(path, overflowing)
    assert note.startswith("WARNING: ") and "the source's own weights in F32 do that too" in note
    with pytest.raises(
        InputError, match=r"it is now m\.gguf\.broken: .* NaN or infinite .* the source's own weights do not"
    ):
        check_loads(path, source)
    assert [each.name for each in tmp_path.iterdir()] == ["m.gguf.broken"]
