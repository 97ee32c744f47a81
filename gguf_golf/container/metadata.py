"""The metadata of a quantized file: the model's own, with the file type and the provenance of the new file."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from gguf import GGUFValueType, LlamaFileType

from gguf_golf import __version__
from gguf_golf.calibrate.imatrix import Imatrix
from gguf_golf.container.tensors import NOTHING, tensor_infos
from gguf_golf.formats import quant_types, tcq
from gguf_golf.formats.protected import RESIDUAL, Protected
from gguf_golf.formats.quant_types import QuantType
from gguf_golf.models import MetadataField, Model
from gguf_golf.models.gguf_file import KEY_KEPT
from gguf_golf.models.roles import is_quantizable
from gguf_golf.runtime.header import GgufHeader

# What the source says of these is not true of the new file.
_REPLACED = (
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
    "split.",
    "quantize.imatrix.",
    "gguf_golf.",
)

KEY_VERSION = "gguf_golf.version"
KEY_REQUIRES = "gguf_golf.requires"
KEY_RECIPE = "gguf_golf.recipe"
KEY_FINGERPRINT = "gguf_golf.source.fingerprint"
KEY_IMATRIX = "gguf_golf.imatrix.sha256"
KEY_TUNED = "gguf_golf.tune."
"""Prefix of the keys that a tuned file has."""

SAMPLED = "sampled from the model"
"""The text of a file that was tuned on what its model wrote."""

MARK = KEY_VERSION.encode()
"""What every GGUF that we write contains (see files.py)."""


def output_metadata(
    model: Model,
    chosen: dict[str, QuantType],
    imatrix: Imatrix | None,
    imatrix_path: Path | None,
    kept: Collection[str] = (),
    protected: Mapping[str, Protected] = NOTHING,
) -> list[MetadataField]:
    """The model's metadata with the file type and the provenance of the new file; `kept` are the tensors that were on
    their type's lattice already, `protected` the rows that are protected, by matrix."""
    own = [field for field in model.metadata if not field.key.startswith(_REPLACED)]
    added = [
        MetadataField("general.file_type", file_type(model, chosen), GGUFValueType.UINT32),
        MetadataField("general.quantization_version", 2, GGUFValueType.UINT32),
        MetadataField(KEY_VERSION, __version__, GGUFValueType.STRING),
    ]
    tensors = tensor_infos(model, chosen, protected)
    if any(tensor.type.tcq for tensor in tensors):
        added.append(MetadataField(tcq.FORMAT_KEY, tcq.FORMAT_VERSION, GGUFValueType.UINT32))
    if kept:
        added.append(MetadataField(KEY_KEPT, sorted(kept), GGUFValueType.ARRAY, GGUFValueType.STRING))
    if imatrix is not None and imatrix_path is not None:
        added += [
            MetadataField("quantize.imatrix.file", imatrix_path.name, GGUFValueType.STRING),
            MetadataField("quantize.imatrix.dataset", ", ".join(imatrix.datasets), GGUFValueType.STRING),
            MetadataField("quantize.imatrix.entries_count", len(imatrix.entries), GGUFValueType.UINT32),
            MetadataField("quantize.imatrix.chunks_count", imatrix.chunk_count, GGUFValueType.UINT32),
        ]
    if (needed := needs((tensor.name, tensor.type.name) for tensor in tensors)) is not None:
        words = (
            f"{needed}; any other llama.cpp refuses this file. The Python package gguf-golf {__version__} builds it."
        )
        added.append(MetadataField(KEY_REQUIRES, words, GGUFValueType.STRING))
    return own + added


def needs(tensors: Iterable[tuple[str, str]]) -> str | None:
    """What runs a file with these tensors, given as (name, type), where that is not any llama.cpp."""
    ours = only_ours(tensors)
    return f"gguf-golf's llama.cpp, for {', '.join(ours)}" if ours else None


def only_ours(tensors: Iterable[tuple[str, str]]) -> list[str]:
    """What only gguf-golf's llama.cpp reads of these tensors, given as (name, type): types, and protected rows."""
    tensors = list(tensors)
    ours = sorted({t for _, t in tensors if t in quant_types.ALL and not quant_types.get(t).is_stock})
    return [*ours, *(["protected rows"] if any(name.endswith(RESIDUAL) for name, _ in tensors) else [])]


def tuned_words(header: GgufHeader) -> str | None:
    """What a tuned file says of its training, such as "weights and norms, 400 steps, ..."; None for other files."""
    trained, text = (header.text(KEY_TUNED + name) for name in ("trained", "text"))
    if trained is None or text is None:
        return None
    steps, tokens = (header.integer(KEY_TUNED + name) or 0 for name in ("steps", "tokens"))
    return f"{trained}, {steps:,} steps, {tokens:,} tokens of text {'' if text == SAMPLED else 'of '}{text}"


def recipe_metadata(
    model: Model,
    chosen: dict[str, QuantType],
    *,
    recipe_text: str,
    fingerprint: str,
    imatrix: Imatrix | None,
    imatrix_name: str,
    imatrix_sha256: str,
    kept: Collection[str] = (),
    protected: Mapping[str, Protected] = NOTHING,
) -> list[MetadataField]:
    """Metadata of a file made from a recipe: `output_metadata`, the recipe, and hashes of what it was made of."""
    fields = output_metadata(model, chosen, imatrix, Path(imatrix_name), kept, protected)
    fields.append(MetadataField(KEY_FINGERPRINT, fingerprint, GGUFValueType.STRING))
    if imatrix is not None:
        fields.append(MetadataField(KEY_IMATRIX, imatrix_sha256, GGUFValueType.STRING))
    fields.append(MetadataField(KEY_RECIPE, recipe_text, GGUFValueType.STRING))
    return fields


def file_type(model: Model, chosen: dict[str, QuantType]) -> int:
    """llama.cpp's number for the type that most weights of the linear layers have; it only names the file in logs."""
    weights: dict[QuantType, int] = {}
    for tensor in model.tensors:
        if is_quantizable(tensor):
            quant_type = chosen[tensor.name]
            weights[quant_type] = weights.get(quant_type, 0) + tensor.n_rows * tensor.shape[-1]
    main = max(weights, key=lambda quant_type: weights[quant_type], default=None)
    return int(LlamaFileType.ALL_F32) if main is None else main.file_type
