"""llama-quantize's mixes by its dry run, against files that llama-quantize itself has written."""

import subprocess

import gguf
import pytest

from gguf_golf.errors import InputError
from gguf_golf.plan.mixes import mix_names, mixes
from gguf_golf.runtime.session import bindings


@pytest.fixture(scope="module")
def base(tiny):
    return tiny("bf16")


def test_every_mix_has_the_types_of_llama_quantizes_file(base, llama_tool, tmp_path):
    for name, chosen in mixes(base, has_imatrix=False).items():
        if name in ("Q4_K_M", "Q3_K_L", "IQ4_XS"):
            path = tmp_path / f"{name}.gguf"
            subprocess.run([llama_tool("llama-quantize"), base, path, name], check=True, capture_output=True)
            written = {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors}
            assert {name: quant_type.name for name, quant_type in chosen.items()} == written


def test_mixes_that_need_an_imatrix_are_left_out_without_one(base):
    without, with_one = mixes(base, has_imatrix=False), mixes(base, has_imatrix=True)
    assert {"Q4_K_M", "Q2_K"} <= set(without)
    assert {"IQ2_XXS", "IQ1_S"} <= set(with_one) - set(without)


def test_our_own_and_plain_types_are_no_mixes():
    assert not [name for name in mix_names() if "TCQ" in name or name in ("F16", "BF16")]
    assert mix_names()["Q4_K_M"] == bindings().LLAMA_FTYPE_MOSTLY_Q4_K_M


def test_a_file_that_llama_cpp_cannot_read_is_named(tmp_path):
    path = tmp_path / "none.gguf"
    with pytest.raises(InputError, match=r"none\.gguf"):
        mixes(path, has_imatrix=True)
