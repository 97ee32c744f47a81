"""Files with types of other programs: named as such by every reader, and told apart from damaged ones."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_golf.errors import InputError
from gguf_golf.formats import foreign
from gguf_golf.formats.foreign import foreign_type
from gguf_golf.formats.quant_types import ALL
from gguf_golf.models.gguf_file import open_gguf
from gguf_golf.runtime.header import GgufHeader
from gguf_golf.runtime.session import LoadedModel

TENSOR = b"blk.0.attn_q.weight"


@pytest.fixture
def with_type(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[[int], Path]:
    """with_type(137) is golf-tiny with another type id in one tensor."""

    def make(type_id: int) -> Path:
        data = bytearray(tiny("q8_0").read_bytes())
        at = data.index(struct.pack("<Q", len(TENSOR)) + TENSOR) + 8 + len(TENSOR)
        (n_dims,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<I", data, at + 4 + 8 * n_dims, type_id)
        path = tmp_path / f"type-{type_id}.gguf"
        path.write_bytes(data)
        return path

    return make


READERS: list[Callable[[Path], object]] = [
    GgufHeader,
    LoadedModel,
    lambda path: open_gguf(path, allow_requantize=True),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("type_id", "message"), [(137, "fork"), (4, "has removed"), (1 << 31, "fork")])
def test_every_reader_names_the_type(
    with_type: Callable[[int], Path], read: Callable[[Path], object], type_id: int, message: str
) -> None:
    with pytest.raises(InputError, match=rf"tensor blk\.0\.attn_q\.weight has type {type_id}.*{message}"):
        read(with_type(type_id))


def test_llama_cpps_own_types_are_not_foreign(tiny: Callable[[str], Path]) -> None:
    assert foreign_type(tiny("tcq3")) is None
    assert not foreign.REMOVED & {quant_type.id for quant_type in ALL.values()}


def test_a_damaged_file_is_not_foreign(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    whole = tiny("q8_0").read_bytes()
    for size in (0, 4, 30, 1000, whole.index(TENSOR) + 10):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        assert foreign_type(tmp_path / "cut.gguf") is None
