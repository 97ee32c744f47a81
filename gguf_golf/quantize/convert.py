"""`gguf-golf convert`: a model into a GGUF whose linear layers all have one type."""

from dataclasses import dataclass
from pathlib import Path

from gguf_golf import files
from gguf_golf.container.metadata import MARK, output_metadata
from gguf_golf.formats import types
from gguf_golf.formats.types import QuantType
from gguf_golf.models import Model
from gguf_golf.models.roles import is_quantizable
from gguf_golf.quantize import lattice
from gguf_golf.quantize.assignment import AUTO, Assignment, uniform
from gguf_golf.quantize.job import DEFAULT_JOB, Job, made_from
from gguf_golf.quantize.load_check import check_loads
from gguf_golf.quantize.stored import OutOfRange, stored_tensors, widened
from gguf_golf.quantize.writer import Written, write


@dataclass(frozen=True)
class Conversion:
    """What `convert` did: the written file, the type of each tensor, and what a user should be told."""

    written: Written
    assignment: Assignment
    bpw: float


def convert(
    source: Path, out: Path, *, type_name: str | None = None, embedding_type: str = AUTO, job: Job = DEFAULT_JOB
) -> Conversion:
    """Convert a Hugging Face directory or a GGUF to a GGUF with one type for the linear layers.

    `type_name` None keeps the precision of the source. Where it is F32, F16 or BF16 the embeddings take it too. Tensors
    whose weights a type cannot hold keep the source's, and those that lie on the lattice of a type of no more bits are
    stored in that, exactly, if the job's `keep_lattice` is set. Raises InputError as `open_model`, `uniform`, `write`
    and `check_loads` do.
    """
    inputs = [source, job.imatrix, job.hessian]
    files.check_output(out, inputs, mark=MARK, force=job.force)
    model = job.open(source)
    type_name = type_name or source_precision(model)
    plain = not types.get(type_name).is_quantized
    assignment = uniform(model, type_name, type_name if plain else embedding_type)
    kept = job.lattice(model, assignment.types)
    assignment = Assignment(assignment.types | kept, [*assignment.notes, *lattice.note(kept)])
    guide, encoder = job.guide(), job.encoder()
    assignment.notes.extend(guide.notes(assignment.types))

    def write_as(chosen: dict[str, QuantType]) -> Written:
        return write(
            stored_tensors(model, chosen, guide, encoder, kept),
            out,
            metadata=output_metadata(model, chosen, guide.imatrix, job.imatrix, kept),
            made_from=made_from(source, model, guide),
            inputs=inputs,
            force=job.force,
            progress=job.progress,
        )

    try:
        written = write_as(assignment.types)
    except OutOfRange:
        chosen, notes = widened(model, assignment.types, guide, encoder, kept)
        assignment = Assignment(chosen, [*assignment.notes, *notes])
        written = write_as(chosen)
    assignment.notes.extend(check_loads(out, model))
    return Conversion(written, assignment, bits_per_weight(model, written))


def source_precision(model: Model) -> str:
    """The type that holds every weight of the source exactly: the one that its matrices have, F32 for anything else."""
    found = {tensor.source_type.lower() for tensor in model.tensors if is_quantizable(tensor)}
    return found.pop() if found in ({"f16"}, {"bf16"}) else "f32"


def bits_per_weight(model: Model, written: Written) -> float:
    """Bits of tensor data per weight, over the whole model."""
    weights = sum(tensor.n_rows * tensor.shape[-1] for tensor in model.tensors)
    return 8 * sum(written.tensor_bytes.values()) / weights
