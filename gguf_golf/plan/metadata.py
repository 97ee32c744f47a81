"""The metadata of a quantized file: the model's own, with the file type and the provenance of the new file."""

from pathlib import Path

from gguf import GGUFValueType, LlamaFileType

from gguf_golf import __version__
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.formats.types import QuantType
from gguf_golf.models import MetadataField, Model
from gguf_golf.models.roles import is_quantizable

# Set anew here: what the source says of these is not true of the new file.
_REPLACED = ("general.file_type", "general.quantization_version", "general.alignment", "split.", "quantize.imatrix.")


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
