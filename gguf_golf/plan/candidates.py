"""What each tensor could be stored in: types, exact bytes and predicted damage, ready for the knapsack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_golf.container.tensors import TensorInfo, companion_infos
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import DEFAULT_RESIDUAL, NOT_APPLIED, Protected, protected
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import LazyTensor, Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan.constraints import KEPT_WITHIN, Constraints
from gguf_golf.plan.correction import UNCORRECTED, Correction, part_of
from gguf_golf.plan.knapsack import Item
from gguf_golf.sensitivity.result import Sensitivity, SuperWeight


@dataclass(frozen=True)
class Choice:
    """What a tensor may become: a type, with protected rows or without, which leave a share `left` of its error."""

    type: QuantType
    protected: Protected | None = None
    left: float = 1.0


@dataclass(frozen=True)
class Group:
    """Tensors that share a type (mostly one), the choices that they have, and one knapsack item with an entry for each.

    `damage` is what each choice is expected to cost; the item's damage is an upper confidence bound of it.
    """

    names: tuple[str, ...]
    choices: tuple[Choice, ...]
    damage: NDArray[np.float64]
    item: Item


CAUTION = 1.0
"""Standard errors (of a damage's logarithm) above the expected damage that a plan reckons with."""

RESIDUAL_ERROR = 0.062
"""What DEFAULT_RESIDUAL leaves of the energy of noise, as which a residual comes (docs/formats.md: 12.1 dB)."""


def groups(
    model: Model,
    sensitivity: Sensitivity,
    constraints: Constraints,
    correction: Correction = UNCORRECTED,
) -> list[Group]:
    """The candidates of every quantizable tensor of the model, in its order, with corrected damages; protected rows
    are among them where it was measured what they save.

    Raises InputError where the constraints leave nothing, or the sensitivity file is of another model.
    """
    tensors = {tensor.name: tensor for tensor in model.tensors if is_quantizable(tensor)}
    multiplied = _multiplied(tensors)
    found = []
    for names in constraints.groups(list(tensors)):
        allowed = [_allowed(tensors[name], sensitivity, constraints) for name in names]
        shared = [Choice(t) for t in allowed[0] if all(t in others for others in allowed[1:])]
        if not shared:
            raise InputError(f"no type is allowed for all of {', '.join(names)}, which are tied")
        if len(names) == 1 and model.architecture not in NOT_APPLIED:
            shared += _protecting(tensors[names[0]], shared, sensitivity, constraints)
        sizes = [[stored_bytes(tensors[name], choice) for choice in shared] for name in names]
        damage = [
            [tensor_damage(sensitivity, name, c) * correction.factor(part_of(name, c.type)) for c in shared]
            for name in names
        ]
        doubt = [[math.exp(CAUTION * sensitivity.of(name).uncertainty(c.type.name)) for c in shared] for name in names]
        seconds = None
        if constraints.speed is not None:
            ns = constraints.speed.ns_per_weight
            seconds = 1e-9 * np.array([sum(_ns(tensors[n], c, ns) for n in names if n in multiplied) for c in shared])
        bound: NDArray[np.float64] = np.sum(np.multiply(damage, doubt), 0, dtype=np.float64)
        item = Item(np.asarray(np.sum(sizes, 0), np.int64), bound, seconds)
        expected: NDArray[np.float64] = np.sum(damage, 0, dtype=np.float64)
        found.append(Group(names, tuple(shared), expected, item))
    return found


def _protecting(
    tensor: LazyTensor, plain: Sequence[Choice], sensitivity: Sensitivity, constraints: Constraints
) -> list[Choice]:
    """The same types with protected rows, as many as were measured."""
    residual = protected(0, DEFAULT_RESIDUAL, tensor.shape[-1]).type
    if not constraints.protects(tensor.name, residual):
        return []
    return [
        Choice(choice.type, Protected(int(n_rows), residual), 1 - saved * (1 - RESIDUAL_ERROR))
        for n_rows, saved in sensitivity.of(tensor.name).rows_saved.items()
        for choice in plain
    ]


def _ns(tensor: LazyTensor, choice: Choice, ns_per_weight: Mapping[str, float]) -> float:
    """Nanoseconds that a product with a tensor takes."""
    ns = math.prod(tensor.shape) * ns_per_weight[choice.type.name]
    if choice.protected is not None:
        ns += choice.protected.n_rows * tensor.shape[-1] * ns_per_weight[choice.protected.type.name]
    return ns


def stored_bytes(tensor: LazyTensor, choice: Choice) -> int:
    """Bytes that a tensor takes in a GGUF file, its protected rows and padding included."""
    infos = [TensorInfo(tensor.name, tensor.shape, choice.type)]
    if choice.protected is not None:
        infos += companion_infos(tensor.name, tensor.shape[-1], choice.protected)
    return sum(info.padded_bytes for info in infos)


def tensor_damage(sensitivity: Sensitivity, name: str, choice: Choice) -> float:
    """Predicted damage of one tensor that becomes this, its super weights by the square of their error."""
    damage = sensitivity.of(name).damage(choice.type.name, choice.left)
    for weight in _kept_weights(sensitivity, name):
        damage += float(np.mean(weight.kld)) * weight.errors[choice.type.name] ** 2
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
