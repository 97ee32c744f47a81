"""`gguf-golf convert`: a model into a GGUF whose linear layers all have one type."""

from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFValueType, LlamaFileType

from gguf_golf import __version__
from gguf_golf.calibrate import imatrix as imatrix_file
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.formats.types import QuantType
from gguf_golf.models import MetadataField, Model, open_model
from gguf_golf.quantize.assignment import Assignment, is_quantizable, uniform
from gguf_golf.quantize.writer import Written, write

# Set anew here: what the source says of these is not true of the new file.
_REPLACED = ("general.file_type", "general.quantization_version", "general.alignment", "split.", "quantize.imatrix.")


@dataclass(frozen=True)
class Conversion:
    """What `convert` did: the written file, the type of each tensor, and what a user should be told."""

    written: Written
    assignment: Assignment
    bpw: float


def convert(
    source: Path,
    out: Path,
    *,
    type_name: str = "bf16",
    embedding_type: str = "q6_k",
    imatrix_path: Path | None = None,
    allow_requantize: bool = False,
    threads: int = 0,
    progress: bool = True,
) -> Conversion:
    """Convert a Hugging Face directory or a GGUF to a GGUF with one type for the linear layers.

    Where `type_name` is F32, F16 or BF16 the embeddings take it too. Raises InputError as `open_model`, `uniform` and
    `write` do.
    """
    model = open_model(source, allow_requantize=allow_requantize)
    plain = type_name.lower() in ("f32", "f16", "bf16")
    assignment = uniform(model, type_name, type_name if plain else embedding_type)
    imatrix = imatrix_file.read(imatrix_path) if imatrix_path else None
    metadata = output_metadata(model, assignment.types, imatrix, imatrix_path)
    written = write(
        model,
        assignment.types,
        out,
        metadata=metadata,
        imatrix=imatrix,
        threads=threads,
        progress=progress,
    )
    return Conversion(written, assignment, bits_per_weight(model, written))


def bits_per_weight(model: Model, written: Written) -> float:
    """Bits of tensor data per weight, over the whole model."""
    weights = sum(tensor.n_rows * tensor.shape[-1] for tensor in model.tensors)
    return 8 * sum(written.tensor_bytes.values()) / weights


def output_metadata(
    model: Model, chosen: dict[str, QuantType], imatrix: Imatrix | None, imatrix_path: Path | None
) -> list[MetadataField]:
    """The model's metadata with the file type and the provenance of the new file."""
    kept = [field for field in model.metadata if not field.key.startswith(_REPLACED)]
    added = [
        MetadataField("general.file_type", file_type(model, chosen), GGUFValueType.UINT32),
        MetadataField("general.quantization_version", 2, GGUFValueType.UINT32),
        MetadataField("gguf_golf.version", __version__, GGUFValueType.STRING),
    ]
    if imatrix is not None and imatrix_path is not None:
        added += [
            MetadataField("quantize.imatrix.file", imatrix_path.name, GGUFValueType.STRING),
            MetadataField("quantize.imatrix.dataset", ", ".join(imatrix.datasets), GGUFValueType.STRING),
            MetadataField("quantize.imatrix.entries_count", len(imatrix.entries), GGUFValueType.UINT32),
            MetadataField("quantize.imatrix.chunks_count", imatrix.chunk_count, GGUFValueType.UINT32),
        ]
    return kept + added


def file_type(model: Model, chosen: dict[str, QuantType]) -> int:
    """llama.cpp's number for the type that most weights of the linear layers have; it only names the file in logs."""
    weights: dict[str, int] = {}
    for tensor in model.tensors:
        if is_quantizable(tensor):
            name = chosen[tensor.name].name
            weights[name] = weights.get(name, 0) + tensor.n_rows * tensor.shape[-1]
    main = max(weights, key=lambda name: weights[name], default="f32")
    if main.startswith("tcq"):
        return 111 + int(main[3])  # LLAMA_FTYPE_MOSTLY_TCQ1 is 112, patches/0003-llama-tcq-ftypes.patch
    for name in (f"MOSTLY_{main.upper()}", f"MOSTLY_{main.upper()}_M", f"MOSTLY_{main.upper()}_S"):
        if name in LlamaFileType.__members__:
            return int(LlamaFileType[name])
    return int(LlamaFileType.ALL_F32)
