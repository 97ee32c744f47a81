"""What a plan has to beat: files of one type, and llama-quantize's mixes, as choices among the same candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf_golf.formats import quant_types
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import Model
from gguf_golf.models.roles import EMBEDDINGS, is_quantizable
from gguf_golf.plan.budget import Budget
from gguf_golf.plan.planner import Plan, Planner


@dataclass(frozen=True)
class Rival:
    """Another way to choose types; `kind` is "uniform" or "mix"."""

    kind: str
    name: str
    types: Mapping[str, QuantType]


def uniform_rivals(model: Model, candidates: Sequence[QuantType]) -> list[Rival]:
    """Every linear layer in one type, the vocabulary's tables in the same or another."""
    tensors = [tensor for tensor in model.tensors if is_quantizable(tensor)]
    rivals = []
    for body in candidates:
        for table in candidates:
            chosen = {
                tensor.name: quant_types.type_for_row(
                    (table if tensor.name in EMBEDDINGS else body).name, tensor.shape[-1]
                )[0]
                for tensor in tensors
            }
            name = body.name if body is table else f"{body.name}, vocabulary {table.name}"
            rivals.append(Rival("uniform", name, chosen))
    return rivals


def mix_rivals(mixes: Mapping[str, Mapping[str, QuantType]]) -> list[Rival]:
    """llama-quantize's mixes, see mixes.py."""
    return [Rival("mix", name, chosen) for name, chosen in mixes.items()]


def strongest(planner: Planner, rivals: Sequence[Rival], budget: Budget, threat: float) -> list[tuple[Rival, Plan]]:
    """The rival of least predicted damage that fits the budget and the constraints, if any does.

    All others that are predicted to cost less than `threat` follow, at most two.
    """
    ranked = []
    for rival in rivals:
        chosen = planner.choices(rival.types)
        if chosen is not None:
            ranked.append((planner.expected(chosen), rival, chosen))
    ranked.sort(key=lambda each: each[0])
    found: list[tuple[Rival, Plan]] = []
    for damage, rival, chosen in ranked:
        if found and (damage > threat or len(found) == 3):
            break
        plan = planner.plan_of(chosen, budget)
        if plan is not None and all(plan.chosen != other.chosen for _, other in found):
            found.append((rival, plan))
    return found
