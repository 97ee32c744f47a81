"""`gguf-golf quantize --recipe`: a model and a recipe into the GGUF that the recipe describes, byte for byte."""

from dataclasses import dataclass
from pathlib import Path

from gguf_golf.formats.quant_types import QuantType
from gguf_golf.plan.recipe import Recipe
from gguf_golf.quantize.job import DEFAULT_JOB, Job
from gguf_golf.quantize.load_check import check_loads
from gguf_golf.quantize.prepare import by_recipe
from gguf_golf.quantize.steps import producer
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
    InputError as `by_recipe` and `write` do.
    """
    made, recipe = by_recipe(source, recipe_path, out, job)
    written = write(
        stored_tensors(made.model, made.types, made.guide, made.encoder, made.kept, made.protected),
        out,
        metadata=made.metadata,
        made_from=made.made_from,
        inputs=made.inputs,
        produce=producer(made),
        force=job.force,
        progress=job.progress,
    )
    notes = [*made.notes, *check_loads(out, made.model, source)]
    if not made.kept and recipe.predicted_bytes not in (None, written.file_bytes):
        notes.append(
            f"the recipe was edited: it predicts {recipe.predicted_bytes:,} bytes, the file has {written.file_bytes:,}"
        )
    return Quantized(written, recipe, made.types, notes)
