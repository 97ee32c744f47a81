"""What each tensor could be stored in: types, exact bytes and predicted damage, ready for the knapsack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.tensors import TensorInfo
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan.constraints import KEPT_WITHIN, Constraints
from gguf_golf.plan.correction import UNCORRECTED, Correction, part_of
from gguf_golf.plan.knapsack import Item
from gguf_golf.sensitivity.result import Sensitivity, SuperWeight


@dataclass(frozen=True)
class Group:
    """Tensors that share a type (mostly one), the types they may take, and one knapsack item with an entry for each.

    `damage` is what each type is expected to cost; the item's damage is an upper confidence bound of it.
    """

    names: tuple[str, ...]
    types: tuple[QuantType, ...]
    damage: NDArray[np.float64]
    item: Item


CAUTION = 1.0
"""Standard errors (of a damage's logarithm) above the expected damage that a plan reckons with."""


def groups(
    model: Model, sensitivity: Sensitivity, constraints: Constraints, correction: Correction = UNCORRECTED
) -> list[Group]:
    """The candidates of every quantizable tensor of the model, in its order, with corrected damages.

    Raises InputError where the constraints leave nothing, or the sensitivity file is of another model.
    """
    tensors = {tensor.name: tensor for tensor in model.tensors if is_quantizable(tensor)}
    multiplied = _multiplied(tensors)
    found = []
    for names in constraints.groups(list(tensors)):
        allowed = [_allowed(tensors[name], sensitivity, constraints) for name in names]
        shared = [t for t in allowed[0] if all(t in others for others in allowed[1:])]
        if not shared:
            raise InputError(f"no type is allowed for all of {', '.join(names)}, which are tied")
        sizes = [[stored_bytes(tensors[name], t) for t in shared] for name in names]
        damage = [
            [tensor_damage(sensitivity, name, t) * correction.factor(part_of(name, t)) for t in shared]
            for name in names
        ]
        doubt = [[math.exp(CAUTION * sensitivity.of(name).uncertainty(t.name)) for t in shared] for name in names]
        seconds = None
        if constraints.speed is not None:
            ns = np.array([constraints.speed.ns_per_weight[t.name] for t in shared])
            n_weights = sum(float(np.prod(tensors[name].shape)) for name in names if name in multiplied)
            seconds = 1e-9 * n_weights * ns
        bound: NDArray[np.float64] = np.sum(np.multiply(damage, doubt), 0, dtype=np.float64)
        item = Item(np.asarray(np.sum(sizes, 0), np.int64), bound, seconds)
        expected: NDArray[np.float64] = np.sum(damage, 0, dtype=np.float64)
        found.append(Group(names, tuple(shared), expected, item))
    return found


def stored_bytes(tensor: LazyTensor, quant_type: QuantType) -> int:
    """Bytes that a tensor takes in a GGUF file, padding included."""
    return TensorInfo(tensor.name, tensor.shape, quant_type).padded_bytes


def tensor_damage(sensitivity: Sensitivity, name: str, quant_type: QuantType) -> float:
    """Predicted damage of one tensor in this type, its super weights by the square of their error."""
    damage = sensitivity.of(name).damage(quant_type.name)
    for weight in _kept_weights(sensitivity, name):
        damage += float(np.mean(weight.kld)) * weight.errors[quant_type.name] ** 2
    return damage


def kept_by(sensitivity: Sensitivity, chosen: Mapping[str, QuantType]) -> dict[str, str]:
    """How each confirmed super weight is kept by the chosen types, in words, by its place."""
    words = {}
    for weight in sensitivity.super_weights:
        if weight.confirmed:
            name = chosen[weight.tensor].name
            how = f"an outlier slot of {name}" if name in weight.in_slot else f"the levels of {name}"
            words[f"{weight.tensor}[{weight.row}, {weight.channel}]"] = (
                f"kept to {100 * weight.errors[name]:.2g}% by {how}; losing it costs KLD {np.mean(weight.kld):.2g}"
            )
    return words


def _allowed(tensor: LazyTensor, sensitivity: Sensitivity, constraints: Constraints) -> list[QuantType]:
    candidates = [
        name for name in sensitivity.of(tensor.name).errors if quant_types.get(name).divides(tensor.shape[-1])
    ]
    allowed = constraints.allowed(tensor.name, tensor.shape[-1], candidates)
    weights = _kept_weights(sensitivity, tensor.name)
    keeping = [t for t in allowed if all(weight.errors[t.name] <= KEPT_WITHIN for weight in weights)]
    return keeping or allowed  # a pin may leave no type that keeps the weight; then the damage says so


def _kept_weights(sensitivity: Sensitivity, name: str) -> list[SuperWeight]:
    return [weight for weight in sensitivity.super_weights if weight.confirmed and weight.tensor == name]


def _multiplied(tensors: Mapping[str, LazyTensor] | Sequence[str]) -> set[str]:
    """Tensors that every generated token is multiplied with: all but an embedding with a head of its own."""
    untied = "output.weight" in tensors
    return {name for name in tensors if not (untied and name == "token_embd.weight")}
