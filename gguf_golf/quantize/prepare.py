"""What writing a quantized file takes: the model, a type for every tensor, the guide, and the metadata."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gguf_golf import files
from gguf_golf.container.metadata import MARK, output_metadata, recipe_metadata
from gguf_golf.container.tensors import TensorInfo
from gguf_golf.encode import Encoder, Guide
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types
from gguf_golf.formats.protected import Protected, matrix_of
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import MetadataField, Model
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.hashing import file_sha256
from gguf_golf.models.roles import is_quantizable
from gguf_golf.plan import recipe as recipe_file
from gguf_golf.plan.recipe import Recipe
from gguf_golf.quantize import lattice
from gguf_golf.quantize.assignment import uniform
from gguf_golf.quantize.job import Job, made_from


@dataclass(frozen=True)
class Prepared:
    """All that is decided before the first weight is read; `kept` are the tensors that are stored on their lattice,
    `protected` the rows that are protected, by matrix, `inputs` the files that the output must not replace, and `job`
    has the paths that were found."""

    source: Path
    job: Job
    model: Model
    types: dict[str, QuantType]
    kept: dict[str, QuantType]
    protected: dict[str, Protected]
    guide: Guide
    encoder: Encoder
    metadata: list[MetadataField]
    made_from: dict[str, Any]
    inputs: list[Path | None]
    notes: list[str]

    def is_costly(self, tensor: TensorInfo) -> bool:
        """Whether a tensor is worth encoding elsewhere, or keeping: not what is copied or lies on its lattice, which
        costs no more than reading it, nor the residual of protected rows, which is small."""
        return tensor.type.is_quantized and tensor.name not in self.kept and matrix_of(tensor.name) is None


def by_recipe(source: Path, recipe_path: Path, out: Path, job: Job) -> tuple[Prepared, Recipe]:
    """As a recipe says. Raises InputError for a recipe of another model, files with other hashes, tensors that the
    recipe does not name, or an output that cannot be written."""
    files.check_output(out, [source, recipe_path, job.imatrix, job.hessian], mark=MARK, force=job.force)
    model = job.open(source)
    recipe, text = recipe_file.read(recipe_path)
    found = fingerprint(model)
    planned = recipe.source.get("fingerprint")
    if planned not in (None, found):
        raise InputError(
            f"{recipe_path} was planned for {recipe.source.get('model', 'another model')} with fingerprint "
            f"{planned[:12]}, and {source} has {found[:12]}: plan again, or delete its fingerprint line to proceed"
        )
    chosen, notes = recipe.types_for(model)
    kept = job.lattice(model, chosen)
    protected = {name: rows for name, rows in recipe.protected_for(model).items() if name not in kept}
    notes = [*model.notes, *notes, *lattice.note(kept)]
    chosen = chosen | kept
    imatrix_path, imatrix_sha256 = _input(recipe, "imatrix", recipe_path, job.imatrix)
    hessian_path, _ = _input(recipe, "hessian", recipe_path, job.hessian)
    job = replace(job, imatrix=imatrix_path, hessian=hessian_path)
    guide = job.guide()
    metadata = recipe_metadata(
        model,
        chosen,
        recipe_text=text,
        fingerprint=found,
        imatrix=guide.imatrix,
        imatrix_name=recipe.source.get("imatrix", str(imatrix_path)),
        imatrix_sha256=imatrix_sha256,
        kept=kept,
        protected=protected,
    )
    inputs = [source, recipe_path, imatrix_path, hessian_path]
    return _prepared(model, chosen, kept, protected, guide, job, metadata, inputs, notes), recipe


def by_type(source: Path, type_name: str | None, embedding_type: str, out: Path, job: Job) -> Prepared:
    """Every linear layer in one type, the vocabulary's tables in another; see `convert`. Raises InputError as `uniform`
    does, and for an output that cannot be written."""
    inputs = [source, job.imatrix, job.hessian]
    files.check_output(out, inputs, mark=MARK, force=job.force)
    model = job.open(source)
    type_name = type_name or source_precision(model)
    plain = not quant_types.get(type_name).is_quantized
    assignment = uniform(model, type_name, type_name if plain else embedding_type)
    kept = job.lattice(model, assignment.types)
    chosen, notes = assignment.types | kept, [*assignment.notes, *lattice.note(kept)]
    guide = job.guide()
    metadata = output_metadata(model, chosen, guide.imatrix, job.imatrix, kept)
    return _prepared(model, chosen, kept, {}, guide, job, metadata, inputs, notes)


def source_precision(model: Model) -> str:
    """The type that holds every weight of the source exactly: the one that its matrices have, F32 for anything else."""
    found = {tensor.source_type.lower() for tensor in model.tensors if is_quantizable(tensor)}
    return found.pop() if found in ({"f16"}, {"bf16"}) else "f32"


def _prepared(
    model: Model,
    chosen: dict[str, QuantType],
    kept: dict[str, QuantType],
    protected: dict[str, Protected],
    guide: Guide,
    job: Job,
    metadata: list[MetadataField],
    inputs: list[Path | None],
    notes: list[str],
) -> Prepared:
    source = inputs[0]
    assert source is not None
    notes = [*notes, *guide.notes(chosen)]
    made = made_from(source, model, guide)
    encoder = job.encoder()
    return Prepared(source, job, model, chosen, kept, protected, guide, encoder, metadata, made, inputs, notes)


def _input(recipe: Recipe, what: str, recipe_path: Path, given: Path | None) -> tuple[Path | None, str]:
    """The path and hash of a file that the recipe was planned with ("imatrix" or "hessian"); (None, "") without one."""
    named = recipe.source.get(what)
    if given is None and named is None:
        return None, ""
    path = given or recipe_path.parent / str(named)
    if not os.path.isfile(path):  # unlike Path.is_file, for names that no file can have too
        raise InputError(f"{path}, the {what} of {recipe_path}, is missing: give its path with --{what}")
    digest = file_sha256(path)
    if recipe.source.get(f"{what}_sha256", digest) != digest:
        raise InputError(
            f"{path} is not the {what} that {recipe_path} was planned with (its SHA-256 differs): give that one, or "
            f"delete the recipe's {what}_sha256 line to use another"
        )
    return path, digest
