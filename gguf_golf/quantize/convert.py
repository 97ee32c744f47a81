"""`gguf-golf convert`: a model into a GGUF whose linear layers all have one type."""

from dataclasses import dataclass
from pathlib import Path

from gguf_golf.container.metadata import output_metadata
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import Model
from gguf_golf.quantize.assignment import AUTO, Assignment
from gguf_golf.quantize.job import DEFAULT_JOB, Job
from gguf_golf.quantize.load_check import check_loads
from gguf_golf.quantize.prepare import by_type
from gguf_golf.quantize.steps import producer
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
    stored in that, exactly, if the job's `keep_lattice` is set. Raises InputError as `by_type`, `write` and
    `check_loads` do.
    """
    made = by_type(source, type_name, embedding_type, out, job)
    chosen, notes = made.types, list(made.notes)

    def write_as(chosen: dict[str, QuantType]) -> Written:
        return write(
            stored_tensors(made.model, chosen, made.guide, made.encoder, made.kept),
            out,
            metadata=output_metadata(made.model, chosen, made.guide.imatrix, job.imatrix, made.kept),
            made_from=made.made_from,
            inputs=made.inputs,
            produce=producer(made),
            force=job.force,
            progress=job.progress,
        )

    try:
        written = write_as(chosen)
    except OutOfRange:
        chosen, wider = widened(made.model, chosen, made.guide, made.encoder, made.kept)
        notes += wider
        written = write_as(chosen)
    notes += check_loads(out, made.model, source)
    return Conversion(written, Assignment(chosen, notes), bits_per_weight(made.model, written))


def bits_per_weight(model: Model, written: Written) -> float:
    """Bits of tensor data per weight, over the whole model."""
    weights = sum(tensor.n_rows * tensor.shape[-1] for tensor in model.tensors)
    return 8 * sum(written.tensor_bytes.values()) / weights
