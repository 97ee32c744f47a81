"""What was written is loaded and run before success is said."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from gguf_golf.errors import InputError
from gguf_golf.models import open_model
from gguf_golf.quantize import load_check
from gguf_golf.quantize.load_check import check_loads
from tests.models.conftest import write_gguf


def test_a_file_that_runs_has_nothing_to_note(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_loads(tiny("q4_k")) == []
    monkeypatch.setattr(load_check, "DECODED_BYTES", 0)
    assert check_loads(tiny("q4_k")) == []


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
        check_loads(path)
    assert not path.exists()
    assert (tmp_path / "m.gguf.broken").exists()
