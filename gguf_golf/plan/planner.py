"""The best recipe for a budget: the knapsack over all candidates, and the exact size of the file that it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.container.layout import lay_out
from gguf_golf.container.metadata import recipe_metadata
from gguf_golf.container.tensors import tensor_infos
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import Protected
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan import knapsack
from gguf_golf.plan.budget import Budget, n_weights
from gguf_golf.plan.candidates import Choice, Group, groups, kept_by, tensor_damage
from gguf_golf.plan.constraints import Constraints, Speed
from gguf_golf.plan.correction import UNCORRECTED, Correction, part_of
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

    `source` is the provenance that recipes state; `imatrix` adds what it is to the file's header; `correction` is what
    measured files have taught. Raises InputError where the constraints leave nothing for a tensor.
    """

    def __init__(
        self,
        model: Model,
        sensitivity: Sensitivity,
        constraints: Constraints,
        imatrix: Imatrix | None,
        source: Mapping[str, str],
        correction: Correction = UNCORRECTED,
    ) -> None:
        self.groups = groups(model, sensitivity, constraints, correction)
        self.correction = correction
        self.model, self._sensitivity, self._constraints = model, sensitivity, constraints
        self._imatrix, self._source = imatrix, dict(source)
        self._max_seconds = None if constraints.speed is None else constraints.speed.max_seconds

    def corrected(self, correction: Correction) -> "Planner":
        """The same planner with another correction."""
        return Planner(self.model, self._sensitivity, self._constraints, self._imatrix, self._source, correction)

    @property
    def speed(self) -> Speed | None:
        """The floor on speed, if there is one."""
        return self._constraints.speed

    def tokens_per_second(self, plan: Plan) -> float:
        """The predicted speed of a plan, where there is a floor on it."""
        pairs = zip(self.groups, plan.chosen, strict=True)
        return 1 / sum(float(group.item.seconds[i]) for group, i in pairs if group.item.seconds is not None)

    def slower(self, factor: float) -> "Planner":
        """The same planner for a machine that takes `factor` times as long for every weight."""
        assert self.speed is not None
        slow = replace(self.speed, ns_per_weight={name: factor * ns for name, ns in self.speed.ns_per_weight.items()})
        constraints = replace(self._constraints, speed=slow)
        return Planner(self.model, self._sensitivity, constraints, self._imatrix, self._source, self.correction)

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

    def choices(self, wanted: Mapping[str, QuantType]) -> list[int] | None:
        """The choices that give tensors these types and protect nothing; None if the constraints forbid one of them."""
        chosen = []
        for group in self.groups:
            names = {wanted[name].name for name in group.names}
            plain = (i for i, each in enumerate(group.choices) if {each.type.name} == names and not each.protected)
            index = next(plain, None)
            if index is None:
                return None
            chosen.append(index)
        return chosen

    def expected(self, chosen: Sequence[int]) -> float:
        """The predicted damage of these choices."""
        pairs = zip(self.groups, chosen, strict=True)
        return self.correction.total(sum(float(group.damage[index]) for group, index in pairs))

    def plan_of(self, chosen: list[int], budget: Budget) -> Plan | None:
        """The plan of these choices; None if it does not fit into the budget or is too slow."""
        pairs = list(zip(self.groups, chosen, strict=True))
        seconds = sum(float(group.item.seconds[i]) for group, i in pairs if group.item.seconds is not None)
        limit = self._room(budget.bpw) if budget.bpw is not None else budget.file_bytes
        if self._bytes(chosen) > (limit or 0) or (self._max_seconds is not None and seconds > self._max_seconds):
            return None
        made = self._made(chosen, budget)
        return made if budget.file_bytes is None or made.file_bytes <= budget.file_bytes else None

    def parts(self, plan: Plan) -> dict[tuple[str, str], float]:
        """The uncorrected damage of a plan by part, see correction.py."""
        parts: dict[tuple[str, str], float] = {}
        for name, choice in _picked(plan.groups, plan.chosen).items():
            part = part_of(name, choice.type)
            parts[part] = parts.get(part, 0.0) + tensor_damage(self._sensitivity, name, choice)
        return parts

    def _solve(self, room: int) -> list[int]:
        return knapsack.solve([group.item for group in self.groups], room, self._max_seconds)

    def _bytes(self, chosen: list[int]) -> int:
        return sum(int(group.item.bytes[index]) for group, index in zip(self.groups, chosen, strict=True))

    def _room(self, bpw: float) -> int:
        """Bytes for quantizable tensors where all tensors together may have so many bits per weight."""
        f32 = quant_types.get("f32")
        kept = sum(
            tensor.n_rows * f32.row_bytes(tensor.shape[-1])
            for tensor in self.model.tensors
            if not is_quantizable(tensor)
        )
        return int(bpw * n_weights(self.model) / 8) - kept

    def _too_small(self, budget: Budget, smallest: Plan) -> str:
        bpw = 8 * self._bytes(smallest.chosen) / n_weights(self.model)
        return (
            f"nothing fits into {budget.text}: the smallest possible file has {smallest.file_bytes:,} bytes "
            f"({smallest.file_bytes / 1e6:.2f} MB, {bpw:.2f} bits per weight) under these constraints"
        )

    def _made(self, chosen: list[int], budget: Budget) -> Plan:
        """The plan for these choices, with the exact size of its file, which the recipe in its header states."""
        picked = _picked(self.groups, chosen)
        quick = self._sensitivity.quick  # then damage is in no unit that a recipe could state
        damage = {
            name: tensor_damage(self._sensitivity, name, picked[name])
            * self.correction.factor(part_of(name, picked[name].type))
            for name in picked
        }
        types = self._types(picked)
        protected = {name: choice.protected for name, choice in picked.items() if choice.protected is not None}
        total = self.correction.total(sum(damage.values()))
        scale = total / (sum(damage.values()) or 1.0)
        rates = {
            name: scale * saved_per_mb(group, index)
            for group, index in zip(self.groups, chosen, strict=True)
            for name in group.names
        }
        recipe = Recipe(
            tensors={
                name: _line(picked[name], None if quick else scale * damage[name], None if quick else rates[name])
                for name in picked
            },
            budget=budget.text,
            predicted_bytes=0,
            predicted_kld=None if quick else total,
            source=self._source,
            super_weights=kept_by(self._sensitivity, types),
        )
        while True:
            text = to_toml(recipe)
            size = file_bytes(self.model, types, protected, text, self._imatrix, self._source)
            if size == recipe.predicted_bytes:
                return Plan(recipe, text, size, self.groups, chosen)
            recipe = replace(recipe, predicted_bytes=size)

    def _types(self, picked: Mapping[str, Choice]) -> dict[str, QuantType]:
        f32 = Choice(quant_types.get("f32"))
        return {tensor.name: picked.get(tensor.name, f32).type for tensor in self.model.tensors}


