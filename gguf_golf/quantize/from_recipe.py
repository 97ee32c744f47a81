"""`gguf-golf quantize --recipe`: a model and a recipe into the GGUF that the recipe describes, byte for byte."""

from dataclasses import dataclass, replace
from pathlib import Path

from gguf_golf import files
from gguf_golf.container.metadata import MARK, recipe_metadata
from gguf_golf.errors import InputError
from gguf_golf.formats.types import QuantType
from gguf_golf.models.fingerprint import fingerprint
from gguf_golf.models.hashing import file_sha256
from gguf_golf.plan import recipe as recipe_file
from gguf_golf.plan.recipe import Recipe
from gguf_golf.quantize.job import DEFAULT_JOB, Job, made_from
from gguf_golf.quantize.load_check import check_loads
from gguf_golf.quantize.stored import stored_tensors
from gguf_golf.quantize.writer import Written, write


@dataclass(frozen=True)
class Quantized:
    """What was written, and what a user should be told."""

    written: Written
    recipe: Recipe
    types: dict[str, QuantType]
    notes: list[str]


def quantize(source: Path, recipe_path: Path, out: Path, *, job: Job = DEFAULT_JOB) -> Quantized:
    """Write `out` from a Hugging Face directory or GGUF as the recipe says; the file holds the recipe and hashes.

    The recipe's own imatrix and Hessians are used: at the paths in the recipe, or at those of the job. Raises
    InputError for a recipe of another model, files with other hashes, or tensors that the recipe does not name.
    """
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
    notes = [*model.notes, *notes]
    imatrix_path, imatrix_sha256 = _input(recipe, "imatrix", recipe_path, job.imatrix)
    hessian_path, _ = _input(recipe, "hessian", recipe_path, job.hessian)
    job = replace(job, imatrix=imatrix_path, hessian=hessian_path)
    guide, encoder = job.guide(), job.encoder()
    notes.extend(guide.notes(chosen))
    metadata = recipe_metadata(
        model,
        chosen,
        recipe_text=text,
        fingerprint=found,
        imatrix=guide.imatrix,
        imatrix_name=recipe.source.get("imatrix", str(imatrix_path)),
        imatrix_sha256=imatrix_sha256,
    )
    tensors = stored_tensors(model, chosen, guide, encoder)
    written = write(
        tensors,
        out,
        metadata=metadata,
        made_from=made_from(source, model, guide),
        inputs=[source, recipe_path, imatrix_path, hessian_path],
        force=job.force,
        progress=job.progress,
    )
    notes.extend(check_loads(out))
    if recipe.predicted_bytes not in (None, written.file_bytes):
        notes.append(
            f"the recipe was edited: it predicts {recipe.predicted_bytes:,} bytes, the file has {written.file_bytes:,}"
        )
    return Quantized(written, recipe, chosen, notes)


def _input(recipe: Recipe, what: str, recipe_path: Path, given: Path | None) -> tuple[Path | None, str]:
    """The path and hash of a file that the recipe was planned with ("imatrix" or "hessian"); (None, "") without one."""
    named = recipe.source.get(what)
    if given is None and named is None:
        return None, ""
    path = given or recipe_path.parent / str(named)
    if not path.is_file():
        raise InputError(f"{path}, the {what} of {recipe_path}, is missing: give its path with --{what}")
    digest = file_sha256(path)
    if recipe.source.get(f"{what}_sha256", digest) != digest:
        raise InputError(
            f"{path} is not the {what} that {recipe_path} was planned with (its SHA-256 differs): give that one, or "
            f"delete the recipe's {what}_sha256 line to use another"
        )
    return path, digest
