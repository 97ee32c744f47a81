"""A Hugging Face directory as a Model: which road it takes, and the general.* keys."""

import logging
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFWriter, LlamaFileType

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config, read_config, read_optional_json
from gguf_golf.models.config_keys import unused_keys
from gguf_golf.models.families import family_of
from gguf_golf.models.gguf_file import open_gguf
from gguf_golf.models.gguf_header import check_values
from gguf_golf.models.model import LazyTensor, Model, fields_of
from gguf_golf.models.model_name import harmless_name
from gguf_golf.models.pooling import pooling_type
from gguf_golf.models.tokens import add_tokenizer, note_losses, tokenizer_fields
from gguf_golf.models.unsupported import UnsupportedError
from gguf_golf.models.upstream import convert_upstream
from gguf_golf.models.upstream_config import corrected_metadata
from gguf_golf.models.weights import Weights

# gguf-py remarks on every optional file that a checkpoint does not have
for _name in ("gguf", "metadata"):
    logging.getLogger(_name).setLevel(logging.ERROR)

FILE_TYPES = {"F32": LlamaFileType.ALL_F32, "F16": LlamaFileType.MOSTLY_F16, "BF16": LlamaFileType.MOSTLY_BF16}

EXACT = ("fp8", "mxfp4")
"""Quantizations whose values BF16 or F32 holds exactly."""


def open_directory(directory: Path, *, allow_requantize: bool, trust_remote_code: bool = False) -> Model:
    """Open a Hugging Face directory. Raises InputError for anything that cannot be converted, and says what to do."""
    config = read_config(directory)
    if config.quantization is not None and not allow_requantize:
        way_on = "takes its values exactly" if config.quantization in EXACT else "takes it dequantized"
        raise InputError(
            f"{directory} is already quantized ({config.quantization}): start from full precision, the checkpoint that "
            f"it was made from (or pass --allow-requantize, which {way_on}, and quality is measured against that)"
        )
    try:
        return _open_natively(config)
    except UnsupportedError as reason:
        config.notes.clear()
        return _open_upstream(config, str(reason), trust_remote_code)


def _open_upstream(config: Config, reason: str, trust_remote_code: bool) -> Model:
    """Through llama.cpp's converter, but with the tokenizer of our own writer where that knows it."""
    text = config.text()
    vocab_size = text.integer("vocab_size") if text.values.get("vocab_size") else 0
    known = vocab_size > 0 and tokenizer_fields(config, vocab_size) is not None
    config.notes.clear()
    path = convert_upstream(config, reason, vocab=not known, trust_remote_code=trust_remote_code)
    model = open_gguf(path, allow_requantize=True)
    metadata = corrected_metadata(config, model)
    if known:
        rows = next((tensor.shape[0] for tensor in model.tensors if tensor.name == "token_embd.weight"), vocab_size)
        kept = [field for field in metadata if not field.key.startswith("tokenizer.")]
        metadata = [*kept, *(tokenizer_fields(config, rows) or [])]
    else:
        note_losses(config)
    return Model(model.architecture, harmless_name(metadata, config), model.tensors, config.notes)


def _open_natively(config: Config) -> Model:
    family_class = family_of(config.architecture)
    if family_class is None or config.quantization not in (None, *family_class.quantizations):
        quantized = "" if config.quantization is None else f", quantized with {config.quantization}"
        raise UnsupportedError(f"{config.directory} is {config.architecture}{quantized}")
    family = family_class(config)
    tensors = list(family.tensors(Weights(config)))
    writer = GGUFWriter(path=None, arch=family.architecture)
    _add_general(writer, config.directory, tensors)
    family.add_hyperparameters(writer, FILE_TYPES[_main_type(tensors)])
    if (pooling := pooling_type(config)) is not None:
        writer.add_pooling_type(pooling)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_tokenizer(writer, config)
    check_values(writer, config.directory)
    if unused := unused_keys(config):
        config.note(f"nothing uses these keys of config.json: {', '.join(unused)}")
    return Model(family.architecture, harmless_name(fields_of(writer), config), tensors, config.notes)


def _add_general(writer: GGUFWriter, directory: Path, tensors: list[LazyTensor]) -> None:
    """Add general.*: the model card's front matter, generation_config.json and the directory's name, by gguf-py."""
    total = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    try:
        known = gguf.Metadata.load(model_path=directory, total_params=total)
    except Exception as error:  # a model card is free text, and its parsers raise what they like
        raise InputError(
            f"{directory}: the front matter of README.md, or generation_config.json, cannot be read ({error}); "
            "fix or remove it"
        ) from error
    # gguf-py 0.19 does not know this key of generation_config.json, the pinned llama.cpp does
    sampling = read_optional_json(directory / "generation_config.json")
    known.sampling_penalty_repeat = known.sampling_penalty_repeat or sampling.get("repetition_penalty")
    known.name = known.name or directory.resolve().name
    n_experts = max((tensor.shape[0] for tensor in tensors if len(tensor.shape) > 2), default=0)
    in_experts = sum(int(np.prod(tensor.shape)) for tensor in tensors if len(tensor.shape) > 2)
    each = in_experts // max(n_experts, 1)
    known.size_label = known.size_label or gguf.size_label(total, total - in_experts, each, n_experts)
    writer.add_type(gguf.GGUFType.MODEL)
    known.set_gguf_meta_model(writer)


def _main_type(tensors: list[LazyTensor]) -> str:
    """The type of the first matrix, which is what llama.cpp's converter goes by."""
    return next(tensor.source_type for tensor in tensors if len(tensor.shape) > 1)
