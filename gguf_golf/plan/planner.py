"""The best recipe for a budget: the knapsack over all candidates, and the exact size of the file that it means."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.container.layout import lay_out
from gguf_golf.container.metadata import recipe_metadata
from gguf_golf.container.tensors import tensor_infos
from gguf_golf.errors import InputError
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.models import Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan import knapsack
from gguf_golf.plan.budget import Budget, n_weights
from gguf_golf.plan.candidates import Group, groups, kept_by, tensor_damage
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.recipe import Line, Recipe, to_toml
from gguf_golf.sensitivity.result import Sensitivity


@dataclass(frozen=True)
class Plan:
    """A recipe and its text. Group i of the candidates takes its type number `chosen[i]`."""

    recipe: Recipe
    text: str
    file_bytes: int
    groups: list[Group]
    chosen: list[int]


class Planner:
    """Plans for one model: what its tensors may take is worked out once, then any number of budgets is asked for.

    `source` is the provenance that recipes state; `imatrix` adds what it is to the file's header. Raises InputError
    where the constraints leave nothing for a tensor.
    """

    def __init__(
        self,
        model: Model,
        sensitivity: Sensitivity,
        constraints: Constraints,
        imatrix: Imatrix | None,
        source: Mapping[str, str],
    ) -> None:
        self.groups = groups(model, sensitivity, constraints)
        self._model, self._sensitivity, self._imatrix, self._source = model, sensitivity, imatrix, dict(source)
        self._max_seconds = None if constraints.speed is None else constraints.speed.max_seconds

    def plan(self, budget: Budget) -> Plan:
        """The recipe of least predicted damage whose file is no larger than the budget.

        Raises InputError where nothing fits; the message names the smallest possible file.
        """
        smallest = self._made([int(group.item.bytes.argmin()) for group in self.groups], budget)
        if budget.bpw is not None:
            room = self._room(budget.bpw)
            if room < self._bytes(smallest.chosen):
                raise InputError(self._too_small(budget, smallest))
            return self._made(self._solve(room), budget)
        assert budget.file_bytes is not None
        if smallest.file_bytes > budget.file_bytes:
            raise InputError(self._too_small(budget, smallest))
        # The header holds the recipe, so its length depends a little on what is chosen: shrink until the file fits.
        room = budget.file_bytes - (smallest.file_bytes - self._bytes(smallest.chosen))
        while True:
            made = self._made(self._solve(room), budget)
            if made.file_bytes <= budget.file_bytes:
                return made
            room -= made.file_bytes - budget.file_bytes
            if room < self._bytes(smallest.chosen):
                return smallest

    def _solve(self, room: int) -> list[int]:
        return knapsack.solve([group.item for group in self.groups], room, self._max_seconds)

    def _bytes(self, chosen: list[int]) -> int:
        return sum(int(group.item.bytes[index]) for group, index in zip(self.groups, chosen, strict=True))

    def _room(self, bpw: float) -> int:
        """Bytes for quantizable tensors where all tensors together may have so many bits per weight."""
        f32 = types.get("f32")
        kept = sum(
            tensor.n_rows * f32.row_bytes(tensor.shape[-1])
            for tensor in self._model.tensors
            if not is_quantizable(tensor)
        )
        return int(bpw * n_weights(self._model) / 8) - kept

    def _too_small(self, budget: Budget, smallest: Plan) -> str:
        bpw = 8 * self._bytes(smallest.chosen) / n_weights(self._model)
        return (
            f"nothing fits into {budget.text}: the smallest possible file has {smallest.file_bytes:,} bytes "
            f"({smallest.file_bytes / 1e6:.2f} MB, {bpw:.2f} bits per weight) under these constraints"
        )

    def _made(self, chosen: list[int], budget: Budget) -> Plan:
        """The plan for these choices, with the exact size of its file, which the recipe in its header states."""
        picked = {
            name: group.types[index] for group, index in zip(self.groups, chosen, strict=True) for name in group.names
        }
        rates = {
            name: _kld_per_mb(group, index)
            for group, index in zip(self.groups, chosen, strict=True)
            for name in group.names
        }
        quick = self._sensitivity.quick  # then damage is in no unit that a recipe could state
        damage = {name: tensor_damage(self._sensitivity, name, picked[name]) for name in picked}
        recipe = Recipe(
            tensors={
                name: Line(picked[name].name, None if quick else damage[name], None if quick else rates[name])
                for name in picked
            },
            budget=budget.text,
            predicted_bytes=0,
            predicted_kld=None if quick else sum(damage.values()),
            source=self._source,
            super_weights=kept_by(self._sensitivity, picked),
        )
        while True:
            text = to_toml(recipe)
            size = file_bytes(self._model, self._types(picked), text, self._imatrix, self._source)
            if size == recipe.predicted_bytes:
                return Plan(recipe, text, size, self.groups, chosen)
            recipe = replace(recipe, predicted_bytes=size)

    def _types(self, picked: Mapping[str, QuantType]) -> dict[str, QuantType]:
        f32 = types.get("f32")
        return {tensor.name: picked.get(tensor.name, f32) for tensor in self._model.tensors}


def file_bytes(
    model: Model,
    chosen: dict[str, QuantType],
    recipe_text: str,
    imatrix: Imatrix | None,
    source: Mapping[str, str],
) -> int:
    """The exact size of the file that `gguf-golf quantize --recipe` writes."""
    metadata = recipe_metadata(
        model,
        chosen,
        recipe_text=recipe_text,
        fingerprint=source["fingerprint"],
        imatrix=imatrix,
        imatrix_name=source.get("imatrix", ""),
        imatrix_sha256=source.get("imatrix_sha256", ""),
    )
    return lay_out(tensor_infos(model, chosen), metadata).file_bytes


def _kld_per_mb(group: Group, index: int) -> float:
    """What the next 10^6 bytes for a group would save: the best slope from its type to any larger one; 0 at the top."""
    more = group.item.bytes - group.item.bytes[index]
    saved = group.item.damage[index] - group.item.damage
    return max((float(s / m) * 1e6 for s, m in zip(saved, more, strict=True) if m > 0 and s > 0), default=0.0)
