#!/usr/bin/env bash
# aqlm's layer changes what it would save: one forward pass on a CPU swaps two axes of its codes for good.
#
# With codebooks of 256 entries (the 1x8 and 2x8 layouts) the CPU kernel wants the codes by input group first, and the
# layer's first forward pass permutes the parameter itself, not a copy of it. From then on state_dict() holds the other
# layout. Where the layer has as many outputs as input groups, loading that into a new layer raises nothing and gives
# other weights; elsewhere it raises a size mismatch. With that shape the gradient for the input is wrong as well, from
# the first pass on: the backward pass takes the codes to be in the published layout still.
#
# Seen in: aqlm 1.1.7 with torch 2.13.0 and numba 0.66.0 on a CPU.
# Most would expect: inference leaves parameters as they are; the weights saved after it are those that were loaded.
# Why it matters: a checkpoint that was tried once and then saved (save_pretrained calls state_dict) is broken, and a
# key or value projection of a model with 8192 channels and 8 heads of 128 has exactly the shape that passes unseen.
# A converter cannot tell such a file from a good one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet aqlm==1.1.7 torch==2.13.0 numba==0.66.0 scipy==1.17.1 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import torch
from aqlm import QuantizedLinear
from aqlm.utils import _dequantize_weight, unpack_int_data

INPUTS, GROUP, BOOKS = 512, 8, 2


def layer(outputs):
    made = QuantizedLinear(INPUTS, outputs, GROUP, 1, BOOKS, 8, bias=False, dtype=torch.float32)
    torch.manual_seed(0)
    made.codes.data = torch.randint(-128, 128, made.codes.shape, dtype=torch.int8)
    made.codebooks.data = torch.randn(made.codebooks.shape)
    made.scales.data = torch.rand(made.scales.shape) + 0.5
    return made


def weight(state):
    return _dequantize_weight(unpack_int_data(state["codes"], 8), state["codebooks"], state["scales"])


def copy(state):
    return {name: value.clone() for name, value in state.items()}


square = layer(INPUTS // GROUP)
before = copy(square.state_dict())
x = torch.randn(1, INPUTS)
y = square(x)
after = copy(square.state_dict())
reference = x @ weight(before).T
print("the first pass is right:", torch.allclose(y, reference, atol=1e-3))
print("codes as before:", torch.equal(before["codes"], after["codes"]))
print("codes with two axes swapped:", torch.equal(before["codes"].permute(1, 0, 2), after["codes"]))
again = layer(INPUTS // GROUP)
again.load_state_dict(after)
share = ((again(x) - reference).norm() / reference.norm()).item()
print(f"saved and loaded: error {share:.2f} of the output's norm")
assert torch.allclose(y, reference, atol=1e-3)
assert not torch.equal(before["codes"], after["codes"])
assert torch.equal(before["codes"].permute(1, 0, 2), after["codes"])
assert share > 1

inputs = x.clone().requires_grad_()
trained = layer(INPUTS // GROUP)
trained(inputs).sum().backward()
right = weight(before).sum(0)
share = ((inputs.grad[0] - right).norm() / right.norm()).item()
print(f"gradient for the input: error {share:.2f} of its norm")
assert share > 1

oblong = layer(2 * INPUTS // GROUP)
oblong(x)
try:
    layer(2 * INPUTS // GROUP).load_state_dict(oblong.state_dict())
    message = None
except RuntimeError as error:
    message = str(error).splitlines()[1].strip()
print("other shapes:", message)
assert message is not None and "size mismatch for codes" in message
PY
