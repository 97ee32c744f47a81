"""`gguf-golf plan`: from files to a recipe file, and the words of `--explain`."""

import math
from pathlib import Path

from gguf_golf import files
from gguf_golf.models import Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan import curve
from gguf_golf.plan.budget import parse
from gguf_golf.plan.constraints import Constraints
from gguf_golf.plan.inputs import load
from gguf_golf.plan.planner import Plan, Planner, saved_per_mb
from gguf_golf.plan.recipe import MARK


def make_recipe(
    model_path: Path,
    budget: str,
    out: Path | None,
    *,
    sensitivity_path: Path | None = None,
    imatrix_path: Path | None = None,
    constraints: Constraints | None = None,
    force: bool = False,
) -> tuple[Model, Plan]:
    """Plan for a budget and write the recipe to `out`, if given. Raises InputError as `parse` and `Planner.plan` do."""
    if out is not None:
        files.check_output(out, [model_path, sensitivity_path, imatrix_path], mark=MARK, force=force)
    folder = Path.cwd() if out is None else out.resolve().parent
    inputs = load(model_path, sensitivity_path, imatrix_path, folder)
    planner = Planner(inputs.model, inputs.sensitivity, constraints or Constraints(), inputs.imatrix, inputs.source)
    plan = planner.plan(parse(budget, inputs.model))
    if out is not None:
        files.write_text(out, plan.text, [model_path, sensitivity_path, imatrix_path], mark=MARK, force=force)
    return inputs.model, plan


def summary(plan: Plan) -> str:
    """One line: size and predicted damage; one more for each super weight."""
    recipe = plan.recipe
    damage = "" if recipe.predicted_kld is None else f", predicted KLD {recipe.predicted_kld:.3g}"
    kept = [f"super weight {place}: {how}" for place, how in recipe.super_weights.items()]
    return "\n".join([f"{plan.file_bytes:,} bytes ({plan.file_bytes / 1e6:.2f} MB){damage}", *kept])


def explain(model: Model, plan: Plan) -> str:
    """The byte-return curve around a plan, as text."""
    sizes = {tensor.name: math.prod(tensor.shape) for tensor in model.tensors if is_quantizable(tensor)}
    used = sum(int(group.item.bytes[index]) for group, index in zip(plan.groups, plan.chosen, strict=True))
    next_mb = max(saved_per_mb(group, index) for group, index in zip(plan.groups, plan.chosen, strict=True))
    here = curve.describe(plan.groups, plan.chosen, sizes, next_mb)
    unit = "damage" if plan.recipe.predicted_kld is None else "KLD"
    return curve.render(curve.frontier(plan.groups, sizes), here, plan.file_bytes - used, unit)
