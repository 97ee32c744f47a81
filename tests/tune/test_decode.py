"""TCQ decoded with tensors: every bit as formats/tcq.py has it."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [tune] extra")

import torch

from gguf_golf.formats import quant_types, tcq
from gguf_golf.tune.decode import _decode_tcq


@pytest.mark.parametrize("name", quant_types.TCQ_FORMATS)
def test_any_bytes_decode_to_the_same_weights(name: str) -> None:
    fmt = quant_types.TCQ_FORMATS[name]
    blocks = np.random.default_rng(0).integers(0, 256, (300, fmt.type_size), np.uint8)
    found = _decode_tcq(fmt, torch.from_numpy(blocks)).numpy()
    assert np.array_equal(found.view(np.uint32), tcq.dequantize(fmt, blocks).view(np.uint32))