def _picked(groups: Sequence[Group], chosen: Sequence[int]) -> dict[str, Choice]:
    """What each tensor becomes, by name."""
    return {name: group.choices[index] for group, index in zip(groups, chosen, strict=True) for name in group.names}


def _line(choice: Choice, kld: float | None, kld_per_mb: float | None) -> Line:
    if choice.protected is None:
        return Line(choice.type.name, kld, kld_per_mb)
    return Line(choice.type.name, kld, kld_per_mb, choice.protected.n_rows, choice.protected.type.name)


def with_prediction(plan: Plan, kld: float) -> Plan:
    """The plan with another predicted damage, in a text of the same length: the file's size stays what it is."""
    assert plan.recipe.predicted_kld is not None
    scale = kld / plan.recipe.predicted_kld
    tensors = {
        name: replace(line, kld=scale * (line.kld or 0.0), kld_per_mb=scale * (line.kld_per_mb or 0.0))
        for name, line in plan.recipe.tensors.items()
    }
    recipe = replace(plan.recipe, predicted_kld=kld, tensors=tensors)
    text = to_toml(recipe)
    assert len(text) == len(plan.text)
    return replace(plan, recipe=recipe, text=text)


def file_bytes(
    model: Model,
    chosen: dict[str, QuantType],
    protected: Mapping[str, Protected],
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
        protected=protected,
    )
    return lay_out(tensor_infos(model, chosen, protected), metadata).file_bytes


def saved_per_mb(group: Group, index: int) -> float:
    """What the next 10^6 bytes for a group would save: the best slope from its type to any larger one; 0 at the top."""
    more = group.item.bytes - group.item.bytes[index]
    saved = group.damage[index] - group.damage
    return max((float(s / m) * 1e6 for s, m in zip(saved, more, strict=True) if m > 0 and s > 0), default=0.0)
