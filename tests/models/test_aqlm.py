"""AQLM checkpoints: what is read is the sum that the codes say, group by group, in a whole model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from gguf_golf.errors import InputError
from gguf_golf.models import open_model

Arrays = dict[str, npt.NDArray[Any]]
LAYOUTS = {"1x16": (8, 1, 1, 16), "2x8": (8, 1, 2, 8), "4x8 of two rows": (4, 2, 4, 8)}
"""(in_group_size, out_group_size, num_codebooks, nbits_per_codebook)"""


def quantize(path: Path, layout: tuple[int, int, int, int]) -> dict[str, npt.NDArray[np.float32]]:
    """Put random codes in place of every linear layer but the head; returns the matrices that they stand for."""
    in_group, out_group, n_books, bits = layout
    stored: Arrays = safetensors.numpy.load_file(path / "model.safetensors")
    rng = np.random.default_rng(0)
    expected = {}
    for name in [n for n in stored if n.endswith("_proj.weight")]:
        n, k = stored.pop(name).shape
        base = name.removesuffix(".weight")
        codes = rng.integers(0, 2**bits, (n // out_group, k // in_group, n_books))
        books = rng.normal(size=(n_books, 2**bits, out_group, in_group)).astype(np.float16)
        scales = rng.uniform(0.01, 0.1, (n // out_group, 1, 1, 1)).astype(np.float16)
        matrix = np.zeros((n, k), np.float32)
        for i, j, m in np.ndindex(codes.shape):
            part = matrix[i * out_group : (i + 1) * out_group, j * in_group : (j + 1) * in_group]
            part += books[m, codes[i, j, m]].astype(np.float32) * np.float32(scales[i, 0, 0, 0])
        expected[base] = matrix
        stored[f"{base}.codes"] = codes.astype(np.uint64).astype(f"i{bits // 8}")
        stored[f"{base}.codebooks"], stored[f"{base}.scales"] = books, scales
    safetensors.numpy.save_file(stored, path / "model.safetensors")
    names = ("in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook")
    edit(path, {"quant_method": "aqlm", **dict(zip(names, layout, strict=True))})
    return expected


def edit(path: Path, quantization: dict[str, Any]) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_matrices_are_the_sums_that_their_codes_say(
    checkpoint: Callable[[str], Path], layout: tuple[int, int, int, int]
) -> None:
    path = checkpoint("mistral-json")
    expected = quantize(path, layout)
    with pytest.raises(InputError, match=r"quantized \(aqlm\).*--allow-requantize, which takes it dequantized"):
        open_model(path)
    model = open_model(path, allow_requantize=True)
    down = model.tensor("blk.1.ffn_down.weight")
    np.testing.assert_allclose(down.load(), expected["model.layers.1.mlp.down_proj"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(down.load_rows(5, 9), down.load()[5:9])
    query = expected["model.layers.0.self_attn.q_proj"]
    query = query.reshape(4, 2, -1, query.shape[1])
    turned = query.swapaxes(1, 2).reshape(-1, query.shape[-1])  # pairs of rotated rows side by side, as llama.cpp wants
    np.testing.assert_allclose(model.tensor("blk.0.attn_q.weight").load(), turned, rtol=1e-5, atol=1e-6)


def test_a_note_names_the_layout_and_the_nearest_type(checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint("mistral-json")
    quantize(path, LAYOUTS["2x8"])
    notes = open_model(path, allow_requantize=True).notes
    assert [n for n in notes if "2x8, 2 bits per weight" in n and n.endswith("is tcq2")]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nbits_per_codebook": 24}, "nbits_per_codebook 24; codes of up to 16 bits"),
        ({"in_group_size": 0}, "in_group_size must be a positive integer, not 0"),
        ({"in_group_size": 7}, "groups of 1 by 7 weights do not divide"),
        ({"num_codebooks": 3}, "config.json wants"),
    ],
)
def test_settings_of_another_model_are_refused(
    checkpoint: Callable[[str], Path], changed: dict[str, int], message: str
) -> None:
    path = checkpoint("mistral-json")
    quantize(path, LAYOUTS["1x16"])
    settings = json.loads((path / "config.json").read_text())["quantization_config"]
    edit(path, settings | changed)
    with pytest.raises(InputError, match=message):
        open_model(path, allow_requantize=True)
