"""Rotary positions: what config.json asks for, as GGUF keys and frequency factors."""

import math

import numpy as np
from gguf import GGUFWriter, RopeScalingType

from gguf_golf.errors import InputError
from gguf_golf.models.config import Config
from gguf_golf.models.model import FloatArray


def add_keys(writer: GGUFWriter, config: Config) -> None:
    """Add rope.* to `writer`. Raises InputError for what llama.cpp does not compute."""
    rope = parameters(config)
    _add_rope_scaling(writer, config, rope)
    writer.add_rope_freq_base(rope["rope_theta"])


def parameters(config: Config) -> dict[str, object]:
    """Rotary position settings in transformers 5's form, whichever form config.json has; always with rope_theta."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise InputError(f"{config.directory}/config.json: rope_scaling must be an object, not {given!r}")
    rope = dict(given)
    rope.setdefault("rope_type", rope.get("type", "default"))
    rope.setdefault("rope_theta", config.number("rope_theta", 10000.0))
    if "original_max_position_embeddings" not in rope:
        # transformers 5 takes the trained length of the checkpoint where the scaling does not name one
        rope["original_max_position_embeddings"] = config.values.get(
            "original_max_position_embeddings", config.integer("max_position_embeddings", 2048)
        )
    return rope


def _add_rope_scaling(writer: GGUFWriter, config: Config, rope: dict[str, object]) -> None:
    kind = rope["rope_type"]
    try:
        if kind in ("linear", "yarn"):
            writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
            writer.add_rope_scaling_factor(float(rope["factor"]))  # type: ignore[arg-type]
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))  # type: ignore[call-overload]
            for key, add in (
                ("extrapolation_factor", writer.add_rope_scaling_yarn_ext_factor),
                ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
                ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
                ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
            ):
                if rope.get(key) is not None:
                    add(float(rope[key]))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{config.directory}/config.json: {kind} rope scaling lacks a valid {error}") from error
    # "dynamic" only acts beyond the trained context length, which llama.cpp does not follow (nor does its converter)
    if kind not in ("default", "linear", "yarn", "llama3", "dynamic"):
        raise InputError(f"{config.directory}/config.json: rope scaling {kind!r} is not known for this architecture")


def frequency_factors(config: Config, head_dim: int) -> FloatArray | None:
    """The divisors of the rotary frequencies that llama3 scaling asks for: f32 (head_dim / 2); None for other scalings.

    Source: transformers' modeling_rope_utils._compute_llama3_parameters, evaluated in f32 like llama.cpp's converter.
    """
    rope = parameters(config)
    if rope["rope_type"] != "llama3":
        return None
    try:
        factor, low, high, trained = (
            float(rope.get(key, default))  # type: ignore[arg-type]
            for key, default in (
                ("factor", 8.0),
                ("low_freq_factor", 1.0),
                ("high_freq_factor", 4.0),
                ("original_max_position_embeddings", 8192),
            )
        )
        base = np.float32(rope["rope_theta"])  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"{config.directory}/config.json: llama3 rope scaling: {error}") from error
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    wavelengths = np.float32(2 * math.pi) / (np.float32(1) / base**exponents)
    smooth = (np.float32(trained) / wavelengths - np.float32(low)) / np.float32(high - low)
    blended = 1 / ((1 - smooth) / np.float32(factor) + smooth)
    return np.where(wavelengths < trained / high, 1.0, np.where(wavelengths > trained / low, factor, blended)).astype(
        np.float32
    )
